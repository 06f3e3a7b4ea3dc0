//! Containers and the engine's own life.

use anyhow::{Result, ensure};
use hull_fixtures::wait;

use hull_conformance::Ground;

const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo $i; usleep 2000; done";

/// The log counts up without a gap.
fn counts_up(ground: &Ground, container: &str) -> Result<usize> {
    let log = ground.ok(&["logs", container])?;
    ensure!(log.lines().zip(1..).all(|(line, number)| line == number.to_string()), "lines are lost");
    Ok(log.lines().count())
}

fn goes_on(ground: &Ground, container: &str) -> Result<()> {
    let count = counts_up(ground, container)?;
    wait::until("more lines", || counts_up(ground, container).ok().filter(|now| *now > count)).map(drop)
}

pub(crate) fn containers_outlive_a_stop(ground: &Ground) -> Result<()> {
    outlive(ground, || ground.engine.stop())
}

pub(crate) fn containers_outlive_a_crash(ground: &Ground) -> Result<()> {
    outlive(ground, || ground.engine.kill())
}

fn outlive(ground: &Ground, ends: impl Fn() -> Result<()>) -> Result<()> {
    ground.up(&["--name", "box", "-p", "8080:80"], COUNTING)?;
    let pid = ground.inspect("box", "{{.State.Pid}}")?;
    let attached = ground.spawn(&[
        "run",
        "-i",
        "--name",
        "attached",
        "busybox",
        "sh",
        "-c",
        "read x; echo got $x; exit 5",
    ])?;
    ground.becomes("attached", "{{.State.Running}}", "true")?;
    ends()?;
    ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container died with the engine");
    ground.engine.start_again()?;
    ensure!(ground.inspect("box", "{{.State.Running}} {{.State.Pid}}")? == format!("true {pid}"));
    goes_on(ground, "box")?;
    ensure!(ground.ok(&["exec", "box", "echo", "in"])? == "in");
    ensure!(ground.ok(&["port", "box", "80"])?.starts_with("0.0.0.0:8080"));
    let given = ground.up(&["--name", "next"], "exit 0").and_then(|id| ground.ok(&["wait", &id]))?;
    ensure!(given == "0", "{given}");
    drop(attached);
    ground.ok(&["kill", "box"])?;
    ground.becomes("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 137")
}

pub(crate) fn an_exit_while_no_engine_runs_is_known(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "box"], "echo a; while [ ! -e /go ]; do usleep 1000; done; echo b; exit 42")?;
    ground.up(&["--name", "killed"], COUNTING)?;
    let pid = ground.inspect("box", "{{.State.Pid}}")?;
    let killed = ground.inspect("killed", "{{.State.Pid}}")?;
    ground.engine.kill()?;
    ground.host.sh(&format!("touch /proc/{pid}/root/go; kill -9 {killed}"))?;
    for pid in [&pid, &killed] {
        let place = format!("/proc/{pid}");
        wait::until("the process to end", || (!std::path::Path::new(&place).exists()).then_some(()))?;
    }
    ground.engine.start_again()?;
    ground.becomes("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 42")?;
    ground.becomes("killed", "{{.State.Status}} {{.State.ExitCode}}", "exited 137")?;
    ensure!(ground.ok(&["logs", "box"])? == "a\nb");
    counts_up(ground, "killed").map(drop)
}

pub(crate) fn everything_is_taken_away(ground: &Ground) -> Result<()> {
    for name in ["one", "two", "box"] {
        ground.lasting(&["--name", name, "-p", "80", "-v", "/anonymous", "-m", "32m", "--tmpfs", "/t"])?;
    }
    ground.ok(&["exec", "-d", "one", "sleep", "1000"])?;
    ground.ok(&["pause", "two"])?;
    ground.ok(&["stop", "-t", "0", "box"])?;
    // That nothing stays is looked at after every case.
    ground.ok(&["rm", "-f", "-v", "one", "two", "box"]).map(drop)
}
