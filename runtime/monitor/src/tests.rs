//! The monitor with plain child processes in place of containers: everything but the runtime.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hull_oci::Stdio;
use oci_spec::runtime::{Process as OciProcess, Spec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::backend::{Backend, Process, failure};
use crate::client::{Connection, ConnectionError};
use crate::config::{ConsoleSize, JsonFileConfig, LogConfig, MonitorConfig, Rootfs};
use crate::monitor::Monitor;
use crate::protocol::{Action, Attach, AttachEnd, Event, Exec, Exit, Failure, FailureKind, Phase, State};

/// Runs `process.args` as a child that stops itself before it executes them.
#[derive(Default)]
struct Plain {
    pid: i32,
}

impl Plain {
    fn spawn(args: &[String], stdio: Stdio, stopped: bool) -> Result<Process, Failure> {
        let command = std::path::Path::new(&args[0]);
        if command.is_absolute() && !command.exists() {
            return Err(failure(FailureKind::CommandNotFound, format!("{}: no such file", args[0])));
        }
        let (stdin, stdout, stderr, console) = match stdio {
            Stdio::Fds { stdin, stdout, stderr } => (stdin, stdout, stderr, None),
            Stdio::Terminal { .. } => {
                let (master, slave) = terminal();
                (slave.try_clone().unwrap(), slave.try_clone().unwrap(), slave, Some(master))
            }
            Stdio::Inherit => unreachable!("the monitor makes the streams"),
        };
        let script = if stopped { "kill -STOP $$; exec \"$@\"" } else { "exec \"$@\"" };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]).args(args).stdin(stdin).stdout(stdout).stderr(stderr);
        let pid = command.spawn().unwrap().id() as i32;
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        Ok(Process { pid, pidfd, console })
    }
}

fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (master, slave)
}

impl Backend for Plain {
    fn create(&mut self, config: &MonitorConfig, stdio: Stdio) -> Result<Process, Failure> {
        let process = Self::spawn(args(config.spec.process().as_ref().unwrap()), stdio, true)?;
        self.pid = process.pid;
        Ok(process)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let stat = format!("/proc/{}/stat", self.pid);
        wait_for(|| std::fs::read_to_string(&stat).unwrap().contains(") T "));
        kill_process(Pid::from_raw(self.pid).unwrap(), Signal::CONT).unwrap();
        Ok(())
    }

    fn exec(&mut self, exec: &Exec, stdio: Stdio) -> Result<Process, Failure> {
        Self::spawn(args(&exec.process), stdio, false)
    }

    fn oom_kills(&self) -> u64 {
        0
    }

    fn end_others(&mut self) {}

    fn remove(&mut self) {}
}

fn args(process: &OciProcess) -> &[String] {
    process.args().as_deref().unwrap()
}

/// Waits for a state of the outside world.
fn wait_for(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Harness {
    dir: tempfile::TempDir,
    config: MonitorConfig,
    engine: Option<Connection>,
    monitor: Option<JoinHandle<()>>,
}

fn process(args: &[&str], tty: bool) -> OciProcess {
    let mut process = OciProcess::default();
    process.set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect())).set_terminal(Some(tty));
    process
}

impl Harness {
    fn new(args: &[&str], tweak: impl FnOnce(&mut MonitorConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // Longer than the address of a unix socket.
        let long = path(&"x".repeat(100));
        std::fs::create_dir(&long).unwrap();
        let mut spec = Spec::default();
        spec.set_process(Some(process(args, false)));
        let log = JsonFileConfig { path: path("log"), ..Default::default() };
        let mut config = MonitorConfig {
            id: "c".into(),
            engine_id: "e".into(),
            bundle: dir.path().into(),
            spec,
            rootfs: Rootfs::Path,
            open_stdin: false,
            stdin_once: false,
            console_size: None,
            log: LogConfig::JsonFile(log),
            exit_path: path("exit.json"),
            durable: true,
            socket: long.join("monitor.sock"),
            runtime: None,
            engine_command: None,
        };
        tweak(&mut config);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let given = config.clone();
        let monitor =
            std::thread::spawn(move || Monitor::create(given, Plain::default(), Some(theirs)).run());
        Self { dir, config, engine: Some(Connection::from_socket(ours)), monitor: Some(monitor) }
    }

    /// A harness whose process runs.
    fn running(args: &[&str], tweak: impl FnOnce(&mut MonitorConfig)) -> Self {
        let harness = Self::new(args, tweak);
        harness.request(1, Action::Start);
        harness.until(|event| matches!(event, Event::Done { tag: 1 }));
        harness
    }

    fn engine(&self) -> &Connection {
        self.engine.as_ref().unwrap()
    }

    fn request(&self, tag: u64, action: Action) {
        self.engine().request(tag, action, &[]).unwrap();
    }

    /// The next event, if there is one in time.
    fn next(&self) -> Result<Event, ConnectionError> {
        let mut event = None;
        wait_for(|| {
            event = self.engine().try_receive().transpose();
            event.is_some()
        });
        event.unwrap()
    }

    /// The next event that `wanted` takes; earlier ones are dropped.
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

    fn attach(&self, attach: Attach) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        self.engine().request(77, Action::Attach(attach), &[theirs.as_fd()]).unwrap();
        self.until(|event| matches!(event, Event::Done { tag: 77 }));
        ours
    }

    fn exec(&self, args: &[&str], tty: bool, attach: Attach) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let exec = Exec { exec_id: args.concat(), process: process(args, tty), console_size: None, attach };
        self.engine().request(88, Action::Exec(Box::new(exec)), &[theirs.as_fd()]).unwrap();
        ours
    }

    fn inspect(&self) -> State {
        self.request(99, Action::Inspect);
        let Event::State { state, .. } = self.until(|event| matches!(event, Event::State { .. })) else {
            unreachable!()
        };
        state
    }

    /// Acknowledges the end and waits for the monitor to leave.
    fn finish(mut self) -> tempfile::TempDir {
        self.request(100, Action::Acknowledge);
        self.monitor.take().unwrap().join().unwrap();
        assert!(matches!(self.engine_at_end(), ConnectionError::Closed));
        assert!(!self.config.socket.exists());
        self.dir
    }

    fn engine_at_end(&self) -> ConnectionError {
        loop {
            if let Err(error) = self.next() {
                return error;
            }
        }
    }

    fn log(&self) -> Vec<(String, String)> {
        std::fs::read_to_string(self.dir.path().join("log"))
            .unwrap()
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                (value["stream"].as_str().unwrap().into(), value["log"].as_str().unwrap().into())
            })
            .collect()
    }
}

fn all() -> Attach {
    Attach { attach_id: 5, stdin: true, stdout: true, stderr: true, framed: true, detach_keys: vec![16, 17] }
}

fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

/// Frames until the end of the stream, as (stream, payload) with neighbours joined.
fn frames(client: &mut UnixStream) -> Vec<(u8, String)> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let mut frames: Vec<(u8, String)> = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        assert_eq!(rest[1..4], [0, 0, 0]);
        let length = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&rest[8..8 + length]).unwrap();
        match frames.last_mut() {
            Some((stream, before)) if *stream == rest[0] => before.push_str(text),
            _ => frames.push((rest[0], text.to_owned())),
        }
        rest = &rest[8 + length..];
    }
    frames
}

fn pair(stream: &str, text: &str) -> (String, String) {
    (stream.into(), text.into())
}

#[test]
fn output_is_logged_and_the_end_is_recorded_before_it_is_told() {
    let harness = Harness::new(&sh("echo out; echo err >&2; printf end; exit 3"), |_| {});
    assert!(matches!(harness.next().unwrap(), Event::Created { pid } if pid > 0));
    assert_eq!(harness.inspect().phase, Phase::Created);
    harness.request(1, Action::Start);
    let Event::Started { at } = harness.until(|event| matches!(event, Event::Started { .. })) else {
        unreachable!()
    };
    let exit = harness.exit();
    assert_eq!((exit.status, exit.oom_killed, exit.started_at.as_ref()), (3, false, Some(&at)));
    assert!(at < exit.at);
    assert_eq!(crate::read_exit(&harness.config.exit_path).unwrap(), Some(exit.clone()));
    let log = harness.log();
    let of = |stream: &str| -> Vec<_> { log.iter().filter(|(name, _)| name == stream).cloned().collect() };
    assert_eq!(of("stdout"), [pair("stdout", "out\n"), pair("stdout", "end")]);
    assert_eq!(of("stderr"), [pair("stderr", "err\n")]);
    let state = harness.inspect();
    assert_eq!((state.phase, state.pid, state.exit), (Phase::Exited, 0, Some(exit)));
    harness.finish();
}

#[test]
fn client_attached_before_the_start_sees_all_output_in_frames() {
    let harness = Harness::new(&sh("echo out; sleep 0.05; echo err >&2; sleep 0.05; echo out2"), |_| {});
    let mut client = harness.attach(Attach { stdin: false, ..all() });
    harness.request(1, Action::Start);
    let text = |stream, text: &str| (stream, text.to_owned());
    assert_eq!(frames(&mut client), [text(1, "out\n"), text(2, "err\n"), text(1, "out2\n")]);
    let end = harness.until(|event| matches!(event, Event::AttachEnded { .. }));
    assert!(matches!(end, Event::AttachEnded { attach_id: 5, end: AttachEnd::Finished }));
    harness.finish();
}

#[test]
fn end_of_input_reaches_the_process_and_output_goes_on() {
    let harness = Harness::new(&sh("cat; echo done"), |config| {
        config.open_stdin = true;
        config.stdin_once = true;
    });
    let mut client = harness.attach(Attach { framed: false, ..all() });
    harness.request(1, Action::Start);
    let input = "0123456789".repeat(50_000);
    let mut writer = client.try_clone().unwrap();
    let sent = input.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(sent.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut output = String::new();
    client.read_to_string(&mut output).unwrap();
    writing.join().unwrap();
    assert!(output == input + "done\n", "{} bytes", output.len());
    assert_eq!(harness.exit().status, 0);
    harness.finish();
}

#[test]
fn without_stdin_once_the_session_ends_and_the_input_stays_open() {
    let harness = Harness::running(&sh("read a; read b; echo $a $b"), |config| config.open_stdin = true);
    let mut first = harness.attach(all());
    first.write_all(b"one\n").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    let end = harness.until(|event| matches!(event, Event::AttachEnded { .. }));
    assert!(matches!(end, Event::AttachEnded { end: AttachEnd::InputEnded, .. }));
    assert_eq!(frames(&mut first), []);
    let mut second = harness.attach(all());
    second.write_all(b"two\n").unwrap();
    assert_eq!(frames(&mut second), [(1, "one two\n".to_owned())]);
    harness.finish();
}

#[test]
fn detach_keys_leave_the_process_alone() {
    let harness = Harness::running(&sh("read line; echo got $line; sleep 100"), |config| {
        config.spec.set_process(Some(process(&sh("read line; echo got $line; sleep 100"), true)));
    });
    let mut client = harness.attach(all());
    client.write_all(b"x\x10y\n").unwrap();
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.contains("got x\u{10}y\r\n") {
        client.read_exact(&mut byte).unwrap();
        seen.push(char::from(byte[0]));
    }
    client.write_all(b"z\x10\x11ignored").unwrap();
    let end = harness.until(|event| matches!(event, Event::AttachEnded { .. }));
    assert!(matches!(end, Event::AttachEnded { end: AttachEnd::Keys, .. }));
    let state = harness.inspect();
    assert_eq!((state.phase, state.attached), (Phase::Running, 0));
    harness.request(2, Action::Signal { exec_id: None, signal: 9 });
    assert_eq!(harness.exit().status, 137);
    harness.request(3, Action::Signal { exec_id: None, signal: 9 });
    let failed = harness.until(|event| matches!(event, Event::Failed { .. }));
    assert!(matches!(failed, Event::Failed { tag: 3, failure } if failure.kind == FailureKind::Conflict));
    harness.finish();
}

#[test]
fn terminal_has_the_size_that_was_set() {
    let harness = Harness::new(&[], |config| {
        config.spec.set_process(Some(process(&["stty", "size"], true)));
    });
    let size = ConsoleSize { rows: 33, cols: 99 };
    harness.request(1, Action::Resize { exec_id: None, size });
    harness.until(|event| matches!(event, Event::Done { tag: 1 }));
    harness.request(2, Action::Start);
    assert_eq!(harness.exit().status, 0);
    assert_eq!(harness.log(), [pair("stdout", "33 99\r\n")]);
    harness.finish();
}

#[test]
fn exec_has_streams_and_a_status_of_its_own() {
    let harness = Harness::running(&["sleep", "100"], |_| {});
    let mut client = harness.exec(&sh("cat; echo err >&2; exit 7"), false, all());
    client.write_all(b"in").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let started = harness.until(|event| matches!(event, Event::ExecStarted { .. }));
    assert!(matches!(started, Event::ExecStarted { tag: 88, pid, .. } if pid > 0));
    let exited = harness.until(|event| matches!(event, Event::ExecExited { .. }));
    assert!(matches!(exited, Event::ExecExited { status: 7, detached: false, .. }));
    let mut output = frames(&mut client);
    output.sort();
    assert_eq!(output, [(1, "in".to_owned()), (2, "err\n".to_owned())]);
    assert_eq!(harness.log(), []);
    assert_eq!(harness.inspect().execs, []);
    harness.request(2, Action::Signal { exec_id: None, signal: 15 });
    assert_eq!(harness.exit().status, 143);
    harness.finish();
}

#[test]
fn exec_goes_on_when_its_client_detaches() {
    let harness = Harness::running(&["sleep", "100"], |_| {});
    let mut client = harness.exec(&sh("sleep 100"), true, all());
    client.write_all(&[16, 17]).unwrap();
    harness.until(|event| matches!(event, Event::ExecDetached { .. }));
    assert_eq!(frames(&mut client), []);
    let execs = harness.inspect().execs;
    assert_eq!((execs.len(), execs[0].status), (1, None));
    let exec_id = Some(execs[0].exec_id.clone());
    harness.request(2, Action::Signal { exec_id, signal: 9 });
    let exited = harness.until(|event| matches!(event, Event::ExecExited { .. }));
    assert!(matches!(exited, Event::ExecExited { status: 137, detached: true, .. }));
    harness.request(3, Action::Signal { exec_id: None, signal: 9 });
    harness.exit();
    harness.finish();
}

#[test]
fn commands_that_are_not_there_are_told_apart() {
    let harness = Harness::running(&["sleep", "100"], |_| {});
    drop(harness.exec(&["/no/such"], false, all()));
    let failed = harness.until(|event| matches!(event, Event::Failed { .. }));
    assert!(
        matches!(failed, Event::Failed { tag: 88, failure } if failure.kind == FailureKind::CommandNotFound)
    );
    harness.request(2, Action::Signal { exec_id: None, signal: 9 });
    harness.exit();
    harness.finish();

    let harness = Harness::new(&["/no/such"], |_| {});
    let Event::CreateFailed(failure) = harness.next().unwrap() else { panic!("no failure") };
    assert_eq!(failure.kind, FailureKind::CommandNotFound);
    let exit = crate::read_exit(&harness.config.exit_path).unwrap().unwrap();
    assert_eq!((exit.status, exit.failure), (127, Some(failure)));
    harness.request(1, Action::Start);
    let failed = harness.until(|event| matches!(event, Event::Failed { .. }));
    assert!(matches!(failed, Event::Failed { failure, .. } if failure.kind == FailureKind::Conflict));
    harness.finish();
}

#[test]
fn engine_may_go_and_another_may_come() {
    let mut harness = Harness::running(&["sleep", "100"], |_| {});
    let gate = harness.dir.path().join("gate");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done; exit 4", gate.display());
    let client = harness.exec(&sh(&script), false, all());
    harness.until(|event| matches!(event, Event::ExecStarted { .. }));
    harness.engine = None;
    std::fs::write(&gate, "").unwrap();
    // The client hears of the end although no engine does.
    assert_eq!(frames(&mut { client }), []);
    harness.engine = Some(Connection::connect(&harness.config.socket).unwrap());
    let state = harness.inspect();
    assert_eq!(state.phase, Phase::Running);
    assert_eq!(state.execs.iter().map(|exec| exec.status).collect::<Vec<_>>(), [Some(4)]);
    assert_eq!(harness.inspect().execs, []);
    harness.request(2, Action::Signal { exec_id: None, signal: 9 });
    assert_eq!(harness.exit().status, 137);
    harness.finish();
}

#[test]
fn without_an_engine_the_record_is_left_and_one_is_started() {
    let mut harness = Harness::running(&sh("read line; exit 5"), |config| {
        config.open_stdin = true;
        config.stdin_once = true;
        let mark = config.exit_path.with_file_name("engine-started");
        config.engine_command = Some(vec!["touch".into(), mark.display().to_string()]);
    });
    let client = harness.attach(all());
    harness.engine = None;
    drop(client);
    harness.monitor.take().unwrap().join().unwrap();
    assert_eq!(crate::read_exit(&harness.config.exit_path).unwrap().unwrap().status, 5);
    assert!(!harness.config.socket.exists());
    let mark = harness.dir.path().join("engine-started");
    wait_for(|| mark.exists());
    assert!(matches!(
        Connection::connect(&harness.config.socket),
        Err(ConnectionError::Connect(path, _)) if path == harness.config.socket
    ));
}

#[test]
fn slow_client_slows_the_process_and_a_vanished_one_does_not() {
    let harness = Harness::running(&sh("read go; seq 1 1000000"), |config| config.open_stdin = true);
    let mut client = harness.attach(all());
    client.write_all(b"go\n").unwrap();
    let path = harness.dir.path().join("log");
    let size = || path.metadata().map_or(0, |metadata| metadata.len());
    let mut last = 0;
    wait_for(|| {
        let before = std::mem::replace(&mut last, size());
        std::thread::sleep(Duration::from_millis(50));
        before > 0 && before == size()
    });
    // 1,000,000 lines are 75 MB of log: it stopped because of the client.
    assert!(size() < 40_000_000, "{}", size());
    assert_eq!(harness.inspect().phase, Phase::Running);
    drop(client);
    assert_eq!(harness.exit().status, 0);
    let log = harness.log();
    assert_eq!(log.len(), 1_000_000);
    assert!(log.iter().enumerate().all(|(index, (_, text))| *text == format!("{}\n", index + 1)));
    harness.finish();
}

#[test]
fn slow_client_gets_all_output_after_the_end() {
    let harness = Harness::new(&["seq", "1", "40000"], |_| {});
    let mut client = harness.attach(all());
    harness.request(1, Action::Start);
    assert_eq!(harness.exit().status, 0);
    let expected: String = (1..=40_000).map(|number| format!("{number}\n")).collect();
    let output = frames(&mut client);
    assert!(output == [(1, expected)]);
    harness.finish();
}

#[test]
fn descendants_holding_the_pipes_do_not_hold_the_end_for_long() {
    let harness = Harness::running(&sh("sleep 6 & echo last; exit 2"), |_| {});
    let start = Instant::now();
    assert_eq!(harness.exit().status, 2);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(harness.log(), [pair("stdout", "last\n")]);
    harness.finish();
}

#[test]
fn requests_that_do_not_fit_are_answered() {
    let harness = Harness::running(&["sleep", "100"], |_| {});
    let size = ConsoleSize { rows: 1, cols: 1 };
    for (tag, action) in [
        (10, Action::Start),
        (11, Action::Attach(all())),
        (12, Action::Resize { exec_id: None, size }),
        (13, Action::Resize { exec_id: Some("x".into()), size }),
        (14, Action::Signal { exec_id: Some("x".into()), signal: 1 }),
        (15, Action::Signal { exec_id: None, signal: 400 }),
    ] {
        harness.request(tag, action);
        let answer = harness.next().unwrap();
        assert!(matches!(answer, Event::Failed { tag: got, .. } if got == tag), "{tag}: {answer:?}");
    }
    // Too early: the monitor stays.
    harness.request(16, Action::Acknowledge);
    harness.until(|event| matches!(event, Event::Done { tag: 16 }));
    harness.request(17, Action::Signal { exec_id: None, signal: 9 });
    harness.exit();
    harness.finish();
}

#[test]
fn monitor_without_a_socket_path_fails_cleanly() {
    let harness = Harness::new(&["true"], |config| config.socket = PathBuf::from("/no/such/dir/sock"));
    assert!(matches!(harness.next().unwrap(), Event::CreateFailed(_)));
    harness.finish();
}

#[test]
fn a_container_nobody_starts_ends_with_its_engine() {
    let mut harness = Harness::new(&["sleep", "100"], |config| {
        config.engine_command =
            Some(vec!["touch".into(), config.bundle.join("engine").display().to_string()]);
    });
    let Event::Created { pid } = harness.until(|event| matches!(event, Event::Created { .. })) else {
        unreachable!()
    };
    harness.engine = None;
    harness.monitor.take().unwrap().join().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!harness.config.exit_path.exists() && !harness.config.socket.exists());
    assert!(!harness.dir.path().join("engine").exists(), "no engine is started for it");
}
