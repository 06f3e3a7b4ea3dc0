//! What a process can read about its own isolation (proc(5), namespaces(7), capabilities(7), cgroups(7)).

use std::{fs, path::Path};

/// Every fact as a name and what is the case.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let status = read("/proc/self/status");
    let mounts = read("/proc/self/mountinfo");
    vec![
        ("process", format!("{}, of {} to be seen", std::process::id(), processes())),
        ("host name", read("/proc/sys/kernel/hostname").trim().to_owned()),
        ("namespaces", namespaces(|name| fs::read_link(format!("/proc/self/ns/{name}")).ok())),
        ("user", user(&status, &read("/proc/self/uid_map"))),
        ("capabilities", capabilities(&status)),
        ("seccomp", seccomp(&status)),
        ("cgroup", cgroup(&read("/proc/self/cgroup"))),
        ("limits", limits(|file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())),
        ("root", root(&mounts)),
        ("mounts", mount_count(&mounts)),
        ("addresses", addresses(&read("/proc/net/fib_trie"), &read("/proc/net/if_inet6"))),
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn processes() -> String {
    let is_process =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    let count = fs::read_dir("/proc").map(|entries| entries.flatten().filter(is_process).count());
    count.map_or_else(|_| UNKNOWN.to_owned(), |count| count.to_string())
}

const UNKNOWN: &str = "unknown";

/// Namespaces and the numbers of the machine's first ones (include/uapi/linux/nsfs.h); those of network and mount
/// namespaces are fixed since Linux 6.18 and came from the first few hundred dynamic numbers before.
const NAMESPACES: [(&str, u32); 8] = [
    ("mnt", 0xEFFF_FFF8),
    ("pid", 0xEFFF_FFFC),
    ("net", 0xEFFF_FFF9),
    ("ipc", 0xEFFF_FFFF),
    ("uts", 0xEFFF_FFFE),
    ("cgroup", 0xEFFF_FFFB),
    ("user", 0xEFFF_FFFD),
    ("time", 0xEFFF_FFFA),
];

/// Numbers below were given while the machine booted.
const DYNAMIC: u32 = 0xF000_0000 + 200;

fn namespaces(link: impl Fn(&str) -> Option<std::path::PathBuf>) -> String {
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    for (name, first) in NAMESPACES {
        let Some(number) = link(name).and_then(|link| namespace_number(&link.to_string_lossy())) else {
            continue;
        };
        let boot = matches!(name, "mnt" | "net") && (0xF000_0000..DYNAMIC).contains(&number);
        if number == first || boot { shared.push(name) } else { own.push(name) }
    }
    match (own.is_empty(), shared.is_empty()) {
        (true, true) => UNKNOWN.to_owned(),
        (false, true) => format!("own {}", own.join(" ")),
        (true, false) => format!("the machine's {}", shared.join(" ")),
        (false, false) => format!("own {}; the machine's {}", own.join(" "), shared.join(" ")),
    }
}

/// `net:[4026531833]` gives 4026531833.
fn namespace_number(link: &str) -> Option<u32> {
    link.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn user(status: &str, uid_map: &str) -> String {
    let effective =
        |name| field(status, name).and_then(|ids| ids.split_whitespace().nth(1)).unwrap_or(UNKNOWN);
    let groups = match field(status, "Groups") {
        None | Some("") => String::new(),
        Some(groups) => format!(", groups {groups}"),
    };
    let map: Vec<&str> = uid_map.split_whitespace().collect();
    let outside = match map[..] {
        ["0", "0", _] => ", the same ids as on the machine".to_owned(),
        [inside, outside, count] => format!(", user {inside} is {outside} on the machine ({count} ids)"),
        _ => String::new(),
    };
    format!("{}, group {}{groups}{outside}", effective("Uid"), effective("Gid"))
}

/// Names by bit (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

fn capabilities(status: &str) -> String {
    let mask = |name| field(status, name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let (Some(effective), Some(bounding)) = (mask("CapEff"), mask("CapBnd")) else {
        return UNKNOWN.to_owned();
    };
    let held = match effective.count_ones() {
        0 => "none".to_owned(),
        count => format!("{count}: {}", capability_names(effective)),
    };
    if effective == bounding {
        return held;
    }
    format!("{held} (bound to {}: {})", bounding.count_ones(), capability_names(bounding))
}

fn capability_names(mask: u64) -> String {
    let named = CAPABILITIES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
    let names: Vec<&str> = named.map(|(_, name)| *name).collect();
    if names.len() == CAPABILITIES.len() { "all".to_owned() } else { names.join(" ") }
}

fn seccomp(status: &str) -> String {
    let filters = field(status, "Seccomp_filters").unwrap_or("some");
    let mode = match field(status, "Seccomp") {
        Some("0") => "no filter of system calls".to_owned(),
        Some("1") => "strict".to_owned(),
        Some("2") => format!("system calls pass {filters} filter{}", if filters == "1" { "" } else { "s" }),
        _ => UNKNOWN.to_owned(),
    };
    let gain = match field(status, "NoNewPrivs") {
        Some("1") => "programs cannot gain privileges",
        _ => "setuid programs may gain privileges",
    };
    format!("{mode}; {gain}")
}

/// Lines are `hierarchy:controllers:path` (cgroups(7)).
fn cgroup(text: &str) -> String {
    let mut paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let hierarchies = paths.len();
    paths.sort_unstable();
    paths.dedup();
    match paths[..] {
        [] => UNKNOWN.to_owned(),
        ["/"] => format!("own root, hierarchies: {hierarchies}"),
        _ => format!("{}, hierarchies: {hierarchies}", paths.join(" ")),
    }
}

/// A limit at or above this is none: version 1 writes the largest page-aligned number.
const NO_MEMORY_LIMIT: u64 = 1 << 62;

fn limits(file: impl Fn(&str) -> Option<String>) -> String {
    let first = |names: &[&str]| names.iter().find_map(|name| file(name)).map(|text| text.trim().to_owned());
    let number = |names: &[&str]| first(names).and_then(|text| text.parse::<u64>().ok());
    let mut set = Vec::new();
    if let Some(bytes) =
        number(&["memory.max", "memory/memory.limit_in_bytes"]).filter(|at| *at < NO_MEMORY_LIMIT)
    {
        set.push(format!("memory {} MiB", bytes >> 20));
    }
    let quota = first(&["cpu.max"]).or_else(|| {
        Some(format!("{} {}", file("cpu/cpu.cfs_quota_us")?.trim(), file("cpu/cpu.cfs_period_us")?.trim()))
    });
    if let Some(cpus) = quota.as_deref().and_then(cpus) {
        set.push(format!("{cpus} cpus"));
    }
    if let Some(count) = number(&["pids.max", "pids/pids.max"]) {
        set.push(format!("{count} processes"));
    }
    if set.is_empty() { "none set".to_owned() } else { set.join(", ") }
}

/// `50000 100000` is half a processor; `max …` and `-1 …` are no limit.
fn cpus(quota: &str) -> Option<f64> {
    let (quota, period) = quota.split_once(' ')?;
    Some(quota.parse::<u32>().ok()? as f64 / period.parse::<u32>().ok()? as f64)
}

/// Fields of mountinfo: id parent device root point options … - type source super-options (proc(5)).
struct Mount<'a> {
    point: &'a str,
    read_only: bool,
    kind: &'a str,
}

fn parse_mounts(text: &str) -> impl Iterator<Item = Mount<'_>> {
    text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        let read_only = options.split(',').any(|option| option == "ro");
        Some(Mount { point, read_only, kind: after.split(' ').next()? })
    })
}

fn root(mounts: &str) -> String {
    // The last one covers the others.
    let Some(root) = parse_mounts(mounts).filter(|mount| mount.point == "/").last() else {
        return UNKNOWN.to_owned();
    };
    format!("{}, {}", root.kind, if root.read_only { "read-only" } else { "writable" })
}

fn mount_count(mounts: &str) -> String {
    let count = parse_mounts(mounts).count();
    let read_only = parse_mounts(mounts).filter(|mount| mount.read_only).count();
    format!("{count}, of them {read_only} read-only")
}

fn addresses(fib_trie: &str, if_inet6: &str) -> String {
    let mut found = local_v4(fib_trie);
    found.extend(local_v6(if_inet6));
    if found.is_empty() { "none".to_owned() } else { found.join(" ") }
}

/// Local addresses stand as `|-- 172.17.0.2` before `/32 host LOCAL`, once in each of two tables.
fn local_v4(fib_trie: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut address = "";
    for line in fib_trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            address = leaf;
        } else if line == "/32 host LOCAL" && !found.iter().any(|known| known == address) {
            found.push(address.to_owned());
        }
    }
    found
}

/// Lines are `hex address, index, prefix length, scope, flags, name`.
fn local_v6(if_inet6: &str) -> Vec<String> {
    let parse = |line: &str| {
        let number = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        Some(std::net::Ipv6Addr::from(number).to_string())
    };
    if_inet6.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\thello\nUid:\t0\t0\t0\t0\nGid:\t5\t5\t5\t5\nGroups:\t5 20 \nNoNewPrivs:\t0\n\
                          CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn docker_s_fourteen_capabilities_are_named() {
        assert_eq!(
            capabilities(STATUS),
            "14: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot \
             mknod audit_write setfcap"
        );
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"), "41: all");
        assert_eq!(capabilities("CapEff:\t0\nCapBnd:\t1\n"), "none (bound to 1: chown)");
        assert_eq!(capabilities(""), UNKNOWN);
    }

    #[test]
    fn namespaces_are_told_from_the_machine_s() {
        let link = |name: &str| {
            let number = if name == "net" { 4_026_531_833_u32 } else { 4_026_532_500 };
            (name != "time" && name != "user").then(|| format!("{name}:[{number}]").into())
        };
        assert_eq!(namespaces(link), "own mnt pid ipc uts cgroup; the machine's net");
    }

    #[test]
    fn user_and_seccomp_are_read_from_status() {
        assert_eq!(user(STATUS, "0 0 4294967295"), "0, group 5, groups 5 20, the same ids as on the machine");
        assert_eq!(
            user("Uid:\t1\t7\nGid:\t1\t8\n", "0 100000 65536"),
            "7, group 8, user 0 is 100000 on the machine (65536 ids)"
        );
        assert_eq!(seccomp(STATUS), "system calls pass 1 filter; setuid programs may gain privileges");
        assert_eq!(
            seccomp("Seccomp:\t0\nNoNewPrivs:\t1\n"),
            "no filter of system calls; programs cannot gain privileges"
        );
    }

    #[test]
    fn limits_of_both_versions_are_read() {
        let from = |files: &'static [(&str, &str)]| {
            limits(move |name| {
                files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
            })
        };
        assert_eq!(
            from(&[("memory.max", "268435456\n"), ("cpu.max", "50000 100000\n"), ("pids.max", "100\n")]),
            "memory 256 MiB, 0.5 cpus, 100 processes"
        );
        assert_eq!(
            from(&[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("pids/pids.max", "max\n")
            ]),
            "none set"
        );
    }

    #[test]
    fn mounts_are_counted_and_the_last_root_wins() {
        let text = "1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / / ro,relatime shared:1 - overlay overlay rw\n\
                    3 2 0:3 / /proc rw,nosuid - proc proc rw\n";
        assert_eq!(root(text), "overlay, read-only");
        assert_eq!(mount_count(text), "3, of them 1 read-only");
    }

    #[test]
    fn addresses_are_found_once() {
        let trie = "Main:\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 172.17.0.2\n     /32 host LOCAL\n  \
                    |-- 172.17.255.255\n     /32 link BROADCAST\nLocal:\n  |-- 127.0.0.1\n     /32 host LOCAL\n";
        let v6 = "00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(addresses(trie, v6), "127.0.0.1 172.17.0.2 ::1");
        assert_eq!(addresses("", ""), "none");
    }

    #[test]
    fn the_cgroup_s_root_is_recognised() {
        assert_eq!(cgroup("2:cpu:/\n1:name=systemd:/\n0::/\n"), "own root, hierarchies: 3");
        assert_eq!(cgroup("0::/hull/x\n"), "/hull/x, hierarchies: 1");
    }
}
