//! Commands beside the server: they ask the one that runs, or do it themselves when none does.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use hull_registry_server::{Command, ask, run_command};

use crate::flags::{Check, Common, Gc, Passwd};
use crate::{serve, settings};

pub(crate) fn gc(flags: &Gc) -> Result<ExitCode> {
    print!("{}", run(&flags.common, Command::Collect { dry_run: flags.dry_run })?);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check(flags: &Check) -> Result<ExitCode> {
    let text = run(&flags.common, Command::Check { repair: flags.repair })?;
    print!("{text}");
    let intact = text.lines().next().is_some_and(|line| line.ends_with(": 0 damaged"));
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(flags: &Common, command: Command) -> Result<String> {
    let config = settings::common(flags)?;
    serve::log(Some("warn"))?;
    if !config.root.join("index.db").exists() {
        bail!("{} is no registry's directory", config.root.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        if let Some(answer) = ask(&config.root, command).await.context("ask the registry that runs")? {
            return answer.map_err(anyhow::Error::msg);
        }
        let store = Arc::new(hull_registry_server::store::Store::open(&config.root)?);
        let service = Arc::new(config.service(store, &serve::roots()).await?);
        Ok(run_command(&service, command).await?)
    })
}

pub(crate) fn passwd(flags: &Passwd) -> Result<ExitCode> {
    if flags.user.is_empty() || flags.user.contains(':') {
        bail!("a user's name is not empty and has no colon");
    }
    let mut password = String::new();
    std::io::stdin().read_to_string(&mut password).context("read the password")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("the password is empty");
    }
    let hash = hull_registry_server::auth::hash_password(password).map_err(anyhow::Error::msg)?;
    println!("{}:{hash}", flags.user);
    Ok(ExitCode::SUCCESS)
}
