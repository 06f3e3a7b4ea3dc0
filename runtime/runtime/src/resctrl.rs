//! `linux.intelRdt`: shares of cache and memory bandwidth through the resctrl file system.
//! Source: runtime-spec config-linux.md, "IntelRdt"; the kernel's Documentation/arch/x86/resctrl.rst.

use crate::Error;
use crate::error::StepExt;
use oci_spec::runtime::{Linux, LinuxIntelRdt};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A class of service, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `None`: the container's own, named after it.
    class: Option<String>,
    /// Lines of `schemata`, in the order they are to be written.
    schemata: Vec<String>,
    monitoring: bool,
    mount_point: PathBuf,
}

/// Directories that were made for a container and go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    directories: Vec<PathBuf>,
}

impl Wanted {
    /// Reads and checks `linux.intelRdt`; a machine without resctrl is an error.
    pub(crate) fn new(linux: &Linux) -> Result<Option<Self>, Error> {
        let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
        let Some(mount_point) = mount_point()? else {
            return Err(Error::spec("linux.intelRdt", "no resctrl file system is mounted on this machine"));
        };
        Self::at(rdt, mount_point).map(Some)
    }

    fn at(rdt: &LinuxIntelRdt, mount_point: PathBuf) -> Result<Self, Error> {
        let field = |name: &str| format!("linux.intelRdt.{name}");
        let class = rdt.clos_id().clone().filter(|class| !class.is_empty());
        let own = ["info", "mon_data", "mon_groups", ".", ".."];
        if class.as_deref().is_some_and(|class| class != "/" && (class.contains('/') || own.contains(&class)))
        {
            return Err(Error::spec(field("closID"), "is no name of a class of service"));
        }
        let mut schemata = Vec::new();
        for (name, line, start) in
            [("l3CacheSchema", rdt.l3_cache_schema(), "L3"), ("memBwSchema", rdt.mem_bw_schema(), "MB:")]
        {
            let Some(line) = line.clone().filter(|line| !line.is_empty()) else { continue };
            if !line.starts_with(start) {
                return Err(Error::spec(field(name), format!("{line:?} does not begin with {start}")));
            }
            schemata.push(line);
        }
        schemata.extend(rdt.schemata().iter().flatten().cloned());
        if let Some(line) = schemata.iter().find(|line| line.contains('\n')) {
            return Err(Error::spec(field("schemata"), format!("{line:?} is more than one line")));
        }
        Ok(Self { class, schemata, monitoring: rdt.enable_monitoring().unwrap_or(false), mount_point })
    }

    /// Puts process `pid` in its class, which is made if it may be.
    pub(crate) fn place(&self, id: &str, pid: i32) -> Result<Made, Error> {
        let mut made = Made::default();
        self.place_steps(id, pid, &mut made).inspect_err(|_| made.remove()).map(|()| made)
    }

    fn place_steps(&self, id: &str, pid: i32, made: &mut Made) -> Result<(), Error> {
        let class = match self.class.as_deref() {
            Some("/") => self.mount_point.clone(),
            name => self.mount_point.join(name.unwrap_or(id)),
        };
        let exists = class.is_dir();
        match (&self.class, exists) {
            (Some(_), true) => self.compare(&class)?,
            (Some(name), false) if self.schemata.is_empty() => {
                return Err(Error::spec("linux.intelRdt.closID", format!("there is no class {name:?}")));
            }
            (Some(_), false) => make(&class)?,
            (None, false) => {
                make(&class)?;
                made.directories.push(class.clone());
            }
            (None, true) => return Err(Error::spec("linux.intelRdt", format!("class {id:?} exists"))),
        }
        if !exists {
            for line in &self.schemata {
                write(&class.join("schemata"), &format!("{line}\n"))?;
            }
        }
        write(&class.join("tasks"), &pid.to_string())?;
        if self.monitoring {
            let group = class.join("mon_groups").join(id);
            make(&group)?;
            made.directories.insert(0, group.clone());
            write(&group.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }

    /// A class that exists must be what the configuration says it is.
    fn compare(&self, class: &Path) -> Result<(), Error> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let file = class.join("schemata");
        let found =
            std::fs::read_to_string(&file).map_err(errno).step(|| format!("read {}", file.display()))?;
        let squeeze = |line: &str| line.split_whitespace().collect::<String>();
        let found: Vec<_> = found.lines().map(squeeze).collect();
        match self.schemata.iter().find(|line| !found.contains(&squeeze(line))) {
            Some(line) => {
                let reason = format!("{line:?} is not what {} has", class.display());
                Err(Error::spec("linux.intelRdt.schemata", reason))
            }
            None => Ok(()),
        }
    }
}

impl Made {
    /// Whether there is anything to remove.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Removes it; the kernel gives tasks that are left to the default class.
    pub(crate) fn remove(&self) {
        for directory in &self.directories {
            // A missing one was removed by the administrator; another error has nobody to act on it.
            let _ = rustix::fs::rmdir(directory);
        }
    }

    /// Changes the schemata of the class made for a container.
    pub fn update(&self, lines: &[String]) -> Result<(), Error> {
        let Some(class) = self.directories.last() else {
            return Err(Error::spec("linux.intelRdt", "the container has no class of its own"));
        };
        lines.iter().try_for_each(|line| write(&class.join("schemata"), &format!("{line}\n")))
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn make(directory: &Path) -> Result<(), Error> {
    rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)).step(|| format!("make {}", directory.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let step = || format!("write {:?} to {}", text.trim(), path.display());
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(step)?;
    rustix::io::write(&file, text.as_bytes()).step(step).map(drop)
}

fn mount_point() -> Result<Option<PathBuf>, Error> {
    let mounts = hull_mount::mountinfo()?;
    Ok(mounts.into_iter().find(|mount| mount.kind == "resctrl").map(|mount| mount.mount_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like resctrl; files cannot appear by themselves, so classes are made beforehand.
    fn fake(classes: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("directory");
        for class in classes {
            let class = root.path().join(class);
            std::fs::create_dir_all(class.join("mon_groups")).expect("mkdir");
            std::fs::write(class.join("schemata"), "    L3:0=f;1=f\n    MB:0=100\n").expect("write");
            std::fs::write(class.join("tasks"), "").expect("write");
        }
        root
    }

    fn wanted(root: &Path, text: &str) -> Result<Wanted, Error> {
        Wanted::at(&serde_json::from_str(text).expect("json"), root.to_owned())
    }

    #[test]
    fn a_class_that_exists_is_joined_if_it_is_as_said() {
        let root = fake(&["gold"]);
        let same = wanted(root.path(), r#"{"closID":"gold","l3CacheSchema":"L3:0=f;1=f"}"#).expect("valid");
        assert!(same.place("c", 42).expect("place").is_empty());
        assert_eq!(std::fs::read_to_string(root.path().join("gold/tasks")).expect("tasks"), "42");
        let other = wanted(root.path(), r#"{"closID":"gold","memBwSchema":"MB:0=50"}"#).expect("valid");
        assert!(other.place("c", 42).expect_err("differs").to_string().contains("linux.intelRdt"));
        let missing = wanted(root.path(), r#"{"closID":"silver"}"#).expect("valid");
        assert!(missing.place("c", 42).expect_err("missing").to_string().contains("silver"));
    }

    #[test]
    fn what_was_made_is_removed_when_it_fails() {
        let root = fake(&[]);
        let own = wanted(root.path(), r#"{"schemata":["L3:0=f"]}"#).expect("valid");
        assert!(own.place("c", 42).is_err(), "no schemata file appears in an ordinary directory");
        assert!(!root.path().join("c").exists());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            r#"{"closID":"a/b"}"#,
            r#"{"closID":"info"}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
            r#"{"schemata":["L3:0=f\nMB:0=1"]}"#,
        ] {
            assert!(wanted(Path::new("/"), bad).is_err(), "{bad}");
        }
    }
}
