//! Samples of a container's use of resources, in docker's shape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use hull_docker_api::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, StatsResponse,
    ThrottlingData, ZERO_TIME, rfc3339_nano,
};
use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior};

use super::Stats;
use super::actor::blocking;
use super::record::Snapshot;
use super::registry::Handle;
use crate::{Engine, Result};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Clock ticks a second in /proc/stat: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICKS: u64 = 100;

impl Engine {
    /// Samples of its use of resources: one, or one per second with `stream`; `one_shot` does not wait for a second
    /// sample to fill `precpu_stats`.
    pub async fn container_stats(&self, id: &str, stream: bool, one_shot: bool) -> Result<Stats> {
        let handle = self.0.containers.registry.find(id)?;
        let mut sampler = Sampler { engine: self.clone(), handle, before: None, clock: None };
        if !stream {
            let running = sampler.handle.now().state.status.has_processes();
            if !one_shot && running {
                sampler.next().await;
            }
            let sample = sampler.next().await;
            return Ok(Box::pin(stream::iter(sample)));
        }
        Ok(Box::pin(stream::unfold(sampler, |mut sampler| async move {
            let sample = sampler.next().await?;
            Some((sample, sampler))
        })))
    }
}

/// Takes one sample after another.
struct Sampler {
    engine: Engine,
    handle: Handle,
    before: Option<(String, CpuStats)>,
    clock: Option<Interval>,
}

impl Sampler {
    /// The next sample, a second after the last; nothing when the container is gone.
    async fn next(&mut self) -> Option<Result<StatsResponse>> {
        match &mut self.clock {
            None => {
                let mut clock = tokio::time::interval(INTERVAL);
                clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                clock.tick().await;
                self.clock = Some(clock);
            }
            Some(clock) => drop(clock.tick().await),
        }
        let now = self.handle.now();
        if now.removed {
            return None;
        }
        Some(self.sample(now).await)
    }

    async fn sample(&mut self, now: Arc<Snapshot>) -> Result<StatsResponse> {
        let engine = self.engine.clone();
        let mut sample = blocking(move || Ok(measure(&engine, &now))).await?;
        if let Some((read, cpu)) = self.before.replace((sample.read.clone(), sample.cpu_stats.clone())) {
            sample.preread = read;
            sample.precpu_stats = cpu;
        }
        Ok(sample)
    }
}

/// One sample; zeros for a container without processes.
fn measure(engine: &Engine, now: &Snapshot) -> StatsResponse {
    let mut sample = StatsResponse {
        name: format!("/{}", now.def.name),
        id: now.def.id.clone(),
        read: ZERO_TIME.to_owned(),
        preread: ZERO_TIME.to_owned(),
        ..StatsResponse::default()
    };
    let cgroup = engine.cgroup_of(&now.def);
    let Ok(stats) = cgroup.of().and_then(hull_cgroup::Cgroup::stats) else { return sample };
    if !now.state.status.has_processes() {
        return sample;
    }
    sample.read = rfc3339_nano(Timestamp::now());
    sample.pids_stats =
        PidsStats { current: stats.pids.current, limit: stats.pids.limit.unwrap_or(u64::MAX) };
    sample.blkio_stats = block_io(&stats.io);
    sample.cpu_stats = cpu(&stats.cpu);
    let limit = stats.memory.limit.min(machine_memory());
    sample.memory_stats = MemoryStats {
        usage: stats.memory.usage,
        max_usage: stats.memory.max_usage,
        stats: stats.memory.stat,
        failcnt: stats.memory.failcnt,
        limit,
    };
    sample.networks = networks(now);
    sample
}

fn cpu(cpu: &hull_cgroup::CpuStats) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.total,
            percpu_usage: cpu.per_cpu.clone(),
            usage_in_kernelmode: cpu.system,
            usage_in_usermode: cpu.user,
        },
        system_cpu_usage: system_cpu(),
        online_cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
    }
}

fn block_io(devices: &[hull_cgroup::IoStats]) -> BlkioStats {
    let entries = |of: fn(&hull_cgroup::IoStats) -> (u64, u64)| {
        let both = devices.iter().flat_map(|device| {
            let (read, write) = of(device);
            [("read", read), ("write", write)].map(|(op, value)| BlkioStatEntry {
                major: device.major,
                minor: device.minor,
                op: op.to_owned(),
                value,
            })
        });
        Some(both.collect::<Vec<_>>()).filter(|list| !list.is_empty())
    };
    BlkioStats {
        io_service_bytes_recursive: entries(|device| (device.read_bytes, device.write_bytes)),
        io_serviced_recursive: entries(|device| (device.reads, device.writes)),
        ..BlkioStats::default()
    }
}

fn networks(now: &Snapshot) -> BTreeMap<String, NetworkStats> {
    if now.def.host.network_mode == "host" || now.def.host.network_mode.starts_with("container:") {
        return BTreeMap::new();
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", now.state.pid)).unwrap_or_default();
    let counters = hull_network::counters::parse_net_dev(&text).into_iter();
    counters
        .map(|c| {
            let stats = NetworkStats {
                rx_bytes: c.rx_bytes,
                rx_packets: c.rx_packets,
                rx_errors: c.rx_errors,
                rx_dropped: c.rx_dropped,
                tx_bytes: c.tx_bytes,
                tx_packets: c.tx_packets,
                tx_errors: c.tx_errors,
                tx_dropped: c.tx_dropped,
            };
            (c.interface, stats)
        })
        .collect()
}

/// CPU time of the whole machine in nanoseconds: the first seven columns of /proc/stat (docker's sum).
fn system_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_system_cpu(&text)
}

fn parse_system_cpu(text: &str) -> u64 {
    let Some(line) = text.lines().find(|line| line.starts_with("cpu ")) else { return 0 };
    let ticks: u64 = line.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks * (1_000_000_000 / TICKS)
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time_is_the_sum_of_seven_columns() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1\n";
        assert_eq!(parse_system_cpu(text), 28 * 10_000_000);
        assert_eq!(parse_system_cpu(""), 0);
        assert!(machine_memory() > 1 << 20);
    }
}
