//! The room: a Debian root with the peers, and namespaces and cgroups that are gone after the run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::debian;
use rustix::fs::{FlockOperation, flock};

use super::Options;

/// What the peers are made of. Versions are those of Debian 13, which the targets were set against.
const SUITE: &str = "trixie";
const PACKAGES: [&str; 16] = [
    "docker.io",
    "docker-cli",
    "docker-registry",
    "containerd",
    "runc",
    "crun",
    "podman",
    "netavark",
    "conmon",
    "nftables",
    "iptables",
    "iproute2",
    "procps",
    "strace",
    "busybox-static",
    "ca-certificates",
];

/// Where the programs under test and the results are in the room.
pub(super) const PROGRAMS: &str = "/opt/hull-bench/programs";
pub(super) const RESULTS: &str = "/opt/hull-bench/results";

/// Makes the root unless it is there.
pub(super) fn make_root(root: &Path) -> Result<()> {
    if root.join("usr/bin/crun").is_file() {
        return Ok(());
    }
    ensure!(
        !root.exists(),
        "{} is there and has no crun in it: remove it, or name another place",
        root.display()
    );
    if let Some(folder) = root.parent() {
        fs::create_dir_all(folder)?;
    }
    debian::tree(SUITE, root, &PACKAGES)
}

/// What the engines write, each on the disk that the results are on and gone after the run.
const STORES: [&str; 3] = ["docker", "containers", "hull-bench"];

/// The first process: mounts, then changes the root and stays to reap. Arguments: root, programs, results, and the
/// command in the room.
const FIRST: &str = r#"set -e
R=$1 P=$2 O=$3; shift 3
mount --make-rprivate /
mount --bind "$R" "$R"
mkdir -p "$R/opt/hull-bench/programs" "$R/opt/hull-bench/results" "$R/.outside"
mount --bind "$P" "$R/opt/hull-bench/programs"
for s in $STORES; do
    mkdir -p "$R/var/lib/$s"
    mount --bind "$P/stores/$s" "$R/var/lib/$s"
done
mount --bind "$O" "$R/opt/hull-bench/results"
mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys"
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$R/sys/fs/cgroup"
    for h in /sys/fs/cgroup/*/; do
        [ -f "$h/cgroup.procs" ] || continue
        n=$(basename "$h"); mkdir "$R/sys/fs/cgroup/$n"
        case $n in
            unified) mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup/$n" ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup "$R/sys/fs/cgroup/$n" ;;
            *) mount -t cgroup -o "$n" cgroup "$R/sys/fs/cgroup/$n" ;;
        esac
    done
    # crun refuses a hybrid machine while version 2 has a controller: those go to version 1 as long as the room lasts.
    for c in $(cat "$R/sys/fs/cgroup/unified/cgroup.controllers" 2>/dev/null); do
        mkdir "$R/sys/fs/cgroup/$c"
        mount -t cgroup -o "$c" cgroup "$R/sys/fs/cgroup/$c" 2>/dev/null || rmdir "$R/sys/fs/cgroup/$c"
    done
fi
mount --rbind /dev "$R/dev"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$R/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$R/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
ip link set lo up
hostname room
cd "$R"
pivot_root . .outside
chroot . /bin/sh -c 'umount -l /.outside; mkdir -p /run/lock; "$@"; code=$?; exit $code' sh "$@"
exit $?"#;

/// Runs `xtask bench-inside` in the room.
pub(super) fn measure(root: &Path, programs: &Path, results: &Path, options: &Options) -> Result<()> {
    let lock = fs::File::create(root.with_extension("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).context("another run uses the room")?;
    let place = tempfile::tempdir_in(results)?;
    // The task runs in the room under its own name, beside the programs it measures.
    let measured: &[&str] = if options.of_runtimes() { &["hull-runtime"] } else { &crate::project::ENGINE };
    for program in measured {
        fs::copy(programs.join(program), place.path().join(program))
            .with_context(|| (*program).to_owned())?;
    }
    if let Some(youki) = std::env::var_os(super::runtimes::YOUKI) {
        fs::copy(youki, place.path().join(super::runtimes::YOUKI_PROGRAM)).context("youki")?;
    }
    fs::copy("/proc/self/exe", place.path().join("xtask"))?;
    for store in STORES {
        fs::create_dir_all(place.path().join("stores").join(store))?;
    }
    let cgroups = Cgroups::new()?;
    let mut command = Command::new("sh");
    command.args(["-c", "for d in $D; do echo $$ > $d/cgroup.procs; done; exec \"$@\"", "sh"]);
    command.env("D", cgroups.list()).env("STORES", STORES.join(" "));
    command.args([
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--uts",
        "--ipc",
        "--cgroup",
        "--fork",
        "--kill-child",
    ]);
    command.args(["sh", "-c", FIRST, "sh"]).arg(root).arg(place.path()).arg(results);
    command.arg(format!("{PROGRAMS}/xtask")).args([
        "bench-inside",
        "--samples",
        &options.samples.to_string(),
    ]);
    command.args(&options.rows).stdin(Stdio::null());
    let status = command.status().context("unshare");
    drop(cgroups);
    ensure!(status?.success(), "what failed in the room is told above");
    Ok(())
}

/// A cgroup of the room in every hierarchy; what the peers make lies below. The room goes before anything else that
/// runs on the machine.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn new() -> Result<Self> {
        let name = format!("hull-bench-{}", std::process::id());
        let base = Path::new("/sys/fs/cgroup");
        let roots = if base.join("cgroup.controllers").exists() {
            vec![base.to_path_buf()]
        } else {
            let folders = fs::read_dir(base)?
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .filter(|entry| entry.path().join("cgroup.procs").exists());
            folders.map(|entry| entry.path()).collect()
        };
        let mut made = Self(Vec::new());
        for root in roots {
            let folder = root.join(&name);
            fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
            made.0.push(folder.clone());
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = fs::read(root.join(file)) {
                    fs::write(folder.join(file), all)?;
                }
            }
            let _ = fs::write(folder.join("cpu.shares"), "200000");
            let _ = fs::write(folder.join("cpu.weight"), "10000");
        }
        Ok(made)
    }

    fn list(&self) -> String {
        self.0.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            // The last process may still be on its way out.
            let _ = hull_fixtures::wait::until("the room's cgroups to be empty", || {
                remove(folder);
                (!folder.exists()).then_some(())
            });
        }
    }
}

fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}
