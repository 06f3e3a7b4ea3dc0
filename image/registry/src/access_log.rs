//! One line for each request.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::service::Request;

/// Lines that wait to be written at most; more are dropped rather than holding up requests.
const WAITING: usize = 8192;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Apache's combined format, and the time in seconds.
    #[default]
    Combined,
    /// A JSON object.
    Json,
}

/// Where requests are written down; by a thread of its own, so that a slow disk or pipe slows no request.
#[derive(Debug, Default)]
pub struct AccessLog {
    lines: Option<SyncSender<String>>,
    format: Format,
}

impl AccessLog {
    /// No log.
    pub fn off() -> Self {
        Self::default()
    }

    /// Into a file or pipe.
    pub fn to(mut file: File, format: Format) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel::<String>(WAITING);
        let write = move || {
            while let Ok(mut line) = waiting.recv() {
                while line.len() < 64 << 10
                    && let Ok(next) = waiting.try_recv()
                {
                    line.push_str(&next);
                }
                // Nobody is left to tell.
                let _ = file.write_all(line.as_bytes());
            }
        };
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(Self { lines: Some(lines), format })
    }

    /// Writes a request down.
    pub(crate) fn write(
        &self,
        request: &Request<'_>,
        status: u16,
        received: u64,
        sent: u64,
        time: Duration,
        whole: bool,
    ) {
        let Some(lines) = &self.lines else { return };
        let line = match self.format {
            Format::Combined => combined(request, status, sent, time),
            Format::Json => json(request, status, received, sent, time, whole),
        };
        if let Err(TrySendError::Full(_)) = lines.try_send(line) {
            tracing::debug!("access log is behind, a line was dropped");
        }
    }
}

/// The path, without what could make a line of its own or end the quotes.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '"' { '?' } else { c }).collect()
}

fn combined(request: &Request<'_>, status: u16, sent: u64, time: Duration) -> String {
    let head = request.head;
    let now = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
    format!(
        "{} - {} [{now}] \"{} {} HTTP/1.1\" {status} {sent} \"-\" \"{}\" {:.6}\n",
        request.peer.ip(),
        shown(request.caller.name()),
        head.method.as_str(),
        shown(&head.shown()),
        shown(head.header("user-agent").unwrap_or("-")),
        time.as_secs_f64()
    )
}

fn json(request: &Request<'_>, status: u16, received: u64, sent: u64, time: Duration, whole: bool) -> String {
    let head = request.head;
    let line = serde_json::json!({
        "time": jiff::Timestamp::now().to_string(), "remote": request.peer.to_string(), "user": request.caller.name(),
        "method": head.method.as_str(), "path": head.shown(), "status": status, "received": received, "sent": sent,
        "seconds": time.as_secs_f64(), "whole": whole, "agent": head.header("user-agent").unwrap_or_default(),
    });
    format!("{line}\n")
}
