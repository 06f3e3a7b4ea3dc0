//! Everything that continuous integration runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    check,
    project::{BINARIES, Project},
    step::{run as command, shown, step},
    vm,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave out format, lints, layers and documentation
    #[arg(long)]
    no_check: bool,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

/// How many tests had which end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    passed: u32,
    failed: u32,
}

/// Runs the checks and then every test, also after a failed one, and sums up.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    if !options.no_check {
        check::run(project)?;
    }
    step("build programs and tests", || build(project))?;
    step("packages that the tests use", || {
        hull_fixtures::prepare().iter().for_each(|lacking| eprintln!("    not to be had: {lacking}"));
        Ok(())
    })?;

    let skips = tempfile::NamedTempFile::new()?;
    let run = |name: &str, arguments: &[&str]| {
        step(name, || tests(project, arguments, options.filter.as_deref(), skips.path()))
    };
    let unit =
        run("unit tests", &["--workspace", "--exclude", "hull-conformance", "--lib", "--bins", "--tests"])?;
    let suites = run("suites, as clients use Hull", &["--package", "hull-conformance", "--tests"])?;
    let documentation = run("examples in the documentation", &["--workspace", "--doc"])?;
    let machine = match options.filter {
        Some(_) => Tally::default(),
        None => step("the engine on cgroup v2 and an older kernel", || emulated(project, skips.path()))?,
    };
    close(&[unit, suites, documentation, machine], &fs::read_to_string(skips.path())?)
}

/// In a machine that is emulated; left out, saying why, where none can be made.
fn emulated(project: &Project, skips: &Path) -> Result<Tally> {
    let work = match vm::prepare(project) {
        Ok(work) => work,
        Err(reason) => {
            let mut list = fs::OpenOptions::new().append(true).open(skips)?;
            writeln!(list, "the emulated machine: {reason:#}")?;
            // The harness counts a test that leaves itself out as passed, and so is this one.
            return Ok(Tally { passed: 1, failed: 0 });
        }
    };
    let outcome = vm::suite(project, &work)?;
    let broken = outcome.status != 0 && outcome.failed == 0;
    Ok(Tally { passed: outcome.passed, failed: outcome.failed + u32::from(broken) })
}

fn build(project: &Project) -> Result<()> {
    command(&mut project.cargo(&["test", "--workspace", "--locked", "--no-run"]))?;
    let mut programs = project.cargo(&["build", "--locked"]);
    command(programs.args(BINARIES.iter().flat_map(|binary| ["--package", binary])))
}

/// Runs `cargo test` and counts the ends of the tests from the closing lines it prints.
fn tests(
    project: &Project,
    arguments: &[&str],
    filter: Option<&str>,
    skips: &std::path::Path,
) -> Result<Tally> {
    let mut cargo = project.cargo(&["test", "--locked", "--no-fail-fast"]);
    cargo.args(arguments).args(filter);
    let mut command = apart(&cargo)?;
    command.env("HULL_TEST_SKIPS", skips).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| shown(&command))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{line}");
        tally.add(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("{} failed ({status}) without naming a test", shown(&command));
    }
    Ok(tally)
}

impl Tally {
    /// Adds a closing line of the test harness: `test result: ok. 3 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let mut words = count.split(' ');
            let number = words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                _ => {}
            }
        }
    }
}

/// The same command in mount, network and process namespaces of its own: what a test leaves behind ends with it,
/// and the machine's own mounts, links and firewall cannot be reached. Only root may do so; the tests that need it
/// say so when they are left out.
fn apart(cargo: &Command) -> Result<Command> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("    not root: tests that need it are left out");
        let mut command = Command::new(cargo.get_program());
        command.args(cargo.get_args());
        command.current_dir(cargo.get_current_dir().context("no folder")?);
        return Ok(command);
    }
    let mut command = hull_fixtures::host::apart();
    // The shell stays as the first process, which reaps what tests orphan.
    command.args(["sh", "-c", "ip link set lo up; \"$@\"; exit $?", "sh"]);
    command.arg(cargo.get_program()).args(cargo.get_args());
    command.current_dir(cargo.get_current_dir().context("no folder")?);
    Ok(command)
}

/// Says what was left out and why, and ends with one line that counts.
fn close(tallies: &[Tally], skips: &str) -> Result<()> {
    if !skips.is_empty() {
        println!("\nLeft out on this machine:");
        skips.lines().for_each(|skip| println!("    {skip}"));
    }
    let passed: u32 = tallies.iter().map(|tally| tally.passed).sum();
    let failed: u32 = tallies.iter().map(|tally| tally.failed).sum();
    let skipped = skips.lines().count();
    // A test that leaves itself out returns early, which the harness counts as passed.
    println!(
        "\n{} passed, {failed} failed, {skipped} skipped",
        passed as usize - skipped.min(passed as usize)
    );
    if failed > 0 {
        bail!("{failed} tests failed; the failures are printed above, after each \"failures:\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_others_are_not() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        tally.add("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.add("test tests::it ... ok");
        tally.add("running 3 tests");
        assert_eq!(tally, Tally { passed: 13, failed: 2 });
    }
}
