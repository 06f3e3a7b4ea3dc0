//! A test host with an engine, an image and a client.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{Engine, Ran, TestHost, host::with, image, leaks, place, skip};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Hull's own command.
    Hull,
    /// The docker command line on `PATH`, unmodified.
    Docker,
}

/// What a case stands on.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The machine.
    pub host: &'a TestHost,
    /// Its engine.
    pub engine: &'a Engine<'a>,
    program: PathBuf,
}

/// An id of a container, image or the like, in full.
pub const ID_LENGTH: usize = 64;

impl Ground<'_> {
    /// Runs a case and then looks for what it left.
    ///
    /// # Errors
    /// When the case fails or leaves something behind.
    pub fn with(client: Client, case: impl FnOnce(&Ground) -> Result<()>) -> Result<()> {
        let program = match client {
            Client::Hull => place::program("hull")?,
            Client::Docker => match place::found("docker") {
                Some(program) => program,
                None => {
                    skip("docker", "no docker command is on PATH");
                    return Ok(());
                }
            },
        };
        if !rustix::process::geteuid().is_root() {
            skip("clients", "needs root");
            return Ok(());
        }
        let host = TestHost::new()?;
        let engine = Engine::start(&host, "engine", &[])?;
        let ground = Ground { host: &host, engine: &engine, program };
        let result = ground.prepare().and_then(|()| ground.case(case)).and_then(|()| ground.ends());
        result.with_context(|| engine.log())
    }

    fn prepare(&self) -> Result<()> {
        let archive = self.host.folder().join("busybox.tar");
        image::busybox(&archive)?;
        let archive = archive.to_str().context("path")?;
        self.ok(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", archive, "busybox"])?;
        // What the first container makes, such as the bridge, stays for the next ones.
        self.ok(&["run", "--rm", "busybox", "true"]).map(drop)
    }

    /// The engine stops, and without containers nothing of it stays in the cgroups.
    fn ends(&self) -> Result<()> {
        self.engine.stop()?;
        for parent in self.host.cgroups() {
            let left = std::fs::read_dir(&parent)?.flatten().find(|entry| entry.path().is_dir());
            ensure!(left.is_none(), "the engine's cgroup stayed: {left:?}");
        }
        Ok(())
    }

    fn case(&self, case: impl FnOnce(&Ground) -> Result<()>) -> Result<()> {
        let before = leaks::Snapshot::take(self.host, self.engine)?;
        case(self)?;
        for id in self.ok(&["ps", "-aq"])?.lines() {
            self.ok(&["rm", "-f", "-v", id])?;
        }
        for volume in self.ok(&["volume", "ls", "-q"])?.lines() {
            self.ok(&["volume", "rm", volume])?;
        }
        leaks::none(self.host, self.engine, &before)
    }

    /// A command of the client.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&self.program);
        command.env("DOCKER_HOST", self.engine.address());
        with(command, arguments)
    }

    /// Runs the client.
    ///
    /// # Errors
    /// When the client cannot be run.
    pub fn call(&self, arguments: &[&str]) -> Result<Ran> {
        Ran::new(self.command(arguments))
    }

    /// Runs the client, which must succeed, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.call(arguments)?.ok()
    }

    /// Runs the client, which must fail with `code` and say `words`.
    ///
    /// # Errors
    /// When it succeeds or fails otherwise.
    pub fn refused(&self, arguments: &[&str], code: i32, words: &str) -> Result<()> {
        let ran = self.call(arguments)?;
        ensure!(
            ran.code == code && ran.stderr.contains(words),
            "{ran}\nwanted code {code} and the words: {words}"
        );
        Ok(())
    }

    /// `run --rm` with options and a shell script; gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn sh(&self, options: &[&str], script: &str) -> Result<String> {
        let arguments = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
        self.ok(&arguments)
    }

    /// `run -d` with options and a shell script; gives the id.
    ///
    /// # Errors
    /// When it fails.
    pub fn up(&self, options: &[&str], script: &str) -> Result<String> {
        let arguments = [&["run", "-d"], options, &["busybox", "sh", "-c", script]].concat();
        let id = self.ok(&arguments)?;
        ensure!(is_id(&id), "{id} is no id");
        Ok(id)
    }

    /// A container that lasts until it is told to end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn lasting(&self, options: &[&str]) -> Result<String> {
        self.up(options, LASTING)
    }

    /// `inspect --format`.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn inspect(&self, what: &str, template: &str) -> Result<String> {
        self.ok(&["inspect", "--format", template, what])
    }

    /// Waits until `inspect --format` gives `wanted`.
    ///
    /// # Errors
    /// When it never does.
    pub fn becomes(&self, what: &str, template: &str, wanted: &str) -> Result<()> {
        hull_fixtures::wait::until_is(template, &wanted.to_owned(), || {
            self.inspect(what, template).unwrap_or_default()
        })
    }

    /// A command of the client that goes on while the test does.
    ///
    /// # Errors
    /// When the client cannot be run.
    pub fn spawn(&self, arguments: &[&str]) -> Result<std::process::Child> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("client")
    }

    /// The body of a URL, fetched on the host itself or on its neighbour.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn fetch(&self, from_outside: bool, url: &str) -> Result<String> {
        let busybox = image::busybox_program()?;
        // Its own option for a time limit crashes in the static build.
        let program = busybox.to_str().context("path")?;
        let command = if from_outside { self.host.outside(&busybox) } else { self.host.command(&busybox) };
        Ran::new(with(command, &["timeout", "10", program, "wget", "-q", "-O", "-", url]))?.ok()
    }
}

/// Runs until it is told to end, and then does so at once.
pub const LASTING: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// Whether this is an id in full.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
