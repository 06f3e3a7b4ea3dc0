//! The engines and how they are asked.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::wait;

use super::{memory, room};

const HULL_SOCKET: &str = "unix:///run/hull-bench.sock";
const HULL_DATA: &str = "/var/lib/hull-bench";

/// An engine with a docker-like command line.
pub(super) struct Engine {
    pub(super) name: &'static str,
    program: String,
    environment: Vec<(&'static str, String)>,
    /// Names of the processes that are the engine's and not the containers'.
    pub(super) own: &'static [&'static str],
    daemon: Option<Child>,
}

impl Engine {
    /// Hull, with its engine started anew.
    pub(super) fn hull() -> Result<Self> {
        let mut daemon = Command::new(format!("{}/hulld", room::PROGRAMS));
        daemon.args(["-H", HULL_SOCKET, "--data-root", HULL_DATA, "--exec-root", "/run/hull-bench"]);
        daemon.args(["--pidfile", "/run/hull-bench.pid"]);
        let engine = Self {
            name: "hull",
            program: format!("{}/hull", room::PROGRAMS),
            environment: vec![("DOCKER_HOST", HULL_SOCKET.to_owned())],
            own: &["hulld", "hull-runtime", "hull-monitor"],
            daemon: Some(started(daemon, "hulld")?),
        };
        engine.answers()?;
        Ok(engine)
    }

    /// docker, with dockerd and its containerd started anew.
    pub(super) fn docker() -> Result<Self> {
        let daemon = started(Command::new("dockerd"), "dockerd")?;
        let engine = Self {
            name: "docker",
            program: "docker".to_owned(),
            environment: Vec::new(),
            own: &["dockerd", "containerd", "containerd-shim", "docker-proxy", "docker-init"],
            daemon: Some(daemon),
        };
        engine.answers()?;
        Ok(engine)
    }

    /// podman, which has no daemon.
    pub(super) fn podman() -> Result<Self> {
        // The machine may not allow more open files than a root without CAP_SYS_RESOURCE has.
        let settings = "/run/containers.conf";
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 20);
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile={limit}:{limit}\"]\n[engine]\nevents_logger = \"file\"\n"
        );
        fs::write(settings, text)?;
        let ignore = ("PODMAN_IGNORE_CGROUPSV1_WARNING", "1".to_owned());
        Ok(Self {
            name: "podman",
            program: "podman".to_owned(),
            environment: vec![ignore, ("CONTAINERS_CONF", settings.to_owned())],
            own: &["podman", "conmon", "netavark", "aardvark-dns"],
            daemon: None,
        })
    }

    fn answers(&self) -> Result<()> {
        wait::until(self.name, || self.try_ok(&["version"]).ok()).with_context(|| log(self.name)).map(drop)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the client without looking at its output, as a script would.
    pub(super) fn call(&self, arguments: &[&str]) -> Result<()> {
        quietly(self.command(arguments))
    }

    fn try_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs the client and gives what it printed.
    pub(super) fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.try_ok(arguments).with_context(|| arguments.join(" "))
    }

    /// Makes the image known under the name `busybox`.
    pub(super) fn import(&self, archive: &str) -> Result<()> {
        self.ok(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", archive, IMAGE]).map(drop)
    }

    /// `rm -f` of containers, with no time given to them.
    pub(super) fn remove(&self, names: &[String]) -> Result<()> {
        let mut arguments = vec!["rm", "-f"];
        if self.name == "podman" {
            arguments.extend(["-t", "0"]);
        }
        arguments.extend(names.iter().map(String::as_str));
        self.call(&arguments)
    }

    /// Proportional memory of the engine's own processes in KiB.
    pub(super) fn memory(&self) -> u64 {
        memory::pss(self.own)
    }

    pub(super) fn version(&self) -> String {
        let version = match self.name {
            "podman" => self.ok(&["version", "--format", "{{.Client.Version}}"]),
            _ => self.ok(&["version", "--format", "{{.Server.Version}}"]),
        };
        version.unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The image of every measurement. docker.io is podman's default too, but must be named.
pub(super) const IMAGE: &str = "docker.io/library/busybox:latest";

fn log_place(name: &str) -> String {
    format!("{}/{name}.log", room::RESULTS)
}

fn log(name: &str) -> String {
    let name = if name == "hull" { "hulld" } else { "dockerd" };
    fs::read_to_string(log_place(name)).unwrap_or_default()
}

fn started(mut daemon: Command, name: &str) -> Result<Child> {
    let log = fs::File::create(Path::new(&log_place(name)))?;
    daemon.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    daemon.spawn().with_context(|| name.to_owned())
}

/// Runs a command with its output thrown away; what it says about a failure is kept.
pub(super) fn quietly(mut command: Command) -> Result<()> {
    let mut said = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        let mut text = String::new();
        std::io::Seek::rewind(&mut said)?;
        std::io::Read::read_to_string(&mut said, &mut text)?;
        anyhow::bail!("{command:?} failed ({status}): {text}");
    }
    Ok(())
}
