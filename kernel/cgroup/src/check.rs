//! What is wrong with limits on any machine, found before anything is made.

use crate::{Error, Result, check_file_name, devices};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// Refuses limits that contradict themselves or are out of any kernel's range.
pub fn check(resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        check_memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        check_cpu(cpu)?;
    }
    if let Some(block) = resources.block_io() {
        check_block_io(block)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        check_file_name("hugepageLimits.pageSize", limit.page_size())?;
    }
    for key in resources.unified().iter().flatten().map(|(key, _)| key) {
        check_file_name("unified", key)?;
    }
    resources.devices().iter().flatten().try_for_each(|rule| devices::Rule::parse(rule).map(drop))
}

fn invalid(field: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), reason: reason.into() }
}

fn check_memory(memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let limits = [
        ("memory.limit", limit),
        ("memory.swap", memory.swap()),
        ("memory.reservation", memory.reservation()),
    ];
    if let Some((field, Some(value))) = limits.into_iter().find(|(_, value)| value.is_some_and(|v| v < -1)) {
        return Err(invalid(field, format!("{value} is neither a size nor -1 for none")));
    }
    match (limit, memory.swap().filter(|swap| *swap != 0)) {
        (Some(limit), Some(swap)) if swap != -1 && (limit == -1 || swap < limit) => {
            return Err(invalid("memory.swap", format!("{swap} is less than the memory limit {limit}")));
        }
        _ => {}
    }
    if memory.swappiness().is_some_and(|swappiness| swappiness > 100) {
        return Err(invalid("memory.swappiness", "more than 100"));
    }
    Ok(())
}

/// Lists of the kernel: `0-3,7`.
fn is_list(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    text.split(',').all(|range| match range.trim().split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b),
        None => number(range.trim()).is_some(),
    })
}

fn check_cpu(cpu: &LinuxCpu) -> Result<()> {
    for (field, list) in [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().map(str::trim).filter(|list| !list.is_empty() && !is_list(list)) {
            return Err(invalid(field, format!("{list:?} is no list of numbers")));
        }
    }
    if cpu.idle().is_some_and(|idle| !(0..=1).contains(&idle)) {
        return Err(invalid("cpu.idle", "is neither 0 nor 1"));
    }
    let quota = cpu.quota().filter(|quota| *quota > 0);
    if let (Some(burst), Some(quota)) = (cpu.burst(), quota)
        && burst > quota.unsigned_abs()
    {
        return Err(invalid("cpu.burst", format!("{burst} is more than the quota {quota}")));
    }
    Ok(())
}

fn check_block_io(block: &LinuxBlockIo) -> Result<()> {
    let possible =
        |weight: Option<u16>| weight.is_none_or(|weight| weight == 0 || (10..=1000).contains(&weight));
    if !possible(block.weight()) || !possible(block.leaf_weight()) {
        return Err(invalid("blockIO.weight", "is not within 10 to 1000"));
    }
    let devices = block.weight_device().iter().flatten();
    match devices.into_iter().all(|device| possible(device.weight()) && possible(device.leaf_weight())) {
        true => Ok(()),
        false => Err(invalid("blockIO.weightDevice", "is not within 10 to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_name_their_field() {
        for (text, field) in [
            (r#"{"memory":{"limit":100,"swap":50}}"#, "memory.swap"),
            (r#"{"memory":{"limit":-5}}"#, "memory.limit"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"cpu":{"cpus":"0-"}}"#, "cpu.cpus"),
            (r#"{"cpu":{"mems":"2-1"}}"#, "cpu.mems"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"cpu":{"quota":1000,"burst":2000}}"#, "cpu.burst"),
            (r#"{"blockIO":{"weight":5}}"#, "blockIO.weight"),
            (r#"{"unified":{"../x":"1"}}"#, "unified"),
            (r#"{"devices":[{"allow":true,"access":"x"}]}"#, "devices"),
        ] {
            let resources = serde_json::from_str(text).expect("json");
            let error = check(&resources).expect_err(text).to_string();
            assert!(error.starts_with(&format!("linux.resources.{field}")), "{text}: {error}");
        }
        let good = r#"{"memory":{"limit":100,"swap":-1},"cpu":{"cpus":"0-1,3","quota":-1,"burst":5},"blockIO":{"weight":10}}"#;
        assert!(check(&serde_json::from_str(good).expect("json")).is_ok());
    }
}
