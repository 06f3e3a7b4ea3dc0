//! Which mounts a request asks for: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes, in docker's
//! order of precedence and words. Nothing here touches the disk.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use hull_docker_api::{ContainerConfig, HostConfig, Mount};

use super::record::{MountKind, MountRecord};
use crate::{Error, Result};

/// A mount that is asked for, before volumes exist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) record: MountRecord,
    /// Options of the volume to be made.
    pub(crate) volume_options: BTreeMap<String, String>,
    /// Labels of the volume to be made.
    pub(crate) volume_labels: BTreeMap<String, String>,
}

/// All mounts asked for by destination; `inherited` are those of `VolumesFrom`.
pub(crate) fn wanted(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: Vec<MountRecord>,
) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for record in inherited {
        all.retain(|mount| mount.record.destination != record.destination);
        all.push(Wanted { record, ..Wanted::default() });
    }
    let inherited = all.len();
    for bind in host.binds.iter().flatten() {
        add(&mut all, inherited, parse_bind(bind, &host.volume_driver)?)?;
    }
    for mount in &host.mounts {
        add(&mut all, inherited, parse_mount(mount)?)?;
    }
    for (destination, options) in &host.tmpfs {
        add(&mut all, inherited, parse_tmpfs(destination, options)?)?;
    }
    for destination in config.volumes.iter().flatten().map(|(path, _)| path) {
        let destination = clean_destination(destination).map_err(|reason| {
            Error::invalid(format!("invalid volume specification: '{destination}': {reason}"))
        })?;
        if !all.iter().any(|mount| mount.record.destination == destination) {
            all.push(anonymous(destination, &host.volume_driver));
        }
    }
    // A mount must come after those it lies in.
    all.sort_by_key(|mount| Path::new(&mount.record.destination).components().count());
    Ok(all)
}

/// Own mounts replace inherited ones, but not each other.
fn add(all: &mut Vec<Wanted>, inherited: usize, mount: Wanted) -> Result<()> {
    let destination = &mount.record.destination;
    match all.iter().position(|other| other.record.destination == *destination) {
        Some(index) if index < inherited => all[index] = mount,
        Some(_) => return Err(Error::invalid(format!("Duplicate mount point: {destination}"))),
        None => all.push(mount),
    }
    Ok(())
}

fn anonymous(destination: String, driver: &str) -> Wanted {
    let record = MountRecord {
        kind: MountKind::Volume,
        destination,
        driver: driver.to_owned(),
        rw: true,
        anonymous: true,
        copy_up: true,
        ..MountRecord::default()
    };
    Wanted { record, ..Wanted::default() }
}

/// `source:destination[:mode]`.
fn parse_bind(text: &str, driver: &str) -> Result<Wanted> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [_, mode] if parse_mode(mode).is_some() => return Err(invalid()),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid()),
    };
    let because =
        |reason: String| Error::invalid(format!("invalid volume specification: '{text}': {reason}"));
    if source.is_empty() && parts.len() > 1 {
        return Err(invalid());
    }
    let destination = clean_destination(destination).map_err(because)?;
    let parsed = parse_mode(mode).ok_or_else(|| because(format!("invalid mode: {mode}")))?;
    let bind = source.starts_with('/');
    if !bind && parsed.propagation.is_some() {
        return Err(because(format!("invalid mode: {mode}")));
    }
    let kind = if bind { MountKind::Bind } else { MountKind::Volume };
    let record = MountRecord {
        kind,
        name: if bind { String::new() } else { source.to_owned() },
        source: if bind { clean(source) } else { String::new() },
        destination,
        driver: if bind { String::new() } else { driver.to_owned() },
        mode: mode.to_owned(),
        rw: !parsed.read_only,
        propagation: match parsed.propagation {
            Some(propagation) => propagation.to_owned(),
            None if bind => "rprivate".to_owned(),
            None => String::new(),
        },
        anonymous: source.is_empty(),
        create_source: bind,
        copy_up: !bind && !parsed.no_copy,
        ..MountRecord::default()
    };
    Ok(Wanted { record, ..Wanted::default() })
}

#[derive(Debug, Default, PartialEq)]
struct Mode<'a> {
    read_only: bool,
    no_copy: bool,
    propagation: Option<&'a str>,
}

/// A list of words, each kind at most once; nothing for text that is no mode.
fn parse_mode(text: &str) -> Option<Mode<'_>> {
    let mut mode = Mode::default();
    let (mut access, mut label, mut consistency) = (0, 0, 0);
    for word in text.split(',').filter(|word| !text.is_empty() || !word.is_empty()) {
        match word {
            "rw" => access += 1,
            "ro" => {
                access += 1;
                mode.read_only = true;
            }
            "z" | "Z" => label += 1,
            "consistent" | "cached" | "delegated" => consistency += 1,
            "nocopy" => mode.no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate"
                if mode.propagation.is_none() =>
            {
                mode.propagation = Some(word);
            }
            _ => return None,
        }
    }
    (access <= 1 && label <= 1 && consistency <= 1).then_some(mode)
}

fn parse_mount(mount: &Mount) -> Result<Wanted> {
    let invalid = |reason: String| {
        Error::invalid(format!("invalid mount config for type \"{}\": {reason}", mount.kind))
    };
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty".to_owned()));
    }
    let destination = clean_absolute(&mount.target).map_err(invalid)?;
    let extra = |field: &str| Err(invalid(format!("field {field} must not be specified")));
    let mut wanted = Wanted::default();
    wanted.record.destination = destination;
    wanted.record.rw = !mount.read_only;
    match mount.kind.as_str() {
        "bind" if mount.volume_options.is_some() => return extra("VolumeOptions"),
        "bind" if mount.tmpfs_options.is_some() => return extra("TmpfsOptions"),
        "bind" => bind_mount(mount, &mut wanted.record).map_err(invalid)?,
        "volume" if mount.bind_options.is_some() => return extra("BindOptions"),
        "volume" if mount.tmpfs_options.is_some() => return extra("TmpfsOptions"),
        "volume" => volume_mount(mount, &mut wanted).map_err(invalid)?,
        "tmpfs" if !mount.source.is_empty() => return extra("Source"),
        "tmpfs" if mount.bind_options.is_some() => return extra("BindOptions"),
        "tmpfs" if mount.volume_options.is_some() => return extra("VolumeOptions"),
        "tmpfs" => tmpfs_mount(mount, &mut wanted.record),
        "image" => return Err(Error::not_implemented("mounts of type image")),
        "" => return Err(invalid("mount type unknown".to_owned())),
        _ => return Err(invalid("mount type unknown".to_owned())),
    }
    Ok(wanted)
}

fn bind_mount(mount: &Mount, record: &mut MountRecord) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    if !mount.source.starts_with('/') {
        return Err(format!("invalid mount path: '{}' mount path must be absolute", mount.source));
    }
    record.kind = MountKind::Bind;
    record.source = clean(&mount.source);
    record.propagation = "rprivate".to_owned();
    if let Some(options) = &mount.bind_options {
        match options.propagation.as_str() {
            "" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                record.propagation.clone_from(&options.propagation);
            }
            other => return Err(format!("invalid propagation mode: {other}")),
        }
        record.non_recursive = options.non_recursive;
        record.read_only_non_recursive = options.read_only_non_recursive;
        record.create_source = options.create_mountpoint;
    }
    Ok(())
}

fn volume_mount(mount: &Mount, wanted: &mut Wanted) -> Result<(), String> {
    let record = &mut wanted.record;
    record.kind = MountKind::Volume;
    record.name.clone_from(&mount.source);
    record.anonymous = mount.source.is_empty();
    record.copy_up = true;
    let Some(options) = &mount.volume_options else { return Ok(()) };
    record.copy_up = !options.no_copy;
    if !options.subpath.is_empty() {
        let inside =
            Path::new(&options.subpath).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err("subpath must be a relative path within the volume".to_owned());
        }
        if record.anonymous {
            return Err("must not set Subpath when using anonymous volumes".to_owned());
        }
        record.subpath.clone_from(&options.subpath);
    }
    wanted.volume_labels = options.labels.clone();
    if let Some(driver) = &options.driver_config {
        record.driver.clone_from(&driver.name);
        wanted.volume_options = driver.options.clone();
    }
    Ok(())
}

fn tmpfs_mount(mount: &Mount, record: &mut MountRecord) {
    record.kind = MountKind::Tmpfs;
    let mut options = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
    if mount.read_only {
        options.push("ro".to_owned());
    }
    if let Some(given) = &mount.tmpfs_options {
        if given.mode != 0 {
            options.push(format!("mode={:o}", given.mode));
        }
        if given.size_bytes != 0 {
            options.push(format!("size={}", given.size_bytes));
        }
        for option in &given.options {
            apply_tmpfs_option(&mut options, &option.join("="));
        }
    }
    record.tmpfs_options = options;
}

/// An entry of `Tmpfs`: destination and comma-separated mount options.
fn parse_tmpfs(destination: &str, text: &str) -> Result<Wanted> {
    let destination = clean_destination(destination)
        .map_err(|reason| Error::invalid(format!("invalid tmpfs mount: {reason}")))?;
    let mut options = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (key, _) = option.split_once('=').unwrap_or((option, ""));
        let known = matches!(
            key,
            "exec"
                | "noexec"
                | "suid"
                | "nosuid"
                | "dev"
                | "nodev"
                | "ro"
                | "rw"
                | "sync"
                | "async"
                | "atime"
                | "noatime"
                | "diratime"
                | "nodiratime"
                | "relatime"
                | "norelatime"
                | "strictatime"
                | "nostrictatime"
                | "mode"
                | "uid"
                | "gid"
                | "size"
                | "nr_inodes"
                | "nr_blocks"
                | "mpol"
                | "huge"
                | "bind"
                | "rbind"
                | "private"
                | "rprivate"
                | "shared"
                | "rshared"
                | "slave"
                | "rslave"
                | "unbindable"
                | "runbindable"
        );
        if !known {
            return Err(Error::invalid(format!("invalid tmpfs option [\"{option}\"]")));
        }
        apply_tmpfs_option(&mut options, option);
    }
    let record = MountRecord {
        kind: MountKind::Tmpfs,
        rw: !options.iter().any(|option| option == "ro"),
        destination,
        tmpfs_options: options,
        ..MountRecord::default()
    };
    Ok(Wanted { record, ..Wanted::default() })
}

/// The later of two contradicting options wins.
fn apply_tmpfs_option(options: &mut Vec<String>, option: &str) {
    let key = |text: &str| text.split_once('=').map_or(text.to_owned(), |(key, _)| key.to_owned());
    let opposite = match option {
        "ro" => "rw".to_owned(),
        "rw" => "ro".to_owned(),
        other => match other.strip_prefix("no") {
            Some(positive) => positive.to_owned(),
            None => format!("no{other}"),
        },
    };
    options.retain(|known| *known != opposite && key(known) != key(option));
    options.push(option.to_owned());
}

/// The tmpfs mounts and volumes a container takes over from another (`name[:ro|rw]`).
pub(crate) fn from_container(mounts: &[MountRecord], mode: &str) -> Result<Vec<MountRecord>> {
    let parsed = parse_mode(mode)
        .filter(|parsed| parsed.propagation.is_none())
        .ok_or_else(|| Error::invalid(format!("invalid mode for volumes-from: {mode}")))?;
    let shared = mounts.iter().filter(|mount| mount.kind != MountKind::Tmpfs);
    Ok(shared
        .cloned()
        .map(|mut mount| {
            mount.rw = mount.rw && !parsed.read_only;
            mount.anonymous = false;
            mount.create_source = false;
            mount
        })
        .collect())
}

fn clean_destination(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("invalid mount config for type \"volume\": field Target must not be empty".to_owned());
    }
    clean_absolute(path).map_err(|reason| format!("invalid mount config for type \"volume\": {reason}"))
}

fn clean_absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    match clean(path) {
        root if root == "/" => Err("invalid specification: destination can't be '/'".to_owned()),
        cleaned => Ok(cleaned),
    }
}

/// An absolute path without `.`, `..`, doubled and trailing slashes (Go's `filepath.Clean`).
pub(crate) fn clean(path: &str) -> String {
    let mut cleaned = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => cleaned.push(part),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_docker_api::{Empty, TmpfsOptions};

    fn bind(text: &str) -> Result<MountRecord, String> {
        parse_bind(text, "").map(|wanted| wanted.record).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn binds_have_dockers_forms() {
        let record = bind("/a//b/:/c/../d:ro,rslave").expect("valid");
        assert_eq!((record.source.as_str(), record.destination.as_str()), ("/a/b", "/d"));
        assert!(!record.rw && record.create_source && record.propagation == "rslave");
        let record = bind("data:/d").expect("valid");
        assert_eq!((record.kind, record.name.as_str(), record.copy_up), (MountKind::Volume, "data", true));
        assert!(!bind("data:/d:nocopy").expect("valid").copy_up);
        assert!(bind("/d").expect("valid").anonymous);
        assert_eq!(bind("/a:ro").expect_err("mode"), "invalid volume specification: '/a:ro'");
        assert_eq!(bind("/a:/b:ro:x").expect_err("parts"), "invalid volume specification: '/a:/b:ro:x'");
        assert!(bind("/a:/b:ro,rw").expect_err("twice").ends_with("invalid mode: ro,rw"));
        assert!(
            bind("/a:b")
                .expect_err("relative")
                .contains("invalid mount path: 'b' mount path must be absolute")
        );
        assert!(bind("/a:/").expect_err("root").contains("destination can't be '/'"));
        assert!(bind("data:/d:shared").is_err());
    }

    #[test]
    fn own_mounts_replace_inherited_ones_and_never_each_other() {
        let config = ContainerConfig {
            volumes: Some(["/v".to_owned(), "/data".to_owned()].map(|path| (path, Empty {})).into()),
            ..ContainerConfig::default()
        };
        let inherited = vec![
            MountRecord { destination: "/data".to_owned(), name: "old".to_owned(), ..MountRecord::default() },
            MountRecord { destination: "/other/deep".to_owned(), ..MountRecord::default() },
        ];
        let host = HostConfig { binds: Some(vec!["new:/data".to_owned()]), ..HostConfig::default() };
        let all = wanted(&config, &host, inherited).expect("mounts");
        let shown: Vec<_> =
            all.iter().map(|mount| (mount.record.destination.as_str(), mount.record.name.as_str())).collect();
        assert_eq!(shown, [("/data", "new"), ("/v", ""), ("/other/deep", "")]);
        let host = HostConfig {
            binds: Some(vec!["a:/x".to_owned()]),
            tmpfs: [("/x/".to_owned(), String::new())].into(),
            ..HostConfig::default()
        };
        let error = wanted(&ContainerConfig::default(), &host, Vec::new()).expect_err("twice");
        assert_eq!(error.message(), "Duplicate mount point: /x");
    }

    #[test]
    fn tmpfs_options_replace_their_opposites() {
        let record = parse_tmpfs("/run", "exec,size=64k,mode=1770").expect("tmpfs").record;
        assert_eq!(record.tmpfs_options, ["nosuid", "nodev", "exec", "size=64k", "mode=1770"]);
        assert_eq!(
            parse_tmpfs("/run", "evil").expect_err("bad").message(),
            "invalid tmpfs option [\"evil\"]"
        );
        let mount = Mount {
            kind: "tmpfs".to_owned(),
            target: "/t".to_owned(),
            tmpfs_options: Some(TmpfsOptions { size_bytes: 1024, mode: 0o700, ..TmpfsOptions::default() }),
            ..Mount::default()
        };
        let record = parse_mount(&mount).expect("mount").record;
        assert_eq!(record.tmpfs_options, ["noexec", "nosuid", "nodev", "mode=700", "size=1024"]);
    }

    #[test]
    fn mounts_are_refused_in_dockers_words() {
        let mount = |kind: &str, source: &str, target: &str| {
            let mount = Mount {
                kind: kind.to_owned(),
                source: source.to_owned(),
                target: target.to_owned(),
                ..Mount::default()
            };
            parse_mount(&mount).map(|_| ()).map_err(|error| error.message().to_owned())
        };
        assert_eq!(
            mount("bind", "", "/x"),
            Err("invalid mount config for type \"bind\": field Source must not be empty".to_owned())
        );
        assert_eq!(
            mount("tmpfs", "a", "/x"),
            Err("invalid mount config for type \"tmpfs\": field Source must not be specified".to_owned())
        );
        assert_eq!(
            mount("volume", "a", ""),
            Err("invalid mount config for type \"volume\": field Target must not be empty".to_owned())
        );
        assert_eq!(mount("volume", "a", "/x"), Ok(()));
    }
}
