//! Health checks: an exec at an interval, and what its results say about the container.
//!
//! `starting` until the first success; failures of the start period do not count; `retries` failures in a row make it
//! `unhealthy`, one success `healthy`. The next check is timed from the end of the one before.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hull_docker_api::{ExecCreateRequest, Health, HealthConfig, HealthcheckResult, rfc3339_nano};
use hull_monitor::protocol::Action;
use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::actor::Actor;
use super::exec::ExecRecord;
use super::record::Status;
use super::signal;

/// Results kept.
const KEPT: usize = 5;
/// Bytes of output kept of one check.
const OUTPUT: u64 = 4096;

/// The schedule of a container's checks.
#[derive(Debug)]
pub(super) struct Probe {
    config: Timing,
    command: Vec<String>,
    started: Instant,
    next: Option<Instant>,
    running: Option<Running>,
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

#[derive(Debug)]
struct Running {
    exec: Arc<ExecRecord>,
    began: Timestamp,
    output: tokio::task::JoinHandle<String>,
    deadline: Instant,
    timed_out: bool,
}

impl Probe {
    /// When there is something to do: the next check, or the end of the patience with the running one.
    pub(super) fn next_at(&self) -> Option<Instant> {
        match &self.running {
            Some(running) if running.timed_out => None,
            Some(running) => Some(running.deadline),
            None => self.next,
        }
    }
}

/// The command of a check, with docker's defaults for the timing. Nothing without a check.
fn plan(config: &HealthConfig, shell: &[String]) -> Option<(Vec<String>, Timing)> {
    let command = match config.test.as_slice() {
        [] => return None,
        [kind, ..] if kind == "NONE" || kind.is_empty() => return None,
        [kind, words @ ..] if kind == "CMD" => words.to_vec(),
        [kind, words @ ..] if kind == "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = if shell.is_empty() { &default[..] } else { shell };
            shell.iter().cloned().chain([words.join(" ")]).collect()
        }
        _ => return None,
    };
    let duration = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => Duration::from_secs(default),
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    };
    let timing = Timing {
        interval: duration(config.interval, 30),
        timeout: duration(config.timeout, 30),
        start_period: duration(config.start_period, 0),
        start_interval: duration(config.start_interval, 5),
        retries: if config.retries > 0 { config.retries } else { 3 },
    };
    (!command.is_empty()).then_some((command, timing))
}

/// What a finished check makes of the health.
fn judge(health: &Health, exit_code: i64, in_start_period: bool, retries: i64) -> (String, i64) {
    if exit_code == 0 {
        return ("healthy".to_owned(), 0);
    }
    if in_start_period && health.status == "starting" {
        return (health.status.clone(), health.failing_streak);
    }
    let streak = health.failing_streak + 1;
    let status = if streak >= retries { "unhealthy".to_owned() } else { health.status.clone() };
    (status, streak)
}

impl Actor {
    /// At the start of a run.
    pub(super) fn begin_health(&mut self) {
        let config = self.def.config.healthcheck.clone().unwrap_or_default();
        let Some((command, timing)) = plan(&config, &self.def.config.shell) else {
            self.health = None;
            self.probe = None;
            return;
        };
        let now = Instant::now();
        let first = if timing.start_period.is_zero() { timing.interval } else { timing.start_interval };
        self.health = Some(Arc::new(Health { status: "starting".to_owned(), ..Health::default() }));
        self.probe =
            Some(Probe { config: timing, command, started: now, next: Some(now + first), running: None });
    }

    /// At the end of a run.
    pub(super) fn end_health(&mut self) {
        self.probe = None;
        if let Some(health) = &self.health
            && health.status != "unhealthy"
        {
            self.health = Some(Arc::new(Health { status: "unhealthy".to_owned(), ..(**health).clone() }));
        }
    }

    /// The timer of the checks fired.
    pub(super) async fn start_probe(&mut self) {
        let paused = self.state.status != Status::Running;
        let Some(probe) = &mut self.probe else { return };
        if let Some(running) = &mut probe.running {
            running.timed_out = true;
            let action = Action::Signal { exec_id: Some(running.exec.id.clone()), signal: signal::KILL };
            if let Some(link) = &mut self.link {
                let _ = link.request(action, &[]);
            }
            return;
        }
        if paused {
            probe.next = Some(Instant::now() + probe.config.interval);
            return;
        }
        probe.next = None;
        let request = ExecCreateRequest {
            cmd: Some(probe.command.clone()),
            attach_stdout: true,
            attach_stderr: true,
            // One stream, as a person would see it.
            tty: false,
            ..ExecCreateRequest::default()
        };
        let exec = Arc::new(ExecRecord::new(&self.def.id, request));
        let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.into_std()?)));
        let Ok((ours, theirs)) = pair else {
            probe.next = Some(Instant::now() + probe.config.interval);
            return;
        };
        probe.running = Some(Running {
            exec: Arc::clone(&exec),
            began: Timestamp::now(),
            output: tokio::spawn(collect(ours)),
            deadline: Instant::now() + probe.config.timeout,
            timed_out: false,
        });
        let (reply, answer) = oneshot::channel();
        let exec_id = exec.id.clone();
        self.exec(exec, Some(OwnedFd::from(theirs)), reply).await;
        // An exec that cannot even be asked for counts as a failed check.
        let mut answer = answer;
        if let Ok(Err(_)) = answer.try_recv() {
            self.probe_exited(&exec_id, 126).await;
        }
    }

    /// A check ended.
    pub(super) async fn probe_exited(&mut self, exec_id: &str, status: u8) {
        let Some(probe) = &mut self.probe else { return };
        let Some(mut running) = probe.running.take_if(|running| running.exec.id == exec_id) else { return };
        // The monitor closes the connection together with the exit.
        let output = tokio::time::timeout(Duration::from_secs(1), &mut running.output).await;
        let output = output.ok().and_then(std::result::Result::ok).unwrap_or_default();
        let now = Instant::now();
        let in_start_period = now.duration_since(probe.started) < probe.config.start_period;
        let health = self.health.as_deref().cloned().unwrap_or_default();
        let exit_code = if running.timed_out { -1 } else { i64::from(status) };
        let (verdict, streak) = judge(&health, exit_code, in_start_period, probe.config.retries);
        let pause = if in_start_period && verdict == "starting" {
            probe.config.start_interval
        } else {
            probe.config.interval
        };
        probe.next = Some(now + pause);
        let timeout = probe.config.timeout;
        let changed = verdict != health.status;
        let mut next = Health { status: verdict.clone(), failing_streak: streak, log: health.log };
        let output =
            if running.timed_out { format!("Health check exceeded timeout ({timeout:?})") } else { output };
        next.log.push(HealthcheckResult {
            start: rfc3339_nano(running.began),
            end: rfc3339_nano(Timestamp::now()),
            exit_code,
            output,
        });
        let surplus = next.log.len().saturating_sub(KEPT);
        next.log.drain(..surplus);
        self.health = Some(Arc::new(next));
        self.publish();
        if changed {
            self.emit(&format!("health_status: {verdict}"), &[]);
        }
    }
}

/// Reads framed output until its end and keeps its beginning.
async fn collect(stream: UnixStream) -> String {
    let mut raw = Vec::new();
    let _ = stream.take(OUTPUT * 2).read_to_end(&mut raw).await;
    let mut text = Vec::new();
    let mut rest = raw.as_slice();
    while let Some((header, tail)) = rest.split_first_chunk::<8>() {
        let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let payload = &tail[..len.min(tail.len())];
        text.extend_from_slice(payload);
        rest = &tail[payload.len()..];
    }
    text.truncate(usize::try_from(OUTPUT).unwrap_or(usize::MAX));
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(status: &str, failing_streak: i64) -> Health {
        Health { status: status.to_owned(), failing_streak, log: Vec::new() }
    }

    #[test]
    fn failures_count_after_the_start_period_and_a_success_heals() {
        assert_eq!(judge(&health("starting", 0), 1, true, 3), ("starting".to_owned(), 0));
        assert_eq!(judge(&health("starting", 0), 1, false, 3), ("starting".to_owned(), 1));
        assert_eq!(judge(&health("starting", 2), 1, false, 3), ("unhealthy".to_owned(), 3));
        assert_eq!(judge(&health("healthy", 0), 1, true, 1), ("unhealthy".to_owned(), 1));
        assert_eq!(judge(&health("unhealthy", 7), 0, false, 3), ("healthy".to_owned(), 0));
    }

    #[test]
    fn checks_have_dockers_forms_and_defaults() {
        let config = |test: &[&str]| HealthConfig {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            ..HealthConfig::default()
        };
        assert!(plan(&config(&[]), &[]).is_none() && plan(&config(&["NONE"]), &[]).is_none());
        let (command, timing) = plan(&config(&["CMD-SHELL", "exit 0"]), &[]).expect("check");
        assert_eq!(command, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!((timing.interval, timing.retries), (Duration::from_secs(30), 3));
        assert_eq!(plan(&config(&["CMD", "true"]), &[]).expect("check").0, ["true"]);
    }
}
