//! What a cgroup uses.

use crate::file::{pairs, read, read_number, try_read};
use crate::{Cgroup, CpuStats, IoStats, MemoryStats, PidsStats, Result, Stats};
use std::collections::BTreeMap;
use std::path::Path;

/// The kernel counts `cpuacct.stat` in ticks of `USER_HZ`, which is 100 on every architecture Hull runs on.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;
/// v1 says "no limit" with the largest multiple of the page size.
const V1_UNLIMITED: u64 = i64::MAX as u64 & !0xfff;

impl Cgroup {
    /// What it uses. A controller that is not there contributes zeros.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(directory) = self.v2_directory().filter(|_| self.layout.v1.is_empty()) {
            stats.cpu = cpu_v2(&directory)?;
            stats.memory = memory_v2(&directory)?;
            stats.pids = pids(&directory)?;
            stats.io = io_v2(&directory);
            return Ok(stats);
        }
        if let Some(directory) = self.v1_directory("cpuacct") {
            cpuacct_v1(&directory, &mut stats.cpu)?;
        }
        if let Some(directory) = self.v1_directory("cpu") {
            throttling(&read(&directory.join("cpu.stat"))?, &mut stats.cpu);
        }
        if let Some(directory) = self.v1_directory("memory") {
            stats.memory = memory_v1(&directory)?;
        }
        if let Some(directory) = self.v1_directory("pids") {
            stats.pids = pids(&directory)?;
        }
        if let Some(directory) = self.v1_directory("blkio") {
            stats.io = io_v1(&directory);
        }
        Ok(stats)
    }
}

fn cpuacct_v1(directory: &Path, cpu: &mut CpuStats) -> Result<()> {
    cpu.total = read_number(&directory.join("cpuacct.usage"))?.unwrap_or(0);
    cpu.per_cpu = read(&directory.join("cpuacct.usage_percpu"))?
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    for (key, ticks) in pairs(&read(&directory.join("cpuacct.stat"))?) {
        match key {
            "user" => cpu.user = ticks * NANOSECONDS_PER_TICK,
            "system" => cpu.system = ticks * NANOSECONDS_PER_TICK,
            _ => {}
        }
    }
    Ok(())
}

fn throttling(text: &str, cpu: &mut CpuStats) {
    for (key, value) in pairs(text) {
        match key {
            "nr_periods" => cpu.periods = value,
            "nr_throttled" => cpu.throttled_periods = value,
            "throttled_time" => cpu.throttled_time = value,
            "throttled_usec" => cpu.throttled_time = value * 1000,
            _ => {}
        }
    }
}

fn cpu_v2(directory: &Path) -> Result<CpuStats> {
    let text = read(&directory.join("cpu.stat"))?;
    let mut cpu = CpuStats::default();
    throttling(&text, &mut cpu);
    for (key, value) in pairs(&text) {
        match key {
            "usage_usec" => cpu.total = value * 1000,
            "user_usec" => cpu.user = value * 1000,
            "system_usec" => cpu.system = value * 1000,
            _ => {}
        }
    }
    Ok(cpu)
}

fn stat_map(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let text = read(&directory.join("memory.stat"))?;
    Ok(pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect())
}

fn memory_v1(directory: &Path) -> Result<MemoryStats> {
    let number = |file: &str| Ok::<_, crate::Error>(read_number(&directory.join(file))?.unwrap_or(0));
    let usage = number("memory.usage_in_bytes")?;
    let with_swap = try_read(&directory.join("memory.memsw.usage_in_bytes")).ok();
    let with_swap = with_swap.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(usage);
    let limit = number("memory.limit_in_bytes")?;
    Ok(MemoryStats {
        usage,
        max_usage: number("memory.max_usage_in_bytes")?,
        limit: if limit >= V1_UNLIMITED { u64::MAX } else { limit },
        failcnt: number("memory.failcnt")?,
        swap: with_swap.saturating_sub(usage),
        stat: stat_map(directory)?,
    })
}

fn memory_v2(directory: &Path) -> Result<MemoryStats> {
    let optional =
        |file: &str| try_read(&directory.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let Some(usage) = optional("memory.current") else { return Ok(MemoryStats::default()) };
    let events = try_read(&directory.join("memory.events")).unwrap_or_default();
    Ok(MemoryStats {
        usage,
        max_usage: optional("memory.peak").unwrap_or(0),
        limit: optional("memory.max").unwrap_or(u64::MAX),
        failcnt: pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, count)| count),
        swap: optional("memory.swap.current").unwrap_or(0),
        stat: stat_map(directory)?,
    })
}

fn pids(directory: &Path) -> Result<PidsStats> {
    let Ok(current) = try_read(&directory.join("pids.current")) else { return Ok(PidsStats::default()) };
    let limit = read_number(&directory.join("pids.max"))?;
    Ok(PidsStats { current: current.trim().parse().unwrap_or(0), limit })
}

fn device_entry<'a>(io: &'a mut Vec<IoStats>, device: &str) -> Option<&'a mut IoStats> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let index =
        io.iter().position(|entry| (entry.major, entry.minor) == (major, minor)).unwrap_or_else(|| {
            io.push(IoStats { major, minor, ..IoStats::default() });
            io.len() - 1
        });
    io.get_mut(index)
}

fn io_v1(directory: &Path) -> Vec<IoStats> {
    let mut io = Vec::new();
    for (file, bytes) in
        [("blkio.throttle.io_service_bytes_recursive", true), ("blkio.throttle.io_serviced_recursive", false)]
    {
        let text = try_read(&directory.join(file)).unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [device, operation, value] = fields[..] else { continue };
            let (Some(entry), Ok(value)) = (device_entry(&mut io, device), value.parse::<u64>()) else {
                continue;
            };
            match (operation, bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.write_bytes = value,
                ("Read", false) => entry.reads = value,
                ("Write", false) => entry.writes = value,
                _ => {}
            }
        }
    }
    io
}

fn io_v2(directory: &Path) -> Vec<IoStats> {
    let mut io = Vec::new();
    for line in try_read(&directory.join("io.stat")).unwrap_or_default().lines() {
        let mut fields = line.split(' ');
        let Some(entry) = fields.next().and_then(|device| device_entry(&mut io, device)) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.reads = value,
                "wios" => entry.writes = value,
                _ => {}
            }
        }
    }
    io
}
