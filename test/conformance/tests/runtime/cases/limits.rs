//! Limits on what a container uses.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hull_fixtures::wait;
use serde_json::json;

use crate::{bundle::Bundle, under_test::Runtime};

/// What the bundle's cgroup says in the first of `files`, given as `controller/file` of version 1 or `file` of version 2.
fn cgroup_file(bundle: &Bundle, files: &[&str]) -> Result<String> {
    let place = |file: &&str| match file.split_once('/') {
        Some((controller, file)) => format!("/sys/fs/cgroup/{controller}{}/{file}", bundle.cgroup()),
        None => format!("/sys/fs/cgroup{}/{file}", bundle.cgroup()),
    };
    let mut places = files.iter().map(place);
    let found =
        places.find(|place| Path::new(place).exists()).with_context(|| format!("none of {files:?}"))?;
    Ok(fs::read_to_string(found)?.trim().to_owned())
}

pub(crate) fn limits_are_written(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::lasting(runtime)?;
    bundle.change(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({"limit": 64 << 20});
        resources["pids"] = json!({"limit": 99});
        resources["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0"});
    })?;
    runtime.up(&bundle)?;
    let memory = cgroup_file(&bundle, &["memory/memory.limit_in_bytes", "memory.max"])?;
    ensure!(memory == (64 << 20).to_string(), "memory {memory}");
    let pids = cgroup_file(&bundle, &["pids/pids.max", "pids.max"])?;
    ensure!(pids == "99", "pids {pids}");
    let quota = cgroup_file(&bundle, &["cpu/cpu.cfs_quota_us", "cpu.max"])?;
    ensure!(quota == "50000" || quota == "50000 100000", "quota {quota}");
    let cpus = cgroup_file(&bundle, &["cpuset/cpuset.cpus", "cpuset.cpus"])?;
    ensure!(cpus == "0", "cpus {cpus}");
    if let Ok(shares) = cgroup_file(&bundle, &["cpu/cpu.shares"]) {
        ensure!(shares == "512", "shares {shares}");
    }
    runtime.remove(&bundle)
}

pub(crate) fn the_number_of_processes_is_bounded(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh(
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done 2>&1; echo end; kill -9 -1",
        |spec| {
            spec["linux"]["resources"]["pids"] = json!({"limit": 8});
        },
    );
    let said = format!("{said:?}");
    ensure!(said.contains("Resource temporarily unavailable") || said.contains("can't fork"), "{said}");
    Ok(())
}

pub(crate) fn too_much_memory_is_killed(runtime: &Runtime) -> Result<()> {
    let mut bundle =
        Bundle::sh(runtime, "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c; echo survived")?;
    bundle.change(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    })?;
    runtime.up(&bundle)?;
    runtime.becomes(&bundle, "stopped")?;
    wait::until("its words", || Some(bundle.said("stdout")))?;
    ensure!(!bundle.said("stdout").contains("100000000"), "{}", bundle.said("stdout"));
    runtime.remove(&bundle)
}
