//! `/proc/self/mountinfo`, `proc_pid_mountinfo(5)`.

use crate::{Error, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Mount id.
    pub id: u32,
    /// Id of the mount it is on.
    pub parent: u32,
    /// Directory of the file system that is the root of this mount.
    pub root: PathBuf,
    /// Where it is, from this process's root.
    pub mount_point: PathBuf,
    /// Options of the mount.
    pub options: String,
    /// `shared:1`, `master:2`, …
    pub optional: Vec<String>,
    /// File system type.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

/// The mounts of this process's mount namespace.
pub fn mountinfo() -> Result<Vec<MountInfo>> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(Error::MountInfo)?;
    Ok(parse_mountinfo(&text))
}

/// Parses the text of a mountinfo file; lines that are not understood are left out.
pub fn parse_mountinfo(text: &[u8]) -> Vec<MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let root = unescape(fields.nth(1)?);
    let mount_point = unescape(fields.next()?);
    let options = text(fields.next()?);
    let optional = fields.by_ref().take_while(|field| *field != b"-").map(text).collect();
    let kind = text(fields.next()?);
    let source = text(fields.next()?);
    let super_options = text(fields.next().unwrap_or_default());
    Some(MountInfo { id, parent, root, mount_point, options, optional, kind, source, super_options })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_every_part() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:3 - ext3 /dev/root rw,errors=continue\n\nbad";
        let parsed = parse_mountinfo(line);
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].mount_point, PathBuf::from("/mnt 2"));
        assert_eq!(parsed[0].optional, ["master:1", "shared:3"]);
        assert_eq!(parsed[0].kind, "ext3");
        assert_eq!(parsed[0].super_options, "rw,errors=continue");
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(mountinfo().expect("mountinfo").iter().any(|mount| mount.mount_point.as_os_str() == "/"));
    }
}
