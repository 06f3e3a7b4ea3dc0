//! Tests on the machine's own hierarchies, each in a cgroup of its own; skipped where none is mounted.

use super::*;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder,
};
use std::process::{Child, Command};

struct Scratch(Cgroup);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
    }
}

pub(crate) fn name(test: &str) -> String {
    let mut random = [0u8; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).expect("random");
    format!("/hull-test-{test}-{}", random.map(|byte| format!("{byte:02x}")).concat())
}

fn cgroups() -> Option<Cgroups> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    Cgroups::detect().ok()
}

/// A `sleep` that joined the cgroup by itself, as a container does.
fn sleeper_in(cgroup: &Cgroup) -> Child {
    let mut files = Vec::new();
    match cgroup.unified_directory() {
        Some(directory) => files.push(directory.join("cgroup.procs")),
        None => {
            files.extend(cgroup.v1_directories().into_iter().map(|(_, directory)| directory.join("tasks")))
        }
    }
    let joins: String = files.iter().map(|file| format!("echo 0 > {} && ", file.display())).collect();
    let child = Command::new("sh").arg("-c").arg(format!("{joins} exec sleep 1000")).spawn().expect("sh");
    let pid = child.id() as i32;
    while std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("comm").trim() != "sleep" {
        std::thread::yield_now();
    }
    child
}

#[test]
fn limits_are_what_the_kernel_says() {
    let Some(cgroups) = cgroups() else { return };
    let allow = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(oci_spec::runtime::LinuxDeviceType::C)
        .major(1)
        .minor(3)
        .access("rwm")
        .build()
        .expect("rule");
    let deny = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().expect("rule");
    let resources = LinuxResourcesBuilder::default()
        .memory(LinuxMemoryBuilder::default().limit(64 << 20).swap(64 << 20).build().expect("memory"))
        .pids(LinuxPidsBuilder::default().limit(17).build().expect("pids"))
        .cpu(
            LinuxCpuBuilder::default()
                .shares(512u64)
                .quota(50_000i64)
                .period(100_000u64)
                .build()
                .expect("cpu"),
        )
        .devices(vec![deny, allow])
        .build()
        .expect("resources");
    let scratch = Scratch(cgroups.create(&name("limits"), Some(&resources)).expect("create"));
    let stats = scratch.0.stats().expect("stats");
    assert_eq!(stats.memory.limit, 64 << 20);
    assert_eq!(stats.pids, PidsStats { current: 0, limit: Some(17) });
    if cgroups.mode() != Mode::V2 {
        let read = |controller: &str, file: &str| {
            crate::file::read(&scratch.0.v1_directory(controller).expect("there").join(file)).expect("read")
        };
        assert_eq!(read("cpu", "cpu.cfs_quota_us").trim(), "50000");
        assert_eq!(read("cpu", "cpu.shares").trim(), "512");
        assert_eq!(read("devices", "devices.list").trim(), "c 1:3 rwm");
        assert!(!read("cpuset", "cpuset.cpus").trim().is_empty());
    }
    // Lower both, then raise both: the order of the two files matters each time.
    for limit in [32i64 << 20, 128 << 20] {
        let memory = LinuxMemoryBuilder::default().limit(limit).swap(limit).build().expect("memory");
        let update = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
        scratch.0.apply(&update).expect("update");
        assert_eq!(scratch.0.stats().expect("stats").memory.limit, limit as u64);
        assert_eq!(scratch.0.stats().expect("stats").pids.limit, Some(17));
    }
}

#[test]
fn a_nested_cgroup_is_made_and_removed_with_what_is_below() {
    let Some(cgroups) = cgroups() else { return };
    let outer = name("nested");
    let inner = format!("{outer}/a/b");
    cgroups.create(&inner, None).expect("create");
    assert!(cgroups.open(&inner).exists());
    let outer = cgroups.open(&outer);
    outer.remove().expect("remove");
    assert!(outer.directories().all(|directory| !directory.exists()));
    outer.remove().expect("again");
}

#[test]
fn members_are_frozen_thawed_and_killed() {
    let Some(cgroups) = cgroups() else { return };
    let path = name("members");
    let scratch = Scratch(cgroups.create(&path, None).expect("create"));
    let mut child = sleeper_in(&scratch.0);
    assert_eq!(scratch.0.pids().expect("pids"), [child.id() as i32]);
    assert!(matches!(cgroups.create(&path, None), Err(Error::NotEmpty { .. })));
    assert!(scratch.0.exists(), "a refused create must not remove another's cgroup");
    scratch.0.freeze().expect("freeze");
    assert!(scratch.0.frozen().expect("state"));
    scratch.0.thaw().expect("thaw");
    assert!(!scratch.0.frozen().expect("state"));
    scratch.0.freeze().expect("freeze");
    scratch.0.kill().expect("kill");
    assert!(!child.wait().expect("wait").success());
    assert_eq!(scratch.0.oom_kills().expect("oom"), 0);
}

#[test]
fn a_failed_limit_leaves_nothing() {
    let Some(cgroups) = cgroups() else { return };
    let path = name("failed");
    let memory = LinuxMemoryBuilder::default().limit(64 << 20).swap(1 << 20).build().expect("memory");
    let resources = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
    let error = cgroups.create(&path, Some(&resources)).expect_err("swap below memory");
    assert!(error.to_string().contains("memory.swap"), "{error}");
    assert!(cgroups.open(&path).directories().all(|directory| !directory.exists()));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in ["/", "", "/a/../..", "//."] {
        assert!(matches!(check_path(path), Err(Error::Invalid { .. })), "{path}");
    }
    assert!(check_path("/hull/x").is_ok());
    assert!(check_file_name("unified", "../memory.max").is_err());
    assert!(check_file_name("unified", "cgroup.procs").is_err());
}
