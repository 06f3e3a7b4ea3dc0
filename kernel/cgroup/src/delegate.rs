//! Cgroups below a container's own: handing them to a user, running processes in them.

use crate::file::try_read;
use crate::{Cgroup, Error, Result};
use rustix::fs::{AtFlags, CWD, Uid};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// What cgroups(7) lets a user have, for kernels that do not say it.
const DELEGATED: &str = "cgroup.procs cgroup.subtree_control cgroup.threads";

impl Cgroup {
    /// Gives the cgroup to a user, so that they can make others below it; on v2 only, v1 cannot do so safely. Limits stay
    /// the caller's. Source: runtime-spec config-linux.md, "Cgroup ownership".
    pub fn delegate_to(&self, uid: u32) -> Result<()> {
        let Some(directory) = self.v2_directory() else { return Ok(()) };
        let files = try_read(Path::new("/sys/kernel/cgroup/delegate")).unwrap_or_else(|_| DELEGATED.into());
        let names = files.split_whitespace().map(|name| directory.join(name));
        for path in std::iter::once(directory.clone()).chain(names) {
            match rustix::fs::chownat(CWD, &path, Some(Uid::from_raw(uid)), None, AtFlags::SYMLINK_NOFOLLOW) {
                // Which of the files there are depends on the kernel's configuration.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(source) => {
                    return Err(Error::File { operation: format!("give to user {uid}"), path, source });
                }
            }
        }
        Ok(())
    }

    /// This cgroup for processes that are to run in others below it: each of `choices` is a path below it or, on v1,
    /// `controller[,controller…]:path`. They must exist.
    pub fn below(&self, choices: &[impl AsRef<str>]) -> Result<Self> {
        let mut chosen = Self { exact: !choices.is_empty(), ..self.clone() };
        for choice in choices {
            let choice = choice.as_ref();
            let invalid = |reason: &str| Error::Invalid {
                field: "--cgroup".into(),
                reason: format!("{choice:?} {reason}"),
            };
            let (controllers, below) =
                choice.split_once(':').map_or(("", choice), |(names, path)| (names, path));
            if below.split('/').any(|name| name == "..") || below.contains(['\0', '\n']) {
                return Err(invalid("is not below the container's cgroup"));
            }
            let path = format!("{}/{}", self.path, below.trim_matches('/')).trim_end_matches('/').to_owned();
            if controllers.is_empty() {
                chosen.path = path;
                continue;
            }
            if self.v2_directory().is_some() {
                return Err(invalid("names controllers, which are in one hierarchy here"));
            }
            for controller in controllers.split(',') {
                if self.v1_directory(controller).is_none() {
                    return Err(invalid("names a controller that is not there"));
                }
                chosen.elsewhere.push((controller.to_owned(), path.clone()));
            }
        }
        let missing = chosen.directories_to_join().find(|directory| !directory.is_dir());
        match missing {
            Some(missing) => {
                let reason = format!("{} does not exist", missing.display());
                Err(Error::Invalid { field: "--cgroup".into(), reason })
            }
            None => Ok(chosen),
        }
    }

    /// The directories a process joins, which [`Cgroup::below`] may have moved.
    pub(crate) fn directories_to_join(&self) -> impl Iterator<Item = PathBuf> {
        let v1 = self.layout.v1.iter().map(|hierarchy| {
            let moved = self.elsewhere.iter().rev().find(|(name, _)| hierarchy.controllers.contains(name));
            let path = moved.map_or(&self.path, |(_, path)| path);
            hierarchy.mount_point.join(path.trim_start_matches('/'))
        });
        v1.chain(self.v2_directory())
    }
}
