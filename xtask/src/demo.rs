//! A first look for a new user: builds Hull, runs containers, leaves nothing behind.
//!
//! The engine runs on a test host, that is with mounts and a network of its own and a neighbour to be reached from:
//! a machine's addresses, routes and firewall are its owner's, and a look is no reason to change them. The commands
//! are the ones a person would type.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hull_fixtures::{Engine, TestHost, debian, host, image, wait};

use crate::{
    dist,
    project::Project,
    step::{shown, step},
};

/// Packages and the program that each brings.
const PACKAGES: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("iproute2", "ip"), ("util-linux", "unshare")];

/// nginx as a container wants it: its log is its output.
const NGINX_HOOKS: [&str; 2] = [
    "ln -sf /dev/stdout \"$1/var/log/nginx/access.log\"",
    "echo '<h1>Served by nginx in a Hull container</h1>' > \"$1/var/www/html/index.html\"",
];

#[derive(Args)]
pub(crate) struct Options {
    /// Show these binaries instead of building new ones
    #[arg(long)]
    programs: Option<PathBuf>,
}

/// Runs the demonstration.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the demonstration makes namespaces and mounts: run it as root (sudo -E cargo xtask demo)"
    );
    step("packages of the distribution", || debian::install(&PACKAGES))?;
    let programs = match &options.programs {
        Some(programs) => programs.canonicalize().with_context(|| format!("{}", programs.display()))?,
        None => dist::run(project)?,
    };
    let (nginx, busybox) = step("a Debian image with nginx", || {
        Ok((debian::rootfs("nginx", &["nginx-light"], &NGINX_HOOKS)?, image::busybox_program()?))
    })?;
    let host = step("a machine within the machine", TestHost::new)?;
    let engine = step("the engine", || Engine::start_from(&programs, &host, "demo", &[]))?;
    let stage = Stage { engine: &engine };
    first_container(&stage)
        .and_then(|()| web_server(&stage, &host, &nginx, &busybox))
        .with_context(|| engine.log())?;
    drop(engine);
    drop(host);
    what_next();
    Ok(())
}

struct Stage<'a> {
    engine: &'a Engine<'a>,
}

impl Stage<'_> {
    /// Says what comes, then runs `hull` and shows both.
    fn hull(&self, why: &str, arguments: &[&str]) -> Result<()> {
        let quoted = arguments
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() });
        self.show(
            why,
            &format!("hull {}", quoted.collect::<Vec<_>>().join(" ")),
            self.engine.command(arguments),
        )
    }

    fn show(&self, why: &str, typed: &str, mut command: Command) -> Result<()> {
        if !why.is_empty() {
            println!("\n\x1b[2m# {why}\x1b[0m");
        }
        println!("\x1b[1m$ {typed}\x1b[0m");
        std::io::stdout().flush()?;
        let status = command.stdin(Stdio::null()).status().with_context(|| shown(&command))?;
        ensure!(status.success(), "{typed} failed ({status})");
        Ok(())
    }
}

fn first_container(stage: &Stage) -> Result<()> {
    stage.hull(
        "The first container. Its image is made of Hull's own program and needs no network.",
        &["run", "--rm", "hello"],
    )?;
    stage.hull(
        "The same with less: no network, no capabilities, a read-only root, little memory.",
        &[
            "run",
            "--rm",
            "--network",
            "none",
            "--cap-drop",
            "ALL",
            "--read-only",
            "-m",
            "64m",
            "--pids-limit",
            "20",
            "hello",
        ],
    )
}

fn web_server(stage: &Stage, host: &TestHost, nginx: &Path, busybox: &Path) -> Result<()> {
    let archive = nginx.to_str().context("the archive's path")?;
    stage.hull(
        "A real root file system becomes an image.",
        &["import", "-c", "CMD [\"nginx\",\"-g\",\"daemon off;\"]", "-c", "EXPOSE 80", archive, "nginx"],
    )?;
    stage.hull(
        "A server in the background, its port published.",
        &["run", "-d", "--name", "web", "-p", "8080:80", "nginx"],
    )?;
    let url = format!("http://{}:8080/", host::ADDRESS);
    let fetch = |command: Command| host::with(command, &["wget", "-q", "-O", "-", &url]);
    wait::until("nginx to answer", || hull_fixtures::Ran::new(fetch(host.outside(busybox))).ok()?.ok().ok())?;
    stage.show(
        "Fetched by another machine on the network.",
        &format!("wget -q -O - {url}"),
        fetch(host.outside(busybox)),
    )?;
    let local = host::with(host.command(busybox), &["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]);
    stage.show(
        "And on this one, without a proxy in between.",
        "wget -q -O - http://127.0.0.1:8080/",
        local,
    )?;
    stage.hull("What runs:", &["ps"])?;
    stage.hull("What it said:", &["logs", "web"])?;
    stage.hull("A command in it:", &["exec", "web", "sh", "-c", "cat /etc/debian_version; nginx -v"])?;
    stage.hull("What it uses:", &["stats", "--no-stream", "web"])?;
    stage.hull("Stopped and removed:", &["stop", "web"])?;
    stage.hull("", &["rm", "web"])
}

fn what_next() {
    println!(
        "\nNothing of this is left on the machine but target/. What to try next:\n\
         \n    cargo xtask install          hull, hulld and hull-runtime in /usr/local/bin, and systemd units\n    \
         hull run --rm hello          starts its engine by itself when none runs\n    \
         hull run -it IMAGE sh        an image out of a registry, with a terminal\n    \
         DOCKER_HOST=unix:///run/hull/hull.sock docker ps        the docker client, unchanged\n    \
         cargo xtask test             everything that is checked\n    \
         cargo xtask bench            how fast it is beside docker, podman and crun\n"
    );
}
