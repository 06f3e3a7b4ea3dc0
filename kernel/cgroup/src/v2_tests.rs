//! cgroup v2 where the machine may have v1: files that look like its own, and the empty cgroup2 of a hybrid machine, which
//! freezes, kills and filters devices too.

use super::*;
use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResourcesBuilder, LinuxThrottleDeviceBuilder,
};
use std::fs::{read_to_string, write};
use std::process::{Child, Command};
use std::sync::Mutex;

/// A directory with the files of a cgroup, which keep the last text written.
struct Files {
    root: tempfile::TempDir,
    cgroup: Cgroup,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("directory");
        std::fs::create_dir(root.path().join("c")).expect("mkdir");
        for (name, text) in files {
            write(root.path().join("c").join(name), text).expect("write");
        }
        let cgroup = unified_at(root.path()).open("/c");
        Self { root, cgroup }
    }

    fn text(&self, name: &str) -> String {
        read_to_string(self.root.path().join("c").join(name)).expect("read")
    }
}

fn unified_at(root: &Path) -> Cgroups {
    let layout = Layout { mode: Mode::V2, v1: Vec::new(), unified: Some(root.to_owned()) };
    Cgroups { layout: Arc::new(layout) }
}

#[test]
fn limits_are_written_as_the_kernel_takes_them() {
    const NAMES: [&str; 9] = [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "pids.max",
        "io.max",
        "cpuset.cpus",
        "hugetlb.2MB.max",
    ];
    let files = Files::new(&NAMES.map(|name| (name, "")));
    let memory = LinuxMemoryBuilder::default().limit(64i64 << 20).swap(96i64 << 20).reservation(1i64 << 20);
    let cpu = LinuxCpuBuilder::default().shares(1024u64).quota(50_000i64).period(100_000u64).cpus("0");
    let throttle =
        LinuxThrottleDeviceBuilder::default().major(7).minor(0).rate(1_048_576u64).build().expect("device");
    let io = LinuxBlockIoBuilder::default().throttle_read_bps_device(vec![throttle]);
    let resources = LinuxResourcesBuilder::default()
        .memory(memory.build().expect("memory"))
        .cpu(cpu.build().expect("cpu"))
        .pids(LinuxPidsBuilder::default().limit(-1i64).build().expect("pids"))
        .block_io(io.build().expect("io"))
        .devices(Vec::new())
        .build()
        .expect("resources");
    files.cgroup.apply(&resources).expect("apply");
    let written = NAMES.map(|name| files.text(name));
    let expected =
        ["67108864", "33554432", "1048576", "39", "50000 100000", "max", "7:0 rbps=1048576", "0", ""];
    assert_eq!(written, expected);
}

#[test]
fn a_limit_without_its_controller_says_which() {
    let files = Files::new(&[]);
    let pids = LinuxPidsBuilder::default().limit(10i64).build().expect("pids");
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_pids(Some(pids));
    let error = files.cgroup.apply(&resources).expect_err("no controller");
    assert!(error.to_string().contains("pids"), "{error}");
}

#[test]
fn statistics_are_read_as_the_kernel_writes_them() {
    let files = Files::new(&[
        (
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.max", "max\n"),
        ("memory.swap.current", "1\n"),
        ("memory.stat", "anon 100\nfile 200\ninactive_file 50\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ("pids.current", "5\n"),
        ("pids.max", "20\n"),
        ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:0 \n"),
    ]);
    let stats = files.cgroup.stats().expect("stats");
    assert_eq!((stats.cpu.total, stats.cpu.user, stats.cpu.system), (1_500_000, 1_000_000, 500_000));
    assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_time), (4, 2, 7_000));
    assert_eq!((stats.memory.usage, stats.memory.max_usage, stats.memory.swap), (4096, 8192, 1));
    assert_eq!((stats.memory.limit, stats.memory.failcnt), (u64::MAX, 3));
    assert_eq!(stats.memory.stat["inactive_file"], 50);
    assert_eq!((stats.pids.current, stats.pids.limit), (5, Some(20)));
    let disk = IoStats { major: 254, minor: 0, read_bytes: 10, write_bytes: 20, reads: 1, writes: 2 };
    assert_eq!(stats.io[0], disk);
    assert_eq!(files.cgroup.oom_kills().expect("events"), 1);
}

#[test]
fn controllers_are_enabled_down_to_the_parent_only() {
    let root = tempfile::tempdir().expect("directory");
    std::fs::create_dir_all(root.path().join("a/b")).expect("mkdir");
    for (directory, enabled) in [("", "cpu\n"), ("a", ""), ("a/b", "")] {
        write(root.path().join(directory).join("cgroup.controllers"), "cpu memory pids\n").expect("write");
        write(root.path().join(directory).join("cgroup.subtree_control"), enabled).expect("write");
    }
    v2::enable_controllers(root.path(), "/a/b").expect("enable");
    let control = |directory: &str| {
        read_to_string(root.path().join(directory).join("cgroup.subtree_control")).expect("read")
    };
    // Processes live in the last one: what is enabled there would keep them out.
    assert_eq!([control(""), control("a"), control("a/b")], ["+memory +pids", "+cpu +memory +pids", ""]);
}

#[test]
fn a_cgroup_with_processes_hands_nothing_down_and_is_named() {
    let files = Files::new(&[("cgroup.controllers", ""), ("cgroup.subtree_control", "")]);
    let above = files.root.path();
    for (name, text) in [
        ("cgroup.controllers", "memory pids\n"),
        ("cgroup.subtree_control", ""),
        ("cgroup.type", "domain\n"),
        ("cgroup.procs", "1\n7\n"),
    ] {
        write(above.join(name), text).expect("write");
    }
    v2::enable_controllers(above, "/c").expect("enable");
    assert_eq!(read_to_string(above.join("cgroup.subtree_control")).expect("read"), "");
    let mut resources = LinuxResources::default();
    let pids = LinuxPidsBuilder::default().limit(10i64).build().expect("pids");
    resources.set_devices(None).set_pids(Some(pids));
    let error = files.cgroup.apply(&resources).expect_err("occupied");
    assert!(matches!(&error, Error::Occupied { controller: "pids", path, .. } if path == above), "{error}");
}

#[test]
fn the_unified_line_is_found_among_those_of_v1() {
    let text = "4:memory:/x\n1:name=systemd:/x\n0::/hull-ab/cd/init.scope\n";
    assert_eq!(unified_membership(text), Some("/hull-ab/cd/init.scope"));
    assert_eq!(unified_membership("4:memory:/x\n"), None);
}

/// A cgroup in this machine's cgroup2 hierarchy, with or without controllers, and a process in it.
struct Unified {
    cgroup: Cgroup,
    process: Child,
}

/// How many [`Unified`] there are, and what the machine's root handed down before the first: the last one puts that back.
static USERS: Mutex<(usize, String)> = Mutex::new((0, String::new()));

const ROOT_CONTROL: &str = "cgroup.subtree_control";

fn enter(root: &Path) {
    let mut users = USERS.lock().expect("users");
    if users.0 == 0 {
        users.1 = read_to_string(root.join(ROOT_CONTROL)).expect("read");
    }
    users.0 += 1;
}

fn leave(root: &Path) {
    let mut users = USERS.lock().expect("users");
    users.0 -= 1;
    if users.0 == 0 {
        let now = read_to_string(root.join(ROOT_CONTROL)).unwrap_or_default();
        for added in now.split_whitespace().filter(|name| !users.1.split_whitespace().any(|old| old == *name))
        {
            let _ = write(root.join(ROOT_CONTROL), format!("-{added}"));
        }
    }
}

impl Unified {
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let root = Cgroups::detect().ok()?.layout.unified.clone()?;
        enter(&root);
        let cgroup = unified_at(&root).create(&crate::tests::name(test), None).expect("create");
        let procs = cgroup.unified_directory().expect("v2").join("cgroup.procs");
        let script = format!("echo 0 > {} && echo in && exec sleep 1000", procs.display());
        let mut command = Command::new("sh");
        let mut process =
            command.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().expect("sh");
        let mut said = String::new();
        let output = process.stdout.take().expect("output");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut said).expect("read");
        assert_eq!(said, "in\n");
        Some(Self { cgroup, process })
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("pid")
    }
}

impl Drop for Unified {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        let _ = self.process.wait();
        let _ = self.cgroup.remove();
        if let Some(root) = &self.cgroup.layout.unified {
            leave(root);
        }
    }
}

#[test]
fn a_frozen_cgroup_is_killed_at_once() {
    let Some(mut unified) = Unified::new("v2-kill") else { return };
    unified.cgroup.freeze().expect("freeze");
    assert!(unified.cgroup.frozen().expect("frozen"));
    assert_eq!(unified.cgroup.pids().expect("pids"), [unified.pid()]);
    unified.cgroup.kill().expect("kill");
    let status = unified.process.wait().expect("wait");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    unified.cgroup.remove().expect("remove");
    assert!(!unified.cgroup.exists());
}

#[test]
fn a_device_program_refuses_and_is_replaced() {
    let Some(unified) = Unified::new("v2-devices") else { return };
    let rule = |allow: bool, minor: i64| {
        let rule = LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm");
        rule.typ(LinuxDeviceType::C).major(1).minor(minor).build().expect("rule")
    };
    let apply = |refused: i64| {
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(vec![rule(false, refused)]));
        unified.cgroup.apply(&resources).expect("apply");
    };
    let procs = unified.cgroup.unified_directory().expect("v2").join("cgroup.procs");
    let opens = |device: &str| {
        let script = format!("echo 0 > {} && : < {device}", procs.display());
        let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
        output.status.success()
    };
    assert!(opens("/dev/null") && opens("/dev/zero"));
    apply(5);
    assert!(opens("/dev/null") && !opens("/dev/zero"));
    apply(3);
    assert!(!opens("/dev/null") && opens("/dev/zero"), "the rules before are gone");
}

#[test]
fn a_further_process_goes_where_its_neighbour_is() {
    let Some(unified) = Unified::new("v2-beside") else { return };
    let own = unified.cgroup.clone_into_beside(unified.pid()).expect("own").expect("v2");
    let directory = unified.cgroup.unified_directory().expect("v2");
    let same = |fd: &OwnedFd, path: &Path| {
        rustix::fs::fstat(fd).expect("stat").st_ino == rustix::fs::stat(path).expect("stat").st_ino
    };
    assert!(same(&own, &directory));
    let below = unified_at(unified.cgroup.layout.unified.as_ref().expect("v2"))
        .create(&format!("{}/init", unified.cgroup.path()), None)
        .expect("create");
    let inner = below.unified_directory().expect("v2");
    write(inner.join("cgroup.procs"), unified.pid().to_string()).expect("move");
    // A machine whose cgroup2 has no controller to hand down has no such rule either.
    let controllers = read_to_string(directory.join("cgroup.controllers")).expect("read");
    let Some(first) = controllers.split_whitespace().next() else { return };
    write(directory.join("cgroup.subtree_control"), format!("+{first}")).expect("enable");
    assert!(same(&unified.cgroup.clone_into_beside(unified.pid()).expect("beside").expect("v2"), &inner));
}
