//! From settings to a running engine and its end.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hull_engine::{Config, Engine};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::flags::{CONFIG_FILE, Flags};
use crate::settings::Settings;
use crate::{file, listen, log};

/// Threads that run async tasks: the engine waits more than it computes.
const WORKERS: usize = 2;

/// Reads the settings, runs the engine, returns when it has ended in an orderly way.
pub(crate) fn main(flags: Flags) -> Result<()> {
    let named = flags.config_file.is_some();
    let path = flags.config_file.clone().unwrap_or_else(|| CONFIG_FILE.into());
    let validate = flags.validate;
    let from_file = file::read(&path, named)?;
    let from_flags = flags.settings()?;
    let settings = Settings::merged(&from_flags, &from_file, &path)?;
    let runtime = settings.runtime_path.clone().map_or_else(find_runtime, Ok)?;
    let mut config = settings.engine(runtime)?;
    if validate {
        println!("configuration OK");
        return Ok(());
    }
    config.engine_command = std::env::args().collect();
    if let Ok(exe) = std::env::current_exe() {
        config.engine_command[0] = exe.to_string_lossy().into_owned();
    }
    log::init(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .enable_all()
        .build()
        .context("start async runtime")?;
    let result = runtime.block_on(serve(settings, config));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

/// `hull-runtime` beside this executable, else in PATH.
fn find_runtime() -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("hull-runtime")));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("hull-runtime"))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("hull-runtime was found neither beside hulld nor in PATH; name it with --runtime-path"),
    }
}

async fn serve(settings: Settings, config: Config) -> Result<()> {
    let exec_root = config.exec_root.clone();
    let engine = tokio::task::spawn_blocking(move || Engine::open(config)).await??;
    if let Some(pidfile) = &settings.pidfile {
        listen::write_pidfile(pidfile)?;
    }
    let default = vec![format!("unix://{}/hull.sock", exec_root.display())];
    let hosts = settings.hosts.clone().filter(|hosts| !hosts.is_empty()).unwrap_or(default);
    // Clients that come while the engine reconciles wait in the backlog.
    let listening = listen::open(&hosts, settings.group.as_deref())?;
    engine.reconcile().await.context("reconcile")?;
    let (stop, stopped) = watch::channel(false);
    let server = hull_rest::serve(listening.listeners, engine.clone(), stopped);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(hosts = hosts.join(" "), "engine is ready");
    let mut server = Box::pin(server);
    let served = tokio::select! {
        served = &mut server => served,
        () = told_to_end() => {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            let _ = stop.send(true);
            // Waiting clients (events, logs, wait) never finish by themselves; containers go on without us.
            tokio::time::timeout(std::time::Duration::from_secs(1), server).await.unwrap_or(Ok(()))
        }
    };
    engine.close();
    for path in listening.files.iter().chain(settings.pidfile.iter()) {
        let _ = std::fs::remove_file(path);
    }
    served.context("serve clients")
}

/// SIGTERM or SIGINT. SIGHUP is heard and does not end the engine.
async fn told_to_end() {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => return,
            _ = hup.recv() => tracing::warn!("reloading the configuration is not implemented; restart the engine"),
        }
    }
}
