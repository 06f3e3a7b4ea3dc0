//! Making a container, from the caller's side.
//!
//! One `clone3` makes the process in its namespaces. On cgroup v1 the caller makes the cgroup while the child mounts; on v2 the
//! child is born in it.

use crate::agent::Agent;
use crate::error::StepExt;
use crate::hooks::{self, HookKind, HookState};
use crate::init::{Init, Streams, needs_runtime_hooks, opens_own_tasks};
use crate::plan::{MountKind, MountPlan, Placement, Plan};
use crate::request::{CreateRequest, Created, Rootfs, Running, Stdio};
use crate::resctrl::Made;
use crate::rootfs::Source;
use crate::scope::{self, Scope};
use crate::sync::{self, Tag};
use crate::{Error, idmap};
use hull_cgroup::systemd::Manager;
use hull_cgroup::{Cgroup, Cgroups, Mode as CgroupMode};
use hull_mount::Propagation;
use hull_sys::mount::{MountAttr, mount_setattr};
use hull_sys::{CloneArgs, CloneFlags, Forked, clone3};
use oci_spec::runtime::Spec;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::process::{WaitId, WaitIdOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Checks all of a configuration that can be checked without making anything. `bundle` is what its relative paths start
/// from.
pub fn check(spec: &Spec, bundle: &Path) -> Result<(), Error> {
    Plan::new(spec, bundle, None)?;
    hooks::check(spec)
}

/// Creates a container. Everything that can be checked is checked: the command was found and is executable. On an error
/// nothing is left: the process is reaped, the cgroup removed.
///
/// The caller must have one thread. It gets SIGCHLD for the process and is the one to reap it.
pub fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    let plan = Plan::new(request.spec, request.bundle, request.systemd)?;
    hooks::check(request.spec)?;
    if rustix::process::geteuid().is_root() {
        // Processes of a shared pid namespace must not trace the child or open what it has open.
        hull_sys::prctl::set_dumpable(false).step(|| "forbid tracing".into())?;
    }
    let joins = open_namespaces(&plan)?;
    let (ours, theirs) = sync::pair()?;
    let stage = needs_stage(&plan);
    let (root, sources) = match plan.rootless() {
        false => {
            let files = open_files(&plan, &request.rootfs, request.spec, request.bundle)?;
            (Some(files.0), files.1)
        }
        true => (None, Vec::new()),
    };
    let agent = plan.agent.connect()?;
    // The first thing that is there for others to see, so the last that is prepared.
    let cgroup = CgroupOwner::prepare(&plan, request.spec, request.systemd)?;
    let init = Init {
        root,
        rootfs: &request.rootfs,
        sources,
        join: Vec::new(),
        streams: streams(request.stdio),
        plan: &plan,
        spec: request.spec,
        id: request.id,
        bundle: request.bundle,
        preserve_fds: request.preserve_fds,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        die_with_parent: request.die_with_parent,
        start_socket: request.start_socket,
        cgroup: cgroup.cgroup(),
        born_in_cgroup: cgroup.born_in(),
        tasks: Default::default(),
        sync: theirs,
    };
    let started_by_caller = init.start_socket.is_none();
    let (pid, pidfd) = spawn(init, joins, stage, &ours, &cgroup)?;
    let (spec, id, bundle) = (request.spec, request.id, request.bundle);
    let mut child = Child { pid, pidfd, spec, id, bundle, plan: &plan, agent, resctrl: Made::default() };
    let mut cgroup = cgroup;
    match child.serve(&ours, &mut cgroup) {
        Ok(console) => {
            let (cgroup, scope) = cgroup.into_parts();
            let go = started_by_caller.then_some(ours);
            let Child { pid, pidfd, resctrl, .. } = child;
            Ok(Created { pid, pidfd, console, cgroup, scope, resctrl, go })
        }
        Err(error) => {
            child.destroy();
            cgroup.remove();
            Err(error)
        }
    }
}

impl Created {
    /// Ends a container that cannot be kept: process, cgroup, unit.
    pub fn abandon(&self) {
        kill_and_reap(&self.pidfd);
        // Reported is the error that led here.
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            if let Some(scope) = &self.scope {
                let _ = scope.stop();
            }
            let _ = cgroup.remove();
        }
        self.resctrl.remove();
    }

    /// Lets the first process execute its command. An error is the reason why `execve` failed; the process has ended
    /// then, and is the caller's to reap.
    pub fn start(mut self) -> Result<Running, Error> {
        let Some(go) = self.go.take() else {
            return Err(Error::NotImplemented("starting through this handle what waits on a start socket"));
        };
        sync::send(&go, Tag::Go, &[], &[])?;
        // The socket is close-on-exec: its end is the success of execve.
        while sync::receive(&go)?.is_some() {}
        Ok(Running { pid: self.pid, pidfd: self.pidfd, console: self.console, cgroup: self.cgroup })
    }
}

/// The cgroup between being wanted and being the container's.
enum CgroupOwner {
    None,
    /// v1: made after clone3, while the child works.
    Later(Cgroups, Cgroup),
    /// systemd: a unit is made around the child.
    Unit(Box<scope::Wanted>),
    Made(Cgroup, Option<OwnedFd>),
    /// Made by systemd, which removes it.
    InUnit(Cgroup, Scope),
}

impl CgroupOwner {
    fn prepare(plan: &Plan, spec: &Spec, systemd: Option<&Manager>) -> Result<Self, Error> {
        let path = match (&plan.cgroup, systemd) {
            (Placement::Path(path), _) => path,
            (Placement::Unit(unit), Some(manager)) => {
                return Ok(Self::Unit(Box::new(scope::Wanted::new(manager, unit, spec)?)));
            }
            _ => return Ok(Self::None),
        };
        let cgroups = Cgroups::detect()?;
        if cgroups.mode() != CgroupMode::V2 {
            let cgroup = cgroups.open(path);
            return Ok(Self::Later(cgroups, cgroup));
        }
        let cgroup = cgroups.create(path, Some(&plan.resources))?;
        let directory = delegate(&cgroup, plan).and_then(|()| Ok(cgroup.clone_into()?));
        let made = |directory| Self::Made(cgroup.clone(), directory);
        directory.map(&made).inspect_err(|_| made(None).remove())
    }

    fn cgroup(&self) -> Option<&Cgroup> {
        match self {
            Self::None => None,
            Self::Unit(wanted) => Some(&wanted.cgroup),
            Self::Later(_, cgroup) | Self::Made(cgroup, _) | Self::InUnit(cgroup, _) => Some(cgroup),
        }
    }

    fn born_in(&self) -> bool {
        matches!(self, Self::Made(..))
    }

    fn directory(&self) -> Option<&OwnedFd> {
        match self {
            Self::Made(_, directory) => directory.as_ref(),
            _ => None,
        }
    }

    /// The cgroup that was made, and its unit.
    fn into_parts(self) -> (Option<Cgroup>, Option<Scope>) {
        match self {
            Self::Made(cgroup, _) => (Some(cgroup), None),
            Self::InUnit(cgroup, scope) => (Some(cgroup), Some(scope)),
            _ => (None, None),
        }
    }

    /// What was not made is not removed: its path may be another's.
    fn remove(&self) {
        // Reported is the error that led here; a cgroup that stays is found by its owner's reconciliation.
        match self {
            Self::Made(cgroup, _) => drop(cgroup.kill().and_then(|()| cgroup.remove())),
            Self::InUnit(cgroup, scope) => {
                let _ = cgroup.kill();
                let _ = scope.stop();
                let _ = cgroup.remove();
            }
            _ => {}
        }
    }
}

/// Gives the cgroup to whom the container's configuration says it belongs.
fn delegate(cgroup: &Cgroup, plan: &Plan) -> Result<(), Error> {
    plan.cgroup_owner.map_or(Ok(()), |uid| Ok(cgroup.delegate_to(uid)?))
}

/// The first process, as the caller holds it while creating.
struct Child<'a> {
    pid: i32,
    pidfd: OwnedFd,
    spec: &'a Spec,
    id: &'a str,
    bundle: &'a Path,
    plan: &'a Plan,
    agent: Option<Agent>,
    resctrl: Made,
}

impl Child<'_> {
    /// The caller's part while the child prepares the container, until it is ready. Returns its terminal.
    fn serve(&mut self, socket: &OwnedFd, cgroup: &mut CgroupOwner) -> Result<Option<OwnedFd>, Error> {
        match self.serve_steps(socket, cgroup) {
            // A child that is gone cannot be talked to; what it said before is the reason.
            Err(error @ (Error::Step { .. } | Error::Vanished(_))) => loop {
                match sync::receive(socket) {
                    Ok(Some(_)) => {}
                    Ok(None) => break Err(error),
                    Err(said) => break Err(said),
                }
            },
            other => other,
        }
    }

    fn serve_steps(&mut self, socket: &OwnedFd, cgroup: &mut CgroupOwner) -> Result<Option<OwnedFd>, Error> {
        // While the child still is the caller's: a user's service manager takes nobody else's.
        self.make_unit(cgroup)?;
        if self.plan.new_user() {
            idmap::write_mappings(self.pid, &self.plan.uid_mappings, &self.plan.gid_mappings)?;
            if let Some(score) = self.plan.process.oom_score_adj {
                let path =
                    std::ffi::CString::new(format!("/proc/{}/oom_score_adj", self.pid)).unwrap_or_default();
                crate::process::write_file(&path, &score.to_string())
                    .step(|| format!("set process.oomScoreAdj to {score}"))?;
            }
            sync::send(socket, Tag::Mapped, &[], &[])?;
        }
        crate::net_devices::give(self.plan, self.pid)?;
        self.make_cgroup(socket, cgroup)?;
        if let Some(wanted) = &self.plan.resctrl {
            self.resctrl = wanted.place(self.id, self.pid)?;
        }
        let mut console = None;
        loop {
            let Some(mut message) = sync::receive(socket)? else {
                return Err(Error::Vanished("being prepared"));
            };
            match message.tag {
                Tag::Namespaces => {
                    self.runtime_hooks()?;
                    sync::send(socket, Tag::HooksDone, &[], &[])?;
                }
                Tag::Terminal => console = message.fds.pop(),
                Tag::Listener => self.introduce(socket, &message.data)?,
                Tag::Ready => return Ok(console),
                _ => {}
            }
        }
    }

    /// Has the service manager make the cgroup.
    fn make_unit(&mut self, cgroup: &mut CgroupOwner) -> Result<(), Error> {
        if let CgroupOwner::Unit(wanted) = cgroup {
            let (made, scope) = wanted.make(self.id, self.pid, self.plan)?;
            *cgroup = CgroupOwner::InUnit(made.clone(), scope);
            delegate(&made, self.plan)?;
        }
        Ok(())
    }

    /// Makes the cgroup that was not made before the child, and lets the child join it.
    fn make_cgroup(&mut self, socket: &OwnedFd, cgroup: &mut CgroupOwner) -> Result<(), Error> {
        let made = match cgroup {
            CgroupOwner::Later(cgroups, wanted) => {
                let made = cgroups.create(wanted.path(), Some(&self.plan.resources))?;
                *cgroup = CgroupOwner::Made(made.clone(), None);
                if opens_own_tasks(self.plan) {
                    return sync::send(socket, Tag::Cgroup, &[], &[]);
                }
                made
            }
            CgroupOwner::InUnit(made, _) => made.clone(),
            _ => return Ok(()),
        };
        let files = made.join_fds()?;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        sync::send(socket, Tag::Cgroup, &[], &files)
    }

    /// Hands the child's seccomp notification descriptor to its agent.
    fn introduce(&self, socket: &OwnedFd, number: &[u8]) -> Result<(), Error> {
        let number = crate::agent::offered(number)?;
        if let Some(agent) = &self.agent {
            let state = HookState::new(self.spec, self.id, self.bundle, "creating", self.pid);
            agent.introduce(self.spec, (self.pid, &self.pidfd), number, &state)?;
        }
        sync::send(socket, Tag::Introduced, &[], &[])
    }

    fn runtime_hooks(&self) -> Result<(), Error> {
        debug_assert!(needs_runtime_hooks(self.spec));
        let state = HookState::new(self.spec, self.id, self.bundle, "creating", self.pid);
        hooks::run(HookKind::Prestart, self.spec, &state)?;
        hooks::run(HookKind::CreateRuntime, self.spec, &state)
    }

    fn destroy(&self) {
        kill_and_reap(&self.pidfd);
        self.resctrl.remove();
    }
}

/// Ends a child and takes its exit status; it cannot fail for a child of this process.
pub(crate) fn kill_and_reap(pidfd: &OwnedFd) {
    let _ = hull_sys::signal::pidfd_send_signal(pidfd.as_fd(), 9);
    reap(pidfd);
}

pub(crate) fn reap(pidfd: &OwnedFd) {
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    {}
}

/// Forks the container's first process. What only a process that does not go on can do (entering a pid or user namespace by
/// path, time offsets) is done in a stage between, whose child is the caller's by `CLONE_PARENT`.
fn spawn(
    mut init: Init<'_>,
    joins: Vec<(CloneFlags, OwnedFd)>,
    stage: bool,
    ours: &OwnedFd,
    cgroup: &CgroupOwner,
) -> Result<(i32, OwnedFd), Error> {
    let new = init.plan.namespaces.new.without(CloneFlags::NEWCGROUP);
    let args = CloneArgs {
        flags: if stage { CloneFlags::empty() } else { new },
        cgroup: cgroup.directory().map(AsFd::as_fd),
    };
    let forked = clone3(args).map_err(|errno| {
        cgroup.remove();
        Error::Step { step: "make the container's process and namespaces".into(), source: errno }
    })?;
    match forked {
        Forked::Child => {
            // Were it open, the child would never see the caller go.
            let _ = hull_sys::fd::close_copy(ours, &init.sync);
            if stage {
                run_stage(init, &joins, new);
            }
            init.join = joins;
            init.run()
        }
        Forked::Parent { pid, pidfd } if !stage => Ok((pid, pidfd)),
        Forked::Parent { pidfd, .. } => {
            // The child's end must be closed here, or its death would not be seen.
            drop(init);
            let message = sync::expect(ours, Tag::Pid, "entering namespaces");
            reap(&pidfd);
            let made = message.and_then(|mut message| {
                let pid = message.data.as_slice().try_into().map(i32::from_ne_bytes);
                match (pid, message.fds.pop()) {
                    (Ok(pid), Some(pidfd)) => Ok((pid, pidfd)),
                    _ => Err(Error::Vanished("entering namespaces")),
                }
            });
            made.inspect_err(|_| cgroup.remove())
        }
    }
}

fn run_stage(init: Init<'_>, joins: &[(CloneFlags, OwnedFd)], new: CloneFlags) -> ! {
    match stage_steps(&init, joins, new) {
        Ok(Forked::Child) => init.run(),
        Ok(Forked::Parent { pid, pidfd }) => {
            let sent = sync::send(&init.sync, Tag::Pid, &pid.to_ne_bytes(), &[pidfd.as_fd()]);
            hull_sys::process::exit_now(sent.is_err().into())
        }
        Err(error) => {
            sync::send_failure(&init.sync, &error);
            hull_sys::process::exit_now(1)
        }
    }
}

fn stage_steps(init: &Init<'_>, joins: &[(CloneFlags, OwnedFd)], new: CloneFlags) -> Result<Forked, Error> {
    // The user namespace last: the others may belong to the caller's.
    let (user, others): (Vec<_>, Vec<_>) = joins.iter().partition(|(kind, _)| *kind == CloneFlags::NEWUSER);
    for (kind, namespace) in others.into_iter().chain(user) {
        hull_sys::ns::setns(namespace.as_fd(), *kind).step(|| "enter a namespace by path".into())?;
    }
    let mut flags = new | CloneFlags::PARENT;
    if !init.plan.time_offsets.is_empty() {
        hull_sys::ns::unshare(CloneFlags::NEWTIME).step(|| "make a time namespace".into())?;
        let lines = init.plan.time_offsets.iter().map(|(clock, s, ns)| format!("{clock} {s} {ns}\n"));
        crate::process::write_file(c"/proc/self/timens_offsets", &lines.collect::<String>())
            .step(|| "set linux.timeOffsets".into())?;
        flags = flags.without(CloneFlags::NEWTIME);
    }
    clone3(CloneArgs { flags, cgroup: None }).step(|| "make the container's process and namespaces".into())
}

fn needs_stage(plan: &Plan) -> bool {
    let by_path = |kind| plan.namespaces.join.iter().any(|join| join.kind == kind);
    by_path(CloneFlags::NEWUSER)
        || by_path(CloneFlags::NEWPID)
        || by_path(CloneFlags::NEWTIME)
        || !plan.time_offsets.is_empty()
        || (plan.new_user() && !plan.namespaces.join.is_empty())
}

fn open_namespaces(plan: &Plan) -> Result<Vec<(CloneFlags, OwnedFd)>, Error> {
    let open = |join: &crate::plan::Join| {
        let fd = rustix::fs::open(&join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(|errno| {
            let reason = format!("{}: {}", join.path.display(), crate::error::errno_text(errno));
            Error::spec("linux.namespaces", reason)
        })?;
        Ok((join.kind, fd))
    };
    plan.namespaces.join.iter().map(open).collect()
}

/// Opens the root and what is bound into it, in the mount namespace of the process that asks.
pub(crate) fn open_files(
    plan: &Plan,
    rootfs: &Rootfs,
    spec: &Spec,
    bundle: &Path,
) -> Result<(OwnedFd, Vec<Option<Source>>), Error> {
    Ok((open_root(rootfs, spec, bundle)?, open_sources(plan)?))
}

fn open_root(rootfs: &Rootfs, spec: &Spec, bundle: &Path) -> Result<OwnedFd, Error> {
    let mount = match rootfs {
        Rootfs::Mount(mount) => return mount.try_clone().map_err(|_| Error::Vanished("opening its root")),
        Rootfs::Path => {
            let root = spec.root().as_ref().ok_or_else(|| Error::spec("root", "is required"))?;
            let path = bundle.join(root.path());
            let stat = rustix::fs::stat(&path).map_err(|errno| {
                let reason = format!("{}: {}", path.display(), crate::error::errno_text(errno));
                Error::spec("root.path", reason)
            })?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(Error::spec("root.path", format!("{} is not a directory", path.display())));
            }
            hull_mount::bind(&path, true)?
        }
    };
    // A copy of a shared mount is its peer: what the container mounts must not appear at the caller.
    hull_mount::change_propagation(&mount, true, Propagation::Slave)?;
    Ok(mount)
}

/// Bind mounts are opened in the caller: a user namespace's root may not reach them, and a missing one is found before anything
/// is made.
fn open_sources(plan: &Plan) -> Result<Vec<Option<Source>>, Error> {
    plan.mounts.iter().map(|mount| open_source(plan, mount)).collect()
}

fn open_source(plan: &Plan, mount: &MountPlan) -> Result<Option<Source>, Error> {
    let MountKind::Bind { source: path } = &mount.kind else { return Ok(None) };
    let options = &mount.options;
    let tree = hull_mount::bind(path, options.recursive_bind)?;
    let stat = rustix::fs::fstat(&tree).step(|| format!("stat {}", path.display()))?;
    // Slaves by default, so that nothing goes back to the caller; shared ones only if the whole root is meant to be.
    let shared_root = matches!(plan.propagation, Some((Propagation::Shared, _)));
    let propagation = (!shared_root).then_some(Propagation::Slave);
    let recursive = MountAttr {
        set: Some(options.set_recursive),
        clear: Some(options.clear_recursive),
        propagation,
        idmap: None,
    };
    let failed = || format!("set attributes of bind mount {}", path.display());
    if propagation.is_some() || !options.set_recursive.is_empty() || !options.clear_recursive.is_empty() {
        mount_setattr(tree.as_fd(), true, &recursive).step(failed)?;
    }
    let namespace = match options.idmap.is_some() || !mount.uid_mappings.is_empty() {
        true if mount.uid_mappings.is_empty() => Some(idmap::of_container(plan)?),
        true => Some(idmap::namespace(&mount.uid_mappings, &mount.gid_mappings)?),
        false => None,
    };
    // `rw` does not lift a read-only source: only what is asked for is taken away.
    let clear = options.clear - MountAttrFlags::MOUNT_ATTR_RDONLY;
    let top = MountAttr { set: Some(options.set), clear: Some(clear), ..MountAttr::default() };
    if !options.set.is_empty() || !clear.is_empty() {
        mount_setattr(tree.as_fd(), false, &top).step(failed)?;
    }
    if let Some(namespace) = &namespace {
        let attr = MountAttr { idmap: Some(namespace.as_fd()), ..MountAttr::default() };
        mount_setattr(tree.as_fd(), options.idmap == Some(true), &attr)
            .step(|| format!("map the ids of bind mount {}", path.display()))?;
    }
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Some(Source { mount: tree, is_directory }))
}

pub(crate) fn streams(stdio: Stdio) -> Streams {
    match stdio {
        Stdio::Inherit => Streams::Inherit,
        Stdio::Fds { stdin, stdout, stderr } => Streams::Fds([stdin, stdout, stderr]),
        Stdio::Terminal { rows, cols, line_feeds } => Streams::Terminal { rows, cols, line_feeds },
    }
}
