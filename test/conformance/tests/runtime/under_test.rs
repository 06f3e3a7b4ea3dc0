//! A runtime's program and what can be asked of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{Ran, TestHost, debian, host::with, place, wait};
use serde_json::Value;

use crate::bundle::Bundle;

/// A runtime on a test host of its own.
pub(crate) struct Runtime {
    name: String,
    program: PathBuf,
    libraries: Option<PathBuf>,
    pub(crate) host: TestHost,
}

/// Environment variable: another program to test in place of Hull's own.
const OTHER: &str = "HULL_TEST_RUNTIME";

impl Runtime {
    /// The runtime of this name; the inner error says why it cannot run here.
    pub(crate) fn named(name: &str) -> Result<Result<Self, String>> {
        let lacking =
            |package: &str| format!("the package {package} was not fetched (cargo xtask test does)");
        let mut libraries = None;
        let program = match name {
            "hull" => match std::env::var_os(OTHER) {
                Some(other) => PathBuf::from(other),
                None => place::program("hull-runtime")?,
            },
            "runc" => match debian::cached("runc", "usr/sbin/runc") {
                Some(program) => program,
                None => return Ok(Err(lacking("runc"))),
            },
            _ => {
                let library = debian::cached("libyajl2", "usr/lib/x86_64-linux-gnu/libyajl.so.2");
                libraries = library.and_then(|library| library.parent().map(Path::to_path_buf));
                match debian::cached("crun", "usr/bin/crun") {
                    Some(program) => program,
                    None => return Ok(Err(lacking("crun"))),
                }
            }
        };
        let host = TestHost::new()?;
        let runtime = Self { name: name.to_owned(), program, libraries, host };
        if runtime.is_own() {
            return Ok(Ok(runtime));
        }
        // Old versions refuse some arrangements of cgroups, or lack a library.
        let probe = runtime.run(&Bundle::new(&runtime)?)?;
        Ok(if probe.code == 0 {
            Ok(runtime)
        } else {
            Err(format!("it runs no container here: {}", probe.stderr.trim()))
        })
    }

    /// Whether this is Hull's own, whose exact words are checked too.
    pub(crate) fn is_own(&self) -> bool {
        self.name == "hull"
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.program, arguments)
    }

    /// The words of a command line, for a shell on the host.
    pub(crate) fn words(&self, arguments: &[&str]) -> Vec<String> {
        let state = self.host.folder().join("state");
        let own = [self.program.display().to_string(), "--root".to_owned(), state.display().to_string()];
        own.into_iter().chain(arguments.iter().map(|word| (*word).to_owned())).collect()
    }

    /// A copy of the program, which a case may come to harm.
    pub(crate) fn copy_of_program(&self) -> Result<PathBuf> {
        let copy = self.host.folder().join("runtime-copy");
        fs::copy(&self.program, &copy).context("copy the program")?;
        Ok(copy)
    }

    /// [`Self::command`] with another file as the program.
    pub(crate) fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.host.command(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.arg("--root").arg(self.host.folder().join("state"));
        with(command, arguments)
    }

    /// Runs the program with `arguments`.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Ran> {
        Ran::new(self.command(arguments))
    }

    /// Creates, starts, waits and deletes.
    pub(crate) fn run(&self, bundle: &Bundle) -> Result<Ran> {
        self.call(&["run", "--bundle", bundle.path(), bundle.id()])
    }

    /// `create`. The container's output goes to files of the bundle: it would hold a pipe open for as long as it
    /// lives.
    pub(crate) fn create(&self, bundle: &Bundle) -> Result<()> {
        self.create_with(bundle, &[])
    }

    /// `create` with more options.
    pub(crate) fn create_with(&self, bundle: &Bundle, options: &[&str]) -> Result<()> {
        let open = |name: &str| fs::File::create(bundle.folder().join(name));
        let mut command = self.command(&["create", "--bundle", bundle.path()]);
        command.args(options).arg(bundle.id());
        command.stdin(Stdio::null()).stdout(open("stdout")?).stderr(open("stderr")?);
        let status = command.status().context("create")?;
        ensure!(status.success(), "create failed: {}", bundle.said("stderr"));
        Ok(())
    }

    /// `start`.
    pub(crate) fn start(&self, bundle: &Bundle) -> Result<()> {
        self.call(&["start", bundle.id()])?.ok().map(drop)
    }

    /// `create` and `start`.
    pub(crate) fn up(&self, bundle: &Bundle) -> Result<()> {
        self.create(bundle)?;
        self.start(bundle)
    }

    /// `delete --force`.
    pub(crate) fn remove(&self, bundle: &Bundle) -> Result<()> {
        self.call(&["delete", "--force", bundle.id()])?.ok().map(drop)
    }

    /// `state`, or nothing when there is no such container.
    pub(crate) fn state(&self, bundle: &Bundle) -> Option<Value> {
        let state = self.call(&["state", bundle.id()]).ok()?.ok().ok()?;
        serde_json::from_str(&state).ok()
    }

    /// The `status` of `state`.
    pub(crate) fn status(&self, bundle: &Bundle) -> Option<String> {
        Some(self.state(bundle)?["status"].as_str()?.to_owned())
    }

    /// Waits for a `status`.
    pub(crate) fn becomes(&self, bundle: &Bundle, status: &str) -> Result<()> {
        wait::until_is("status", &Some(status.to_owned()), || self.status(bundle))
    }

    /// The container's first process, on the machine.
    pub(crate) fn pid(&self, bundle: &Bundle) -> Result<u64> {
        self.state(bundle).and_then(|state| state["pid"].as_u64()).context("no pid in the state")
    }

    /// The words of one run of a shell script in a new container made by `change`.
    pub(crate) fn sh(&self, script: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
        let mut bundle = Bundle::new(self)?;
        bundle.change(|spec| {
            spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
            change(spec);
        })?;
        self.run(&bundle)?.ok()
    }
}
