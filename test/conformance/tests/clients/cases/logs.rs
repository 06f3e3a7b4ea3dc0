//! `logs` and what is kept.

use anyhow::{Context, Result, ensure};
use hull_fixtures::wait;

use hull_conformance::Ground;

fn ended(ground: &Ground, options: &[&str], script: &str) -> Result<String> {
    let id = ground.up(options, script)?;
    ground.ok(&["wait", &id])?;
    Ok(id)
}

pub(crate) fn streams_are_kept_apart(ground: &Ground) -> Result<()> {
    let id = ended(ground, &[], "echo out1; echo err1 >&2; echo out2; printf end")?;
    let ran = ground.call(&["logs", &id])?;
    ensure!(ran.stdout == "out1\nout2\nend" && ran.stderr == "err1\n", "{ran}");
    Ok(())
}

pub(crate) fn tail_and_since(ground: &Ground) -> Result<()> {
    let id = ended(ground, &[], "seq 1 100")?;
    ensure!(ground.ok(&["logs", "--tail", "3", &id])? == "98\n99\n100");
    ensure!(ground.ok(&["logs", "-n", "0", &id])?.is_empty());
    ensure!(ground.ok(&["logs", "--tail", "all", &id])?.lines().count() == 100);
    let stamp = ground.ok(&["logs", "-t", "--tail", "1", &id])?;
    let time = stamp.split(' ').next().context("no time")?;
    ensure!(ground.ok(&["logs", "--since", time, &id])?.ends_with("100"));
    ensure!(ground.ok(&["logs", "--since", "2100-01-01T00:00:00", &id])?.is_empty());
    ensure!(ground.ok(&["logs", "--until", "2000-01-01T00:00:00Z", &id])?.is_empty());
    ensure!(ground.ok(&["logs", "--since", "1h", &id])?.lines().count() == 100);
    Ok(())
}

pub(crate) fn follow_ends_with_the_container(ground: &Ground) -> Result<()> {
    let script = "echo first; while [ ! -e /go ]; do usleep 1000; done; echo last";
    let id = ground.up(&[], script)?;
    wait::until("the first line", || ground.ok(&["logs", &id]).ok().filter(|log| log == "first"))?;
    let following = ground.spawn(&["logs", "-f", &id])?;
    // The container may end, and this with it, before it has told so.
    ground.call(&["exec", &id, "touch", "/go"])?;
    let output = following.wait_with_output()?;
    ensure!(output.stdout == b"first\nlast\n", "{output:?}");
    Ok(())
}

pub(crate) fn time_stamps(ground: &Ground) -> Result<()> {
    let id = ended(ground, &[], "echo it")?;
    let line = ground.ok(&["logs", "--timestamps", &id])?;
    let (time, word) = line.split_once(' ').context("no time")?;
    ensure!(word == "it" && time.len() == 30 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
    Ok(())
}

pub(crate) fn long_lines_and_much_output(ground: &Ground) -> Result<()> {
    // Lines longer than the 16 KiB that one record holds come out in one piece.
    let id = ended(ground, &[], "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end")?;
    let log = ground.ok(&["logs", &id])?;
    ensure!(log.len() == 50000 + 1 + 3 && log.ends_with("x\nend"), "{} bytes", log.len());
    let id = ended(ground, &[], "seq 1 100000")?;
    let log = ground.ok(&["logs", &id])?;
    ensure!(
        log.lines().zip(1..).all(|(line, number)| line == number.to_string()),
        "lines are lost or out of order"
    );
    ensure!(log.lines().count() == 100_000);
    let attached = ground.sh(&[], "seq 1 100000")?;
    ensure!(attached == log, "what an attached client saw is not what was logged");
    Ok(())
}

pub(crate) fn a_driver_that_keeps_nothing(ground: &Ground) -> Result<()> {
    let id = ended(ground, &["--log-driver", "none"], "echo it")?;
    ground.refused(&["logs", &id], 1, "configured logging driver does not support reading")
}

pub(crate) fn rotation(ground: &Ground) -> Result<()> {
    let options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3"];
    let id = ended(ground, &options, "seq 1 5000")?;
    let path = ground.inspect(&id, "{{.LogPath}}")?;
    let size = |suffix: &str| std::fs::metadata(format!("{path}{suffix}")).map(|file| file.len()).ok();
    for suffix in ["", ".1", ".2"] {
        let size = size(suffix).with_context(|| format!("no file {path}{suffix}"))?;
        ensure!(size <= 11_000, "{path}{suffix} has {size} bytes");
    }
    ensure!(size(".3").is_none(), "more files than asked for");
    let kept = ground.ok(&["logs", &id])?;
    ensure!(kept.ends_with("\n4999\n5000") && kept.lines().count() > 100, "{} lines", kept.lines().count());
    let first: usize = kept.lines().next().context("nothing")?.parse()?;
    ensure!(kept.lines().zip(first..).all(|(line, number)| line == number.to_string()), "lines are lost");
    Ok(())
}
