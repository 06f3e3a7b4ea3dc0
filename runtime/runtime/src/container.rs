//! Containers on record: what the runtime's commands find again.
//!
//! `<root>/<id>/` (mode 0700) holds `state.json`, written once the first process exists and renamed into place; `config.json`, the
//! configuration as it was given; and, while the container is created but not started, `start.sock`, on which its first process
//! waits.

use crate::error::StepExt;
use crate::hooks::{self, HookKind, HookState};
use crate::resctrl::Made;
use crate::scope::Scope;
use crate::sync;
use crate::{Created, Error, ErrorKind};
use hull_cgroup::{Cgroup, Cgroups};
use oci_spec::runtime::{Capability, Process, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a killed container may take to end.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// How long a container that runs may take to end by itself before it is not deleted: callers delete right after the
/// command has done its work or was killed, and its process is about to end.
const ENDING: Duration = Duration::from_millis(100);
const SIGKILL: i32 = 9;

/// What is recorded of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of the specification its configuration names.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// First process.
    pub pid: i32,
    /// When that started, in clock ticks since boot: a pid alone may be another's by now.
    pub pid_start_time: u64,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root file system, for listings.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Uid of its creator.
    pub owner: u32,
    /// Its cgroup's path from the hierarchies' roots.
    pub cgroup: Option<String>,
    /// The service manager's unit that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Directories of resctrl made for it.
    #[serde(default, skip_serializing_if = "Made::is_empty")]
    pub resctrl: Made,
}

/// Where a container is in its life; runtime-spec runtime.md, "State", and `paused` as runc has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waiting for `start`.
    Created,
    /// Its command runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The directory of all records.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A directory reserved for a container being created; removed when dropped, unless kept.
#[derive(Debug)]
pub struct Reservation {
    directory: PathBuf,
    kept: bool,
}

/// A container on record.
#[derive(Clone, Debug)]
pub struct Container {
    directory: PathBuf,
    /// What is recorded.
    pub record: Record,
}

fn state_error(message: String) -> Error {
    Error::Inside { kind: ErrorKind::State, message }
}

fn io_step<T>(result: std::io::Result<T>, step: impl FnOnce() -> String) -> Result<T, Error> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)).step(step)
}

impl Store {
    /// The records below `root`, which is made when it is needed.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reserves an id. Fails when it is taken.
    pub fn reserve(&self, id: &str) -> Result<Reservation, Error> {
        check_id(id)?;
        let directory = self.root.join(id);
        let mode = Mode::from_raw_mode(0o700);
        let made = match rustix::fs::mkdir(&directory, mode) {
            Err(Errno::NOENT) => {
                io_step(std::fs::create_dir_all(&self.root), || format!("make {}", self.root.display()))?;
                rustix::fs::mkdir(&directory, mode)
            }
            other => other,
        };
        match made {
            Ok(()) => Ok(Reservation { directory, kept: false }),
            Err(Errno::EXIST) => Err(state_error(format!("container with given ID already exists: {id}"))),
            Err(error) => Err(error).step(|| format!("make {}", directory.display())),
        }
    }

    /// The container of that id.
    pub fn load(&self, id: &str) -> Result<Container, Error> {
        check_id(id)?;
        let directory = self.root.join(id);
        match std::fs::read(directory.join("state.json")) {
            Ok(text) => {
                let record = serde_json::from_slice(&text)
                    .map_err(|error| state_error(format!("container {id} has a broken record: {error}")))?;
                Ok(Container { directory, record })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(state_error(format!("container does not exist: {id}")))
            }
            Err(error) => io_step(Err(error), || format!("read the record of container {id}")),
        }
    }

    /// Every container that can be read, sorted by id.
    pub fn list(&self) -> Result<Vec<Container>, Error> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => io_step(other, || format!("list {}", self.root.display()))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter_map(|name| self.load(&name).ok()).collect();
        found.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(found)
    }

    /// Removes what a creation that was killed half-way left of an id; whether there was anything.
    pub fn forget(&self, id: &str) -> Result<bool, Error> {
        check_id(id)?;
        match std::fs::remove_dir_all(self.root.join(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => io_step(Err(error), || format!("remove the record of container {id}")),
        }
    }
}

/// runc's rule: the id names a directory, and nothing else.
fn check_id(id: &str) -> Result<(), Error> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(valid) {
        return Err(Error::spec("id", format!("invalid container ID: {id:?}")));
    }
    Ok(())
}

impl Reservation {
    /// Where the root can be mounted while the container is restored.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// A socket on which the first process waits to be started.
    pub fn start_socket(&self) -> Result<OwnedFd, Error> {
        let step = || "make the start socket".to_owned();
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step(step)?;
        in_directory(&self.directory, |address| rustix::net::bind(&socket, address)).step(step)?;
        rustix::net::listen(&socket, 1).step(step)?;
        Ok(socket)
    }

    /// Records the container and its configuration; from now on it is there.
    pub fn keep(mut self, record: Record, config: &[u8]) -> Result<Container, Error> {
        let write = |name: &str, content: &[u8]| {
            io_step(std::fs::write(self.directory.join(name), content), || format!("write {name}"))
        };
        write("config.json", config)?;
        write("state.json.new", &serde_json::to_vec(&record).unwrap_or_default())?;
        let renamed =
            std::fs::rename(self.directory.join("state.json.new"), self.directory.join("state.json"));
        io_step(renamed, || "write state.json".into())?;
        self.kept = true;
        Ok(Container { directory: self.directory.clone(), record })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// The start socket's address through a directory descriptor: a path may be longer than an address may.
fn in_directory<T>(
    directory: &Path,
    action: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let path = directory.join("start.sock");
    if let Ok(address) = SocketAddrUnix::new(&path) {
        return action(&address);
    }
    let open =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&open);
    action(&SocketAddrUnix::new(format!("/proc/self/fd/{number}/start.sock"))?)
}

impl Record {
    /// What to record of a container just created.
    pub fn new(id: &str, spec: &Spec, bundle: &Path, created: &Created) -> Result<Self, Error> {
        let root = spec.root().as_ref().map(|root| bundle.join(root.path())).unwrap_or_default();
        let stat = process_stat(created.pid).ok_or(Error::Vanished("being recorded"))?;
        Ok(Self {
            oci_version: spec.version().clone(),
            id: id.into(),
            pid: created.pid,
            pid_start_time: stat.start_time,
            bundle: bundle.into(),
            rootfs: root,
            created: now_rfc3339(),
            owner: rustix::process::getuid().as_raw(),
            cgroup: created.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            scope: created.scope.clone(),
            resctrl: created.resctrl.clone(),
        })
    }
}

impl Container {
    /// The container's configuration.
    pub fn spec(&self) -> Result<Spec, Error> {
        let text = io_step(std::fs::read(self.directory.join("config.json")), || "read config.json".into())?;
        parse_config(&text)
    }

    /// Where it is in its life.
    pub fn status(&self) -> Result<Status, Error> {
        if !self.alive() {
            return Ok(Status::Stopped);
        }
        if self.cgroup()?.is_some_and(|cgroup| cgroup.frozen().unwrap_or(false)) {
            return Ok(Status::Paused);
        }
        let waiting = self.directory.join("start.sock").exists();
        Ok(if waiting { Status::Created } else { Status::Running })
    }

    /// Whether its first process lives (a zombie does not).
    pub fn alive(&self) -> bool {
        process_stat(self.record.pid).is_some_and(|stat| {
            stat.start_time == self.record.pid_start_time && !matches!(stat.state, b'Z' | b'X')
        })
    }

    /// The first process, race free; `None` when it has ended.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(pid) = Pid::from_raw(self.record.pid) else { return Ok(None) };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: the descriptor is of the process whose start time is read now.
            Ok(pidfd) => Ok(self.alive().then_some(pidfd)),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error).step(|| format!("open process {}", self.record.pid)),
        }
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> Result<Option<Cgroup>, Error> {
        let Some(path) = &self.record.cgroup else { return Ok(None) };
        Ok(Some(Cgroups::detect()?.open(path)))
    }

    /// Starts a created container: its first process executes its command, or says why it cannot. Then the poststart hooks run.
    pub fn start(&self, spec: &Spec) -> Result<(), Error> {
        match self.status()? {
            Status::Created => {}
            Status::Stopped => return Err(state_error("cannot start a container that has stopped".into())),
            status => return Err(state_error(format!("cannot start an already {status} container"))),
        }
        let step = || "reach the container's first process".to_owned();
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .step(step)?;
        in_directory(&self.directory, |address| rustix::net::connect(&socket, address)).step(step)?;
        self.mark_started()?;
        while sync::receive(&socket)?.is_some() {}
        self.poststart(spec)
    }

    /// Runs the poststart hooks. When one fails, the container is killed; runtime-spec runtime.md, "Lifecycle", step 9.
    pub fn poststart(&self, spec: &Spec) -> Result<(), Error> {
        let state = HookState::new(spec, &self.record.id, &self.record.bundle, "running", self.record.pid);
        hooks::run(HookKind::Poststart, spec, &state).inspect_err(|_| {
            // The hook's failure is what is told; a process that ended by itself is as good as a killed one.
            let _ = self.kill(SIGKILL, false);
        })
    }

    fn mark_started(&self) -> Result<(), Error> {
        match rustix::fs::unlink(self.directory.join("start.sock")) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).step(|| "remove the start socket".into()),
        }
    }

    /// Sends a signal to the first process, or to all in the container's cgroup.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        if all && let Some(cgroup) = self.cgroup()? {
            return Ok(cgroup.signal_all(signal)?);
        }
        let Some(pidfd) = self.pidfd()? else {
            // In a pid namespace of others its processes outlive the first.
            if signal == SIGKILL
                && let Some(cgroup) = self.cgroup()?
                && !cgroup.pids()?.is_empty()
            {
                return Ok(cgroup.kill()?);
            }
            return Err(state_error("container not running".into()));
        };
        if signal == 9
            && !self.owns_pids()
            && let Some(cgroup) = self.cgroup()?
        {
            // Nothing else ends what it left behind in a pid namespace of others.
            return Ok(cgroup.kill()?);
        }
        hull_sys::signal::pidfd_send_signal(pidfd.as_fd(), signal)
            .step(|| format!("send signal {signal} to process {}", self.record.pid))?;
        if signal == SIGKILL && self.cgroup()?.is_some_and(|cgroup| cgroup.frozen().unwrap_or(false)) {
            // A frozen task takes no signal before it is thawed.
            self.resume()?;
        }
        Ok(())
    }

    /// Whether its first process is process 1 of a pid namespace, which ends with it.
    fn owns_pids(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.record.pid)).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        pids.is_none_or(|pids| {
            pids.split_whitespace().nth(1).is_some() && pids.split_whitespace().last() == Some("1")
        })
    }

    /// Freezes its cgroup.
    pub fn pause(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Created | Status::Running => {}
            status => return Err(state_error(format!("container not running or created: {status}"))),
        }
        let cgroup =
            self.cgroup()?.ok_or_else(|| state_error("the container has no cgroup to freeze".into()))?;
        Ok(cgroup.freeze()?)
    }

    /// Thaws its cgroup.
    pub fn resume(&self) -> Result<(), Error> {
        let cgroup =
            self.cgroup()?.ok_or_else(|| state_error("the container has no cgroup to thaw".into()))?;
        Ok(cgroup.thaw()?)
    }

    /// Deletes what a stopped (or created, or with `force` any) container has: processes left in its cgroup, the cgroup, the record;
    /// then runs the poststop hooks, of which what failed is returned.
    pub fn delete(&self, force: bool) -> Result<Vec<Error>, Error> {
        match self.status()? {
            Status::Stopped => {}
            Status::Running if !force && self.ends_within(ENDING) => {}
            Status::Running | Status::Paused if !force => {
                let status = self.status()?;
                let message =
                    format!("cannot delete container {} that is not stopped: {status}", self.record.id);
                return Err(state_error(message));
            }
            _ => {
                self.kill(SIGKILL, false).or_else(|error| if self.alive() { Err(error) } else { Ok(()) })?;
                self.await_death()?;
            }
        }
        let spec = self.spec();
        self.clear(self.cgroup()?.as_ref())?;
        Ok(spec.map_or_else(|_| Vec::new(), |spec| self.poststop(&spec)))
    }

    /// [`Container::delete`] for who made the container, knows it ended and still holds its parts.
    pub fn delete_ended(&self, spec: &Spec, cgroup: Option<&Cgroup>) -> Result<Vec<Error>, Error> {
        self.clear(cgroup)?;
        Ok(self.poststop(spec))
    }

    fn poststop(&self, spec: &Spec) -> Vec<Error> {
        let state = HookState::new(spec, &self.record.id, &self.record.bundle, "stopped", 0);
        hooks::run_all(HookKind::Poststop, spec, &state)
    }

    /// Removes processes left, the cgroup, the record.
    fn clear(&self, cgroup: Option<&Cgroup>) -> Result<(), Error> {
        if let Some(cgroup) = cgroup {
            let busy = self.record.scope.is_some() || !cgroup.remove_if_unused()?;
            if busy && !cgroup.pids()?.is_empty() {
                cgroup.kill()?;
            }
            let stopped = self.record.scope.as_ref().map_or(Ok(()), Scope::stop);
            if busy {
                // A unit without a cgroup has ended, whatever its manager answered.
                cgroup
                    .remove()
                    .map_err(Error::from)
                    .and_then(|()| if cgroup.exists() { stopped } else { Ok(()) })?;
            }
        }
        self.record.resctrl.remove();
        let remove = |name: &str| match rustix::fs::unlink(self.directory.join(name)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).step(|| format!("remove {name}")),
        };
        remove("state.json")?;
        remove("config.json")?;
        if rustix::fs::rmdir(&self.directory).is_ok() {
            return Ok(());
        }
        // A container that was created, not run, has its start socket there.
        io_step(std::fs::remove_dir_all(&self.directory), || format!("remove {}", self.directory.display()))
    }

    fn await_death(&self) -> Result<(), Error> {
        if self.await_end(DEATH_PATIENCE)? {
            return Ok(());
        }
        Err(state_error(format!("process {} does not end after SIGKILL", self.record.pid)))
    }

    fn ends_within(&self, patience: Duration) -> bool {
        self.await_end(patience).unwrap_or(false)
    }

    /// Whether its first process ended before `patience` did.
    fn await_end(&self, patience: Duration) -> Result<bool, Error> {
        let Some(pidfd) = self.pidfd()? else { return Ok(true) };
        let timeout = rustix::time::Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: patience.subsec_nanos().into(),
        };
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        ready.map(|count| count > 0).step(|| "wait for the container's end".into())
    }
}

/// A configuration from its JSON text, with the field that is wrong.
pub fn parse_config(text: &[u8]) -> Result<Spec, Error> {
    parse_config_leniently(text).map(|(spec, _)| spec)
}

/// [`parse_config`], with warnings: capabilities nobody knows cannot be granted, which is no reason to fail; runtime-spec
/// config.md, "Linux Process".
pub fn parse_config_leniently(text: &[u8]) -> Result<(Spec, Vec<String>), Error> {
    let invalid = |error: serde_json::Error| Error::spec("config.json", error.to_string());
    let first = match serde_json::from_slice(text) {
        Ok(spec) => return Ok((spec, Vec::new())),
        Err(error) => error,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(invalid(first)) };
    let warnings = value.get_mut("process").map(drop_unknown_capabilities).unwrap_or_default();
    if warnings.is_empty() {
        return Err(invalid(first));
    }
    let spec = serde_json::from_value(value).map_err(invalid)?;
    Ok((spec, warnings))
}

/// A process from its JSON text, as `exec --process` takes it: without a user it is root.
pub fn parse_process(text: &[u8]) -> Result<Process, Error> {
    let wrong = |error: serde_json::Error| Error::spec("process", error.to_string());
    let mut process: Value = serde_json::from_slice(text).map_err(wrong)?;
    drop_unknown_capabilities(&mut process);
    if let Some(fields) = process.as_object_mut() {
        fields.entry("user").or_insert_with(|| serde_json::json!({ "uid": 0, "gid": 0 }));
    }
    serde_json::from_value(process).map_err(wrong)
}

/// Takes the capabilities out that nobody knows; a warning for each.
fn drop_unknown_capabilities(process: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!("process.capabilities.{set}: {name} is unknown, and not granted"));
            }
            known
        });
    }
    warnings
}

struct ProcessStat {
    state: u8,
    start_time: u64,
}

/// `/proc/<pid>/stat`; the name in it may hold anything, so fields are counted from its closing parenthesis.
fn process_stat(pid: i32) -> Option<ProcessStat> {
    let path = std::ffi::CString::new(format!("/proc/{pid}/stat")).ok()?;
    let file = rustix::fs::open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0u8; 1024];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    let text = &buffer[..length];
    let after = text.iter().rposition(|byte| *byte == b')')? + 2;
    let mut fields = text.get(after..)?.split(|byte| *byte == b' ');
    let state = *fields.next()?.first()?;
    let start_time = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some(ProcessStat { state, start_time })
}

/// The present, RFC 3339 in UTC with nanoseconds.
pub fn now_rfc3339() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs(), now.subsec_nanos())
}

/// Days to dates as in Howard Hinnant's "chrono-compatible low-level date algorithms".
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_399, 5), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(rfc3339(951_782_400, 0), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_767_225_600, 0), "2026-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn unknown_capabilities_are_left_out_and_other_mistakes_told() {
        let config = |bounding: &str, cwd: &str| {
            format!(
                r#"{{"ociVersion":"1.2.0","process":{{"user":{{"uid":0,"gid":0}},"cwd":{cwd},
                "capabilities":{{"bounding":[{bounding}]}}}}}}"#
            )
        };
        let known = |text: &str| {
            let spec = parse_config(text.as_bytes())?;
            let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().clone());
            Ok::<_, Error>(capabilities.and_then(|sets| sets.bounding().clone()).unwrap_or_default().len())
        };
        assert_eq!(known(&config(r#""CAP_KILL","CAP_UNKNOWN""#, r#""/""#)).expect("left out"), 1);
        assert!(known(&config(r#""CAP_UNKNOWN""#, "7")).is_err());
        let process = parse_process(br#"{"args":["true"],"cwd":"/"}"#).expect("a user is not needed");
        assert_eq!(process.user().uid(), 0);
    }

    #[test]
    fn this_process_is_alive() {
        let stat = process_stat(std::process::id() as i32).expect("stat");
        assert!(stat.start_time > 0);
        assert!(process_stat(i32::MAX).is_none());
    }

    #[test]
    fn an_id_is_reserved_once_and_given_back() {
        let root = tempfile::tempdir().expect("directory");
        let store = Store::new(root.path().join("made/on/demand"));
        let first = store.reserve("a").expect("reserve");
        assert_eq!(store.reserve("a").expect_err("taken").kind(), ErrorKind::State);
        drop(first);
        assert!(store.reserve("a").is_ok());
        for bad in ["", ".", "..", "a/b", "ä", "x\0"] {
            assert_eq!(store.reserve(bad).expect_err(bad).kind(), ErrorKind::InvalidSpec);
        }
        assert!(store.load("none").expect_err("missing").to_string().contains("does not exist"));
    }
}
