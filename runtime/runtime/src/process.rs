//! The last part of a container's process, the same for its first and for later ones: identity, limits, privileges, and
//! the command.

use crate::affinity::Affinity;
use crate::error::StepExt;
use crate::memory_policy::MemoryPolicy;
use crate::{Error, ErrorKind};
use hull_confine::seccomp::Program;
use hull_confine::{CapSet, CapabilitySets};
use hull_fsroot::Root;
use hull_sys::exec::{CStrings, execve};
use hull_sys::prctl;
use hull_sys::process::{setgroups, setresgid, setresuid, setrlimit};
use hull_sys::sched::{SchedAttr, ioprio_set, sched_setattr};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    PosixRlimitType, Process,
};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const CAP_SYS_ADMIN: CapSet = CapSet::from_bits(1 << 21);
/// What execve searches when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process, checked.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    cwd: CString,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: Option<u32>,
    capabilities: CapabilitySets,
    no_new_privileges: bool,
    seccomp: Option<Program>,
    rlimits: Vec<(u32, u64, u64, PosixRlimitType)>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
    scheduler: Option<SchedAttr>,
    io_priority: Option<(u32, u32)>,
    pub(crate) personality: Option<u64>,
    pub(crate) console_size: Option<(u16, u16)>,
    memory_policy: Option<MemoryPolicy>,
    pub(crate) affinity: Affinity,
    /// Whether the caller is an ordinary user.
    pub(crate) rootless: bool,
}

impl ProcessPlan {
    pub(crate) fn new(process: &Process, linux: Option<&Linux>) -> Result<Self, Error> {
        let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
        let args = process.args().clone().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            return Err(Error::spec("process.args", "must not be empty"));
        }
        let env = process.env().clone().unwrap_or_default();
        for (field, list) in [("process.args", &args), ("process.env", &env)] {
            if let Some(bad) = list.iter().find(|text| text.contains('\0')) {
                return Err(Error::spec(field, format!("{bad:?} holds a NUL byte")));
            }
        }
        let cwd = process.cwd();
        if !cwd.is_absolute() {
            return Err(Error::spec("process.cwd", format!("{} is not absolute", cwd.display())));
        }
        let cwd = CString::new(cwd.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::spec("process.cwd", "holds a NUL byte"))?;
        if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
            return Err(Error::spec("process.oomScoreAdj", format!("{score} is not within -1000 to 1000")));
        }
        let user = process.user();
        let seccomp = seccomp.map(hull_confine::seccomp::compile).transpose();
        let size = process.console_size().as_ref().map(|size| (clamp(size.height()), clamp(size.width())));
        Ok(Self {
            args,
            env,
            cwd,
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            capabilities: process.capabilities().as_ref().map(CapabilitySets::from_oci).unwrap_or_default(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            seccomp: seccomp.map_err(|error| Error::Seccomp(crate::error::chain(&error)))?,
            rlimits: rlimits(process)?,
            oom_score_adj: process.oom_score_adj(),
            apparmor: process.apparmor_profile().clone().filter(|label| !label.is_empty()),
            selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
            scheduler: scheduler(process)?,
            io_priority: io_priority(process)?,
            personality: linux.map(personality).transpose()?.flatten(),
            console_size: size,
            memory_policy: linux
                .and_then(|linux| linux.memory_policy().as_ref())
                .map(MemoryPolicy::new)
                .transpose()?,
            affinity: process
                .exec_cpu_affinity()
                .as_ref()
                .map(Affinity::new)
                .transpose()?
                .unwrap_or_default(),
            rootless: !rustix::process::geteuid().is_root(),
        })
    }

    /// Whether the seccomp policy hands calls to an agent.
    pub(crate) fn notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(Program::notifies)
    }

    /// Working directory.
    pub(crate) fn cwd(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(self.cwd.to_bytes())
    }

    /// What must be done while the caller's `/proc`, which can be trusted, is still there: the label of the next execve
    /// and the OOM score.
    pub(crate) fn write_through_trusted_proc(&self, oom_score: bool) -> Result<(), Error> {
        use hull_confine::label::{Module, write};
        for (module, label) in [(Module::AppArmor, &self.apparmor), (Module::SeLinux, &self.selinux)] {
            if let Some(label) = label {
                write(module, label).map_err(security)?;
            }
        }
        if let Some(score) = self.oom_score_adj.filter(|_| oom_score) {
            write_file(c"/proc/self/oom_score_adj", &score.to_string())
                .step(|| format!("set process.oomScoreAdj to {score}"))?;
        }
        Ok(())
    }

    /// Limits and scheduling, while still privileged.
    pub(crate) fn limit(&self) -> Result<(), Error> {
        for (resource, soft, hard, name) in &self.rlimits {
            setrlimit(*resource, *soft, *hard).step(|| format!("set {name} to {soft}:{hard}"))?;
        }
        if let Some(attributes) = &self.scheduler {
            sched_setattr(attributes).step(|| "set process.scheduler".into())?;
        }
        if let Some((class, priority)) = self.io_priority {
            ioprio_set(class, priority).step(|| "set process.ioPriority".into())?;
        }
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        if let Some(persona) = self.personality {
            hull_sys::process::personality(persona).step(|| "set linux.personality".into())?;
        }
        Ok(())
    }

    /// Becomes the user, in the working directory, with no more than the process's capabilities (and CAP_SYS_ADMIN when a
    /// seccomp filter is still to be loaded without no-new-privileges).
    pub(crate) fn become_user(&self) -> Result<(), Error> {
        own_standard_streams(self.uid)?;
        // A configuration without capabilities means none, as with runc.
        self.capabilities.limit_bounding().map_err(security)?;
        // As root first: the directory may be one only root can enter, and docker allows that.
        let entered = rustix::process::chdir(self.cwd.as_c_str());
        // Root that stays root loses none.
        let keeps = self.uid != 0;
        if keeps {
            prctl::set_keep_capabilities(true).step(|| "keep capabilities".into())?;
        }
        self.set_groups().step(|| format!("set process.user.additionalGids to {:?}", self.groups))?;
        setresgid(self.gid).step(|| format!("set process.user.gid to {}", self.gid))?;
        setresuid(self.uid).step(|| format!("set process.user.uid to {}", self.uid))?;
        if keeps {
            prctl::set_keep_capabilities(false).step(|| "stop keeping capabilities".into())?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask.unwrap_or(0o022) & 0o777));
        let mut sets = self.capabilities;
        if self.seccomp_needs_admin() {
            // Loading the filter needs it; dropped right after.
            sets.effective = sets.effective | CAP_SYS_ADMIN;
            sets.permitted = sets.permitted | CAP_SYS_ADMIN;
        }
        sets.apply().map_err(security)?;
        match entered {
            Ok(()) => {}
            Err(Errno::ACCESS | Errno::PERM) => rustix::process::chdir(self.cwd.as_c_str())
                .step(|| format!("change to process.cwd {}", self.cwd.to_string_lossy()))?,
            Err(error) => {
                Err(error).step(|| format!("change to process.cwd {}", self.cwd.to_string_lossy()))?
            }
        }
        check_inside()
    }

    /// Where a user mapped their own group themselves, groups cannot be set (user_namespaces(7)), nor are there any to drop.
    fn set_groups(&self) -> rustix::io::Result<()> {
        match setgroups(&self.groups) {
            Err(Errno::PERM) if self.rootless && self.groups.is_empty() => Ok(()),
            other => other,
        }
    }

    /// `noNewPrivileges`
    pub(crate) fn forbids_new_privileges(&self) -> bool {
        self.no_new_privileges
    }

    fn seccomp_needs_admin(&self) -> bool {
        self.seccomp.is_some() && !self.no_new_privileges
    }

    /// Argument vector and environment, and the program the command names, found as the user in the container.
    pub(crate) fn command(&self) -> Result<Command, Error> {
        let env = self.environment();
        let program = find_program(&self.args[0], &self.env)?;
        let nul = |_| Error::spec("process.args", "holds a NUL byte");
        Ok(Command {
            program,
            argv: CStrings::new(&self.args).map_err(nul)?,
            envp: CStrings::new(&env).map_err(nul)?,
        })
    }

    /// The environment: of a variable that is there twice the later value; HOME always.
    pub(crate) fn environment(&self) -> Vec<String> {
        let key = |entry: &str| entry.split_once('=').map(|(key, _)| key.to_owned());
        let mut seen = std::collections::HashSet::with_capacity(self.env.len());
        let mut env: Vec<String> = Vec::with_capacity(self.env.len() + 1);
        for entry in self.env.iter().rev() {
            // What is no assignment is handed on as it is.
            if key(entry).is_none_or(|key| seen.insert(key)) {
                env.push(entry.clone());
            }
        }
        env.reverse();
        if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > 5) {
            env.retain(|entry| !entry.starts_with("HOME="));
            env.push(format!("HOME={}", home(self.uid)));
        }
        env
    }

    /// Loads the seccomp filter and gives up what was kept for it; returns the notification descriptor if the policy has one.
    pub(crate) fn confine(&self) -> Result<Option<OwnedFd>, Error> {
        if self.no_new_privileges {
            hull_confine::no_new_privileges()
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
                .step(|| "set no_new_privs".into())?;
        }
        let Some(program) = &self.seccomp else { return Ok(None) };
        let listener = program.load().map_err(security)?;
        if self.seccomp_needs_admin() {
            self.capabilities.apply().map_err(security)?;
        }
        Ok(listener)
    }
}

/// A program ready to be executed.
pub(crate) struct Command {
    program: CString,
    argv: CStrings,
    envp: CStrings,
}

impl Command {
    /// Executes it; returns only with the reason why not.
    pub(crate) fn execute(&self) -> Error {
        let errno = execve(&self.program, &self.argv, &self.envp);
        let program = self.program.to_string_lossy();
        let kind = match errno {
            // ENOENT of a file that was found: its interpreter is missing.
            Errno::NOENT => ErrorKind::CommandNotFound,
            Errno::ACCESS | Errno::NOEXEC | Errno::PERM | Errno::ISDIR => ErrorKind::NotExecutable,
            _ => ErrorKind::Other,
        };
        Error::Inside { kind, message: format!("exec {program}: {}", crate::error::errno_text(errno)) }
    }
}

/// A failed security step, with its causes.
fn security(error: impl std::error::Error + 'static) -> Error {
    Error::Inside { kind: ErrorKind::Other, message: crate::error::chain(&error) }
}

fn clamp(size: u64) -> u16 {
    size.min(u16::MAX.into()) as u16
}

pub(crate) fn write_file(path: &CStr, value: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// The working directory must be below the container's root: a descriptor of the caller's that leaked would show as
/// "(unreachable)" (CVE-2024-21626).
fn check_inside() -> Result<(), Error> {
    let unreachable = || Error::Inside {
        kind: ErrorKind::Other,
        message: "current working directory is outside of container mount namespace root".into(),
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(unreachable()),
        Err(error) => Err(error).step(|| "read the working directory".into()),
    }
}

/// The streams belong to the user, so that `/dev/stdout` can be opened again; the null device stays root's.
fn own_standard_streams(uid: u32) -> Result<(), Error> {
    let streams: [(i32, BorrowedFd<'_>); 3] =
        [(0, rustix::stdio::stdin()), (1, rustix::stdio::stdout()), (2, rustix::stdio::stderr())];
    for (number, stream) in streams {
        let stat = match rustix::fs::fstat(stream) {
            Ok(stat) => stat,
            Err(Errno::BADF) => continue,
            Err(error) => return Err(error).step(|| format!("stat stream {number}")),
        };
        let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3);
        if stat.st_uid == uid || null {
            continue;
        }
        match rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(uid)), None) {
            // Sockets, read-only file systems, ids that are not mapped: as it was is good enough.
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS | Errno::OVERFLOW | Errno::BADF) => {}
            Err(error) => return Err(error).step(|| format!("give stream {number} to user {uid}")),
        }
    }
    Ok(())
}

fn home(uid: u32) -> String {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let found = root.ok().and_then(|root| crate::user::home_of(&root, uid));
    found.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".into())
}

/// As Go's `exec.LookPath`, with runc's words.
fn find_program(name: &str, env: &[String]) -> Result<CString, Error> {
    if name.contains('/') {
        let path = CString::new(name).map_err(|_| Error::spec("process.args", "holds a NUL byte"))?;
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(not_runnable(name, errno)),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let Ok(candidate) = CString::new(format!("{directory}/{name}")) else { continue };
        if executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    let message = format!("exec: {name:?}: executable file not found in $PATH");
    Err(Error::Inside { kind: ErrorKind::CommandNotFound, message })
}

fn not_runnable(name: &str, errno: Errno) -> Error {
    let text = crate::error::errno_text(errno);
    let (kind, message) = match errno {
        Errno::NOENT | Errno::NOTDIR => {
            (ErrorKind::CommandNotFound, format!("exec: {name:?}: stat {name}: {text}"))
        }
        Errno::ACCESS | Errno::ISDIR => (ErrorKind::NotExecutable, format!("exec: {name:?}: {text}")),
        _ => (ErrorKind::Other, format!("exec: {name:?}: {text}")),
    };
    Error::Inside { kind, message }
}

fn executable(path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    // Root without DAC override may "access" files that have no execute bit at all.
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn rlimits(process: &Process) -> Result<Vec<(u32, u64, u64, PosixRlimitType)>, Error> {
    let mut limits: Vec<(u32, u64, u64, PosixRlimitType)> = Vec::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = |suffix: &str| format!("process.rlimits[{index}].{suffix}");
        let number = rlimit_number(limit.typ());
        if limits.iter().any(|(other, ..)| *other == number) {
            return Err(Error::spec(field("type"), format!("{} is there twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::spec(
                field("soft"),
                format!("{} is more than hard {}", limit.soft(), limit.hard()),
            ));
        }
        limits.push((number, limit.soft(), limit.hard(), limit.typ()));
    }
    Ok(limits)
}

/// `<asm-generic/resource.h>`
fn rlimit_number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

fn io_priority(process: &Process) -> Result<Option<(u32, u32)>, Error> {
    let Some(priority) = process.io_priority() else { return Ok(None) };
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u32::try_from(priority.priority()).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| Error::spec("process.ioPriority.priority", "is not within 0 to 7"))?;
    Ok(Some((class, level)))
}

/// `<linux/personality.h>`
fn personality(linux: &Linux) -> Result<Option<u64>, Error> {
    let Some(wanted) = linux.personality() else { return Ok(None) };
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::spec("linux.personality.flags", "no flag is known"));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// Numbers of `<linux/sched.h>`.
fn scheduler(process: &Process) -> Result<Option<SchedAttr>, Error> {
    let Some(wanted) = process.scheduler() else { return Ok(None) };
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::spec("process.scheduler.nice", format!("{nice} is not within -20 to 19")));
    }
    let priority = wanted.priority().unwrap_or(0);
    let priority = u32::try_from(priority)
        .map_err(|_| Error::spec("process.scheduler.priority", format!("{priority} is negative")))?;
    Ok(Some(SchedAttr {
        size: 0,
        policy,
        flags,
        nice,
        priority,
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
    }))
}

/// A private, freshly mounted procfs: what is written there reaches the kernel and nothing else, whatever the container has
/// mounted on its `/proc` (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn private_proc() -> Result<Root<OwnedFd>, Error> {
    Ok(Root::new(hull_mount::new_filesystem("proc", None, &hull_mount::MountOptions::default())?))
}

/// Opens a terminal of the container's own devpts; verified, since the path is the container's (CVE-2025-52565).
pub(crate) fn open_terminal<F: AsFd>(root: &Root<F>) -> Result<(OwnedFd, OwnedFd), Error> {
    const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = match root.open_file("dev/pts/ptmx", flags) {
        Ok(master) => master,
        Err(_) => root.open_file("dev/ptmx", flags)?,
    };
    let stat = rustix::fs::fstat(&master).step(|| "stat the terminal".into())?;
    let magic = rustix::fs::fstatfs(&master).step(|| "stat the terminal's file system".into())?.f_type as u64;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(5, 2);
    if !is_ptmx || magic != DEVPTS_SUPER_MAGIC {
        let message = "/dev/pts/ptmx of the container is not a terminal multiplexer".into();
        return Err(Error::Inside { kind: ErrorKind::Other, message });
    }
    rustix::pty::unlockpt(&master).step(|| "unlock the terminal".into())?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC,
    )
    .step(|| "open the terminal".into())?;
    Ok((master, slave))
}

/// Makes a terminal the controlling one and the standard streams.
pub(crate) fn use_terminal(slave: &OwnedFd, size: (u16, u16), line_feeds: bool) -> Result<(), Error> {
    if line_feeds {
        let mut modes = rustix::termios::tcgetattr(slave).step(|| "read the terminal's modes".into())?;
        modes.output_modes -= rustix::termios::OutputModes::ONLCR;
        rustix::termios::tcsetattr(slave, rustix::termios::OptionalActions::Now, &modes)
            .step(|| "set the terminal's modes".into())?;
    }
    if size != (0, 0) {
        let size = rustix::termios::Winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(slave, size).step(|| "set the terminal's size".into())?;
    }
    rustix::process::ioctl_tiocsctty(slave).step(|| "set the controlling terminal".into())?;
    for number in 0..3 {
        hull_sys::fd::set_standard_stream(slave, number).step(|| "connect the streams".into())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_found_as_go_does() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        for (name, mode) in [("run", 0o755), ("data", 0o644)] {
            std::fs::write(path(name), "").expect("write");
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let env = [format!("PATH=/nonexistent:{}", directory.path().display())];
        assert!(find_program("run", &env).is_ok());
        let kind_and_text = |name: &str| {
            let error = find_program(name, &env).expect_err(name);
            (error.kind(), error.to_string())
        };
        assert_eq!(
            kind_and_text("data"),
            (ErrorKind::CommandNotFound, "exec: \"data\": executable file not found in $PATH".into())
        );
        let data = path("data").display().to_string();
        assert_eq!(
            kind_and_text(&data),
            (ErrorKind::NotExecutable, format!("exec: {data:?}: permission denied"))
        );
        assert_eq!(kind_and_text("/").0, ErrorKind::NotExecutable);
        assert_eq!(
            kind_and_text("/none"),
            (ErrorKind::CommandNotFound, "exec: \"/none\": stat /none: no such file or directory".into())
        );
    }
}
