//! How fast and how small Hull is, beside docker, podman and bare crun, sampled in turns in one run.
//!
//! Everything happens in a room of its own ([`room`]): a Debian root with the peers, own mounts, network, processes
//! and cgroups. Peers and Hull run the same image, made of the same archive.

mod bundle;
mod engines;
mod images;
mod memory;
mod pulls;
pub(crate) mod registry;
mod report;
mod room;
mod rows;
mod runtimes;
mod sample;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hull_fixtures::{debian, image, place};

use crate::{dist, project::Project, step::step};

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Measure only rows whose name contains one of these; `runtime`: the runtime's command beside others
    rows: Vec<String>,
    /// Samples of each short measurement
    #[arg(long, default_value_t = 15)]
    samples: usize,
    /// Do not write the table into docs/performance.md
    #[arg(long)]
    no_write: bool,
    /// Measure these binaries instead of building new ones
    #[arg(long)]
    programs: Option<PathBuf>,
}

impl Options {
    /// Whether the runtime's command is measured, not the engines.
    fn of_runtimes(&self) -> bool {
        self.rows == [runtimes::ROW]
    }
}

/// Makes the room when it is missing, measures in it, and reports.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "measuring needs root, for namespaces and the peers");
    let needed = [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip"), ("util-linux", "unshare")];
    step("packages of the distribution", || debian::install(&needed))?;
    let programs = match &options.programs {
        Some(programs) => programs.canonicalize().with_context(|| format!("{}", programs.display()))?,
        None => dist::run(project)?,
    };
    let root = place::peers();
    step("a Debian root with the peers", || room::make_root(&root))?;

    let results = project.target().join("bench");
    std::fs::create_dir_all(&results)?;
    let archive = results.join("busybox.tar");
    image::busybox_program()?;
    image::busybox(&archive)?;
    step("measurements", || room::measure(&root, &programs, &results, options))?;

    if options.of_runtimes() {
        return tell_of_runtimes(project, &results, options);
    }
    let report = report::Report::read(&results.join(rows::RESULTS))?;
    println!("\n{}", report.table());
    if !options.no_write {
        let page = project.path("docs/performance.md");
        report.write_into(&page)?;
        println!("written into {}", page.display());
    }
    println!("every sample: {}", results.join(rows::RESULTS).display());
    Ok(())
}

fn tell_of_runtimes(project: &Project, results: &std::path::Path, options: &Options) -> Result<()> {
    let file = results.join(runtimes::RESULTS);
    let report = report::Report::read(&file)?;
    println!("\n{}", runtimes::table(&report));
    if !options.no_write {
        let page = project.path("docs/performance.md");
        runtimes::write_into(&report, &page)?;
        println!("written into {}", page.display());
    }
    println!("every sample: {}", file.display());
    Ok(())
}

/// What runs in the room; `xtask` calls itself there.
pub(crate) fn inside(options: &Options) -> Result<()> {
    if options.of_runtimes() { runtimes::measure(options) } else { rows::measure(options) }
}
