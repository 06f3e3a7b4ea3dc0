//! A further process in a running container.

use crate::Error;
use crate::create::{kill_and_reap, reap, streams};
use crate::error::StepExt;
use crate::hooks::HookState;
use crate::init::{Streams, join_keyring, write_tasks};
use crate::plan::namespaces;
use crate::process::{ProcessPlan, open_terminal, use_terminal};
use crate::request::{ExecRequest, Execed};
use crate::sync::{self, Tag};
use hull_fsroot::Root;
use hull_sys::{CloneArgs, CloneFlags, Forked, clone3, prctl};
use rustix::fs::{Mode, OFlags};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIGKILL: i32 = 9;
const RESET_SIGNALS: [i32; 5] = [1, 2, 3, 13, 17];

/// Runs a process in a running container and returns once it executes its command. The caller must have one thread; the process is
/// its child.
pub fn exec(request: ExecRequest<'_>) -> Result<Execed, Error> {
    let linux = request.spec.linux().as_ref().ok_or_else(|| Error::spec("linux", "is required"))?;
    let plan = ProcessPlan::new(request.process, Some(linux))?;
    let agent = crate::agent::Wanted::new(linux, plan.notifies())?.connect()?;
    let kinds = namespaces(linux)?.all();
    if rustix::process::geteuid().is_root() {
        prctl::set_dumpable(false).step(|| "forbid tracing".into())?;
    }
    let (ours, theirs) = sync::pair()?;
    let clone_into = request.cgroup.map(|cgroup| cgroup.clone_into_beside(request.init_pid));
    let clone_into = clone_into.transpose()?.flatten();
    let tasks = match (&request.cgroup, &clone_into) {
        (Some(cgroup), None) => cgroup.join_fds()?,
        _ => Vec::new(),
    };
    let affinity = plan.affinity.begin()?;
    let entrant = Entrant {
        plan,
        kinds,
        init: request.init,
        init_pid: request.init_pid,
        id: request.id,
        tasks,
        streams: streams(request.stdio),
        preserve_fds: request.preserve_fds,
        die_with_parent: request.die_with_parent,
        sync: theirs,
    };
    let clone_into = clone_into.as_ref().map(AsFd::as_fd);
    let forked = if entrant.needs_stage() {
        fork_from_inside(&entrant, clone_into)?
    } else {
        fork_into(request.init, kinds, clone_into)?
    };
    match forked {
        Forked::Child => {
            let _ = hull_sys::fd::close_copy(&ours, &entrant.sync);
            entrant.run()
        }
        Forked::Parent { pid, pidfd } => {
            drop(affinity);
            let stage = entrant.needs_stage();
            drop(entrant);
            let (pid, pidfd) = if stage { await_stage(&ours, &pidfd)? } else { (pid, pidfd) };
            let introduce = |number: &[u8]| {
                let Some(agent) = &agent else { return Ok(()) };
                let (number, init) = (crate::agent::offered(number)?, request.init_pid);
                let state = HookState::new(request.spec, request.id, request.bundle, "running", init);
                agent.introduce(request.spec, (pid, &pidfd), number, &state)
            };
            match await_execve(&ours, introduce) {
                Ok(console) => Ok(Execed { pid, pidfd, console }),
                Err(error) => {
                    kill_and_reap(&pidfd);
                    Err(error)
                }
            }
        }
    }
}

/// Children enter a pid namespace, not the caller: it is set for the fork and set back after.
fn fork_into(
    init: BorrowedFd<'_>,
    kinds: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Forked, Error> {
    let args = CloneArgs { flags: CloneFlags::empty(), cgroup };
    let fork = || clone3(args).step(|| "make the process".into());
    if !kinds.contains(CloneFlags::NEWPID) {
        return fork();
    }
    let own = rustix::fs::open(c"/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the own pid namespace".into())?;
    hull_sys::ns::setns(init, CloneFlags::NEWPID).step(|| "enter the container's pid namespace".into())?;
    let forked = fork();
    if matches!(forked, Ok(Forked::Child)) {
        return forked;
    }
    let back = hull_sys::ns::setns(own.as_fd(), CloneFlags::NEWPID);
    match (forked, back) {
        (Ok(Forked::Parent { pidfd, .. }), Err(source)) => {
            kill_and_reap(&pidfd);
            Err(Error::Step { step: "return to the own pid namespace".into(), source })
        }
        (forked, _) => forked,
    }
}

/// An ordinary user may enter the container's namespaces only from its user namespace, which the caller must not enter: a
/// stage between does, whose child is the caller's by `CLONE_PARENT`.
fn fork_from_inside(entrant: &Entrant<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, Error> {
    let forked =
        clone3(CloneArgs { flags: CloneFlags::empty(), cgroup }).step(|| "make the process".into())?;
    if matches!(forked, Forked::Parent { .. }) {
        return Ok(forked);
    }
    let steps = || {
        hull_sys::ns::setns(entrant.init, entrant.entered_first())
            .step(|| "enter the container's user namespace".into())?;
        clone3(CloneArgs { flags: CloneFlags::PARENT, cgroup: None }).step(|| "make the process".into())
    };
    match steps() {
        Ok(Forked::Child) => Ok(Forked::Child),
        Ok(Forked::Parent { pid, pidfd }) => {
            let sent = sync::send(&entrant.sync, Tag::Pid, &pid.to_ne_bytes(), &[pidfd.as_fd()]);
            hull_sys::process::exit_now(sent.is_err().into())
        }
        Err(error) => {
            sync::send_failure(&entrant.sync, &error);
            hull_sys::process::exit_now(1)
        }
    }
}

/// The process that the stage made.
fn await_stage(socket: &OwnedFd, stage: &OwnedFd) -> Result<(i32, OwnedFd), Error> {
    let message = sync::expect(socket, Tag::Pid, "entering namespaces");
    reap(stage);
    let mut message = message?;
    match (message.data.as_slice().try_into().map(i32::from_ne_bytes), message.fds.pop()) {
        (Ok(pid), Some(pidfd)) => Ok((pid, pidfd)),
        _ => Err(Error::Vanished("entering namespaces")),
    }
}

/// The socket is close-on-exec: its end is the success of execve.
fn await_execve(
    socket: &OwnedFd,
    introduce: impl Fn(&[u8]) -> Result<(), Error>,
) -> Result<Option<OwnedFd>, Error> {
    let mut console = None;
    while let Some(mut message) = sync::receive(socket)? {
        match message.tag {
            Tag::Terminal => console = message.fds.pop(),
            Tag::Listener => {
                introduce(&message.data)?;
                sync::send(socket, Tag::Introduced, &[], &[])?;
            }
            _ => {}
        }
    }
    Ok(console)
}

/// The new process until its execve.
struct Entrant<'a> {
    plan: ProcessPlan,
    kinds: CloneFlags,
    init: BorrowedFd<'a>,
    init_pid: i32,
    id: &'a str,
    tasks: Vec<OwnedFd>,
    streams: Streams,
    preserve_fds: u32,
    die_with_parent: bool,
    sync: OwnedFd,
}

impl Entrant<'_> {
    fn run(self) -> ! {
        let Err(error) = self.enter();
        sync::send_failure(&self.sync, &error);
        hull_sys::process::exit_now(error.kind().exit_code().into())
    }

    /// Whether another process must enter namespaces first.
    fn needs_stage(&self) -> bool {
        self.plan.rootless && self.kinds.contains(CloneFlags::NEWUSER)
    }

    /// The namespaces that process enters.
    fn entered_first(&self) -> CloneFlags {
        let pid = self.kinds.contains(CloneFlags::NEWPID);
        if pid { CloneFlags::NEWUSER | CloneFlags::NEWPID } else { CloneFlags::NEWUSER }
    }

    fn enter(&self) -> Result<Infallible, Error> {
        write_tasks(&self.tasks)?;
        self.plan.affinity.finish()?;
        rustix::process::setsid().step(|| "start a session".into())?;
        hull_sys::signal::set_default(&RESET_SIGNALS).step(|| "reset signals".into())?;
        hull_sys::signal::unblock_all().step(|| "unblock signals".into())?;
        join_keyring(self.id)?;
        self.plan.write_through_trusted_proc(true)?;
        if let Streams::Fds(streams) = &self.streams {
            for (number, stream) in streams.iter().enumerate() {
                hull_sys::fd::set_standard_stream(stream, number as i32)
                    .step(|| "connect the streams".into())?;
            }
        }
        self.enter_namespaces()?;
        if let Streams::Terminal { rows, cols, line_feeds } = self.streams {
            self.terminal((rows, cols), line_feeds)?;
        }
        self.plan.limit()?;
        hull_sys::fd::cloexec_from(3 + self.preserve_fds).step(|| "mark descriptors close-on-exec".into())?;
        self.plan.become_user()?;
        if self.die_with_parent {
            prctl::set_parent_death_signal(SIGKILL).step(|| "set the parent death signal".into())?;
        }
        let command = self.plan.command()?;
        if let Some(listener) = self.plan.confine()? {
            crate::agent::offer(&self.sync, &listener)?;
        }
        Err(command.execute())
    }

    fn enter_namespaces(&self) -> Result<(), Error> {
        // The root directory of a container made without pivot_root is not the root of its mount namespace.
        let root = std::ffi::CString::new(format!("/proc/{}/root", self.init_pid)).unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root.as_c_str(), flags, Mode::empty())
            .step(|| "open the container's root".into())?;
        let entered = if self.needs_stage() { self.entered_first() } else { CloneFlags::NEWPID };
        hull_sys::ns::setns(self.init, self.kinds.without(entered))
            .step(|| "enter the container's namespaces".into())?;
        let same = |a: rustix::fs::Stat, b: rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let stat = |fd| rustix::fs::fstat(fd).step(|| "stat the container's root".into());
        let here = rustix::fs::stat(c"/").step(|| "stat /".into())?;
        if !same(stat(&root)?, here) {
            rustix::process::fchdir(&root).step(|| "enter the container's root".into())?;
            rustix::process::chroot(c".").step(|| "chroot to the container's root".into())?;
        }
        if self.kinds.contains(CloneFlags::NEWUSER) {
            hull_sys::process::setresgid(0).step(|| "become the user namespace's root group".into())?;
            hull_sys::process::setresuid(0).step(|| "become the user namespace's root".into())?;
            // Changing ids may have made the process traceable again.
            prctl::set_dumpable(false).step(|| "forbid tracing".into())?;
        }
        Ok(())
    }

    fn terminal(&self, asked: (u16, u16), line_feeds: bool) -> Result<(), Error> {
        let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open /".into())?;
        let (master, slave) = open_terminal(&Root::new(root))?;
        let size = if asked == (0, 0) { self.plan.console_size.unwrap_or((0, 0)) } else { asked };
        use_terminal(&slave, size, line_feeds)?;
        sync::send(&self.sync, Tag::Terminal, &[], &[master.as_fd()])
    }
}
