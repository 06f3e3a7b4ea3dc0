//! Sockets to accept clients on: unix, tcp, and those systemd hands over.

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hull_rest::Listener;

/// Groups that may use the socket, if they exist.
const GROUPS: [&str; 2] = ["docker", "hull"];

/// Listeners and the socket files that are removed at the end.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) files: Vec<PathBuf>,
}

/// Opens the listeners of `hosts`. Call it inside the runtime.
pub(crate) fn open(hosts: &[String], group: Option<&str>) -> Result<Listening> {
    let mut listening = Listening { listeners: Vec::new(), files: Vec::new() };
    for host in hosts {
        match host.split_once("://") {
            Some(("unix", path)) => {
                listening.listeners.push(unix(Path::new(path), group)?);
                listening.files.push(path.into());
            }
            Some(("fd", _)) => listening.listeners.extend(inherited()?),
            Some(("tcp", address)) => listening.listeners.push(tcp(address)?),
            _ => bail!("invalid bind address ({host}): should be unix://path, tcp://127.0.0.1:port or fd://"),
        }
    }
    Ok(listening)
}

fn unix(path: &Path, group: Option<&str>) -> Result<Listener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    // The lock of the data root is held: a socket that is still there is a dead engine's, unless somebody answers.
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another process listens on {}", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => {
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
            if !is_socket {
                bail!("{} exists and is not a socket", path.display());
            }
            std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    // Nobody can connect between bind and chmod: the socket is made with the umask's mode.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = std::os::unix::net::UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.with_context(|| format!("listen on {}", path.display()))?;
    if let Some(gid) = group_id(group)? {
        chown(path, None, Some(gid)).with_context(|| format!("set group of {}", path.display()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("set mode of {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener)?))
}

/// The group by name or number; a group nobody asked for may be missing.
fn group_id(wanted: Option<&str>) -> Result<Option<u32>> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let find = |name: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
        })
    };
    match wanted {
        Some("") => Ok(None),
        Some(name) => match name.parse().ok().or_else(|| find(name)) {
            Some(gid) => Ok(Some(gid)),
            None => bail!("group {name} not found"),
        },
        None => Ok(GROUPS.iter().find_map(|name| find(name))),
    }
}

/// A plain tcp socket gives root to everybody who reaches it, so only loopback is allowed, and said aloud.
fn tcp(address: &str) -> Result<Listener> {
    let address: SocketAddr = address
        .replace("localhost", "127.0.0.1")
        .parse()
        .with_context(|| format!("invalid bind address (tcp://{address})"))?;
    if !address.ip().is_loopback() {
        bail!(
            "tcp://{address} needs --tlsverify, which is not implemented; use a unix socket or a loopback address"
        );
    }
    tracing::warn!(%address, "anybody on this machine who reaches this address controls the engine");
    let listener =
        std::net::TcpListener::bind(address).with_context(|| format!("listen on tcp://{address}"))?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(tokio::net::TcpListener::from_std(listener)?))
}

/// The sockets of systemd's socket activation, sd_listen_fds(3).
fn inherited() -> Result<Vec<Listener>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let count = match number("LISTEN_FDS") {
        Some(count) if number("LISTEN_PID") == i32::try_from(std::process::id()).ok() => count,
        _ => bail!("no sockets found via socket activation: make sure the service was started by systemd"),
    };
    (3..3 + count).map(adopt).collect()
}

fn adopt(number: i32) -> Result<Listener> {
    // Opened anew through /proc where possible is not an option for sockets; the descriptor itself is duplicated.
    let fd = duplicate(number).with_context(|| format!("take socket {number} of systemd"))?;
    match rustix::net::getsockname(&fd).context("name of inherited socket")?.address_family() {
        rustix::net::AddressFamily::UNIX => {
            let listener = std::os::unix::net::UnixListener::from(fd);
            listener.set_nonblocking(true)?;
            Ok(Listener::Unix(tokio::net::UnixListener::from_std(listener)?))
        }
        _ => bail!(
            "inherited socket {number} is not a unix socket; tcp sockets need TLS, which is not implemented"
        ),
    }
}

fn duplicate(number: i32) -> Result<OwnedFd> {
    let this = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .context("open own process")?;
    Ok(rustix::process::pidfd_getfd(&this, number, rustix::process::PidfdGetfdFlags::empty())?)
}

/// Whether the process is gone, or goes now: one that was killed takes a moment to let go of everything.
fn has_ended(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return true };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let patience = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    matches!(rustix::event::poll(&mut ended, Some(&patience)), Ok(1..))
}

/// Writes the process id, refusing to replace the file of a process that lives.
pub(crate) fn write_pidfile(path: &Path) -> Result<()> {
    let written = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(pid) = written.filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        && !has_ended(pid)
    {
        bail!("process with PID {pid} is still running (pidfile {})", path.display());
    }
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    std::io::Write::write_all(&mut file, std::process::id().to_string().as_bytes())?;
    Ok(())
}
