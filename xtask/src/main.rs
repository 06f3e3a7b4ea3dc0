//! Project tasks: demo, test, dist, install, bench, checks.
//!
//! `cargo xtask` lists them. Each prints the steps it takes while it takes them.

mod bench;
mod check;
mod demo;
mod dist;
mod fuzz;
mod install;
mod project;
mod step;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use project::Project;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Hull's project tasks", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build Hull and run containers with it: start here
    Demo(demo::Options),
    /// Format, lints, layers of crates, unsafe code and documentation
    Check,
    /// Everything that continuous integration runs: check, unit tests, suites as root in private namespaces
    Test(test::Options),
    /// Build the static release binaries into target/dist
    Dist,
    /// The engine on cgroup v2 and an older kernel, in an emulated machine
    Vm(vm::Options),
    /// Fuzz the parsers of what comes from outside
    Fuzz(fuzz::Options),
    /// Put binaries and systemd units in place
    Install(install::Options),
    /// Measure Hull beside docker, podman and bare crun
    Bench(bench::Options),
    /// Measure the registry beside docker's
    BenchRegistry(bench::registry::Options),
    /// What `bench` runs in its room
    #[command(hide = true)]
    BenchInside(bench::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    if let Task::BenchInside(options) = &task {
        return bench::inside(options);
    }
    let project = Project::locate()?;
    match task {
        Task::Demo(options) => demo::run(&project, &options),
        Task::Check => check::run(&project),
        Task::Test(options) => test::run(&project, &options),
        Task::Dist => dist::run(&project).map(drop),
        Task::Vm(options) => vm::run_task(&project, &options),
        Task::Fuzz(options) => fuzz::run(&project, &options),
        Task::Install(options) => install::run(&project, &options),
        Task::BenchRegistry(options) => bench::registry::run(&project, &options),
        Task::Bench(options) | Task::BenchInside(options) => bench::run(&project, &options),
    }
}
