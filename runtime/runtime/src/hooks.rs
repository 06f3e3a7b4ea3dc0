//! Hooks: programs the configuration runs at points of a container's life; runtime-spec config.md, "POSIX-platform Hooks".

use crate::Error;
use crate::error::errno_text;
use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What hooks are told on their standard input; runtime-spec runtime.md, "State".
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
    /// Version of the specification.
    pub oci_version: &'a str,
    /// Container.
    pub id: &'a str,
    /// `creating`, `created`, `running`, `stopped`.
    pub status: &'a str,
    /// First process as the receiver of the state sees it.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Bundle directory.
    pub bundle: &'a Path,
    /// Annotations of the configuration, sorted.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<&'a str, &'a str>,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl<'a> HookState<'a> {
    /// The state of a container of that configuration.
    pub fn new(spec: &'a Spec, id: &'a str, bundle: &'a Path, status: &'a str, pid: i32) -> Self {
        let annotations =
            spec.annotations().iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Self { oci_version: spec.version(), id, status, pid, bundle, annotations }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Which of the six lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// In the caller's namespaces, after the container's were made (deprecated).
    Prestart,
    /// In the caller's namespaces, after the container's were made.
    CreateRuntime,
    /// In the container's namespaces, before `pivot_root`.
    CreateContainer,
    /// In the container, before its command.
    StartContainer,
    /// In the caller's namespaces, after the command was started.
    Poststart,
    /// In the caller's namespaces, after the container was deleted.
    Poststop,
}

impl HookKind {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The hooks of this kind.
    pub fn list(self, spec: &Spec) -> &[Hook] {
        let Some(hooks) = spec.hooks() else { return &[] };
        #[allow(deprecated)]
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// Checks what can be checked of all hooks.
pub(crate) fn check(spec: &Spec) -> Result<(), Error> {
    use HookKind::*;
    for kind in [Prestart, CreateRuntime, CreateContainer, StartContainer, Poststart, Poststop] {
        for (index, hook) in kind.list(spec).iter().enumerate() {
            let field = |suffix: &str| format!("hooks.{}[{index}].{suffix}", kind.name());
            if !hook.path().is_absolute() {
                return Err(Error::spec(field("path"), format!("{} is not absolute", hook.path().display())));
            }
            if hook.timeout().is_some_and(|timeout| timeout <= 0) {
                return Err(Error::spec(field("timeout"), "must be greater than zero"));
            }
        }
    }
    Ok(())
}

/// Runs hooks one after another until one fails.
pub fn run(kind: HookKind, spec: &Spec, state: &HookState<'_>) -> Result<(), Error> {
    run_with(kind, spec, state, &[])
}

/// [`run`], with an environment for the hooks that name none: startContainer hooks then have the process's, as runc
/// gives it to them.
pub(crate) fn run_with(
    kind: HookKind,
    spec: &Spec,
    state: &HookState<'_>,
    env: &[String],
) -> Result<(), Error> {
    if kind.list(spec).is_empty() {
        return Ok(());
    }
    let json = state.to_json();
    kind.list(spec).iter().enumerate().try_for_each(|(index, hook)| run_one(kind, index, hook, &json, env))
}

/// Runs hooks whose failure does not matter to the container (poststop); returns what failed.
pub fn run_all(kind: HookKind, spec: &Spec, state: &HookState<'_>) -> Vec<Error> {
    if kind.list(spec).is_empty() {
        return Vec::new();
    }
    let json = state.to_json();
    let hooks = kind.list(spec).iter().enumerate();
    hooks.filter_map(|(index, hook)| run_one(kind, index, hook, &json, &[]).err()).collect()
}

fn run_one(kind: HookKind, index: usize, hook: &Hook, state: &[u8], env: &[String]) -> Result<(), Error> {
    let failed = |reason: String| Error::Hook { kind: kind.name(), index, path: hook.path().clone(), reason };
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for entry in hook.env().as_deref().unwrap_or(env) {
        if let Some((key, value)) = entry.split_once('=') {
            command.env(key, value);
        }
    }
    command.stdin(Stdio::piped());
    // In memory: something the hook leaves running may keep a pipe open for ever.
    let said = rustix::fs::memfd_create(c"hook", rustix::fs::MemfdFlags::CLOEXEC).ok();
    if let Some(copy) = said.as_ref().and_then(|said| said.try_clone().ok()) {
        command.stderr(copy);
    }
    let mut child =
        command.spawn().map_err(|error| failed(format!("could not be run: {}", go_text(&error))))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its state.
        let _ = stdin.write_all(state);
    }
    let deadline = hook.timeout().map(|seconds| Instant::now() + Duration::from_secs(seconds.unsigned_abs()));
    if !ended_before(&child, deadline)
        .map_err(|errno| failed(format!("could not be awaited: {}", errno_text(errno))))?
    {
        let _ = child.kill();
        let _ = child.wait();
        let seconds = hook.timeout().unwrap_or_default();
        return Err(failed(format!("ran past its timeout of {seconds} s and was killed")));
    }
    let status =
        child.wait().map_err(|error| failed(format!("could not be awaited: {}", go_text(&error))))?;
    let said = said.map(|said| beginning_of(&said)).unwrap_or_default();
    if status.success() {
        // Nobody is there to be told when this fails.
        let _ = rustix::io::write(rustix::stdio::stderr(), &said);
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(failed(match said.trim() {
        "" => format!("failed: {status}"),
        said => format!("failed: {status}: {said}"),
    }))
}

/// As much of what a hook said as fits into an error.
fn beginning_of(file: &std::os::fd::OwnedFd) -> Vec<u8> {
    let mut text = vec![0; 1024];
    let length = rustix::io::pread(file, &mut text[..], 0).unwrap_or(0);
    text.truncate(length);
    text
}

fn go_text(error: &std::io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| error.to_string(), errno_text)
}

fn ended_before(child: &Child, deadline: Option<Instant>) -> Result<bool, Errno> {
    let Some(deadline) = deadline else { return Ok(true) };
    let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) else { return Ok(true) };
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(1..) => return Ok(true),
            Ok(0) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
