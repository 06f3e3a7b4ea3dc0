//! `create` and `run`.

use crate::args;
use crate::console::{self, Attached};
use anyhow::{Context, bail};
use hull_oci::container::{Record, Store, parse_config};
use hull_oci::{CreateRequest, Created, Rootfs, Stdio};
use oci_spec::runtime::Spec;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A bundle, read.
struct Bundle {
    directory: PathBuf,
    text: Vec<u8>,
    spec: Spec,
}

impl Bundle {
    fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let directory = path.unwrap_or(Path::new("."));
        let directory =
            directory.canonicalize().with_context(|| format!("open bundle {}", directory.display()))?;
        let config = directory.join("config.json");
        let text = std::fs::read(&config).with_context(|| format!("read {}", config.display()))?;
        let spec = parse_config(&text)?;
        Ok(Self { directory, text, spec })
    }

    /// As crun: a container without a cgroup path has one named after it.
    fn default_cgroup(&mut self, id: &str) {
        if let Some(linux) = self.spec.linux_mut().as_mut().filter(|linux| linux.cgroups_path().is_none()) {
            linux.set_cgroups_path(Some(format!("/{id}").into()));
        }
    }

    fn terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
    }
}

/// Makes the container's first process.
fn make(
    args: &args::Create,
    bundle: &Bundle,
    start_socket: Option<OwnedFd>,
    listen_fds: u32,
) -> anyhow::Result<Created> {
    let stdio = if bundle.terminal() { Stdio::Terminal { rows: 0, cols: 0 } } else { Stdio::Inherit };
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
        systemd: None,
    };
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
pub(crate) fn create(store: &Store, args: &args::Create) -> anyhow::Result<u8> {
    let mut bundle = Bundle::read(args.bundle.as_deref())?;
    check_console(bundle.terminal(), true, args.console_socket.as_deref())?;
    bundle.default_cgroup(&args.id);
    let listen_fds = listen_fds(&mut bundle.spec);
    let reservation = store.reserve(&args.id)?;
    let created = make(args, &bundle, Some(reservation.start_socket()?), listen_fds)?;
    let record = Record::new(&args.id, &bundle.spec, &bundle.directory, &created);
    let kept = record.map_err(anyhow::Error::from).and_then(|record| {
        hand_over_console(created.console.as_ref(), args.console_socket.as_deref())?;
        let container = reservation.keep(record, &bundle.text)?;
        write_pid_file(args.pid_file.as_deref(), created.pid).inspect_err(|_| drop(container.delete(true)))
    });
    kept.inspect_err(|_| abandon(&created)).map(|()| 0)
}

/// `run`: create, start, wait, delete.
pub(crate) fn run(store: &Store, args: &args::Run) -> anyhow::Result<u8> {
    let mut bundle = Bundle::read(args.create.bundle.as_deref())?;
    check_console(bundle.terminal(), args.detach, args.create.console_socket.as_deref())?;
    bundle.default_cgroup(&args.create.id);
    let listen_fds = listen_fds(&mut bundle.spec);
    let reservation = store.reserve(&args.create.id)?;
    let signals = if args.detach { None } else { Some(console::forwarded_signals()?) };
    let mut created = make(&args.create, &bundle, None, listen_fds)?;
    let record = Record::new(&args.create.id, &bundle.spec, &bundle.directory, &created);
    let kept =
        record.map_err(anyhow::Error::from).and_then(|record| Ok(reservation.keep(record, &bundle.text)?));
    let container = kept.inspect_err(|_| abandon(&created))?;
    let (pid, console) = (created.pid, created.console.take());
    let started = hand_over_console(console.as_ref(), args.create.console_socket.as_deref())
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
    report(container.poststart(&bundle.spec));
    let Some(signals) = signals else { return Ok(0) };
    let attached =
        Attached { pid, pidfd: running.pidfd.as_fd(), console: console.as_ref(), signals: &signals };
    let status = attached.wait()?;
    if !args.keep {
        report(container.delete_ended(&bundle.spec, running.cgroup.as_ref())?);
    }
    Ok(status)
}

/// Ends a container that could not be recorded.
fn abandon(created: &Created) {
    let _ = hull_sys::signal::pidfd_send_signal(created.pidfd.as_fd(), 9);
    console::reap(created.pid);
    if let Some(cgroup) = &created.cgroup {
        let _ = cgroup.remove();
    }
}

/// Failures that do not end a container.
pub(crate) fn report(errors: Vec<hull_oci::Error>) {
    for error in errors {
        eprintln!("hull-runtime: {}", error.chain());
    }
}

pub(crate) fn hand_over_console(master: Option<&OwnedFd>, socket: Option<&Path>) -> anyhow::Result<()> {
    let (Some(master), Some(path)) = (master, socket) else { return Ok(()) };
    let stream = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("connect to console socket {}", path.display()))?;
    hull_sys::socket::send_fds(&stream, b"/dev/ptmx", &[master.as_fd()]).context("send the terminal")?;
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
