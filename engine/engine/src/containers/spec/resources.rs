//! Limits: from HostConfig to the OCI resources.

use hull_docker_api::HostConfig;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPidsBuilder, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::devices::{HostDevices, number_of};
use crate::{Error, Result};

/// Period of the CPU bandwidth controller for `NanoCpus`, microseconds.
const PERIOD: i64 = 100_000;

/// The limits of a container. Devices are left to the caller.
pub(crate) fn from_host(host: &HostConfig, _devices: &HostDevices) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_cpu(cpu(host)).set_memory(memory(host)).set_block_io(block_io(host)?);
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        let pids = LinuxPidsBuilder::default().limit(limit.max(-1)).build();
        resources.set_pids(Some(pids.map_err(|error| Error::system("pids limit", error))?));
    }
    Ok(resources)
}

fn cpu(host: &HostConfig) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    if host.cpu_shares > 0 {
        cpu.set_shares(u64::try_from(host.cpu_shares).ok());
    }
    if host.nano_cpus > 0 {
        cpu.set_period(u64::try_from(PERIOD).ok());
        cpu.set_quota(Some(host.nano_cpus.saturating_mul(PERIOD) / 1_000_000_000));
    }
    if host.cpu_period > 0 {
        cpu.set_period(u64::try_from(host.cpu_period).ok());
    }
    if host.cpu_quota != 0 {
        cpu.set_quota(Some(host.cpu_quota));
    }
    let list = |text: &String| (!text.is_empty()).then(|| text.clone());
    cpu.set_cpus(list(&host.cpuset_cpus)).set_mems(list(&host.cpuset_mems));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn memory(host: &HostConfig) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    let set = |value: i64| (value != 0).then_some(value);
    memory
        .set_limit(set(host.memory))
        .set_swap(set(host.memory_swap))
        .set_reservation(set(host.memory_reservation));
    if let Some(swappiness) = host.memory_swappiness.and_then(|value| u64::try_from(value).ok()) {
        memory.set_swappiness(Some(swappiness));
    }
    memory.set_disable_oom_killer(host.oom_kill_disable.filter(|disable| *disable));
    (memory != LinuxMemory::default()).then_some(memory)
}

fn block_io(host: &HostConfig) -> Result<Option<LinuxBlockIo>> {
    let mut io = LinuxBlockIo::default();
    io.set_weight((host.blkio_weight > 0).then_some(host.blkio_weight));
    let weights = host.blkio_weight_device.iter().flatten();
    let weights = weights.map(|device| weight(&device.path, device.weight)).collect::<Result<Vec<_>>>()?;
    io.set_weight_device((!weights.is_empty()).then_some(weights));
    io.set_throttle_read_bps_device(throttles(&host.blkio_device_read_bps)?);
    io.set_throttle_write_bps_device(throttles(&host.blkio_device_write_bps)?);
    io.set_throttle_read_iops_device(throttles(&host.blkio_device_read_iops)?);
    io.set_throttle_write_iops_device(throttles(&host.blkio_device_write_iops)?);
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

fn weight(path: &str, weight: u16) -> Result<LinuxWeightDevice> {
    let (major, minor) = number_of(path)?;
    LinuxWeightDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .weight(weight)
        .build()
        .map_err(|error| Error::system("block device weight", error))
}

fn throttles(
    devices: &Option<Vec<hull_docker_api::ThrottleDevice>>,
) -> Result<Option<Vec<LinuxThrottleDevice>>> {
    let devices = devices.iter().flatten().map(|device| {
        let (major, minor) = number_of(&device.path)?;
        LinuxThrottleDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .rate(device.rate)
            .build()
            .map_err(|error| Error::system("block device limit", error))
    });
    let devices = devices.collect::<Result<Vec<_>>>()?;
    Ok((!devices.is_empty()).then_some(devices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_translated_and_absent_ones_stay_absent() {
        let none = from_host(&HostConfig::default(), &HostDevices::default()).expect("none");
        assert!(
            none.cpu().is_none()
                && none.memory().is_none()
                && none.pids().is_none()
                && none.block_io().is_none()
        );
        let host = HostConfig {
            nano_cpus: 1_500_000_000,
            memory: 64 << 20,
            memory_swap: -1,
            pids_limit: Some(-1),
            oom_kill_disable: Some(false),
            ..HostConfig::default()
        };
        let limits = from_host(&host, &HostDevices::default()).expect("limits");
        let cpu = limits.cpu().as_ref().expect("cpu");
        assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
        let memory = limits.memory().expect("memory");
        assert_eq!(
            (memory.limit(), memory.swap(), memory.disable_oom_killer()),
            (Some(64 << 20), Some(-1), None)
        );
        assert_eq!(limits.pids().expect("pids").limit(), -1);
    }
}
