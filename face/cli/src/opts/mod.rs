//! Values of flags: units, addresses, lists from files. Rules and error texts are docker's.

pub(crate) mod create;
pub(crate) mod create_flags;
pub(crate) mod device;
pub(crate) mod env;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod publish;

type Checked<T = ()> = Result<T, String>;

/// Bytes: `1g`, `512MiB`, `1.5k`, `100`; binary units. `-1` is passed on (unlimited swap).
pub(crate) fn bytes(text: &str) -> Checked<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    size(text, 1024.0)
}

/// Bytes with decimal units (`1k` is 1000).
pub(crate) fn size(text: &str, base: f64) -> Checked<i64> {
    let Some(end) = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ') else {
        return Err(format!("invalid size: '{text}'"));
    };
    let number = text[..=end].trim_end_matches(' ');
    let suffix = text[end + 1..].to_lowercase();
    let value: f64 =
        number.parse().map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))?;
    if value < 0.0 {
        return Err(format!("invalid size: '{text}'"));
    }
    let bad = || Err(format!("invalid suffix: '{suffix}'"));
    let mut letters = suffix.chars();
    let power = match letters.next() {
        None => return Ok(value as i64),
        Some('b') if suffix.len() == 1 => return Ok(value as i64),
        Some(unit) => match "kmgtp".find(unit) {
            Some(index) => index as i32 + 1,
            None => return bad(),
        },
    };
    match letters.as_str() {
        "" | "b" | "ib" => Ok((value * base.powi(power)) as i64),
        _ => bad(),
    }
}

/// A Go duration (`1h30m`, `250ms`) in nanoseconds.
pub(crate) fn duration(text: &str) -> Checked<i64> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Ok(if negative { -(total as i64) } else { total as i64 })
}

/// A number of CPUs (`1.5`, `3/2`) in billionths.
pub(crate) fn nano_cpus(text: &str) -> Checked<i64> {
    let invalid = || format!("failed to parse {text} as a rational number");
    if text.is_empty() {
        return Ok(0);
    }
    if let Some((above, below)) = text.split_once('/') {
        let (above, below): (i64, i64) =
            (above.parse().map_err(|_| invalid())?, below.parse().map_err(|_| invalid())?);
        if below == 0 {
            return Err(invalid());
        }
        return Ok(above * 1_000_000_000 / below);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 && fraction[9..].bytes().any(|b| b != b'0') {
        return Err("value is too precise".to_owned());
    }
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (negative, whole) = match whole.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, whole),
    };
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let nanos: i64 = format!("0{whole}{fraction:0<9}").parse().map_err(|_| invalid())?;
    Ok(if negative { -nanos } else { nanos })
}

/// `name=soft[:hard]`.
pub(crate) fn ulimit(text: &str) -> Checked<hull_docker_api::Ulimit> {
    const NAMES: &[&str] = &[
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let Some((name, limits)) = text.split_once('=') else {
        return Err(format!("invalid ulimit argument: {text}"));
    };
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |part: &str| match part {
        "unlimited" | "-1" => Ok(-1),
        _ => crate::flags::parse_int(part),
    };
    let (soft, hard) = match limits.split_once(':') {
        None => (number(limits)?, number(limits)?),
        Some((_, rest)) if rest.contains(':') => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
        Some((soft, hard)) => (number(soft)?, number(hard)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(hull_docker_api::Ulimit { name: name.to_owned(), hard, soft })
}

/// Check of `--ulimit`.
pub(crate) fn check_ulimit(text: &str) -> Checked {
    ulimit(text).map(drop)
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub(crate) fn restart_policy(text: &str) -> Checked<hull_docker_api::RestartPolicy> {
    let mut policy = hull_docker_api::RestartPolicy::default();
    if text.is_empty() {
        return Ok(policy);
    }
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    policy.name = name.to_owned();
    if let Some(count) = count.filter(|count| !count.is_empty()) {
        policy.maximum_retry_count = count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?;
    }
    Ok(policy)
}

/// Check of `--attach`.
pub(crate) fn attach(text: &str) -> Checked {
    match text.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// Check of `--add-host`.
pub(crate) fn extra_host(text: &str) -> Checked {
    let Some((name, ip)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    if name.is_empty() {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if ip != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {ip:?}"));
    }
    Ok(())
}

/// `--add-host` as the API takes it, `name:ip`.
pub(crate) fn extra_host_value(text: &str) -> String {
    let (name, ip) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    format!("{name}:{}", ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip))
}

/// Check of `--dns`.
pub(crate) fn ip_address(text: &str) -> Checked {
    match text.trim().parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// Check of `--dns-search`.
pub(crate) fn domain(text: &str) -> Checked {
    let trimmed = text.trim_end_matches('.');
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if text == "." || (!trimmed.is_empty() && trimmed.split('.').all(label)) {
        Ok(())
    } else {
        Err(format!("{text} is not a valid domain"))
    }
}

/// Check of `--label`.
pub(crate) fn label(text: &str) -> Checked {
    if text.starts_with('=') { Err(format!("invalid label '{text}': empty name")) } else { Ok(()) }
}

/// Check of `--env`.
pub(crate) fn env_variable(text: &str) -> Checked {
    if text.is_empty() || text.starts_with('=') {
        Err(format!("invalid environment variable: {text}"))
    } else {
        Ok(())
    }
}

/// Check of `--link`.
pub(crate) fn link(text: &str) -> Checked {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 2 || text.is_empty() { Err(format!("bad format for links: {text}")) } else { Ok(()) }
}

/// Check of `--sysctl`.
pub(crate) fn sysctl(text: &str) -> Checked {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = text.split('=').next().unwrap_or_default();
    let known = NAMES.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
    if text.contains('=') && known { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

/// `key=value` texts as a map; a missing value is empty.
pub(crate) fn key_values<S: AsRef<str>>(pairs: &[S]) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|pair| pair.as_ref().split_once('=').unwrap_or((pair.as_ref(), "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("1g"), Ok(1 << 30));
        assert_eq!(bytes("1.5MiB"), Ok(3 << 19));
        assert_eq!(bytes("512 kb"), Ok(512 << 10));
        assert_eq!(bytes("100b"), Ok(100));
        assert_eq!(bytes("-1"), Ok(-1));
        assert_eq!(bytes("x"), Err("invalid size: 'x'".to_owned()));
        assert_eq!(bytes("1x"), Err("invalid suffix: 'x'".to_owned()));
        assert_eq!(bytes("1gx"), Err("invalid suffix: 'gx'".to_owned()));
    }

    #[test]
    fn durations_and_cpus() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("1.5ms"), Ok(1_500_000));
        assert_eq!(duration("-3s"), Ok(-3_000_000_000));
        assert_eq!(duration("3"), Err("time: missing unit in duration \"3\"".to_owned()));
        assert_eq!(duration("3y"), Err("time: unknown unit \"y\" in duration \"3y\"".to_owned()));
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus(".25"), Ok(250_000_000));
        assert_eq!(nano_cpus("x"), Err("failed to parse x as a rational number".to_owned()));
    }

    #[test]
    fn limits_and_policies() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 2048));
        assert!(ulimit("nofile=2:1").unwrap_err().contains("must be less than or equal"));
        assert_eq!(ulimit("x"), Err("invalid ulimit argument: x".to_owned()));
        assert_eq!(ulimit("x=1"), Err("invalid ulimit type: x".to_owned()));
        let policy = restart_policy("on-failure:3").unwrap();
        assert_eq!((policy.name.as_str(), policy.maximum_retry_count), ("on-failure", 3));
        assert!(restart_policy("on-failure:x").is_err() && restart_policy(":1").is_err());
    }
}
