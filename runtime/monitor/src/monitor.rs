//! The monitor's state machine and its loop.
//!
//! ```text
//! Creating ──create──▶ Created ──Start──▶ Running ──init ends──▶ draining ──pipes at their end──▶ Exited
//!     └──────fails──────────┴─────fails──────────────────────────────────────────────────────────▶ Exited
//! ```
//!
//! At the end, in this order: output is read to its end and logged; the cgroup is removed; the exit record is on
//! disk; the listening socket is gone, so that a successor can have its path; engines are told; clients get the
//! rest of their output and are closed; the process leaves when an engine has acknowledged or none is connected.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};

use crate::backend::{Backend, Process, failure};
use crate::clock;
use crate::config::{ConsoleSize, MonitorConfig};
use crate::exit_record;
use crate::log::Log;
use crate::peer::Peer;
use crate::protocol::{
    Action, Attach, AttachEnd, Event, Exec, ExecState, Exit, Failure, FailureKind, Phase, Request, State,
};
use crate::session::{Buffer, Session, Source, Wanted};
use crate::socket_path;

/// How long buffers are kept without output: giving them back and faulting them in again at each pause of a busy
/// process costs more than the copying. Shorter than any deadline matters.
const REST_AFTER: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The parts of the configuration that are needed after the container is created.
#[derive(Debug)]
struct Settings {
    exit_path: PathBuf,
    durable: bool,
    socket: PathBuf,
    engine_command: Option<Vec<String>>,
}

/// A container's monitor.
#[derive(Debug)]
pub(crate) struct Monitor<B> {
    settings: Settings,
    backend: B,
    listener: Option<OwnedFd>,
    peers: Vec<Peer>,
    log: Log,
    buffer: Buffer,
    container: Container,
    execs: Vec<Running>,
    /// Ends of execs no engine was connected to hear of.
    untold: Vec<ExecState>,
    acknowledged: bool,
}

#[derive(Debug)]
struct Container {
    phase: Phase,
    pid: i32,
    /// Until it has ended.
    pidfd: Option<OwnedFd>,
    session: Session,
    started_at: Option<String>,
    /// Known as soon as the first process has ended.
    exit: Option<Exit>,
}

#[derive(Debug)]
struct Running {
    exec_id: String,
    pid: i32,
    pidfd: Option<OwnedFd>,
    session: Session,
    status: Option<u8>,
    told: bool,
    detached: bool,
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy, Debug)]
enum Token {
    Listener,
    Peer(usize),
    Init,
    Container(Source),
    ExecEnd(usize),
    Exec(usize, Source),
}

impl<B: Backend> Monitor<B> {
    /// Creates the container of `config`. When it cannot be created, the monitor's only task is to say so.
    pub(crate) fn create(config: MonitorConfig, mut backend: B, first_peer: Option<OwnedFd>) -> Self {
        let mut peers: Vec<Peer> = first_peer.into_iter().map(Peer::new).collect();
        let (listener, made) = match listen(&config) {
            Ok(listener) => (Some(listener), make(&config, &mut backend)),
            Err(failure) => (None, Err(failure)),
        };
        let settings = Settings {
            exit_path: config.exit_path,
            durable: config.durable,
            socket: config.socket,
            engine_command: config.engine_command,
        };
        let (log, container, failed) = match made {
            Ok((log, container)) => (log, container, None),
            Err(failure) => (Log::default(), Container::none(), Some(failure)),
        };
        if failed.is_none() {
            tell(&mut peers, &Event::Created { pid: container.pid });
        }
        let mut monitor = Self {
            settings,
            backend,
            listener,
            peers,
            log,
            buffer: Buffer::default(),
            container,
            execs: Vec::new(),
            untold: Vec::new(),
            acknowledged: false,
        };
        if let Some(failure) = failed {
            monitor.fail(failure.clone(), Event::CreateFailed(failure));
        }
        monitor
    }

    /// Serves until the container has ended and everyone who has to know does.
    pub(crate) fn run(mut self) {
        while !self.done() {
            for (token, flags) in self.wait() {
                self.handle(token, flags);
            }
            self.settle();
        }
        if !self.acknowledged {
            self.start_engine();
        }
    }

    fn done(&self) -> bool {
        self.container.phase == Phase::Exited
            && (self.acknowledged || self.peers.is_empty())
            && !self.container.session.has_clients()
            && self.execs.is_empty()
            && !self.peers.iter().any(Peer::waiting)
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Vec<(Token, PollFlags)> {
        if self.buffer.in_use() {
            let ready = self.poll(Some(REST_AFTER));
            if !ready.is_empty() {
                return ready;
            }
            // An idle monitor holds no large buffers.
            self.buffer.rest();
            self.log.rest();
        }
        let sessions = self.execs.iter().map(|exec| &exec.session).chain([&self.container.session]);
        let deadline = sessions.filter_map(Session::deadline).min();
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        self.poll(timeout)
    }

    fn poll(&self, timeout: Option<Timespec>) -> Vec<(Token, PollFlags)> {
        let (tokens, mut fds): (Vec<Token>, Vec<PollFd<'_>>) =
            self.interests().map(|(token, fd, flags)| (token, PollFd::from_borrowed_fd(fd, flags))).unzip();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(_) => Vec::new(),
            Ok(_) => tokens
                .into_iter()
                .zip(&fds)
                .map(|(token, fd)| (token, fd.revents()))
                .filter(|(_, flags)| !flags.is_empty())
                .collect(),
        }
    }

    fn interests(&self) -> impl Iterator<Item = (Token, BorrowedFd<'_>, PollFlags)> {
        let listener = self.listener.iter().map(|fd| (Token::Listener, fd.as_fd(), PollFlags::IN));
        let peers = self.peers.iter().enumerate().map(|(index, peer)| {
            let flags = if peer.waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            (Token::Peer(index), peer.as_fd(), flags)
        });
        let container = &self.container;
        let init = container.pidfd.iter().map(|fd| (Token::Init, fd.as_fd(), PollFlags::IN));
        let streams =
            container.session.interests().map(|(source, fd, flags)| (Token::Container(source), fd, flags));
        let execs = self.execs.iter().enumerate().flat_map(|(index, exec)| {
            let end = exec.pidfd.iter().map(move |fd| (Token::ExecEnd(index), fd.as_fd(), PollFlags::IN));
            let streams = exec.session.interests();
            end.chain(streams.map(move |(source, fd, flags)| (Token::Exec(index, source), fd, flags)))
        });
        listener.chain(peers).chain(init).chain(streams).chain(execs)
    }

    /// Handles one readiness. Nothing is removed from any list here, so the tokens of one round stay valid.
    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Peer(index) => self.serve(index, flags),
            Token::Init => self.init_ended(),
            Token::Container(source) => {
                self.container.session.ready(source, flags, &mut self.buffer, Some(&mut self.log));
            }
            Token::ExecEnd(index) => self.execs[index].ended(),
            Token::Exec(index, source) => {
                self.execs[index].session.ready(source, flags, &mut self.buffer, None);
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            self.peers.push(Peer::new(socket));
        }
    }

    fn serve(&mut self, index: usize, flags: PollFlags) {
        if flags.contains(PollFlags::OUT) {
            self.peers[index].flush();
        }
        while let Some((request, fds)) = self.peers[index].receive() {
            let answer = self.answer(request, fds);
            if let Ok(message) = serde_json::to_vec(&answer) {
                self.peers[index].send(&message);
            }
        }
    }

    fn answer(&mut self, Request { tag, action }: Request, mut fds: Vec<OwnedFd>) -> Event {
        let socket = fds.pop();
        let result = match action {
            Action::Start => self.start(),
            Action::Attach(attach) => self.attach(attach, socket),
            Action::Exec(exec) => match self.exec(*exec, socket) {
                Ok((exec_id, pid)) => return Event::ExecStarted { tag, exec_id, pid },
                Err(failure) => Err(failure),
            },
            Action::Resize { exec_id, size } => self.resize(exec_id.as_deref(), size),
            Action::Signal { exec_id, signal } => self.signal(exec_id.as_deref(), signal),
            Action::Inspect => return Event::State { tag, state: self.inspect() },
            Action::Acknowledge => {
                self.acknowledged = self.container.phase == Phase::Exited;
                Ok(())
            }
        };
        match result {
            Ok(()) => Event::Done { tag },
            Err(failure) => Event::Failed { tag, failure },
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        if self.container.phase != Phase::Created {
            return Err(failure(FailureKind::Conflict, "container is not waiting to be started"));
        }
        if let Err(failure) = self.backend.start() {
            self.fail(failure.clone(), Event::StartFailed(failure.clone()));
            return Err(failure);
        }
        let at = clock::now_text();
        self.container.phase = Phase::Running;
        self.container.started_at = Some(at.clone());
        tell(&mut self.peers, &Event::Started { at });
        // Creating a container takes memory that is not needed again.
        hull_sys::memory::trim();
        Ok(())
    }

    fn attach(&mut self, attach: Attach, socket: Option<OwnedFd>) -> Result<(), Failure> {
        let socket = socket.ok_or_else(|| failure(FailureKind::InvalidSpec, "attach without a socket"))?;
        if self.container.exit.is_some() {
            return Err(failure(FailureKind::Conflict, "container has ended"));
        }
        self.container.session.attach(socket, attach);
        Ok(())
    }

    fn exec(&mut self, exec: Exec, socket: Option<OwnedFd>) -> Result<(String, i32), Failure> {
        if self.container.phase != Phase::Running || self.container.exit.is_some() {
            return Err(failure(FailureKind::Conflict, "container is not running"));
        }
        if self.execs.iter().any(|running| running.exec_id == exec.exec_id) {
            return Err(failure(FailureKind::Conflict, format!("exec {} is already running", exec.exec_id)));
        }
        let size = exec.console_size.unwrap_or(ConsoleSize { rows: 0, cols: 0 });
        let attached = socket.is_some();
        let wanted = Wanted {
            tty: exec.process.terminal().unwrap_or(false).then_some(size),
            stdin: attached && exec.attach.stdin,
            stdout: attached && exec.attach.stdout,
            stderr: attached && exec.attach.stderr,
            stdin_once: true,
        };
        let (mut session, stdio) = Session::new(wanted).map_err(streams_failed)?;
        let Process { pid, pidfd, console } = self.backend.exec(&exec, stdio)?;
        if let Some(console) = console {
            session.set_console(console).map_err(streams_failed)?;
        }
        if let Some(socket) = socket {
            session.attach(socket, exec.attach);
        }
        let exec_id = exec.exec_id.clone();
        self.execs.push(Running {
            exec_id: exec.exec_id,
            pid,
            pidfd: Some(pidfd),
            session,
            status: None,
            told: false,
            detached: false,
        });
        Ok((exec_id, pid))
    }

    fn resize(&self, exec_id: Option<&str>, size: ConsoleSize) -> Result<(), Failure> {
        let session = match exec_id {
            None => &self.container.session,
            Some(exec_id) => &self.running(exec_id)?.session,
        };
        match session.resize(size) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failure(FailureKind::Conflict, "there is no terminal")),
            Err(errno) => Err(failure(FailureKind::Other, format!("set the terminal's size: {errno}"))),
        }
    }

    fn signal(&self, exec_id: Option<&str>, signal: i32) -> Result<(), Failure> {
        let pidfd = match exec_id {
            None => &self.container.pidfd,
            Some(exec_id) => &self.running(exec_id)?.pidfd,
        };
        let ended = || failure(FailureKind::Conflict, "process has ended");
        let pidfd = pidfd.as_ref().ok_or_else(ended)?;
        hull_sys::signal::pidfd_send_signal(pidfd.as_fd(), signal).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ended(),
            rustix::io::Errno::INVAL => {
                failure(FailureKind::InvalidSpec, format!("no such signal: {signal}"))
            }
            errno => failure(FailureKind::Other, format!("send signal {signal}: {errno}")),
        })
    }

    fn running(&self, exec_id: &str) -> Result<&Running, Failure> {
        self.execs
            .iter()
            .find(|exec| exec.exec_id == exec_id)
            .ok_or_else(|| failure(FailureKind::Conflict, format!("no such exec is running: {exec_id}")))
    }

    fn inspect(&mut self) -> State {
        let running = self.execs.iter().filter(|exec| !exec.told).map(Running::state);
        State {
            phase: self.container.phase,
            pid: if self.container.pidfd.is_some() { self.container.pid } else { 0 },
            started_at: self.container.started_at.clone(),
            exit: self.container.exit.clone().filter(|_| self.container.phase == Phase::Exited),
            execs: running.chain(self.untold.drain(..)).collect(),
            attached: self.container.session.attached(),
        }
    }

    fn init_ended(&mut self) {
        let Some(status) = reap(&mut self.container.pidfd) else { return };
        let oom_killed = self.backend.oom_kills() > 0;
        let started_at = self.container.started_at.clone();
        self.container.exit =
            Some(Exit { status, oom_killed, at: clock::now_text(), started_at, failure: None });
        self.container.session.process_ended();
        self.backend.end_others();
    }

    /// Draws the consequences of what was handled in this round.
    fn settle(&mut self) {
        let now = Instant::now();
        self.container.session.give_up(now, Some(&mut self.log));
        for exec in &mut self.execs {
            exec.session.give_up(now, None);
        }
        self.tell_of_execs();
        let container = &self.container;
        if container.phase != Phase::Exited && container.exit.is_some() && container.session.drained() {
            self.conclude();
        }
        self.reap_clients();
        let engines = self.peers.len();
        self.peers.retain(|peer| !peer.gone());
        if engines > 0 && self.peers.is_empty() && self.container.phase == Phase::Created {
            self.abandon();
        }
    }

    /// The engine ended between creating the container and starting it. Nobody has seen the container, and a later
    /// engine undoes what is left of the start.
    fn abandon(&mut self) {
        self.acknowledged = true;
        let _ = self.signal(None, Signal::KILL.as_raw());
    }

    fn tell_of_execs(&mut self) {
        for exec in &mut self.execs {
            let Some(status) = exec.status.filter(|_| !exec.told && exec.session.drained()) else { continue };
            exec.told = true;
            let (exec_id, detached) = (exec.exec_id.clone(), exec.detached);
            tell(&mut self.peers, &Event::ExecExited { exec_id, status, detached });
            // An engine that ended a moment ago is still among the peers until it was spoken to.
            if self.peers.iter().all(Peer::gone) {
                self.untold.push(exec.state());
            }
            exec.session.finish();
        }
    }

    /// The container is over and its output is logged.
    fn conclude(&mut self) {
        let Some(exit) = self.container.exit.clone() else { return };
        self.backend.remove();
        let abandoned = self.container.phase == Phase::Created && self.acknowledged;
        self.container.phase = Phase::Exited;
        // What was abandoned never ran and has no end. Without the record a later engine takes any other container for
        // killed, which is the best that can be told.
        if !abandoned {
            let _ = exit_record::write(&self.settings.exit_path, &exit, self.settings.durable);
        }
        self.close_listener();
        if exit.failure.is_none() {
            tell(&mut self.peers, &Event::Exited(exit));
        }
        self.container.session.finish();
    }

    /// The container never ran.
    fn fail(&mut self, reason: Failure, event: Event) {
        self.container.pidfd = None;
        self.container.exit = Some(Exit {
            status: reason.kind.exit_status(),
            oom_killed: false,
            at: clock::now_text(),
            started_at: None,
            failure: Some(reason),
        });
        self.conclude();
        tell(&mut self.peers, &event);
    }

    fn close_listener(&mut self) {
        if self.listener.take().is_some() {
            let _ = std::fs::remove_file(&self.settings.socket);
        }
    }

    fn reap_clients(&mut self) {
        for (attach_id, end) in self.container.session.reap_clients() {
            tell(&mut self.peers, &Event::AttachEnded { attach_id, end });
        }
        for exec in &mut self.execs {
            let ended = exec.session.reap_clients();
            if ended.iter().any(|(_, end)| *end == AttachEnd::Keys) {
                exec.detached = true;
                tell(&mut self.peers, &Event::ExecDetached { exec_id: exec.exec_id.clone() });
            }
        }
        self.execs.retain(|exec| !exec.told || exec.session.has_clients());
    }

    /// Nobody has taken note of the end: an engine is started, which finds the record.
    fn start_engine(&self) {
        if let Some([program, arguments @ ..]) = self.settings.engine_command.as_deref() {
            // There is nobody to tell of a failure.
            let _ = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
        }
    }
}

impl Container {
    fn none() -> Self {
        Self {
            phase: Phase::Creating,
            pid: 0,
            pidfd: None,
            session: Session::default(),
            started_at: None,
            exit: None,
        }
    }
}

impl Running {
    fn ended(&mut self) {
        if let Some(status) = reap(&mut self.pidfd) {
            self.status = Some(status);
            self.session.process_ended();
        }
    }

    fn state(&self) -> ExecState {
        ExecState { exec_id: self.exec_id.clone(), pid: self.pid, status: self.status }
    }
}

/// Collects the process of `pidfd`, if it has ended: its status as docker shows it.
fn reap(pidfd: &mut Option<OwnedFd>) -> Option<u8> {
    let fd = pidfd.as_ref()?;
    let status = match waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(None) => return None,
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code as u8,
            (None, Some(signal)) => 128 + signal as u8,
            (None, None) => return None,
        },
        // Someone else has collected it; its status is lost.
        Err(_) => 255,
    };
    *pidfd = None;
    Some(status)
}

fn listen(config: &MonitorConfig) -> Result<OwnedFd, Failure> {
    let bind = || -> std::io::Result<OwnedFd> {
        match std::fs::remove_file(&config.socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (address, _directory) = socket_path::address(&config.socket)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 16)?;
        Ok(socket)
    };
    bind().map_err(|error| {
        failure(FailureKind::Other, format!("listen on {}: {error}", config.socket.display()))
    })
}

/// Makes the streams and the container.
fn make<B: Backend>(config: &MonitorConfig, backend: &mut B) -> Result<(Log, Container), Failure> {
    let log = Log::open(&config.log)
        .map_err(|error| failure(FailureKind::Other, format!("open the container's log: {error}")))?;
    let wanted = Wanted {
        tty: config.tty().then_some(config.console_size.unwrap_or(ConsoleSize { rows: 0, cols: 0 })),
        stdin: config.open_stdin,
        stdout: true,
        stderr: true,
        stdin_once: config.stdin_once,
    };
    let (mut session, stdio) = Session::new(wanted).map_err(streams_failed)?;
    let Process { pid, pidfd, console } = backend.create(config, stdio)?;
    if let Some(console) = console {
        session.set_console(console).map_err(streams_failed)?;
    }
    let container =
        Container { phase: Phase::Created, pid, pidfd: Some(pidfd), session, started_at: None, exit: None };
    Ok((log, container))
}

fn streams_failed(errno: rustix::io::Errno) -> Failure {
    failure(FailureKind::Other, format!("make the process's streams: {errno}"))
}

/// Tells every connected engine.
fn tell(peers: &mut [Peer], event: &Event) {
    if let Ok(message) = serde_json::to_vec(event) {
        for peer in peers {
            peer.send(&message);
        }
    }
}
