//! Commands on containers that exist.

use crate::args::{self, ListFormat};
use crate::run::report;
use anyhow::{Context, bail};
use hull_oci::container::{Container, Status, Store};
use serde_json::{Value, json};

/// Lets a created container's first process execute its command.
pub(crate) fn start(store: &Store, args: &args::Id) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    let spec = container.spec()?;
    container.start(&spec)?;
    Ok(0)
}

/// runtime-spec runtime.md, "State", with runc's additions.
fn state_of(container: &Container) -> anyhow::Result<Value> {
    let record = &container.record;
    let status = container.status()?;
    let annotations = container.spec().ok().and_then(|spec| spec.annotations().clone()).unwrap_or_default();
    let annotations: std::collections::BTreeMap<_, _> = annotations.into_iter().collect();
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": "",
    });
    if !annotations.is_empty() {
        state["annotations"] = json!(annotations);
    }
    Ok(state)
}

pub(crate) fn state(store: &Store, args: &args::Id) -> anyhow::Result<u8> {
    let state = state_of(&store.load(&args.id)?)?;
    println!("{}", serde_json::to_string_pretty(&state)?);
    Ok(0)
}

/// A signal by number or name, with or without SIG.
fn signal_number(text: &str) -> anyhow::Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { bail!("unknown signal {text:?}") };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(index as i32 + 1);
    }
    let (real_time, base) = match name {
        "RTMIN" | "RTMAX" => ("", if name == "RTMIN" { 34 } else { 64 }),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(offset), _) => (offset, 34),
            (_, Some(offset)) => (offset, -64),
            _ => bail!("unknown signal {text:?}"),
        },
    };
    let offset: i32 = if real_time.is_empty() { 0 } else { real_time.parse()? };
    let number = if base < 0 { -base - offset } else { base + offset };
    if (34..=64).contains(&number) { Ok(number) } else { bail!("unknown signal {text:?}") }
}

pub(crate) fn kill(store: &Store, args: &args::Kill) -> anyhow::Result<u8> {
    let signal = signal_number(&args.signal)?;
    store.load(&args.id)?.kill(signal, args.all)?;
    Ok(0)
}

pub(crate) fn delete(store: &Store, args: &args::Delete) -> anyhow::Result<u8> {
    match store.load(&args.id) {
        Ok(container) => report(container.delete(args.force)?),
        // A record half written belongs to a creation that was killed.
        Err(_) if args.force => drop(store.forget(&args.id)?),
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}

pub(crate) fn pause(store: &Store, args: &args::Id) -> anyhow::Result<u8> {
    store.load(&args.id)?.pause()?;
    Ok(0)
}

pub(crate) fn resume(store: &Store, args: &args::Id) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    if container.status()? != Status::Paused {
        bail!("container not paused");
    }
    container.resume()?;
    Ok(0)
}

pub(crate) fn list(store: &Store, args: &args::List) -> anyhow::Result<u8> {
    let containers = store.list()?;
    if args.quiet {
        containers.iter().for_each(|container| println!("{}", container.record.id));
        return Ok(0);
    }
    if args.format == ListFormat::Json {
        let states = containers.iter().map(state_of).collect::<Result<Vec<_>, _>>()?;
        println!("{}", if states.is_empty() { "null".into() } else { serde_json::to_string(&states)? });
        return Ok(0);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for container in &containers {
        let record = &container.record;
        let status = container.status()?;
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        let owner = if record.owner == 0 { "root".into() } else { format!("#{}", record.owner) };
        let bundle = record.bundle.display().to_string();
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status.to_string(),
            bundle,
            record.created.clone(),
            owner,
        ]);
    }
    print_table(&rows);
    Ok(0)
}

/// Columns as Go's tabwriter makes them for runc: at least 12 wide, three spaces apart.
fn print_table(rows: &[[String; 6]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(9) + 3;
    let widths: Vec<_> = (0..6).map(width).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", line.trim_end());
    }
}

pub(crate) fn ps(store: &Store, args: &args::Ps) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    let cgroup = container.cgroup()?.context("the container has no cgroup to list")?;
    let pids = cgroup.pids().map_err(hull_oci::Error::from)?;
    if args.format == ListFormat::Json {
        println!("{}", serde_json::to_string(&pids)?);
        return Ok(0);
    }
    let default = ["-ef".to_owned()];
    let options = if args.options.is_empty() { &default[..] } else { &args.options };
    let output = std::process::Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        bail!("ps failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .context("couldn't find PID field in ps output")?;
    println!("{header}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGterm", 15),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SYS", 31),
            ("0", 0),
        ] {
            assert_eq!(signal_number(text).expect(text), number);
        }
        for bad in ["", "SIGNONE", "65", "-1", "RTMIN+31"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
