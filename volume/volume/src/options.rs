use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

/// The mount that a volume's `type`, `device` and `o` options describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    fs_type: String,
    device: String,
    flags: MountFlags,
    data: String,
}

/// Options the local driver does not take, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    /// None of `type`, `o`, `device`, `size`.
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// One option needs another.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// Sizes need project quotas.
    #[error("quota size requested but no quota support")]
    Quota,
    /// Network file systems are mounted by address: the kernel resolves no names.
    #[error("option addr={0}: give an IP address, host names are not resolved for volumes")]
    HostName(String),
}

impl MountOptions {
    /// Reads and checks a volume's options; `None` when they describe no mount.
    ///
    /// # Errors
    /// [`InvalidOptions`], status 400 for a client.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Option<MountOptions>, InvalidOptions> {
        if let Some(unknown) =
            options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
        {
            return Err(InvalidOptions::Unknown(unknown.clone()));
        }
        if options.get("size").is_some_and(|size| !matches!(size.trim(), "" | "0")) {
            return Err(InvalidOptions::Quota);
        }
        for (given, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
            if options.contains_key(given) && !options.contains_key(needed) {
                return Err(InvalidOptions::Missing(needed));
            }
        }
        let (Some(device), Some(fs_type)) = (options.get("device"), options.get("type")) else {
            return Ok(None);
        };
        let (flags, data) = split_options(options.get("o").map_or("", String::as_str));
        let mount = MountOptions { fs_type: fs_type.clone(), device: device.clone(), flags, data };
        mount.check_address()?;
        Ok(Some(mount))
    }

    /// The host directory, when the mount is a bind.
    pub fn bound_directory(&self) -> Option<PathBuf> {
        self.flags.contains(MountFlags::BIND).then(|| PathBuf::from(&self.device))
    }

    /// What is mounted.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// File system options.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Flags of mount(2).
    pub fn flag_bits(&self) -> u32 {
        self.flags.bits()
    }

    /// mount(2) onto `target`.
    pub(crate) fn mount(&self, target: &Path) -> io::Result<()> {
        let data = CString::new(self.data.as_str())?;
        rustix::mount::mount(&self.device, target, &self.fs_type, self.flags, Some(data.as_c_str()))
            .map_err(io::Error::from)
    }

    fn check_address(&self) -> Result<(), InvalidOptions> {
        let network = self.fs_type.starts_with("nfs") || self.fs_type == "cifs";
        let address = self.data.split(',').find_map(|option| option.strip_prefix("addr="));
        match address {
            Some(host) if network && host.parse::<std::net::IpAddr>().is_err() => {
                Err(InvalidOptions::HostName(host.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// Splits mount(8) options into flags and what is left for the file system.
fn split_options(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        match option {
            "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<MountOptions>, InvalidOptions> {
        MountOptions::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn flags_are_split_from_file_system_options() {
        let mount = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,noexec,uid=7,ro")])
            .unwrap()
            .unwrap();
        assert_eq!(mount.data(), "size=1m,uid=7");
        assert_eq!(mount.flags, MountFlags::NOEXEC | MountFlags::RDONLY);
        assert_eq!(mount.bound_directory(), None);
        let bind = parse(&[("type", "none"), ("device", "/srv"), ("o", "bind")]).unwrap().unwrap();
        assert_eq!(bind.bound_directory(), Some("/srv".into()));
    }

    #[test]
    fn refusals_in_dockers_words() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("foo", "x")]).unwrap_err().to_string(), "invalid option: \"foo\"");
        assert_eq!(parse(&[("type", "nfs")]).unwrap_err().to_string(), "missing required option: \"device\"");
        assert_eq!(parse(&[("device", "x")]).unwrap_err().to_string(), "missing required option: \"type\"");
        assert_eq!(parse(&[("size", "1g")]), Err(InvalidOptions::Quota));
        assert!(parse(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=nas.local")]).is_err());
        assert!(parse(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1")]).is_ok());
    }
}
