//! Capability names, sets and their application (capabilities(7)).

use std::fmt;
use std::io;
use std::str::FromStr;

use oci_spec::runtime::LinuxCapabilities;
use rustix::thread::{self, CapabilitySet};

/// Kernel names without the `CAP_` prefix; the position is the bit (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each in the kernel's numbering.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct CapSet(u64);

/// A name that is no capability.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown capability: {0:?}")]
pub struct UnknownCapability(pub String);

/// A `--cap-add` or `--cap-drop` value could not be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid {option}: unknown capability: {name:?}")]
pub struct TweakError {
    /// `CapAdd` or `CapDrop`.
    pub option: &'static str,
    /// The name as given, normalised.
    pub name: String,
}

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability this crate knows by name.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// The fourteen docker grants by default.
    pub const DOCKER_DEFAULT: Self = Self(
        bit("CHOWN")
            | bit("DAC_OVERRIDE")
            | bit("FSETID")
            | bit("FOWNER")
            | bit("MKNOD")
            | bit("NET_RAW")
            | bit("SETGID")
            | bit("SETUID")
            | bit("SETFCAP")
            | bit("SETPCAP")
            | bit("NET_BIND_SERVICE")
            | bit("SYS_CHROOT")
            | bit("KILL")
            | bit("AUDIT_WRITE"),
    );

    /// The set of the names in `names`, each as [`FromStr`] takes it.
    ///
    /// # Errors
    /// [`UnknownCapability`] names the first one that is none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownCapability> {
        names.into_iter().try_fold(Self::EMPTY, |set, name| Ok(set | name.parse()?))
    }

    /// The set with the kernel's bits `bits`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The capabilities in the bounding set of the calling thread, which is what it could grant at most.
    pub fn bounding_of_caller() -> Self {
        let has = |number: &usize| {
            thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number))
                .unwrap_or(false)
        };
        Self((0..NAMES.len()).filter(has).fold(0, |bits, number| bits | 1 << number))
    }

    /// Kernel names (`CAP_CHOWN`) in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = String> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.0 & 1 << number != 0).map(|(_, name)| {
            let mut text = String::with_capacity(name.len() + 4);
            text.push_str("CAP_");
            text.push_str(name);
            text
        })
    }

    /// The capabilities of a container as docker derives them from `--cap-add`, `--cap-drop`, `--privileged`.
    ///
    /// `ALL` in `add` starts from everything and takes `drop` away; `ALL` in `drop` leaves exactly `add`;
    /// otherwise `drop` is taken from this set and `add` is added.
    ///
    /// # Errors
    /// [`TweakError`] names the option and the unknown capability.
    pub fn tweak<A: AsRef<str>, D: AsRef<str>>(
        self,
        add: &[A],
        drop: &[D],
        privileged: bool,
    ) -> Result<Self, TweakError> {
        let (add, all_added) = parse_option("CapAdd", add)?;
        let (drop, all_dropped) = parse_option("CapDrop", drop)?;
        Ok(if privileged {
            Self::ALL
        } else if all_added {
            Self::ALL.without(drop)
        } else if all_dropped {
            add
        } else {
            self.without(drop) | add
        })
    }
}

fn parse_option(option: &'static str, names: &[impl AsRef<str>]) -> Result<(CapSet, bool), TweakError> {
    let mut all = false;
    let mut set = CapSet::EMPTY;
    for name in names {
        let name = name.as_ref();
        if name.eq_ignore_ascii_case("all") {
            all = true;
            continue;
        }
        set = set | name.parse().map_err(|UnknownCapability(name)| TweakError { option, name })?;
    }
    Ok((set, all))
}

impl std::ops::BitOr for CapSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitAnd for CapSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl FromStr for CapSet {
    type Err = UnknownCapability;

    /// One capability by name, in any case, with or without `CAP_`.
    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == bare) {
            Some(number) => Ok(Self(1 << number)),
            None => Err(UnknownCapability(format!("CAP_{bare}"))),
        }
    }
}

/// The bit of a name known at compile time.
const fn bit(name: &str) -> u64 {
    let mut number = 0;
    while number < NAMES.len() {
        if same(NAMES[number].as_bytes(), name.as_bytes()) {
            return 1 << number;
        }
        number += 1;
    }
    panic!("not a capability");
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The five sets of a thread.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CapabilitySets {
    /// What execve may still grant.
    pub bounding: CapSet,
    /// What the thread may do now.
    pub effective: CapSet,
    /// What survives execve of a file with the same inheritable bits.
    pub inheritable: CapSet,
    /// What the thread may make effective.
    pub permitted: CapSet,
    /// What survives execve of an ordinary file.
    pub ambient: CapSet,
}

/// A capability set could not be put in force; the container must not start.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Dropping from the bounding set was refused.
    #[error("drop {0:?} from the bounding set")]
    Bounding(CapSet, #[source] io::Error),
    /// capset(2) was refused.
    #[error("set effective, permitted and inheritable capabilities")]
    Set(#[source] io::Error),
    /// The ambient set was refused.
    #[error("set ambient capabilities {0:?}")]
    Ambient(CapSet, #[source] io::Error),
}

impl CapabilitySets {
    /// Docker's use of one set: bounding, effective and permitted; nothing inheritable or ambient.
    pub fn docker(set: CapSet) -> Self {
        Self { bounding: set, effective: set, permitted: set, ..Self::default() }
    }

    /// The sets an OCI spec asks for; a set that is absent there is empty.
    pub fn from_oci(capabilities: &LinuxCapabilities) -> Self {
        let set = |names: &Option<std::collections::HashSet<oci_spec::runtime::Capability>>| {
            names
                .iter()
                .flatten()
                .filter_map(|name| name.to_string().parse().ok())
                .fold(CapSet::EMPTY, |a, b| a | b)
        };
        let (inheritable, permitted) = (set(capabilities.inheritable()), set(capabilities.permitted()));
        Self {
            bounding: set(capabilities.bounding()),
            effective: set(capabilities.effective()),
            inheritable,
            permitted,
            // capabilities(7): the kernel keeps no others, and refuses to be asked for them.
            ambient: CapSet(set(capabilities.ambient()).0 & inheritable.0 & permitted.0),
        }
    }

    /// Drops from the calling thread's bounding set all that [`Self::bounding`] lacks. Needs `CAP_SETPCAP` in
    /// effect unless there is nothing to drop.
    ///
    /// # Errors
    /// [`ApplyError::Bounding`] with the capability that could not be dropped.
    pub fn limit_bounding(&self) -> Result<(), ApplyError> {
        for number in 0..u64::BITS {
            let one = CapSet(1 << number);
            if self.bounding.contains(one) {
                continue;
            }
            let flag = CapabilitySet::from_bits_retain(one.0);
            match thread::remove_capability_from_bounding_set(flag) {
                Ok(()) => {}
                // The kernel numbers capabilities without gaps: beyond its last one all are unknown.
                Err(rustix::io::Errno::INVAL) => break,
                Err(_) if thread::capability_is_in_bounding_set(flag) == Ok(false) => {}
                Err(errno) => return Err(ApplyError::Bounding(one, errno.into())),
            }
        }
        Ok(())
    }

    /// Sets effective, permitted, inheritable and ambient capabilities of the calling thread.
    ///
    /// # Errors
    /// [`ApplyError`] names the set the kernel refused.
    pub fn apply(&self) -> Result<(), ApplyError> {
        let set = |set: CapSet| CapabilitySet::from_bits_retain(set.0);
        let sets = thread::CapabilitySets {
            effective: set(self.effective),
            permitted: set(self.permitted),
            inheritable: set(self.inheritable),
        };
        thread::set_capabilities(None, sets).map_err(|errno| ApplyError::Set(errno.into()))?;
        thread::clear_ambient_capability_set()
            .map_err(|errno| ApplyError::Ambient(CapSet::EMPTY, errno.into()))?;
        for number in (0..u64::BITS).filter(|number| self.ambient.0 & 1 << number != 0) {
            thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)
                .map_err(|errno| ApplyError::Ambient(CapSet(1 << number), errno.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree_with_the_kernel() {
        assert_eq!("chown".parse(), Ok(CapSet::from_bits(1)));
        assert_eq!("CAP_SYS_ADMIN".parse(), Ok(CapSet::from_bits(1 << 21)));
        assert_eq!("Cap_Checkpoint_Restore".parse(), Ok(CapSet::from_bits(1 << 40)));
        assert_eq!("CAP_X".parse::<CapSet>(), Err(UnknownCapability("CAP_X".into())));
        let all: Vec<_> = CapSet::ALL.names().collect();
        assert_eq!(CapSet::from_names(all.iter().map(String::as_str)), Ok(CapSet::ALL));
    }

    #[test]
    fn docker_default_is_the_known_mask() {
        // As /proc/self/status shows it in a container of docker.
        assert_eq!(CapSet::DOCKER_DEFAULT.bits(), 0xa804_25fb);
        assert_eq!(CapSet::DOCKER_DEFAULT.names().count(), 14);
    }

    #[test]
    fn tweaks_like_docker() {
        let base = CapSet::DOCKER_DEFAULT;
        let none: [&str; 0] = [];
        assert_eq!(base.tweak(&none, &none, false), Ok(base));
        assert_eq!(base.tweak(&none, &none, true), Ok(CapSet::ALL));
        assert_eq!(
            base.tweak(&["NET_ADMIN"], &["ALL"], false),
            "NET_ADMIN".parse::<CapSet>().map_err(|_| unreachable!())
        );
        assert_eq!(base.tweak(&["all"], &["chown"], false).unwrap().bits(), CapSet::ALL.bits() & !1);
        // Added after dropping: a name in both is granted.
        assert_eq!(base.tweak(&["chown"], &["chown"], false), Ok(base));
        let error = base.tweak(&["bogus"], &none, false).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_BOGUS\"");
    }

    #[test]
    fn applied_sets_are_what_the_kernel_then_reports() {
        // A thread of its own: capabilities are per thread.
        let status = std::thread::spawn(|| {
            let set: CapSet = "CAP_CHOWN".parse().unwrap();
            let kill: CapSet = "CAP_KILL".parse().unwrap();
            let sets = CapabilitySets {
                bounding: set | kill,
                effective: set,
                permitted: set | kill,
                inheritable: kill,
                ambient: kill,
            };
            sets.limit_bounding().unwrap();
            sets.apply().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        })
        .join()
        .unwrap();
        let line = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        assert_eq!(
            [line("CapInh"), line("CapPrm"), line("CapEff"), line("CapBnd"), line("CapAmb")],
            [0x20, 0x21, 0x01, 0x21, 0x20]
        );
    }
}
