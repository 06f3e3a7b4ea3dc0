//! `exec`.

use anyhow::{Result, ensure};
use hull_fixtures::{Ran, wait};

use hull_conformance::Ground;

pub(crate) fn output_and_codes(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    let ran = ground.call(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 8"])?;
    ensure!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()) == (8, "out\n", "err\n"), "{ran}");
    let said = |ran: &Ran, words: &str| ran.stderr.contains(words) || ran.stdout.contains(words);
    let missing = ground.call(&["exec", "box", "nosuch"])?;
    ensure!(missing.code == 127 && said(&missing, "executable file not found in $PATH"), "{missing}");
    let plain = ground.call(&["exec", "box", "/etc/passwd"])?;
    ensure!(plain.code == 126 && said(&plain, "permission denied"), "{plain}");
    let killed = ground.call(&["exec", "box", "sh", "-c", "kill -9 $$"])?;
    ensure!(killed.code == 137, "{killed}");
    ground.refused(&["exec", "nosuch", "true"], 1, "No such container: nosuch")?;
    ground.ok(&["stop", "-t", "0", "box"])?;
    ground.refused(&["exec", "box", "true"], 1, "is not running")
}

pub(crate) fn environment_user_and_folder(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box", "-e", "A=1", "-w", "/tmp"])?;
    let said = ground.ok(&["exec", "box", "sh", "-c", "echo $A $B; pwd; id -u"])?;
    ensure!(said == "1\n/tmp\n0", "{said}");
    let said = ground.ok(&[
        "exec",
        "-e",
        "B=2",
        "-w",
        "/etc",
        "-u",
        "user",
        "box",
        "sh",
        "-c",
        "echo $A $B; pwd; id -u; id -g; grep ^CapEff /proc/self/status",
    ])?;
    ensure!(said == "1 2\n/etc\n1000\n1001\nCapEff:\t0000000000000000", "{said}");
    let privileged = ground.ok(&["exec", "--privileged", "box", "grep", "^CapEff", "/proc/self/status"])?;
    ensure!(!privileged.contains("a80425fb"), "{privileged}");
    Ok(())
}

pub(crate) fn input_and_terminal(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    let input = vec![b'x'; 1 << 20];
    let counted = Ran::with_input(ground.command(&["exec", "-i", "box", "wc", "-c"]), &input)?.ok()?;
    ensure!(counted.trim() == "1048576", "{counted}");
    let said = ground.call(&["exec", "-t", "box", "sh", "-c", "tty; exit 2"])?;
    ensure!(
        (said.code, said.stdout.starts_with("/dev/pts/"), said.stdout.ends_with("\r\n")) == (2, true, true),
        "{said}"
    );
    Ok(())
}

pub(crate) fn detached(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    ensure!(ground.ok(&["exec", "-d", "box", "sh", "-c", "touch /done; exec sleep 1000"])?.is_empty());
    wait::until("the exec to run", || ground.ok(&["exec", "box", "ls", "/done"]).ok())?;
    let processes = ground.ok(&["top", "box"])?;
    ensure!(processes.contains("sleep 1000"), "{processes}");
    Ok(())
}
