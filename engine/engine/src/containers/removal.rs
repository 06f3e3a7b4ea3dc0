//! The removal of a container's directory in steps that can be cut off anywhere.
//!
//! `<id>` becomes `<id>.removing`, or `<id>.removing-volumes` when its anonymous volumes go with it. The rename is
//! the mark: it happens at once, needs no room on a full disk and no flush. A container is made directory first and
//! record last, and its record is the last that goes, so a record without a directory always means a removal that has
//! to be finished.

use std::path::{Path, PathBuf};

use super::exit::remove_tree;
use crate::{Error, Result};

const MARK: &str = ".removing";
const MARK_WITH_VOLUMES: &str = ".removing-volumes";

fn marked(containers: &Path, id: &str, volumes: bool) -> PathBuf {
    containers.join(format!("{id}{}", if volumes { MARK_WITH_VOLUMES } else { MARK }))
}

/// From here on the container is only removed. Once more is no error.
pub(super) fn begin(containers: &Path, id: &str, volumes: bool) -> Result<()> {
    let directory = containers.join(id);
    match std::fs::rename(&directory, marked(containers, id, volumes)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("mark {} as removed", directory.display()), error))
        }
        _ => Ok(()),
    }
}

/// Whether a removal was begun, and whether volumes are part of it.
pub(super) fn begun(containers: &Path, id: &str) -> Option<bool> {
    let gone = !containers.join(id).exists();
    gone.then(|| marked(containers, id, true).exists())
}

/// Deletes what was marked. The record follows.
pub(super) fn finish(containers: &Path, id: &str) -> Result<()> {
    remove_tree(&marked(containers, id, false))?;
    remove_tree(&marked(containers, id, true))
}

/// The container that a directory belongs to, marked or not.
pub(super) fn owner(directory: &str) -> &str {
    directory.split_once('.').map_or(directory, |(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_can_be_cut_off_after_each_step() {
        let dir = tempfile::tempdir().expect("temp dir");
        let containers = dir.path();
        std::fs::create_dir_all(containers.join("a/upper")).expect("dirs");
        assert_eq!(begun(containers, "a"), None);
        begin(containers, "a", true).expect("begin");
        assert_eq!(begun(containers, "a"), Some(true));
        let names: Vec<_> = std::fs::read_dir(containers).expect("read").flatten().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(owner(names[0].file_name().to_str().expect("text")), "a");
        begin(containers, "a", false).expect("again");
        assert_eq!(begun(containers, "a"), Some(true), "what was asked for first stays");
        finish(containers, "a").expect("finish");
        finish(containers, "a").expect("again");
        assert_eq!(begun(containers, "a"), Some(false));
    }
}
