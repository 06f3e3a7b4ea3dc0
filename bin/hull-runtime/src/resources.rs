//! `update`.

use crate::args;
use anyhow::{Context, bail};
use hull_oci::container::{Status, Store};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::io::Read;

/// Changes a container's limits.
pub(crate) fn update(store: &Store, args: &args::Update) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    if container.status()? == Status::Stopped {
        bail!("cannot update a stopped container");
    }
    let resources = match &args.resources {
        Some(path) => from_file(path)?,
        None => from_flags(args)?,
    };
    let schemata: Vec<_> = args.l3_cache_schema.iter().chain(&args.mem_bw_schema).cloned().collect();
    if !schemata.is_empty() {
        container.record.resctrl.update(&schemata)?;
    }
    let cgroup = container.cgroup()?.context("the container has no cgroup")?;
    if let Some(scope) = &container.record.scope {
        scope.update(&resources)?;
    }
    cgroup.apply(&resources).map_err(hull_oci::Error::from)?;
    Ok(0)
}

fn from_file(path: &std::path::Path) -> anyhow::Result<LinuxResources> {
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut text).context("read resources from standard input")?;
    } else {
        text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    }
    let mut resources: LinuxResources = serde_json::from_slice(&text).context("resources")?;
    // Device rules are those the container was made with.
    resources.set_devices(None);
    Ok(resources)
}

fn from_flags(args: &args::Update) -> anyhow::Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share);
    cpu.set_quota(args.cpu_quota);
    cpu.set_period(args.cpu_period);
    cpu.set_burst(args.cpu_burst);
    cpu.set_idle(args.cpu_idle);
    cpu.set_realtime_period(args.cpu_rt_period);
    cpu.set_realtime_runtime(args.cpu_rt_runtime);
    cpu.set_cpus(args.cpuset_cpus.clone());
    cpu.set_mems(args.cpuset_mems.clone());
    resources.set_cpu(Some(cpu));
    let mut memory = LinuxMemory::default();
    memory.set_limit(args.memory.as_deref().map(bytes).transpose()?);
    memory.set_reservation(args.memory_reservation.as_deref().map(bytes).transpose()?);
    memory.set_swap(args.memory_swap.as_deref().map(bytes).transpose()?);
    resources.set_memory(Some(memory));
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if let Some(weight) = args.blkio_weight {
        let mut block = LinuxBlockIo::default();
        block.set_weight(Some(weight));
        resources.set_block_io(Some(block));
    }
    Ok(resources)
}

/// Bytes as docker's units have them: a number and one of b, k, m, g, t.
fn bytes(text: &str) -> anyhow::Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match digits.strip_suffix(['k', 'm', 'g', 't']) {
        Some(number) => (number, 10 * (1 + "kmgt".find(&digits[number.len()..]).unwrap_or(0))),
        None => (digits, 0),
    };
    let number: i64 = number.parse().with_context(|| format!("{text:?} is not a size"))?;
    number
        .checked_shl(shift as u32)
        .filter(|v| *v >> shift == number)
        .with_context(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [("1024", 1024), ("64m", 64 << 20), ("2GiB", 2 << 30), ("1kb", 1024), ("-1", -1)]
        {
            assert_eq!(bytes(text).expect(text), size);
        }
        assert!(bytes("x").is_err());
        assert!(bytes("9999999999t").is_err());
    }
}
