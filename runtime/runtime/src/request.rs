//! What the caller asks for and gets.

use crate::resctrl::Made;
use crate::scope::Scope;
use hull_cgroup::Cgroup;
use hull_cgroup::systemd::Manager;
use oci_spec::runtime::{Process, Spec};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// A container to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id, as hooks see it.
    pub id: &'a str,
    /// The configuration.
    pub spec: &'a Spec,
    /// Directory that relative paths of the configuration start from.
    pub bundle: &'a Path,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// The process's streams.
    pub stdio: Stdio,
    /// Descriptors 3 to 2 + this many stay open in the container.
    pub preserve_fds: u32,
    /// Use `MS_MOVE` and chroot instead of `pivot_root` (for a root on an initramfs).
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Kill the container's first process when the caller ends.
    pub die_with_parent: bool,
    /// A listening unix stream socket the first process waits on instead of on [`Created::start`]: then any process
    /// can start it (`hull-runtime start`), and [`Created`] may be dropped.
    pub start_socket: Option<OwnedFd>,
    /// The service manager that makes the cgroup, which `linux.cgroupsPath` then names as `slice:prefix:name`.
    pub systemd: Option<&'a Manager>,
}

/// The root file system of a container.
#[derive(Debug)]
pub enum Rootfs {
    /// `root.path` of the configuration, relative to the bundle.
    Path,
    /// A detached mount (`fsmount(2)`, `open_tree(2)` with `OPEN_TREE_CLONE`), attached in the container's mount
    /// namespace only.
    Mount(OwnedFd),
}

/// Standard streams of a container's process.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's own devpts; its master is returned as `console`.
    Terminal {
        /// Height in characters; 0 with `cols` 0: not set.
        rows: u16,
        /// Width in characters.
        cols: u16,
        /// Leave line feeds as they are written, instead of making them carriage return and line feed: for a caller that
        /// copies to a terminal of its own, or to a file.
        line_feeds: bool,
    },
}

/// A created container: its first process waits just before `execve`. Dropping this without [`Created::start`] ends
/// the process (unless it waits on a [`CreateRequest::start_socket`]); the caller reaps it and removes the cgroup.
#[derive(Debug)]
pub struct Created {
    /// First process, in the caller's pid namespace.
    pub pid: i32,
    /// The same, race free.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when one was asked for.
    pub console: Option<OwnedFd>,
    /// The container's cgroup; `None` when the configuration has no `cgroupsPath`.
    pub cgroup: Option<Cgroup>,
    /// The service manager's unit that it is in.
    pub scope: Option<Scope>,
    /// Directories of resctrl made for the container.
    pub resctrl: Made,
    pub(crate) go: Option<OwnedFd>,
}

/// A started container.
#[derive(Debug)]
pub struct Running {
    /// First process, in the caller's pid namespace.
    pub pid: i32,
    /// The same, race free.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when one was asked for.
    pub console: Option<OwnedFd>,
    /// The container's cgroup.
    pub cgroup: Option<Cgroup>,
}

/// A process to run in a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's configuration: its namespaces, seccomp policy.
    pub spec: &'a Spec,
    /// Directory that relative paths of the configuration start from.
    pub bundle: &'a Path,
    /// The process, complete: nothing is taken from the container's own process but what `spec.linux` says.
    pub process: &'a Process,
    /// The container's first process.
    pub init_pid: i32,
    /// The same, race free.
    pub init: BorrowedFd<'a>,
    /// The container's cgroup, which the process joins.
    pub cgroup: Option<&'a Cgroup>,
    /// The process's streams.
    pub stdio: Stdio,
    /// Descriptors 3 to 2 + this many stay open in the process.
    pub preserve_fds: u32,
    /// Kill the process when the caller ends.
    pub die_with_parent: bool,
}

/// A process running in a container, a child of the caller.
#[derive(Debug)]
pub struct Execed {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// The same, race free.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when one was asked for.
    pub console: Option<OwnedFd>,
}
