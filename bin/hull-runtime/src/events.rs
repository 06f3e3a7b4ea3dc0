//! `events`: what a container uses, and when it runs out of memory.

use crate::args;
use anyhow::{Context, bail};
use hull_oci::cgroup::{Cgroup, IoStats, Stats};
use hull_oci::container::{Container, Status, Store};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// runc's event format (`types/events.go`): numbers that are 0 are left out, lists of block devices have an entry for each
/// operation.
fn stats_event(id: &str, stats: &Stats) -> Value {
    let cpu = json!({
        "usage": nonzero(&[("total", stats.cpu.total)], json!({
            "percpu": stats.cpu.per_cpu, "kernel": stats.cpu.system, "user": stats.cpu.user,
        })),
        "throttling": nonzero(&[
            ("periods", stats.cpu.periods), ("throttledPeriods", stats.cpu.throttled_periods),
            ("throttledTime", stats.cpu.throttled_time),
        ], json!({})),
    });
    let memory = json!({
        "usage": nonzero(
            &[("usage", stats.memory.usage), ("max", stats.memory.max_usage)],
            json!({ "limit": stats.memory.limit, "failcnt": stats.memory.failcnt }),
        ),
        "swap": nonzero(&[("usage", stats.memory.swap)], json!({ "limit": 0, "failcnt": 0 })),
        "kernel": { "limit": 0, "failcnt": 0 },
        "kernelTCP": { "limit": 0, "failcnt": 0 },
        "raw": stats.memory.stat,
    });
    let pids = [("current", stats.pids.current), ("limit", stats.pids.limit.unwrap_or(0))];
    json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": cpu,
            "cpuset": {},
            "memory": memory,
            "pids": nonzero(&pids, json!({})),
            "blkio": block_io(&stats.io),
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        },
    })
}

fn nonzero(fields: &[(&str, u64)], mut object: Value) -> Value {
    for (name, value) in fields.iter().filter(|(_, value)| *value != 0) {
        object[*name] = json!(value);
    }
    object
}

fn block_io(io: &[IoStats]) -> Value {
    let entry = |device: &IoStats, operation: &str, value: u64| {
        let mut entry = json!({ "op": operation });
        for (name, number) in [("major", device.major), ("minor", device.minor), ("value", value)] {
            if number != 0 {
                entry[name] = json!(number);
            }
        }
        entry
    };
    let both = |of: fn(&IoStats) -> (u64, u64)| -> Vec<Value> {
        let entries =
            |device: &IoStats| [entry(device, "Read", of(device).0), entry(device, "Write", of(device).1)];
        io.iter().flat_map(entries).collect()
    };
    let mut lists = Map::new();
    if !io.is_empty() {
        let bytes = both(|device| (device.read_bytes, device.write_bytes));
        lists.insert("ioServiceBytesRecursive".into(), json!(bytes));
        lists.insert("ioServicedRecursive".into(), json!(both(|device| (device.reads, device.writes))));
    }
    Value::Object(lists)
}

/// Prints events until the container ends, or statistics once.
pub(crate) fn events(store: &Store, args: &args::Events) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    let interval = seconds(&args.interval)?;
    if container.status()? == Status::Stopped {
        bail!("container with id {} is not running", args.id);
    }
    let cgroup = container.cgroup()?.context("the container has no cgroup to measure")?;
    print_stats(&args.id, &cgroup)?;
    if !args.stats {
        follow(&container, &cgroup, interval)?;
    }
    Ok(0)
}

fn print_stats(id: &str, cgroup: &Cgroup) -> anyhow::Result<()> {
    println!("{}", stats_event(id, &cgroup.stats().map_err(hull_oci::Error::from)?));
    Ok(())
}

/// Statistics at every interval, the kernel's killer at once.
fn follow(container: &Container, cgroup: &Cgroup, interval: Duration) -> anyhow::Result<()> {
    let Some(pidfd) = container.pidfd()? else { return Ok(()) };
    let watch = cgroup.oom_watch().map_err(hull_oci::Error::from)?;
    let mut kills = cgroup.oom_kills().map_err(hull_oci::Error::from)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let ended = !fds[0].revents().is_empty();
        if let (Some(watch), true) = (&watch, fds.get(1).is_some_and(|fd| !fd.revents().is_empty())) {
            // Which file it was does not matter: there is one.
            let _ = rustix::io::read(watch, &mut [0u8; 4096]);
        }
        // The cgroup may be gone with its container.
        let now = cgroup.oom_kills().unwrap_or(kills);
        if now > kills {
            println!("{}", json!({ "type": "oom", "id": container.record.id }));
        }
        kills = now;
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(&container.record.id, cgroup)?;
            next = Instant::now() + interval;
        }
    }
}

/// A duration in Go's form, seconds and minutes and milliseconds.
fn seconds(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().with_context(|| format!("duration {text:?}"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => bail!("duration {text:?} needs a unit"),
    };
    if seconds > 0.0 && seconds < 1e9 {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        bail!("duration interval must be greater than 0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(seconds("100ms").expect("valid"), Duration::from_millis(100));
        assert!(seconds("5").is_err());
        assert!(seconds("0s").is_err());
    }

    #[test]
    fn block_devices_have_an_entry_for_each_operation() {
        let device = IoStats { major: 8, minor: 0, read_bytes: 10, write_bytes: 0, reads: 1, writes: 0 };
        assert_eq!(
            block_io(&[device])["ioServiceBytesRecursive"],
            json!([{ "major": 8, "op": "Read", "value": 10 }, { "major": 8, "op": "Write" }])
        );
        assert_eq!(block_io(&[]), json!({}));
    }
}
