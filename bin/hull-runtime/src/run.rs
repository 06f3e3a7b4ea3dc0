//! `create` and `run`.

use crate::args;
use crate::args::Global;
use crate::console::{self, Attached};
use crate::log::Log;
use anyhow::{Context, bail};
use hull_oci::cgroup::systemd::Manager;
use hull_oci::container::{Record, parse_config_leniently};
use hull_oci::{CreateRequest, Created, Rootfs, Stdio};
use oci_spec::runtime::{Capabilities, Spec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A bundle, read.
pub(crate) struct Bundle {
    pub(crate) directory: PathBuf,
    pub(crate) text: Vec<u8>,
    pub(crate) spec: Spec,
    pub(crate) manager: Option<Manager>,
}

impl Bundle {
    /// Reads and completes the configuration of container `id`; what it says that cannot be is warned of.
    pub(crate) fn read(
        global: &Global,
        log: &Log,
        id: &str,
        path: Option<&Path>,
        config: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let directory = path.unwrap_or(Path::new("."));
        let directory =
            directory.canonicalize().with_context(|| format!("open bundle {}", directory.display()))?;
        let config = config.map_or_else(|| directory.join("config.json"), Path::to_owned);
        let text = std::fs::read(&config).with_context(|| format!("read {}", config.display()))?;
        let (spec, warnings) = parse_config_leniently(&text)?;
        warnings.iter().for_each(|warning| log.warning(warning));
        warn_of_ambient(&spec, log);
        let mut bundle = Self { directory, text, spec, manager: global.manager()? };
        bundle.default_cgroup(global, id);
        Ok(bundle)
    }

    /// As crun and runc: a container without a cgroup path has one named after it, where the caller may make it.
    fn default_cgroup(&mut self, global: &Global, id: &str) {
        let Some(linux) = self.spec.linux_mut() else { return };
        if global.without_cgroups() {
            linux.set_cgroups_path(None);
        } else if linux.cgroups_path().as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
            let path = match (&self.manager, global.rootless()) {
                (Some(_), _) => format!(":hull:{id}"),
                (None, true) => return,
                (None, false) => format!("/{id}"),
            };
            linux.set_cgroups_path(Some(path.into()));
        }
    }

    fn terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
    }
}

/// A process may have other ambient capabilities than it asked for: only what is inheritable and permitted can be.
fn warn_of_ambient(spec: &Spec, log: &Log) {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some((sets, ambient)) = sets.and_then(|sets| Some((sets, sets.ambient().as_ref()?))) else { return };
    let has =
        |set: &Option<Capabilities>, capability| set.as_ref().is_some_and(|set| set.contains(capability));
    for capability in ambient {
        if !has(sets.inheritable(), capability) || !has(sets.permitted(), capability) {
            let why = "it is not both inheritable and permitted";
            log.warning(&format!("can't raise ambient capability CAP_{capability}: {why}"));
        }
    }
}

/// Makes the container's first process.
fn make(
    args: &args::Create,
    bundle: &Bundle,
    start_socket: Option<OwnedFd>,
    listen_fds: u32,
) -> anyhow::Result<Created> {
    let stdio = stdio(bundle.terminal(), args.console_socket.is_none());
    let request = CreateRequest {
        id: &args.id,
        spec: &bundle.spec,
        bundle: &bundle.directory,
        rootfs: Rootfs::Path,
        stdio,
        preserve_fds: args.preserve_fds + listen_fds,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        die_with_parent: false,
        start_socket,
        systemd: bundle.manager.as_ref(),
    };
    // The configuration is read.
    hull_sys::memory::let_go_of_code();
    Ok(hull_oci::create(request)?)
}

/// systemd's socket activation passes descriptors on, as runc does.
fn listen_fds(spec: &mut Spec) -> u32 {
    let Some(count) = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<u32>().ok()) else {
        return 0;
    };
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("LISTEN_FDS={count}"));
        env.push("LISTEN_PID=1".into());
        process.set_env(Some(env));
    }
    count
}

fn check_console(terminal: bool, detached: bool, socket: Option<&Path>) -> anyhow::Result<()> {
    match (terminal, detached, socket) {
        (true, true, None) => bail!("cannot allocate tty if runc will detach without setting console socket"),
        (false, _, Some(_)) => bail!("cannot use console socket if runc will not allocate tty"),
        (true, false, Some(_)) => bail!("cannot use console socket if runc will not detach"),
        _ => Ok(()),
    }
}

/// `create`: the first process waits on the start socket, this process ends.
pub(crate) fn create(global: &Global, log: &Log, args: &args::Create) -> anyhow::Result<u8> {
    let mut bundle = Bundle::read(global, log, &args.id, args.bundle.as_deref(), args.config.as_deref())?;
    check_console(bundle.terminal(), true, args.console_socket.as_deref())?;
    let listen_fds = listen_fds(&mut bundle.spec);
    let reservation = global.store().reserve(&args.id)?;
    let created = make(args, &bundle, Some(reservation.start_socket()?), listen_fds)?;
    let record = Record::new(&args.id, &bundle.spec, &bundle.directory, &created);
    let kept = record.map_err(anyhow::Error::from).and_then(|record| {
        hand_over_console(created.console.as_ref(), args.console_socket.as_deref())?;
        hand_over_pidfd(&created.pidfd, args.pidfd_socket.as_deref())?;
        let container = reservation.keep(record, &bundle.text)?;
        write_pid_file(args.pid_file.as_deref(), created.pid).inspect_err(|_| drop(container.delete(true)))
    });
    kept.inspect_err(|_| created.abandon()).map(|()| 0)
}

/// `run`: create, start, wait, delete.
pub(crate) fn run(global: &Global, log: &Log, args: &args::Run) -> anyhow::Result<u8> {
    let (directory, config) = (args.create.bundle.as_deref(), args.create.config.as_deref());
    let mut bundle = Bundle::read(global, log, &args.create.id, directory, config)?;
    check_console(bundle.terminal(), args.detach, args.create.console_socket.as_deref())?;
    let listen_fds = listen_fds(&mut bundle.spec);
    let reservation = global.store().reserve(&args.create.id)?;
    let signals = if args.detach { None } else { Some(console::forwarded_signals()?) };
    let mut created = make(&args.create, &bundle, None, listen_fds)?;
    let record = Record::new(&args.create.id, &bundle.spec, &bundle.directory, &created);
    let kept =
        record.map_err(anyhow::Error::from).and_then(|record| Ok(reservation.keep(record, &bundle.text)?));
    let container = kept.inspect_err(|_| created.abandon())?;
    let (pid, console) = (created.pid, created.console.take());
    let started = hand_over_console(console.as_ref(), args.create.console_socket.as_deref())
        .and_then(|()| hand_over_pidfd(&created.pidfd, args.create.pidfd_socket.as_deref()))
        .and_then(|()| write_pid_file(args.create.pid_file.as_deref(), pid))
        .and_then(|()| Ok(created.start()?));
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            console::reap(pid);
            container.delete(true).context(crate::log::text(&error))?;
            return Err(error);
        }
    };
    if let Err(error) = container.poststart(&bundle.spec) {
        console::reap(pid);
        container.delete(true).context(error.chain())?;
        return Err(error.into());
    }
    let Some(signals) = signals else { return Ok(0) };
    let attached =
        Attached { pid, pidfd: running.pidfd.as_fd(), console: console.as_ref(), signals: &signals };
    let status = attached.wait()?;
    if !args.keep {
        report(container.delete_ended(&bundle.spec, running.cgroup.as_ref())?);
    }
    Ok(status)
}

/// A terminal whose master stays here leaves line feeds alone: ours, or nothing, makes newlines of them.
pub(crate) fn stdio(terminal: bool, foreground: bool) -> Stdio {
    if terminal { Stdio::Terminal { rows: 0, cols: 0, line_feeds: foreground } } else { Stdio::Inherit }
}

/// Failures that do not end a container.
pub(crate) fn report(errors: Vec<hull_oci::Error>) {
    for error in errors {
        crate::log::warn(&error.chain());
    }
}

pub(crate) fn hand_over_console(master: Option<&OwnedFd>, socket: Option<&Path>) -> anyhow::Result<()> {
    let (Some(master), Some(path)) = (master, socket) else { return Ok(()) };
    let stream = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("connect to console socket {}", path.display()))?;
    hull_sys::socket::send_fds(&stream, b"/dev/ptmx", &[master.as_fd()]).context("send the terminal")?;
    Ok(())
}

/// Hands a pidfd to who asked for one.
pub(crate) fn hand_over_pidfd(pidfd: &OwnedFd, socket: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = socket else { return Ok(()) };
    let stream = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("connect to pidfd socket {}", path.display()))?;
    hull_sys::socket::send_fds(&stream, b"pidfd", &[pidfd.as_fd()]).context("send the pidfd")?;
    Ok(())
}

/// Complete or not there at all: whoever waits for the file reads it at once.
pub(crate) fn write_pid_file(path: Option<&Path>, pid: i32) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let name = path.file_name().with_context(|| format!("{} is not a file name", path.display()))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&temporary, pid.to_string()).with_context(|| format!("write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("write {}", path.display()))
}
