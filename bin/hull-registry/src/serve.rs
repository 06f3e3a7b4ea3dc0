//! `hull registry serve`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hull_registry_server::Server;
use hull_registry_server::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::flags::Serve;
use crate::settings;

/// How long requests under way may go on after the registry was told to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn main(flags: &Serve) -> Result<ExitCode> {
    let config = settings::serving(flags)?;
    log(config.log.level.as_deref())?;
    let roots = roots();
    config.check(&roots)?;
    if flags.validate {
        println!("configuration OK");
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .context("start async runtime")?;
    runtime.block_on(serve(config, &roots))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// Certificate authorities of the machine.
pub(crate) fn roots() -> Vec<Vec<u8>> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let usual =
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let places = named.into_iter().chain(usual.map(Into::into));
    places.filter_map(|path| std::fs::read(path).ok()).take(1).collect()
}

pub(crate) fn log(level: Option<&str>) -> Result<()> {
    let level = match level {
        None | Some("info") => "info",
        Some("debug") => "debug",
        Some("warn" | "warning") => "warn",
        Some("error") => "error",
        Some(other) => bail!("log.level: {other:?} is none of error, warn, info, debug"),
    };
    let own = std::env::var("HULL_LOG").ok();
    let filter: Targets = own.as_deref().unwrap_or(level).parse().context("invalid HULL_LOG")?;
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(output.with_filter(filter)).init();
    Ok(())
}

async fn serve(config: Config, roots: &[Vec<u8>]) -> Result<()> {
    let server = Server::open(&config, roots).await?;
    let addresses: Vec<_> = server.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(addresses = addresses.join(" "), root = %config.root.display(), "registry is ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let (stop, stopped) = watch::channel(false);
    let certificates = server.certificates();
    let server = tokio::spawn(server.run(stopped, PATIENCE));
    told_to_end(&config, certificates).await?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(true);
    tokio::select! {
        ended = server => ended.context("serve")?,
        second = told_to_end(&config, |_| {}) => second?,
    }
    Ok(())
}

/// SIGTERM or SIGINT. SIGHUP reads the certificate again; users are read again whenever their file changes.
async fn told_to_end(config: &Config, certificates: impl Fn(Arc<rustls::ServerConfig>)) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = int.recv() => return Ok(()),
            _ = hup.recv() => match config.tls() {
                Ok(Some(tls)) => {
                    certificates(tls);
                    tracing::info!("certificate read again");
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "certificate not read; the old one stays"),
            },
        }
    }
}
