//! Dockerfile instructions that `import` and `commit` apply to an image's configuration (`-c 'CMD ["sh"]'`).

use std::collections::BTreeMap;

use hull_model::{ContainerDefaults, Healthcheck};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Applies instructions in order.
///
/// # Errors
/// An instruction that is none or cannot be applied to a configuration, in docker's words.
pub(super) fn apply(config: &mut ContainerDefaults, changes: &[String]) -> Result<()> {
    for line in
        changes.iter().flat_map(|change| change.lines()).map(str::trim).filter(|line| !line.is_empty())
    {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        apply_one(config, &word.to_ascii_uppercase(), rest.trim())?;
    }
    Ok(())
}

fn apply_one(config: &mut ContainerDefaults, instruction: &str, rest: &str) -> Result<()> {
    let needs_argument = || Error::invalid(format!("{instruction} requires at least one argument"));
    match instruction {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest));
            // As a Dockerfile would: the base image's command belongs to its entry point.
            config.cmd = None;
        }
        _ if rest.is_empty() => return Err(needs_argument()),
        "ENV" => {
            for (name, value) in pairs(instruction, rest)? {
                config.env.retain(|known| known.split('=').next() != Some(name.as_str()));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(instruction, rest)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                config.exposed_ports.insert(port_with_protocol(port)?, Value::Object(Map::new()));
            }
        }
        "VOLUME" => {
            let paths = list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            config.volumes.extend(paths.into_iter().map(|path| (path, Value::Object(Map::new()))));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = working_dir(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "SHELL" => {
            config.shell = list(rest)
                .ok_or_else(|| Error::invalid("SHELL requires the arguments to be in JSON form"))?;
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "FROM" | "RUN" | "COPY" | "ADD" | "ARG" | "MAINTAINER" => {
            return Err(Error::invalid(format!("{instruction} is not a valid change command")));
        }
        _ => return Err(Error::invalid(format!("unknown instruction: {instruction}"))),
    }
    Ok(())
}

/// `["a", "b"]`, or a line for the shell.
fn command(config: &ContainerDefaults, rest: &str) -> Vec<String> {
    if let Some(words) = list(rest) {
        return words;
    }
    if rest.is_empty() {
        return Vec::new();
    }
    let mut words = config.shell.clone();
    if words.is_empty() {
        words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    }
    words.push(rest.to_owned());
    words
}

fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// `a=b c="d e"`, or the old form `a b c` that sets one name.
fn pairs(instruction: &str, rest: &str) -> Result<BTreeMap<String, String>> {
    let words = words(rest);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{instruction} must have two arguments")))?;
        return Ok([(name.to_owned(), value.trim().to_owned())].into());
    }
    let mut pairs = BTreeMap::new();
    for word in words {
        match word.split_once('=') {
            Some(("", _)) => return Err(Error::invalid(format!("{instruction} names can not be blank"))),
            Some((name, value)) => pairs.insert(name.to_owned(), value.to_owned()),
            None => {
                return Err(Error::invalid(format!(
                    "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
                )));
            }
        };
    }
    Ok(pairs)
}

/// Splits at white space outside of quotes; removes quotes and backslashes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn port_with_protocol(port: &str) -> Result<String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let known = matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp");
    if hull_docker_api::nat::parse_range(number).is_none() || !known {
        return Err(Error::invalid(format!("invalid containerPort: {port}")));
    }
    Ok(format!("{number}/{}", protocol.to_ascii_lowercase()))
}

fn working_dir(current: &str, wanted: &str) -> String {
    if wanted.starts_with('/') {
        return wanted.to_owned();
    }
    format!("{}/{wanted}", if current.is_empty() { "" } else { current.trim_end_matches('/') })
}

/// `NONE`, or options and `CMD`.
fn healthcheck(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, tail) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let duration = || {
            let span: Result<jiff::SignedDuration, _> = value.parse();
            span.ok().and_then(|span| i64::try_from(span.as_nanos()).ok())
        };
        let invalid = || Error::invalid(format!("invalid value for HEALTHCHECK option {name}: {value:?}"));
        match name {
            "interval" => check.interval = duration().ok_or_else(invalid)?,
            "timeout" => check.timeout = duration().ok_or_else(invalid)?,
            "start-period" => check.start_period = duration().ok_or_else(invalid)?,
            "start-interval" => check.start_interval = duration().ok_or_else(invalid)?,
            "retries" => check.retries = value.parse().map_err(|_| invalid())?,
            _ => return Err(Error::invalid(format!("unknown flag: {name}"))),
        }
        rest = tail.trim_start();
    }
    let (kind, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), list(argument.trim())) {
        ("NONE", _) => vec!["NONE".to_owned()],
        ("CMD", Some(words)) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        ("CMD", None) if !argument.is_empty() => vec!["CMD-SHELL".to_owned(), argument.trim().to_owned()],
        ("CMD", None) => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        (other, _) => return Err(Error::invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    };
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<ContainerDefaults> {
        let mut config = ContainerDefaults::default();
        apply(&mut config, &changes.iter().map(|change| (*change).to_owned()).collect::<Vec<_>>())?;
        Ok(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = applied(&[
            "ENTRYPOINT [\"/app\"]",
            "CMD serve --now",
            "env A=1 B=\"two words\" C=x\\ y",
            "ENV A 2 and more",
            "LABEL tier=db note='it is'",
            "EXPOSE 80 53/UDP",
            "VOLUME [\"/data\", \"/log\"]",
            "WORKDIR /srv",
            "WORKDIR app",
            "USER 1000:1000",
            "STOPSIGNAL SIGTERM",
            "HEALTHCHECK --interval=5s --retries=3 CMD test -e /ok",
        ])
        .expect("changes");
        assert_eq!(config.entrypoint.as_deref(), Some(&["/app".to_owned()][..]));
        assert_eq!(config.cmd.expect("cmd"), ["/bin/sh", "-c", "serve --now"]);
        assert_eq!(config.env, ["B=two words", "C=x y", "A=2 and more"]);
        assert_eq!((config.labels["tier"].as_str(), config.labels["note"].as_str()), ("db", "it is"));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/log"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app", "1000:1000"));
        let check = config.healthcheck.expect("check");
        assert_eq!((check.interval, check.retries), (5_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "test -e /ok"]);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for (change, message) in [
            ("RUN true", "RUN is not a valid change command"),
            ("FROM x", "FROM is not a valid change command"),
            ("JUMP high", "unknown instruction: JUMP"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("EXPOSE http", "invalid containerPort: http"),
        ] {
            assert_eq!(applied(&[change]).expect_err(change).message(), message);
        }
    }
}
