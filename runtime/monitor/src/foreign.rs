//! Another OCI runtime (runc, crun, runsc, …) driven by its command line.
//!
//! The monitor becomes the reaper of what the runtime leaves behind, so that the container's first process is its
//! child as with Hull's own runtime. A root file system that was sent is attached in a mount namespace of the monitor's own and goes
//! away with the last process in it. A foreign runtime's container does not die with the monitor; an engine finds it
//! by its cgroup.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use hull_oci::Stdio;
use hull_oci::cgroup::{Cgroup, Cgroups};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, PidfdFlags};

use crate::backend::{Backend, Process, chain, failure, no_root};
use crate::config::{MonitorConfig, Rootfs};
use crate::protocol::{Exec, Failure, FailureKind};

/// A runtime with runc's command line.
#[derive(Debug)]
pub(crate) struct Foreign {
    runtime: PathBuf,
    /// The root file system, if it was sent.
    root: Option<OwnedFd>,
    id: String,
    bundle: PathBuf,
    cgroup: Option<Cgroup>,
    /// Numbers files of execs.
    execs: u64,
}

impl Foreign {
    pub(crate) fn new(runtime: PathBuf, root: Option<OwnedFd>) -> Self {
        Self { runtime, root, id: String::new(), bundle: PathBuf::new(), cgroup: None, execs: 0 }
    }

    /// Runs the runtime; its own words when it fails.
    fn call(&self, arguments: &[&OsStr], streams: Option<[OwnedFd; 3]>) -> Result<(), Failure> {
        let log = self.bundle.join("runtime.log");
        let _ = std::fs::remove_file(&log);
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.bundle.join("runtime")).arg("--log").arg(&log);
        command.args(["--log-format", "json"]).args(arguments);
        match streams {
            Some([stdin, stdout, stderr]) => command.stdin(stdin).stdout(stdout).stderr(stderr),
            None => {
                let null = process::Stdio::null;
                command.stdin(null()).stdout(null()).stderr(null())
            }
        };
        let failed = |reason: String| {
            let reason = last_words(&log).unwrap_or(reason);
            failure(kind_of(&reason), reason)
        };
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("{} {status}", self.runtime.display()))),
            Err(error) => Err(failed(format!("execute {}: {error}", self.runtime.display()))),
        }
    }

    /// `create` or `exec`: the process with its streams, or with a terminal the runtime hands over.
    fn run(&self, verb: &[&OsStr], name: &str, stdio: Stdio) -> Result<Process, Failure> {
        let pid_file = self.bundle.join(format!("{name}.pid"));
        let mut arguments = verb.to_vec();
        arguments.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        let console = match stdio {
            Stdio::Terminal { .. } => {
                Some(Console::listen(&self.bundle, name).map_err(other("make a console socket"))?)
            }
            _ => None,
        };
        if let Some(console) = &console {
            arguments.extend([OsStr::new("--console-socket"), console.path.as_os_str()]);
        }
        arguments.push(OsStr::new(&self.id));
        let streams = match stdio {
            Stdio::Fds { stdin, stdout, stderr } => Some([stdin, stdout, stderr]),
            _ => None,
        };
        self.call(&arguments, streams)?;
        let text = std::fs::read_to_string(&pid_file).map_err(other("read the runtime's pid file"))?;
        let _ = std::fs::remove_file(&pid_file);
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid =
            pid.ok_or_else(|| failure(FailureKind::Other, format!("no pid from the runtime: {text:?}")))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| other("open the container's process")(errno.into()))?;
        let console = console.map(Console::receive).transpose().map_err(other("receive the terminal"))?;
        Ok(Process { pid: pid.as_raw_nonzero().get(), pidfd, console })
    }

    /// Mounts the root and writes the bundle's `config.json`.
    fn prepare(&mut self, config: &MonitorConfig) -> Result<(), Failure> {
        let mut spec = config.spec.clone();
        let mount = match config.rootfs {
            Rootfs::Path => None,
            Rootfs::Sent => Some(self.root.take().ok_or_else(no_root)?),
        };
        if let Some(mount) = mount {
            let root = self.bundle.join("rootfs");
            attach(mount, &root)?;
            let readonly = spec.root().as_ref().and_then(|root| root.readonly());
            let mut in_bundle = oci_spec::runtime::Root::default();
            in_bundle.set_path(root).set_readonly(readonly);
            spec.set_root(Some(in_bundle));
        }
        let text = serde_json::to_vec(&spec).map_err(|error| other("encode config.json")(error.into()))?;
        std::fs::write(self.bundle.join("config.json"), text).map_err(other("write config.json"))
    }
}

impl Backend for Foreign {
    fn create(&mut self, config: &MonitorConfig, stdio: Stdio) -> Result<Process, Failure> {
        self.id.clone_from(&config.id);
        self.bundle.clone_from(&config.bundle);
        hull_sys::prctl::set_child_subreaper(true)
            .map_err(|errno| other("become the runtime's reaper")(errno.into()))?;
        self.prepare(config)?;
        let path = config.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        self.cgroup = match (path.and_then(Path::to_str), Cgroups::detect()) {
            (Some(path), Ok(cgroups)) => Some(cgroups.open(path)),
            _ => None,
        };
        let bundle = self.bundle.clone();
        self.run(&[OsStr::new("create"), OsStr::new("--bundle"), bundle.as_os_str()], "init", stdio)
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.call(&[OsStr::new("start"), OsStr::new(&self.id)], None)
    }

    fn exec(&mut self, exec: &Exec, stdio: Stdio) -> Result<Process, Failure> {
        self.execs += 1;
        let name = format!("exec-{}", self.execs);
        let file = self.bundle.join(format!("{name}.json"));
        let text =
            serde_json::to_vec(&exec.process).map_err(|error| other("encode the process")(error.into()))?;
        std::fs::write(&file, text).map_err(other("write the process"))?;
        let verb = [OsStr::new("exec"), OsStr::new("--detach"), OsStr::new("--process"), file.as_os_str()];
        let result = self.run(&verb, &name, stdio);
        let _ = std::fs::remove_file(&file);
        result
    }

    fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0)
    }

    /// The runtime's `delete` does it.
    fn end_others(&mut self) {}

    fn remove(&mut self) {
        // What cannot be removed is found by the engine when it reconciles.
        let _ = self.call(&[OsStr::new("delete"), OsStr::new("--force"), OsStr::new(&self.id)], None);
    }
}

/// A socket on which a runtime hands over the master of a terminal.
struct Console {
    listener: UnixListener,
    path: PathBuf,
    file: PathBuf,
    /// Keeps `path` short: it leads through this descriptor.
    _directory: File,
}

impl Console {
    fn listen(bundle: &Path, name: &str) -> std::io::Result<Self> {
        let directory = File::open(bundle)?;
        let file = bundle.join(format!("{name}.sock"));
        let _ = std::fs::remove_file(&file);
        let path = PathBuf::from(format!("/proc/{}/fd/{}/{name}.sock", process::id(), directory.as_raw_fd()));
        Ok(Self { listener: UnixListener::bind(&path)?, path, file, _directory: directory })
    }

    fn receive(self) -> std::io::Result<OwnedFd> {
        let _ = std::fs::remove_file(&self.file);
        let (stream, _) = self.listener.accept()?;
        let mut name = [0; 4096];
        let received = hull_sys::socket::recv_fds(&stream, &mut name)?;
        received.fds.into_iter().next().ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// Attaches the root file system in a mount namespace of this process's own.
fn attach(mount: OwnedFd, root: &Path) -> Result<(), Failure> {
    let step = |errno: rustix::io::Errno| other("make a mount namespace")(errno.into());
    hull_sys::ns::unshare(hull_sys::CloneFlags::NEWNS).map_err(step)?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(step)?;
    std::fs::create_dir_all(root).map_err(other("make the root's mount point"))?;
    let target = File::open(root).map_err(other("open the root's mount point"))?;
    hull_mount::attach(mount, target).map_err(|error| failure(FailureKind::Other, chain(&error)))
}

fn other(step: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| failure(FailureKind::Other, format!("{step}: {error}"))
}

/// The last message of a runtime's JSON log.
fn last_words(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| line.contains("\"error\""))?;
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(value.get("msg")?.as_str()?.to_owned())
}

/// All runtimes use the words of execve's errors.
fn kind_of(message: &str) -> FailureKind {
    let lower = message.to_lowercase();
    if lower.contains("executable file not found") || lower.contains("no such file or directory") {
        FailureKind::CommandNotFound
    } else if lower.contains("permission denied") || lower.contains("is a directory") {
        FailureKind::NotExecutable
    } else {
        FailureKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_runtimes_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_words(&log), None);
        let lines = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": executable file \
            not found in $PATH\"}\n";
        std::fs::write(&log, lines).unwrap();
        let words = last_words(&log).unwrap();
        assert_eq!(kind_of(&words), FailureKind::CommandNotFound, "{words}");
        assert_eq!(kind_of("open executable: Permission denied"), FailureKind::NotExecutable);
        assert_eq!(kind_of("cgroup"), FailureKind::Other);
    }
}
