//! Docker's command line for Hull: docker's syntax, output and exit codes, one file per command.
//!
//! [`main`] finds the command in a static tree ([`command`]), parses its flags by a static table and runs it on a
//! single-threaded runtime. Nothing is built before it is needed: the time from start to the first request is part
//! of what `hull run` costs.

mod auth;
mod command;
mod commands;
mod config;
mod detach_keys;
mod engine;
mod error;
mod flags;
mod help;
mod opts;
mod output;
mod signals;
mod streams;
mod terminal;

use command::Parsed;
use error::Failure;

/// Runs the command line of this process; the result is its exit status.
pub fn main() -> u8 {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => {
                output::warn(&format!("hull: argument is not UTF-8: {}", argument.to_string_lossy()));
                return 125;
            }
        }
    }
    let status = match run(&arguments) {
        Ok(status) => status,
        Err(failure) => report(&failure),
    };
    terminal::restore();
    status
}

fn run(arguments: &[String]) -> error::Result<u8> {
    let (command, invocation) = match command::parse(arguments)? {
        Parsed::Print(text) => {
            output::text(&text);
            return Ok(0);
        }
        Parsed::Replace(program, arguments) => return Err(replace(program, &arguments)),
        Parsed::Run(command, invocation) => (command, invocation),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, (command.run)(*invocation));
    // The process ends now and the kernel closes everything at once: neither taking the runtime apart nor threads
    // that still read or look up names may delay the exit.
    std::mem::forget((local, runtime));
    result
}

/// Becomes that program; what is returned is why not.
fn replace(program: &command::Program, arguments: &[String]) -> Failure {
    use std::os::unix::process::CommandExt;
    let Some(path) = engine::find_program(program.file) else {
        return Failure::new(format!("{} was found neither beside hull nor in PATH", program.file))
            .with_hint(format!("install {}, which comes with Hull", program.file));
    };
    let error = std::process::Command::new(&path).args(arguments).exec();
    Failure::new(format!("cannot start {}: {error}", path.display()))
}

fn report(failure: &Failure) -> u8 {
    terminal::restore();
    if !failure.message.is_empty() {
        output::warn(&failure.message);
    }
    if let Some(hint) = &failure.hint {
        output::warn(&format!("hint: {hint}"));
    }
    failure.status
}
