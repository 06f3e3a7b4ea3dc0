//! Memory as proportional set size: a page shared by n processes counts one n-th for each.

use std::fs;

/// Sum in KiB over the processes whose name, or whose program's name, begins with one of `names`.
pub(super) fn pss(names: &[&str]) -> u64 {
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    numbers.filter(|pid| is_one_of(pid, names)).filter_map(|pid| of(&pid)).sum()
}

fn is_one_of(pid: &str, names: &[&str]) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(first).rsplit('/').next().unwrap_or_default().to_owned();
    // comm holds 15 bytes.
    names.iter().any(|name| comm.trim().starts_with(&name[..name.len().min(15)]) || program.starts_with(name))
}

fn of(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_others_do_not_count() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(pss(&[own.trim()]) > 100);
        assert_eq!(pss(&["no-such-process-name"]), 0);
    }
}
