//! `exec`.

use crate::args;
use crate::console::{self, Attached};
use crate::run::{hand_over_console, hand_over_pidfd, write_pid_file};
use anyhow::{Context, bail};
use hull_oci::ExecRequest;
use hull_oci::container::{Status, Store};
use oci_spec::runtime::{Capabilities, Capability, Process, Spec};
use std::os::fd::AsFd;

/// Runs another process in a container.
pub(crate) fn exec(store: &Store, args: &args::Exec) -> anyhow::Result<u8> {
    let container = store.load(&args.id)?;
    match container.status()? {
        Status::Stopped => bail!("exec failed: cannot exec in a stopped container"),
        Status::Paused if !args.ignore_paused => {
            bail!("exec failed: cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let spec = container.spec()?;
    let process = process(&spec, args)?;
    let terminal = process.terminal().unwrap_or(false);
    match (terminal, args.detach, &args.console_socket) {
        (true, true, None) => bail!("cannot allocate tty if runc will detach without setting console socket"),
        (false, _, Some(_)) => bail!("cannot use console socket if runc will not allocate tty"),
        (true, false, Some(_)) => bail!("cannot use console socket if runc will not detach"),
        _ => {}
    }
    let Some(init) = container.pidfd()? else { bail!("exec failed: cannot exec in a stopped container") };
    let cgroup = match container.cgroup()? {
        Some(cgroup) if !args.cgroup.is_empty() => {
            Some(cgroup.below(&args.cgroup).map_err(hull_oci::Error::from)?)
        }
        None if !args.cgroup.is_empty() => bail!("--cgroup: the container has no cgroup"),
        other => other,
    };
    let signals = if args.detach { None } else { Some(console::forwarded_signals()?) };
    let execed = hull_oci::exec(ExecRequest {
        id: &args.id,
        spec: &spec,
        bundle: &container.record.bundle,
        process: &process,
        init_pid: container.record.pid,
        init: init.as_fd(),
        cgroup: cgroup.as_ref(),
        stdio: crate::run::stdio(terminal, args.console_socket.is_none()),
        preserve_fds: args.preserve_fds,
        die_with_parent: false,
    })
    .context("exec failed")?;
    hand_over_console(execed.console.as_ref(), args.console_socket.as_deref())?;
    hand_over_pidfd(&execed.pidfd, args.pidfd_socket.as_deref())?;
    write_pid_file(args.pid_file.as_deref(), execed.pid)?;
    let Some(signals) = signals else { return Ok(0) };
    let console = execed.console.as_ref();
    Attached { pid: execed.pid, pidfd: execed.pidfd.as_fd(), console, signals: &signals }.wait()
}

/// The process: from a file, or the container's own with what the flags change.
fn process(spec: &Spec, args: &args::Exec) -> anyhow::Result<Process> {
    if let Some(path) = &args.process {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut process = hull_oci::container::parse_process(&text)
            .with_context(|| format!("process in {}", path.display()))?;
        if args.tty {
            process.set_terminal(Some(true));
        }
        return Ok(process);
    }
    if args.command.is_empty() {
        bail!("exec needs a command or --process");
    }
    let mut process = spec.process().clone().context("the container has no process to take defaults from")?;
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    set_user(&mut process, args)?;
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

fn set_user(process: &mut Process, args: &args::Exec) -> anyhow::Result<()> {
    let mut user = process.user().clone();
    if let Some(text) = &args.user {
        let (uid, gid) = text.split_once(':').map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(uid.parse().with_context(|| format!("--user: {uid:?} is not a number"))?);
        if let Some(gid) = gid {
            user.set_gid(gid.parse().with_context(|| format!("--user: {gid:?} is not a number"))?);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    Ok(())
}

fn add_capabilities(process: &mut Process, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let capability: Capability = serde_json::from_value(serde_json::Value::String(name.clone()))
            .with_context(|| format!("--cap: unknown capability {name:?}"))?;
        let with = |set: &Option<Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        // Ambient ones must be inheritable, which only the configuration makes them.
        if sets.inheritable().as_ref().is_some_and(|inheritable| inheritable.contains(&capability)) {
            sets.set_ambient(with(sets.ambient()));
        }
    }
    process.set_capabilities(Some(sets));
    Ok(())
}
