//! The configuration, checked and turned into what the steps need. Nothing is created here.

use crate::net_devices::NetDevice;
use crate::process::ProcessPlan;
use crate::{Error, agent, resctrl};
use hull_cgroup::systemd::{Manager, Unit};
use hull_mount::{MountOptions, parse_options};
use hull_sys::CloneFlags;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType,
    LinuxResources, Mount, Spec,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A namespace to enter by path.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) kind: CloneFlags,
    pub(crate) path: PathBuf,
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    /// Made by clone3.
    pub(crate) new: CloneFlags,
    /// Entered by path.
    pub(crate) join: Vec<Join>,
}

impl Namespaces {
    /// Whether the container has its own or another's, rather than the caller's.
    pub(crate) fn separate(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind) || self.join.iter().any(|join| join.kind == kind)
    }

    /// All kinds the container has apart from the caller.
    pub(crate) fn all(&self) -> CloneFlags {
        self.join.iter().fold(self.new, |all, join| all | join.kind)
    }
}

/// What a mount is made of.
#[derive(Clone, Debug)]
pub(crate) enum MountKind {
    Bind {
        source: PathBuf,
    },
    Cgroup,
    Filesystem {
        kind: String,
        source: Option<String>,
    },
    /// `remount`: attributes of what is mounted there already.
    Remount,
}

#[derive(Clone, Debug)]
pub(crate) struct MountPlan {
    /// Relative to the root.
    pub(crate) destination: PathBuf,
    pub(crate) kind: MountKind,
    pub(crate) options: MountOptions,
    pub(crate) uid_mappings: Vec<LinuxIdMapping>,
    pub(crate) gid_mappings: Vec<LinuxIdMapping>,
}

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) kind: LinuxDeviceType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A container's configuration, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) uid_mappings: Vec<LinuxIdMapping>,
    pub(crate) gid_mappings: Vec<LinuxIdMapping>,
    pub(crate) time_offsets: Vec<(String, i64, u32)>,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<Device>,
    /// Whether `/dev` is the container's own, to be filled.
    pub(crate) fill_dev: bool,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) root_readonly: bool,
    pub(crate) propagation: Option<(hull_mount::Propagation, bool)>,
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) cgroup: Placement,
    /// Host uid that the cgroup is given to.
    pub(crate) cgroup_owner: Option<u32>,
    pub(crate) resctrl: Option<resctrl::Wanted>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) resources: LinuxResources,
    pub(crate) process: ProcessPlan,
    pub(crate) mount_label: Option<String>,
    pub(crate) agent: agent::Wanted,
}

/// Where the container's cgroup is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In the caller's.
    Nowhere,
    Path(String),
    /// Where the service manager makes it.
    Unit(Unit),
}

pub(crate) fn flag_of(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::NEWIPC,
        LinuxNamespaceType::User => CloneFlags::NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::NEWPID,
        LinuxNamespaceType::Network => CloneFlags::NEWNET,
        LinuxNamespaceType::Time => CloneFlags::NEWTIME,
    }
}

impl Plan {
    /// Checks everything that can be checked without changing anything.
    pub(crate) fn new(spec: &Spec, bundle: &Path, systemd: Option<&Manager>) -> Result<Self, Error> {
        check_version(spec.version())?;
        let linux = spec.linux().as_ref().ok_or_else(|| Error::spec("linux", "is required"))?;
        let process = spec.process().as_ref().ok_or_else(|| Error::spec("process", "is required"))?;
        let namespaces = namespaces(linux)?;
        let mounts = mounts(spec.mounts().as_deref().unwrap_or_default(), bundle)?;
        let fill_dev = !mounts.iter().any(|mount| {
            mount.destination == Path::new("dev") && matches!(mount.kind, MountKind::Bind { .. })
        });
        let process = ProcessPlan::new(process, Some(linux))?;
        let plan = Self {
            uid_mappings: linux.uid_mappings().clone().unwrap_or_default(),
            gid_mappings: linux.gid_mappings().clone().unwrap_or_default(),
            time_offsets: time_offsets(linux)?,
            devices: devices(linux.devices().as_deref().unwrap_or_default())?,
            masked_paths: paths("linux.maskedPaths", linux.masked_paths())?,
            readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths())?,
            root_readonly: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            propagation: propagation(linux.rootfs_propagation().as_deref())?,
            sysctl: sysctl(linux, &namespaces)?,
            hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
            domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
            cgroup: placement(linux, systemd)?,
            cgroup_owner: cgroup_owner(spec, linux, &namespaces),
            resctrl: resctrl::Wanted::new(linux)?,
            net_devices: crate::net_devices::devices(linux, namespaces.separate(CloneFlags::NEWNET))?,
            resources: resources(linux),
            agent: agent::Wanted::new(linux, process.notifies())?,
            process,
            mount_label: linux.mount_label().clone().filter(|label| !label.is_empty()),
            namespaces,
            mounts,
            fill_dev,
        };
        plan.check_together()?;
        Ok(plan)
    }

    /// What only several fields together show.
    fn check_together(&self) -> Result<(), Error> {
        hull_cgroup::check(&self.resources)?;
        let separate = |kind| self.namespaces.separate(kind);
        if (self.hostname.is_some() || self.domainname.is_some()) && !separate(CloneFlags::NEWUTS) {
            let field = if self.hostname.is_some() { "hostname" } else { "domainname" };
            return Err(Error::spec(field, "unable to set it without a private UTS namespace"));
        }
        let mapped = !self.uid_mappings.is_empty() && !self.gid_mappings.is_empty();
        if self.namespaces.new.contains(CloneFlags::NEWUSER) {
            if !mapped {
                return Err(Error::spec(
                    "linux.uidMappings",
                    "a new user namespace needs uid and gid mappings",
                ));
            }
        } else if (!self.uid_mappings.is_empty() || !self.gid_mappings.is_empty())
            && !separate(CloneFlags::NEWUSER)
        {
            return Err(Error::spec("linux.uidMappings", "mappings need a user namespace"));
        }
        if !self.time_offsets.is_empty() && !self.namespaces.new.contains(CloneFlags::NEWTIME) {
            return Err(Error::spec("linux.timeOffsets", "offsets need a new time namespace"));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if mount.options.idmap.is_some()
                && mount.uid_mappings.is_empty()
                && !separate(CloneFlags::NEWUSER)
            {
                return Err(Error::spec(
                    format!("mounts[{index}].options"),
                    "idmap needs uidMappings and gidMappings or a user namespace",
                ));
            }
        }
        if self.rootless() && !separate(CloneFlags::NEWUSER) {
            return Err(Error::spec("linux.namespaces", "an ordinary user needs a user namespace"));
        }
        Ok(())
    }

    /// Whether the caller is an ordinary user, who may mount in the container's namespaces only.
    pub(crate) fn rootless(&self) -> bool {
        self.process.rootless
    }

    /// Whether container ids must be mapped when talking of files made by the container's root.
    pub(crate) fn new_user(&self) -> bool {
        self.namespaces.new.contains(CloneFlags::NEWUSER)
    }
}

fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version.split(['.', '-', '+']);
    let valid = numbers.next() == Some("1")
        && numbers.by_ref().take(2).filter(|part| part.parse::<u32>().is_ok()).count() == 2;
    if valid { Ok(()) } else { Err(Error::spec("ociVersion", format!("{version:?} is not a 1.x.y version"))) }
}

pub(crate) fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut found = Namespaces::default();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let kind = flag_of(namespace.typ());
        let field = |suffix: &str| format!("linux.namespaces[{index}].{suffix}");
        if found.separate(kind) {
            return Err(Error::spec(field("type"), format!("{} is there twice", namespace.typ())));
        }
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => found.new |= kind,
            Some(path) if !path.is_absolute() => {
                return Err(Error::spec(field("path"), format!("{} is not absolute", path.display())));
            }
            Some(_) if kind == CloneFlags::NEWNS => {
                let reason =
                    "a mount namespace others use cannot be entered: its root would become the container's";
                return Err(Error::spec(field("path"), reason));
            }
            Some(path) => found.join.push(Join { kind, path: path.clone() }),
        }
    }
    if !found.new.contains(CloneFlags::NEWNS) {
        return Err(Error::spec("linux.namespaces", "a new mount namespace is required"));
    }
    Ok(found)
}

fn time_offsets(linux: &Linux) -> Result<Vec<(String, i64, u32)>, Error> {
    let mut offsets = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::spec("linux.timeOffsets", format!("{clock:?} has no offset")));
        }
        offsets.push((clock.clone(), offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    Ok(offsets)
}

/// A path of the container, relative to its root.
fn inside(field: impl Fn() -> String, path: &Path) -> Result<PathBuf, Error> {
    let text = path.as_os_str().as_encoded_bytes();
    if text.is_empty() || text.contains(&0) {
        return Err(Error::spec(field(), "is empty or holds a NUL byte"));
    }
    // As securejoin does: `..` cannot go above the root.
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    Ok(clean)
}

fn mounts(mounts: &[Mount], bundle: &Path) -> Result<Vec<MountPlan>, Error> {
    mounts.iter().enumerate().map(|(index, mount)| mount_plan(index, mount, bundle)).collect()
}

fn mount_plan(index: usize, mount: &Mount, bundle: &Path) -> Result<MountPlan, Error> {
    let field = |suffix: &str| format!("mounts[{index}].{suffix}");
    let options = parse_options(mount.options().as_deref().unwrap_or_default())
        .map_err(|error| Error::spec(field("options"), error.to_string()))?;
    let kind_name = mount.typ().as_deref().unwrap_or("none");
    let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    let kind = if options.remount {
        MountKind::Remount
    } else if options.bind || kind_name == "bind" {
        let source = source.ok_or_else(|| Error::spec(field("source"), "a bind mount needs it"))?;
        if source.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::spec(field("source"), "holds a NUL byte"));
        }
        MountKind::Bind { source: bundle.join(source) }
    } else if kind_name == "cgroup" || kind_name == "cgroup2" {
        MountKind::Cgroup
    } else if kind_name == "none" || kind_name.is_empty() || kind_name.contains('\0') {
        return Err(Error::spec(field("type"), "is required unless the mount is a bind mount"));
    } else {
        let source = source.map(|source| source.to_string_lossy().into_owned());
        MountKind::Filesystem { kind: kind_name.into(), source }
    };
    let destination = inside(|| field("destination"), mount.destination())?;
    if destination.as_os_str().is_empty() {
        return Err(Error::spec(field("destination"), "mounting over / is not allowed"));
    }
    let (uid_mappings, gid_mappings) =
        (mount.uid_mappings().clone().unwrap_or_default(), mount.gid_mappings().clone().unwrap_or_default());
    if uid_mappings.is_empty() != gid_mappings.is_empty() {
        return Err(Error::spec(field("uidMappings"), "uidMappings and gidMappings need each other"));
    }
    if (options.idmap.is_some() || !uid_mappings.is_empty()) && !matches!(kind, MountKind::Bind { .. }) {
        return Err(Error::spec(field("options"), "only bind mounts can have an id mapping"));
    }
    Ok(MountPlan { destination, kind, options, uid_mappings, gid_mappings })
}

/// Nodes every container has; runtime-spec config-linux.md, "Default Devices".
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

fn devices(wanted: &[LinuxDevice]) -> Result<Vec<Device>, Error> {
    let default = |(path, major, minor): (&str, u32, u32)| {
        let kind = LinuxDeviceType::C;
        Device { path: path.into(), kind, major, minor, mode: 0o666, uid: 0, gid: 0 }
    };
    let mut devices: Vec<_> = DEFAULT_DEVICES.into_iter().map(default).collect();
    for (index, device) in wanted.iter().enumerate() {
        let field = |suffix: &str| format!("linux.devices[{index}].{suffix}");
        let number = |suffix: &str, value: i64| {
            u32::try_from(value)
                .map_err(|_| Error::spec(field(suffix), format!("{value} is no device number")))
        };
        if device.typ() == LinuxDeviceType::A {
            return Err(Error::spec(field("type"), "must be one of b, c, u, p"));
        }
        let fifo = device.typ() == LinuxDeviceType::P;
        let device = Device {
            path: inside(|| field("path"), device.path())?,
            kind: device.typ(),
            major: if fifo { 0 } else { number("major", device.major())? },
            minor: if fifo { 0 } else { number("minor", device.minor())? },
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        };
        devices.retain(|other| other.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

fn paths(field: &str, list: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let list = list.clone().unwrap_or_default();
    match list.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
        Some(bad) => Err(Error::spec(field, format!("{bad:?} is not an absolute path"))),
        None => {
            // One that is there twice would be covered twice.
            let mut seen = std::collections::HashSet::new();
            Ok(list.into_iter().filter(|path| seen.insert(path.trim_end_matches('/').to_owned())).collect())
        }
    }
}

fn propagation(text: Option<&str>) -> Result<Option<(hull_mount::Propagation, bool)>, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = parse_options(&[text]).ok().and_then(|options| options.propagation.first().copied());
    parsed.map(Some).ok_or_else(|| Error::spec("linux.rootfsPropagation", format!("{text:?} is not valid")))
}

/// A sysctl must belong to a namespace the container has for itself.
fn sysctl(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>, Error> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut sorted = BTreeMap::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        // As sysctl(8): with slashes only, dots are part of names.
        let dotted = match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
            Some(b'/') => key.replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/"),
            _ => key.clone(),
        };
        let needed = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            CloneFlags::NEWIPC
        } else if dotted.starts_with("net.") {
            CloneFlags::NEWNET
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            CloneFlags::NEWUTS
        } else {
            return Err(Error::spec(
                "linux.sysctl",
                format!("{key:?} is not in a separate kernel namespace"),
            ));
        };
        if !namespaces.separate(needed) {
            return Err(Error::spec(
                "linux.sysctl",
                format!("{key:?} is not allowed in the caller's namespace"),
            ));
        }
        let file: PathBuf = dotted.split('.').map(|name| name.replace('/', ".")).collect();
        if file.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(Error::spec("linux.sysctl", format!("{key:?} is not a sysctl")));
        }
        sorted.insert(format!("sys/{}", file.display()), value.clone());
    }
    Ok(sorted.into_iter().collect())
}

fn placement(linux: &Linux, systemd: Option<&Manager>) -> Result<Placement, Error> {
    let Some(path) = linux.cgroups_path().as_ref().filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Placement::Nowhere);
    };
    let path = path.to_str().ok_or_else(|| Error::spec("linux.cgroupsPath", "is not UTF-8"))?;
    if let Some(manager) = systemd {
        return Ok(Placement::Unit(Unit::parse(path, matches!(manager, Manager::User(_)))?));
    }
    if path.split(':').count() == 3 && !path.contains('/') {
        let reason =
            format!("{path:?} is slice:prefix:name, which takes the systemd driver (--systemd-cgroup)");
        return Err(Error::spec("linux.cgroupsPath", reason));
    }
    Ok(Placement::Path(format!("/{}", path.trim_start_matches('/'))))
}

/// Whom the cgroup belongs to, when the container sees it writable in a namespace of its own; runtime-spec config-linux.md,
/// "Cgroup ownership". Root has it anyway.
fn cgroup_owner(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Option<u32> {
    if !namespaces.new.contains(CloneFlags::NEWCGROUP) {
        return None;
    }
    let writable = |mount: &Mount| {
        mount.source().as_deref() == Some(Path::new("cgroup"))
            && mount.destination() == Path::new("/sys/fs/cgroup")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    };
    if !spec.mounts().iter().flatten().any(writable) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    let mappings = linux.uid_mappings().as_deref().unwrap_or_default();
    let mapped = |mapping: &LinuxIdMapping| {
        let offset = uid.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    };
    let host = if mappings.is_empty() { Some(uid) } else { mappings.iter().find_map(mapped) };
    host.filter(|uid| *uid != 0)
}

/// The resources, with the devices every container may use behind the rules of the configuration.
fn resources(linux: &Linux) -> LinuxResources {
    let mut resources = linux.resources().clone().unwrap_or_default();
    let Some(mut rules) = resources.devices().clone().filter(|rules| !rules.is_empty()) else {
        return resources;
    };
    let everything = |rule: &LinuxDeviceCgroup| {
        rule.allow()
            && rule.major().is_none_or(|n| n == -1)
            && rule.minor().is_none_or(|n| n == -1)
            && matches!(rule.typ(), None | Some(LinuxDeviceType::A))
            && rule.access().as_deref().is_none_or(|access| "rwm".chars().all(|c| access.contains(c)))
    };
    if rules.last().is_some_and(everything) {
        // A privileged container: nothing to add, and the kernel would narrow "all" to what is added.
        return resources;
    }
    let c = LinuxDeviceType::C;
    rules.push(allow(c, None, None, "m"));
    rules.push(allow(LinuxDeviceType::B, None, None, "m"));
    for (_, major, minor) in DEFAULT_DEVICES {
        rules.push(allow(c, Some(major.into()), Some(minor.into()), "rwm"));
    }
    // Pseudo-terminals, their master, the console.
    rules.push(allow(c, Some(136), None, "rwm"));
    rules.push(allow(c, Some(5), Some(2), "rwm"));
    rules.push(allow(c, Some(5), Some(1), "rwm"));
    resources.set_devices(Some(rules));
    resources
}

fn allow(kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind));
    rule.set_major(major);
    rule.set_minor(minor);
    rule.set_access(Some(access.into()));
    rule
}
