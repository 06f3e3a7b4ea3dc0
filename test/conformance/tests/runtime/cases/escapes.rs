//! Published escapes and confusions of runc and crun, each tried in the way it was done. What an image, a volume or a process
//! controls is made hostile here; what must stay as it was is a *canary*: a folder of the machine beside the bundle.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::Ran;
use rustix::fs::{CWD, RenameFlags};
use serde_json::{Value, json};

use crate::{
    bundle::{Bundle, push},
    under_test::Runtime,
};

/// How often a race is run. Each must fail to escape; a runtime that loses one in ten is found all the same.
const ROUNDS: usize = 25;

/// A folder of the machine that a container has no business with, and what is in it.
struct Canary(PathBuf);

impl Canary {
    fn new(bundle: &Bundle) -> Result<Self> {
        let folder = bundle.folder().join("canary");
        fs::create_dir(&folder)?;
        for name in ["ptmx", "console", "null", "file"] {
            fs::write(folder.join(name), "alive\n")?;
        }
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn text(&self) -> Result<&str> {
        self.0.to_str().context("path")
    }

    /// Nothing was added, removed, written or replaced.
    fn lives(&self) -> Result<()> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            ensure!(entry.file_type()?.is_file(), "{:?} was put there", entry.file_name());
            ensure!(fs::read_to_string(entry.path())? == "alive\n", "{:?} was changed", entry.file_name());
            seen.push(entry.file_name().to_string_lossy().into_owned());
        }
        seen.sort();
        ensure!(seen == ["console", "file", "null", "ptmx"], "there is {seen:?}");
        Ok(())
    }
}

fn without_mount(spec: &mut Value, point: &str) {
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"].as_str().is_none_or(|at| !at.starts_with(point)));
    }
}

fn bind(source: &str, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["bind", "rw"]})
}

/// Puts a link where the image has a folder or nothing.
fn replace(place: &Path, target: impl AsRef<Path>) -> Result<()> {
    let _ = fs::remove_dir(place);
    let _ = fs::remove_file(place);
    symlink(target, place).with_context(|| place.display().to_string())
}

/// Refused, with nothing left to delete.
fn refused(runtime: &Runtime, bundle: &Bundle) -> Result<()> {
    let ran = runtime.run(bundle)?;
    ensure!(ran.code != 0, "it ran: {}", ran.stdout);
    ensure!(runtime.state(bundle).is_none(), "a container is left");
    Ok(())
}

/// CVE-2019-5736: a process of the container keeps the runtime's program open while that enters, and writes to it when it has
/// ended. The program is the copy of a file here, so that a success does no harm.
pub(crate) fn the_runtime_s_program_cannot_be_written(runtime: &Runtime) -> Result<()> {
    let hunt = "while :; do for p in /proc/[0-9]*; do \
                case $(readlink $p/exe) in *busybox*|'') continue;; esac; \
                ( exec 9<$p/exe || exit; echo had >> /had; for i in 1 2 3 4 5 6 7 8 9; do \
                echo overwritten > /proc/self/fd/9; usleep 2000; done ) 2>/dev/null; done; done";
    let bundle = Bundle::sh(runtime, hunt)?;
    let program = runtime.copy_of_program()?;
    let before = fs::read(&program)?;
    runtime.up(&bundle)?;
    let had = bundle.rootfs().join("had");
    for _ in 0..ROUNDS {
        // The command is the runtime itself, which then runs as a process of the container.
        Ran::new(runtime.command_of(&program, &["exec", bundle.id(), "/proc/self/exe", "--version"]))?;
        ensure!(fs::read(&program)? == before, "the runtime's program was overwritten");
    }
    // Without this the test would prove nothing: it did get hold of the program, or was kept from it.
    let kept_out = !had.exists();
    runtime.remove(&bundle)?;
    ensure!(fs::read(&program)? == before, "the runtime's program was overwritten");
    if kept_out {
        eprintln!("    the program was never seen from inside");
    }
    Ok(())
}

/// CVE-2019-16884: a volume over /proc, or in it, catches the security labels that are written there.
pub(crate) fn nothing_is_mounted_over_proc(runtime: &Runtime) -> Result<()> {
    for destination in ["/proc", "/proc/self/attr", "/proc/../proc/self", "/link/self"] {
        let mut bundle = Bundle::sh(runtime, "echo ran")?;
        symlink("proc", bundle.rootfs().join("link"))?;
        let fake = bundle.folder().join("fake");
        fs::create_dir_all(fake.join("self/attr"))?;
        let fake = fake.to_str().context("path")?.to_owned();
        bundle.change(|spec| push(&mut spec["mounts"], bind(&fake, destination)))?;
        refused(runtime, &bundle).with_context(|| destination.to_owned())?;
    }
    Ok(())
}

/// CVE-2019-19921, CVE-2023-27561 (which brought it back): /proc is a link of the image to a folder it controls.
pub(crate) fn proc_and_sys_are_no_links(runtime: &Runtime) -> Result<()> {
    for (link, target) in [("proc", "/etc"), ("proc", "tmp"), ("proc", "tmp/../etc"), ("sys", "/etc")] {
        let bundle = Bundle::sh(runtime, "echo ran")?;
        replace(&bundle.rootfs().join(link), target)?;
        refused(runtime, &bundle).with_context(|| format!("/{link} to {target}"))?;
    }
    Ok(())
}

/// CVE-2023-28642: with /proc a link, what is masked and made read-only is masked elsewhere.
pub(crate) fn masks_do_not_follow_a_link_of_proc(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "echo ran")?;
    let real = bundle.rootfs().join("real/proc/sys");
    fs::create_dir_all(&real)?;
    replace(&bundle.rootfs().join("proc"), "real/proc")?;
    bundle.change(|spec| {
        let tmpfs = json!({"destination": "/real", "type": "tmpfs", "source": "tmpfs", "options": ["rw"]});
        spec["mounts"].as_array_mut().map(|mounts| mounts.insert(0, tmpfs)).unwrap_or_default();
    })?;
    refused(runtime, &bundle)
}

/// Swaps a folder for a link again and again while `work` is done.
fn swapping<T>(folder: &Path, link_to: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let other = folder.with_extension("other");
    symlink(link_to, &other)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, folder, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// CVE-2021-30465: while a volume's folder is being made the place of another mount, a neighbour swaps it for a link to the
/// machine. CVE-2024-45310: the same, and what is left on the machine is an empty file or folder.
fn no_mount_lands_outside(runtime: &Runtime, kind: &str) -> Result<()> {
    for round in 0..ROUNDS {
        let mut bundle = Bundle::sh(runtime, "true")?;
        let canary = Canary::new(&bundle)?;
        let volume = bundle.folder().join("volume");
        fs::create_dir_all(volume.join("swapped"))?;
        let source = bundle.folder().join(kind);
        if kind == "file" {
            fs::write(&source, "x")?
        } else {
            fs::create_dir(&source)?
        };
        let (volume_text, source) =
            (volume.to_str().context("path")?, source.to_str().context("path")?.to_owned());
        bundle.change(|spec| {
            push(&mut spec["mounts"], bind(volume_text, "/volume"));
            for depth in ["made", "made2/deeper", "made3/deeper/still"] {
                push(&mut spec["mounts"], bind(&source, &format!("/volume/swapped/{depth}")));
            }
        })?;
        swapping(&volume.join("swapped"), canary.path(), || {
            // It may fail: a link that changes cannot be followed. It may not go astray.
            runtime.run(&bundle).map(drop)
        })?;
        canary.lives().with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

pub(crate) fn no_mount_lands_outside_in_a_race(runtime: &Runtime) -> Result<()> {
    no_mount_lands_outside(runtime, "folder")
}

pub(crate) fn no_file_is_made_outside_in_a_race(runtime: &Runtime) -> Result<()> {
    no_mount_lands_outside(runtime, "file")
}

/// CVE-2022-29162: `exec --cap` made capabilities inheritable, which a program with file capabilities then gains.
pub(crate) fn exec_makes_nothing_inheritable(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let status = ["grep", "^CapInh", "/proc/self/status"];
    for options in [&[][..], &["--cap", "CAP_KILL"], &["--user", "1000", "--cap", "CAP_KILL"]] {
        let arguments = [&["exec"], options, &[bundle.id()], &status].concat();
        let said = runtime.call(&arguments)?.ok()?;
        ensure!(said == "CapInh:\t0000000000000000", "{options:?}: {said}");
    }
    runtime.remove(&bundle)
}

/// CVE-2023-25809: in a user namespace without a cgroup namespace, the machine's cgroups could be written.
pub(crate) fn the_machine_s_cgroups_are_read_only(runtime: &Runtime) -> Result<()> {
    let try_all = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/escaped 2>/dev/null && echo made $d; \
                   echo 0 > $d/cgroup.procs && echo wrote $d; done 2>/dev/null; echo done";
    let sys = json!({"destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    let cgroup = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]});
    let said = runtime.sh(try_all, |spec| {
        without_mount(spec, "/sys");
        push(&mut spec["mounts"], sys);
        push(&mut spec["mounts"], cgroup);
        spec["linux"]["namespaces"] =
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
    })?;
    ensure!(said == "done", "{said}");
    Ok(())
}

/// CVE-2024-21626: a working directory through a descriptor that the runtime has open is one of the machine.
pub(crate) fn the_working_directory_is_inside(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::new(runtime)?;
    let canary = Canary::new(&bundle)?;
    let look = format!("cat ../../../../../../../..{}/file", canary.text()?);
    let lasting = Bundle::lasting(runtime)?;
    runtime.up(&lasting)?;
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.change(|spec| {
            spec["process"]["cwd"] = json!(cwd);
            spec["process"]["args"] = json!(["/bin/sh", "-c", look]);
        })?;
        let ran = runtime.run(&bundle)?;
        ensure!(!ran.stdout.contains("alive"), "run in {cwd}: {ran}");
        let ran = runtime.call(&["exec", "--cwd", &cwd, lasting.id(), "/bin/sh", "-c", &look])?;
        ensure!(!ran.stdout.contains("alive"), "exec in {cwd}: {ran}");
    }
    runtime.remove(&lasting)
}

/// CVE-2025-31133: the image's /dev/null, which masks other files, is a link to a file it wants to reach.
pub(crate) fn masks_are_the_null_device(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "cat /masked; echo written > /masked; cat /wanted")?;
    let root = bundle.rootfs();
    fs::write(root.join("wanted"), "wanted\n")?;
    fs::write(root.join("masked"), "masked\n")?;
    replace(&root.join("dev/null"), "/wanted")?;
    bundle.change(|spec| {
        without_mount(spec, "/dev");
        spec["linux"]["maskedPaths"] = json!(["/masked"]);
    })?;
    let ran = runtime.run(&bundle)?;
    ensure!(ran.code != 0 || ran.stdout == "wanted\n", "{ran}");
    ensure!(fs::read_to_string(root.join("wanted"))? == "wanted\n", "written through the mask");
    Ok(())
}

/// CVE-2025-52565: the terminal is mounted on /dev/console, which the image made a link to what it wants covered.
pub(crate) fn the_console_covers_nothing_else(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "cat /wanted")?;
    let canary = Canary::new(&bundle)?;
    let root = bundle.rootfs();
    fs::write(root.join("wanted"), "wanted\n")?;
    fs::create_dir_all(root.join("dev/pts"))?;
    for target in [Path::new("/wanted"), &canary.path().join("console")] {
        replace(&root.join("dev/console"), target)?;
        bundle.change(|spec| {
            spec["process"]["terminal"] = json!(true);
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["destination"] != "/dev");
            }
        })?;
        let ran = runtime.run(&bundle)?;
        ensure!(ran.code != 0 || ran.stdout.trim_end() == "wanted", "{ran}");
        canary.lives()?;
    }
    Ok(())
}

/// CVE-2025-52881: what is written to /proc goes where the image made that lead.
pub(crate) fn writes_to_proc_reach_the_kernel(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "cat /real/sys/net/ipv4/ip_forward /real/self/oom_score_adj")?;
    let canary = Canary::new(&bundle)?;
    let file = canary.path().join("file");
    let proc = bundle.rootfs().join("proc");
    for fake in ["sys/net/ipv4/ip_forward", "self/oom_score_adj", "thread-self/attr/exec", "self/attr/exec"] {
        let fake = proc.join(fake);
        fs::create_dir_all(fake.parent().context("no parent")?)?;
        symlink(&file, fake)?;
    }
    bundle.change(|spec| {
        for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/proc" {
                mount["destination"] = json!("/real");
            }
        }
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        spec["process"]["oomScoreAdj"] = json!(321);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    })?;
    let ran = runtime.run(&bundle)?;
    canary.lives()?;
    // Refused is safe, too; done wrongly or not at all is not.
    ensure!(ran.code != 0 || ran.stdout == "1\n321\n", "{ran}");
    Ok(())
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun, told of only as the like): the image's /dev is a link to a folder of the machine,
/// in which the runtime then removed `ptmx` and made its links and nodes.
pub(crate) fn a_link_as_dev_stays_inside(runtime: &Runtime) -> Result<()> {
    for own_dev in [true, false] {
        for relative in [false, true] {
            let mut bundle = Bundle::sh(runtime, "true")?;
            let canary = Canary::new(&bundle)?;
            let up = if relative { "../../../../../../../../../.." } else { "" };
            let target = format!("{up}{}", canary.text()?);
            replace(&bundle.rootfs().join("dev"), target)?;
            bundle.change(|spec| {
                if !own_dev {
                    without_mount(spec, "/dev");
                }
                spec["linux"]["devices"] =
                    json!([{"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 438}]);
            })?;
            let _ = runtime.run(&bundle)?;
            canary.lives().with_context(|| format!("own /dev: {own_dev}, relative: {relative}"))?;
            // The same in two commands, which is another way through the program.
            if runtime.create(&bundle).is_ok() {
                runtime.start(&bundle)?;
            }
            canary.lives().context("create and start")?;
            runtime.remove(&bundle)?;
        }
    }
    Ok(())
}

/// The same one level down: what lies in an image's /dev leads to the machine.
pub(crate) fn links_in_dev_stay_inside(runtime: &Runtime) -> Result<()> {
    for name in ["ptmx", "pts", "shm", "mqueue", "fd", "null", "console", "made"] {
        let mut bundle = Bundle::sh(runtime, "true")?;
        let canary = Canary::new(&bundle)?;
        let folder = matches!(name, "pts" | "shm" | "mqueue");
        let target = if folder { canary.path().to_owned() } else { canary.path().join("file") };
        replace(&bundle.rootfs().join("dev").join(name), target)?;
        bundle.change(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["destination"] != "/dev");
            }
            spec["linux"]["devices"] =
                json!([{"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 438}]);
        })?;
        let _ = runtime.run(&bundle)?;
        canary.lives().with_context(|| format!("/dev/{name}"))?;
    }
    Ok(())
}

/// CVE-2026-30892: `exec --user 1` ran as user 0.
pub(crate) fn exec_as_user_one_is_user_one(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    for (user, expected) in [("1", "1 0"), ("1:1", "1 1"), ("10", "10 0"), ("0:1", "0 1"), ("01", "1 0")] {
        let ran =
            runtime.call(&["exec", "--user", user, bundle.id(), "sh", "-c", "echo $(id -u) $(id -g)"])?;
        ensure!(ran.code != 0 || ran.stdout.trim_end() == expected, "--user {user}: {ran}");
        ensure!(ran.code == 0 || user.starts_with("01"), "--user {user}: {ran}");
    }
    runtime.remove(&bundle)
}

/// What the caller has open must not be reachable while the container waits to be started: CVE-2024-21626's other half.
pub(crate) fn the_caller_s_descriptors_are_closed_before_start(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    let canary = Canary::new(&bundle)?;
    let script = format!("exec \"$@\" 7<{0} 8<{0}/file", canary.text()?);
    let mut command = runtime.host.command(Path::new("sh"));
    command.args(["-c", &script, "sh"]).args(runtime.words(&[
        "create",
        "--bundle",
        bundle.path(),
        bundle.id(),
    ]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(command.status()?.success(), "create");
    let pid = runtime.pid(&bundle)?;
    let links =
        fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let open: Vec<_> = links.filter(|link| link.starts_with(canary.path())).collect();
    runtime.remove(&bundle)?;
    ensure!(open.is_empty(), "the first process has {open:?}");
    Ok(())
}
