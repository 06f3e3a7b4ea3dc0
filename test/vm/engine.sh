# Runs inside the emulated machine (cargo xtask vm): the engine on cgroup v2, on an older kernel, with AppArmor present.
set -u
failed=0
check() { # check NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then echo "ok   $1"; else echo "FAIL $1: expected '$2', got '$3'"; failed=1; fi
}
mkdir -p /img/bin /img/etc /img/tmp
cp /bin/busybox /img/bin/busybox
for a in sh cat true sleep echo id grep wget nc httpd mknod ls ps kill touch mount umount mkdir; do ln -s busybox /img/bin/$a; done
echo root:x:0:0:root:/root:/bin/sh > /img/etc/passwd
tar -C /img -cf /img.tar .

hulld >/run/hulld.log 2>&1 &
for i in $(seq 100); do hull version >/dev/null 2>&1 && break; sleep 0.1; done
hull version >/dev/null || { cat /run/hulld.log; exit 1; }
hull import /img.tar busybox >/dev/null || exit 1

check "exit status" 7 "$(hull run --rm busybox sh -c 'exit 7'; echo $?)"
check "cgroup version" 2 "$(hull info --format '{{.CgroupVersion}}')"
check "memory limit" 33554432 "$(hull run --rm -m 32m --network none busybox cat /sys/fs/cgroup/memory.max)"
check "pids limit" 20 "$(hull run --rm --pids-limit 20 --network none busybox cat /sys/fs/cgroup/pids.max)"
check "cpu limit" "50000 100000" "$(hull run --rm --cpus 0.5 --network none busybox cat /sys/fs/cgroup/cpu.max)"
check "no other cgroup is seen" "0::/" "$(hull run --rm --network none busybox cat /proc/self/cgroup)"
check "swap limit" 33554432 "$(hull run --rm -m 32m --network none busybox cat /sys/fs/cgroup/memory.swap.max)"
check "memory reservation" 16777216 "$(hull run --rm --memory-reservation 16m --network none busybox cat /sys/fs/cgroup/memory.low)"
check "cpu shares" 20 "$(hull run --rm --cpu-shares 512 --network none busybox cat /sys/fs/cgroup/cpu.weight)"
check "cpu set" 1 "$(hull run --rm --cpuset-cpus 1 --network none busybox cat /sys/fs/cgroup/cpuset.cpus.effective)"
check "device throttled" "7:0 rbps=1048576 wbps=max riops=max wiops=max" "$(hull run --rm --device-read-bps /dev/loop0:1mb --network none busybox cat /sys/fs/cgroup/io.max)"
check "io weight" "default 5000" "$(hull run --rm --blkio-weight 505 --network none busybox cat /sys/fs/cgroup/io.weight 2>&1 | head -1)"
check "device refused" "made Operation not permitted" "$(hull run --rm --cap-add MKNOD --network none busybox sh -c 'mknod /tmp/mem c 1 1 && echo -n made; cat /tmp/mem 2>&1 >/dev/null | grep -o " Operation not permitted"')"
check "cgroups are read-only" 1 "$(hull run --rm --network none busybox sh -c 'mkdir /sys/fs/cgroup/x 2>/dev/null; echo $?')"
check "cgroup namespace of the host" 1 "$(hull run --rm --cgroupns host --network none busybox sh -c 'p=$(cat /proc/self/cgroup); cat /sys/fs/cgroup${p#0::}/cgroup.procs | grep -c "^"' | grep -c '[1-9]')"
check "device allowed" ok "$(hull run --rm --network none busybox sh -c 'cat </dev/null >/dev/null && echo ok')"

hull run -d --name web -p 8080:80 -m 64m busybox sh -c 'echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
for i in $(seq 50); do wget -q -O- http://127.0.0.1:8080/ >/dev/null 2>&1 && break; sleep 0.1; done
check "published port" hello "$(wget -q -O- http://127.0.0.1:8080/)"
check "exec" 3 "$(hull exec web sh -c 'exit 3'; echo $?)"
hull pause web; check "paused" true "$(hull inspect -f '{{.State.Paused}}' web)"
hull unpause web; check "runs again" running "$(hull inspect -f '{{.State.Status}}' web)"
hull update -m 48m --memory-swap 48m web >/dev/null
check "updated limit" 50331648 "$(hull exec web cat /sys/fs/cgroup/memory.max)"
check "stats" 1 "$(hull stats --no-stream --format '{{.Name}}' | grep -c web)"
check "killed for memory" "137 true" "$(hull run --name oom -m 16m --network none busybox sh -c 'x=a; while :; do x=$x$x; done' >/dev/null 2>&1; hull inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' oom)"
check "memory in stats" 1 "$(hull stats --no-stream --format '{{.MemUsage}}' web | grep -c '/ 48MiB')"
hull rm -f web oom >/dev/null

# Privileges: whole devices, writable cgroups that are the container's own.
check "privileged" "0::/ ok" "$(hull run --rm --privileged --network none busybox sh -c 'echo -n "$(cat /proc/self/cgroup) "; mkdir /sys/fs/cgroup/x && mount -t tmpfs none /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs none /mnt && echo ok')"
check "user namespace of the host" 0 "$(hull run --rm --userns host --network none busybox id -u)"
check "no AppArmor profile" unconfined "$(hull run --rm --security-opt apparmor=unconfined --network none busybox cat /proc/self/attr/current)"
hull run --rm --security-opt apparmor=no-such-profile --network none busybox true >/run/apparmor.log 2>&1
check "a profile that is not loaded is no excuse" "125 1" "$? $(grep -c no-such-profile /run/apparmor.log)"
check "security options" "[name=seccomp,profile=builtin name=cgroupns]" "$(hull info --format '{{.SecurityOptions}}')"
check "seccomp" 2 "$(hull run --rm --network none busybox grep -w Seccomp: /proc/self/status | grep -o '[0-9]')"

# A container that hands its controllers down, as an init system does, still takes an exec.
hull run -d --name nested --privileged --network none busybox sh -c 'mkdir /sys/fs/cgroup/init; echo 1 >/sys/fs/cgroup/init/cgroup.procs; echo +memory +pids >/sys/fs/cgroup/cgroup.subtree_control; touch /ready; exec sleep 1000' >/dev/null
for i in $(seq 50); do hull exec nested ls /ready >/dev/null 2>&1 && break; sleep 0.1; done
check "exec beside nested cgroups" "0::/init" "$(hull exec nested cat /proc/self/cgroup)"
check "top" 1 "$(hull top nested | grep -c 'sleep 1000')"
hull pause nested >/dev/null
check "exec while paused" 1 "$(hull exec nested true >/dev/null 2>&1; echo $?)"
hull kill nested >/dev/null
check "killed while paused" 137 "$(hull wait nested)"
hull rm nested >/dev/null

check "init" 1 "$(hull run --rm --init --network none busybox ps | grep -c '^ *1 .*init')"
hull volume create data >/dev/null
hull run --rm -v data:/data --network none busybox sh -c 'echo kept >/data/file'
check "volume" kept "$(hull run --rm -v data:/data:ro --network none busybox cat /data/file)"
check "read-only volume" 1 "$(hull run --rm -v data:/data:ro --network none busybox sh -c 'echo x >/data/file' 2>/dev/null; echo $?)"
hull volume rm data >/dev/null
mkdir -p /root/bound && echo host >/root/bound/file
check "bind" host "$(hull run --rm -v /root/bound:/b --network none busybox cat /b/file)"
hull create --name copied --network none busybox cat /copied >/dev/null
hull cp /root/bound/file copied:/copied && hull start -a copied >/run/copied
check "cp into, start" host "$(cat /run/copied)"
hull cp copied:/copied /root/back
check "cp from" host "$(cat /root/back)"
check "diff" "A /copied" "$(hull diff copied)"
hull commit copied with-file >/dev/null
check "commit" host "$(hull run --rm --network none with-file cat /copied)"
hull rm copied >/dev/null

# The first packet of a container arrives: without a bridge that forwards at once it would be lost, and sent again
# after a second.
httpd -p 172.17.0.1:8099 -h /root/bound
late=0
for i in 1 2 3 4 5 6; do
  took=$(hull run --rm busybox sh -c 'r() { read -r up idle </proc/uptime; up=${up%.*}${up#*.}; }; r; a=$up; wget -q -O /dev/null http://172.17.0.1:8099/file || echo 900; r; echo $((up - a))' | tail -1)
  [ "$took" -lt 90 ] || { late=$((late + 1)); echo "     $took hundredths of a second"; }
done
check "first packets arrive" 0 $late

# The runtime by itself.
mkdir -p /bundle/rootfs && cp -a /img/. /bundle/rootfs && cd /bundle && hull-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "1000"/; s/"resources": {/"resources": {"memory": {"limit": 16777216}, "pids": {"limit": 12},/' config.json
hull-runtime create alone </dev/null >/run/alone.log 2>&1 || cat /run/alone.log
check "runtime: created" 1 "$(hull-runtime state alone | grep -c '"status": "created"')"
hull-runtime start alone
check "runtime: limits" "16777216 12" "$(echo $(hull-runtime exec alone cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max))"
check "runtime: exec status" 9 "$(hull-runtime exec alone sh -c 'exit 9'; echo $?)"
hull-runtime pause alone
check "runtime: paused" 1 "$(hull-runtime state alone | grep -c '"status": "paused"')"
hull-runtime resume alone
check "runtime: events" 16777216 "$(hull-runtime events --stats alone | grep -o '"limit":16777216' | head -1 | grep -o '[0-9]*')"
hull-runtime delete --force alone
check "runtime: gone" 1 "$(hull-runtime state alone >/dev/null 2>&1; echo $?)"
check "runtime: no cgroup" 0 "$(ls -d /sys/fs/cgroup/alone 2>/dev/null | grep -c .)"
cd /

sleep 0.5
check "no cgroup left" 0 "$(find /sys/fs/cgroup -mindepth 2 -type d -path '*hull*' | grep -cE '[0-9a-f]{64}')"
[ $failed = 0 ] || { echo "--- hulld.log"; tail -50 /run/hulld.log; }
exit $failed
