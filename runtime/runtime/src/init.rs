//! The container's first process, from clone3 to execve. It runs in the new namespaces on a copy of the caller's memory.

use crate::error::StepExt;
use crate::hooks::{self, HookKind, HookState};
use crate::plan::Plan;
use crate::process::{open_terminal, private_proc, use_terminal};
use crate::rootfs::{RootFs, Source};
use crate::sync::{self, Tag};
use crate::{Error, Rootfs};
use hull_cgroup::Cgroup;
use hull_sys::{CloneFlags, prctl};
use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use std::cell::Cell;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Signals whose disposition a shell or a service manager may have set to "ignore", which would last through execve; and
/// SIGPIPE, which Rust's runtime ignores.
const RESET_SIGNALS: [i32; 5] = [1, 2, 3, 13, 17];
const SIGKILL: i32 = 9;

/// Streams of the process as the child uses them.
#[derive(Debug)]
pub(crate) enum Streams {
    Inherit,
    Fds([OwnedFd; 3]),
    Terminal { rows: u16, cols: u16, line_feeds: bool },
}

/// All that the first process needs, prepared by the caller.
pub(crate) struct Init<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) spec: &'a Spec,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    /// `None`: opened here, in the namespaces where an ordinary user may.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) rootfs: &'a Rootfs,
    /// One per mount of the plan, as the root.
    pub(crate) sources: Vec<Option<Source>>,
    /// Namespaces to enter here, rather than in a stage before.
    pub(crate) join: Vec<(CloneFlags, OwnedFd)>,
    pub(crate) streams: Streams,
    pub(crate) preserve_fds: u32,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) die_with_parent: bool,
    pub(crate) start_socket: Option<OwnedFd>,
    /// The cgroup the caller is making meanwhile, and says when it is there, unless the process was born in it.
    pub(crate) cgroup: Option<&'a Cgroup>,
    pub(crate) born_in_cgroup: bool,
    /// The `tasks` files (see [`opens_own_tasks`]), when they came before they were needed.
    pub(crate) tasks: Cell<Option<Vec<OwnedFd>>>,
    pub(crate) sync: OwnedFd,
}

impl Init<'_> {
    /// Does everything; a failure is reported to whoever listens, and ends the process.
    pub(crate) fn run(self) -> ! {
        let Err(error) = self.close_inherited().and_then(|()| self.prepare());
        sync::send_failure(&self.sync, &error);
        hull_sys::process::exit_now(1)
    }

    /// What waits to be started may wait for long, and others may look at it: it has nothing open but what is its own. One that
    /// is not to wait has all that closed by its execve.
    fn close_inherited(&self) -> Result<(), Error> {
        if self.start_socket.is_none() {
            return Ok(());
        }
        let mut keep = vec![self.sync.as_fd()];
        keep.extend(self.start_socket.iter().chain(&self.root).map(AsFd::as_fd));
        keep.extend(self.sources.iter().flatten().map(|source| source.mount.as_fd()));
        keep.extend(self.join.iter().map(|(_, namespace)| namespace.as_fd()));
        if let Rootfs::Mount(mount) = self.rootfs {
            keep.push(mount.as_fd());
        }
        if let Streams::Fds(streams) = &self.streams {
            keep.extend(streams.iter().map(AsFd::as_fd));
        }
        hull_sys::fd::close_all_but(3 + self.preserve_fds, &keep).step(|| "close what was inherited".into())
    }

    fn prepare(&self) -> Result<Infallible, Error> {
        self.settle_identity()?;
        for (kind, namespace) in &self.join {
            hull_sys::ns::setns(namespace.as_fd(), *kind).step(|| "enter a namespace by path".into())?;
        }
        self.leave_the_caller()?;
        self.name_the_host()?;
        let opened = match &self.root {
            Some(_) => None,
            None => Some(crate::create::open_files(self.plan, self.rootfs, self.spec, self.bundle)?),
        };
        let root = self.root.as_ref().or(opened.as_ref().map(|(root, _)| root));
        let root = root.ok_or(Error::Vanished("opening its root"))?;
        let sources = opened.as_ref().map_or(&self.sources, |(_, sources)| sources);
        let rootfs = RootFs::enter(self.plan, root)?;
        self.runtime_hooks()?;
        let (master, in_cgroup) = self.fill(&rootfs, sources)?;
        if !in_cgroup {
            self.join_cgroup(&rootfs)?;
        }
        if let Some(master) = master {
            sync::send(&self.sync, Tag::Terminal, &[], &[master.as_fd()])?;
        }
        if !HookKind::CreateContainer.list(self.spec).is_empty() {
            let state = HookState::new(self.spec, self.id, self.bundle, "creating", self.own_pid());
            hooks::run(HookKind::CreateContainer, self.spec, &state)?;
        }
        self.write_sysctls()?;
        rootfs.mask()?;
        rootfs.make_readonly()?;
        rootfs.pivot(self.no_pivot)?;
        self.finish()
    }

    /// In a new user namespace: wait for the id mappings, become its root.
    fn settle_identity(&self) -> Result<(), Error> {
        if self.die_with_parent {
            prctl::set_parent_death_signal(SIGKILL).step(|| "set the parent death signal".into())?;
        }
        if self.plan.new_user() {
            sync::expect(&self.sync, Tag::Mapped, "waiting for its id mappings")?;
            hull_sys::process::setresgid(0).step(|| "become the user namespace's root group".into())?;
            hull_sys::process::setresuid(0).step(|| "become the user namespace's root".into())?;
            prctl::set_dumpable(false).step(|| "forbid tracing".into())?;
        } else if self.plan.namespaces.separate(CloneFlags::NEWUSER) {
            hull_sys::process::setresgid(0).step(|| "become the user namespace's root group".into())?;
            hull_sys::process::setresuid(0).step(|| "become the user namespace's root".into())?;
            prctl::set_dumpable(false).step(|| "forbid tracing".into())?;
        }
        Ok(())
    }

    /// Session, signals, keyring, file mode mask, streams.
    fn leave_the_caller(&self) -> Result<(), Error> {
        rustix::process::setsid().step(|| "start a session".into())?;
        hull_sys::signal::set_default(&RESET_SIGNALS).step(|| "reset signals".into())?;
        hull_sys::signal::unblock_all().step(|| "unblock signals".into())?;
        rustix::process::umask(Mode::empty());
        if !self.no_new_keyring {
            join_keyring(self.id)?;
        }
        self.plan.process.write_through_trusted_proc(!self.plan.new_user())?;
        if let Streams::Fds(streams) = &self.streams {
            for (number, stream) in streams.iter().enumerate() {
                hull_sys::fd::set_standard_stream(stream, number as i32)
                    .step(|| "connect the streams".into())?;
            }
        }
        Ok(())
    }

    fn name_the_host(&self) -> Result<(), Error> {
        if self.plan.namespaces.new.contains(CloneFlags::NEWNET) {
            hull_sys::net::loopback_up().step(|| "bring the loopback interface up".into())?;
        }
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.as_bytes()).step(|| format!("set the host name to {name}"))?;
        }
        if let Some(name) = &self.plan.domainname {
            hull_sys::process::setdomainname(name).step(|| format!("set the domain name to {name}"))?;
        }
        Ok(())
    }

    /// The caller runs these, while the root is not the container's yet.
    fn runtime_hooks(&self) -> Result<(), Error> {
        if !needs_runtime_hooks(self.spec) {
            return Ok(());
        }
        sync::send(&self.sync, Tag::Namespaces, &[], &[])?;
        // The caller does not wait for this process to ask: the cgroup may come first.
        while let Some(message) = sync::receive(&self.sync)? {
            match message.tag {
                Tag::HooksDone => return Ok(()),
                Tag::Cgroup => self.tasks.set(Some(message.fds)),
                _ => {}
            }
        }
        Err(Error::Vanished("waiting for hooks"))
    }

    /// Mounts, devices, terminal. Returns the terminal's master and whether the cgroup was joined on the way: what a cgroup
    /// mount shows exists only after that.
    fn fill(
        &self,
        rootfs: &RootFs<'_>,
        sources: &[Option<Source>],
    ) -> Result<(Option<OwnedFd>, bool), Error> {
        let mut in_cgroup = false;
        for (mount, source) in self.plan.mounts.iter().zip(sources) {
            if !in_cgroup && matches!(mount.kind, crate::plan::MountKind::Cgroup) {
                self.join_cgroup(rootfs)?;
                in_cgroup = true;
            }
            rootfs.mount(mount, source.as_ref(), self.cgroup)?;
        }
        if self.plan.fill_dev {
            rootfs.fill_dev()?;
        }
        rootfs.ensure_directory(Path::new(self.plan.process.cwd()))?;
        let Streams::Terminal { rows, cols, line_feeds } = self.streams else { return Ok((None, in_cgroup)) };
        let (master, slave) = open_terminal(rootfs.root())?;
        if self.plan.fill_dev {
            rootfs.console(&slave)?;
        }
        let size = if (rows, cols) == (0, 0) {
            self.plan.process.console_size.unwrap_or((0, 0))
        } else {
            (rows, cols)
        };
        use_terminal(&slave, size, line_feeds)?;
        Ok((Some(master), in_cgroup))
    }

    /// Joins by writing 0 to each `tasks` file: the kernel moves a task that moves itself without waiting for a grace period.
    fn join_cgroup(&self, rootfs: &RootFs<'_>) -> Result<(), Error> {
        if let Some(cgroup) = self.cgroup.filter(|_| !self.born_in_cgroup) {
            let tasks = match self.tasks.take() {
                Some(tasks) => tasks,
                None => sync::expect(&self.sync, Tag::Cgroup, "waiting for its cgroup")?.fds,
            };
            let tasks = if tasks.is_empty() { cgroup.join_fds()? } else { tasks };
            write_tasks(&tasks)?;
            tasks.into_iter().for_each(|file| rootfs.done_with(file));
        }
        if self.plan.namespaces.new.contains(CloneFlags::NEWCGROUP) {
            // After joining: the namespace's root is where the process is then.
            hull_sys::ns::unshare(CloneFlags::NEWCGROUP).step(|| "make a cgroup namespace".into())?;
        }
        Ok(())
    }

    fn write_sysctls(&self) -> Result<(), Error> {
        if self.plan.sysctl.is_empty() {
            return Ok(());
        }
        let proc = private_proc()?;
        for (path, value) in &self.plan.sysctl {
            let failed = || format!("write sysctl {path}");
            let file = proc.open_file(path, OFlags::WRONLY)?;
            rustix::io::write(&file, value.as_bytes()).step(failed)?;
        }
        Ok(())
    }

    fn own_pid(&self) -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    /// From a complete container to the command.
    fn finish(&self) -> Result<Infallible, Error> {
        let process = &self.plan.process;
        crate::affinity::reset()?;
        process.limit()?;
        hull_sys::fd::cloexec_from(3 + self.preserve_fds).step(|| "mark descriptors close-on-exec".into())?;
        process.become_user()?;
        if self.die_with_parent {
            // Becoming the user cleared it.
            prctl::set_parent_death_signal(SIGKILL).step(|| "set the parent death signal".into())?;
        }
        let command = process.command()?;
        if process.notifies() {
            // While the caller is still there to hand it over.
            if let Some(listener) = process.confine()? {
                crate::agent::offer(&self.sync, &listener)?;
            }
        }
        sync::send(&self.sync, Tag::Ready, &[], &[])?;
        let go = Go::wait(self)?;
        let failed = |error: Error| -> ! {
            sync::send_failure(go.socket(self), &error);
            hull_sys::process::exit_now(error.kind().exit_code().into())
        };
        // Hooks inside are held to the policy, too, unless no-new-privileges lets it wait; as runc does it.
        let has_hooks = !HookKind::StartContainer.list(self.spec).is_empty();
        let confined_before_hooks = has_hooks && !process.notifies() && !process.forbids_new_privileges();
        if confined_before_hooks && let Err(error) = process.confine() {
            failed(error);
        }
        if has_hooks {
            let state = HookState::new(self.spec, self.id, self.bundle, "created", self.own_pid());
            if let Err(error) =
                hooks::run_with(HookKind::StartContainer, self.spec, &state, &process.environment())
            {
                failed(error);
            }
        }
        if !process.notifies()
            && !confined_before_hooks
            && let Err(error) = process.confine()
        {
            failed(error);
        }
        failed(command.execute())
    }
}

/// Where "go" came from, and where the reason of a failed execve goes.
enum Go {
    Caller,
    Starter(OwnedFd),
}

impl Go {
    fn wait(init: &Init<'_>) -> Result<Self, Error> {
        let Some(listener) = &init.start_socket else {
            return match sync::receive(&init.sync)? {
                Some(message) if message.tag == Tag::Go => Ok(Self::Caller),
                // The caller let go of the container.
                _ => hull_sys::process::exit_now(1),
            };
        };
        loop {
            match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
                Ok(starter) => return Ok(Self::Starter(starter)),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(error) => return Err(error).step(|| "wait to be started".into()),
            }
        }
    }

    fn socket<'s>(&'s self, init: &'s Init<'_>) -> &'s OwnedFd {
        match self {
            Self::Caller => &init.sync,
            Self::Starter(socket) => socket,
        }
    }
}

pub(crate) fn needs_runtime_hooks(spec: &Spec) -> bool {
    !HookKind::Prestart.list(spec).is_empty() || !HookKind::CreateRuntime.list(spec).is_empty()
}

/// Whether the first process may and can open its cgroup's files by their paths: as the caller's user, among mounts that are a
/// copy of the caller's. Else the caller opens them and hands them over.
pub(crate) fn opens_own_tasks(plan: &Plan) -> bool {
    plan.namespaces.join.is_empty() && !plan.new_user()
}

/// Writes 0, "the writer", to each file.
pub(crate) fn write_tasks(files: &[OwnedFd]) -> Result<(), Error> {
    for file in files {
        rustix::io::write(file, b"0").step(|| "join the cgroup".into())?;
    }
    Ok(())
}

/// The container's session keyring, of the name runc uses.
pub(crate) fn join_keyring(id: &str) -> Result<(), Error> {
    let name =
        std::ffi::CString::new(format!("_ses.{id}")).map_err(|_| Error::spec("id", "holds a NUL byte"))?;
    match hull_sys::key::join_session_keyring(&name) {
        // A kernel without keyrings has nothing to protect.
        Ok(()) | Err(rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error).step(|| "make a session keyring".into()),
    }
}
