//! Who runs processes: Hull's own runtime in this process, another runtime by its command line, or a test.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hull_oci::{CreateRequest, ErrorKind, ExecRequest, Stdio};

use crate::config::{MonitorConfig, Rootfs};
use crate::protocol::{Exec, Failure, FailureKind};

/// A process that is a child of the monitor.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Master of its terminal.
    pub(crate) console: Option<OwnedFd>,
}

/// Creates and runs the processes of one container. Called in the order of the methods; `exec` any number of times.
pub(crate) trait Backend {
    /// Creates the container; its first process waits.
    fn create(&mut self, config: &MonitorConfig, stdio: Stdio) -> Result<Process, Failure>;
    /// Lets the first process execute its command. On failure it has ended and is reaped.
    fn start(&mut self) -> Result<(), Failure>;
    /// Runs a further process.
    fn exec(&mut self, exec: &Exec, stdio: Stdio) -> Result<Process, Failure>;
    /// How many processes of the container the kernel killed for lack of memory.
    fn oom_kills(&self) -> u64;
    /// The first process has ended: ends processes that share the host's or another container's pid namespace, which
    /// the kernel does not end by itself.
    fn end_others(&mut self);
    /// Removes what is left of the container after its end.
    fn remove(&mut self);
}

/// A failure without a more special kind.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// Hull's own runtime.
#[derive(Debug)]
pub(crate) struct InProcess {
    /// `monitor.json`: execs need the configuration again, and meanwhile it would only take memory.
    config_path: PathBuf,
    /// The root file system, if it was sent.
    root: Option<OwnedFd>,
    /// The kernel does not end the container's other processes with the first.
    shares_pids: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    New,
    Created(hull_oci::Created),
    Running(hull_oci::Running),
    Failed(Option<hull_oci::cgroup::Cgroup>),
}

impl InProcess {
    pub(crate) fn new(config_path: PathBuf, root: Option<OwnedFd>) -> Self {
        Self { config_path, root, shares_pids: false, state: State::New }
    }

    fn cgroup(&self) -> Option<&hull_oci::cgroup::Cgroup> {
        match &self.state {
            State::New => None,
            State::Created(created) => created.cgroup.as_ref(),
            State::Running(running) => running.cgroup.as_ref(),
            State::Failed(cgroup) => cgroup.as_ref(),
        }
    }
}

impl Backend for InProcess {
    fn create(&mut self, config: &MonitorConfig, stdio: Stdio) -> Result<Process, Failure> {
        let rootfs = match config.rootfs {
            Rootfs::Path => hull_oci::Rootfs::Path,
            Rootfs::Sent => hull_oci::Rootfs::Mount(self.root.take().ok_or_else(no_root)?),
        };
        let request = CreateRequest {
            id: &config.id,
            spec: &config.spec,
            bundle: &config.bundle,
            rootfs,
            stdio,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            die_with_parent: true,
            start_socket: None,
            systemd: None,
        };
        self.shares_pids = !has_own_pids(&config.spec);
        let mut created = hull_oci::create(request).map_err(of_runtime)?;
        let pidfd = duplicate(&created.pidfd)?;
        let process = Process { pid: created.pid, pidfd, console: created.console.take() };
        self.state = State::Created(created);
        Ok(process)
    }

    fn start(&mut self) -> Result<(), Failure> {
        let State::Created(created) = std::mem::replace(&mut self.state, State::New) else {
            return Err(failure(FailureKind::Conflict, "container is already started"));
        };
        let (pid, cgroup) = (created.pid, created.cgroup.clone());
        match created.start() {
            Ok(running) => {
                self.state = State::Running(running);
                Ok(())
            }
            Err(error) => {
                self.state = State::Failed(cgroup);
                reap(pid);
                Err(of_runtime(error))
            }
        }
    }

    fn exec(&mut self, exec: &Exec, stdio: Stdio) -> Result<Process, Failure> {
        let State::Running(running) = &self.state else {
            return Err(failure(FailureKind::Conflict, "container is not running"));
        };
        let config = MonitorConfig::read(&self.config_path)
            .map_err(|error| failure(FailureKind::Other, chain(&error)))?;
        let request = ExecRequest {
            id: &config.id,
            spec: &config.spec,
            bundle: &config.bundle,
            process: &exec.process,
            init_pid: running.pid,
            init: rustix::fd::AsFd::as_fd(&running.pidfd),
            cgroup: running.cgroup.as_ref(),
            stdio,
            preserve_fds: 0,
            die_with_parent: true,
        };
        let execed = hull_oci::exec(request).map_err(of_runtime)?;
        Ok(Process { pid: execed.pid, pidfd: execed.pidfd, console: execed.console })
    }

    fn oom_kills(&self) -> u64 {
        self.cgroup().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0)
    }

    fn end_others(&mut self) {
        if self.shares_pids
            && let Some(cgroup) = self.cgroup()
        {
            let _ = cgroup.kill();
        }
    }

    fn remove(&mut self) {
        // What cannot be removed now is found by its name when the engine reconciles.
        if let Some(cgroup) = self.cgroup() {
            let _ = cgroup.remove();
        }
    }
}

/// A sent root file system never came.
pub(crate) fn no_root() -> Failure {
    failure(FailureKind::Other, "the engine sent no root file system")
}

fn has_own_pids(spec: &oci_spec::runtime::Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| {
        namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Pid && namespace.path().is_none()
    })
}

fn of_runtime(error: hull_oci::Error) -> Failure {
    let kind = match error {
        hull_oci::Error::NotImplemented(_) => FailureKind::NotImplemented,
        _ => match error.kind() {
            ErrorKind::CommandNotFound => FailureKind::CommandNotFound,
            ErrorKind::NotExecutable => FailureKind::NotExecutable,
            ErrorKind::InvalidSpec => FailureKind::InvalidSpec,
            ErrorKind::State => FailureKind::Conflict,
            ErrorKind::Other => FailureKind::Other,
        },
    };
    failure(kind, error.chain())
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().map_err(|error| failure(FailureKind::Other, format!("duplicate a descriptor: {error}")))
}

/// Collects a child that has ended or is about to; one that is collected already is no error.
fn reap(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// An error's text with those of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
