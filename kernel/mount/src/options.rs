//! Mount options as in `fstab` and in the OCI configuration.
//! Source: runtime-spec config.md, "Linux mount options".

use hull_sys::mount::Propagation;
use rustix::mount::MountAttrFlags;

/// The access time bits exclude each other: setting one means clearing all of them.
const ATIME_MASK: MountAttrFlags = MountAttrFlags::MOUNT_ATTR__ATIME;
/// `MOUNT_ATTR_NOSYMFOLLOW`
const NOSYMFOLLOW: MountAttrFlags = MountAttrFlags::from_bits_retain(0x0020_0000);

/// Options, sorted by who takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Attributes to set on the mount itself.
    pub set: MountAttrFlags,
    /// Attributes to clear on the mount itself.
    pub clear: MountAttrFlags,
    /// Attributes to set on the mount and all below.
    pub set_recursive: MountAttrFlags,
    /// Attributes to clear on the mount and all below.
    pub clear_recursive: MountAttrFlags,
    /// `bind` or `rbind`
    pub bind: bool,
    /// `rbind`
    pub recursive_bind: bool,
    /// `remount`
    pub remount: bool,
    /// Propagation changes in the order given, with whether they reach all mounts below.
    pub propagation: Vec<(Propagation, bool)>,
    /// `idmap` (false) or `ridmap` (true).
    pub idmap: Option<bool>,
    /// `tmpcopyup`
    pub copy_up: bool,
    /// Flags of the file system itself: `ro`, `sync`, `dirsync`, `lazytime`, `mand`.
    pub superblock_flags: Vec<&'static str>,
    /// Options for the file system, `key` or `key=value`.
    pub data: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        let none = MountAttrFlags::empty();
        Self {
            set: none,
            clear: none,
            set_recursive: none,
            clear_recursive: none,
            bind: false,
            recursive_bind: false,
            remount: false,
            propagation: Vec::new(),
            idmap: None,
            copy_up: false,
            superblock_flags: Vec::new(),
            data: Vec::new(),
        }
    }
}

/// An option that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mount option {0:?} is not valid")]
pub struct OptionError(pub String);

/// Sorts options. Unknown ones belong to the file system. An option with a NUL byte, or an empty key, is an error.
pub fn parse_options<S: AsRef<str>>(options: &[S]) -> Result<MountOptions, OptionError> {
    let mut parsed = MountOptions::default();
    for option in options {
        let option = option.as_ref();
        if option.contains('\0') || option.starts_with('=') {
            return Err(OptionError(option.to_owned()));
        }
        if option.is_empty() {
            continue;
        }
        let known = parsed.attribute(option) || parsed.propagation(option) || parsed.mode(option);
        if !known && !parsed.superblock(option) {
            parsed.data.push(option.to_owned());
        }
    }
    Ok(parsed)
}

/// One attribute word: the flag, whether it is set (else cleared).
fn attribute(word: &str) -> Option<(MountAttrFlags, bool)> {
    use MountAttrFlags as F;
    Some(match word {
        "ro" => (F::MOUNT_ATTR_RDONLY, true),
        "rw" => (F::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (F::MOUNT_ATTR_NOSUID, true),
        "suid" => (F::MOUNT_ATTR_NOSUID, false),
        "nodev" => (F::MOUNT_ATTR_NODEV, true),
        "dev" => (F::MOUNT_ATTR_NODEV, false),
        "noexec" => (F::MOUNT_ATTR_NOEXEC, true),
        "exec" => (F::MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (F::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (F::MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (NOSYMFOLLOW, true),
        "symfollow" => (NOSYMFOLLOW, false),
        "noatime" => (F::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (F::MOUNT_ATTR_STRICTATIME, true),
        // Relatime is the kernel's default, an empty access time mode.
        "relatime" | "norelatime" | "atime" | "nostrictatime" => (F::MOUNT_ATTR_RELATIME, true),
        _ => return None,
    })
}

fn is_atime(word: &str) -> bool {
    matches!(word, "noatime" | "strictatime" | "relatime" | "atime" | "nostrictatime" | "norelatime")
}

impl MountOptions {
    fn attribute(&mut self, option: &str) -> bool {
        let (word, set, clear) = match attribute(option) {
            Some(_) => (option, &mut self.set, &mut self.clear),
            None => match option.strip_prefix('r').filter(|word| attribute(word).is_some()) {
                Some(word) => (word, &mut self.set_recursive, &mut self.clear_recursive),
                None => return false,
            },
        };
        let Some((flag, on)) = attribute(word) else { return false };
        if is_atime(word) {
            *set = (*set - ATIME_MASK) | flag;
            *clear |= ATIME_MASK;
        } else if on {
            *set |= flag;
            *clear -= flag;
        } else {
            *set -= flag;
            *clear |= flag;
        }
        true
    }

    fn propagation(&mut self, option: &str) -> bool {
        let (propagation, recursive) = match option {
            "shared" => (Propagation::Shared, false),
            "rshared" => (Propagation::Shared, true),
            "slave" => (Propagation::Slave, false),
            "rslave" => (Propagation::Slave, true),
            "private" => (Propagation::Private, false),
            "rprivate" => (Propagation::Private, true),
            "unbindable" => (Propagation::Unbindable, false),
            "runbindable" => (Propagation::Unbindable, true),
            _ => return false,
        };
        self.propagation.push((propagation, recursive));
        true
    }

    fn mode(&mut self, option: &str) -> bool {
        match option {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive_bind) = (true, true),
            "remount" => self.remount = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "defaults" | "async" | "loud" | "nomand" | "noiversion" | "nolazytime" => {}
            // Flags of mount(2) that no file system made by fsopen(2) has: the log is read here, versions are kept by those
            // file systems that can.
            "silent" | "iversion" => {}
            _ => return false,
        }
        true
    }

    fn superblock(&mut self, option: &str) -> bool {
        let flag = match option {
            "sync" => "sync",
            "dirsync" => "dirsync",
            "lazytime" => "lazytime",
            "mand" => "mand",
            _ => return false,
        };
        self.superblock_flags.push(flag);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MountAttrFlags as F;

    #[test]
    fn the_last_of_two_opposites_wins() {
        let parsed = parse_options(&["ro", "rw", "suid", "nosuid"]).expect("options");
        assert_eq!(parsed.set, F::MOUNT_ATTR_NOSUID);
        assert_eq!(parsed.clear, F::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn access_time_modes_replace_each_other() {
        let parsed = parse_options(&["noatime", "strictatime"]).expect("options");
        assert_eq!(parsed.set, F::MOUNT_ATTR_STRICTATIME);
        assert_eq!(parsed.clear, ATIME_MASK);
    }

    #[test]
    fn not_relatime_is_the_default_which_is_relatime() {
        let parsed = parse_options(&["rnorelatime", "norelatime"]).expect("options");
        assert!(parsed.set.is_empty() && parsed.set_recursive.is_empty());
        assert_eq!((parsed.clear, parsed.clear_recursive), (ATIME_MASK, ATIME_MASK));
    }

    #[test]
    fn recursive_words_are_apart() {
        let parsed = parse_options(&["rbind", "rro", "rnosuid", "rprivate", "rrelatime"]).expect("options");
        assert!(parsed.bind && parsed.recursive_bind);
        assert_eq!(parsed.set, F::empty());
        assert_eq!(parsed.set_recursive, F::MOUNT_ATTR_RDONLY | F::MOUNT_ATTR_NOSUID);
        assert_eq!(parsed.propagation, [(Propagation::Private, true)]);
        assert_eq!(parsed.clear_recursive, ATIME_MASK);
    }

    #[test]
    fn what_is_unknown_goes_to_the_file_system() {
        let parsed = parse_options(&["size=64k", "newinstance", "sync", "relatime"]).expect("options");
        assert_eq!(parsed.data, ["size=64k", "newinstance"]);
        assert_eq!(parsed.superblock_flags, ["sync"]);
        assert_eq!(parse_options(&["a\0b"]), Err(OptionError("a\0b".into())));
    }
}
