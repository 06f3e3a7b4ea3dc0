//! Local volumes: directories that outlive containers.
//!
//! A volume is `<root>/<name>/_data`. One made with the options `type`, `device` and `o` has that file system mounted
//! on `_data` while a container uses it ([`Local::mount`]); a bind of a host directory needs no mount at all, the
//! directory itself is given to the container. Which volumes exist, their labels and options is the engine's record;
//! this crate owns the directories.
//!
//! Removal renames the volume's directory to `.removing-<name>` first, so that an interrupted removal is never seen
//! as a volume; [`Local::open`] finishes such removals. A volume begins ([`Local::begin`]) with a file `unfinished`
//! beside `_data`, which goes ([`Local::finish`]) when the engine has recorded it: what a cut leaves between the two
//! is told apart from content that somebody may miss ([`Local::unfinished`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

mod name;
mod options;

pub use name::{InvalidName, Name};
pub use options::{InvalidOptions, MountOptions};

const REMOVING: &str = ".removing-";

/// Beside `_data` until the volume is recorded.
const UNFINISHED: &str = "unfinished";

/// The directories of all local volumes of one engine.
#[derive(Debug, Clone)]
pub struct Local {
    root: PathBuf,
}

/// What failed about a volume's directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for all volumes.
    #[error("prepare volume root {path}")]
    Root {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A volume's directories could not be made.
    #[error("create volume {name}")]
    Create {
        /// Volume's name.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A volume's directory could not be removed.
    #[error("remove volume {name}")]
    Remove {
        /// Volume's name.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A volume's content could not be measured.
    #[error("measure volume {name}")]
    Measure {
        /// Volume's name.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file system of a volume could not be mounted.
    #[error("failed to mount local volume: mount {device}:{target}, flags: {flags:#x}, data: {data}")]
    Mount {
        /// What was to be mounted.
        device: String,
        /// The volume's `_data`.
        target: PathBuf,
        /// Flags of mount(2).
        flags: u32,
        /// File system options.
        data: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file system of a volume could not be unmounted.
    #[error("unmount volume {name}")]
    Unmount {
        /// Volume's name.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The options name no mount.
    #[error(transparent)]
    Options(#[from] InvalidOptions),
}

impl Local {
    /// The volumes under `root`, which is made if missing (mode 0701 as docker's: containers' users may pass, not
    /// list). Finishes interrupted removals.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Local, Error> {
        let root = root.into();
        let failed = |source| Error::Root { path: root.clone(), source };
        make_dir(&root, 0o701, true).map_err(failed)?;
        for entry in fs::read_dir(&root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(REMOVING) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(Local { root })
    }

    /// Where the volume's content is, `<root>/<name>/_data`.
    pub fn mountpoint(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str()).join("_data")
    }

    /// Whether the volume's directory exists.
    pub fn exists(&self, name: &Name) -> bool {
        self.mountpoint(name).is_dir()
    }

    /// Makes the volume's directories. One that exists already is left as it is.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn create(&self, name: &Name) -> Result<PathBuf, Error> {
        let failed = |source| Error::Create { name: name.to_string(), source };
        let data = self.mountpoint(name);
        make_dir(&self.root.join(name.as_str()), 0o701, false).map_err(failed)?;
        make_dir(&data, 0o755, false).map_err(failed)?;
        Ok(data)
    }

    /// Makes the directories of a volume that is not recorded yet; [`Local::finish`] follows its record. One that
    /// exists already is left as it is.
    ///
    /// # Errors
    /// When a directory or the mark cannot be made.
    pub fn begin(&self, name: &Name) -> Result<PathBuf, Error> {
        let directory = self.root.join(name.as_str());
        if !self.exists(name) {
            let failed = |source| Error::Create { name: name.to_string(), source };
            make_dir(&directory, 0o701, false).map_err(failed)?;
            fs::File::create(directory.join(UNFINISHED)).map_err(failed)?;
        }
        self.create(name)
    }

    /// Takes the mark of a begun volume away. One without is no error.
    ///
    /// # Errors
    /// When the mark cannot be removed.
    pub fn finish(&self, name: &Name) -> Result<(), Error> {
        match fs::remove_file(self.root.join(name.as_str()).join(UNFINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Create { name: name.to_string(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Volumes whose creation was cut off before their end: those with the mark, and empty directories.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Name>, Error> {
        let failed = |source| Error::Root { path: self.root.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| Name::parse(name).ok());
            // An empty directory was cut off before its mark; any other without the mark is not touched.
            let cut = entry.path().join(UNFINISHED).exists()
                || fs::read_dir(entry.path()).is_ok_and(|mut content| content.next().is_none());
            found.extend(name.filter(|_| cut));
        }
        Ok(found)
    }

    /// Removes the volume with all its content. One that is not there is no error.
    ///
    /// # Errors
    /// When something cannot be removed, e.g. because it is still a mount point.
    pub fn remove(&self, name: &Name) -> Result<(), Error> {
        let failed = |source| Error::Remove { name: name.to_string(), source };
        let doomed = self.root.join(format!("{REMOVING}{name}"));
        match fs::rename(self.root.join(name.as_str()), &doomed) {
            Ok(()) => fs::remove_dir_all(&doomed).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Bytes of the volume's files, each inode counted once, as `docker system df` counts.
    ///
    /// # Errors
    /// When the content cannot be read.
    pub fn size(&self, name: &Name) -> Result<u64, Error> {
        tree_size(&self.mountpoint(name)).map_err(|source| Error::Measure { name: name.to_string(), source })
    }

    /// The directory to give to a container: `_data`, with the options' file system mounted on it, or the host
    /// directory the options bind. Mounting what is mounted already changes nothing.
    ///
    /// # Errors
    /// Options that name no mount, and what mount(2) refuses.
    pub fn mount(&self, name: &Name, options: &BTreeMap<String, String>) -> Result<PathBuf, Error> {
        let target = self.mountpoint(name);
        let Some(mount) = MountOptions::parse(options)? else { return Ok(target) };
        if let Some(directory) = mount.bound_directory() {
            return bound(directory, target, &mount);
        }
        self.create(name)?;
        if is_mount_point(&target) {
            return Ok(target);
        }
        match mount.mount(&target) {
            Ok(()) => Ok(target),
            Err(source) => Err(mount_error(target, &mount, source)),
        }
    }

    /// Unmounts what [`Local::mount`] mounted, if anything.
    ///
    /// # Errors
    /// When the mount is busy.
    pub fn unmount(&self, name: &Name) -> Result<(), Error> {
        let target = self.mountpoint(name);
        if !is_mount_point(&target) {
            return Ok(());
        }
        rustix::mount::unmount(&target, rustix::mount::UnmountFlags::NOFOLLOW)
            .map_err(|error| Error::Unmount { name: name.to_string(), source: error.into() })
    }
}

/// The directory a `bind` volume stands for, if it is there.
fn bound(directory: PathBuf, target: PathBuf, mount: &MountOptions) -> Result<PathBuf, Error> {
    match fs::metadata(&directory) {
        Ok(_) => Ok(directory),
        Err(source) => Err(mount_error(target, mount, source)),
    }
}

fn mount_error(target: PathBuf, mount: &MountOptions, source: io::Error) -> Error {
    Error::Mount {
        device: mount.device().to_owned(),
        target,
        flags: mount.flag_bits(),
        data: mount.data().to_owned(),
        source,
    }
}

/// Makes a directory of exactly this mode; an existing one is left alone.
fn make_dir(path: &Path, mode: u32, parents: bool) -> io::Result<()> {
    if parents && let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        // mkdir(2) applies the umask.
        Ok(()) => fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether another file system begins at `path`. Enough for volumes, whose parent is never bound onto itself.
fn is_mount_point(path: &Path) -> bool {
    let (Ok(here), Some(Ok(above))) = (fs::symlink_metadata(path), path.parent().map(fs::symlink_metadata))
    else {
        return false;
    };
    here.dev() != above.dev()
}

/// Apparent bytes of a tree's files, each inode once; does not follow symlinks.
pub fn tree_size(root: &Path) -> io::Result<u64> {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            // Removed while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != root => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else if meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino())) {
                total += meta.len();
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> (tempfile::TempDir, Local) {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::open(dir.path().join("volumes")).unwrap();
        (dir, local)
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn unfinished_is_what_was_begun_and_not_finished() {
        let (_dir, local) = local();
        local.create(&name("old")).unwrap();
        local.begin(&name("old")).unwrap();
        local.begin(&name("done")).unwrap();
        local.finish(&name("done")).unwrap();
        local.finish(&name("done")).unwrap();
        local.begin(&name("cut")).unwrap();
        assert_eq!(local.unfinished().unwrap(), [name("cut")]);
    }

    #[test]
    fn created_measured_removed() {
        let (_dir, local) = local();
        let data = local.create(&name("data")).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o755);
        fs::write(data.join("a"), [0; 100]).unwrap();
        fs::hard_link(data.join("a"), data.join("b")).unwrap();
        fs::create_dir(data.join("d")).unwrap();
        fs::write(data.join("d/c"), [0; 11]).unwrap();
        assert_eq!(local.size(&name("data")).unwrap(), 111);
        local.create(&name("data")).unwrap();
        assert!(data.join("d/c").exists(), "creating again keeps the content");
        local.remove(&name("data")).unwrap();
        local.remove(&name("data")).unwrap();
        assert!(!local.exists(&name("data")));
    }

    #[test]
    fn interrupted_removals_are_finished() {
        let (dir, local) = local();
        let data = local.create(&name("gone")).unwrap();
        fs::write(data.join("a"), "x").unwrap();
        let root = dir.path().join("volumes");
        fs::rename(root.join("gone"), root.join(".removing-gone")).unwrap();
        Local::open(&root).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn bind_options_give_the_directory_itself() {
        let (dir, local) = local();
        let wanted = dir.path().join("mine");
        let options: BTreeMap<String, String> =
            [("type", "none"), ("o", "bind"), ("device", wanted.to_str().unwrap())]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        assert!(matches!(local.mount(&name("bound"), &options), Err(Error::Mount { .. })));
        fs::create_dir(&wanted).unwrap();
        assert_eq!(local.mount(&name("bound"), &options).unwrap(), wanted);
        assert_eq!(local.mount(&name("plain"), &BTreeMap::new()).unwrap(), local.mountpoint(&name("plain")));
    }
}
