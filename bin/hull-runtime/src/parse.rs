//! Parsing the command line. Describing every command with its options costs more than all the rest of it, so the commands
//! that engines call for each container are first tried alone.

use crate::args::{Cli, Create, Delete, Exec, Global, Id, Kill, Run};
use clap::{Args, FromArgMatches, Parser};
use std::ffi::OsString;

/// The command line; one that is wrong, or asks for help, is answered and ends the program.
pub(crate) fn command_line() -> Cli {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    one_command(&arguments).unwrap_or_else(|| Cli::parse_from(arguments))
}

/// Adds a command's options to its description.
type Options = fn(clap::Command) -> clap::Command;

/// The command line, if it is a right one of a command that is called often. The same as the complete description's answer: what
/// that one takes differently is refused here.
fn one_command(arguments: &[OsString]) -> Option<Cli> {
    const COMMANDS: [(&str, Options); 7] = [
        ("run", Run::augment_args),
        ("create", Create::augment_args),
        ("start", Id::augment_args),
        ("exec", Exec::augment_args),
        ("state", Id::augment_args),
        ("kill", Kill::augment_args),
        ("delete", Delete::augment_args),
    ];
    let named = |argument: &OsString| COMMANDS.iter().find(|(name, _)| argument == name);
    let (name, options) = arguments.iter().skip(1).find_map(named)?;
    let whole = clap::Command::new("hull-runtime").disable_help_subcommand(true);
    let mut whole = Global::augment_args(whole).subcommand(options(clap::Command::new(*name)));
    let mut matches = whole.try_get_matches_from_mut(arguments).ok()?;
    // The process ends soon: taking the description apart would be work for nothing.
    std::mem::forget(whole);
    Cli::from_arg_matches_mut(&mut matches).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;

    fn parse(line: &str) -> Option<Cli> {
        one_command(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_right_line_of_a_frequent_command_is_taken() {
        let line = "r --root /x --log-format json run --debug -b /b --pid-file=p id";
        let Some(Cli { command: Command::Run(run), global }) = parse(line) else { panic!("refused") };
        assert!(global.debug);
        assert_eq!(run.create.id, "id");
        assert_eq!(run.create.pid_file.as_deref(), Some("p".as_ref()));
        let Some(Cli { command: Command::Exec(exec), .. }) = parse("r exec -t id sh -c run") else {
            panic!("refused")
        };
        assert!(exec.tty);
        assert_eq!(exec.command, ["sh", "-c", "run"]);
    }

    #[test]
    fn every_other_line_is_left_to_the_complete_description() {
        for line in ["r", "r list", "r run", "r run --help", "r run --unknown id", "r --root run list"] {
            assert!(parse(line).is_none(), "{line}");
        }
        // A command's name as an option's value.
        assert!(parse("r --root run state id").is_none());
        assert!(matches!(parse("r --root /x state run"), Some(Cli { command: Command::State(_), .. })));
    }
}
