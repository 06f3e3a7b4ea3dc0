//! The hull command.

fn main() -> std::process::ExitCode {
    hull_cli::main().into()
}
