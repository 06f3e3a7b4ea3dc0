//! `--publish` in its long form, and `--expose`.

use hull_docker_api::{Empty, PortSet, nat};

use super::Checked;
use crate::error::Result;

/// A `--publish` value in the short form; `target=80,published=8080,protocol=udp` becomes `8080:80/udp`.
pub(crate) fn short_form(text: &str) -> Checked<String> {
    if !text.contains('=') {
        return Ok(text.to_owned());
    }
    let (mut target, mut published, mut protocol) = (String::new(), String::new(), "tcp".to_owned());
    for field in super::mount::csv(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid publish opts format (should be name=value but got '{field}')"));
        };
        match key.trim() {
            "target" => target = value.to_owned(),
            "published" => published = value.to_owned(),
            "protocol" => protocol = value.to_lowercase(),
            "mode" => {}
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if target.is_empty() {
        return Err("missing mandatory field \"target\"".to_owned());
    }
    Ok(match published.is_empty() {
        true => format!("{target}/{protocol}"),
        false => format!("{published}:{target}/{protocol}"),
    })
}

/// Adds the ports of `--expose` values: `80`, `8000-8010/udp`.
pub(crate) fn expose(ports: &mut PortSet, values: &[&str]) -> Result<()> {
    for value in values {
        if value.contains(':') {
            return Err(format!("invalid port format for --expose: {value}").into());
        }
        let (range, proto) = nat::split_proto(value);
        let Some((first, last)) = nat::parse_range(range) else {
            let part = range.split('-').next().unwrap_or_default();
            return Err(format!(
                "invalid range format for --expose: {value}, error: strconv.ParseUint: parsing {part:?}: invalid \
                 syntax"
            )
            .into());
        };
        for port in first..=last {
            ports.insert(format!("{port}/{}", proto.to_lowercase()), Empty {});
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form_becomes_short() {
        assert_eq!(short_form("target=80,published=8080").as_deref(), Ok("8080:80/tcp"));
        assert_eq!(short_form("target=53,protocol=UDP").as_deref(), Ok("53/udp"));
        assert_eq!(short_form("8080:80").as_deref(), Ok("8080:80"));
    }

    #[test]
    fn exposed_ranges() {
        let mut ports = PortSet::new();
        expose(&mut ports, &["80", "8000-8001/udp"]).unwrap();
        assert_eq!(ports.keys().cloned().collect::<Vec<_>>(), ["80/tcp", "8000/udp", "8001/udp"]);
        assert!(expose(&mut ports, &["x"]).unwrap_err().message.contains("parsing \"x\": invalid syntax"));
    }
}
