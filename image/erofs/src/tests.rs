use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_fixtures::made::noise;
use rustix::io::Errno;

use crate::{Builder, Error, Finished, Meta, Special, Sum};

const MEMORY: u64 = 64 << 20;

struct Image {
    dir: tempfile::TempDir,
    builder: Option<Builder>,
}

fn plain() -> Meta {
    Meta { mode: 0o644, mtime: 1_600_000_000, mtime_nanoseconds: 123_456_789, ..Meta::default() }
}

fn directory() -> Meta {
    Meta { mode: 0o755, ..plain() }
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("image"));
        let builder = Builder::new(file.expect("image"), directory(), MEMORY);
        Self { dir, builder: Some(builder) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn builder(&mut self) -> &mut Builder {
        self.builder.as_mut().expect("not finished")
    }

    fn file(&mut self, path: &str, meta: Meta, content: &[u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let builder = self.builder();
        let parent = builder.lead(parent.as_bytes(), &directory()).expect("parent");
        let mut data = builder.begin(meta, content.len() as u64, false).expect("begin");
        content.chunks(10_000).for_each(|piece| builder.write(&mut data, piece).expect("write"));
        builder.file(parent, name.as_bytes(), data).expect("file");
    }

    fn finish(&mut self) -> Finished {
        let finished = self.builder.take().expect("not finished").finish([7; 16]).expect("finish");
        let file = File::open(self.path()).expect("open");
        assert_eq!(file.metadata().expect("stat").len(), finished.size);
        assert_eq!(Sum::of(&file).expect("sum"), finished.sum);
        self.check();
        finished
    }

    /// By the peers' own tool, where there is one.
    fn check(&self) {
        let Ok(output) = Command::new("fsck.erofs").arg(self.path()).output() else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Mounted, if this process may.
    fn mount(&self) -> Option<(OwnedFd, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let options = hull_mount::parse_options(&["ro"]).expect("options");
        let mount = hull_mount::new_filesystem("erofs", self.path().to_str(), &options).expect("mount");
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mount));
        Some((mount, path.into()))
    }
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 65536];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("attribute");
    value.truncate(n);
    value
}

#[test]
fn everything_a_file_can_have() {
    let mut image = Image::new();
    let many: Vec<_> = (0..40)
        .map(|n| (format!("user.{n}{}", "x".repeat(100)).into_bytes(), vec![n as u8; 500]))
        .chain([(
            b"security.capability".to_vec(),
            b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        )])
        .collect();
    let meta = Meta { mode: 0o4711, uid: 4_000_000_000, gid: 70_000, mtime: -5, xattrs: many, ..plain() };
    image.file("bin/tool", meta.clone(), &noise(1, 5000));
    image.file("bin/blocks", plain(), &noise(2, 8192));
    image.file("bin/empty", plain(), b"");
    image.file("bin/middle", plain(), &noise(3, 3000));
    let name = "n".repeat(255);
    let odd: Vec<u8> = vec![b'o', 0xff, 0xfe, b'\n'];
    let builder = image.builder();
    let root = builder.root();
    builder.symlink(root, b"link", &plain(), b"bin/tool").expect("symlink");
    builder.symlink(root, b"long", &plain(), &[b'x'; 4000]).expect("symlink");
    builder.hard_link(root, b"again", b"bin", b"tool").expect("link");
    builder.hard_link(root, b"link2", b"", b"link").expect("link");
    builder.special(root, b"null", &Meta { mode: 0o666, ..plain() }, Special::Character(1, 3)).expect("dev");
    builder.special(root, b"disk", &plain(), Special::Block(259, 300)).expect("dev");
    builder.special(root, b"pipe", &plain(), Special::Fifo).expect("fifo");
    builder.special(root, odd.as_slice(), &plain(), Special::Fifo).expect("fifo");
    builder.special(root, name.as_bytes(), &plain(), Special::Fifo).expect("fifo");
    builder.whiteout(root, b"gone").expect("whiteout");
    let opaque = builder.directory(root, b"opaque", Meta { mode: 0o1777, ..plain() }).expect("directory");
    builder.opaque(opaque).expect("opaque");
    image.finish();
    let Some((_mount, root)) = image.mount() else { return };
    let tool = root.join("bin/tool").symlink_metadata().expect("stat");
    assert_eq!((tool.mode(), tool.uid(), tool.gid()), (0o104711, 4_000_000_000, 70_000));
    assert_eq!((tool.mtime(), tool.mtime_nsec(), tool.nlink()), (-5, 123_456_789, 2));
    assert_eq!(tool.ino(), root.join("again").symlink_metadata().expect("stat").ino());
    for (name, value) in &meta.xattrs {
        assert_eq!(attribute(&root.join("bin/tool"), std::str::from_utf8(name).expect("utf-8")), *value);
    }
    assert_eq!(fs::read(root.join("bin/tool")).expect("read"), noise(1, 5000));
    assert_eq!(fs::read(root.join("bin/blocks")).expect("read"), noise(2, 8192));
    assert_eq!(fs::read(root.join("bin/middle")).expect("read"), noise(3, 3000));
    assert_eq!(fs::read(root.join("bin/empty")).expect("read"), b"");
    assert_eq!(fs::read_link(root.join("link2")).expect("link"), Path::new("bin/tool"));
    assert_eq!(fs::read_link(root.join("long")).expect("link").as_os_str().len(), 4000);
    let kind = |name: &str| root.join(name).symlink_metadata().expect("stat");
    assert_eq!(kind("null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(kind("disk").rdev(), rustix::fs::makedev(259, 300));
    assert!(kind("pipe").file_type().is_fifo() && kind(&name).file_type().is_fifo());
    assert!(kind("gone").file_type().is_char_device() && kind("gone").rdev() == 0);
    assert_eq!(attribute(&root.join("opaque"), "trusted.overlay.opaque"), b"y");
    assert_eq!((kind("").nlink(), kind("bin").nlink(), kind("opaque").mode()), (4, 2, 0o41777));
    let listed = fs::read_dir(&root).expect("list").count();
    assert_eq!(listed, 12);
}

#[test]
fn many_files_of_all_sizes() {
    let mut image = Image::new();
    let size = |n: usize| (n * 7919) % 9001;
    for n in 0..4000 {
        image.file(&format!("d{}/{}/file-{n}", n % 7, n % 401), plain(), &noise(n as u64, size(n)));
    }
    image.file("large", plain(), &noise(5, 5_000_001));
    let finished = image.finish();
    let bytes = (0..4000).map(size).sum::<usize>() as u64 + 5_000_001;
    assert!(finished.size < bytes + bytes / 4, "{} for {bytes}", finished.size);
    let Some((_mount, root)) = image.mount() else { return };
    for n in 0..4000 {
        let path = root.join(format!("d{}/{}/file-{n}", n % 7, n % 401));
        assert_eq!(fs::read(path).expect("read"), noise(n as u64, size(n)), "{n}");
    }
    assert_eq!(fs::read(root.join("large")).expect("read"), noise(5, 5_000_001));
}

#[test]
fn large_directories_find_every_name() {
    let mut image = Image::new();
    let names: Vec<String> =
        (0..3000).map(|n| format!("{}-{n:x}", "+-.az"[n % 5..].chars().next().expect("x"))).collect();
    let builder = image.builder();
    let parent = builder.lead(b"a/b", &directory()).expect("parent");
    for name in &names {
        builder.special(parent, name.as_bytes(), &plain(), Special::Fifo).expect("fifo");
    }
    image.finish();
    let Some((_mount, root)) = image.mount() else { return };
    for name in &names {
        assert!(root.join("a/b").join(name).symlink_metadata().is_ok(), "{name}");
    }
    assert!(root.join("a/b/absent").symlink_metadata().is_err());
    assert_eq!(fs::read_dir(root.join("a/b")).expect("list").count(), names.len());
}

#[test]
fn holes_cost_nothing() {
    let mut image = Image::new();
    let pieces = [(0, 10), (4096 * 3 - 5, 10), (1 << 20, 5000), (40 << 30, 3), ((50 << 30) - 7, 7)];
    let size = 50 << 30;
    let builder = image.builder();
    let root = builder.root();
    let mut data = builder.begin(plain(), size, true).expect("begin");
    for (offset, length) in pieces {
        builder.write_at(&mut data, offset, &noise(offset, length)).expect("write");
    }
    builder.file(root, b"sparse", data).expect("file");
    let mut data = builder.begin(plain(), 100_000, true).expect("begin");
    builder.write_at(&mut data, 70_000, &noise(9, 10)).expect("write");
    builder.file(root, b"small", data).expect("file");
    let data = builder.begin(plain(), 100_000, true).expect("begin");
    builder.file(root, b"nothing", data).expect("file");
    image.finish();
    let stored = fs::metadata(image.path()).expect("stat").blocks() * 512;
    assert!(stored < 1 << 20, "{stored}");
    let Some((_mount, root)) = image.mount() else { return };
    let file = File::open(root.join("sparse")).expect("open");
    assert_eq!(file.metadata().expect("stat").len(), size);
    for (offset, length) in pieces {
        let mut bytes = vec![0; length + 20];
        let start = offset.saturating_sub(10);
        let n = file.read_at(&mut bytes, start).expect("read");
        let lead = (offset - start) as usize;
        let mut want = vec![0; lead];
        want.extend(noise(offset, length));
        want.resize(n, 0);
        assert_eq!(bytes[..n], want, "{offset}");
    }
    let mut want = vec![0; 100_000];
    assert_eq!(fs::read(root.join("nothing")).expect("read"), want);
    want[70_000..70_010].copy_from_slice(&noise(9, 10));
    assert_eq!(fs::read(root.join("small")).expect("read"), want);
}

#[test]
fn links_lead_inside_only() {
    let mut image = Image::new();
    let builder = image.builder();
    let root = builder.root();
    for (name, target) in
        [("up", "../../../etc"), ("abs", "/usr/lib"), ("loop", "loop"), ("dangling", "nowhere")]
    {
        builder.symlink(root, name.as_bytes(), &plain(), target.as_bytes()).expect("symlink");
    }
    let errno = |result: Result<crate::Id, Error>| match result {
        Err(Error::Refused { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(errno(builder.lead(b"dangling/x", &directory())), Errno::NOENT);
    assert_eq!(errno(builder.lead(b"loop/x", &directory())), Errno::LOOP);
    assert_eq!(errno(builder.lead("a/".repeat(3000).as_bytes(), &directory())), Errno::NAMETOOLONG);
    let lib = builder.lead(b"usr/lib", &directory()).expect("directory");
    assert_eq!(builder.lead(b"abs", &directory()).expect("link"), lib);
    let etc = builder.lead(b"etc", &directory()).expect("directory");
    assert_eq!(builder.lead(b"up", &directory()).expect("link"), etc);
    assert_eq!(errno(builder.directory(root, &[b'n'; 256], directory())), Errno::NAMETOOLONG);
    assert!(builder.hard_link(root, b"x", b"", b"etc").is_err());
    assert!(builder.hard_link(root, b"x", b"", b"absent").is_err());
    assert!(builder.symlink(root, b"x", &plain(), b"").is_err());
    image.finish();
}

#[test]
fn what_comes_later_takes_the_place() {
    let mut image = Image::new();
    image.file("a", plain(), b"first");
    let builder = image.builder();
    let root = builder.root();
    builder.hard_link(root, b"b", b"", b"a").expect("link");
    image.file("a", plain(), b"second");
    image.file("dir/inner", plain(), b"lost");
    image.file("dir", plain(), b"a file now");
    let builder = image.builder();
    builder.whiteout(root, b"w").expect("whiteout");
    builder.whiteout(root, b"a").expect("whiteout");
    let inner = builder.lead(b"w/x", &directory()).expect("through the whiteout");
    builder.special(inner, b"pipe", &plain(), Special::Fifo).expect("fifo");
    image.finish();
    let Some((_mount, root)) = image.mount() else { return };
    assert_eq!(fs::read(root.join("a")).expect("read"), b"second");
    assert_eq!(fs::read(root.join("b")).expect("read"), b"first");
    assert_eq!(fs::read(root.join("dir")).expect("read"), b"a file now");
    assert_eq!(root.join("b").metadata().expect("stat").nlink(), 1);
    assert_eq!(attribute(&root.join("w"), "trusted.overlay.opaque"), b"y");
    assert!(root.join("w/x/pipe").symlink_metadata().is_ok());
}

#[test]
fn every_damaged_block_is_noticed() {
    let mut image = Image::new();
    image.file("one", plain(), &noise(1, 100_000));
    image.file("two", plain(), &noise(2, 100));
    let finished = image.finish();
    let file = File::options().read(true).write(true).open(image.path()).expect("open");
    for block in 0..finished.size / 4096 {
        let place = block * 4096 + 1030 + block % 50;
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).expect("read");
        file.write_all_at(&[byte[0] ^ 0x10], place).expect("write");
        assert_ne!(Sum::of(&file).expect("sum"), finished.sum, "{block}");
        file.write_all_at(&byte, place).expect("write");
    }
    assert_eq!(Sum::of(&file).expect("sum"), finished.sum);
}

#[test]
fn memory_is_bounded() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("image"));
    let mut builder = Builder::new(file.expect("image"), directory(), 100_000);
    let root = builder.root();
    let refused =
        (0..10_000).find_map(|n: u32| builder.special(root, &n.to_le_bytes(), &plain(), Special::Fifo).err());
    assert!(matches!(refused, Some(Error::Limit { limit: 100_000, .. })), "{refused:?}");
}
