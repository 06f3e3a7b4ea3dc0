//! `docker cp`, `export` and `diff`: a container's files as archives.

use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::sync::Arc;

use hull_docker_api::{ContainerPathStat, FilesystemChange, rfc3339_nano};
use hull_layer::{ApplyOptions, Decompressor, LayerError, PackOptions};
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::ExtractOptions;
use super::actor::blocking;
use super::record::Snapshot;
use super::rootfs::Inside;
use crate::bytestream::{ByteStream, StreamReader, produce};
use crate::{Engine, Error, Kind, Result, chain};

/// Container files. `id` is always a name, an id or a unique beginning of an id.
impl Engine {
    /// What a path inside the container is.
    pub async fn container_stat_path(&self, id: &str, path: &str) -> Result<ContainerPathStat> {
        let (engine, now) = (self.clone(), self.0.containers.registry.find(id)?.now());
        let (id, path) = (id.to_owned(), checked(path)?);
        blocking(move || {
            let inside = engine.inside(&now, &path)?;
            stat(&inside, &path).map_err(|error| failed(error, &path, &id))
        })
        .await
    }

    /// A path inside the container as a tar archive.
    pub async fn container_archive(&self, id: &str, path: &str) -> Result<(ContainerPathStat, ByteStream)> {
        let (engine, now) = (self.clone(), self.0.containers.registry.find(id)?.now());
        let (id, path) = (id.to_owned(), checked(path)?);
        let (inside, stat, path) = blocking(move || {
            let inside = engine.inside(&now, &path)?;
            let stat = stat(&inside, &path).map_err(|error| failed(error, &path, &id))?;
            Ok((inside, stat, path))
        })
        .await?;
        let stream = produce(move |out| {
            let at = inside_path(&inside, &path);
            hull_layer::pack_path(&inside.root, at.as_bytes(), archive_name(&path).as_bytes(), out)
                .map(|_| ())
                .map_err(|error| io::Error::other(chain(&error)))
        });
        Ok((stat, stream))
    }

    /// Unpacks a tar archive (plain, gzip, zstd) into a directory of the container.
    pub async fn container_extract(
        &self,
        id: &str,
        options: ExtractOptions,
        archive: ByteStream,
    ) -> Result<()> {
        let (engine, now) = (self.clone(), self.0.containers.registry.find(id)?.now());
        let (id, path) = (id.to_owned(), checked(&options.path)?);
        let mut archive = StreamReader::new(archive);
        blocking(move || {
            let result = engine.extract(&now, &id, &path, &options, &mut archive);
            // A client still sends what follows the archive's end, and reads the answer only after that.
            let _ = io::copy(&mut archive, &mut io::sink());
            result
        })
        .await
    }

    fn extract(
        &self,
        now: &Arc<Snapshot>,
        id: &str,
        path: &str,
        options: &ExtractOptions,
        archive: &mut StreamReader,
    ) -> Result<()> {
        let inside = self.inside(now, path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let target = match inside.root.open_file(&inside.path, flags) {
            Ok(target) => target,
            Err(error) if error.source == Errno::NOTDIR => {
                return Err(Error::invalid("extraction point is not a directory"));
            }
            Err(error) => return Err(failed(error.source, path, id)),
        };
        if inside.read_only {
            let what = if now.def.host.readonly_rootfs { "container rootfs" } else { "mounted volume" };
            return Err(Error::new(Kind::Forbidden, format!("{what} is marked read-only")));
        }
        let mut apply = ApplyOptions::copy();
        apply.keep_kind = options.no_overwrite_dir_non_dir;
        if options.copy_uid_gid {
            let root = inside.root.as_fd();
            let user = hull_oci::user::resolve(root, &now.def.config.user, &[])
                .map_err(|error| Error::invalid(error.to_string()))?;
            apply.owner = Some((user.uid, user.gid));
        }
        let input = Decompressor::new(BufReader::with_capacity(64 * 1024, archive))
            .map_err(|error| extract_error(&error))?;
        hull_layer::extract(&target, BufReader::new(input), &apply).map_err(|error| extract_error(&error))?;
        Ok(())
    }

    /// The whole root file system as a tar archive.
    pub async fn container_export(&self, id: &str) -> Result<ByteStream> {
        let (engine, now) = (self.clone(), self.0.containers.registry.find(id)?.now());
        self.events().emit("container", "export", &now.def.id, now.def.event_attributes());
        let root = blocking(move || engine.root_to_read(&now)).await?;
        Ok(produce(move |out| {
            hull_layer::pack(&root, out, &PackOptions::default())
                .map(|_| ())
                .map_err(|error| io::Error::other(chain(&error)))
        }))
    }

    /// What differs from the image.
    pub async fn container_changes(&self, id: &str) -> Result<Vec<FilesystemChange>> {
        let now = self.0.containers.registry.find(id)?.now();
        let (engine, own) = (self.clone(), self.config().container_dir(&now.def.id));
        blocking(move || {
            let failed = |error: LayerError| Error::system("compare with the image", error);
            let mut changes = engine.layers().container_changes(&own, &now.def.layers).map_err(failed)?;
            leave_out_mount_points(&mut changes, &now.def.mount_points());
            let change = |change: hull_layer::Change| FilesystemChange {
                path: String::from_utf8_lossy(&change.path).into_owned(),
                kind: change.kind as u32,
            };
            Ok(changes.into_iter().map(change).collect())
        })
        .await
    }
}

/// What was only made to mount something on it is no change of the container's.
fn leave_out_mount_points(changes: &mut Vec<hull_layer::Change>, mount_points: &[String]) {
    use hull_layer::ChangeKind;
    let mut left_out: Vec<Vec<u8>> = Vec::new();
    // Deepest first, so that a directory is judged when what is in it was.
    for index in (0..changes.len()).rev() {
        let change = &changes[index];
        let below = |path: &[u8]| {
            path.strip_prefix(change.path.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        };
        let is_mount_point = mount_points.iter().any(|path| path.as_bytes() == change.path);
        let only_leads_there = left_out.iter().any(|path| below(path))
            && !changes[index + 1..].iter().any(|other| below(&other.path));
        if change.kind != ChangeKind::Deleted && (is_mount_point || only_leads_there) {
            left_out.push(changes.remove(index).path);
        }
    }
}

fn checked(path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid("path cannot be empty"));
    }
    Ok(path.to_owned())
}

fn failed(error: Errno, path: &str, container: &str) -> Error {
    match error {
        Errno::NOENT => Error::not_found(format!("Could not find the file {path} in container {container}")),
        Errno::NOTDIR => Error::invalid(format!("not a directory: {path}")),
        error => Error::system(format!("look at {path} in container {container}"), error),
    }
}

fn extract_error(error: &LayerError) -> Error {
    let text = chain(error);
    match error {
        LayerError::Entry { .. } => Error::internal(text),
        _ => Error::invalid(text),
    }
}

/// A path that ends with `/` or `/.` means the directory itself, also where it is a link.
fn follows(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
}

fn stat(inside: &Inside, path: &str) -> std::result::Result<ContainerPathStat, Errno> {
    let (stat, link_target) = if follows(path) || inside.path == "/" {
        let file = inside.root.resolve(&inside.path).map_err(|error| error.source)?;
        let stat = rustix::fs::statat(&file, c"", AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory && path.len() > 1 {
            return Err(Errno::NOTDIR);
        }
        (stat, String::new())
    } else {
        let stat = inside.root.lstat(inside.path.as_ref()).map_err(|error| error.source)?;
        let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        (stat, if link { link_target(inside) } else { String::new() })
    };
    let nanoseconds = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let mtime = Timestamp::from_nanosecond(nanoseconds).unwrap_or_default();
    Ok(ContainerPathStat {
        name: archive_name(path),
        size: stat.st_size,
        mode: go_mode(&stat),
        mtime: rfc3339_nano(mtime),
        link_target,
    })
}

/// Where a link leads, as seen from the container's root.
fn link_target(inside: &Inside) -> String {
    let path = std::path::Path::new(&inside.path);
    let Ok((parent, name)) = inside.root.parent_of(path) else { return String::new() };
    let Ok(target) = rustix::fs::readlinkat(&parent, name, Vec::new()) else { return String::new() };
    let target = target.to_string_lossy().into_owned();
    if target.starts_with('/') {
        return super::mounts::clean(&target);
    }
    let parent = path.parent().unwrap_or(std::path::Path::new("/"));
    super::mounts::clean(&parent.join(target).to_string_lossy())
}

/// Last component as Go's `filepath.Base` has it, with a trailing `/.` kept.
fn archive_name(path: &str) -> String {
    if path.ends_with("/.") {
        return ".".to_owned();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// The path to pack: of a link that is to be followed, what it leads to.
fn inside_path(inside: &Inside, path: &str) -> String {
    let is_link = inside
        .root
        .lstat(inside.path.as_ref())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
    let path = if follows(path) && is_link { link_target(inside) } else { inside.path.clone() };
    path.trim_start_matches('/').to_owned()
}

/// Go's `os.FileMode`: permissions in the low bits, kinds in the high ones (`io/fs`).
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let mut mode = kind | (stat.st_mode & 0o777);
    for (bit, go) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
        if stat.st_mode & bit != 0 {
            mode |= go;
        }
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_as_go_names_them() {
        for (path, name) in [("/a/b", "b"), ("/a/b/", "b"), ("/a/b/.", "."), ("/", "/"), ("b", "b")] {
            assert_eq!(archive_name(path), name, "{path}");
        }
    }

    #[test]
    fn mount_points_are_no_changes() {
        use hull_layer::{Change, ChangeKind};
        let change = |path: &str, kind| Change { path: path.as_bytes().to_vec(), kind };
        let mut changes = vec![
            change("/etc", ChangeKind::Modified),
            change("/etc/hosts", ChangeKind::Added),
            change("/opt", ChangeKind::Modified),
            change("/opt/data", ChangeKind::Added),
            change("/opt/own", ChangeKind::Added),
            change("/sbin", ChangeKind::Added),
            change("/sbin/docker-init", ChangeKind::Added),
        ];
        let points = ["/etc/hosts", "/opt/data", "/sbin/docker-init"].map(str::to_owned);
        leave_out_mount_points(&mut changes, &points);
        let left: Vec<_> =
            changes.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect();
        assert_eq!(left, ["/opt", "/opt/own"]);
    }

    #[test]
    fn paths_stay_inside_and_modes_are_gos() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join("d")).expect("dir");
        std::os::unix::fs::symlink("../../../etc/passwd", dir.path().join("d/l")).expect("link");
        let root = hull_fsroot::Root::open(dir.path()).expect("root");
        let inside = |path: &str| Inside {
            root: hull_fsroot::Root::new(root.as_fd().try_clone_to_owned().expect("clone")),
            path: super::super::mounts::clean(path),
            read_only: false,
        };
        let found = stat(&inside("/d"), "/d").expect("stat");
        assert_eq!(found.mode & (1 << 31), 1 << 31);
        let link = stat(&inside("/d/l"), "/d/l").expect("stat");
        assert_eq!((link.mode & (1 << 27), link.link_target.as_str()), (1 << 27, "/etc/passwd"));
        assert_eq!(stat(&inside("/d/../../x"), "/x").expect_err("missing"), Errno::NOENT);
    }
}
