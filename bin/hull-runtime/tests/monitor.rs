//! The monitor with real containers: a busybox root, its own namespaces and cgroup. Needs root.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hull_monitor::MonitorConfig;
use hull_monitor::client::{Connection, ConnectionError, Executable, spawn};
use hull_monitor::config::{ConsoleSize, JsonFileConfig, LogConfig, Rootfs};
use hull_monitor::protocol::{Action, Attach, Event, Exec, Exit, FailureKind, Phase};
use oci_spec::runtime::{Process, Spec};
use rustix::mount::MountAttrFlags;
use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// Why these tests cannot run here, if so.
fn skipped() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !Path::new(BUSYBOX).exists() {
        "no /bin/busybox (package busybox-static)"
    } else {
        return false;
    };
    println!("skipped: {reason}");
    true
}

fn wait_for(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Container {
    dir: tempfile::TempDir,
    cgroup: String,
    engine: Option<Connection>,
    monitor: Child,
}

impl Container {
    fn new(args: &[&str], tweak: impl FnOnce(&mut Value, &mut MonitorConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_root(&dir.path().join("layer"));
        for name in ["upper", "work", "rootfs"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let made =
            Command::new(env!("CARGO_BIN_EXE_hull-runtime")).args(["spec", "-b"]).arg(dir.path()).status();
        assert!(made.unwrap().success());
        let text = std::fs::read(dir.path().join("config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&text).unwrap();
        let cgroup = format!("/hull-test-{}", dir.path().file_name().unwrap().display());
        spec["process"]["args"] = json!(args);
        spec["process"]["terminal"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(cgroup);
        let granted = hull_confine::CapSet::DOCKER_DEFAULT;
        spec["linux"]["seccomp"] =
            serde_json::to_value(hull_confine::seccomp::docker_default(granted)).unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut config = MonitorConfig {
            id: "c1".into(),
            engine_id: "test".into(),
            bundle: dir.path().into(),
            spec: Spec::default(),
            rootfs: Rootfs::Sent,
            open_stdin: false,
            stdin_once: false,
            console_size: None,
            log: LogConfig::JsonFile(JsonFileConfig { path: path("log"), ..Default::default() }),
            exit_path: path("exit.json"),
            durable: true,
            socket: path("monitor.sock"),
            runtime: None,
            engine_command: None,
        };
        tweak(&mut spec, &mut config);
        config.spec = serde_json::from_value(spec).unwrap();
        config.write(&path("monitor.json")).unwrap();
        let executable = Executable::Path(Path::new(env!("CARGO_BIN_EXE_hull-runtime")));
        let layers = hull_mount::Overlay {
            lower: vec![path("layer")],
            upper: Some((path("upper"), path("work"))),
            options: Vec::new(),
        };
        let root = hull_mount::overlay(&layers, MountAttrFlags::empty()).unwrap();
        let (engine, monitor) = spawn(executable, &path("monitor.json"), Some(root.as_fd())).unwrap();
        Self { dir, cgroup, engine: Some(engine), monitor }
    }

    fn running(args: &[&str]) -> (Self, i32) {
        let container = Self::new(args, |_, _| {});
        let Event::Created { pid } = container.next().unwrap() else { panic!("not created") };
        container.request(1, Action::Start);
        container.until(|event| matches!(event, Event::Done { tag: 1 }));
        (container, pid)
    }

    fn next(&self) -> Result<Event, ConnectionError> {
        let mut event = None;
        wait_for(|| {
            event = self.engine.as_ref().unwrap().try_receive().transpose();
            event.is_some()
        });
        event.unwrap()
    }

    fn request(&self, tag: u64, action: Action) {
        self.engine.as_ref().unwrap().request(tag, action, &[]).unwrap();
    }

    fn until(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().unwrap();
            if wanted(&event) {
                return event;
            }
            let failed =
                matches!(event, Event::CreateFailed(_) | Event::StartFailed(_) | Event::Failed { .. });
            assert!(!failed, "{event:?}");
        }
    }

    fn exit(&self) -> Exit {
        let Event::Exited(exit) = self.until(|event| matches!(event, Event::Exited(_))) else {
            unreachable!()
        };
        exit
    }

    fn exec(&self, args: &[&str], tty: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut process = Process::default();
        process
            .set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()))
            .set_env(Some(vec!["PATH=/bin".into()]))
            .set_cwd("/".into())
            .set_terminal(Some(tty));
        let attach = Attach { stdin: true, stdout: true, stderr: true, ..Attach::default() };
        let console_size = tty.then_some(ConsoleSize { rows: 21, cols: 71 });
        let exec = Exec { exec_id: "x1".into(), process, console_size, attach };
        let connection = self.engine.as_ref().unwrap();
        connection.request(8, Action::Exec(Box::new(exec)), &[theirs.as_fd()]).unwrap();
        ours
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log"))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["log"].as_str().unwrap().to_owned())
            .collect()
    }

    fn finish(mut self) {
        self.request(9, Action::Acknowledge);
        assert!(self.monitor.wait().unwrap().success());
        for root in
            ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]
        {
            let left = PathBuf::from(format!("{root}{}", self.cgroup));
            assert!(!left.exists(), "{}", left.display());
        }
        assert!(!self.dir.path().join("monitor.sock").exists());
    }
}

fn make_root(root: &Path) {
    for name in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "sleep", "stty", "mount", "seq", "tail"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("bin/plain"), "not a program").unwrap();
}

#[test]
fn container_runs_confined_and_its_end_is_recorded() {
    if skipped() {
        return;
    }
    let script = "echo pid $$; cat /proc/self/status | while read a b; do \
        case $a in Seccomp:|NoNewPrivs:) echo $a$b;; esac; done; echo >/made; echo err >&2; exit 3";
    let (container, pid) = Container::running(&["sh", "-c", script]);
    assert!(pid > 1);
    let exit = container.exit();
    assert_eq!((exit.status, exit.oom_killed), (3, false));
    assert_eq!(hull_monitor::read_exit(&container.dir.path().join("exit.json")).unwrap(), Some(exit));
    let log = container.log();
    assert!(log.starts_with("pid 1\nNoNewPrivs:1\nSeccomp:2\n"), "{log}");
    assert!(log.ends_with("err\n"), "{log}");
    // The overlay existed in the container only.
    assert_eq!(std::fs::read_dir(container.dir.path().join("rootfs")).unwrap().count(), 0);
    container.finish();
}

#[test]
fn exec_runs_inside_and_reports_its_status() {
    if skipped() {
        return;
    }
    let (container, _) = Container::running(&["sleep", "100"]);
    let mut client = container.exec(&["sh", "-c", "cat; echo $PATH; exit 7"], false);
    client.write_all(b"typed\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut output = String::new();
    let exited = container.until(|event| matches!(event, Event::ExecExited { .. }));
    assert!(matches!(exited, Event::ExecExited { status: 7, .. }));
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "typed\n/bin\n");

    let mut client = container.exec(&["stty", "size"], true);
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    assert_eq!(output, "21 71\r\n");
    container.until(|event| matches!(event, Event::ExecExited { status: 0, .. }));

    for (command, kind) in
        [("nothing", FailureKind::CommandNotFound), ("/bin/plain", FailureKind::NotExecutable)]
    {
        drop(container.exec(&[command], false));
        let Event::Failed { tag: 8, failure } = container.next().unwrap() else { panic!("not refused") };
        assert_eq!(failure.kind, kind, "{}", failure.message);
    }
    container.request(2, Action::Signal { exec_id: None, signal: 9 });
    assert_eq!(container.exit().status, 137);
    container.finish();
}

#[test]
fn commands_that_cannot_run_are_told_apart() {
    if skipped() {
        return;
    }
    for (command, kind, status) in [
        ("nothing", FailureKind::CommandNotFound, 127),
        ("/no/such", FailureKind::CommandNotFound, 127),
        ("/bin/plain", FailureKind::NotExecutable, 126),
        ("/etc", FailureKind::NotExecutable, 126),
    ] {
        let container = Container::new(&[command], |_, _| {});
        let Event::CreateFailed(failure) = container.next().unwrap() else { panic!("{command} was created") };
        assert_eq!(failure.kind, kind, "{}", failure.message);
        assert!(failure.message.contains(command), "{}", failure.message);
        let exit = hull_monitor::read_exit(&container.dir.path().join("exit.json")).unwrap().unwrap();
        assert_eq!(exit.status, status);
        container.finish();
    }
}

#[test]
fn container_survives_the_engine_and_not_the_monitor() {
    if skipped() {
        return;
    }
    let (mut container, pid) = Container::running(&["sleep", "100"]);
    container.engine = None;
    container.engine = Some(Connection::connect(&container.dir.path().join("monitor.sock")).unwrap());
    container.request(5, Action::Inspect);
    let Event::State { state, .. } = container.next().unwrap() else { panic!("no state") };
    assert_eq!((state.phase, state.pid), (Phase::Running, pid));
    let process = PathBuf::from(format!("/proc/{pid}/exe"));
    assert!(process.exists());
    container.monitor.kill().unwrap();
    container.monitor.wait().unwrap();
    wait_for(|| !process.exists());
    assert!(hull_monitor::read_exit(&container.dir.path().join("exit.json")).unwrap().is_none());
    // What an engine does for a monitor that was killed.
    let cgroup = hull_oci::cgroup::Cgroups::detect().unwrap().open(&container.cgroup);
    cgroup.remove().unwrap();
}

#[test]
fn lack_of_memory_is_reported() {
    if skipped() {
        return;
    }
    let container = Container::new(&["tail", "/dev/zero"], |spec, _| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    });
    container.request(1, Action::Start);
    let exit = container.exit();
    assert_eq!((exit.status, exit.oom_killed), (137, true));
    container.finish();
}
