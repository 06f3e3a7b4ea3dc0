//! The container's view of files, made from inside its new mount namespace before `pivot_root`.
//!
//! The root file system is a detached mount attached over `/`, which lookups from the caller's root do not see. Every
//! target is opened inside it with openat2 and mounted on through its descriptor.

use crate::error::StepExt;
use crate::plan::{Device, MountKind, MountPlan, Plan};
use crate::{Error, ErrorKind};
use hull_cgroup::Cgroup;
use hull_fsroot::Root;
use hull_mount::{
    MountOptions, attach, change_propagation, clone_of, new_filesystem_and_context, set_attributes,
    set_attributes_privately,
};
use hull_sys::fd::Spent;
use oci_spec::runtime::LinuxDeviceType;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What was opened for a bind mount before the container existed.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) mount: OwnedFd,
    pub(crate) is_directory: bool,
}

/// The container's root file system while it is being filled.
pub(crate) struct RootFs<'a> {
    plan: &'a Plan,
    root: Root<BorrowedFd<'a>>,
    /// Descriptors by the dozen, each worth a system call to close.
    spent: Spent,
}

impl<'a> RootFs<'a> {
    /// Takes the tree of mounts out of the caller's propagation and attaches the root.
    pub(crate) fn enter(plan: &'a Plan, root: &'a OwnedFd) -> Result<Self, Error> {
        use rustix::mount::{MountPropagationFlags as Flags, mount_change};
        mount_change(c"/", Flags::DOWNSTREAM | Flags::REC).step(|| "make the mounts slaves".into())?;
        hull_mount::attach_beneath_root(root)?;
        Ok(Self { plan, root: Root::new(root.as_fd()), spent: Spent::default() })
    }

    /// Takes a descriptor nobody needs any more; closed with the others by [`Self::pivot`].
    pub(crate) fn done_with(&self, fd: OwnedFd) {
        self.spent.add(fd);
    }

    pub(crate) fn root(&self) -> &Root<BorrowedFd<'a>> {
        &self.root
    }

    /// One mount of the configuration.
    pub(crate) fn mount(
        &self,
        mount: &MountPlan,
        source: Option<&Source>,
        cgroup: Option<&Cgroup>,
    ) -> Result<(), Error> {
        let done = match &mount.kind {
            MountKind::Bind { .. } => self.bind(mount, source),
            MountKind::Filesystem { kind, source } => self.filesystem(mount, kind, source.as_deref()),
            MountKind::Cgroup => self.cgroup(mount, cgroup),
            MountKind::Remount => self.remount(mount),
        };
        done.map_err(|error| Error::Inside {
            kind: error.kind(),
            message: format!("mount on /{}: {}", mount.destination.display(), error.chain()),
        })
    }

    fn bind(&self, mount: &MountPlan, source: Option<&Source>) -> Result<(), Error> {
        let source = source.ok_or(Error::Vanished("opening bind mounts"))?;
        let target = if source.is_directory {
            self.root.mkdir_all(&mount.destination, Mode::from_raw_mode(0o755))?
        } else {
            self.root.create_file(&mount.destination, Mode::from_raw_mode(0o755))?
        };
        refuse_proc(&target, mount, &source.mount)?;
        attach(&source.mount, &target)?;
        self.spent.add(target);
        self.propagate(mount, &source.mount)
    }

    /// A detached mount of a new file system.
    fn new_filesystem(
        &self,
        kind: &str,
        source: Option<&str>,
        options: &MountOptions,
    ) -> Result<OwnedFd, Error> {
        let (mount, context) = new_filesystem_and_context(kind, source, options)?;
        self.spent.add(context);
        Ok(mount)
    }

    /// Propagation is set once attached, since an anonymous mount has no peers to speak of.
    fn propagate(&self, mount: &MountPlan, attached: &OwnedFd) -> Result<(), Error> {
        for (propagation, recursive) in &mount.options.propagation {
            change_propagation(attached, *recursive, *propagation)?;
        }
        Ok(())
    }

    fn filesystem(&self, mount: &MountPlan, kind: &str, source: Option<&str>) -> Result<(), Error> {
        let covers = kind == "tmpfs" && self.root.resolve_if_exists(&mount.destination)?.is_some();
        let target = self.directory_for(mount, kind)?;
        if kind != "proc" {
            refuse_proc(&target, mount, &target)?;
        }
        let mut options = mount.options.clone();
        if let Some(label) = &self.plan.mount_label
            && !matches!(kind, "proc" | "sysfs")
        {
            options.data.push(format!("context={label}"));
        }
        if covers && !options.data.iter().any(|option| option.starts_with("mode=")) {
            // As runc: a tmpfs looks like the directory it covers, and is anybody's where there was none.
            let stat = rustix::fs::fstat(&target).step(|| "stat the directory below".into())?;
            options.data.push(format!("mode={:o}", stat.st_mode & 0o7777));
        }
        let read_only_later = options.copy_up && options.set.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
        if read_only_later {
            options.set -= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        let new = self.new_filesystem(kind, source, &options)?;
        if options.copy_up {
            crate::copy_up::copy(&target, &new)?;
        }
        if read_only_later {
            set_attributes(&new, false, MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty())?;
        }
        attach(&new, &target)?;
        self.spent.add(target);
        self.propagate(mount, &new)?;
        self.spent.add(new);
        Ok(())
    }

    /// procfs and sysfs go on real directories only: the image could lead them elsewhere by a symbolic link
    /// (CVE-2019-19921).
    fn directory_for(&self, mount: &MountPlan, kind: &str) -> Result<OwnedFd, Error> {
        let mode = Mode::from_raw_mode(0o755);
        if !matches!(kind, "proc" | "sysfs") {
            return Ok(self.root.mkdir_all(&mount.destination, mode)?);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.root.open_with(&mount.destination, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(error) if error.source == Errno::NOENT => {
                Ok(self.root.mkdir_all(&mount.destination, mode)?)
            }
            Err(error) if matches!(error.source, Errno::LOOP | Errno::NOTDIR) => Err(Error::Inside {
                kind: ErrorKind::InvalidSpec,
                message: format!(
                    "filesystem {kind:?} must be mounted on ordinary directory: {}",
                    crate::error::chain(&error)
                ),
            }),
            other => Ok(other?),
        }
    }

    fn remount(&self, mount: &MountPlan) -> Result<(), Error> {
        let target = self.root.resolve(&mount.destination)?;
        set_attributes(&target, false, mount.options.set, mount.options.clear)?;
        self.propagate(mount, &target)
    }

    /// The container's own cgroup: a copy of its directories, which in a cgroup namespace look like whole hierarchies. On v2
    /// and without such a namespace it is the whole hierarchy, so that the paths in `/proc/<pid>/cgroup` are found in it.
    fn cgroup(&self, mount: &MountPlan, cgroup: Option<&Cgroup>) -> Result<(), Error> {
        let target = self.root.mkdir_all(&mount.destination, Mode::from_raw_mode(0o755))?;
        refuse_proc(&target, mount, &target)?;
        let options = &mount.options;
        let Some(cgroup) = cgroup else { return self.inherited_cgroup(mount, &target) };
        let own = self.plan.namespaces.separate(hull_sys::CloneFlags::NEWCGROUP);
        let unified = if own { cgroup.unified_directory() } else { cgroup.unified_root() };
        if let Some(directory) = unified {
            let tree = hull_mount::bind(&directory, false)?;
            set_attributes_privately(&tree, false, options.set, MountAttrFlags::empty())?;
            attach(&tree, &target)?;
            return self.propagate(mount, &tree);
        }
        let tmpfs = hull_mount::parse_options(&["mode=755", "size=64k"])
            .map_err(|error| Error::spec("mounts", error.to_string()))?;
        let mut tmpfs = tmpfs;
        tmpfs.set = options.set - MountAttrFlags::MOUNT_ATTR_RDONLY;
        let top = self.new_filesystem("tmpfs", Some("cgroup"), &tmpfs)?;
        attach(&top, &target)?;
        self.spent.add(target);
        for (controllers, directory) in cgroup.v1_directories() {
            self.cgroup_hierarchy(&top, &controllers, &directory)?;
        }
        // The hierarchies too, at once.
        set_attributes_privately(&top, true, options.set, options.clear & MountAttrFlags::MOUNT_ATTR__ATIME)?;
        self.propagate(mount, &top)?;
        self.spent.add(top);
        Ok(())
    }

    /// Without a cgroup of its own a container sees the caller's: through a namespace of v2 just that, else all.
    fn inherited_cgroup(&self, mount: &MountPlan, target: &OwnedFd) -> Result<(), Error> {
        let own = self.plan.namespaces.separate(hull_sys::CloneFlags::NEWCGROUP);
        let v2 = hull_cgroup::Cgroups::detect()?.mode() == hull_cgroup::Mode::V2;
        let tree = if own && v2 {
            self.new_filesystem("cgroup2", Some("cgroup"), &mount.options)?
        } else {
            let tree = hull_mount::bind(Path::new("/sys/fs/cgroup"), true)?;
            set_attributes_privately(&tree, true, mount.options.set, MountAttrFlags::empty())?;
            tree
        };
        attach(&tree, target)?;
        self.propagate(mount, &tree)
    }

    fn cgroup_hierarchy(&self, top: &OwnedFd, controllers: &str, directory: &Path) -> Result<(), Error> {
        let failed = || format!("make the directory of cgroup {controllers}");
        rustix::fs::mkdirat(top, controllers, Mode::from_raw_mode(0o755)).step(failed)?;
        let tree = hull_mount::bind(directory, false)?;
        // The tmpfs is new and this process the only one in the container.
        hull_mount::attach_at(&tree, top, controllers)?;
        self.spent.add(tree);
        if controllers.contains(',') {
            for name in controllers.split(',') {
                rustix::fs::symlinkat(controllers, top, name).step(failed)?;
            }
        }
        Ok(())
    }

    /// Device nodes, the links every program expects, `/dev/ptmx`.
    pub(crate) fn fill_dev(&self) -> Result<(), Error> {
        // Most are in /dev, which is looked up once.
        let dev = self.root.mkdir_all("dev", Mode::from_raw_mode(0o755))?;
        for device in &self.plan.devices {
            let done = match device.path.strip_prefix("dev").ok().filter(|name| is_one_name(name)) {
                Some(name) => self.device(device, dev.as_fd(), name.as_os_str()),
                None => self
                    .root
                    .parent_of(&device.path)
                    .map_err(Error::from)
                    .and_then(|(parent, name)| self.device(device, parent.as_fd(), name)),
            };
            done.map_err(|error| Error::Inside {
                kind: error.kind(),
                message: format!("make device /{}: {}", device.path.display(), error.chain()),
            })?;
        }
        const LINKS: [(&str, &str); 5] = [
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
            ("/proc/kcore", "core"),
        ];
        for (target, name) in LINKS {
            match rustix::fs::symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).step(|| format!("link /dev/{name}")),
            }
        }
        let link = || rustix::fs::symlinkat("pts/ptmx", &dev, "ptmx");
        let linked = match link() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()).step(|| "remove /dev/ptmx".into())?;
                link()
            }
            other => other,
        };
        linked.step(|| "link /dev/ptmx".into())?;
        self.spent.add(dev);
        Ok(())
    }

    fn device(&self, device: &Device, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
        let kind = match device.kind {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = rustix::fs::makedev(device.major, device.minor);
        if self.plan.namespaces.separate(hull_sys::CloneFlags::NEWUSER) && kind != FileType::Fifo {
            return self.bind_device(device, kind, number);
        }
        match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number) {
            Ok(()) => {}
            Err(Errno::PERM) if kind != FileType::Fifo => return self.bind_device(device, kind, number),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                    .step(|| "stat what is there".into())?;
                return check_device(&stat, kind, number);
            }
            Err(error) => return Err(error).step(|| "mknod".into()),
        }
        if (device.uid, device.gid) != (0, 0) {
            let owner = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
            rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
                .step(|| "chown".into())?;
        }
        Ok(())
    }

    /// Where nodes cannot be made (a user namespace), the caller's node is bound.
    fn bind_device(&self, device: &Device, kind: FileType, number: u64) -> Result<(), Error> {
        let host = Path::new("/").join(&device.path);
        let open = rustix::fs::open(&host, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("open {}", host.display()))?;
        let stat = rustix::fs::fstat(&open).step(|| format!("stat {}", host.display()))?;
        check_device(&stat, kind, number)?;
        let target = self.root.create_file(&device.path, Mode::from_raw_mode(0o666))?;
        Ok(attach(clone_of(&open, false)?, target)?)
    }

    /// Mounts the terminal on `/dev/console`, which must not be a link of the image to what it wants covered
    /// (CVE-2025-52565).
    pub(crate) fn console(&self, slave: &OwnedFd) -> Result<(), Error> {
        let (parent, name) = self.root.parent_of(Path::new("dev/console"))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o666)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).step(|| "make /dev/console".into()),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target =
            rustix::fs::openat(&parent, name, flags, Mode::empty()).step(|| "open /dev/console".into())?;
        let stat = rustix::fs::fstat(&target).step(|| "stat /dev/console".into())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::CharacterDevice => Ok(attach(clone_of(slave, false)?, target)?),
            kind => {
                let message = format!("/dev/console is no file to mount the terminal on, but a {kind:?}");
                Err(Error::Inside { kind: ErrorKind::Other, message })
            }
        }
    }

    /// Hides paths: files behind the null device, directories behind an empty read-only tmpfs. Missing ones are fine.
    pub(crate) fn mask(&self) -> Result<(), Error> {
        if self.plan.masked_paths.is_empty() {
            return Ok(());
        }
        let null = self.null_device()?;
        let mut empty: Option<OwnedFd> = None;
        for path in &self.plan.masked_paths {
            let Some(target) = self.root.resolve_if_exists(path)? else { continue };
            let failed = |error: Error| Error::Inside {
                kind: error.kind(),
                message: format!("mask {path}: {}", error.chain()),
            };
            let stat = rustix::fs::fstat(&target).step(|| format!("stat masked path {path}"))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let mount = clone_of(&null, false)?;
                attach(&mount, &target).map_err(|error| failed(error.into()))?;
                self.spent.add(mount);
                self.spent.add(target);
                continue;
            }
            // One file system serves all; only an attached mount can be copied.
            let mount = match &empty {
                Some(first) => clone_of(first, false)?,
                None => self.empty_filesystem()?,
            };
            attach(&mount, &target).map_err(|error| failed(error.into()))?;
            self.spent.add(target);
            if let Some(copy) = empty.replace(mount) {
                self.spent.add(copy);
            }
        }
        self.spent.add(null);
        empty.into_iter().for_each(|mount| self.spent.add(mount));
        Ok(())
    }

    /// The null device, checked to be that: what masks a file must not be a file the image put there (CVE-2025-31133).
    fn null_device(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::open(c"/dev/null", flags, Mode::empty()).step(|| "open /dev/null".into())?;
        let stat = rustix::fs::fstat(&null).step(|| "stat /dev/null".into())?;
        check_device(&stat, FileType::CharacterDevice, rustix::fs::makedev(1, 3))?;
        Ok(null)
    }

    /// Makes paths read-only, with what is mounted below. Missing ones are fine.
    pub(crate) fn make_readonly(&self) -> Result<(), Error> {
        for path in &self.plan.readonly_paths {
            let Some(target) = self.root.resolve_if_exists(path)? else { continue };
            let tree = clone_of(&target, true)?;
            set_attributes(&tree, true, MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty())?;
            attach(&tree, &target).map_err(|error| Error::Inside {
                kind: ErrorKind::Other,
                message: format!("make {path} read-only: {}", crate::error::chain(&error)),
            })?;
            self.spent.add(tree);
            self.spent.add(target);
        }
        Ok(())
    }

    /// The working directory is made when it is missing, as runc does.
    pub(crate) fn ensure_directory(&self, path: &Path) -> Result<(), Error> {
        if path == Path::new("/") {
            return Ok(());
        }
        match self.root.mkdir_all(path, Mode::from_raw_mode(0o755)) {
            Ok(_) => Ok(()),
            // The later chdir says what is wrong, if anything is.
            Err(error) if matches!(error.source, Errno::ROFS | Errno::ACCESS | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the prepared tree the root of the mount namespace.
    pub(crate) fn pivot(&self, no_pivot: bool) -> Result<(), Error> {
        if self.plan.root_readonly {
            set_attributes(&self.root, false, MountAttrFlags::MOUNT_ATTR_RDONLY, MountAttrFlags::empty())?;
        }
        if no_pivot {
            self.unmount_what_shows_the_machine()?;
            rustix::process::fchdir(&self.root).step(|| "enter the new root".into())?;
            rustix::process::chroot(c".").step(|| "chroot".into())?;
            rustix::process::chdir(c"/").step(|| "enter /".into())?;
        } else {
            hull_mount::detach_root(&self.root)?;
        }
        if let Some((propagation, recursive)) = self.plan.propagation {
            change_propagation(&self.root, recursive, propagation)?;
        }
        self.spent.close();
        Ok(())
    }

    /// Without pivot_root the caller's mounts stay, out of reach but in the namespace: with a procfs or sysfs among them that
    /// shows everything, the kernel would let the container mount another such.
    fn unmount_what_shows_the_machine(&self) -> Result<(), Error> {
        use rustix::mount::{UnmountFlags, unmount};
        let shows = |mount: &hull_mount::MountInfo| matches!(mount.kind.as_str(), "proc" | "sysfs");
        for mount in hull_mount::mountinfo()?.iter().filter(|mount| shows(mount)).rev() {
            match unmount(&mount.mount_point, UnmountFlags::DETACH) {
                // Went with the one it was on; or is covered, so that nobody sees it.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(error) => return Err(error).step(|| format!("unmount {}", mount.mount_point.display())),
            }
        }
        Ok(())
    }

    fn empty_filesystem(&self) -> Result<OwnedFd, Error> {
        let options = ["ro", "nosuid", "nodev", "noexec", "mode=755", "nr_inodes=1"];
        let options = hull_mount::parse_options(&options)
            .map_err(|error| Error::spec("linux.maskedPaths", error.to_string()))?;
        self.new_filesystem("tmpfs", Some("tmpfs"), &options)
    }
}

/// A name in a directory, no path.
fn is_one_name(path: &Path) -> bool {
    let mut components = path.components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

fn check_device(stat: &rustix::fs::Stat, kind: FileType, number: u64) -> Result<(), Error> {
    if FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number) {
        return Ok(());
    }
    let message = "what is there is not the device it should be".into();
    Err(Error::Inside { kind: ErrorKind::Other, message })
}

/// Nothing is mounted inside procfs but what is known to be harmless (CVE-2019-16884): it would change what the kernel's
/// files seem to say, and where later writes to them go.
fn refuse_proc(target: &OwnedFd, mount: &MountPlan, source: &OwnedFd) -> Result<(), Error> {
    const HARMLESS: [&str; 10] = [
        "proc/cpuinfo",
        "proc/diskstats",
        "proc/meminfo",
        "proc/stat",
        "proc/swaps",
        "proc/uptime",
        "proc/loadavg",
        "proc/slabinfo",
        "proc/sys/kernel/ns_last_pid",
        "proc/sys/crypto/fips_enabled",
    ];
    let magic = |fd: &OwnedFd| rustix::fs::fstatfs(fd).map(|fs| fs.f_type as u64);
    if magic(target).step(|| "stat the file system below".into())? != PROC_SUPER_MAGIC
        || HARMLESS.iter().any(|path| mount.destination == Path::new(path))
    {
        return Ok(());
    }
    // procfs over procfs, as a privileged container may want: /proc itself only.
    if mount.destination == Path::new("proc")
        && !std::ptr::eq(target, source)
        && magic(source).step(|| "stat the source's file system".into())? == PROC_SUPER_MAGIC
    {
        return Ok(());
    }
    Err(Error::Inside {
        kind: ErrorKind::InvalidSpec,
        message: "cannot be mounted because it is inside /proc".into(),
    })
}
