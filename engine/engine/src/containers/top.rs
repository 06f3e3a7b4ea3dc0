//! The processes of a container, as `ps` on the host shows them.

use std::collections::{BTreeMap, HashSet};

use hull_docker_api::ContainerTop;
use jiff::Timestamp;

use super::actor::blocking;
use super::record::Status;
use crate::{Engine, Error, Result};

/// Clock ticks a second in /proc: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICKS: u64 = 100;

impl Engine {
    /// Its processes as `ps` shows them; `ps_args` empty for `-ef`.
    pub async fn container_top(&self, id: &str, ps_args: &str) -> Result<ContainerTop> {
        let handle = self.0.containers.registry.find(id)?;
        let now = handle.now();
        match now.state.status {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    now.def.id
                )));
            }
            _ => return Err(Error::conflict(format!("container {} is not running", now.def.id))),
        }
        self.events().emit("container", "top", &now.def.id, now.def.event_attributes());
        let cgroup = self.cgroup_of(&now.def);
        let args = ps_args.to_owned();
        blocking(move || {
            let pids = cgroup.of().and_then(hull_cgroup::Cgroup::pids);
            let pids = pids.map_err(|error| Error::system("list processes", error))?;
            match args.trim() {
                "" | "-ef" => Ok(full_format(&pids)),
                args => run_ps(args, &pids.into_iter().collect()),
            }
        })
        .await
    }
}

/// `ps -ef` without running it.
fn full_format(pids: &[i32]) -> ContainerTop {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
    let users = users();
    let boot = boot_time();
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    ContainerTop {
        titles: titles.iter().map(|title| (*title).to_owned()).collect(),
        processes: pids.iter().filter_map(|pid| process(*pid, &users, boot)).collect(),
    }
}

/// One line; nothing for a process that has ended meanwhile.
fn process(pid: i32, users: &BTreeMap<u32, String>, boot: i64) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let directory = format!("/proc/{pid}");
    let uid = std::fs::metadata(&directory).ok()?.uid();
    let stat = parse_stat(&std::fs::read_to_string(format!("{directory}/stat")).ok()?)?;
    let line = std::fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    let command = match line.split(|byte| *byte == 0).next() {
        None | Some(b"") => format!("[{}]", stat.name),
        Some(_) => {
            let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
        }
    };
    let started = boot + i64::try_from(stat.start_ticks / TICKS).unwrap_or_default();
    let seconds = stat.cpu_ticks / TICKS;
    let now = Timestamp::now().as_second();
    let alive = u64::try_from(now - started).unwrap_or_default().max(1);
    Some(vec![
        users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        pid.to_string(),
        stat.parent.to_string(),
        (seconds * 100 / alive).min(99).to_string(),
        start_text(started, now),
        terminal(stat.tty),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command,
    ])
}

#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    parent: i32,
    tty: u32,
    cpu_ticks: u64,
    start_ticks: u64,
}

/// proc_pid_stat(5). The name is in parentheses and may hold any of them.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = (text.find('(')?, text.rfind(')')?);
    let fields: Vec<&str> = text.get(tail + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name: text.get(head + 1..tail)?.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        tty: fields.get(4)?.parse::<i64>().ok().and_then(|tty| u32::try_from(tty).ok()).unwrap_or_default(),
        cpu_ticks: number(11)? + number(12)?,
        start_ticks: number(19)?,
    })
}

/// Hour and minute of today, else month and day, in UTC.
fn start_text(started: i64, now: i64) -> String {
    let day = |second: i64| second.div_euclid(86400);
    if day(started) == day(now) {
        let minute = started.rem_euclid(86400) / 60;
        return format!("{:02}:{:02}", minute / 60, minute % 60);
    }
    let at = Timestamp::from_second(started).unwrap_or_default().to_string();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = at.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    format!("{}{}", months[(month - 1).min(11)], at.get(8..10).unwrap_or("01"))
}

/// `pts/3`, `?` for none. The number is packed as makedev(3) does.
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, (number & 0xff) | (number >> 12 & 0xfff00));
    match major {
        0 => "?".to_owned(),
        4 => format!("tty{minor}"),
        // Unix98 terminals have the majors 136 to 143.
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}

fn users() -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

fn boot_time() -> i64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or_default()
}

/// Other columns are ps's own business.
fn run_ps(args: &str, pids: &HashSet<i32>) -> Result<ContainerTop> {
    let output = std::process::Command::new("ps")
        .args(args.split_whitespace())
        .output()
        .map_err(|error| Error::system("run ps", error))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::internal(format!("ps: {}", text.trim())));
    }
    parse_ps(&String::from_utf8_lossy(&output.stdout), pids)
}

/// The lines of the container's processes; the last column may hold spaces.
fn parse_ps(output: &str, pids: &HashSet<i32>) -> Result<ContainerTop> {
    let mut lines = output.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::internal("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours =
            words.get(column).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid));
        if ours && words.len() >= titles.len() {
            let mut row: Vec<String> =
                words[..titles.len() - 1].iter().map(|word| (*word).to_owned()).collect();
            row.push(words[titles.len() - 1..].join(" "));
            processes.push(row);
        }
    }
    Ok(ContainerTop { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_around_any_name() {
        let text = "42 (a) b (c) S 7 42 42 34819 42 4194304 1 0 0 0 250 50 0 0 20 0 1 0 12345 1 1 1";
        let stat = parse_stat(text).expect("stat");
        assert_eq!(
            stat,
            Stat { name: "a) b (c".to_owned(), parent: 7, tty: 34819, cpu_ticks: 300, start_ticks: 12345 }
        );
        assert_eq!(terminal(stat.tty), "pts/3");
        assert_eq!(terminal(0), "?");
    }

    #[test]
    fn ps_output_is_filtered_by_pid() {
        let output = "USER PID CMD\nroot 1 init a b\nroot 20 sh -c x\n";
        let top = parse_ps(output, &HashSet::from([20])).expect("top");
        assert_eq!(top.processes, [["root", "20", "sh -c x"]]);
        assert!(parse_ps("A B\n", &HashSet::new()).is_err());
    }

    #[test]
    fn this_process_is_shown() {
        let top = full_format(&[i32::try_from(std::process::id()).expect("pid"), 0]);
        assert_eq!(top.processes.len(), 1);
        assert_eq!(top.processes[0].len(), top.titles.len());
    }
}
