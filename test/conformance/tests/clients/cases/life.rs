//! From created to removed.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use hull_fixtures::Ran;

use hull_conformance::{
    Ground,
    ground::{LASTING, is_id},
};

pub(crate) fn detached_listed_stopped_removed(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&["--name", "web"])?;
    ensure!(ground.ok(&["ps", "-q", "--no-trunc"])? == id);
    ensure!(ground.inspect("web", "{{.State.Status}} {{.State.Running}}")? == "running true");
    ensure!(ground.ok(&["stop", "web"])? == "web");
    ensure!(ground.inspect("web", "{{.State.Status}} {{.State.ExitCode}}")? == "exited 0");
    ensure!(ground.ok(&["ps", "-q"])?.is_empty());
    ensure!(ground.ok(&["ps", "-aq"])? == id[..12]);
    ensure!(ground.ok(&["rm", &id[..6]])? == id[..6]);
    ensure!(ground.ok(&["ps", "-aq"])?.is_empty());
    ground.refused(&["inspect", "web"], 1, "web")
}

pub(crate) fn create_start_attach(ground: &Ground) -> Result<()> {
    let id = ground.ok(&[
        "create",
        "-i",
        "--name",
        "made",
        "busybox",
        "sh",
        "-c",
        "read x; echo got $x; exit 4",
    ])?;
    ensure!(is_id(&id) && ground.inspect("made", "{{.State.Status}}")? == "created");
    let ran = Ran::with_input(ground.command(&["start", "-a", "-i", "made"]), b"it\n")?;
    ensure!((ran.code, ran.stdout.as_str()) == (4, "got it\n"), "{ran}");
    // Attached to what runs already.
    ground.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "running",
        "busybox",
        "sh",
        "-c",
        "read x; echo got $x; exit 6",
    ])?;
    // The end of its input would end the client's session, output or not: it stays open, as that of a person.
    let mut attached = ground.spawn(&["attach", "running"])?;
    let mut input = attached.stdin.take().context("no input")?;
    input.write_all(b"more\n")?;
    let ran = attached.wait_with_output()?;
    ensure!((ran.status.code(), ran.stdout.as_slice()) == (Some(6), b"got more\n".as_slice()), "{ran:?}");
    drop(input);
    ground.refused(&["attach", "made"], 1, "cannot attach to a stopped container, start it first")
}

pub(crate) fn signals_and_codes(ground: &Ground) -> Result<()> {
    ground.up(
        &["--name", "one"],
        "trap 'echo usr1' USR1; trap 'exit 9' HUP; echo ready; while :; do sleep 1000 & wait; done",
    )?;
    hull_fixtures::wait::until("ready", || {
        ground.ok(&["logs", "one"]).ok().filter(|log| log.contains("ready"))
    })?;
    ground.ok(&["kill", "-s", "USR1", "one"])?;
    hull_fixtures::wait::until("usr1", || {
        ground.ok(&["logs", "one"]).ok().filter(|log| log.contains("usr1"))
    })?;
    ensure!(ground.inspect("one", "{{.State.Running}}")? == "true");
    ground.ok(&["kill", "--signal", "1", "one"])?;
    ground.becomes("one", "{{.State.Status}} {{.State.ExitCode}}", "exited 9")?;
    ground.lasting(&["--name", "two"])?;
    ground.ok(&["kill", "two"])?;
    ground.becomes("two", "{{.State.Status}} {{.State.ExitCode}}", "exited 137")?;
    ground.refused(&["kill", "two"], 1, "is not running")?;
    ground.refused(&["kill", "-s", "NOSUCH", "two"], 1, "NOSUCH")
}

pub(crate) fn stop_kills_after_its_time(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "deaf"], "trap '' TERM; echo ready; while :; do sleep 1000 & wait; done")?;
    hull_fixtures::wait::until("ready", || {
        ground.ok(&["logs", "deaf"]).ok().filter(|log| log.contains("ready"))
    })?;
    ground.ok(&["stop", "-t", "1", "deaf"])?;
    ensure!(ground.inspect("deaf", "{{.State.ExitCode}}")? == "137");
    let script = "trap 'exit 11' USR2; echo ready; while :; do sleep 1000 & wait; done";
    ground.up(&["--name", "other", "--stop-signal", "USR2"], script)?;
    hull_fixtures::wait::until("ready", || {
        ground.ok(&["logs", "other"]).ok().filter(|log| log.contains("ready"))
    })?;
    ground.ok(&["stop", "other"])?;
    ensure!(ground.inspect("other", "{{.State.ExitCode}}")? == "11");
    // Stopping what is stopped is no error.
    ground.ok(&["stop", "other"]).map(drop)
}

pub(crate) fn pause_and_unpause(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "ice"], "i=0; while :; do i=$((i+1)); echo $i > /count; usleep 1000; done")?;
    ensure!(ground.ok(&["pause", "ice"])? == "ice");
    ensure!(ground.inspect("ice", "{{.State.Status}} {{.State.Paused}}")? == "paused true");
    ground.refused(&["exec", "ice", "true"], 1, "is paused")?;
    ground.refused(&["pause", "ice"], 1, "already paused")?;
    ground.ok(&["unpause", "ice"])?;
    ensure!(ground.inspect("ice", "{{.State.Status}}")? == "running");
    let count = || ground.ok(&["exec", "ice", "cat", "/count"]);
    let first = count()?;
    hull_fixtures::wait::until("it to go on", || count().ok().filter(|count| *count != first))?;
    Ok(())
}

pub(crate) fn rename(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "old"])?;
    ground.ok(&["rename", "old", "new"])?;
    ensure!(ground.inspect("new", "{{.Name}}")? == "/new");
    ground.refused(&["inspect", "old"], 1, "old")?;
    ground.lasting(&["--name", "old"])?;
    ground.refused(&["rename", "old", "new"], 1, "already in use")?;
    ground.refused(&["rename", "old", "not a name"], 1, "Invalid container name")
}

pub(crate) fn restart(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "loop"], &format!("echo start; {LASTING}"))?;
    let pid = ground.inspect("loop", "{{.State.Pid}}")?;
    ground.ok(&["restart", "-t", "5", "loop"])?;
    ensure!(ground.inspect("loop", "{{.State.Running}}")? == "true");
    ensure!(ground.inspect("loop", "{{.State.Pid}}")? != pid);
    ground.ok(&["stop", "loop"])?;
    ground.ok(&["start", "loop"])?;
    let starts =
        || ground.ok(&["logs", "loop"]).map(|log| log.lines().filter(|line| *line == "start").count());
    hull_fixtures::wait::until_is("starts in the log", &3, || starts().unwrap_or_default())
}

pub(crate) fn wait_tells_codes(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "one"], "exit 3")?;
    ground.lasting(&["--name", "two"])?;
    let waiting = ground.spawn(&["wait", "one", "two"])?;
    ground.ok(&["kill", "two"])?;
    let output = waiting.wait_with_output()?;
    ensure!(String::from_utf8_lossy(&output.stdout) == "3\n137\n", "{output:?}");
    Ok(())
}

pub(crate) fn names_in_use_are_refused(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&["--name", "one"])?;
    let words = format!("The container name \"/one\" is already in use by container \"{id}\"");
    ground.refused(&["run", "-d", "--name", "one", "busybox", "true"], 125, &words)?;
    ground.refused(&["create", "--name", "-bad", "busybox", "true"], 1, "Invalid container name")?;
    ground.refused(&["create", "--pull", "sometimes", "busybox", "true"], 125, "invalid pull option")?;
    ground.refused(&["create", "-p", "nosuch", "busybox", "true"], 125, "nosuch")?;
    ensure!(ground.ok(&["ps", "-aq"])?.lines().count() == 1, "a refused name left a container");
    Ok(())
}

pub(crate) fn removing_what_runs_is_refused(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "busy"])?;
    ground.refused(&["rm", "busy"], 1, "busy")?;
    ensure!(ground.inspect("busy", "{{.State.Running}}")? == "true");
    ground.ok(&["rm", "-f", "busy"])?;
    // docker's -f is content with what is not there.
    ground.ok(&["rm", "-f", "busy"])?;
    ground.refused(&["rm", "busy"], 1, "No such container: busy")
}

pub(crate) fn restart_policies(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "twice", "--restart", "on-failure:2"], "echo run; exit 5")?;
    ground.becomes("twice", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 2 5")?;
    let runs = ground.ok(&["logs", "twice"])?;
    ensure!(runs == "run\nrun\nrun", "{runs}");
    ground.up(&["--name", "fine", "--restart", "on-failure"], "exit 0")?;
    ground.becomes("fine", "{{.State.Status}} {{.RestartCount}}", "exited 0")?;
    ground.up(
        &["--name", "again", "--restart", "always"],
        "echo run; [ -e /once ] || { touch /once; exit 1; }; exec sleep 1000",
    )?;
    ground.becomes("again", "{{.State.Status}} {{.RestartCount}}", "running 1")?;
    // A stop by hand is not undone.
    ground.ok(&["stop", "-t", "0", "again"])?;
    ensure!(ground.inspect("again", "{{.State.Status}}")? == "exited");
    ground.refused(&["run", "--rm", "--restart", "always", "busybox"], 125, "onflicting options")
}

pub(crate) fn health_checks(ground: &Ground) -> Result<()> {
    let options = [
        "--name",
        "sick",
        "--health-cmd",
        "[ -e /well ] && echo fine",
        "--health-interval",
        "50ms",
        "--health-retries",
        "2",
    ];
    let options = [&options[..], &["--health-start-interval", "50ms"]].concat();
    ground.lasting(&options)?;
    let status = "{{.State.Health.Status}}";
    ground.becomes("sick", status, "unhealthy")?;
    ground.ok(&["exec", "sick", "touch", "/well"])?;
    ground.becomes("sick", status, "healthy")?;
    let last = ground.inspect("sick", "{{(index .State.Health.Log 0).ExitCode}}")?;
    ensure!(last == "0" || last == "1", "{last}");
    ensure!(ground.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"])? == "sick");
    ensure!(ground.ok(&["ps", "--format", "{{.Status}}"])?.ends_with("(healthy)"));
    Ok(())
}
