//! Fuzzing: libFuzzer on the parsers of what comes from outside.
//!
//! The stable compiler can do it: coverage counters are a pass of LLVM, libFuzzer a library.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hull_fixtures::debian;

use crate::{
    project::{Project, TARGET},
    step::{run as command, step},
};

#[derive(Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Leave out the targets of images and registries, which most of the build is for
    #[arg(long)]
    without_images: bool,
    /// Targets (default: all)
    targets: Vec<String>,
}

/// What libFuzzer needs to see which code an input reached (rustc's book, "codegen options").
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Targets that are built without the feature `images`.
const WITHOUT_IMAGES: [&str; 6] = ["config", "documents", "mount_options", "reference", "seccomp", "users"];

/// Builds all targets and runs those that are asked for, one after another.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    // libFuzzer is C++; the seccomp target compares with libseccomp.
    debian::install(&[("g++", "g++")])?;
    if !std::path::Path::new("/usr/include/seccomp.h").exists() {
        debian::install(&[("libseccomp-dev", "libseccomp-dev")])?;
    }
    let fuzz = project.path("fuzz");
    step("build the fuzz targets", || {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--release", "--locked", "--bins", "--target", TARGET]).current_dir(&fuzz);
        build.args(options.without_images.then_some("--no-default-features"));
        build.env("CARGO_TARGET_DIR", fuzz.join("target")).env("RUSTFLAGS", COVERAGE.join(" "));
        command(&mut build)
    })?;
    let mut known = targets(&fuzz)?;
    if options.without_images {
        // What an earlier build left of the others may be old.
        known.retain(|name| WITHOUT_IMAGES.contains(&name.as_str()));
    }
    for wanted in &options.targets {
        ensure!(known.contains(wanted), "no fuzz target {wanted:?}; there are {}", known.join(", "));
    }
    let wanted = if options.targets.is_empty() { &known } else { &options.targets };
    for target in wanted {
        step(&format!("fuzz {target} for {} s", options.seconds), || one(&fuzz, target, options.seconds))?;
    }
    Ok(())
}

fn targets(fuzz: &std::path::Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(fuzz.join("fuzz_targets")).context("fuzz_targets")?.flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// An input that fails is kept in `fuzz/artifacts/<target>`; giving it to the program as its argument repeats it.
fn one(fuzz: &std::path::Path, target: &str, seconds: u32) -> Result<()> {
    let (corpus, found) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let program = fuzz.join("target").join(TARGET).join("release").join(target);
    let mut fuzzer = Command::new(program);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", found.display()));
    fuzzer.args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"]).arg(corpus);
    let seeds = fuzz.join("seeds").join(target);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    let dictionary = fuzz.join("seeds").join(format!("{target}.dict"));
    if dictionary.is_file() {
        fuzzer.arg(format!("-dict={}", dictionary.display()));
    }
    command(&mut fuzzer)
}
