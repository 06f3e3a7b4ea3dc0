//! Files of a root file system that is not mounted: looked up through its layers, topmost first, as overlayfs would.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use hull_fsroot::Root;
use hull_layer::{Layers, Trees};
use hull_oci::user::{self, Resolved};

use crate::{Error, Result};

/// More than any real passwd or group file.
const LARGEST: usize = 8 << 20;

/// What a look into one layer says.
enum Found {
    Content(Vec<u8>),
    /// Deleted in this layer: lower ones don't count.
    Deleted,
    /// Nothing here.
    Absent,
    /// A link, which only the whole file system can follow.
    Link,
}

/// Resolves `user[:group]` with the passwd and group files the layers have.
pub(super) fn user(layers: &Layers, trees: &Trees, user: &str, groups: &[String]) -> Result<Resolved> {
    let unknown = |error: user::UserError| Error::invalid(error.to_string());
    match (read(trees.paths(), "passwd")?, read(trees.paths(), "group")?) {
        (Some(passwd), Some(group)) => user::resolve_in(&passwd, &group, user, groups).map_err(unknown),
        _ => {
            let root = merged(layers, trees)?;
            user::resolve(root.as_fd(), user, groups).map_err(unknown)
        }
    }
}

/// The content of `/etc/<name>`, empty if there is none; nothing if only a mount can tell.
fn read(layers: &[PathBuf], name: &str) -> Result<Option<Vec<u8>>> {
    for layer in layers {
        match look(layer, name)? {
            Found::Content(content) => return Ok(Some(content)),
            Found::Deleted => return Ok(Some(Vec::new())),
            Found::Link => return Ok(None),
            Found::Absent => {}
        }
    }
    Ok(Some(Vec::new()))
}

fn look(layer: &Path, name: &str) -> Result<Found> {
    let etc = layer.join("etc");
    let Ok(directory) = etc.symlink_metadata() else { return Ok(Found::Absent) };
    if is_whiteout(&directory) {
        return Ok(Found::Deleted);
    }
    if !directory.is_dir() {
        return Ok(Found::Link);
    }
    let opaque = || is_opaque(&etc);
    match etc.join(name).symlink_metadata() {
        Ok(file) if is_whiteout(&file) => Ok(Found::Deleted),
        Ok(file) if file.is_file() && file.size() <= LARGEST as u64 => {
            let root = Root::open(layer).map_err(|error| Error::system("open layer", error))?;
            let content = root
                .read(format!("/etc/{name}"), LARGEST)
                .map_err(|error| Error::system("read layer", error))?;
            Ok(content.map_or(Found::Absent, Found::Content))
        }
        Ok(_) => Ok(Found::Link),
        Err(_) if opaque() => Ok(Found::Deleted),
        Err(_) => Ok(Found::Absent),
    }
}

/// overlayfs marks a deleted file by a character device 0:0.
pub(super) fn is_whiteout(metadata: &std::fs::Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// overlayfs marks a directory that hides those below it by an attribute.
pub(super) fn is_opaque(path: &Path) -> bool {
    let mut value = [0u8; 4];
    matches!(rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value), Ok(1) if value[0] == b'y')
}

/// A detached read-only mount of the layers.
pub(super) fn merged(layers: &Layers, trees: &Trees) -> Result<std::os::fd::OwnedFd> {
    layers.merge(trees).map_err(|error| Error::system("mount layers", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_layer_that_says_something_wins() {
        let dir = tempfile::tempdir().expect("temp dir");
        let layers: Vec<PathBuf> =
            ["top", "middle", "bottom"].iter().map(|name| dir.path().join(name)).collect();
        for layer in &layers {
            std::fs::create_dir_all(layer).expect("layer");
        }
        let etc = |layer: usize| layers[layer].join("etc");
        std::fs::create_dir(etc(2)).expect("etc");
        std::fs::write(etc(2).join("passwd"), "app:x:7:8::/srv:/bin/sh\n").expect("passwd");
        std::fs::write(etc(2).join("group"), "app:x:8:\nmore:x:9:app\n").expect("group");
        let store = Layers::open(dir.path().join("store")).expect("store");
        let user = |user: &str| super::user(&store, &store.trees(&layers).expect("trees"), user, &[]);
        let found = user("app").expect("user");
        assert_eq!((found.uid, found.gid, found.home.as_deref()), (7, 8, Some("/srv")));
        assert_eq!(found.additional, [8, 9]);
        std::fs::create_dir(etc(1)).expect("etc");
        std::fs::write(etc(1).join("passwd"), "app:x:70:80::/x:/bin/sh\n").expect("passwd");
        assert_eq!(user("app").expect("user").uid, 70);
        std::fs::create_dir(etc(0)).expect("etc");
        let gone = rustix::fs::mknodat(
            rustix::fs::CWD,
            etc(0).join("passwd"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        );
        if gone.is_ok() {
            assert_eq!(
                user("app").expect_err("deleted").message(),
                "unable to find user app: no matching entries in passwd file"
            );
        }
        let none = store.trees(&[]).expect("trees");
        assert_eq!(super::user(&store, &none, "", &[]).expect("root").uid, 0);
    }
}
