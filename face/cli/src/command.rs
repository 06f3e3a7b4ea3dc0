//! The tree of commands and the way from arguments to one of them.

use std::pin::Pin;
use std::rc::Rc;

use crate::commands::{container, context, image, manifest, network, system, top_level, volume};
use crate::engine::Engine;
use crate::error::{Failure, Result};
use crate::flags::{Flag, LIST, Matches, STRING};
use crate::{help, output};

/// One command. `run` gets the parsed invocation and returns the exit status.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What follows the command's path in its usage line.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    /// All paths of the command, the canonical one first.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) args: Args,
    pub(crate) flags: &'static [Flag],
    /// Flags may follow arguments.
    pub(crate) interspersed: bool,
    pub(crate) run: Run,
}

/// The body of a command.
pub(crate) type Run = fn(Invocation) -> Pin<Box<dyn Future<Output = Result<u8>>>>;

/// How many arguments a command takes.
#[derive(Clone, Copy)]
pub(crate) enum Args {
    None,
    Any,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

/// A management command.
pub(crate) struct Group {
    pub(crate) about: &'static str,
    pub(crate) commands: &'static [&'static Command],
}

/// A program beside this one that takes all that follows its name: what few need and is large is not in `hull` itself.
pub(crate) struct Program {
    pub(crate) about: &'static str,
    /// Name of its file.
    pub(crate) file: &'static str,
}

/// A name at the top level.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) section: &'static str,
    pub(crate) target: Target,
}

/// What a name at the top level stands for.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Command(&'static Command),
    Group(&'static Group),
    Program(&'static Program),
}

impl Entry {
    pub(crate) fn about(&self) -> &'static str {
        match self.target {
            Target::Command(command) => command.about,
            Target::Group(group) => group.about,
            Target::Program(program) => program.about,
        }
    }
}

/// Sections of the top-level help in order.
pub(crate) const SECTIONS: &[&str] = &["Common Commands", "Management Commands", "Commands"];

const fn common(name: &'static str, command: &'static Command) -> Entry {
    Entry { name, section: "Common Commands", target: Target::Command(command) }
}

const fn plain(name: &'static str, command: &'static Command) -> Entry {
    Entry { name, section: "Commands", target: Target::Command(command) }
}

const fn group(name: &'static str, group: &'static Group) -> Entry {
    Entry { name, section: "Management Commands", target: Target::Group(group) }
}

static REGISTRY: Program = Program { about: "Run a registry", file: "hull-registry" };

/// Everything `hull` can do.
pub(crate) static TOP: &[Entry] = &[
    common("run", &container::run::COMMAND),
    common("exec", &container::exec::COMMAND),
    common("ps", &container::ls::COMMAND),
    common("pull", &image::pull::COMMAND),
    common("push", &image::push::COMMAND),
    common("images", &image::ls::COMMAND),
    common("login", &top_level::login::COMMAND),
    common("logout", &top_level::logout::COMMAND),
    common("search", &top_level::search::COMMAND),
    common("version", &top_level::version::COMMAND),
    common("info", &system::info::COMMAND),
    group("container", &container::GROUP),
    group("context", &context::GROUP),
    group("image", &image::GROUP),
    group("manifest", &manifest::GROUP),
    group("network", &network::GROUP),
    Entry { name: "registry", section: "Management Commands", target: Target::Program(&REGISTRY) },
    group("system", &system::GROUP),
    group("volume", &volume::GROUP),
    plain("attach", &container::attach::COMMAND),
    plain("commit", &container::commit::COMMAND),
    plain("completion", &top_level::completion::COMMAND),
    plain("cp", &container::cp::COMMAND),
    plain("create", &container::create::COMMAND),
    plain("diff", &container::diff::COMMAND),
    plain("events", &system::events::COMMAND),
    plain("export", &container::export::COMMAND),
    plain("history", &image::history::COMMAND),
    plain("import", &image::import::COMMAND),
    plain("inspect", &top_level::inspect::COMMAND),
    plain("kill", &container::kill::COMMAND),
    plain("load", &image::load::COMMAND),
    plain("logs", &container::logs::COMMAND),
    plain("pause", &container::pause::COMMAND),
    plain("port", &container::port::COMMAND),
    plain("rename", &container::rename::COMMAND),
    plain("restart", &container::restart::COMMAND),
    plain("rm", &container::rm::COMMAND),
    plain("rmi", &image::rm::COMMAND),
    plain("save", &image::save::COMMAND),
    plain("start", &container::start::COMMAND),
    plain("stats", &container::stats::COMMAND),
    plain("stop", &container::stop::COMMAND),
    plain("tag", &image::tag::COMMAND),
    plain("top", &container::top::COMMAND),
    plain("unpause", &container::unpause::COMMAND),
    plain("update", &container::update::COMMAND),
    plain("wait", &container::wait::COMMAND),
];

/// Other names of commands.
const OTHER_NAMES: &[(&str, &str)] = &[("list", "ls"), ("ps", "ls"), ("remove", "rm")];

/// Flags before the command.
pub(crate) static GLOBAL: &[Flag] = &[
    Flag::new(STRING, "config", "Location of client config files (default \"~/.docker\")"),
    Flag::new(STRING, "context", "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with \"hull context use\")").short('c'),
    Flag::switch("debug", "Enable debug mode").short('D'),
    Flag::new(LIST, "host", "Daemon socket to connect to").short('H'),
    Flag::new(STRING, "log-level", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")").short('l'),
    Flag::switch("tls", "Use TLS; implied by --tlsverify"),
    Flag::new(STRING, "tlscacert", "Trust certs signed only by this CA (default \"~/.docker/ca.pem\")"),
    Flag::new(STRING, "tlscert", "Path to TLS certificate file (default \"~/.docker/cert.pem\")"),
    Flag::new(STRING, "tlskey", "Path to TLS key file (default \"~/.docker/key.pem\")"),
    Flag::switch("tlsverify", "Use TLS and verify the remote"),
    Flag::switch("version", "Print version information and quit").short('v'),
];

/// A command about to run.
#[derive(Clone)]
pub(crate) struct Invocation {
    pub(crate) matches: Matches,
    /// How the command was called, `hull container ls`.
    pub(crate) path: String,
    pub(crate) engine: Rc<Engine>,
}

impl Invocation {
    /// The argument at an index; the number of arguments was checked.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.matches.args.get(index).map_or("", String::as_str)
    }
}

/// What the arguments ask for.
pub(crate) enum Parsed {
    Run(&'static Command, Box<Invocation>),
    /// Text for standard output, then success.
    Print(String),
    /// Another program takes over, with these arguments.
    Replace(&'static Program, Vec<String>),
}

const PROGRAM: &str = "hull";

/// Finds the command of an argument list and parses its flags.
pub(crate) fn parse(arguments: &[String]) -> Result<Parsed> {
    let globals = Matches::parse(GLOBAL, false, arguments).map_err(|error| {
        usage_error(&error, PROGRAM, &format!("{PROGRAM} [OPTIONS] COMMAND [ARG...]"), 125)
    })?;
    if globals.on("version") {
        return Ok(Parsed::Print(format!("Hull version {}\n", env!("CARGO_PKG_VERSION"))));
    }
    check_log_level(&globals)?;
    let mut words = globals.args.as_slice();
    let mut wants_help = globals.help;
    if words.first().is_some_and(|word| word == "help") {
        words = &words[1..];
        wants_help = true;
        if let Some(word) = words.first().filter(|word| find_top(word).is_none()) {
            return Err(Failure::new(format!("unknown help topic: {word}")));
        }
    }
    let Some((name, rest)) = words.split_first() else {
        return Ok(Parsed::Print(help::top(PROGRAM, GLOBAL, output::width())));
    };
    let Some(target) = find_top(name) else {
        return Err(unknown_command(PROGRAM, name));
    };
    match target {
        Target::Command(command) => {
            parse_command(&globals, format!("{PROGRAM} {name}"), command, rest, wants_help)
        }
        Target::Group(group) => parse_group(&globals, name, group, rest, wants_help),
        Target::Program(program) => {
            let help = wants_help.then(|| "--help".to_owned());
            Ok(Parsed::Replace(program, rest.iter().cloned().chain(help).collect()))
        }
    }
}

fn parse_group(
    globals: &Matches,
    name: &str,
    group: &'static Group,
    rest: &[String],
    wants_help: bool,
) -> Result<Parsed> {
    let path = format!("{PROGRAM} {name}");
    match rest.split_first() {
        Some((word, rest)) if !word.starts_with('-') => {
            let canonical =
                OTHER_NAMES.iter().find(|(other, _)| other == word).map_or(word.as_str(), |(_, name)| name);
            match group.commands.iter().find(|command| command.name == word || command.name == canonical) {
                Some(command) => parse_command(globals, format!("{path} {word}"), command, rest, wants_help),
                None => Err(Failure::new(format!(
                    "{PROGRAM}: unknown command: {path} {word}\n\nUsage:  {path}\n\nRun '{path} --help' for more \
                     information"
                ))),
            }
        }
        Some((flag, _)) if flag != "--help" && flag != "-h" => {
            let error = match flag.strip_prefix("--") {
                Some(long) => format!("unknown flag: --{}", long.split('=').next().unwrap_or_default()),
                None => format!("unknown shorthand flag: {:?} in {flag}", flag.chars().nth(1).unwrap_or('-')),
            };
            Err(usage_error(&error, &path, &path, 125))
        }
        _ => Ok(Parsed::Print(help::group(&path, group))),
    }
}

fn parse_command(
    globals: &Matches,
    path: String,
    command: &'static Command,
    rest: &[String],
    wants_help: bool,
) -> Result<Parsed> {
    let matches = Matches::parse(command.flags, command.interspersed, rest)
        .map_err(|error| usage_error(&error, &path, &help::usage(&path, command), 125))?;
    if wants_help || matches.help {
        return Ok(Parsed::Print(help::command(&path, command, output::width())));
    }
    check_arguments(&path, command, matches.args.len())?;
    let engine = Rc::new(Engine::new(globals));
    Ok(Parsed::Run(command, Box::new(Invocation { matches, path, engine })))
}

fn find_top(name: &str) -> Option<Target> {
    TOP.iter().find(|entry| entry.name == name).map(|entry| entry.target)
}

fn check_log_level(globals: &Matches) -> Result<()> {
    match globals.text("log-level") {
        "" | "trace" | "debug" | "info" | "warn" | "warning" | "error" | "fatal" | "panic" => Ok(()),
        level => Err(Failure::new(format!("Unable to parse logging level: {level}"))),
    }
}

fn check_arguments(path: &str, command: &Command, given: usize) -> Result<()> {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let problem = match command.args {
        Args::None if given > 0 => "accepts no arguments".to_owned(),
        Args::Exactly(n) if given != n => format!("requires {n} argument{}", plural(n)),
        Args::AtLeast(n) if given < n => format!("requires at least {n} argument{}", plural(n)),
        Args::AtMost(n) if given > n => format!("requires at most {n} argument{}", plural(n)),
        Args::Between(min, max) if given < min || given > max => {
            format!("requires at least {min} and at most {max} arguments")
        }
        _ => return Ok(()),
    };
    let see = if matches!(command.args, Args::AtLeast(_)) { "See" } else { "Run" };
    Err(Failure::new(format!(
        "{PROGRAM}: '{path}' {problem}\n\nUsage:  {}\n\n{see} '{path} --help' for more information",
        help::usage(path, command)
    )))
}

fn usage_error(error: &str, path: &str, usage: &str, status: u8) -> Failure {
    Failure::new(format!("{error}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"))
        .with_status(status)
}

fn unknown_command(path: &str, name: &str) -> Failure {
    let near = TOP.iter().map(|entry| entry.name).find(|known| distance(known, name) <= 1);
    let failure = Failure::new(format!(
        "{PROGRAM}: unknown command: {path} {name}\n\nRun '{path} --help' for more information"
    ));
    match near {
        Some(near) => failure.with_hint(format!("did you mean '{path} {near}'?")),
        None => failure,
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&words) {
            Err(failure) => failure.message,
            Ok(_) => panic!("{line} parses"),
        }
    }

    #[test]
    fn errors_of_the_tree_are_dockers() {
        assert_eq!(fail("foo"), "hull: unknown command: hull foo\n\nRun 'hull --help' for more information");
        assert_eq!(
            fail("container foo"),
            "hull: unknown command: hull container foo\n\nUsage:  hull container\n\nRun 'hull container --help' for \
             more information"
        );
        assert_eq!(
            fail("ps x"),
            "hull: 'hull ps' accepts no arguments\n\nUsage:  hull ps [OPTIONS]\n\nRun 'hull ps --help' for more \
             information"
        );
        assert_eq!(
            fail("exec a"),
            "hull: 'hull exec' requires at least 2 arguments\n\nUsage:  hull exec [OPTIONS] CONTAINER COMMAND \
             [ARG...]\n\nSee 'hull exec --help' for more information"
        );
        assert_eq!(
            fail("ps --foo"),
            "unknown flag: --foo\n\nUsage:  hull ps [OPTIONS]\n\nRun 'hull ps --help' for more information"
        );
        assert_eq!(fail("help foo"), "unknown help topic: foo");
    }

    #[test]
    fn a_program_takes_all_that_follows_its_name() {
        for (line, arguments) in [
            ("registry", vec![]),
            ("registry serve --listen :5000 -h", vec!["serve", "--listen", ":5000", "-h"]),
            ("help registry", vec!["--help"]),
            ("--help registry gc", vec!["gc", "--help"]),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            match parse(&words) {
                Ok(Parsed::Replace(program, given)) => {
                    assert_eq!(
                        (program.file, given),
                        ("hull-registry", arguments.into_iter().map(str::to_owned).collect())
                    );
                }
                _ => panic!("{line} is not handed over"),
            }
        }
    }

    #[test]
    fn every_command_is_found_by_all_its_paths() {
        for entry in TOP {
            if let Target::Group(group) = entry.target {
                for command in group.commands {
                    assert_eq!(
                        command.aliases.first().copied(),
                        Some(format!("{} {}", entry.name, command.name)).as_deref()
                    );
                }
            }
        }
    }
}
