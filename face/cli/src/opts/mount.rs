//! `--mount` and `--volume`.

use hull_docker_api::{BindOptions, ImageOptions, Mount, TmpfsOptions, VolumeDriverConfig, VolumeOptions};

use super::Checked;

/// Check of `--mount`.
pub(crate) fn check(text: &str) -> Checked {
    parse(text).map(drop)
}

/// `type=bind,source=/a,target=/b,readonly,…`.
pub(crate) fn parse(text: &str) -> Checked<Mount> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    let mut driver = VolumeDriverConfig::default();
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.trim())),
            None => (field.trim().to_lowercase(), None),
        };
        let switch = |name: &str| match value {
            None => Ok(true),
            Some(value) => {
                crate::flags::parse_bool(value).map_err(|_| format!("invalid value for '{name}': {value}"))
            }
        };
        match key.as_str() {
            "readonly" | "ro" => mount.read_only = switch(&key)?,
            "volume-nocopy" => volume(&mut mount).no_copy = switch(&key)?,
            "bind-nonrecursive" => bind(&mut mount).non_recursive = switch(&key)?,
            _ => {
                let Some(value) = value else {
                    return Err(format!("invalid field '{field}' must be a key=value pair"));
                };
                set(&mut mount, &mut driver, &key, value)?;
            }
        }
    }
    if driver != VolumeDriverConfig::default() {
        volume(&mut mount).driver_config = Some(driver);
    }
    validate(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, driver: &mut VolumeDriverConfig, key: &str, value: &str) -> Checked {
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => {
            mount.source = match value.starts_with('.') {
                true => absolute(value),
                false => value.to_owned(),
            }
        }
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \
                     \"readonly\")"
                ));
            }
        },
        "volume-subpath" => volume(mount).subpath = value.to_owned(),
        "volume-label" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            volume(mount).labels.insert(name.to_owned(), value.to_owned());
        }
        "volume-driver" => driver.name = value.to_owned(),
        "volume-opt" => {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            driver.options.insert(name.to_owned(), value.to_owned());
        }
        "image-subpath" => {
            mount.image_options.get_or_insert_with(ImageOptions::default).subpath = value.to_owned();
        }
        "tmpfs-size" => {
            tmpfs(mount).size_bytes =
                super::bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        "tmpfs-mode" => {
            tmpfs(mount).mode =
                u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{key}={value}'")),
    }
    Ok(())
}

fn validate(mount: &Mount) -> Checked {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (kind, given) in [
        ("volume", mount.volume_options.is_some()),
        ("bind", mount.bind_options.is_some()),
        ("tmpfs", mount.tmpfs_options.is_some()),
        ("image", mount.image_options.is_some()),
    ] {
        if given && mount.kind != kind {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind));
        }
    }
    if mount.bind_options.as_ref().is_some_and(|bind| bind.read_only_non_recursive) && !mount.read_only {
        return Err(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned()
        );
    }
    if mount.bind_options.as_ref().is_some_and(|bind| bind.read_only_force_recursive) {
        if !mount.read_only {
            return Err(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
                    .to_owned(),
            );
        }
        if mount.bind_options.as_ref().is_some_and(|bind| bind.propagation != "rprivate") {
            return Err(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in \
                        conjunction"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(VolumeOptions::default)
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default)
}

/// What one `--volume` asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Volume {
    /// A path in the container alone: an anonymous volume.
    Anonymous(String),
    /// `source:target[:options]` as the API takes it.
    Bind(String),
}

/// Sorts a `--volume` value; relative sources become absolute.
pub(crate) fn volume_flag(text: &str) -> Checked<Volume> {
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(format!("invalid spec: {text}: too many colons"));
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {text}: empty section between colons"));
    }
    match parts.as_slice() {
        [_] => Ok(Volume::Anonymous(text.to_owned())),
        [source, rest @ ..] if source.starts_with('.') => {
            Ok(Volume::Bind(format!("{}:{}", absolute(source), rest.join(":"))))
        }
        [source, rest @ ..] if source.starts_with('~') => {
            Ok(Volume::Bind(format!("{}:{}", absolute(source), rest.join(":"))))
        }
        _ => Ok(Volume::Bind(text.to_owned())),
    }
}

/// A path from the current directory, cleaned as Go's `filepath.Abs` does.
pub(crate) fn absolute(path: &str) -> String {
    let base = std::env::current_dir().unwrap_or_default();
    clean(&base.join(path).to_string_lossy())
}

/// Go's `path.Clean`: no `.`, no `//`, `..` resolved by text.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let text = parts.join("/");
    match (rooted, text.is_empty()) {
        (true, _) => format!("/{text}"),
        (false, true) => ".".to_owned(),
        (false, false) => text,
    }
}

/// Fields of one line of CSV: separated by commas, quoted with `"`.
pub(crate) fn csv(text: &str) -> Checked<Vec<String>> {
    if text.is_empty() {
        return Err("value is empty".to_owned());
    }
    let mut fields = vec![String::new()];
    let mut letters = text.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        let field = match fields.last_mut() {
            Some(field) => field,
            None => break,
        };
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => {
                return Err(format!(
                    "parse error on line 1, column {}: bare \" in non-quoted-field",
                    text.find('"').unwrap_or(0) + 1
                ));
            }
            ',' if !quoted => fields.push(String::new()),
            _ => field.push(letter),
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((mount.kind.as_str(), mount.source.as_str(), mount.target.as_str()), ("bind", "/a", "/b"));
        assert!(mount.read_only && mount.bind_options.unwrap().propagation == "rslave");
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let tmpfs = mount.tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (1 << 20, 0o1770));
        let mount = parse("source=v,target=/d,volume-opt=type=nfs,\"volume-opt=o=addr=1.2.3.4,rw\"").unwrap();
        let options = mount.volume_options.unwrap().driver_config.unwrap().options;
        assert_eq!(options["o"], "addr=1.2.3.4,rw");
    }

    #[test]
    fn bad_mounts_have_dockers_texts() {
        assert_eq!(parse("type=bind").unwrap_err(), "target is required");
        assert_eq!(parse("foo").unwrap_err(), "invalid field 'foo' must be a key=value pair");
        assert_eq!(parse("a=b,target=/x").unwrap_err(), "unexpected key 'a' in 'a=b'");
        assert_eq!(
            parse("type=bind,target=/x,volume-nocopy").unwrap_err(),
            "cannot mix 'volume-*' options with mount type 'bind'"
        );
        assert_eq!(
            parse("type=volume,target=/x,bind-propagation=rprivate").unwrap_err(),
            "cannot mix 'bind-*' options with mount type 'volume'"
        );
    }

    #[test]
    fn volumes() {
        assert_eq!(volume_flag("/data"), Ok(Volume::Anonymous("/data".into())));
        assert_eq!(volume_flag("a:/b:ro"), Ok(Volume::Bind("a:/b:ro".into())));
        assert_eq!(volume_flag("/a:/b:/c:/d").unwrap_err(), "invalid spec: /a:/b:/c:/d: too many colons");
        assert_eq!(volume_flag(":/b").unwrap_err(), "invalid spec: :/b: empty section between colons");
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume_flag("./x:/b"), Ok(Volume::Bind(format!("{}/x:/b", here.display()))));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("/a/../../b", "/b"),
            ("a//b/./c", "a/b/c"),
            ("../a/..", ".."),
            ("", "."),
            ("/..", "/"),
            ("a/..", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
