//! The registry server: `hull registry` runs it.

mod flags;
mod offline;
mod serve;
mod settings;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let flags = flags::Flags::parse();
    let result = match flags.command {
        flags::Command::Serve(options) => serve::main(&options),
        flags::Command::Gc(options) => offline::gc(&options),
        flags::Command::Check(options) => offline::check(&options),
        flags::Command::Passwd(options) => offline::passwd(&options),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("hull registry: {error:#}");
            ExitCode::FAILURE
        }
    }
}
