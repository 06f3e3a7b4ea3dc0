//! Overlays as detached mounts.

use crate::attach::{logged, set_option};
use crate::{Error, Result, bind, set_attributes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, mount,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The layers of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Lower directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Upper directory and its work directory; read-only without.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// More options, `key` or `key=value`: `volatile`, `userxattr`, `metacopy=on`.
    pub options: Vec<String>,
}

/// A detached overlay mount.
///
/// Layers are given one by one (`lowerdir+`, Linux 6.8), so their paths may hold any character and their number is not
/// bounded by a page. Older kernels get them all in one `mount(2)`.
pub fn overlay(layers: &Overlay, attributes: MountAttrFlags) -> Result<OwnedFd> {
    // Asked by version: before 6.5 an overlay takes any key, complains when it is created, and does so in the kernel's log.
    if hull_sys::kernel::version() >= (6, 8) {
        one_by_one(layers, attributes)
    } else {
        all_at_once(layers, attributes)
    }
}

fn one_by_one(layers: &Overlay, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(Error::step("open the overlay file system"))?;
    for directory in &layers.lower {
        let step = || format!("set lowerdir+ of the overlay to {}", directory.display());
        fsconfig_set_string(&fs, c"lowerdir+", directory).map_err(|error| logged(&fs, step())(error))?;
    }
    if let Some((upper, work)) = &layers.upper {
        let step = |what: &str, path: &Path| format!("set {what} of the overlay to {}", path.display());
        fsconfig_set_string(&fs, c"upperdir", upper).map_err(logged(&fs, step("upperdir", upper)))?;
        fsconfig_set_string(&fs, c"workdir", work).map_err(logged(&fs, step("workdir", work)))?;
    }
    for option in &layers.options {
        set_option(fs.as_fd(), option).map_err(logged(&fs, format!("set option {option} of the overlay")))?;
    }
    fsconfig_create(&fs).map_err(logged(&fs, "create the overlay"))?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(logged(&fs, "mount the overlay"))
}

/// By `mount(2)`, since `fsconfig(2)` takes 256 bytes, in a mount namespace that lives as long as the call, from
/// where a detached copy is taken. Layers are named by descriptors, relative to `/proc/self/fd`: their paths may be
/// longer than the page that holds all options, and hold characters that separate these.
fn all_at_once(layers: &Overlay, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let made = hull_sys::ns::with_own_mounts(|| Ok(mount_and_take(layers)));
    let mount = made.map_err(Error::step("make a mount namespace for the overlay"))??;
    if !attributes.is_empty() {
        set_attributes(&mount, false, attributes, MountAttrFlags::empty())?;
    }
    Ok(mount)
}

fn mount_and_take(layers: &Overlay) -> Result<OwnedFd> {
    // Opened here: the overlay takes layers of its own mount namespace only.
    let lower = layers.lower.iter().map(|path| directory(path)).collect::<Result<Vec<_>>>()?;
    let upper = layers.upper.as_ref().map(|(upper, work)| Ok((directory(upper)?, directory(work)?)));
    let upper = upper.transpose()?;
    let target = layers.lower.first().ok_or(Errno::INVAL).map_err(Error::step("mount an empty overlay"))?;
    rustix::process::chdir(c"/proc/self/fd").map_err(Error::step("enter /proc/self/fd"))?;
    let borrowed = upper.as_ref().map(|(upper, work)| (upper.as_fd(), work.as_fd()));
    let data = mount_data(&lower, borrowed, &layers.options)?;
    mount(c"overlay", target, c"overlay", MountFlags::empty(), data.as_c_str())
        .map_err(Error::step("mount the overlay"))?;
    bind(target, false)
}

fn directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::step(format!("open the layer {}", path.display())))
}

/// The options of `mount(2)`, layers by the numbers of their descriptors.
fn mount_data(
    lower: &[OwnedFd],
    upper: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
    options: &[String],
) -> Result<CString> {
    let numbers = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect::<Vec<_>>();
    let mut data = vec![format!("lowerdir={}", numbers.join(":"))];
    if let Some((upper, work)) = upper {
        data.push(format!("upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
    }
    data.extend(options.iter().cloned());
    CString::new(data.join(",")).map_err(|_| Errno::INVAL).map_err(Error::step("set options of the overlay"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::openat;
    use std::io::Read;

    type Way = fn(&Overlay, MountAttrFlags) -> Result<OwnedFd>;

    fn read(mount: &OwnedFd, name: &str) -> String {
        let file = openat(mount, name, OFlags::RDONLY, Mode::empty()).expect("open");
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).expect("read");
        text
    }

    fn ways() -> [Way; 3] {
        [overlay, one_by_one, all_at_once]
    }

    #[test]
    fn an_overlay_shows_the_topmost_layer_and_goes_away_with_its_descriptor() {
        for way in ways() {
            let directory = tempfile::tempdir().expect("directory");
            let path = |name: &str| directory.path().join(name);
            // A colon in a layer's path is data, not a separator.
            for name in ["a:1", "b,2", "upper", "work"] {
                std::fs::create_dir(path(name)).expect("mkdir");
            }
            std::fs::write(path("a:1").join("file"), "top").expect("write");
            std::fs::write(path("b,2").join("file"), "bottom").expect("write");
            std::fs::write(path("b,2").join("only"), "below").expect("write");
            let layers = Overlay {
                lower: vec![path("a:1"), path("b,2")],
                upper: Some((path("upper"), path("work"))),
                options: vec![],
            };
            let mount = way(&layers, MountAttrFlags::empty()).expect("overlay");
            assert_eq!(read(&mount, "file"), "top");
            assert_eq!(read(&mount, "only"), "below");
            let made = openat(&mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("create");
            drop(made);
            assert!(path("upper").join("new").exists());
            let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
            assert!(!text.contains(directory.path().to_str().expect("utf-8")));
        }
    }

    #[test]
    fn many_layers_with_long_paths_are_no_obstacle() {
        for way in ways() {
            let directory = tempfile::tempdir().expect("directory");
            let lower: Vec<_> =
                (0..128).map(|n| directory.path().join(format!("{n:0>64}")).join("diff")).collect();
            lower.iter().for_each(|path| std::fs::create_dir_all(path).expect("mkdir"));
            std::fs::write(lower[127].join("file"), "deepest").expect("write");
            let layers = Overlay { lower, ..Overlay::default() };
            let mount = way(&layers, MountAttrFlags::MOUNT_ATTR_RDONLY).expect("overlay");
            assert_eq!(read(&mount, "file"), "deepest");
            let made = openat(&mount, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
            assert_eq!(made.err(), Some(Errno::ROFS));
        }
    }

    #[test]
    fn a_failure_tells_which_layer() {
        for way in ways() {
            let layers = Overlay { lower: vec!["/nonexistent-layer".into()], ..Overlay::default() };
            let error = way(&layers, MountAttrFlags::empty()).expect_err("no such layer");
            assert!(error.to_string().contains("/nonexistent-layer"), "{error}");
        }
    }
}
