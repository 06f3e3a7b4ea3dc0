//! Paths inside a root that cannot leave it (openat2, `RESOLVE_IN_ROOT`).
//!
//! A [`Root`] is a directory descriptor. Every path given to it is looked up by the kernel with that directory as `/`:
//! `..` and absolute symbolic links stay inside, magic links are refused. Results are descriptors, so that what was
//! checked is what is used.

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A failed operation on a path inside a root.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {} inside the root", path.display())]
pub struct Error {
    /// What was tried: `open`, `mkdir`, `create`, …
    pub operation: &'static str,
    /// The path, as seen from the root.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: Errno,
}

/// Result of an operation inside a root.
pub type Result<T> = std::result::Result<T, Error>;

/// A directory that is `/` for all paths looked up through it.
#[derive(Debug)]
pub struct Root<F: AsFd = OwnedFd> {
    directory: F,
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// How many links a path may have on it, as the kernel counts (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// openat2 answers EAGAIN when a rename or mount anywhere raced with a `..`; the man page says to try again.
const ATTEMPTS: usize = 128;

impl Root<OwnedFd> {
    /// Opens a directory as a root. `path` itself is trusted.
    pub fn open(path: &Path) -> Result<Self> {
        let directory =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|source| Error { operation: "open", path: path.into(), source })?;
        Ok(Self { directory })
    }
}

impl<F: AsFd> AsFd for Root<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl<F: AsFd> Root<F> {
    /// Takes an open directory as a root.
    pub fn new(directory: F) -> Self {
        Self { directory }
    }

    /// Opens what is at `path`, following symbolic links inside the root. `flags` as in `openat2(2)`; close-on-exec
    /// is added.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        self.open_with(path.as_ref(), flags, Mode::empty(), IN_ROOT)
    }

    /// An `O_PATH` descriptor of what is at `path`, following symbolic links inside the root.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_with(path.as_ref(), OFlags::PATH, Mode::empty(), IN_ROOT)
    }

    /// [`Root::resolve`], where a missing path (or one through something that is no directory) is `None`.
    pub fn resolve_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<OwnedFd>> {
        match self.resolve(path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Error { source: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole content of a small file (at most `limit` bytes are read), `None` when it is missing.
    pub fn read(&self, path: impl AsRef<Path>, limit: usize) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        // A FIFO in the root must not block the reader.
        let fd = match self.open_file(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => fd,
            Err(Error { source: Errno::NOENT | Errno::NOTDIR, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let failed = |source| Error { operation: "read", path: path.into(), source };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(failed(Errno::INVAL));
        }
        let mut content = Vec::with_capacity((stat.st_size as usize).min(limit) + 1);
        while content.len() < limit {
            let room = (limit - content.len()).min(64 * 1024);
            content.reserve(room);
            match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut content)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        content.truncate(limit);
        Ok(Some(content))
    }

    /// Makes the directory and its missing parents with `mode`, following symbolic links inside the root also where what they
    /// lead to is missing and made, and returns it opened with `O_PATH`.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        match self.mkdir_all_plain(path.as_ref(), mode) {
            Err(Error { source: Errno::NOTDIR | Errno::NOENT | Errno::LOOP, .. }) => {
                self.mkdir_all_plain(&self.without_links(path.as_ref())?, mode)
            }
            done => done,
        }
    }

    /// The path with every link on it replaced by what it leads to inside the root, there or not. What is then done with it
    /// stays inside whatever has changed meanwhile.
    fn without_links(&self, path: &Path) -> Result<PathBuf> {
        let failed = |source| Error { operation: "follow links of", path: path.into(), source };
        let mut links = 0;
        let mut resolved = PathBuf::new();
        let mut pending: Vec<std::ffi::OsString> = components(path);
        pending.reverse();
        while let Some(name) = pending.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let candidate = resolved.join(&name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let link = match self.open_with(&candidate, flags, Mode::empty(), IN_ROOT) {
                Ok(fd) => rustix::fs::readlinkat(&fd, c"", Vec::new()).ok(),
                Err(_) => None,
            };
            let Some(link) = link else {
                resolved = candidate;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(Errno::LOOP));
            }
            let target = Path::new(OsStr::from_bytes(link.as_bytes()));
            if target.is_absolute() {
                resolved.clear();
            }
            pending.extend(components(target).into_iter().rev());
        }
        Ok(resolved)
    }

    fn mkdir_all_plain(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        // The common case: it is there.
        match self.open_with(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), IN_ROOT) {
            Ok(fd) => return Ok(fd),
            Err(Error { source: Errno::NOENT, .. }) => {}
            Err(error) => return Err(error),
        }
        let names = names_of(path)?;
        let (mut at, mut known) = self.deepest_existing(path, &names)?;
        for name in &names[known.len()..] {
            known.push(name);
            at = make_directory(at.as_fd(), name, mode).map_err(|source| Error {
                operation: "mkdir",
                path: known.iter().collect(),
                source,
            })?;
        }
        Ok(at)
    }

    /// Opens the file at `path`, making it (empty, `mode`) and its missing parents (0755) when it is missing. What is
    /// there is not opened for writing: the result is an `O_PATH` descriptor.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        if let Some(fd) = self.resolve_if_exists(path)? {
            return Ok(fd);
        }
        self.create_file_plain(&self.without_links(path)?, mode)
    }

    fn create_file_plain(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        if let Some(fd) = self.resolve_if_exists(path)? {
            return Ok(fd);
        }
        let failed = |source| Error { operation: "create", path: path.into(), source };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(Errno::ISDIR));
        };
        let parent = self.mkdir_all(parent, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, mode) {
            Ok(_) => {}
            // A dangling symbolic link answers EEXIST too: the open below then fails, nothing is made outside.
            Err(Errno::EXIST) => {}
            Err(source) => return Err(failed(source)),
        }
        self.resolve(path)
    }

    /// The parent directory of `path` (made when missing, 0755) and the last name: for `mknodat`, `symlinkat`.
    pub fn parent_of<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error { operation: "open the parent of", path: path.into(), source: Errno::INVAL });
        };
        Ok((self.mkdir_all(parent, Mode::from_raw_mode(0o755))?, name))
    }

    /// `fstat` of what is at `path`, without following a last symbolic link.
    pub fn lstat(&self, path: &Path) -> Result<Stat> {
        let fd = self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), IN_ROOT)?;
        rustix::fs::statat(&fd, c"", AtFlags::EMPTY_PATH).map_err(|source| Error {
            operation: "stat",
            path: path.into(),
            source,
        })
    }

    /// Opens with explicit resolution flags, added to those that keep the path inside.
    pub fn open_with(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        let inside = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        for _ in 0..ATTEMPTS {
            match rustix::fs::openat2(
                &self.directory,
                inside,
                flags | OFlags::CLOEXEC,
                mode,
                resolve | IN_ROOT,
            ) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN) => {}
                Err(source) => return Err(Error { operation: "open", path: path.into(), source }),
            }
        }
        Err(Error { operation: "open", path: path.into(), source: Errno::AGAIN })
    }

    /// The longest existing prefix of `names`, opened.
    fn deepest_existing<'n>(&self, path: &Path, names: &[&'n OsStr]) -> Result<(OwnedFd, Vec<&'n OsStr>)> {
        for length in (0..names.len()).rev() {
            let prefix: PathBuf = names[..length].iter().collect();
            match self.open_with(&prefix, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), IN_ROOT) {
                Ok(fd) => return Ok((fd, names[..length].to_vec())),
                Err(Error { source: Errno::NOENT, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error { operation: "open", path: path.into(), source: Errno::NOENT })
    }
}

/// The names of a path and its `..`.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let kept = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    kept.map(|part| part.as_os_str().to_owned()).collect()
}

/// The names of a path; `..` is refused because what it means before a directory exists depends on links.
fn names_of(path: &Path) -> Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if !name.as_bytes().contains(&0) => names.push(name),
            _ => return Err(Error { operation: "mkdir", path: path.into(), source: Errno::INVAL }),
        }
    }
    Ok(names)
}

/// One directory below another, made or found; never through a symbolic link.
fn make_directory(at: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(at, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::openat(
        at,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory.path().join("root")).expect("mkdir");
        let root = Root::open(&directory.path().join("root")).expect("root");
        (directory, root)
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        std::fs::write(directory.path().join("secret"), "outside").expect("write");
        symlink("../../../../../../secret", inside.join("up")).expect("link");
        symlink("/etc", inside.join("absolute")).expect("link");
        assert_eq!(root.resolve("up").err().map(|e| e.source), Some(Errno::NOENT));
        assert_eq!(root.resolve("../secret").err().map(|e| e.source), Some(Errno::NOENT));
        root.mkdir_all("/etc", Mode::from_raw_mode(0o755)).expect("mkdir");
        root.mkdir_all("absolute/sub/deep", Mode::from_raw_mode(0o700)).expect("mkdir through the link");
        assert!(inside.join("etc/sub/deep").is_dir());
        assert!(!Path::new("/etc/sub").exists());
    }

    #[test]
    fn a_dangling_link_makes_nothing_outside() {
        let (directory, root) = root();
        let inside = directory.path().join("root");
        symlink(directory.path().join("made"), inside.join("link")).expect("link");
        root.create_file("link", Mode::from_raw_mode(0o644)).expect("made inside");
        symlink(directory.path().join("folder"), inside.join("other")).expect("link");
        root.mkdir_all("other/x", Mode::from_raw_mode(0o755)).expect("made inside");
        symlink("loop", inside.join("loop")).expect("link");
        assert!(root.create_file("loop", Mode::from_raw_mode(0o644)).is_err());
        for name in ["made", "folder"] {
            let path = directory.path().join(name);
            assert!(!path.exists() && inside.join(path.strip_prefix("/").expect("absolute")).exists());
        }
    }

    #[test]
    fn a_file_is_made_once_with_its_parents() {
        let (directory, root) = root();
        root.create_file("a/b/file", Mode::from_raw_mode(0o600)).expect("create");
        std::fs::write(directory.path().join("root/a/b/file"), "kept").expect("write");
        root.create_file("a/b/file", Mode::from_raw_mode(0o600)).expect("again");
        assert_eq!(root.read("/a/b/file", 100).expect("read").as_deref(), Some(&b"kept"[..]));
        assert_eq!(root.read("/a/b/file", 2).expect("read").as_deref(), Some(&b"ke"[..]));
        assert_eq!(root.read("/missing", 2).expect("read"), None);
    }

    #[test]
    fn reading_does_not_block_on_a_fifo_or_take_a_device() {
        let (directory, root) = root();
        let fifo = directory.path().join("root/fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("fifo");
        assert_eq!(root.read("fifo", 10).err().map(|e| e.source), Some(Errno::INVAL));
    }
}
