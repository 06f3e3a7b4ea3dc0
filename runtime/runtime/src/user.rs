//! Users and groups by name, looked up in a container's own `/etc/passwd` and `/etc/group`.
//!
//! The rules are docker's: a user that parses as a number is an id; a user found by name or id brings its group, home and
//! supplementary groups; a group given explicitly replaces both group and supplementary groups; the primary group is
//! always among the additional ones, so that dropping it cannot gain access (CVE-2022-36109).

use hull_fsroot::Root;
use std::os::fd::AsFd;

/// Largest id docker accepts (`int32`).
const MAX_ID: u32 = i32::MAX as u32;
/// More than any real passwd or group file; keeps a hostile image from filling the memory.
const MAX_FILE: usize = 8 << 20;

/// A user or group that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// An id out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
    /// passwd or group cannot be read.
    #[error(transparent)]
    Read(#[from] hull_fsroot::Error),
}

/// A user, ready for `process.user`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Additional group ids, the primary one first, without repetition.
    pub additional: Vec<u32>,
    /// Home directory, when the user is in passwd.
    pub home: Option<String>,
    /// Name, when the user is in passwd.
    pub name: Option<String>,
}

/// Resolves `user[:group]` (empty: root) and extra groups (`--group-add`, names or numbers) inside the root file system
/// that `rootfs` is a directory descriptor of.
pub fn resolve(rootfs: impl AsFd, user: &str, extra_groups: &[String]) -> Result<Resolved, UserError> {
    let root = Root::new(rootfs.as_fd());
    let passwd = root.read("/etc/passwd", MAX_FILE)?.unwrap_or_default();
    let group = root.read("/etc/group", MAX_FILE)?.unwrap_or_default();
    resolve_in(&passwd, &group, user, extra_groups)
}

/// The home directory of a uid in the root file system, if passwd has it.
pub fn home_of(rootfs: impl AsFd, uid: u32) -> Option<String> {
    let passwd = Root::new(rootfs.as_fd()).read("/etc/passwd", MAX_FILE).ok()??;
    let passwd = String::from_utf8_lossy(&passwd);
    passwd.lines().filter_map(Passwd::parse).find(|entry| entry.uid == uid).map(|entry| entry.home.into())
}

/// [`resolve`] on the contents of the two files.
pub fn resolve_in(
    passwd: &[u8],
    group: &[u8],
    user: &str,
    extra_groups: &[String],
) -> Result<Resolved, UserError> {
    let (passwd, group) = (String::from_utf8_lossy(passwd), String::from_utf8_lossy(group));
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let mut resolved = find_user(&passwd, user_part)?;
    let mut additional = Vec::new();
    if !group_part.is_empty() {
        resolved.gid = find_group(&group, group_part)?;
    } else if let Some(name) = &resolved.name {
        additional.extend(
            group
                .lines()
                .filter_map(Group::parse)
                .filter(|g| g.members.split(',').any(|m| m == name))
                .map(|g| g.gid),
        );
    }
    for extra in extra_groups {
        additional.push(find_group(&group, extra)?);
    }
    resolved.additional = vec![resolved.gid];
    for gid in additional {
        if !resolved.additional.contains(&gid) {
            resolved.additional.push(gid);
        }
    }
    Ok(resolved)
}

fn find_user(passwd: &str, user: &str) -> Result<Resolved, UserError> {
    let number = if user.is_empty() { Some(0) } else { parse_id(user)? };
    let entry = passwd.lines().filter_map(Passwd::parse).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    match (entry, number) {
        (Some(entry), _) => Ok(Resolved {
            uid: entry.uid,
            gid: entry.gid,
            additional: Vec::new(),
            home: Some(entry.home.into()),
            name: Some(entry.name.into()),
        }),
        (None, Some(uid)) => Ok(Resolved { uid, ..Resolved::default() }),
        (None, None) => Err(UserError::NoUser(user.into())),
    }
}

fn find_group(group: &str, wanted: &str) -> Result<u32, UserError> {
    let number = parse_id(wanted)?;
    let entry = group.lines().filter_map(Group::parse).find(|entry| match number {
        Some(gid) => entry.gid == gid,
        None => entry.name == wanted,
    });
    entry.map(|entry| entry.gid).or(number).ok_or_else(|| UserError::NoGroup(wanted.into()))
}

/// A number in range, `None` for a name.
fn parse_id(text: &str) -> Result<Option<u32>, UserError> {
    match text.parse::<i64>() {
        Ok(number) => u32::try_from(number).ok().filter(|id| *id <= MAX_ID).map(Some).ok_or(UserError::Range),
        Err(_) => Ok(None),
    }
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    /// `name:password:uid:gid:gecos:home:shell`; trailing fields may be missing, a line without ids is no entry.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid, gid, home })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    /// `name:password:gid:members`
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:33::/var/www:/bin/false\n123:x:7:8::/n:\n";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:33:\nadm:x:4:www,other\nvideo:x:44:www\nbad:x:no:www\n";

    fn ask(user: &str, extra: &[&str]) -> Result<Resolved, UserError> {
        resolve_in(PASSWD, GROUP, user, &extra.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_name_brings_its_groups() {
        let user = ask("www", &[]).expect("www");
        assert_eq!((user.uid, user.gid), (33, 33));
        assert_eq!(user.additional, [33, 4, 44]);
        assert_eq!(user.home.as_deref(), Some("/var/www"));
        assert_eq!(ask("33", &[]).expect("by id"), user);
    }

    #[test]
    fn an_explicit_group_replaces_them() {
        let user = ask("www:video", &["adm", "999"]).expect("www");
        assert_eq!((user.gid, user.additional), (44, vec![44, 4, 999]));
        assert_eq!(ask("www:55", &[]).expect("www").gid, 55);
    }

    #[test]
    fn a_number_is_an_id_even_if_a_user_has_it_as_name() {
        assert_eq!(ask("123", &[]).expect("123").uid, 123);
        assert_eq!(ask("", &[]).expect("root").home.as_deref(), Some("/root"));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        assert_eq!(
            ask("nobody", &[]).expect_err("missing").to_string(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert!(matches!(ask("www:none", &[]), Err(UserError::NoGroup(_))));
        assert!(matches!(ask("www", &["none"]), Err(UserError::NoGroup(_))));
        assert!(matches!(ask("2147483648", &[]), Err(UserError::Range)));
        assert!(matches!(ask("-1", &[]), Err(UserError::Range)));
    }

    #[test]
    fn files_may_be_missing() {
        let user = resolve_in(b"", b"", "1000:1000", &[]).expect("numbers need no files");
        assert_eq!((user.uid, user.gid, user.home), (1000, 1000, None));
    }
}
