//! The runtime as a library, as the monitor uses it: overlay root, given streams, kinds of errors, what goes away with the caller.
//!
//! Without the test harness, whose threads the runtime refuses to fork with. Needs root and a static busybox.

use hull_oci::{CreateRequest, Created, ErrorKind, ExecRequest, Rootfs, Stdio};
use oci_spec::runtime::{Process, Spec};
use rustix::mount::MountAttrFlags;
use rustix::process::{WaitId, WaitIdOptions};
use serde_json::json;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn main() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("library: skipped: needs root and /bin/busybox (Debian package busybox-static)");
        return;
    }
    type Test = fn(&Fixture);
    let tests: [(&str, Test); 8] = [
        ("streams_and_overlay_are_the_containers", streams_and_overlay_are_the_containers),
        ("errors_have_their_kind", errors_have_their_kind),
        ("a_failed_execve_is_told_by_start", a_failed_execve_is_told_by_start),
        ("what_is_dropped_before_start_ends", what_is_dropped_before_start_ends),
        ("a_container_dies_with_its_caller", a_container_dies_with_its_caller),
        ("a_terminal_comes_back", a_terminal_comes_back),
        ("exec_is_a_child_of_the_caller", exec_is_a_child_of_the_caller),
        ("the_network_can_be_configured_before_the_start", the_network_can_be_configured_before_the_start),
    ];
    for (name, test) in tests {
        let fixture = Fixture::new();
        test(&fixture);
        fixture.assert_gone();
        println!("test {name} ... ok");
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    id: String,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mut random = [0u8; 6];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).expect("random");
        let id = format!("hull-test-{}", random.map(|byte| format!("{byte:02x}")).concat());
        let lower = directory.path().join("lower:1");
        std::fs::create_dir_all(lower.join("bin")).expect("mkdir");
        std::fs::copy("/bin/busybox", lower.join("bin/busybox")).expect("busybox");
        for name in ["sh", "cat", "sleep", "echo", "true"] {
            symlink("busybox", lower.join("bin").join(name)).expect("link");
        }
        std::fs::write(lower.join("bin/broken"), "\x01broken").expect("write");
        std::fs::set_permissions(lower.join("bin/broken"), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        std::fs::write(lower.join("plain"), "").expect("write");
        for name in ["upper", "work"] {
            std::fs::create_dir(directory.path().join(name)).expect("mkdir");
        }
        Self { directory, id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn spec(&self, args: &[&str]) -> Spec {
        let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind, "options": ["nosuid"] });
        let namespaces =
            ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": ["PATH=/bin"] },
            "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/dev/pts", "devpts")],
            "linux": { "cgroupsPath": format!("/{}", self.id), "namespaces": namespaces,
                "resources": { "pids": { "limit": 50 } } },
        });
        serde_json::from_value(spec).expect("spec")
    }

    fn create(&self, spec: &Spec, stdio: Stdio) -> Result<Created, hull_oci::Error> {
        let layers = hull_mount::Overlay {
            lower: vec![self.path("lower:1")],
            upper: Some((self.path("upper"), self.path("work"))),
            options: Vec::new(),
        };
        let root = hull_mount::overlay(&layers, MountAttrFlags::empty()).expect("overlay");
        hull_oci::create(CreateRequest {
            id: &self.id,
            spec,
            bundle: self.directory.path(),
            rootfs: Rootfs::Mount(root),
            stdio,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            die_with_parent: true,
            start_socket: None,
            systemd: None,
        })
    }

    fn assert_gone(&self) {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            assert!(!hierarchy.path().join(&self.id).exists(), "{} is left", hierarchy.path().display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(self.directory.path().to_str().expect("utf-8")), "a mount is left");
        // No child is left, dead or alive.
        let children = rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        assert_eq!(children.err(), Some(rustix::io::Errno::CHILD), "a child is left");
    }
}

fn wait(pidfd: &OwnedFd) -> i32 {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("wait");
    let status = status.expect("a status");
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().expect("a signal"))
}

fn null() -> OwnedFd {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("null").into()
}

fn piped() -> (std::fs::File, Stdio) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    (reader.into(), Stdio::Fds { stdin: null(), stdout: writer, stderr: null() })
}

fn quiet() -> Stdio {
    Stdio::Fds { stdin: null(), stdout: null(), stderr: null() }
}

fn text(mut file: std::fs::File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    text
}

fn streams_and_overlay_are_the_containers(fixture: &Fixture) {
    let (output, stdio) = piped();
    let spec = fixture.spec(&["sh", "-c", "echo written > /file; cat /file; exit 5"]);
    let running = fixture.create(&spec, stdio).expect("create").start().expect("start");
    assert_eq!(wait(&running.pidfd), 5);
    assert_eq!(text(output), "written\n");
    assert_eq!(std::fs::read_to_string(fixture.path("upper/file")).expect("upper"), "written\n");
    running.cgroup.expect("cgroup").remove().expect("remove");
}

fn errors_have_their_kind(fixture: &Fixture) {
    for (command, kind) in [
        ("nosuch", ErrorKind::CommandNotFound),
        ("/no/such", ErrorKind::CommandNotFound),
        ("/plain", ErrorKind::NotExecutable),
        ("/bin", ErrorKind::NotExecutable),
    ] {
        let error = fixture.create(&fixture.spec(&[command]), quiet()).expect_err(command);
        assert_eq!(error.kind(), kind, "{error}");
        fixture.assert_gone();
    }
    let mut spec = fixture.spec(&["true"]);
    spec.set_hostname(Some("x".into()));
    spec.linux_mut().as_mut().expect("linux").namespaces_mut().as_mut().expect("namespaces").remove(3);
    assert_eq!(fixture.create(&spec, quiet()).expect_err("no uts").kind(), ErrorKind::InvalidSpec);
}

fn a_failed_execve_is_told_by_start(fixture: &Fixture) {
    let created = fixture.create(&fixture.spec(&["broken"]), quiet()).expect("create");
    let (pidfd, cgroup) = (created.pidfd.try_clone().expect("dup"), created.cgroup.clone().expect("cgroup"));
    let error = created.start().expect_err("no program");
    assert_eq!(error.kind(), ErrorKind::NotExecutable);
    assert!(error.to_string().contains("exec format error"), "{error}");
    assert_eq!(wait(&pidfd), 126);
    cgroup.remove().expect("remove");
}

fn what_is_dropped_before_start_ends(fixture: &Fixture) {
    let created = fixture.create(&fixture.spec(&["sleep", "1000"]), quiet()).expect("create");
    let (pidfd, cgroup) = (created.pidfd.try_clone().expect("dup"), created.cgroup.clone().expect("cgroup"));
    drop(created);
    assert_eq!(wait(&pidfd), 1);
    cgroup.remove().expect("remove");
}

fn a_container_dies_with_its_caller(fixture: &Fixture) {
    let (mut reader, writer) = {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        (std::fs::File::from(reader), writer)
    };
    match hull_sys::clone3(hull_sys::CloneArgs::default()).expect("fork") {
        hull_sys::Forked::Child => {
            // The container holds the pipe's end open as long as it lives.
            let spec = fixture.spec(&["sleep", "1000"]);
            let stdio = Stdio::Fds { stdin: null(), stdout: writer, stderr: null() };
            let started = fixture.create(&spec, stdio).and_then(Created::start);
            hull_sys::process::exit_now(started.is_err().into());
        }
        hull_sys::Forked::Parent { pidfd, .. } => {
            drop(writer);
            assert_eq!(wait(&pidfd), 0);
            assert_eq!(reader.read(&mut [0; 1]).expect("read"), 0);
        }
    }
    let cgroups = hull_oci::cgroup::Cgroups::detect().expect("cgroups");
    cgroups.open(&fixture.id).remove().expect("remove");
}

fn a_terminal_comes_back(fixture: &Fixture) {
    let spec = fixture.spec(&["sh", "-c", "test -t 0 && busybox stty size"]);
    let created =
        fixture.create(&spec, Stdio::Terminal { rows: 21, cols: 77, line_feeds: false }).expect("create");
    let mut running = created.start().expect("start");
    let mut console = std::fs::File::from(running.console.take().expect("a terminal"));
    let mut seen = Vec::new();
    let mut buffer = [0; 64];
    // A terminal whose last user is gone answers EIO.
    while let Ok(length @ 1..) = console.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&seen), "21 77\r\n");
    assert_eq!(wait(&running.pidfd), 0);
    running.cgroup.expect("cgroup").remove().expect("remove");
}

fn exec_is_a_child_of_the_caller(fixture: &Fixture) {
    let spec = fixture.spec(&["sleep", "1000"]);
    let running = fixture.create(&spec, quiet()).expect("create").start().expect("start");
    let process = |args: &[&str]| -> Process {
        serde_json::from_value(
            json!({ "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "env": ["PATH=/bin"] }),
        )
        .expect("process")
    };
    let exec = |process: &Process, stdio| {
        hull_oci::exec(ExecRequest {
            id: &fixture.id,
            spec: &spec,
            bundle: Path::new("/"),
            process,
            init_pid: running.pid,
            init: running.pidfd.as_fd(),
            cgroup: running.cgroup.as_ref(),
            stdio,
            preserve_fds: 0,
            die_with_parent: true,
        })
    };
    let (output, stdio) = piped();
    let execed = exec(&process(&["sh", "-c", "echo $PPID; exit 3"]), stdio).expect("exec");
    assert_eq!((wait(&execed.pidfd), text(output).as_str()), (3, "0\n"));
    let error = exec(&process(&["nosuch"]), quiet()).expect_err("no program");
    assert_eq!(error.kind(), ErrorKind::CommandNotFound);
    // Later children are in the caller's own pid namespace again.
    let own = std::process::Command::new("readlink").arg("/proc/self/ns/pid").output().expect("readlink");
    let expected = std::fs::read_link("/proc/self/ns/pid").expect("namespace");
    assert_eq!(String::from_utf8_lossy(&own.stdout).trim(), expected.to_str().expect("utf-8"));
    hull_sys::signal::pidfd_send_signal(running.pidfd.as_fd(), 9).expect("kill");
    assert_eq!(wait(&running.pidfd), 137);
    assert!(exec(&process(&["true"]), quiet()).is_err(), "the container is gone");
    running.cgroup.as_ref().expect("cgroup").remove().expect("remove");
}

fn the_network_can_be_configured_before_the_start(fixture: &Fixture) {
    let (output, stdio) = piped();
    let created = fixture.create(&fixture.spec(&["busybox", "ip", "-o", "addr"]), stdio).expect("create");
    let namespace = format!("--net=/proc/{}/ns/net", created.pid);
    let status = std::process::Command::new("nsenter")
        .args([namespace.as_str(), "/bin/busybox", "ip", "addr", "add", "10.9.8.7/32", "dev", "lo"])
        .status()
        .expect("nsenter");
    assert!(status.success());
    let running = created.start().expect("start");
    assert_eq!(wait(&running.pidfd), 0);
    let text = text(output);
    assert!(text.contains("10.9.8.7") && text.contains("127.0.0.1"), "{text}");
    running.cgroup.expect("cgroup").remove().expect("remove");
}
