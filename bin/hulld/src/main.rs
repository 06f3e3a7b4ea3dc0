//! The Hull engine daemon.

mod file;
mod flags;
mod listen;
mod log;
mod run;
mod settings;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let flags = flags::Flags::parse();
    match run::main(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hulld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
