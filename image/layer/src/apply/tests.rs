use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use rustix::mount::MountAttrFlags;

use crate::tar::{Extent, Writer};
use crate::{ChangeKind, DriverName, Layers, Options, PackOptions, changes, pack};

/// Things to put in an archive.
struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(&Entry::new(Kind::File, name), data)
    }

    fn dir(self, name: &str) -> Self {
        self.entry(&Entry { mode: 0o755, ..Entry::new(Kind::Directory, name) }, "")
    }

    fn link(self, kind: Kind, name: &str, target: &str) -> Self {
        self.entry(&Entry { link: target.into(), ..Entry::new(kind, name) }, "")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.link(Kind::Symlink, name, target)
    }

    fn entry(mut self, entry: &Entry, data: &str) -> Self {
        self.0.append_bytes(entry, data.as_bytes()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// A root with a neighbour that must never be touched.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn apply(&self, tar: Tar) -> Result<Applied, LayerError> {
        self.apply_with(tar, &ApplyOptions::layer(ApplyLimits::default()))
    }

    fn apply_with(&self, tar: Tar, options: &ApplyOptions) -> Result<Applied, LayerError> {
        let root = fs::File::open(self.root()).unwrap();
        let result = extract(&root, tar.bytes().as_slice(), options);
        let outside: Vec<_> = fs::read_dir(self.dir.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1, "something was written outside");
        assert_eq!(fs::read(self.dir.path().join("outside/secret")).unwrap(), b"untouched");
        assert_eq!(fs::metadata(self.dir.path().join("outside/secret")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        result
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root().join(name)).unwrap()
    }

    fn is_whiteout(&self, name: &str) -> bool {
        let dir = fs::File::open(self.root()).unwrap();
        is_whiteout(&dir, name.as_bytes())
    }

    fn is_opaque(&self, name: &str) -> bool {
        crate::root::is_opaque(fs::File::open(self.root().join(name)).unwrap())
    }
}

#[test]
fn metadata_arrives() {
    let place = Place::new();
    let mtime = Time { seconds: 1_234_567_890, nanoseconds: 123_456_789 };
    let mut program = Entry::new(Kind::File, "bin/su");
    (program.mode, program.uid, program.gid, program.mtime) = (0o4755, 7, 8, mtime);
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    program.xattrs = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"user.note".to_vec(), b"x".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
    ];
    let dir = Entry { mode: 0o1777, mtime, ..Entry::new(Kind::Directory, "tmp/") };
    let pipe = Entry { mode: 0o620, ..Entry::new(Kind::Fifo, "pipe") };
    let null = Entry { mode: 0o666, device: (1, 3), ..Entry::new(Kind::CharDevice, "dev/null") };
    let tar = Tar::new()
        .entry(&dir, "")
        .file("tmp/inside", "y")
        .entry(&program, "suid")
        .link(Kind::HardLink, "bin/su2", "./bin/su")
        .entry(&pipe, "")
        .entry(&null, "")
        .symlink("abs", "/etc/passwd");
    place.apply(tar).unwrap();
    let root = place.root();
    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    let su = stat("bin/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 7, 8, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((stat("tmp").mode() & 0o7777, stat("tmp").mtime()), (0o1777, 1_234_567_890));
    assert!(stat("pipe").file_type().is_fifo() && stat("dev/null").file_type().is_char_device());
    assert_eq!((stat("dev/null").rdev(), stat("dev/null").mode() & 0o7777), (0x103, 0o666));
    assert_eq!(stat("dev").mode() & 0o7777, 0o755);
    assert_eq!(fs::read_link(root.join("abs")).unwrap(), Path::new("/etc/passwd"));
    let mut value = [0u8; 64];
    let n = rustix::fs::getxattr(root.join("bin/su2"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..n], capability);
    assert!(rustix::fs::getxattr(root.join("bin/su"), "trusted.overlay.redirect", &mut value[..]).is_err());
}

#[test]
fn climbing_names_are_refused_by_name() {
    for name in ["../outside/x", "a/../../outside/x", "/../outside/x", "..", "a/../.."] {
        let place = Place::new();
        match place.apply(Tar::new().file(name, "x")) {
            Err(LayerError::Climbs { entry, .. }) => assert_eq!(entry, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn absolute_names_are_inside() {
    let place = Place::new();
    let absolute = format!("{}/outside/secret", place.dir.path().display());
    place.apply(Tar::new().file(&absolute, "mine")).unwrap();
    assert_eq!(place.read(&absolute[1..]), "mine");
}

#[test]
fn writing_through_links_stays_inside() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    // An absolute link is taken from the root; its target is not there, so nothing can be written through it.
    assert!(place.apply(Tar::new().symlink("abs", outside).file("abs/secret", "x")).is_err());
    let place = Place::new();
    assert!(place.apply(Tar::new().symlink("rel", "../outside").file("rel/secret", "x")).is_err());
    let place = Place::new();
    place.apply(Tar::new().dir("usr/lib").symlink("lib", "usr/lib").file("lib/x", "through")).unwrap();
    assert_eq!(place.read("usr/lib/x"), "through");
    // A link that climbs ends at the root of the layer.
    let place = Place::new();
    place.apply(Tar::new().dir("etc").symlink("up", "../../../etc").file("up/x", "1")).unwrap();
    assert_eq!(place.read("etc/x"), "1");
}

#[test]
fn a_link_is_replaced_not_written_through() {
    let place = Place::new();
    symlink("../outside/secret", place.root().join("x")).unwrap();
    place.apply(Tar::new().file("x", "new").symlink("y", "x").file("y", "also new")).unwrap();
    assert_eq!((place.read("x"), place.read("y")), ("new".into(), "also new".into()));
}

#[test]
fn hard_links_reach_only_inside() {
    for target in ["../outside/secret", "/../outside/secret"] {
        let place = Place::new();
        let result = place.apply(Tar::new().link(Kind::HardLink, "x", target));
        assert!(matches!(result, Err(LayerError::Climbs { .. })), "{target}");
    }
    let place = Place::new();
    let tar = Tar::new().symlink("d", "../outside").link(Kind::HardLink, "x", "d/secret");
    assert!(place.apply(tar).is_err());
    let place = Place::new();
    assert!(place.apply(Tar::new().link(Kind::HardLink, "x", "missing")).is_err());
    assert!(place.apply(Tar::new().file("x", "").link(Kind::HardLink, "x", "x")).is_err());
    // A hard link to a symbolic link is that link: writing to it must not follow.
    let place = Place::new();
    let tar = Tar::new().symlink("s", "../outside/secret").link(Kind::HardLink, "h", "s").file("h", "mine");
    place.apply(tar).unwrap();
    assert_eq!(place.read("h"), "mine");
}

#[test]
fn whiteouts_become_overlays() {
    let place = Place::new();
    let tar = Tar::new()
        .file(".wh.gone", "")
        .file("dir/.wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "")
        .file(".wh..wh.plnk/1.2", "")
        .file(".wh..wh.aufs", "");
    place.apply(tar).unwrap();
    assert!(place.is_whiteout("gone") && place.is_whiteout("dir/gone"));
    assert!(place.is_opaque("opaque") && !place.is_opaque("dir"));
    assert!(!place.root().join(".wh..wh.aufs").exists());
}

#[test]
fn whiteouts_that_climb_are_refused() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        let place = Place::new();
        let result = place.apply(Tar::new().file(name, ""));
        assert!(matches!(result, Err(LayerError::Climbs { .. })), "{name}: {result:?}");
    }
    // Through a link: the whiteout is made where the link leads inside of the root, or not at all.
    let place = Place::new();
    assert!(place.apply(Tar::new().symlink("l", "../outside").file("l/.wh.secret", "")).is_err());
    let place = Place::new();
    assert!(place.apply(Tar::new().symlink("l", "../outside").file("l/.wh..wh..opq", "")).is_err());
}

#[test]
fn what_a_layer_adds_wins_over_its_own_whiteout() {
    for tar in [
        Tar::new().file(".wh.d", "").dir("d").file("d/new", "1"),
        Tar::new().dir("d").file("d/new", "1").file(".wh.d", ""),
        Tar::new().file(".wh.d", "").file("d/new", "1"),
    ] {
        let place = Place::new();
        place.apply(tar).unwrap();
        assert_eq!(place.read("d/new"), "1");
        assert!(place.is_opaque("d"));
    }
    for tar in [Tar::new().file(".wh.f", "").file("f", "2"), Tar::new().file("f", "2").file(".wh.f", "")] {
        let place = Place::new();
        place.apply(tar).unwrap();
        assert_eq!(place.read("f"), "2");
    }
}

#[test]
fn whiteouts_are_ordinary_when_copying() {
    let place = Place::new();
    place.apply_with(Tar::new().file(".wh.x", "data"), &ApplyOptions::copy()).unwrap();
    assert_eq!(place.read(".wh.x"), "data");
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let place = Place::new();
    let tar = Tar::new()
        .file("a", "1")
        .file("a", "2")
        .dir("b")
        .file("b/c", "")
        .file("b", "was a directory")
        .file("d", "")
        .dir("d")
        .file("d/e", "in")
        .symlink("f", "d")
        .dir("f")
        .file("f/g", "own")
        .dir("d");
    place.apply(tar).unwrap();
    assert_eq!(
        (place.read("a"), place.read("b"), place.read("d/e")),
        ("2".into(), "was a directory".into(), "in".into())
    );
    assert!(
        place.root().join("f").symlink_metadata().unwrap().is_dir() && !place.root().join("d/g").exists()
    );
    let options = ApplyOptions { keep_kind: true, ..ApplyOptions::copy() };
    assert!(place.apply_with(Tar::new().file("d", ""), &options).is_err());
    assert!(place.apply_with(Tar::new().dir("a"), &options).is_err());
}

#[test]
fn odd_names_and_sparse_files() {
    let place = Place::new();
    let odd = Entry::new(Kind::File, b"\xff\xfe\n".to_vec());
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    let root = fs::File::open(place.root()).unwrap();
    place.apply(Tar::new().entry(&odd, "odd").file(&long, "long")).unwrap();
    assert_eq!(
        fs::read(place.root().join(std::ffi::OsString::from_vec(b"\xff\xfe\n".to_vec()))).unwrap(),
        b"odd"
    );
    assert_eq!(place.read(&long), "long");
    assert!(place.apply(Tar::new().file(&"x".repeat(256), "")).is_err());
    let source = tempfile::tempdir().unwrap();
    let file = fs::File::create(source.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", (64 << 20) - 3).unwrap();
    let out = std::process::Command::new("tar")
        .arg("-SC")
        .arg(source.path())
        .args(["-c", "sparse"])
        .output()
        .unwrap();
    extract(&root, out.stdout.as_slice(), &ApplyOptions::layer(ApplyLimits::default())).unwrap();
    let sparse = fs::metadata(place.root().join("sparse")).unwrap();
    assert_eq!(sparse.len(), 64 << 20);
    assert!(sparse.blocks() < 1000);
    assert!(fs::read(place.root().join("sparse")).unwrap().ends_with(b"\0end"));
    let _ = Extent { offset: 0, length: 0 };
}

#[test]
fn limits_stop_bombs() {
    let limits = ApplyLimits { entries: 2, bytes: 10, ..ApplyLimits::default() };
    let options = ApplyOptions::layer(limits);
    let result = Place::new().apply_with(Tar::new().dir("a").dir("b").dir("c"), &options);
    assert!(matches!(result, Err(LayerError::Limit { what: "entries", limit: 2 })));
    let result = Place::new().apply_with(Tar::new().file("a", "12345678901"), &options);
    assert!(matches!(result, Err(LayerError::Limit { what: "bytes", limit: 10 })));
}

fn layers() -> (tempfile::TempDir, Layers) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { driver: Some(DriverName::Overlay), ..Options::default() };
    let layers = Layers::open_with(dir.path().join("layers"), options).unwrap();
    (dir, layers)
}

fn left_behind(layers: &Layers) -> usize {
    [".staging", ".trash"].iter().map(|name| fs::read_dir(layers.root().join(name)).unwrap().count()).sum()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_layer_is_staged_checked_and_named() {
    let (dir, layers) = layers();
    let tar = Tar::new().file("a", "hello").dir("b").bytes();
    let diff_id = hull_content::sha256(&tar);
    for input in [tar.clone(), gzip(&tar), zstd::encode_all(tar.as_slice(), 3).unwrap()] {
        let staged = layers.stage(input.as_slice(), Some(&diff_id)).unwrap();
        assert_eq!((staged.diff_id(), staged.size()), (&diff_id, 5));
        let record = staged.commit(&diff_id, None).unwrap();
        assert_eq!((record.tar_size, record.entries), (tar.len() as u64, 2));
    }
    assert_eq!(fs::read(layers.place(&diff_id).join("a")).unwrap(), b"hello");
    assert_eq!(layers.list().unwrap().len(), 1);
    assert_eq!(left_behind(&layers), 0);
    let again = Layers::open(dir.path().join("layers")).unwrap();
    assert_eq!(again.snapshot(std::slice::from_ref(&diff_id)).unwrap().lower, vec![layers.place(&diff_id)]);
    assert!(again.remove(&diff_id).unwrap() && !again.remove(&diff_id).unwrap());
    assert!(matches!(again.snapshot(&[diff_id]), Err(LayerError::NotFound(_))));
    assert_eq!(left_behind(&layers), 0);
}

#[test]
fn bad_layers_leave_nothing() {
    let (_dir, layers) = layers();
    let tar = Tar::new().file("a", &"hello ".repeat(100_000)).file("b", "x").bytes();
    let diff_id = hull_content::sha256(&tar);
    let packed = gzip(&tar);
    let mut trailing = tar.clone();
    trailing.extend_from_slice(b"more");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("is not a valid archive", tar[..tar.len() / 2].to_vec()),
        ("does not match its diff id", trailing),
        ("does not match its diff id", Tar::new().file("c", "").bytes()),
        ("cannot be decompressed (gzip)", packed[..packed.len() / 2].to_vec()),
        ("cannot be decompressed (gzip)", [&[0x1f, 0x8b][..], &[7; 5000]].concat()),
        ("cannot be decompressed (zstd)", [&[0x28, 0xb5, 0x2f, 0xfd][..], &[7; 5000]].concat()),
        ("is not a valid archive", vec![b'x'; 5000]),
        ("would be outside of the layer", Tar::new().file("ok", "1").file("../x", "").bytes()),
        ("xz, which is not supported", b"\xfd7zXZ\0...............".to_vec()),
    ];
    for (message, input) in cases {
        let error = layers.stage(input.as_slice(), Some(&diff_id)).unwrap_err();
        assert!(error.to_string().contains(message), "{error} / {message}");
        assert_eq!(left_behind(&layers), 0, "{message}");
    }
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    let error = layers.stage(std::io::Read::chain(&tar[..1000], Broken), Some(&diff_id)).unwrap_err();
    assert!(matches!(error, LayerError::Source(_)), "{error}");
    assert!(layers.list().unwrap().is_empty());
}

#[test]
fn a_crash_is_cleaned_at_start() {
    let (dir, layers) = layers();
    for name in [".staging/x/diff", ".trash/y/diff/z"] {
        fs::create_dir_all(layers.root().join(name)).unwrap();
    }
    let layers = Layers::open(dir.path().join("layers")).unwrap();
    assert_eq!(left_behind(&layers), 0);
    // Renamed, but its record lost in a power cut: not there, and unpacking again replaces it.
    let tar = Tar::new().file("a", "1").bytes();
    let diff_id = hull_content::sha256(&tar);
    fs::create_dir_all(layers.place(&diff_id).join("half")).unwrap();
    assert!(!layers.contains(&diff_id));
    layers.stage(tar.as_slice(), Some(&diff_id)).unwrap().commit(&diff_id, None).unwrap();
    assert!(layers.contains(&diff_id) && !layers.place(&diff_id).join("half").exists());
}

/// Everything about a tree that an image must carry.
fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let content = match stat.file_type() {
                t if t.is_file() => fs::read(&path).unwrap(),
                t if t.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            let line = format!(
                "{:o} {}:{} {}.{} {links} {} {content:?}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.rdev()
            );
            if stat.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), line);
        }
    }
    found
}

#[test]
fn packing_and_applying_keeps_everything() {
    let place = Place::new();
    let mtime = Time { seconds: 99, nanoseconds: 7 };
    let file = Entry { mode: 0o6751, uid: 3, gid: 4, mtime, ..Entry::new(Kind::File, "d/f") };
    let tar = Tar::new()
        .dir("d")
        .entry(&file, "data")
        .link(Kind::HardLink, "d/h", "d/f")
        .symlink("s", "d/f")
        .entry(&Entry { device: (5, 6), ..Entry::new(Kind::BlockDevice, "b") }, "")
        .entry(&Entry::new(Kind::Fifo, "p"), "")
        .file("d/.wh.gone", "")
        .file("o/.wh..wh..opq", "");
    place.apply(tar).unwrap();
    let root = fs::File::open(place.root()).unwrap();
    let packed = pack(&root, Vec::new(), &PackOptions { whiteouts: true, ..PackOptions::default() }).unwrap();
    let copy = Place::new();
    let target = fs::File::open(copy.root()).unwrap();
    extract(&target, packed.as_slice(), &ApplyOptions::layer(ApplyLimits::default())).unwrap();
    let mut want = inventory(&place.root());
    let mut got = inventory(&copy.root());
    // A whiteout's own times mean nothing.
    want.remove(Path::new("d/gone"));
    got.remove(Path::new("d/gone"));
    assert_eq!(want, got);
    assert!(copy.is_whiteout("d/gone") && copy.is_opaque("o"));
    let again =
        pack(&target, Vec::new(), &PackOptions { whiteouts: true, ..PackOptions::default() }).unwrap();
    assert_eq!(again.len(), packed.len());
}

#[test]
fn changes_as_docker_tells_them() {
    let (base, over, upper) = (Place::new(), Place::new(), Place::new());
    base.apply(
        Tar::new().dir("etc").file("etc/a", "1").file("etc/b", "1").dir("var").file("var/x", "").dir("opt"),
    )
    .unwrap();
    over.apply(Tar::new().dir("etc").file("etc/.wh.b", "").file("etc/c", "")).unwrap();
    let tar = Tar::new()
        .dir("etc")
        .file("etc/a", "2")
        .file("etc/b", "again")
        .file("etc/.wh.c", "")
        .file("var/.wh..wh..opq", "")
        .file("var/.wh.never", "")
        .dir("new")
        .file("new/f", "");
    upper.apply(tar).unwrap();
    // Unchanged but copied up.
    let opt = fs::metadata(base.root().join("opt")).unwrap();
    fs::create_dir(upper.root().join("opt")).unwrap();
    fs::set_permissions(upper.root().join("opt"), fs::Permissions::from_mode(opt.mode())).unwrap();
    fs::File::open(upper.root().join("opt")).unwrap().set_modified(opt.modified().unwrap()).unwrap();
    let (_dir, layers) = layers();
    let below = layers.trees(&[over.root(), base.root()]).unwrap();
    let root = fs::File::open(upper.root()).unwrap();
    let found: Vec<String> = changes(&root, &below)
        .unwrap()
        .into_iter()
        .map(|c| {
            let kind = match c.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} {}", String::from_utf8_lossy(&c.path))
        })
        .collect();
    assert_eq!(
        found,
        ["C /etc", "C /etc/a", "A /etc/b", "D /etc/c", "A /new", "A /new/f", "C /var", "D /var/x"]
    );
    assert_eq!(crate::tree_size(&root).unwrap(), 6);
}

/// The merged tree through a detached mount, which no other process sees.
#[test]
fn snapshots_mount() {
    let (dir, layers) = layers();
    let mut chain: Vec<hull_model::Digest> = Vec::new();
    for tar in [Tar::new().file("a", "1").file("b", "1"), Tar::new().file("b", "2").file(".wh.a", "")] {
        let staged = layers.stage(tar.bytes().as_slice(), None).unwrap();
        let id = staged.diff_id().clone();
        staged.commit(&id, chain.last()).unwrap();
        chain.push(id);
    }
    let names = |mount: &OwnedFd| {
        let root = open_in(mount, b"", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        let names = crate::walk::names(&root).unwrap();
        names.into_iter().map(|n| String::from_utf8(n).unwrap()).collect::<Vec<_>>()
    };
    for (ids, want) in [(&chain[..], vec!["b"]), (&chain[..1], vec!["a", "b"]), (&[][..], vec![])] {
        let snapshot = layers.snapshot(ids).unwrap();
        let mount = layers.mount(&snapshot.lower).unwrap();
        assert_eq!(names(&mount), want);
        let create = OFlags::CREATE | OFlags::WRONLY;
        let refused = rustix::fs::openat(&mount, "c", create, Mode::from_raw_mode(0o600));
        assert_eq!(refused.unwrap_err(), Errno::ROFS);
    }
    let (own, lower) = (dir.path(), layers.snapshot(&chain).unwrap().lower);
    layers.prepare(own, &lower).unwrap();
    let mount = layers.container_root(own, &lower, MountAttrFlags::empty()).unwrap();
    extract(&mount, Tar::new().file("new", "x").bytes().as_slice(), &ApplyOptions::copy()).unwrap();
    rustix::fs::unlinkat(&mount, "b", AtFlags::empty()).unwrap();
    assert_eq!(names(&mount), ["new"]);
    let found = layers.container_changes(own, &lower).unwrap();
    let kinds: Vec<_> = found.iter().map(|c| (c.path.as_slice(), c.kind)).collect();
    assert_eq!(kinds, [(&b"/b"[..], ChangeKind::Deleted), (&b"/new"[..], ChangeKind::Added)]);
    let exported = pack(&mount, Vec::new(), &PackOptions::default()).unwrap();
    assert!(exported.windows(3).any(|w| w == b"new"));
}
