//! Bundles with a busybox root, records and cgroups of their own, and nothing left when a test ends.

use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNTIME: &str = env!("CARGO_BIN_EXE_hull-runtime");
const BUSYBOX: &str = "/bin/busybox";

/// Whether containers can be run here at all.
pub(crate) fn runnable() -> bool {
    let possible = rustix::process::geteuid().is_root() && Path::new(BUSYBOX).exists();
    if !possible {
        eprintln!("skipped: needs root and {BUSYBOX} (Debian package busybox-static)");
    }
    possible
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A bundle.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    id: String,
}

fn random() -> String {
    let mut bytes = [0u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("random");
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

impl Bundle {
    /// A bundle of the base configuration, changed.
    pub(crate) fn new(args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        // User namespaces need to pass through it.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let bundle = Self { directory, id: format!("hull-test-{}", random()) };
        bundle.fill_root();
        let mut config = base(args, &bundle.id);
        change(&mut config);
        let text = serde_json::to_vec(&config).expect("json");
        std::fs::write(bundle.directory.path().join("config.json"), text).expect("write");
        bundle
    }

    fn fill_root(&self) {
        let root = self.directory.path().join("rootfs");
        for name in ["bin", "etc", "tmp", "secret", "hidden", "fixed", "copied", "proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
        for name in ["sh", "true", "ls", "cat", "id", "readlink", "sleep", "grep", "hostname"] {
            symlink("busybox", root.join("bin").join(name)).expect("link");
        }
        let files = [
            ("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n", 0o644),
            ("plain", "", 0o644),
            ("garbage", "\x01\x02garbage", 0o755),
            ("secret/file", "secret", 0o644),
            ("hidden/y", "hidden", 0o644),
            ("copied/kept", "", 0o644),
        ];
        for (name, content, mode) in files {
            std::fs::write(root.join(name), content).expect("write");
            std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        std::fs::remove_file(root.join("hidden/y")).expect("remove");
        std::fs::write(root.join("hidden/below"), "hidden").expect("write");
    }

    pub(crate) fn path(&self) -> &str {
        self.directory.path().to_str().expect("utf-8")
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn records(&self) -> String {
        format!("{}/records", self.path())
    }

    /// The runtime's command line, for a shell.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        format!("{RUNTIME} --root {} {}", self.records(), arguments.join(" "))
    }

    /// Runs the runtime. Output goes to files, which a container left running does not hold open like a pipe.
    pub(crate) fn runtime(&self, arguments: &[&str]) -> Output {
        let (out, err) = (tempfile::tempfile().expect("file"), tempfile::tempfile().expect("file"));
        let status = Command::new(RUNTIME)
            .args(["--root", &self.records()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("file"))
            .stderr(err.try_clone().expect("file"))
            .status()
            .expect("run the runtime");
        let text = |mut file: std::fs::File| {
            use std::io::{Read, Seek};
            let mut text = String::new();
            file.rewind().expect("rewind");
            file.read_to_string(&mut text).expect("read");
            text
        };
        Output { status: status.code().unwrap_or(-1), stdout: text(out), stderr: text(err) }
    }

    /// Runs the runtime, which must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.runtime(arguments);
        assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
        output.stdout
    }

    pub(crate) fn run(&self) -> Output {
        self.runtime(&["run", "-b", self.path(), &self.id])
    }

    pub(crate) fn start(&self) {
        self.ok(&["run", "--detach", "-b", self.path(), &self.id]);
    }

    pub(crate) fn await_stopped(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ok(&["state", &self.id]).contains("\"stopped\"") {
            assert!(Instant::now() < deadline, "the container does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// No record, no cgroup, no mount, no process.
    pub(crate) fn assert_gone(&self) {
        let records = std::fs::read_dir(self.records()).map_or(0, |entries| entries.count());
        assert_eq!(records, 0, "records are left");
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let path = hierarchy.path().join(&self.id);
            assert!(!path.exists(), "{} is left", path.display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(self.path()), "a mount is left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.runtime(&["delete", "--force", &self.id]);
    }
}

fn base(args: &[&str], id: &str) -> Value {
    let capabilities: Vec<_> =
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP \
        NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
            .split_whitespace()
            .map(|name| format!("CAP_{name}"))
            .collect();
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.2.0",
        "hostname": "test",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }],
            },
        },
    })
}
