//! The progress of pulls, pushes, loads and imports, as docker shows it: a line per layer that is redrawn on a
//! terminal, plain lines otherwise.

use std::io::{IsTerminal, Write};

use hull_client::JsonLines;
use hull_docker_api::{JsonMessage, ProgressDetail};

use super::human;
use crate::error::{Failure, Result};

/// Where progress goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Stdout,
    /// `run` and `create`: standard output belongs to the container.
    Stderr,
    Nowhere,
}

/// Shows a stream to its end. The failure a stream carries is the result; `aux` values are collected.
pub(crate) async fn show(mut messages: JsonLines, sink: Sink) -> Result<Vec<serde_json::Value>> {
    let terminal = match sink {
        Sink::Stdout => std::io::stdout().is_terminal(),
        Sink::Stderr => std::io::stderr().is_terminal(),
        Sink::Nowhere => false,
    };
    let mut screen =
        Screen { terminal, width: if terminal { super::width() } else { 200 }, lines: Vec::new() };
    let mut aux = Vec::new();
    while let Some(message) = messages.next::<JsonMessage>().await? {
        if let Some(value) = message.aux {
            aux.push(value);
            continue;
        }
        if let Some(error) = &message.error_detail {
            return Err(Failure::new(error.message.clone()));
        }
        if !message.error.is_empty() {
            return Err(Failure::new(message.error));
        }
        let text = screen.draw(&message);
        match sink {
            Sink::Stdout => super::text(&text),
            Sink::Stderr => drop(std::io::stderr().lock().write_all(text.as_bytes())),
            Sink::Nowhere => {}
        }
    }
    Ok(aux)
}

struct Screen {
    terminal: bool,
    width: usize,
    /// The ids that have a line, in the order of their lines.
    lines: Vec<String>,
}

impl Screen {
    /// What to write for a message.
    fn draw(&mut self, message: &JsonMessage) -> String {
        let mut text = String::new();
        let mut up = 0;
        if !message.id.is_empty() && message.progress_detail.is_some() {
            let line = self.lines.iter().position(|id| *id == message.id).unwrap_or_else(|| {
                self.lines.push(message.id.clone());
                if self.terminal {
                    text.push('\n');
                }
                self.lines.len() - 1
            });
            up = self.lines.len() - line;
            if self.terminal {
                text += &format!("\x1b[{up}A");
            }
        } else {
            self.lines.clear();
        }
        text += &self.body(message);
        if self.terminal && up > 0 {
            text += &format!("\x1b[{up}B");
        }
        text
    }

    fn body(&self, message: &JsonMessage) -> String {
        let bar = message.progress_detail.as_ref().map(|detail| progress_bar(detail, self.width));
        let mut text = String::new();
        let redrawn = self.terminal && message.stream.is_empty() && bar.is_some();
        if redrawn {
            text.push_str("\x1b[2K\r");
        } else if bar.as_ref().is_some_and(|bar| !bar.is_empty()) {
            return String::new();
        }
        if !message.id.is_empty() {
            text += &format!("{}: ", message.id);
        }
        match bar {
            Some(bar) if self.terminal => text += &format!("{} {bar}\r", message.status),
            _ if !message.stream.is_empty() => text += &message.stream,
            _ => text += &format!("{}\n", message.status),
        }
        text
    }
}

/// `[=====>     ]  1.2MB/3.4MB`.
fn progress_bar(detail: &ProgressDetail, width: usize) -> String {
    let (current, total) = (detail.current, detail.total);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let amount = |value: i64| match detail.units.as_str() {
        "" => human::size(value as f64),
        _ => value.to_string(),
    };
    if total <= 0 {
        return match detail.units.as_str() {
            "" => format!("{:>8}", amount(current)),
            units => format!("{current} {units}"),
        };
    }
    let half = ((current as f64 / total as f64 * 100.0) as i64 / 2).clamp(0, 50) as usize;
    let bar = match width > 110 {
        true => format!("[{}>{}] ", "=".repeat(half), " ".repeat(50 - half)),
        false => String::new(),
    };
    let numbers = match () {
        _ if detail.hidecounts => String::new(),
        _ if current > total => format!("{:>8}", amount(current)),
        _ if detail.units.is_empty() => format!("{:>8}/{}", amount(current), amount(total)),
        _ => format!("{current}/{total} {}", detail.units),
    };
    format!("{bar}{numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let detail = |current, total| ProgressDetail { current, total, ..ProgressDetail::default() };
        let bar = progress_bar(&detail(25_000_000, 50_000_000), 120);
        assert_eq!(bar, format!("[{}>{}]     25MB/50MB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(progress_bar(&detail(1_500, 0), 80), "   1.5kB");
        assert_eq!(progress_bar(&detail(0, 0), 120), "");
    }

    #[test]
    fn plain_output_has_no_bars() {
        let mut screen = Screen { terminal: false, width: 200, lines: Vec::new() };
        let text: String = [
            JsonMessage::status("", "latest: Pulling from library/busybox"),
            JsonMessage::status("abc", "Pulling fs layer"),
            JsonMessage::progress("abc", "Downloading", 5, 10),
            JsonMessage::status("abc", "Pull complete"),
            JsonMessage::status("", "Digest: sha256:1"),
        ]
        .iter()
        .map(|message| screen.draw(message))
        .collect();
        assert_eq!(
            text,
            "latest: Pulling from library/busybox\nabc: Pulling fs layer\nabc: Pull complete\nDigest: sha256:1\n"
        );
    }

    #[test]
    fn a_terminal_redraws_the_line_of_a_layer() {
        let mut screen = Screen { terminal: true, width: 120, lines: Vec::new() };
        assert_eq!(
            screen.draw(&JsonMessage::status("a", "Waiting")),
            "\n\x1b[1A\x1b[2K\ra: Waiting \r\x1b[1B"
        );
        screen.draw(&JsonMessage::status("b", "Waiting"));
        assert!(screen.draw(&JsonMessage::status("a", "Done")).starts_with("\x1b[2A\x1b[2K\ra: Done"));
    }
}
