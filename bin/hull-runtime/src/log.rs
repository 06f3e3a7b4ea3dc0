//! Errors to standard error, and to the log that engines read.

use crate::args::{Global, LogFormat};
use std::io::Write;
use std::path::PathBuf;

pub(crate) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(global: &Global) -> Self {
        // crun names the kind of log before the file.
        let file =
            global.log.clone().map(|path| match path.to_str().and_then(|text| text.strip_prefix("file:")) {
                Some(path) => path.into(),
                None => path,
            });
        Self { file, format: global.log_format, debug: global.debug }
    }

    /// One error, on standard error as runc prints it, and in the log file as containerd and podman read it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let message = text(error);
        eprintln!("hull-runtime: error: {message}");
        self.write("error", &message);
    }

    /// What does not stop the work, but is not as it was asked for.
    pub(crate) fn warning(&self, message: &str) {
        if self.file.is_none() {
            warn(message);
        }
        self.write("warning", message);
    }

    /// What only somebody looking for a fault wants to know.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if !self.debug {
            return;
        }
        let message = message();
        if self.file.is_none() {
            eprintln!("hull-runtime: level=debug {message}");
        }
        self.write("debug", &message);
    }

    fn write(&self, level: &str, message: &str) {
        let Some(path) = &self.file else { return };
        let time = hull_oci::container::now_rfc3339();
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(failed) = file.and_then(|mut file| writeln!(file, "{line}")) {
            eprintln!("hull-runtime: write log {}: {failed}", path.display());
        }
    }
}

/// Something that does not fail the command.
pub(crate) fn warn(message: &str) {
    eprintln!("hull-runtime: warning: {message}");
}

/// The whole chain of causes, each said once.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if let Some(ours) = cause.downcast_ref::<hull_oci::Error>() {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&ours.chain());
            return text;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
    }
    text
}
