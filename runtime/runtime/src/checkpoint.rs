//! Checkpoint and restore of containers, with CRIU doing the work.
//!
//! What is written besides CRIU's images, `descriptors.json`, and the names of what is outside the container are those of
//! runc: an image of one is restored by the other. Source: criu(8), runc-checkpoint(8).

use crate::criu::{Criu, Fields, Kind, Start};
use crate::error::StepExt;
use crate::hooks::{self, HookKind, HookState};
use crate::plan::{MountKind, Placement, Plan};
use crate::request::Created;
use crate::resctrl::Made;
use crate::scope;
use crate::{Error, container::Container};
use hull_cgroup::systemd::Manager;
use hull_cgroup::{Cgroup, Cgroups};
use hull_fsroot::Root;
use hull_sys::CloneFlags;
use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the standard streams of a checkpointed process led.
const DESCRIPTORS: &str = "descriptors.json";
/// Which configuration file CRIU reads besides its own.
const CRIU_CONFIG: &str = "org.criu.config";

/// How CRIU treats cgroups; criu(8), `--manage-cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Leaves them alone.
    Ignore = 0,
    /// Restores properties of those it made.
    #[default]
    Soft = 3,
    /// Restores all properties.
    Full = 4,
    /// Fails if any is there.
    Strict = 5,
}

/// Options that checkpoint and restore have in common.
#[derive(Debug, Default)]
pub struct Options {
    /// CRIU's program.
    pub program: PathBuf,
    /// Directory of the images.
    pub images: PathBuf,
    /// Directory of logs; that of the images when absent.
    pub work: Option<PathBuf>,
    /// Images of an earlier pre-dump, relative to the images.
    pub parent: Option<String>,
    /// Leave the container running.
    pub leave_running: bool,
    /// Established TCP connections.
    pub tcp_established: bool,
    /// Leave out TCP connections being opened.
    pub tcp_skip_in_flight: bool,
    /// Files that are open but removed get a name again.
    pub link_remap: bool,
    /// Unix sockets connected to the outside.
    pub ext_unix_sk: bool,
    /// Processes with a controlling terminal from outside.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// Memory pages on demand.
    pub lazy_pages: bool,
    /// Descriptor that gets a zero byte when the server of pages is ready.
    pub status_fd: Option<OwnedFd>,
    /// Address and port of a page server.
    pub page_server: Option<(String, u16)>,
    /// Memory only, the container runs on.
    pub pre_dump: bool,
    /// Cgroups.
    pub cgroup_mode: CgroupMode,
    /// Kinds of namespaces whose content is left out.
    pub empty_namespaces: u64,
    /// Have criu hold up the network with nftables, where there is no iptables-restore.
    pub lock_with_nftables: bool,
    /// Removes from parent images what this image has.
    pub auto_dedup: bool,
    /// `apparmor:profile` or `selinux:label` instead of the one that was.
    pub lsm_profile: Option<String>,
    /// SELinux context of mounts instead of the one that was.
    pub lsm_mount_context: Option<String>,
}

/// A container to restore.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its configuration.
    pub spec: &'a Spec,
    /// Directory that relative paths of the configuration start from.
    pub bundle: &'a Path,
    /// An empty directory, for the root to be mounted on while CRIU works, in a namespace of CRIU's own.
    pub mount_point: &'a Path,
    /// What CRIU is told.
    pub options: &'a Options,
    /// The service manager that makes the cgroup.
    pub systemd: Option<&'a Manager>,
}

fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open {}", path.display()))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).step(|| format!("make {}", path.display())),
    }
}

/// Directories of images and logs, open while CRIU reads them through this process.
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
}

impl Directories {
    fn open(options: &Options, make: bool) -> Result<Self, Error> {
        for path in std::iter::once(&options.images).chain(&options.work) {
            if make || Some(path) == options.work.as_ref() {
                make_directory(path)?;
            }
        }
        let work = options.work.as_deref().map(open_directory).transpose()?;
        Ok(Self { images: open_directory(&options.images)?, work })
    }
}

/// What both requests say. Numbers are those of `criu_opts`.
fn common(options: &Options, directories: &Directories, log: &str, spec: &Spec) -> Fields {
    let mut fields = Fields::default();
    fields.number(1, directories.images.as_raw_fd().into());
    fields.number(9, 4).text(10, log);
    fields.flag(12, true);
    fields.flag(4, options.ext_unix_sk).flag(5, options.tcp_established).flag(7, options.shell_job);
    fields.flag(8, options.file_locks).flag(16, options.auto_dedup).flag(18, options.link_remap);
    fields.flag(24, true).number(34, options.cgroup_mode as i64);
    fields.number(38, options.empty_namespaces as i64).flag(48, options.lazy_pages).flag(50, true);
    if options.lock_with_nftables {
        fields.number(64, 2);
    }
    if let Some(work) = &directories.work {
        fields.number(17, work.as_raw_fd().into());
    }
    let config = spec.annotations().as_ref().and_then(|annotations| annotations.get(CRIU_CONFIG));
    match config.map(String::as_str) {
        Some("") => {}
        Some(file) => drop(fields.text(51, file)),
        None => drop(fields.text(51, "/etc/criu/runc.conf")),
    }
    fields
}

fn external_mount(fields: &mut Fields, key: &str, value: &str) {
    fields.message(23, |mount| {
        mount.text(1, key).text(2, value);
    });
}

/// What is mounted from outside: key of each, and the source it has when it is restored.
fn external_mounts(plan: &Plan, devices: bool) -> Vec<(String, String)> {
    let mut mounts = Vec::new();
    for mount in &plan.mounts {
        let key = format!("/{}", mount.destination.display());
        if let MountKind::Bind { source } = &mount.kind {
            mounts.push((key, source.display().to_string()));
        }
    }
    if devices {
        // Bound from the caller's where nodes cannot be made.
        let path = |device: &crate::plan::Device| format!("/{}", device.path.display());
        mounts.extend(plan.devices.iter().map(|device| (path(device), path(device))));
    }
    mounts
}

/// Files that are masked by the null device, seen from outside through the first process's root.
fn masked_files(plan: &Plan, pid: i32) -> Result<Vec<String>, Error> {
    let root = format!("/proc/{pid}/root");
    let root =
        rustix::fs::open(root.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open the container's root".into())?;
    let root = Root::new(root);
    let mut files = Vec::new();
    for path in &plan.masked_paths {
        let Some(target) = root.resolve_if_exists(path)? else { continue };
        let stat = rustix::fs::fstat(&target).step(|| format!("stat {path}"))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Kinds of namespaces that CRIU takes as given when they were entered by path.
const EXTERNAL: [(CloneFlags, &str, &str); 2] =
    [(CloneFlags::NEWNET, "net", "extRootNetNS"), (CloneFlags::NEWPID, "pid", "extRootPidNS")];

/// Writes a container's processes into images. Unless it is left running it has ended then.
pub fn checkpoint(container: &Container, options: &Options) -> Result<(), Error> {
    let spec = container.spec()?;
    let manager = container.record.scope.as_ref().map(scope::Scope::manager);
    let plan = Plan::new(&spec, &container.record.bundle, manager.as_ref())?;
    let pid = container.record.pid;
    let directories = Directories::open(options, true)?;
    let mut fields = common(options, &directories, "dump.log", &spec);
    fields.text(13, &container.record.rootfs.display().to_string()).number(2, pid.into());
    fields.flag(3, options.leave_running).flag(46, options.tcp_skip_in_flight);
    if let Some((address, port)) = &options.page_server {
        fields.message(11, |server| {
            server.text(1, address).number(2, (*port).into());
        });
    }
    if let Some(parent) = &options.parent {
        fields.text(14, parent).flag(15, true);
    }
    if let Some(directory) = container.cgroup()?.and_then(|cgroup| cgroup.freezer_directory()) {
        fields.text(44, &directory.display().to_string());
    }
    for (kind, name, key) in EXTERNAL {
        let Some(join) = plan.namespaces.join.iter().find(|join| join.kind == kind) else { continue };
        let stat = rustix::fs::stat(&join.path).step(|| format!("stat {}", join.path.display()))?;
        fields.text(37, &format!("{name}[{}]:{key}", stat.st_ino));
    }
    if !options.pre_dump {
        for (key, _) in external_mounts(&plan, plan.new_user()) {
            external_mount(&mut fields, &key, &key);
        }
        for path in masked_files(&plan, pid)? {
            external_mount(&mut fields, &path, "/dev/null");
        }
        write_descriptors(pid, &options.images)?;
    }
    let start = Start { program: &options.program, namespaces: CloneFlags::empty(), inherited: &[] };
    let criu = Criu::start(&start, || Ok(()))?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let done = criu.serve(kind, &fields, |event, _, _| match (event, &options.status_fd) {
        ("status-ready", Some(fd)) => {
            rustix::io::write(fd, &[0]).step(|| "write to the status descriptor".into()).map(drop)
        }
        _ => Ok(()),
    });
    criu.finish();
    done.map(drop).map_err(|error| with_log(error, options, "dump.log"))
}

fn write_descriptors(pid: i32, images: &Path) -> Result<(), Error> {
    let target = |number: i32| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
        link.map_or_else(|_| String::new(), |target| target.display().to_string())
    };
    let text = serde_json::json!([target(0), target(1), target(2)]).to_string();
    let path = images.join(DESCRIPTORS);
    std::fs::write(&path, text)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
        .step(|| format!("write {}", path.display()))
}

/// The error with what CRIU logged of it.
fn with_log(error: Error, options: &Options, log: &str) -> Error {
    let path = options.work.as_ref().unwrap_or(&options.images).join(log);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("Error (")).collect();
    let last: Vec<_> = lines.iter().rev().take(3).rev().copied().collect();
    let said = if last.is_empty() { String::new() } else { format!(": {}", last.join("; ")) };
    let message = format!("{} (log: {}){said}", error.chain(), path.display());
    Error::Inside { kind: error.kind(), message }
}

/// Makes a container again from images. Its first process is a child of the caller, and runs.
pub fn restore(request: &RestoreRequest<'_>) -> Result<Created, Error> {
    let plan = Plan::new(request.spec, request.bundle, request.systemd)?;
    hooks::check(request.spec)?;
    let directories = Directories::open(request.options, false)?;
    let root = request.spec.root().as_ref().ok_or_else(|| Error::spec("root", "is required"))?;
    let root = request.bundle.join(root.path());
    make_mount_points(&plan, &root)?;
    let mut fields = common(request.options, &directories, "restore.log", request.spec);
    fields.text(13, &request.mount_point.display().to_string()).flag(26, true);
    for (key, source) in external_mounts(&plan, plan.new_user()) {
        external_mount(&mut fields, &key, &source);
    }
    for path in &plan.masked_paths {
        external_mount(&mut fields, path, "/dev/null");
    }
    if let Some(profile) = &request.options.lsm_profile {
        fields.text(53, profile);
    }
    if let Some(context) = &request.options.lsm_mount_context {
        fields.text(63, context);
    }
    let inherited = inherit(&plan, request.options, &mut fields)?;
    Restoring { request, plan: &plan, root: &root }.run(fields, &inherited)
}

/// Directories and files that are mounted on, in a root that may be a new one.
fn make_mount_points(plan: &Plan, root: &Path) -> Result<(), Error> {
    let root = Root::new(open_directory(root)?);
    for mount in &plan.mounts {
        let file = match &mount.kind {
            MountKind::Bind { source } => !source.is_dir(),
            _ => false,
        };
        let mode = Mode::from_raw_mode(0o755);
        if file {
            root.create_file(&mount.destination, mode)?
        } else {
            root.mkdir_all(&mount.destination, mode)?
        };
    }
    Ok(())
}

/// Namespaces and streams from outside, which CRIU gets as descriptors.
fn inherit(plan: &Plan, options: &Options, fields: &mut Fields) -> Result<Vec<OwnedFd>, Error> {
    let mut inherited = Vec::new();
    let mut give = |fields: &mut Fields, key: &str, fd: OwnedFd| {
        fields.message(27, |inherit| {
            inherit.text(1, key).number(2, fd.as_raw_fd().into());
        });
        inherited.push(fd);
    };
    for join in &plan.namespaces.join {
        if let Some((_, _, key)) = EXTERNAL.iter().find(|(kind, ..)| *kind == join.kind) {
            let open = rustix::fs::open(&join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            give(fields, key, open.step(|| format!("open namespace {}", join.path.display()))?);
            continue;
        }
        let name = match join.kind {
            CloneFlags::NEWIPC => "ipc",
            CloneFlags::NEWUTS => "uts",
            CloneFlags::NEWUSER => "user",
            CloneFlags::NEWTIME => "time",
            _ => return Err(Error::spec("linux.namespaces", "criu cannot enter such a namespace by path")),
        };
        fields.message(39, |namespace| {
            namespace.text(1, name).text(2, &join.path.display().to_string());
        });
    }
    let text = std::fs::read(options.images.join(DESCRIPTORS)).unwrap_or_default();
    let targets: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    for (number, target) in
        targets.iter().enumerate().take(3).filter(|(_, target)| target.starts_with("pipe:"))
    {
        let stream = match number {
            0 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3),
            1 => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3),
            _ => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3),
        };
        give(fields, target, stream.step(|| format!("pass stream {number} on"))?);
    }
    Ok(inherited)
}

/// A restore under way.
struct Restoring<'a> {
    request: &'a RestoreRequest<'a>,
    plan: &'a Plan,
    root: &'a Path,
}

impl Restoring<'_> {
    fn run(&self, mut fields: Fields, inherited: &[OwnedFd]) -> Result<Created, Error> {
        let cgroup = self.make_cgroup()?;
        let tasks = cgroup.as_ref().map(Cgroup::join_fds).transpose();
        let done = tasks.map_err(Error::from).and_then(|tasks| {
            let tasks = tasks.unwrap_or_default();
            let namespaces = CloneFlags::NEWNS;
            let start = Start { program: &self.request.options.program, namespaces, inherited };
            // CRIU itself is in the cgroup, and what it restores with it.
            let criu = Criu::start(&start, || {
                crate::init::write_tasks(&tasks)?;
                self.mount_root()
            })?;
            let done = self.serve(&criu, &mut fields, cgroup.as_ref());
            criu.finish();
            done
        });
        match done {
            Ok(created) => Ok(created),
            Err(error) => {
                if let Some(cgroup) = &cgroup {
                    // Reported is the error that led here.
                    let _ = cgroup.kill().and_then(|()| cgroup.remove());
                }
                Err(with_log(error, self.request.options, "restore.log"))
            }
        }
    }

    fn make_cgroup(&self) -> Result<Option<Cgroup>, Error> {
        let Placement::Path(path) = &self.plan.cgroup else { return Ok(None) };
        Ok(Some(Cgroups::detect()?.create(path, Some(&self.plan.resources))?))
    }

    /// In CRIU's own mount namespace: CRIU wants the root to be a mount point.
    fn mount_root(&self) -> Result<(), Error> {
        use rustix::mount::{MountPropagationFlags as Flags, mount_change};
        mount_change(c"/", Flags::DOWNSTREAM | Flags::REC).step(|| "make the mounts slaves".into())?;
        let root = hull_mount::bind(self.root, true)?;
        Ok(hull_mount::attach(&root, &open_directory(self.request.mount_point)?)?)
    }

    fn serve(&self, criu: &Criu, fields: &mut Fields, cgroup: Option<&Cgroup>) -> Result<Created, Error> {
        let mut scope = None;
        let mut cgroup = cgroup.cloned();
        if let (Placement::Unit(unit), Some(manager)) = (&self.plan.cgroup, self.request.systemd) {
            let mut wanted = scope::Wanted::new(manager, unit, self.request.spec)?;
            let (made, unit) = wanted.make(self.request.id, criu.pid, self.plan)?;
            (cgroup, scope) = (Some(made), Some(unit));
        }
        cgroup_roots(fields, criu.pid)?;
        let mut console = None;
        let answer = criu.serve(Kind::Restore, fields, |event, pid, mut fds| match event {
            "setup-namespaces" => self.runtime_hooks(pid),
            "orphan-pts-master" => {
                console = fds.pop();
                Ok(())
            }
            _ => Ok(()),
        });
        let made = answer.and_then(|answer| {
            let pid = rustix::process::Pid::from_raw(answer.pid).ok_or(Error::Vanished("being restored"))?;
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .step(|| "open the restored process".into())?;
            Ok((answer.pid, pidfd))
        });
        let (pid, pidfd) = made.inspect_err(|_| {
            if let Some(scope) = &scope {
                let _ = scope.stop();
            }
        })?;
        Ok(Created { pid, pidfd, console, cgroup, scope, resctrl: Made::default(), go: None })
    }

    fn runtime_hooks(&self, pid: i32) -> Result<(), Error> {
        let (spec, id, bundle) = (self.request.spec, self.request.id, self.request.bundle);
        let state = HookState::new(spec, id, bundle, "creating", pid);
        hooks::run(HookKind::Prestart, spec, &state)?;
        hooks::run(HookKind::CreateRuntime, spec, &state)
    }
}

/// The cgroups CRIU is in are the roots of what it restores.
fn cgroup_roots(fields: &mut Fields, pid: i32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
        .step(|| format!("read {path}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        fields.message(25, |root| {
            if !controllers.is_empty() {
                root.text(1, controllers);
            }
            root.text(2, path);
        });
    }
    Ok(())
}
