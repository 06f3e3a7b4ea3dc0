//! A bundle: a small root file system and a configuration that a case changes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use hull_fixtures::{Ran, host::with, image};
use serde_json::{Value, json};

use crate::under_test::Runtime;

/// Docker's fourteen.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A folder with `config.json` and `rootfs`.
pub(crate) struct Bundle {
    id: String,
    folder: PathBuf,
    path: String,
    cgroup: String,
    spec: Value,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    /// A bundle that runs `true` with what every case wants.
    pub(crate) fn new(runtime: &Runtime) -> Result<Self> {
        let id = format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = runtime.host.folder().join(&id);
        make_rootfs(&folder.join("rootfs"))?;
        let cgroup = format!("/{}/{id}", runtime.host.name());
        let spec = spec(&cgroup);
        let bundle = Self { path: folder.display().to_string(), id, folder, cgroup, spec };
        bundle.write()?;
        Ok(bundle)
    }

    /// A bundle that runs a shell script.
    pub(crate) fn sh(runtime: &Runtime, script: &str) -> Result<Self> {
        let mut bundle = Self::new(runtime)?;
        bundle.change(|spec| spec["process"]["args"] = json!(["/bin/sh", "-c", script]))?;
        Ok(bundle)
    }

    /// A bundle that runs until it is killed.
    pub(crate) fn lasting(runtime: &Runtime) -> Result<Self> {
        Self::sh(runtime, "trap 'exit 3' TERM; while :; do sleep 1000 & wait; done")
    }

    /// Changes the configuration.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        change(&mut self.spec);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.spec)?;
        fs::write(self.folder.join("config.json"), text).context("config.json")
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// Its cgroup below the root of each hierarchy.
    pub(crate) fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What a file of the bundle says.
    pub(crate) fn said(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }
}

/// Adds to a list of the configuration.
pub(crate) fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

fn make_rootfs(rootfs: &Path) -> Result<()> {
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    let busybox = image::busybox_program()?;
    fs::copy(&busybox, rootfs.join("bin/busybox"))?;
    let list = Ran::new(with(std::process::Command::new(&busybox), &["--list"]))?.ok()?;
    for command in list.lines().filter(|command| *command != "busybox") {
        symlink("busybox", rootfs.join("bin").join(command))?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    Ok(())
}

/// The configuration that engines write for an ordinary container.
fn spec(cgroup: &str) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "hostname": "bundle",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "cwd": "/",
            "env": ["PATH=/bin", "HOME=/root"],
            "noNewPrivileges": false,
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
        },
        "mounts": [
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys"],
        },
    })
}
