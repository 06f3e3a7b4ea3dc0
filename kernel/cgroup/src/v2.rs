//! Limits of cgroup v2.

use crate::file::{failed, read, try_read, try_write};
use crate::{Cgroup, Error, Result, devices};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use rustix::io::Errno;
use std::path::Path;

/// Enables every available controller from the hierarchy's root down to the parent of `path`. What cannot be enabled is
/// found missing when a limit needs it.
pub(crate) fn enable_controllers(mount_point: &Path, path: &str) -> Result<()> {
    let mut directory = mount_point.to_owned();
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in std::iter::once("").chain(names.iter().copied()).take(names.len()) {
        if !name.is_empty() {
            directory.push(name);
        }
        let available = read(&directory.join("cgroup.controllers"))?;
        let enabled = read(&directory.join("cgroup.subtree_control"))?;
        let missing: Vec<_> = available
            .split_whitespace()
            .filter(|controller| !enabled.split_whitespace().any(|other| other == *controller))
            .collect();
        let file = directory.join("cgroup.subtree_control");
        let all = missing.iter().map(|controller| format!("+{controller}")).collect::<Vec<_>>().join(" ");
        // A controller for threads would be enabled all the same, and make the cgroups below invalid for processes.
        if missing.is_empty() || occupied(&directory) || try_write(&file, &all).is_ok() {
            continue;
        }
        for controller in missing {
            // One that refuses (cpu with real-time tasks, a non-empty parent) must not hinder the others.
            let _ = try_write(&file, &format!("+{controller}"));
        }
    }
    Ok(())
}

/// Whether a cgroup that is not the root has processes in it (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process
/// Constraint"). The root alone has no `cgroup.type`.
fn occupied(directory: &Path) -> bool {
    directory.join("cgroup.type").exists()
        && try_read(&directory.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
}

/// Why the controller is missing in `directory`.
fn no_controller(directory: &Path, field: &'static str, controller: &'static str) -> Error {
    let has = |directory: &Path| {
        let controllers = try_read(&directory.join("cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == controller)
    };
    match directory.ancestors().skip(1).find(|above| has(above)) {
        Some(above) if occupied(above) => Error::Occupied { field, controller, path: above.to_owned() },
        _ => Error::NoController { field, controller },
    }
}

pub(crate) fn apply(cgroup: &Cgroup, directory: &Path, resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        refuse_v1_memory(memory)?;
        if let (Some(true), Some(limit)) = (memory.check_before_update(), memory.limit().filter(|l| *l != 0))
        {
            cgroup.check_usage(limit)?;
        }
        set_memory(directory, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(directory, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        match pids.limit() {
            // The kernel takes 0, and nothing could run.
            limit @ 0.. => set(directory, "pids.max", limit.max(1), "pids.limit", "pids")?,
            _ => set(directory, "pids.max", "max", "pids.limit", "pids")?,
        }
    }
    if let Some(block) = resources.block_io() {
        set_io(directory, block)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        crate::check_file_name("hugepageLimits.pageSize", limit.page_size())?;
        let file = format!("hugetlb.{}.max", limit.page_size());
        set(directory, &file, max_or(limit.limit()), "hugepageLimits", "hugetlb")?;
        // Reservations count from Linux 5.7 on.
        let _ = try_write(
            &directory.join(format!("hugetlb.{}.rsvd.max", limit.page_size())),
            &max_or(limit.limit()),
        );
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        set(directory, "rdma.max", crate::rdma_line(device, limit), "rdma", "rdma")?;
    }
    if resources.network().is_some_and_set() {
        return Err(Error::NoController { field: "network", controller: "net_cls" });
    }
    for (file, value) in resources.unified().iter().flatten() {
        crate::check_file_name("unified", file)?;
        set(directory, file, value, "unified", "(named by the key)")?;
    }
    devices::apply_v2(cgroup, directory, resources)
}

trait NetworkSet {
    fn is_some_and_set(&self) -> bool;
}

impl NetworkSet for Option<oci_spec::runtime::LinuxNetwork> {
    fn is_some_and_set(&self) -> bool {
        self.as_ref().is_some_and(|network| {
            network.class_id().is_some_and(|id| id != 0)
                || network.priorities().as_ref().is_some_and(|list| !list.is_empty())
        })
    }
}

fn set(
    directory: &Path,
    file: &str,
    value: impl ToString,
    field: &'static str,
    controller: &'static str,
) -> Result<()> {
    let (path, value) = (directory.join(file), value.to_string());
    match try_write(&path, &value) {
        Ok(()) => Ok(()),
        // Files cannot be made in a cgroup: a missing one is a missing controller.
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) if !path.exists() => {
            Err(no_controller(directory, field, controller))
        }
        Err(error) => Err(failed(format!("write {value:?} to"), &path)(error)),
    }
}

fn max_or(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// `memory.swap` of the configuration counts memory and swap together, `memory.swap.max` swap alone.
pub(crate) fn swap_max(limit: Option<i64>, swap: i64) -> Result<String> {
    let invalid = |reason: String| Error::Invalid { field: "memory.swap".into(), reason };
    match (limit, swap) {
        (_, -1) => Ok("max".into()),
        (Some(-1), 0) => Ok("max".into()),
        (Some(limit @ 1..), swap) if swap < limit => {
            Err(invalid(format!("{swap} is less than the memory limit {limit}")))
        }
        (Some(limit @ 1..), swap) => Ok((swap - limit).to_string()),
        _ => Err(invalid("needs a memory limit".into())),
    }
}

/// What only v1 has must not seem to be in force.
#[allow(deprecated)]
fn refuse_v1_memory(memory: &LinuxMemory) -> Result<()> {
    let set = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let field = if memory.swappiness().is_some() {
        "memory.swappiness"
    } else if memory.disable_oom_killer() == Some(true) {
        "memory.disableOOMKiller"
    } else if set(memory.kernel()) {
        "memory.kernel"
    } else if set(memory.kernel_tcp()) {
        "memory.kernelTCP"
    } else {
        return Ok(());
    };
    Err(Error::NoController { field, controller: "memory of cgroup v1" })
}

fn set_memory(directory: &Path, memory: &LinuxMemory) -> Result<()> {
    let set = |file: &str, value: String| set(directory, file, value, "memory", "memory");
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        set("memory.swap.max", swap_max(limit, swap)?)?;
    } else if limit == Some(-1) {
        set("memory.swap.max", "max".into())?;
    }
    if let Some(limit) = limit {
        set("memory.max", max_or(limit))?;
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        set("memory.low", max_or(reservation))?;
    }
    Ok(())
}

/// `cpu.shares` (2 to 262144) as `cpu.weight` (1 to 10000).
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn set_cpu(directory: &Path, cpu: &LinuxCpu) -> Result<()> {
    let cpu_set = |file: &str, value: String| set(directory, file, value, "cpu", "cpu");
    if let Some(idle) = cpu.idle() {
        cpu_set("cpu.idle", idle.to_string())?;
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        cpu_set("cpu.weight", weight_of_shares(shares).to_string())?;
    }
    let (quota, period) = (cpu.quota().filter(|v| *v != 0), cpu.period().filter(|v| *v != 0));
    if quota.is_some() || period.is_some() {
        cpu_set("cpu.max", cpu_max(directory, quota, period))?;
    }
    if let Some(burst) = cpu.burst() {
        cpu_set("cpu.max.burst", burst.to_string())?;
    }
    if cpu.realtime_runtime().is_some_and(|v| v != 0) {
        return Err(Error::NoController { field: "cpu.realtimeRuntime", controller: "cpu of cgroup v1" });
    }
    if let Some(cpus) = cpu.cpus().as_deref().filter(|list| !list.is_empty()) {
        set(directory, "cpuset.cpus", cpus, "cpu.cpus", "cpuset")?;
    }
    if let Some(mems) = cpu.mems().as_deref().filter(|list| !list.is_empty()) {
        set(directory, "cpuset.mems", mems, "cpu.mems", "cpuset")?;
    }
    Ok(())
}

/// What to write to `cpu.max`: the one of the two that is not given stays what it is.
fn cpu_max(directory: &Path, quota: Option<i64>, period: Option<u64>) -> String {
    let quota = quota.map(max_or).unwrap_or_else(|| {
        let now = try_read(&directory.join("cpu.max")).unwrap_or_default();
        now.split_whitespace().next().unwrap_or("max").to_owned()
    });
    match period {
        Some(period) => format!("{quota} {period}"),
        None => quota,
    }
}

/// `blkio.weight` (10 to 1000) as `io.weight` (1 to 10000).
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn set_io(directory: &Path, block: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        let bfq = directory.join("io.bfq.weight");
        if !bfq.exists() || try_write(&bfq, &weight.to_string()).is_err() {
            set(directory, "io.weight", io_weight(weight), "blockIO.weight", "io")?;
        }
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let number = format!("{}:{}", device.major(), device.minor());
            let bfq = directory.join("io.bfq.weight");
            if !bfq.exists() || try_write(&bfq, &format!("{number} {weight}")).is_err() {
                let line = format!("{number} {}", io_weight(weight));
                set(directory, "io.weight", line, "blockIO.weightDevice", "io")?;
            }
        }
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(Error::NoController {
                field: "blockIO.weightDevice",
                controller: "blkio of cgroup v1",
            });
        }
    }
    if block.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::NoController { field: "blockIO.leafWeight", controller: "blkio of cgroup v1" });
    }
    let throttle = |key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        devices.iter().flatten().try_for_each(|device| {
            let line = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            set(directory, "io.max", line, "blockIO", "io")
        })
    };
    throttle("rbps", block.throttle_read_bps_device())?;
    throttle("wbps", block.throttle_write_bps_device())?;
    throttle("riops", block.throttle_read_iops_device())?;
    throttle("wiops", block.throttle_write_iops_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_map_their_ends() {
        assert_eq!((weight_of_shares(2), weight_of_shares(262_144)), (1, 10_000));
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    #[test]
    fn swap_is_the_difference() {
        assert_eq!(swap_max(Some(100), 150).expect("valid"), "50");
        assert_eq!(swap_max(Some(100), 100).expect("valid"), "0");
        assert_eq!(swap_max(Some(100), -1).expect("valid"), "max");
        assert!(swap_max(Some(100), 50).is_err());
        assert!(swap_max(None, 50).is_err());
    }
}
