//! `--device`, `--gpus`, block I/O limits.

use std::collections::BTreeMap;

use hull_docker_api::{DeviceMapping, DeviceRequest, ThrottleDevice, WeightDevice};

use super::Checked;

/// `host[:container][:rwm]`, or `None` for a CDI name (`vendor.com/class=name`).
pub(crate) fn mapping(text: &str) -> Checked<Option<DeviceMapping>> {
    if is_cdi(text) {
        return Ok(None);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let mode_ok = |mode: &str| !mode.is_empty() && mode.bytes().all(|b| b"rwm".contains(&b));
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if mode_ok(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => (*host, *inside, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !mode_ok(mode) {
        return Err(format!("bad mode specified: {mode}"));
    }
    if !inside.starts_with('/') {
        return Err(format!("{inside} is not an absolute path"));
    }
    Ok(Some(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    }))
}

fn is_cdi(text: &str) -> bool {
    !text.starts_with('/')
        && text.split_once('=').is_some_and(|(kind, name)| {
            !name.is_empty() && kind.split_once('/').is_some_and(|(v, c)| !v.is_empty() && !c.is_empty())
        })
}

/// Check of `--device-cgroup-rule`.
pub(crate) fn cgroup_rule(text: &str) -> Checked {
    let invalid = || Err(format!("invalid device cgroup format '{text}'"));
    let [kind, numbers, mode] = text.split(' ').collect::<Vec<_>>()[..] else {
        return invalid();
    };
    let number = |part: &str| part == "*" || (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let numbers_ok = numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
    let mode_ok = (1..=3).contains(&mode.len()) && mode.bytes().all(|b| b"rwm".contains(&b));
    if matches!(kind, "a" | "b" | "c") && numbers_ok && mode_ok { Ok(()) } else { invalid() }
}

/// Check of `--blkio-weight-device`.
pub(crate) fn check_weight(text: &str) -> Checked {
    weight(text).map(drop)
}

/// `/dev/sda:500`.
pub(crate) fn weight(text: &str) -> Checked<WeightDevice> {
    let Some((path, weight)) = text.split_once(':') else {
        return Err(format!("bad format: {text}"));
    };
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    match weight.parse::<u16>() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => {
            Ok(WeightDevice { path: path.to_owned(), weight })
        }
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

/// Check of `--device-read-bps` and `--device-write-bps`.
pub(crate) fn check_bps(text: &str) -> Checked {
    bps(text).map(drop)
}

/// `/dev/sda:1mb`, bytes per second.
pub(crate) fn bps(text: &str) -> Checked<ThrottleDevice> {
    throttle(
        text,
        "<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
        |rate| super::bytes(rate).ok().and_then(|rate| u64::try_from(rate).ok()),
    )
}

/// Check of `--device-read-iops` and `--device-write-iops`.
pub(crate) fn check_iops(text: &str) -> Checked {
    iops(text).map(drop)
}

/// `/dev/sda:1000`, operations per second.
pub(crate) fn iops(text: &str) -> Checked<ThrottleDevice> {
    throttle(text, "<number>. Number must be a positive integer", |rate| rate.parse().ok())
}

fn throttle(text: &str, form: &str, rate_of: impl Fn(&str) -> Option<u64>) -> Checked<ThrottleDevice> {
    let Some((path, rate)) = text.split_once(':') else {
        return Err(format!("bad format: {text}"));
    };
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    match rate_of(rate) {
        Some(rate) => Ok(ThrottleDevice { path: path.to_owned(), rate }),
        None => Err(format!("invalid rate for device: {text}. The correct format is <device-path>:{form}")),
    }
}

/// Check of `--gpus`.
pub(crate) fn check_gpus(text: &str) -> Checked {
    gpus(text).map(drop)
}

/// `all`, a count, or `device=…,capabilities=…,driver=…,options=…`.
pub(crate) fn gpus(text: &str) -> Checked<DeviceRequest> {
    let mut request =
        DeviceRequest { capabilities: Some(vec![vec!["gpu".to_owned()]]), ..DeviceRequest::default() };
    let mut options = BTreeMap::new();
    let mut counted = false;
    for field in super::mount::csv(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        match key {
            "driver" => request.driver = value.to_owned(),
            "count" => {
                counted = true;
                request.count = match value {
                    "all" => -1,
                    value => value.parse().map_err(|_| {
                        format!("invalid count ({value}): value must be either \"all\" or an integer: invalid syntax")
                    })?,
                };
            }
            "device" => request.device_ids = Some(value.split(',').map(str::to_owned).collect()),
            "capabilities" => {
                let mut all: Vec<String> = value.split(',').map(str::to_owned).collect();
                all.push("gpu".to_owned());
                request.capabilities = Some(vec![all]);
            }
            "options" => {
                options = super::key_values(&value.split(',').collect::<Vec<_>>());
            }
            key => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !counted && request.device_ids.is_none() {
        request.count = 1;
    }
    request.options = Some(options);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let map = |text: &str| mapping(text).unwrap().unwrap();
        assert_eq!(map("/dev/fuse").path_in_container, "/dev/fuse");
        assert_eq!(map("/dev/fuse:r").cgroup_permissions, "r");
        assert_eq!(map("/dev/fuse:/dev/x").path_in_container, "/dev/x");
        assert_eq!(map("/dev/fuse:/dev/x:rw").cgroup_permissions, "rw");
        assert!(mapping("nvidia.com/gpu=all").unwrap().is_none());
        assert_eq!(mapping("/a:/b:x").unwrap_err(), "bad mode specified: x");
    }

    #[test]
    fn limits() {
        assert_eq!(bps("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert_eq!(bps("xx").unwrap_err(), "bad format: xx");
        assert_eq!(bps("/x:z").unwrap_err(), "bad format for device path: /x:z");
        assert_eq!(cgroup_rule("c 10:* rwm"), Ok(()));
        assert_eq!(cgroup_rule("x").unwrap_err(), "invalid device cgroup format 'x'");
        assert_eq!(gpus("all").unwrap().count, -1);
    }
}
