//! Where the hierarchies are.

use crate::{Error, Mode, Result};
use rustix::fs::{FileType, Mode as FileMode, OFlags, RawDir};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its controllers: `cpu`, `cpuacct`, `name=systemd` as `systemd`; empty for cgroup2.
    pub(crate) controllers: Vec<String>,
    pub(crate) mount_point: PathBuf,
}

/// The hierarchies of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) mode: Mode,
    /// v1 hierarchies; none on v2.
    pub(crate) v1: Vec<Hierarchy>,
    /// The cgroup2 mount, on hybrid and v2.
    pub(crate) unified: Option<PathBuf>,
}

fn kind_of(path: &Path) -> u64 {
    rustix::fs::statfs(path).map_or(0, |fs| fs.f_type as u64)
}

impl Layout {
    /// Looks at `/sys/fs/cgroup`, where every distribution mounts them: a listing costs less than mountinfo, whose length
    /// grows with the machine's mounts. Anything unusual there is answered by mountinfo.
    pub(crate) fn detect() -> Result<Self> {
        let root = Path::new(CGROUP_ROOT);
        match kind_of(root) {
            CGROUP2_SUPER_MAGIC => {
                Ok(Self { mode: Mode::V2, v1: Vec::new(), unified: Some(root.to_owned()) })
            }
            TMPFS_MAGIC => Self::from_directory(root),
            _ => Self::from_mountinfo(),
        }
    }

    fn from_directory(root: &Path) -> Result<Self> {
        let failed = |source| Error::File { operation: "list".into(), path: root.into(), source };
        let directory =
            rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
                .map_err(failed)?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&directory, &mut buffer);
        let (mut v1, mut unified) = (Vec::new(), None);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Symbolic links are second names of hierarchies with several controllers.
            if entry.file_type() != FileType::Directory || name.starts_with('.') {
                continue;
            }
            let mount_point = root.join(&name);
            match kind_of(&mount_point) {
                CGROUP_SUPER_MAGIC => {
                    let controllers = name.split(',').map(str::to_owned).collect();
                    v1.push(Hierarchy { controllers, mount_point });
                }
                CGROUP2_SUPER_MAGIC => unified = Some(mount_point),
                _ => {}
            }
        }
        Self::of(v1, unified)
    }

    fn from_mountinfo() -> Result<Self> {
        let text = crate::file::read(Path::new("/proc/self/mountinfo"))?;
        let (mut v1, mut unified) = (Vec::new(), None);
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default().split(',');
                    let controllers = options
                        .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "clone_children"))
                        .map(|option| option.strip_prefix("name=").unwrap_or(option).to_owned())
                        .collect();
                    v1.push(Hierarchy { controllers, mount_point: mount_point.into() });
                }
                Some("cgroup2") => unified = unified.or_else(|| Some(PathBuf::from(mount_point))),
                _ => {}
            }
        }
        Self::of(v1, unified)
    }

    fn of(v1: Vec<Hierarchy>, unified: Option<PathBuf>) -> Result<Self> {
        let mode = match (v1.is_empty(), &unified) {
            (true, None) => return Err(Error::NotMounted),
            (true, Some(_)) => Mode::V2,
            (false, Some(_)) => Mode::Hybrid,
            (false, None) => Mode::V1,
        };
        Ok(Self { mode, v1, unified })
    }
}
