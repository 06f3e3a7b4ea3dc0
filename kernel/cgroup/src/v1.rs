//! Limits of cgroup v1.

use crate::file::{failed, open_write, read, read_number, try_write, write};
use crate::{Cgroup, Error, Result, devices};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources,
    LinuxThrottleDevice,
};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Whether limits are set on a cgroup just made (no old values to heed) or on one in use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    New,
    Update,
}

pub(crate) fn apply(cgroup: &Cgroup, resources: &LinuxResources, when: When) -> Result<()> {
    if let Some(memory) = resources.memory() {
        set_memory(&Target { cgroup, controller: "memory", field: "memory" }, memory, when)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(&Target { cgroup, controller: "cpu", field: "cpu" }, cpu)?;
        set_cpuset(&Target { cgroup, controller: "cpuset", field: "cpu.cpus" }, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let target = Target { cgroup, controller: "pids", field: "pids.limit" };
        match pids.limit() {
            // The kernel takes 0, and nothing could run.
            limit @ 0.. => target.set("pids.max", limit.max(1))?,
            _ => target.set("pids.max", "max")?,
        }
    }
    if let Some(block) = resources.block_io() {
        set_block_io(&Target { cgroup, controller: "blkio", field: "blockIO" }, block)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set_hugepages(&Target { cgroup, controller: "hugetlb", field: "hugepageLimits" }, limit)?;
    }
    if let Some(network) = resources.network() {
        set_network(cgroup, network)?;
    }
    set_rdma(&Target { cgroup, controller: "rdma", field: "rdma" }, resources)?;
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        let reason = "invalid configuration: there is no cgroup v2 here to set it on".into();
        return Err(Error::Invalid { field: "unified".into(), reason });
    }
    set_devices(cgroup, resources)
}

/// A controller's directory of the cgroup and the field being applied.
struct Target<'a> {
    cgroup: &'a Cgroup,
    controller: &'static str,
    field: &'static str,
}

impl Target<'_> {
    fn directory(&self) -> Result<PathBuf> {
        let missing = Error::NoController { field: self.field, controller: self.controller };
        self.cgroup.v1_directory(self.controller).ok_or(missing)
    }

    fn set(&self, file: &str, value: impl ToString) -> Result<()> {
        write(&self.directory()?.join(file), &value.to_string())
    }

    fn set_if(&self, file: &str, value: Option<impl ToString>) -> Result<()> {
        value.map_or(Ok(()), |value| self.set(file, value))
    }
}

fn set_memory(target: &Target<'_>, memory: &LinuxMemory, when: When) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let mut swap = memory.swap().filter(|swap| *swap != 0);
    if limit == Some(-1) && swap.is_none() {
        // Without a memory limit a limit of memory and swap together would still bind.
        swap = Some(-1);
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        return Err(Error::Invalid {
            field: "memory.swap".into(),
            reason: format!("{swap} is less than the memory limit {limit}"),
        });
    }
    // The kernel keeps limit <= memsw at each step: raise memsw first, lower it last.
    let swap_first = match (limit, swap, when) {
        (Some(_), Some(-1), _) => true,
        (Some(_), Some(swap), When::Update) => {
            let now = read_number(&target.directory()?.join("memory.limit_in_bytes"))?;
            now.is_some_and(|now| now < swap as u64)
        }
        _ => false,
    };
    let set_swap = |swap: Option<i64>| match swap {
        Some(swap) => set_memsw(target, swap),
        None => Ok(()),
    };
    if swap_first {
        set_swap(swap)?;
    }
    target.set_if("memory.limit_in_bytes", limit)?;
    if !swap_first {
        set_swap(swap)?;
    }
    target.set_if("memory.soft_limit_in_bytes", memory.reservation().filter(|value| *value != 0))?;
    target.set_if("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp().filter(|value| *value != 0))?;
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Error::Invalid { field: "memory.swappiness".into(), reason: "more than 100".into() });
        }
        target.set("memory.swappiness", swappiness)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        target.set("memory.oom_control", 1)?;
    }
    Ok(())
}

fn set_memsw(target: &Target<'_>, swap: i64) -> Result<()> {
    let file = target.directory()?.join("memory.memsw.limit_in_bytes");
    match try_write(&file, &swap.to_string()) {
        Ok(()) => Ok(()),
        // No swap accounting in this kernel: unlimited is what there is.
        Err(Errno::NOENT | Errno::ACCESS) if swap == -1 => Ok(()),
        Err(error) => Err(failed(format!("write \"{swap}\" to"), &file)(error)),
    }
}

fn set_cpu(target: &Target<'_>, cpu: &LinuxCpu) -> Result<()> {
    target.set_if("cpu.shares", cpu.shares().filter(|value| *value != 0))?;
    target.set_if("cpu.idle", cpu.idle())?;
    let (period, quota) = (cpu.period().filter(|value| *value != 0), cpu.quota().filter(|value| *value != 0));
    // A shorter period with the old quota may exceed the parent's share until the quota follows: try again after it.
    let mut period_later = None;
    if let Some(period) = period {
        let file = target.directory()?.join("cpu.cfs_period_us");
        match try_write(&file, &period.to_string()) {
            Ok(()) => {}
            Err(Errno::INVAL) if quota.is_some() => period_later = Some(period),
            Err(error) => return Err(failed(format!("write \"{period}\" to"), &file)(error)),
        }
    }
    target.set_if("cpu.cfs_quota_us", quota)?;
    target.set_if("cpu.cfs_period_us", period_later)?;
    target.set_if("cpu.cfs_burst_us", cpu.burst())?;
    let period = cpu.realtime_period().filter(|value| *value != 0);
    let runtime = cpu.realtime_runtime().filter(|value| *value != 0);
    // The runtime must fit into the period at each step.
    let mut period_later = None;
    if let Some(period) = period {
        let file = target.directory()?.join("cpu.rt_period_us");
        match try_write(&file, &period.to_string()) {
            Ok(()) => {}
            Err(Errno::INVAL) if runtime.is_some() => period_later = Some(period),
            Err(error) => return Err(failed(format!("write \"{period}\" to"), &file)(error)),
        }
    }
    target.set_if("cpu.rt_runtime_us", runtime)?;
    target.set_if("cpu.rt_period_us", period_later)
}

fn set_cpuset(target: &Target<'_>, cpu: &LinuxCpu) -> Result<()> {
    target.set_if("cpuset.cpus", cpu.cpus().as_deref().filter(|list| !list.is_empty()))?;
    target.set_if("cpuset.mems", cpu.mems().as_deref().filter(|list| !list.is_empty()))
}

/// A v1 cpuset starts empty and takes no task then: give it what its nearest ancestor has. Its parent is told to do so by itself for
/// the next one.
pub(crate) fn initialise_cpuset(mount_point: &Path, directory: &Path) -> Result<()> {
    if !read(&directory.join("cpuset.cpus"))?.trim().is_empty() {
        return Ok(());
    }
    let Some(parent) = directory.parent().filter(|_| directory != mount_point) else { return Ok(()) };
    initialise_cpuset(mount_point, parent)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        write(&directory.join(file), read(&parent.join(file))?.trim())?;
    }
    if parent != mount_point {
        // Saves the copying next time; nothing depends on it.
        let _ = try_write(&parent.join("cgroup.clone_children"), "1");
    }
    Ok(())
}

fn set_block_io(target: &Target<'_>, block: &LinuxBlockIo) -> Result<()> {
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        set_weight(target, &["blkio.weight", "blkio.bfq.weight"], &weight.to_string())?;
    }
    target.set_if("blkio.leaf_weight", block.leaf_weight().filter(|weight| *weight != 0))?;
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let line = format!("{}:{} {weight}", device.major(), device.minor());
            set_weight(target, &["blkio.weight_device", "blkio.bfq.weight_device"], &line)?;
        }
        if let Some(weight) = device.leaf_weight() {
            let line = format!("{}:{} {weight}", device.major(), device.minor());
            target.set("blkio.leaf_weight_device", line)?;
        }
    }
    let throttle = |file: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        devices.iter().flatten().try_for_each(|device| {
            target.set(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()))
        })
    };
    throttle("blkio.throttle.read_bps_device", block.throttle_read_bps_device())?;
    throttle("blkio.throttle.write_bps_device", block.throttle_write_bps_device())?;
    throttle("blkio.throttle.read_iops_device", block.throttle_read_iops_device())?;
    throttle("blkio.throttle.write_iops_device", block.throttle_write_iops_device())
}

/// Weights are `blkio.weight` with CFQ and `blkio.bfq.weight` with BFQ.
fn set_weight(target: &Target<'_>, files: &[&str], value: &str) -> Result<()> {
    let directory = target.directory()?;
    for file in files {
        match try_write(&directory.join(file), value) {
            Err(Errno::NOENT | Errno::ACCESS) => {}
            other => return other.map_err(failed(format!("write {value:?} to"), &directory.join(file))),
        }
    }
    Err(Error::NoController { field: "blockIO.weight", controller: "blkio with weights (bfq)" })
}

fn set_hugepages(target: &Target<'_>, limit: &LinuxHugepageLimit) -> Result<()> {
    crate::check_file_name("hugepageLimits.pageSize", limit.page_size())?;
    target.set(&format!("hugetlb.{}.limit_in_bytes", limit.page_size()), limit.limit())?;
    // Reservations count from Linux 5.7 on.
    let reserved = format!("hugetlb.{}.rsvd.limit_in_bytes", limit.page_size());
    let _ = try_write(&target.directory()?.join(reserved), &limit.limit().to_string());
    Ok(())
}

fn set_network(cgroup: &Cgroup, network: &LinuxNetwork) -> Result<()> {
    let class = Target { cgroup, controller: "net_cls", field: "network.classID" };
    class.set_if("net_cls.classid", network.class_id().filter(|id| *id != 0))?;
    let priority = Target { cgroup, controller: "net_prio", field: "network.priorities" };
    for entry in network.priorities().iter().flatten() {
        priority.set("net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority()))?;
    }
    Ok(())
}

fn set_rdma(target: &Target<'_>, resources: &LinuxResources) -> Result<()> {
    for (device, limit) in resources.rdma().iter().flatten() {
        target.set("rdma.max", crate::rdma_line(device, limit))?;
    }
    Ok(())
}

/// Devices: the file is opened once per kind, each rule is one write.
fn set_devices(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let Some(rules) = resources.devices().as_ref().filter(|rules| !rules.is_empty()) else { return Ok(()) };
    let target = Target { cgroup, controller: "devices", field: "devices" };
    let directory = target.directory()?;
    let (mut allow, mut deny) = (None, None);
    for rule in rules {
        let rule = devices::Rule::parse(rule)?;
        let (slot, name) =
            if rule.allow { (&mut allow, "devices.allow") } else { (&mut deny, "devices.deny") };
        let path = directory.join(name);
        let file = match slot {
            Some(file) => file,
            None => slot.insert(open_write(&path).map_err(failed("open", &path))?),
        };
        let line = rule.v1_line();
        rustix::io::write(file, line.as_bytes()).map_err(failed(format!("write {line:?} to"), &path))?;
    }
    Ok(())
}
