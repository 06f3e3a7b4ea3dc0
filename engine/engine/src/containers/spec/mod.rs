//! From a container's definition to the OCI configuration its monitor runs.
//!
//! Pure: everything that has to be looked up (user, devices, pids of shared namespaces, volume paths) comes in
//! [`Inputs`]. Defaults are moby's (`oci/defaults.go`, `daemon/oci_linux.go`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hull_docker_api::{HostConfig, Ulimit};
use hull_oci::user::Resolved;
use oci_spec::runtime::{
    Linux, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, UserBuilder,
};

use super::merge::overlay_env;
use super::record::{Definition, MountKind, MountRecord};
use crate::{Error, Result};

pub(crate) mod devices;
pub(crate) mod resources;
pub(crate) mod security;

pub(crate) use devices::HostDevices;
pub(crate) use security::Security;

/// Version of the OCI runtime specification the configuration is written for.
const OCI_VERSION: &str = "1.2.0";

/// docker's default search path.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where Hull's init is seen inside a container with `--init`.
pub(crate) const INIT: &str = "/sbin/docker-init";

/// What a specification is made from.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) def: &'a Definition,
    pub(crate) user: Resolved,
    pub(crate) security: Security,
    pub(crate) devices: HostDevices,
    /// Cgroup path from the roots of the hierarchies.
    pub(crate) cgroup: String,
    /// Pids of the containers whose namespaces are shared.
    pub(crate) shared: SharedPids,
    /// Files mounted at /etc/resolv.conf, /etc/hostname, /etc/hosts.
    pub(crate) name_files: Option<NameFiles>,
    /// Executable that serves as init, if there is to be one.
    pub(crate) init: Option<PathBuf>,
    /// `name` to (soft, hard) of limits the engine gives by default.
    pub(crate) ulimits: Vec<Ulimit>,
}

/// Pids in the namespaces that another container shares.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SharedPids {
    pub(crate) network: Option<i32>,
    pub(crate) pid: Option<i32>,
    pub(crate) ipc: Option<i32>,
}

/// The three files that make names work.
#[derive(Debug, Clone)]
pub(crate) struct NameFiles {
    pub(crate) resolv_conf: PathBuf,
    pub(crate) hostname: PathBuf,
    pub(crate) hosts: PathBuf,
}

/// Builds the specification.
pub(crate) fn build(inputs: Inputs<'_>) -> Result<Spec> {
    let def = inputs.def;
    let process = process(&inputs)?;
    let mounts = mounts(&inputs)?;
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(def.host.readonly_rootfs)
        .build()
        .map_err(|error| Error::system("container root", error))?;
    let annotations: HashMap<_, _> = def.host.annotations.clone().into_iter().collect();
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_process(Some(process))
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_annotations((!annotations.is_empty()).then_some(annotations));
    spec.set_hostname(None);
    if def.host.uts_mode != "host" {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        spec.set_hostname(some(&def.config.hostname)).set_domainname(some(&def.config.domainname));
    }
    spec.set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn process(inputs: &Inputs<'_>) -> Result<Process> {
    let def = inputs.def;
    let (path, args) = def.command();
    let mut command = Vec::with_capacity(args.len() + 3);
    if inputs.init.is_some() {
        command.extend([INIT.to_owned(), "--".to_owned()]);
    }
    command.push(path);
    command.extend(args);
    let mut process = self::base_process(&inputs.user, &inputs.security, def)?;
    process.set_args(Some(command)).set_terminal(Some(def.config.tty));
    let limits = ulimits(def.host.ulimits.as_deref().unwrap_or_default(), &inputs.ulimits)?;
    process.set_rlimits((!limits.is_empty()).then_some(limits));
    process.set_oom_score_adj(i32::try_from(def.host.oom_score_adj).ok().filter(|adj| *adj != 0));
    Ok(process)
}

/// What the container's own process and an exec have in common: user, environment, directory, privileges.
pub(crate) fn base_process(user: &Resolved, security: &Security, def: &Definition) -> Result<Process> {
    let cwd = match def.config.working_dir.as_str() {
        "" => "/",
        dir => dir,
    };
    let process = ProcessBuilder::default()
        .user(oci_user(user)?)
        .env(environment(def, user, def.config.tty))
        .cwd(cwd)
        .capabilities(security.capabilities(user.uid))
        .no_new_privileges(security.no_new_privileges)
        .build();
    let mut process = process.map_err(|error| Error::system("container process", error))?;
    process.set_apparmor_profile(security.apparmor.clone());
    Ok(process)
}

pub(crate) fn oci_user(user: &Resolved) -> Result<oci_spec::runtime::User> {
    UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.additional.clone())
        .build()
        .map_err(|error| Error::system("container user", error))
}

/// docker's defaults under the container's own variables; HOME last, as a runtime adds it.
pub(crate) fn environment(def: &Definition, user: &Resolved, tty: bool) -> Vec<String> {
    let mut defaults = vec![PATH.to_owned()];
    if !def.config.hostname.is_empty() {
        defaults.push(format!("HOSTNAME={}", def.config.hostname));
    }
    if tty {
        defaults.push("TERM=xterm".to_owned());
    }
    let mut env = overlay_env(defaults, def.config.env.as_deref().unwrap_or_default());
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/")));
    }
    env
}

/// Own limits over the engine's.
fn ulimits(own: &[Ulimit], engine: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let inherited = engine.iter().filter(|limit| !own.iter().any(|other| other.name == limit.name));
    own.iter().chain(inherited).map(rlimit).collect()
}

fn rlimit(limit: &Ulimit) -> Result<PosixRlimit> {
    let kind = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
    let typ: PosixRlimitType = serde_json::from_value(serde_json::Value::String(kind))
        .map_err(|_| Error::invalid(format!("invalid ulimit type: {}", limit.name)))?;
    let value = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(value(limit.soft))
        .hard(value(limit.hard))
        .build()
        .map_err(|error| Error::system("ulimit", error))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| Error::system(format!("mount at {destination}"), error))
}

/// The kernel file systems, the container's own mounts in the order of their depth, and the name files. A mount at
/// the same place replaces a default one.
fn mounts(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let def = inputs.def;
    let taken = |destination: &str| def.mounts.iter().any(|mount| mount.destination == destination);
    let mut mounts = kernel_mounts(&def.host)?;
    mounts.retain(|mount| !taken(&mount.destination().to_string_lossy()));
    for record in &def.mounts {
        mounts.push(own_mount(record)?);
    }
    if let Some(files) = &inputs.name_files {
        for (destination, source) in [
            ("/etc/resolv.conf", &files.resolv_conf),
            ("/etc/hostname", &files.hostname),
            ("/etc/hosts", &files.hosts),
        ] {
            if taken(destination) {
                continue;
            }
            let access = if def.host.readonly_rootfs { "ro" } else { "rw" };
            mounts.push(mount(
                destination,
                "bind",
                &source.to_string_lossy(),
                &["rbind", "rprivate", access],
            )?);
        }
    }
    if let Some(init) = &inputs.init {
        mounts.push(mount(INIT, "bind", &init.to_string_lossy(), &["bind", "ro", "rprivate"])?);
    }
    Ok(mounts)
}

fn kernel_mounts(host: &HostConfig) -> Result<Vec<Mount>> {
    let sys = if host.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys])?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", sys])?,
    ];
    match host.ipc_mode.as_str() {
        "host" => {
            for path in ["/dev/shm", "/dev/mqueue"] {
                if Path::new(path).exists() {
                    mounts.push(mount(path, "bind", path, &["rbind", "nosuid", "noexec", "nodev"])?);
                }
            }
        }
        "none" => {}
        _ => {
            mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?);
            let size = format!("size={}", host.shm_size);
            mounts.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            )?);
        }
    }
    Ok(mounts)
}

fn own_mount(record: &MountRecord) -> Result<Mount> {
    if record.kind == MountKind::Tmpfs {
        let options: Vec<&str> = record.tmpfs_options.iter().map(String::as_str).collect();
        return mount(&record.destination, "tmpfs", "tmpfs", &options);
    }
    let source = match record.subpath.as_str() {
        "" => record.source.clone(),
        below => format!("{}/{below}", record.source),
    };
    let mut options = vec![if record.non_recursive { "bind" } else { "rbind" }];
    options.push(match record.propagation.as_str() {
        "" => "rprivate",
        propagation => propagation,
    });
    if !record.rw {
        // Read-only reaches the mounts below the source too, unless that was declined.
        options.push(if record.non_recursive || record.read_only_non_recursive { "ro" } else { "rro" });
        options.push("ro");
    }
    mount(&record.destination, "bind", &source, &options)
}

fn linux(inputs: Inputs<'_>) -> Result<Linux> {
    let host = &inputs.def.host;
    let mut linux = Linux::default();
    let mut limits = resources::from_host(host, &inputs.devices)?;
    let mut rules = if host.privileged { vec![any_device(true)?] } else { default_device_rules()? };
    rules.extend(inputs.devices.rules.iter().cloned());
    limits.set_devices(Some(rules));
    linux
        .set_namespaces(Some(namespaces(host, inputs.shared)?))
        .set_resources(Some(limits))
        .set_cgroups_path(Some(PathBuf::from(inputs.cgroup)))
        .set_devices(Some(inputs.devices.nodes))
        .set_masked_paths(Some(host.masked_paths.clone().unwrap_or_default()))
        .set_readonly_paths(Some(host.readonly_paths.clone().unwrap_or_default()))
        .set_seccomp(inputs.security.seccomp)
        .set_sysctl(Some(sysctls(host)));
    if let Some(propagation) = rootfs_propagation(&inputs.def.mounts) {
        linux.set_rootfs_propagation(Some(propagation.to_owned()));
    }
    Ok(linux)
}

/// A mount that shares events with the host needs a root that lets them through.
fn rootfs_propagation(mounts: &[MountRecord]) -> Option<&'static str> {
    let any = |name: &str| mounts.iter().any(|mount| mount.propagation.trim_start_matches('r') == name);
    if any("shared") {
        Some("shared")
    } else if any("slave") {
        Some("rslave")
    } else {
        None
    }
}

fn namespaces(host: &HostConfig, shared: SharedPids) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut list = vec![namespace(Type::Mount, None)?];
    let mut add = |typ: Type, mode: &str, pid: Option<i32>, name: &str| -> Result<()> {
        if mode != "host" {
            let path = pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/{name}")));
            list.push(namespace(typ, path)?);
        }
        Ok(())
    };
    add(Type::Network, &host.network_mode, shared.network, "net")?;
    add(Type::Uts, &host.uts_mode, None, "uts")?;
    add(Type::Pid, &host.pid_mode, shared.pid, "pid")?;
    add(Type::Ipc, &host.ipc_mode, shared.ipc, "ipc")?;
    add(Type::Cgroup, &host.cgroupns_mode, None, "cgroup")?;
    Ok(list)
}

fn namespace(typ: LinuxNamespaceType, path: Option<PathBuf>) -> Result<LinuxNamespace> {
    let mut builder = LinuxNamespaceBuilder::default().typ(typ);
    if let Some(path) = path {
        builder = builder.path(path);
    }
    builder.build().map_err(|error| Error::system("namespace", error))
}

fn sysctls(host: &HostConfig) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let own_network = host.network_mode != "host" && !host.network_mode.starts_with("container:");
    if own_network && !host.privileged {
        // Nothing inside a container is worth guarding by port number (moby 20.10).
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    all.extend(host.sysctls.clone());
    all
}

fn any_device(allow: bool) -> Result<LinuxDeviceCgroup> {
    LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .access("rwm")
        .build()
        .map_err(|error| Error::system("device rule", error))
}

fn default_device_rules() -> Result<Vec<LinuxDeviceCgroup>> {
    use LinuxDeviceType::{B, C};
    let rule = |typ, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(typ).access(access);
        if let Some(major) = major {
            builder = builder.major(major);
        }
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        builder.build().map_err(|error| Error::system("device rule", error))
    };
    Ok(vec![
        any_device(false)?,
        // Making nodes is allowed, opening them is not.
        rule(C, None, None, "m")?,
        rule(B, None, None, "m")?,
        rule(C, Some(1), Some(3), "rwm")?,
        rule(C, Some(1), Some(5), "rwm")?,
        rule(C, Some(1), Some(7), "rwm")?,
        rule(C, Some(1), Some(8), "rwm")?,
        rule(C, Some(1), Some(9), "rwm")?,
        rule(C, Some(5), Some(0), "rwm")?,
        rule(C, Some(5), Some(1), "rwm")?,
        rule(C, Some(5), Some(2), "rwm")?,
        rule(C, Some(136), None, "rwm")?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_docker_api::{ContainerConfig, StrSlice};

    fn definition() -> Definition {
        let mut host = HostConfig::default();
        super::super::validate::fill_host(
            &mut host,
            &crate::Config::new("/d".into(), "/e".into(), "/r".into()),
        );
        Definition {
            id: "0123456789ab".repeat(6)[..64].to_owned(),
            name: "web".to_owned(),
            created: jiff::Timestamp::UNIX_EPOCH,
            image_id: String::new(),
            layers: Vec::new(),
            image_size: 0,
            config: ContainerConfig {
                hostname: "box".to_owned(),
                cmd: Some(StrSlice(vec!["sleep".to_owned(), "1".to_owned()])),
                ..ContainerConfig::default()
            },
            host,
            mounts: Vec::new(),
            networks: Default::default(),
            os: "linux".to_owned(),
        }
    }

    fn spec(def: &Definition) -> serde_json::Value {
        let security = Security::new(&def.host, &crate::Config::new("/d".into(), "/e".into(), "/r".into()))
            .expect("security");
        let inputs = Inputs {
            def,
            user: Resolved { home: Some("/root".to_owned()), ..Resolved::default() },
            security,
            devices: HostDevices::default(),
            cgroup: "/hull-x/id".to_owned(),
            shared: SharedPids::default(),
            name_files: None,
            init: None,
            ulimits: Vec::new(),
        };
        serde_json::to_value(build(inputs).expect("spec")).expect("json")
    }

    #[test]
    fn a_plain_container_has_dockers_defaults() {
        let spec = spec(&definition());
        assert_eq!(spec["process"]["args"], serde_json::json!(["sleep", "1"]));
        assert_eq!(spec["process"]["cwd"], "/");
        let env = spec["process"]["env"].as_array().expect("env");
        assert_eq!(env.len(), 3);
        assert_eq!(env[1], "HOSTNAME=box");
        assert_eq!(env[2], "HOME=/root");
        assert_eq!(spec["hostname"], "box");
        let bounding = spec["process"]["capabilities"]["bounding"].as_array().expect("caps");
        assert_eq!(bounding.len(), 14);
        assert_eq!(spec["linux"]["cgroupsPath"], "/hull-x/id");
        assert_eq!(spec["linux"]["namespaces"].as_array().expect("namespaces").len(), 6);
        assert!(spec["linux"]["maskedPaths"].as_array().expect("masked").iter().any(|p| p == "/proc/kcore"));
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
        assert!(spec["linux"]["seccomp"].is_object());
    }

    #[test]
    fn host_modes_leave_namespaces_out_and_privileged_opens_up() {
        let mut def = definition();
        def.host.network_mode = "host".to_owned();
        def.host.pid_mode = "host".to_owned();
        def.host.privileged = true;
        def.host.masked_paths = Some(Vec::new());
        def.host.readonly_paths = Some(Vec::new());
        let spec = spec(&def);
        let kinds: Vec<_> =
            spec["linux"]["namespaces"].as_array().expect("list").iter().map(|n| n["type"].clone()).collect();
        assert!(!kinds.contains(&"network".into()) && !kinds.contains(&"pid".into()));
        assert!(spec["linux"]["seccomp"].is_null());
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
        assert_eq!(spec["linux"]["maskedPaths"], serde_json::json!([]));
    }

    #[test]
    fn own_mounts_replace_defaults_and_read_only_reaches_below() {
        let mut def = definition();
        def.mounts = vec![
            MountRecord {
                kind: MountKind::Bind,
                source: "/src".to_owned(),
                destination: "/data".to_owned(),
                propagation: "rslave".to_owned(),
                ..MountRecord::default()
            },
            MountRecord {
                kind: MountKind::Tmpfs,
                destination: "/dev/shm".to_owned(),
                tmpfs_options: vec!["size=1m".to_owned()],
                rw: true,
                ..MountRecord::default()
            },
        ];
        let spec = spec(&def);
        let mounts = spec["mounts"].as_array().expect("mounts");
        let at = |path: &str| mounts.iter().filter(|m| m["destination"] == path).collect::<Vec<_>>();
        assert_eq!(at("/data")[0]["options"], serde_json::json!(["rbind", "rslave", "rro", "ro"]));
        assert_eq!(at("/dev/shm").len(), 1);
        assert_eq!(at("/dev/shm")[0]["options"], serde_json::json!(["size=1m"]));
        assert_eq!(spec["linux"]["rootfsPropagation"], "rslave");
    }

    #[test]
    fn ulimits_are_translated() {
        let limit = Ulimit { name: "nofile".to_owned(), soft: 10, hard: -1 };
        let engine = Ulimit { name: "core".to_owned(), soft: 0, hard: 0 };
        let limits = ulimits(std::slice::from_ref(&limit), &[engine, limit.clone()]).expect("limits");
        assert_eq!(limits.len(), 2);
        assert_eq!((limits[0].soft(), limits[0].hard()), (10, u64::MAX));
        let bad = Ulimit { name: "nope".to_owned(), ..Ulimit::default() };
        assert_eq!(rlimit(&bad).expect_err("bad").message(), "invalid ulimit type: nope");
    }
}
