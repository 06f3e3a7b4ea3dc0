//! Crashes of the engine at random moments while containers are created, run and removed.
//!
//! `HULL_TEST_KILLS` is the number of kills (12 when not set), `HULL_TEST_SEED` repeats a run.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hull_conformance::{Client, Ground};
use hull_fixtures::wait;

/// Containers that live through all kills.
const LASTING: usize = 10;

/// Names of the containers that come and go.
const CHANGING: usize = 40;

/// Kinds of calls that clients make.
const KINDS: usize = 6;

/// Clients at the same time.
const CLIENTS: usize = 3;

/// A small generator (xorshift): the same seed gives the same moments.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_dies_leaks_or_is_lost() -> Result<()> {
    let kills = number("HULL_TEST_KILLS").unwrap_or(12);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    let seed = number("HULL_TEST_SEED").unwrap_or(now) | 1;
    eprintln!("{kills} kills with HULL_TEST_SEED={seed}");
    Ground::with(Client::Hull, |ground| campaign(ground, kills, seed))
        .with_context(|| format!("HULL_TEST_SEED={seed}"))
}

fn campaign(ground: &Ground, kills: u64, seed: u64) -> Result<()> {
    let lasting = start_lasting(ground)?;
    let over = AtomicBool::new(false);
    let done: [AtomicU32; KINDS] = std::array::from_fn(|_| AtomicU32::new(0));
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, faults, done) = (&over, &faults, &done);
            let calls = Calls::of(ground);
            scope.spawn(move || {
                let mut chance = Chance(seed.wrapping_mul(client as u64 + 3) | 1);
                while !over.load(Ordering::Relaxed) {
                    if let Err(fault) = calls.change(client, &mut chance, done) {
                        faults
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push(format!("{fault:#}"));
                    }
                }
            });
        }
        let result = kill_again_and_again(ground, kills, seed);
        over.store(true, Ordering::Relaxed);
        result
    })?;
    let faults = faults.into_inner().unwrap_or_default();
    ensure!(faults.is_empty(), "{} clients' calls went wrong:\n{}", faults.len(), faults.join("\n"));
    let done = done.map(AtomicU32::into_inner);
    eprintln!("calls that succeeded between the kills, by kind: {done:?}");
    ensure!(done.iter().all(|count| *count > 0), "no call of some kind ever succeeded: {done:?}");
    all_alive(ground, &lasting)?;
    one_state_for_all(ground)?;
    no_volume_is_ownerless(ground)?;
    exits_are_true(ground)?;
    logs_are_whole(ground)
}

/// Containers that count in their logs; by name, the process of each.
fn start_lasting(ground: &Ground) -> Result<BTreeMap<String, String>> {
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done";
    let mut pids = BTreeMap::new();
    for number in 0..LASTING {
        let name = format!("lasting{number}");
        let port = format!("{}:80", 9000 + number);
        ground.up(&["--name", &name, "-p", &port], script)?;
        let pid = ground.inspect(&name, "{{.State.Pid}}")?;
        pids.insert(name, pid);
    }
    Ok(pids)
}

fn kill_again_and_again(ground: &Ground, kills: u64, seed: u64) -> Result<()> {
    let mut chance = Chance(seed);
    for kill in 0..kills {
        // Some kills meet the engine while it starts and reconciles.
        let moment = Duration::from_micros(chance.below(if kill % 4 == 3 { 20_000 } else { 400_000 }));
        std::thread::sleep(moment);
        ground.engine.kill()?;
        ground.engine.spawn()?;
        if kill % 4 != 2 {
            ground
                .engine
                .answers()
                .with_context(|| format!("after kill {kill}, {moment:?} after the start before"))?;
        }
    }
    ground.engine.answers()
}

/// What a client does, in a form that threads can share.
struct Calls {
    program: std::path::PathBuf,
    words: Vec<std::ffi::OsString>,
    address: String,
}

impl Calls {
    fn of(ground: &Ground) -> Self {
        let command = ground.command(&[]);
        Self {
            program: command.get_program().into(),
            words: command.get_args().map(Into::into).collect(),
            address: ground.engine.address(),
        }
    }

    fn call(&self, arguments: &[&str]) -> Result<hull_fixtures::Ran> {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.words).args(arguments).env("DOCKER_HOST", &self.address);
        hull_fixtures::Ran::new(command)
    }

    /// One random change. A call may fail because its engine was killed; it may not hang, and what it says it did is so.
    fn change(&self, client: usize, chance: &mut Chance, done: &[AtomicU32; KINDS]) -> Result<()> {
        // Clients have names of their own, so that only kills and not each other disturb them.
        let name = format!("c{client}-{}", chance.below((CHANGING / CLIENTS) as u64));
        let kind = chance.below(KINDS as u64) as usize;
        let ran = match kind {
            0 => self.call(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])?,
            1 => self.call(&[
                "run", "-d", "--name", &name, "-p", "80", "-v", "/v", "-m", "32m", "busybox", "sh", "-c",
                "exit 3",
            ])?,
            2 => self.call(&["run", "--rm", "busybox", "true"])?,
            3 => self.call(&["create", "--name", &name, "busybox", "true"])?,
            4 => self.call(&["start", &name])?,
            _ => self.call(&["rm", "-f", "-v", &name])?,
        };
        ensure!(!ran.stderr.contains("panicked"), "{ran}");
        if ran.code == 0 {
            done[kind].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn all_alive(ground: &Ground, lasting: &BTreeMap<String, String>) -> Result<()> {
    for (name, pid) in lasting {
        let told = ground.inspect(name, "{{.State.Running}} {{.State.Pid}}")?;
        ensure!(told == format!("true {pid}"), "{name} was running as {pid} and is now: {told}");
        ensure!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{name} died of it");
        let count = || ground.ok(&["logs", name]).map(|log| log.lines().count());
        let before = count()?;
        wait::until("the log to grow", || count().ok().filter(|now| *now > before))?;
        let log = ground.ok(&["logs", name])?;
        ensure!(
            log.lines().zip(1..).all(|(line, number)| line == number.to_string()),
            "{name}: the log has a gap"
        );
    }
    Ok(())
}

/// No container is stuck between two states: each can be inspected, and started or stopped.
fn one_state_for_all(ground: &Ground) -> Result<()> {
    let listed = ground.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"])?;
    for line in listed.lines().filter(|line| !line.starts_with("lasting")) {
        let (name, state) = line.split_once(' ').with_context(|| line.to_owned())?;
        ensure!(["created", "running", "exited"].contains(&state), "{name} is {state} for ever");
        ground.ok(&["restart", "-t", "0", name]).with_context(|| format!("{name} was {state}"))?;
    }
    Ok(())
}

/// Every anonymous volume was made with a container, and every removal of one took it along.
fn no_volume_is_ownerless(ground: &Ground) -> Result<()> {
    let dangling = ground.ok(&["volume", "ls", "-q", "-f", "dangling=true"])?;
    ensure!(dangling.is_empty(), "volumes without a container:\n{dangling}");
    Ok(())
}

/// What a container prints while there is no engine is in its log to the last line, also when it ended meanwhile.
fn logs_are_whole(ground: &Ground) -> Result<()> {
    let id = ground.up(&[], "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exit 4")?;
    ground.engine.kill()?;
    ground.engine.start_again()?;
    ground.becomes(&id, "{{.State.Status}} {{.State.ExitCode}}", "exited 4")?;
    let log = ground.ok(&["logs", &id])?;
    ensure!(
        log.lines().eq((1..=20_000).map(|line| line.to_string())),
        "the log has {} lines",
        log.lines().count()
    );
    Ok(())
}

/// What ended with a code is told with that code, whoever saw it end.
fn exits_are_true(ground: &Ground) -> Result<()> {
    let id = ground.up(&[], "exit 3")?;
    ground.engine.kill()?;
    ground.engine.start_again()?;
    ground.becomes(&id, "{{.State.Status}} {{.State.ExitCode}}", "exited 3")
}
