# A room for other engines: a Debian root with nothing of it changed, under mounts, network and processes that end with the
# caller. Arguments: the root, the runtime, an archive of a root file system, the script to run inside, its word.
set -e
root=$1 runtime=$2 archive=$3 script=$4 caller=$5
room=$(mktemp -d)
mount -t tmpfs tmpfs "$room"
mkdir "$room/upper" "$room/work" "$room/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$room/upper,workdir=$room/work" "$room/root"
for place in dev sys; do mount --rbind "/$place" "$room/root/$place"; done
mount -t proc proc "$room/root/proc"
mkdir -p "$room/root/var/lib/engines" "$room/root/opt/hull"
for place in run tmp var/lib/engines; do mount -t tmpfs tmpfs "$room/root/$place"; done
cp "$runtime" "$room/root/opt/hull/hull-runtime"
cp "$archive" "$room/root/opt/hull/root.tar"
cp "$script" "$room/root/opt/hull/script"
ip link set lo up
cd /
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PODMAN_IGNORE_CGROUPSV1_WARNING=1 \
    exec chroot "$room/root" sh /opt/hull/script "$caller"
