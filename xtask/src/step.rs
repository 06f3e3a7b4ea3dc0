//! Steps whose progress a person can follow.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, bail};

/// Announces a step, runs it, and says how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("\x1b[1m==> {name}\x1b[0m");
    let begun = Instant::now();
    let result = work().with_context(|| name.to_owned())?;
    eprintln!("    {name}: done in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(result)
}

/// Runs a command whose output goes to the terminal; anything but success is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("{shown} cannot be run"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
