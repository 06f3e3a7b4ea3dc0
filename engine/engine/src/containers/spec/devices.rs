//! Devices of the host in a container: `Devices`, `DeviceCgroupRules`, and all of /dev for a privileged one.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use hull_docker_api::{DeviceMapping, HostConfig};
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::{Error, Result};

/// Nodes to make and rules to allow them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostDevices {
    pub(crate) nodes: Vec<LinuxDevice>,
    pub(crate) rules: Vec<LinuxDeviceCgroup>,
}

impl HostDevices {
    /// Looks up what the host configuration names. Reads metadata of devices only; nothing for most containers.
    pub(crate) fn gather(host: &HostConfig) -> Result<HostDevices> {
        let mut devices = HostDevices::default();
        if host.privileged {
            all_of(Path::new("/dev"), &mut devices.nodes);
            return Ok(devices);
        }
        for mapping in host.devices.iter().flatten() {
            devices.add(mapping)?;
        }
        for rule in host.device_cgroup_rules.iter().flatten() {
            devices.rules.push(parse_rule(rule)?);
        }
        Ok(devices)
    }

    fn add(&mut self, mapping: &DeviceMapping) -> Result<()> {
        let host = Path::new(&mapping.path_on_host);
        let failed = |reason: &dyn std::fmt::Display| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{}\": {reason}",
                mapping.path_on_host
            ))
        };
        let inside =
            if mapping.path_in_container.is_empty() { host } else { Path::new(&mapping.path_in_container) };
        let metadata = std::fs::metadata(host).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(&"no such file or directory"),
            _ => failed(&error),
        })?;
        let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
        let mut nodes = Vec::new();
        if metadata.is_dir() {
            all_of(host, &mut nodes);
            for node in &mut nodes {
                let below = node.path().strip_prefix(host).unwrap_or(Path::new("")).to_owned();
                node.set_path(inside.join(below));
            }
        } else {
            nodes.push(node(inside, &metadata).ok_or_else(|| failed(&"not a device node"))?);
        }
        for node in &nodes {
            self.rules.push(rule(node.typ(), Some(node.major()), Some(node.minor()), access)?);
        }
        self.nodes.extend(nodes);
        Ok(())
    }
}

/// Major and minor number of a device node by path.
pub(crate) fn number_of(path: &str) -> Result<(i64, i64)> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::invalid(format!("{path}: {error}")))?;
    let number = metadata.rdev();
    Ok((i64::from(rustix::fs::major(number)), i64::from(rustix::fs::minor(number))))
}

fn node(path: &Path, metadata: &std::fs::Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let typ = if kind.is_char_device() {
        LinuxDeviceType::C
    } else if kind.is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(typ)
        .major(i64::from(rustix::fs::major(metadata.rdev())))
        .minor(i64::from(rustix::fs::minor(metadata.rdev())))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}

/// All device nodes under a directory, without what a container has of its own.
fn all_of(directory: &Path, nodes: &mut Vec<LinuxDevice>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let name = entry.file_name();
        let own = matches!(
            name.to_str(),
            Some("pts" | "shm" | "fd" | "mqueue" | ".lxc" | ".lxd-mounts" | ".udev" | "console" | "ptmx")
        );
        if own {
            continue;
        }
        if metadata.is_dir() {
            all_of(&path, nodes);
        } else {
            nodes.extend(node(&path, &metadata));
        }
    }
}

/// `c 1:3 rwm`, `a *:* rwm`.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = words.as_slice() else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| invalid()),
    };
    let typ = match *kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let known = !access.is_empty() && access.len() <= 3 && access.bytes().all(|byte| b"rwm".contains(&byte));
    if !known {
        return Err(invalid());
    }
    rule(typ, number(major)?, number(minor)?, access)
}

fn rule(
    typ: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(typ).access(access);
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build().map_err(|error| Error::system("device rule", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_host_brings_its_number_and_a_rule() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".to_owned(),
            path_in_container: "/dev/nothing".to_owned(),
            cgroup_permissions: "r".to_owned(),
        };
        let host = HostConfig { devices: Some(vec![mapping]), ..HostConfig::default() };
        let devices = HostDevices::gather(&host).expect("devices");
        assert_eq!((devices.nodes[0].major(), devices.nodes[0].minor()), (1, 3));
        assert_eq!(devices.nodes[0].path(), Path::new("/dev/nothing"));
        assert_eq!(devices.rules[0].access().as_deref(), Some("r"));
    }

    #[test]
    fn errors_are_dockers() {
        let missing =
            DeviceMapping { path_on_host: "/dev/nonexistent".to_owned(), ..DeviceMapping::default() };
        let host = HostConfig { devices: Some(vec![missing]), ..HostConfig::default() };
        assert_eq!(
            HostDevices::gather(&host).expect_err("missing").message(),
            "error gathering device information while adding custom device \"/dev/nonexistent\": no such file or directory"
        );
        assert!(parse_rule("c 1:3 rwm").is_ok() && parse_rule("a *:* r").is_ok());
        for bad in ["c 1:3", "x 1:3 r", "c 1-3 r", "c 1:3 rx", "c a:3 r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }
}
