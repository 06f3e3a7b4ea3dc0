//! The daemon's own log, on standard error.

use anyhow::{Context, Result, bail};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

use crate::settings::Settings;

/// Sets up logging. `HULL_LOG` holds a tracing filter for development, e.g. `hull_engine=debug`; with it the time
/// every span took is logged too.
pub(crate) fn init(settings: &Settings) -> Result<()> {
    let level = match settings.log_level.as_deref() {
        _ if settings.debug == Some(true) => "debug",
        None | Some("info") => "info",
        Some("debug") => "debug",
        Some("warn" | "warning") => "warn",
        Some("error" | "fatal" | "panic") => "error",
        Some(other) => bail!("invalid logging level: {other}"),
    };
    match settings.log_format.as_deref() {
        None | Some("text") => {}
        Some(other) => bail!("log format {other} is not implemented"),
    }
    let own = std::env::var("HULL_LOG").ok();
    let spans = if own.is_some() { FmtSpan::CLOSE } else { FmtSpan::NONE };
    // Plain targets, because the larger filter language brings a regular expression engine into memory.
    let filter: Targets = own.as_deref().unwrap_or(level).parse().context("invalid HULL_LOG")?;
    let output = tracing_subscriber::fmt::layer().with_span_events(spans).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(output.with_filter(filter)).init();
    Ok(())
}
