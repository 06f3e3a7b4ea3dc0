//! Port specifications: `80`, `80/udp`, `8080:80`, `127.0.0.1:8000-8010:80`, `[::1]:80:80/tcp`. Rules and texts as
//! in go-connections `nat`, which docker uses on both sides.

use std::fmt;
use std::net::IpAddr;

use crate::container::{PortBinding, PortMap, PortSet};
use crate::go::Empty;

/// Why a port specification is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError(String);

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PortError {}

/// One published port: container port with protocol (`80/tcp`) and where the host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `80/tcp`.
    pub port: String,
    /// Address (empty: all) and port (empty: chosen by the engine; a range: chosen from it).
    pub host_ip: String,
    /// See `host_ip`.
    pub host_port: String,
}

/// Splits `80/tcp` into port and protocol; the protocol defaults to `tcp`.
pub fn split_proto(port: &str) -> (&str, &str) {
    match port.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, proto)) => (port, proto),
        None => (port, "tcp"),
    }
}

/// Reads `80` or `8000-8010` as first and last port.
pub fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => match (number(first)?, number(last)?) {
            (first, last) if first <= last => Some((first, last)),
            _ => None,
        },
    }
}

/// Reads one `--publish` specification; ranges give one mapping per container port.
pub fn parse_port_spec(spec: &str) -> Result<Vec<PortMapping>, PortError> {
    let fail = |text: String| Err(PortError(text));
    let (ip, host, container) = split_parts(spec);
    let (container, proto) = split_proto(container);
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return fail(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return fail(format!("no port specified: {spec}<empty>"));
    }
    let Some((first, last)) = parse_range(container) else {
        return fail(format!("invalid containerPort: {container}"));
    };
    let host_range = match host {
        "" => None,
        host => match parse_range(host) {
            Some(range) => Some(range),
            None => return fail(format!("invalid hostPort: {host}")),
        },
    };
    if let Some((host_first, host_last)) = host_range
        && last - first != host_last - host_first
        && first != last
    {
        return fail(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    let proto = proto.to_lowercase();
    if !matches!(proto.as_str(), "tcp" | "udp" | "sctp") {
        return fail(format!("invalid proto: {proto}"));
    }
    let host_port = |offset: u16| match host_range {
        None => String::new(),
        Some((host_first, host_last)) if first == last && host_first != host_last => {
            format!("{host_first}-{host_last}")
        }
        Some((host_first, _)) => (host_first + offset).to_string(),
    };
    Ok((0..=last - first)
        .map(|offset| PortMapping {
            port: format!("{}/{proto}", first + offset),
            host_ip: ip.to_owned(),
            host_port: host_port(offset),
        })
        .collect())
}

/// Reads several specifications into the set of exposed ports and the map of published ones.
pub fn parse_port_specs<S: AsRef<str>>(specs: &[S]) -> Result<(PortSet, PortMap), PortError> {
    let (mut exposed, mut published) = (PortSet::new(), PortMap::new());
    for spec in specs {
        for mapping in parse_port_spec(spec.as_ref())? {
            exposed.insert(mapping.port.clone(), Empty {});
            published
                .entry(mapping.port)
                .or_default()
                .get_or_insert_default()
                .push(PortBinding { host_ip: mapping.host_ip, host_port: mapping.host_port });
        }
    }
    Ok((exposed, published))
}

fn split_parts(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else {
        return ("", "", spec);
    };
    match rest.rsplit_once(':') {
        None => ("", rest, container),
        Some((ip, host)) => (ip, host, container),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(spec: &str) -> Vec<String> {
        match parse_port_spec(spec) {
            Ok(found) => found.iter().map(|m| format!("{} {} {}", m.port, m.host_ip, m.host_port)).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn specifications_are_split_as_docker_splits_them() {
        assert_eq!(mappings("80"), ["80/tcp  "]);
        assert_eq!(mappings("8080:80/UDP"), ["80/udp  8080"]);
        assert_eq!(mappings("127.0.0.1::80"), ["80/tcp 127.0.0.1 "]);
        assert_eq!(mappings("[::1]:8080:80"), ["80/tcp ::1 8080"]);
        assert_eq!(mappings("8000-8002:80-82"), ["80/tcp  8000", "81/tcp  8001", "82/tcp  8002"]);
        assert_eq!(mappings("8000-8010:80"), ["80/tcp  8000-8010"]);
        assert_eq!(mappings("80-81"), ["80/tcp  ", "81/tcp  "]);
    }

    #[test]
    fn bad_specifications_have_dockers_texts() {
        assert_eq!(mappings("8080:"), ["no port specified: 8080:<empty>"]);
        assert_eq!(mappings("a:80"), ["invalid hostPort: a"]);
        assert_eq!(mappings("80:70000"), ["invalid containerPort: 70000"]);
        assert_eq!(mappings("localhost:80:80"), ["invalid IP address: localhost"]);
        assert_eq!(mappings("80:80/foo"), ["invalid proto: foo"]);
        assert_eq!(
            mappings("80-81:90-92"),
            ["invalid ranges specified for container and host Ports: 90-92 and 80-81"]
        );
    }
}
