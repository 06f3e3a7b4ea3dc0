//! One suite that every driver passes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use hull_model::Digest;
use rustix::mount::MountAttrFlags;

use super::*;
use crate::tar::{Entry, Kind, Time, Writer};
use crate::{ChangeKind, Layers, Options};

struct Store {
    dir: tempfile::TempDir,
    layers: Layers,
    chain: Vec<Digest>,
}

/// Mounts are root's; others are served by the tests of reading and writing.
fn may_mount() -> bool {
    rustix::process::geteuid().is_root()
}

fn each(test: impl Fn(Store)) {
    if may_mount() {
        DriverName::ALL.into_iter().for_each(|driver| test(Store::new(driver, ApplyLimits::default())));
    }
}

impl Store {
    fn new(driver: DriverName, limits: ApplyLimits) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let layers = Self::open(dir.path(), driver, limits);
        Self { dir, layers, chain: Vec::new() }
    }

    fn open(dir: &Path, driver: DriverName, limits: ApplyLimits) -> Layers {
        Layers::open_with(dir.join("layers"), Options { limits, driver: Some(driver) }).expect("store")
    }

    fn try_add(&mut self, tar: &[u8]) -> Result<LayerRecord, LayerError> {
        let staged = self.layers.stage(tar, None)?;
        let diff_ids: Vec<Digest> = self.chain.iter().cloned().chain([staged.diff_id().clone()]).collect();
        let text: String = diff_ids.iter().map(Digest::to_string).collect();
        let chain_id = hull_content::sha256(text.as_bytes());
        let record = staged.commit(&chain_id, self.chain.last())?;
        self.chain.push(chain_id);
        Ok(record)
    }

    fn add(&mut self, tar: Tar) -> LayerRecord {
        self.try_add(&tar.bytes()).expect("layer")
    }

    fn places(&self) -> Vec<PathBuf> {
        self.layers.snapshot(&self.chain).expect("snapshot").lower
    }

    /// The merged tree, writable, as a container sees it.
    fn container(&self, name: &str) -> Container<'_> {
        let own = self.dir.path().join(name);
        fs::create_dir(&own).expect("directory");
        self.layers.prepare(&own, &self.places()).expect("prepare");
        Container { store: self, own }
    }

    fn left_behind(&self) -> usize {
        let count = |name: &str| fs::read_dir(self.layers.root().join(name)).expect("list").count();
        count(".staging") + count(".trash")
    }
}

struct Container<'a> {
    store: &'a Store,
    own: PathBuf,
}

impl Container<'_> {
    fn with<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let places = self.store.places();
        let root =
            self.store.layers.container_root(&self.own, &places, MountAttrFlags::empty()).expect("root");
        work(Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())))
    }

    fn changes(&self) -> Vec<String> {
        let found = self.store.layers.container_changes(&self.own, &self.store.places()).expect("changes");
        let letter = |kind| match kind {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        found.iter().map(|c| format!("{} {}", letter(c.kind), String::from_utf8_lossy(&c.path))).collect()
    }

    fn pack(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        let places = self.store.places();
        self.store.layers.container_pack(&self.own, &places, &mut tar, None).expect("pack");
        tar
    }
}

struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn entry(mut self, entry: &Entry, data: &[u8]) -> Self {
        self.0.append_bytes(entry, data).expect("entry");
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(&Entry { mtime: at(5), ..Entry::new(Kind::File, name) }, data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(&Entry { mode: 0o755, mtime: at(6), ..Entry::new(Kind::Directory, name) }, b"")
    }

    fn link(self, kind: Kind, name: &str, target: &str) -> Self {
        self.entry(&Entry { link: target.into(), mtime: at(7), ..Entry::new(kind, name) }, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().expect("finish")
    }
}

fn at(seconds: i64) -> Time {
    Time { seconds, nanoseconds: 123_456_789 }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

/// Everything about a tree that an image must carry.
fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("list") {
            let path = entry.expect("entry").path();
            let stat = path.symlink_metadata().expect("stat");
            let content = match stat.file_type() {
                t if t.is_file() => fs::read(&path).expect("read"),
                t if t.is_symlink() => fs::read_link(&path).expect("link").as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let size = if stat.is_dir() { 0 } else { stat.size() };
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            let line = format!(
                "{:o} {}:{} {}.{} {links} {} {size} {:?} {:?} {}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.rdev(),
                xattr(&path, "security.capability"),
                xattr(&path, "user.note"),
                hull_content::sha256(&content),
            );
            if stat.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.strip_prefix(root).expect("inside").to_path_buf(), line);
        }
    }
    found
}

/// One of each kind, with everything a tar can say of it.
fn full() -> Vec<u8> {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let xattrs = vec![(b"security.capability".to_vec(), capability), (b"user.note".to_vec(), vec![7; 300])];
    let tool = Entry {
        mode: 0o6755,
        uid: 70_000,
        gid: 4_000_000_000,
        mtime: at(-3),
        xattrs,
        ..Entry::new(Kind::File, "bin/tool")
    };
    let sticky = Entry { mode: 0o1777, mtime: at(9), ..Entry::new(Kind::Directory, "tmp") };
    let deep = format!("{}/{}", "d".repeat(200), "n".repeat(255));
    let odd = std::ffi::OsString::from_vec(b"odd-\xff\xfe\n".to_vec());
    let tar = Tar::new()
        .dir("bin")
        .entry(&tool, &[9; 10_000])
        .entry(&sticky, b"")
        .link(Kind::HardLink, "bin/again", "bin/tool")
        .link(Kind::Symlink, "bin/link", "tool")
        .entry(&Entry { device: (1, 3), mode: 0o666, ..Entry::new(Kind::CharDevice, "dev/null") }, b"")
        .entry(&Entry { device: (259, 70_000), ..Entry::new(Kind::BlockDevice, "dev/disk") }, b"")
        .entry(&Entry { mode: 0o600, ..Entry::new(Kind::Fifo, "pipe") }, b"")
        .file(&deep, "long")
        .entry(&Entry::new(Kind::File, odd.into_vec()), b"odd")
        .file("empty", "")
        .entry(&Entry::new(Kind::File, "blocks"), &[3; 8192]);
    [sparse(100_000, 8192, b"SPARS"), tar.bytes()].concat()
}

/// An entry `sparse` of that size with one piece of data, in GNU's old form, which the writer does not have.
fn sparse(size: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut entry = Tar::new().entry(&Entry::new(Kind::File, "sparse"), data).bytes();
    entry.truncate(1024);
    let header = &mut entry[..512];
    header[345..].fill(0);
    header[156] = b'S';
    header[257..265].copy_from_slice(b"ustar  \0");
    let mut number =
        |at: usize, value: u64| header[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    number(386, offset);
    number(398, data.len() as u64);
    number(483, size);
    seal(header);
    entry
}

fn seal(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn everything_a_tar_can_say_arrives() {
    let mut seen: Vec<(DriverName, BTreeMap<PathBuf, String>)> = Vec::new();
    if !may_mount() {
        return;
    }
    for driver in DriverName::ALL {
        let mut store = Store::new(driver, ApplyLimits::default());
        let record = store.try_add(&full()).expect("layer");
        assert_eq!((record.driver, record.entries), (driver, 13));
        assert!(record.stored > 0 && !record.sum.is_empty());
        store.container("c").with(|root| {
            let tool = root.join("bin/tool").symlink_metadata().expect("stat");
            assert_eq!((tool.mode(), tool.uid(), tool.gid()), (0o106755, 70_000, 4_000_000_000));
            assert_eq!((tool.mtime(), tool.mtime_nsec(), tool.nlink()), (-3, 123_456_789, 2));
            assert_eq!(xattr(&root.join("bin/tool"), "security.capability").map(|v| v.len()), Some(20));
            let sparse = fs::read(root.join("sparse")).expect("read");
            assert_eq!((sparse.len(), &sparse[8192..8197]), (100_000, &b"SPARS"[..]));
            assert_eq!(sparse.iter().filter(|byte| **byte != 0).count(), 5);
            let disk = root.join("dev/disk").symlink_metadata().expect("stat");
            assert!(disk.file_type().is_block_device() && disk.rdev() == rustix::fs::makedev(259, 70_000));
            seen.push((driver, inventory(root)));
        });
    }
    let (_, first) = &seen[0];
    for (driver, other) in &seen[1..] {
        // Made on the way, at the time of unpacking.
        let without = |tree: &BTreeMap<PathBuf, String>| {
            let made = [PathBuf::from("dev"), PathBuf::from("d".repeat(200))];
            tree.clone().into_iter().filter(|(path, _)| !made.contains(path)).collect::<Vec<_>>()
        };
        assert_eq!(without(first), without(other), "{driver}");
    }
}

#[test]
fn layers_hide_and_replace_what_is_below() {
    each(|mut store| {
        store.add(
            Tar::new()
                .dir("etc")
                .file("etc/a", "1")
                .file("etc/b", "1")
                .dir("opt")
                .file("opt/x", "1")
                .dir("var")
                .file("var/y", "1")
                .file("kind", "file"),
        );
        store.add(
            Tar::new()
                .file("etc/.wh.a", "")
                .file("etc/c", "2")
                .dir("opt")
                .file("opt/.wh..wh..opq", "")
                .file("opt/z", "2")
                .file(".wh.var", "")
                .dir("kind")
                .file("kind/in", "2"),
        );
        let list = |root: &Path| {
            inventory(root).into_keys().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let container = store.container("c");
        let want = ["etc", "etc/b", "etc/c", "kind", "kind/in", "opt", "opt/z"];
        container.with(|root| assert_eq!(list(root), want));
        assert_eq!(container.changes(), Vec::<String>::new());
        let mount = store.layers.mount(&store.places()).expect("read-only");
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        assert_eq!(list(&root), want);
        assert!(fs::write(root.join("etc/b"), "x").is_err());
        store.layers.mount(&[]).expect("nothing at all");
    });
}

#[test]
fn a_container_writes_and_is_committed() {
    each(|mut store| {
        store.add(
            Tar::new()
                .dir("etc")
                .file("etc/keep", "1")
                .file("etc/gone", "1")
                .file("etc/other", "1")
                .dir("d")
                .file("d/old", "1")
                .dir("quiet")
                .file("quiet/file", "1"),
        );
        let container = store.container("c");
        container.with(|root| {
            fs::write(root.join("etc/keep"), "changed").expect("write");
            fs::remove_file(root.join("etc/gone")).expect("remove");
            fs::remove_dir_all(root.join("d")).expect("remove");
            fs::create_dir(root.join("d")).expect("create");
            fs::write(root.join("d/new"), "2").expect("write");
            symlink("etc/keep", root.join("link")).expect("link");
        });
        let want = ["C /d", "A /d/new", "D /d/old", "C /etc", "D /etc/gone", "C /etc/keep", "A /link"];
        assert_eq!(container.changes(), want);
        // The same container again, as after a restart.
        let before = container.with(inventory);
        let tar = container.pack();
        assert!(container.store.layers.container_size(&container.own).expect("size") >= 16);
        store.try_add(&tar).expect("layer");
        let committed = store.container("d");
        let after = committed.with(inventory);
        assert_eq!(before, after);
        assert_eq!(committed.changes(), Vec::<String>::new());
    });
}

#[test]
fn layers_of_several_drivers_make_one_root() {
    if !may_mount() {
        return;
    }
    let mut store = Store::new(DriverName::Overlay, ApplyLimits::default());
    store.add(Tar::new().file("a", "1").file("b", "1"));
    store.layers = Store::open(store.dir.path(), DriverName::Erofs, ApplyLimits::default());
    store.add(Tar::new().file("b", "2").file("c", "2").file(".wh.a", ""));
    store.layers = Store::open(store.dir.path(), DriverName::Overlay, ApplyLimits::default());
    store.add(Tar::new().file("c", "3"));
    let names = |place: &PathBuf| place.file_name().map(|name| name.to_string_lossy().into_owned());
    let kinds: Vec<_> = store.places().iter().filter_map(names).collect();
    assert_eq!(kinds, ["diff", "layer.erofs", "diff"]);
    let container = store.container("c");
    container.with(|root| {
        assert_eq!(inventory(root).len(), 2);
        assert_eq!(fs::read(root.join("b")).expect("read"), b"2");
        assert_eq!(fs::read(root.join("c")).expect("read"), b"3");
        fs::remove_file(root.join("b")).expect("remove");
    });
    assert_eq!(container.changes(), ["D /b"]);
    let own = container.own.clone();
    // A container made before another driver was chosen stays as it is.
    store.layers = Store::open(store.dir.path(), DriverName::Vfs, ApplyLimits::default());
    let container = Container { store: &store, own };
    assert_eq!(container.changes(), ["D /b"]);
    store.container("copy").with(|root| assert_eq!(inventory(root).len(), 2));
}

#[test]
fn damage_is_noticed() {
    each(|mut store| {
        store.try_add(&full()).expect("layer");
        let chain_id = store.chain[0].clone();
        assert!(store.layers.is_intact(&chain_id).expect("intact"));
        let place = &store.places()[0];
        let file = if place.is_dir() { place.join("blocks") } else { place.clone() };
        let times = fs::metadata(&file).expect("stat").modified().expect("time");
        let damaged = File::options().read(true).write(true).open(&file).expect("open");
        for at in [0, 4099, 8191] {
            let mut byte = [0];
            damaged.read_exact_at(&mut byte, at).expect("read");
            damaged.write_all_at(&[byte[0] ^ 1], at).expect("write");
            damaged.set_modified(times).expect("time");
            assert!(!store.layers.is_intact(&chain_id).expect("judged"), "{at}");
            damaged.write_all_at(&byte, at).expect("write");
            damaged.set_modified(times).expect("time");
        }
        assert!(store.layers.is_intact(&chain_id).expect("intact"));
        damaged.set_len(5000).expect("cut");
        damaged.set_modified(times).expect("time");
        assert!(!store.layers.is_intact(&chain_id).expect("judged"));
    });
}

#[test]
fn removal_leaves_nothing() {
    each(|mut store| {
        store.try_add(&full()).expect("layer");
        let chain_id = store.chain.pop().expect("one");
        assert!(store.layers.remove(&chain_id).expect("removed"));
        assert!(!store.layers.contains(&chain_id));
        assert_eq!(store.left_behind(), 0);
        assert!(matches!(store.layers.is_intact(&chain_id), Err(LayerError::NotFound(_))));
    });
}

/// Archives made to attack: refused, or without effect on anything outside.
#[test]
fn attacks_are_refused_or_confined() {
    let long = "a/".repeat(40_000);
    let bytes = |tars: Vec<(&'static str, Tar)>| -> Vec<(&str, Vec<u8>)> {
        tars.into_iter().map(|(name, tar)| (name, tar.bytes())).collect()
    };
    let refused = bytes(vec![
        ("climbing", Tar::new().file("../x", "")),
        ("climbing within", Tar::new().file("a/../../x", "")),
        ("climbing directory", Tar::new().dir("a/../..")),
        ("climbing link", Tar::new().link(Kind::HardLink, "a", "../outside/secret")),
        (
            "link through a link",
            Tar::new().link(Kind::Symlink, "s", "/outside").link(Kind::HardLink, "a", "s/secret"),
        ),
        ("absolute link", Tar::new().link(Kind::HardLink, "a", "/outside/secret")),
        ("link to a directory", Tar::new().dir("d").link(Kind::HardLink, "a", "d")),
        ("link to itself", Tar::new().link(Kind::HardLink, "a", "a")),
        ("whiteout of itself", Tar::new().file(".wh..", "")),
        ("whiteout above", Tar::new().file("a/.wh...", "")),
        ("whiteout of nothing", Tar::new().file(".wh.", "")),
        ("root replaced", Tar::new().file("./", "").link(Kind::Symlink, ".", "/outside")),
        ("links in a circle", Tar::new().link(Kind::Symlink, "l", "l").file("l/x", "")),
        ("long name", Tar::new().file(&"n".repeat(256), "")),
        ("long path", Tar::new().file(&long, "")),
        ("empty target", Tar::new().link(Kind::Symlink, "a", "")),
    ]);
    let confined = bytes(vec![
        ("absolute", Tar::new().file("/outside/x", "")),
        ("absolute whiteout", Tar::new().file("/outside/.wh.secret", "")),
        ("through an absolute link", Tar::new().link(Kind::Symlink, "s", "/").file("s/outside/x", "")),
        (
            "through a climbing link",
            Tar::new().dir("d").link(Kind::Symlink, "d/s", "../../../..").file("d/s/x", ""),
        ),
        ("whiteout through a link", Tar::new().link(Kind::Symlink, "s", "/").file("s/.wh.outside", "")),
        ("opaque through a link", Tar::new().link(Kind::Symlink, "s", "/").file("s/.wh..wh..opq", "")),
        ("link replaced by a file", Tar::new().link(Kind::Symlink, "s", "/outside/secret").file("s", "mine")),
        (
            "link replaced by a directory",
            Tar::new().link(Kind::Symlink, "s", "/outside").dir("s").file("s/secret", ""),
        ),
        (
            "hard link to a link",
            Tar::new().link(Kind::Symlink, "s", "/outside/secret").link(Kind::HardLink, "h", "s"),
        ),
        (
            "the same name often",
            (0..50).fold(Tar::new(), |tar, n| if n % 2 == 0 { tar.file("x", "1") } else { tar.dir("x") }),
        ),
        (
            "overlay's own marks",
            Tar::new().entry(
                &Entry {
                    xattrs: vec![
                        (b"trusted.overlay.redirect".to_vec(), b"/outside".to_vec()),
                        (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
                    ],
                    ..Entry::new(Kind::Directory, "d")
                },
                b"",
            ),
        ),
        (
            "a device",
            Tar::new()
                .entry(&Entry { device: (8, 0), mode: 0o666, ..Entry::new(Kind::BlockDevice, "sda") }, b""),
        ),
    ]);
    each(|store| {
        let outside = store.dir.path().join("outside");
        fs::create_dir(&outside).expect("directory");
        fs::write(outside.join("secret"), "untouched").expect("write");
        let mut store = store;
        let check = |store: &Store, name: &str| {
            assert_eq!(inventory(&outside).len(), 1, "{name}");
            assert_eq!(fs::read(outside.join("secret")).expect("read"), b"untouched", "{name}");
            assert_eq!(store.left_behind(), 0, "{name}");
            assert!(!Path::new("/outside").exists());
        };
        for (name, tar) in &refused {
            store.try_add(tar).map(drop).expect_err(name);
            check(&store, name);
        }
        for (name, tar) in &confined {
            store.chain.clear();
            store.try_add(tar).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            check(&store, name);
            let nodev = |root: &Path| {
                assert!(
                    root.join("d").symlink_metadata().is_err()
                        || xattr(&root.join("d"), "trusted.overlay.redirect").is_none()
                );
            };
            store.container(&name.replace(' ', "-")).with(nodev);
        }
    });
}

#[test]
fn bombs_are_bounded() {
    let limits = ApplyLimits {
        entries: 1000,
        bytes: 1 << 20,
        stream: 4 << 20,
        memory: 200_000,
        ..ApplyLimits::default()
    };
    let zeros = vec![0; 16 << 20];
    let big = Tar::new().entry(&Entry::new(Kind::File, "big"), &zeros).bytes();
    let many = (0..1001).fold(Tar::new(), |tar, n| tar.dir(&n.to_string())).bytes();
    let mut endless = Tar::new().file("x", "1").bytes();
    endless.extend_from_slice(&zeros);
    let sparse = sparse(4 << 30, 5, b"x");
    let pax = pax_bomb();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &big).expect("gzip");
    let bombs: [(&str, Vec<u8>); 7] = [
        ("bytes", gzip.finish().expect("gzip")),
        ("zstd", zstd::encode_all(big.as_slice(), 19).expect("zstd")),
        ("entries", many),
        ("behind the end", zstd::encode_all(endless.as_slice(), 3).expect("zstd")),
        ("behind the end, gzip", {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gzip, &endless).expect("gzip");
            gzip.finish().expect("gzip")
        }),
        ("sparse", sparse),
        ("pax header", pax),
    ];
    if !may_mount() {
        return;
    }
    for driver in DriverName::ALL {
        let mut store = Store::new(driver, limits);
        for (name, bomb) in &bombs {
            let error = store.try_add(bomb).expect_err(name);
            let of_limit = matches!(
                error,
                LayerError::Limit { .. } | LayerError::Tar(crate::tar::TarError::HugeHeader { .. })
            );
            assert!(of_limit, "{name}: {error:?}");
            assert_eq!(store.left_behind(), 0, "{name}");
        }
    }
}

/// An extended header of 64 MB.
fn pax_bomb() -> Vec<u8> {
    let mut tar = Tar::new().entry(&Entry::new(Kind::File, "x"), b"").bytes();
    tar.truncate(512);
    tar[156] = b'x';
    tar[124..136].copy_from_slice(b"00400000000\0");
    seal(&mut tar);
    tar.resize(1 << 20, b'1');
    tar
}

/// What older kernels need, tried on this one.
#[test]
fn images_through_loop_devices_and_attached_mounts() {
    if !may_mount() || !Path::new("/dev/loop-control").exists() {
        return;
    }
    let mut store = Store::new(DriverName::Erofs, ApplyLimits::default());
    store.add(Tar::new().file("a", "1"));
    store.add(Tar::new().file("b", "2"));
    let places = store.places();
    let mount = image::through_loop(&places[0]).expect("loop device");
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert_eq!(fs::read(root.join("b")).expect("read"), b"2");
    let empty = [store.layers.root().join(".probe")];
    fs::create_dir(&empty[0]).expect("directory");
    let overlay = |lower: &[PathBuf]| {
        let overlay = hull_mount::Overlay { lower: lower.to_vec(), upper: None, options: Vec::new() };
        hull_mount::overlay(&overlay, MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    let mount = image::with_attached(&places, &empty, overlay).expect("attached");
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert_eq!((fs::read(root.join("a")).expect("read"), inventory(&root).len()), (b"1".to_vec(), 2));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(store.dir.path().to_str().expect("utf-8")));
}
