use std::io::Read;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut data.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes, HeaderLimits::default());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        while reader.chunk(u64::MAX, |piece| {
            data.extend_from_slice(piece);
            Ok::<(), TarError>(())
        })? > 0
        {}
        entries.push((entry, data));
    }
    Ok(entries)
}

fn file(name: impl Into<Vec<u8>>, data: &[u8]) -> (Entry, Vec<u8>) {
    (Entry { size: data.len() as u64, ..Entry::new(Kind::File, name) }, data.to_vec())
}

#[test]
fn what_is_written_is_read() {
    let mut odd = file([b"dir/\xff\xfe".to_vec(), vec![b'n'; 300]].concat(), &[7; 1000]);
    odd.0.mtime = Time { seconds: -5, nanoseconds: 250 };
    odd.0.atime = Some(Time { seconds: 1 << 40, nanoseconds: 1 });
    odd.0.uid = u32::MAX - 1;
    odd.0.mode = 0o4755;
    odd.0.xattrs = vec![(b"security.capability".to_vec(), b"\x01\0\n=\xff".to_vec())];
    let mut device = (Entry::new(Kind::CharDevice, "dev/x"), vec![]);
    device.0.device = (1, 3);
    let mut link = (Entry::new(Kind::Symlink, "l"), vec![]);
    link.0.link = "../".repeat(60).into_bytes();
    let prefixed = file(format!("{}/{}", "p".repeat(120), "n".repeat(90)), b"");
    let entries =
        vec![odd, device, link, prefixed, (Entry::new(Kind::Fifo, "f"), vec![]), file("empty", b"")];
    assert_eq!(read(&write(&entries)).unwrap(), entries);
}

/// GNU tar reads what we write and we read what it writes, in each of its formats.
#[test]
fn agrees_with_gnu_tar() {
    let dir = tempfile::tempdir().unwrap();
    let long = "long-name-".repeat(20);
    std::fs::write(dir.path().join(&long), b"content").unwrap();
    let sparse = std::fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 5 << 20).unwrap();
    for options in [
        vec!["--format=gnu"],
        vec!["--format=posix"],
        vec!["--format=gnu", "--sparse"],
        vec!["--format=posix", "--sparse", "--sparse-version=0.0"],
        vec!["--format=posix", "--sparse", "--sparse-version=0.1"],
        vec!["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let out =
            Command::new("tar").args(&options).args(["-c", "-C"]).arg(dir.path()).arg(".").output().unwrap();
        assert!(out.status.success());
        let entries = read(&out.stdout).unwrap();
        let named = |n: &str| entries.iter().find(|(e, _)| e.name == format!("./{n}").into_bytes()).unwrap();
        assert_eq!(named(&long).1, b"content", "{options:?}");
        let (entry, data) = named("sparse");
        assert_eq!(entry.size, 10 << 20, "{options:?}");
        if let Some(map) = &entry.sparse {
            let first = map.iter().find(|e| e.length > 0).unwrap();
            assert_eq!(data.len() as u64, map.iter().map(|e| e.length).sum::<u64>());
            assert_eq!(&data[((5 << 20) - first.offset) as usize..][..6], b"middle", "{options:?}");
        }
    }
    let mut child =
        Command::new("tar").args(["-tv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes = write(&[file(long.clone(), b"x")]);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let mut listing = String::new();
    child.stdout.take().unwrap().read_to_string(&mut listing).unwrap();
    assert!(child.wait().unwrap().success() && listing.contains(&long));
}

#[test]
fn every_cut_is_an_error_or_an_end_between_entries() {
    let bytes = write(&[file("a", &[1; 600]), file("b".repeat(200), b"x")]);
    let whole = bytes.len() - 2 * BLOCK;
    for cut in 0..whole {
        match read(&bytes[..cut]) {
            Ok(entries) => assert!(cut == 0 || (cut == 512 * 3 && entries.len() == 1), "cut at {cut}"),
            Err(TarError::Truncated) => {}
            Err(e) => panic!("cut at {cut}: {e}"),
        }
    }
}

#[test]
fn garbage_and_huge_headers_are_refused() {
    assert!(matches!(read(&[b'x'; 1024]), Err(TarError::Header(0))));
    let mut bytes = write(&[file("a".repeat(300), b"")]);
    bytes[124..136].copy_from_slice(b"77777777777\0");
    let mut sum = 0u64;
    bytes[148..156].fill(b' ');
    bytes[..512].iter().for_each(|b| sum += u64::from(*b));
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(matches!(read(&bytes), Err(TarError::HugeHeader { .. })));
}

proptest! {
    #[test]
    fn any_bytes_end_in_entries_or_an_error(bytes: Vec<u8>) {
        let _ = read(&bytes);
    }

    #[test]
    fn any_damage_is_survived(at in 0usize..3072, value: u8, name in "[a-z]{1,200}") {
        let mut bytes = write(&[file(name, &[1; 600])]);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = read(&bytes);
    }
}
