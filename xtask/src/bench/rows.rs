//! The measurements.

use std::{
    fs::{self, File},
    io::Write,
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Options,
    bundle::{Bundle, crun},
    engines::{Engine, IMAGE, quietly},
    pulls, room,
    sample::{Figure, Turn, in_turns},
};

/// The file of figures, one JSON object a line; the first line tells versions.
pub(super) const RESULTS: &str = "results.jsonl";

/// Containers of the measurements that start many.
const MANY: usize = 50;

/// Containers that `ps -a` lists.
const LISTED: usize = 300;

/// Two hundred million bytes of ordinary lines.
const LOG: &str = "yes 'the quick brown fox jumps over the lazy dog and then writes one more line to the log' | \
                   head -c 200000000";

/// The engines, and what every row needs.
pub(super) struct Bench {
    /// Samples of each short measurement.
    pub(super) samples: usize,
    pub(super) archive: String,
    pub(super) hull: Engine,
    pub(super) docker: Engine,
    pub(super) podman: Engine,
    results: File,
}

/// A measurement by its name.
type Row = (&'static str, fn(&mut Bench) -> Result<()>);

/// Takes every measurement that was asked for.
pub(super) fn measure(options: &Options) -> Result<()> {
    let mut bench = Bench::prepare(options)?;
    let rows: [Row; 9] = [
        ("idle memory", Bench::idle_memory),
        ("run none", Bench::run_none),
        ("run bridge", Bench::run_bridge),
        ("exec", Bench::exec),
        ("many", Bench::many),
        ("log", Bench::log),
        ("ps", Bench::ps),
        ("pull slim, pull big, rmi big", Bench::pulls),
        ("images", Bench::images),
    ];
    for (name, row) in rows {
        if options.rows.is_empty() || options.rows.iter().any(|wanted| name.contains(wanted.as_str())) {
            row(&mut bench).with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

impl Bench {
    fn prepare(options: &Options) -> Result<Self> {
        let archive = format!("{}/busybox.tar", room::RESULTS);
        let (hull, docker, podman) = (Engine::hull()?, Engine::docker()?, Engine::podman()?);
        let mut results = File::create(format!("{}/{RESULTS}", room::RESULTS))?;
        let crun = crun(&["--version"]).output()?;
        let crun = String::from_utf8_lossy(&crun.stdout).lines().next().unwrap_or_default().to_owned();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let versions = serde_json::json!({
            "docker": docker.version(), "podman": podman.version(), "crun": crun, "hull": hull.version(),
            "kernel": kernel.trim(), "processors": std::thread::available_parallelism()?, "samples": options.samples,
        });
        writeln!(results, "{versions}")?;
        Ok(Self { samples: options.samples, archive, hull, docker, podman, results })
    }

    pub(super) fn engines(&self) -> [&Engine; 3] {
        [&self.hull, &self.docker, &self.podman]
    }

    pub(super) fn import(&self) -> Result<()> {
        self.engines().into_iter().try_for_each(|engine| engine.import(&self.archive))
    }

    pub(super) fn keep(&mut self, figures: Vec<Figure>) -> Result<()> {
        for figure in figures {
            eprintln!(
                "    {:<28}{:<8}{:>10.1} {:<4} ({:.1} to {:.1}, the rest of the machine used {:.2} processors)",
                figure.row,
                figure.engine,
                figure.median,
                figure.unit,
                figure.min,
                figure.max,
                figure.other_load
            );
            writeln!(self.results, "{}", serde_json::to_string(&figure)?)?;
        }
        Ok(())
    }

    /// Memory of engines that were just started and have answered once.
    fn idle_memory(&mut self) -> Result<()> {
        let figure = |engine: &Engine| {
            Figure::new("idle memory", engine.name, "KiB", vec![engine.memory() as f64], &[])
        };
        let figures = vec![figure(&self.hull), figure(&self.docker)];
        self.keep(figures)
    }

    fn run_none(&mut self) -> Result<()> {
        self.import()?;
        let bundle = Bundle::new(&self.docker, &self.archive, "true", &["true"])?;
        let run = |engine: &Engine| engine.call(&["run", "--rm", "--network", "none", IMAGE, "true"]);
        let turns = [
            Turn::new("hull", || run(&self.hull)),
            Turn::new("crun", || bundle.run()),
            Turn::new("docker", || run(&self.docker)),
            Turn::new("podman", || run(&self.podman)),
        ];
        let figures = in_turns("run --network none", &turns, self.samples, 3)?;
        drop(turns);
        self.keep(figures)
    }

    fn run_bridge(&mut self) -> Result<()> {
        self.import()?;
        let run = |engine: &Engine| engine.call(&["run", "--rm", IMAGE, "true"]);
        let turns = self.engines().map(|engine| Turn::new(engine.name, move || run(engine)));
        let figures = in_turns("run", &turns, self.samples, 3)?;
        drop(turns);
        self.keep(figures)
    }

    fn exec(&mut self) -> Result<()> {
        self.import()?;
        let name = "bench-exec";
        let up = ["run", "-d", "--name", name, "--network", "none", IMAGE, "sleep", "100000"];
        self.engines().into_iter().try_for_each(|engine| engine.call(&up))?;
        let bundle = Bundle::new(&self.docker, &self.archive, "sleep", &["sleep", "100000"])?;
        bundle.start()?;
        let exec = |engine: &Engine| engine.call(&["exec", name, "true"]);
        let turns = [
            Turn::new("hull", || exec(&self.hull)),
            Turn::new("crun", || bundle.exec()),
            Turn::new("docker", || exec(&self.docker)),
            Turn::new("podman", || exec(&self.podman)),
        ];
        let figures = in_turns("exec", &turns, self.samples, 3)?;
        drop(turns);
        self.engines().into_iter().try_for_each(|engine| engine.remove(&[name.to_owned()]))?;
        self.keep(figures)
    }

    /// Fifty containers on the default network, one after another, then removed by one command; and the memory that
    /// each needs beside its own processes.
    fn many(&mut self) -> Result<()> {
        self.import()?;
        let names: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
        let rounds = self.samples.div_ceil(5).max(1);
        let mut figures = Vec::new();
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut removals = [Vec::new(), Vec::new(), Vec::new()];
        let mut memory = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..rounds {
            eprintln!("    {MANY} containers: round {} of {rounds}", round + 1);
            for (index, engine) in self.engines().into_iter().enumerate() {
                let before = engine.memory();
                let start =
                    |name: &String| engine.call(&["run", "-d", "--name", name, IMAGE, "sleep", "100000"]);
                let begun = std::time::Instant::now();
                names.iter().try_for_each(start)?;
                times[index].push(begun.elapsed().as_secs_f64() * 1e3);
                let after = engine.memory();
                memory[index].push((after as f64 - before as f64) / MANY as f64);
                let begun = std::time::Instant::now();
                engine.remove(&names)?;
                removals[index].push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        for (index, engine) in self.engines().into_iter().enumerate() {
            let figure = |row: &str, unit: &str, samples: &[Vec<f64>]| {
                Figure::new(row, engine.name, unit, samples[index].clone(), &[])
            };
            figures.push(figure("start 50", "ms", &times));
            figures.push(figure("remove 50", "ms", &removals));
            figures.push(figure("memory per container", "KiB", &memory));
        }
        self.keep(figures)
    }

    fn log(&mut self) -> Result<()> {
        self.import()?;
        let name = "bench-log";
        let logged = |engine: &Engine| {
            engine.call(&["run", "-d", "--name", name, "--network", "none", IMAGE, "sh", "-c", LOG])?;
            engine.call(&["wait", name])
        };
        let file = "/var/tmp/bench-log";
        let mut turns: Vec<Turn> = Vec::new();
        for engine in self.engines() {
            turns.push(
                Turn::new(engine.name, move || logged(engine))
                    .then(move || engine.remove(&[name.to_owned()])),
            );
        }
        turns.push(Turn::new("sh", move || {
            // The image's programs, not the room's: they are what the engines wait for.
            let own = LOG.replace("yes ", "busybox yes ").replace("head ", "busybox head ");
            let script = format!("{own} | cat > {file}");
            quietly(hull_fixtures::host::with(Command::new("sh"), &["-c", &script]))
        }));
        let figures = in_turns("log of 200 MB", &turns, self.samples.div_ceil(5).max(1), 0)?;
        drop(turns);
        let _ = fs::remove_file(file);
        self.keep(figures)
    }

    fn pulls(&mut self) -> Result<()> {
        let figures = pulls::measure(self.engines(), &self.docker, self.samples)?;
        self.keep(figures)
    }

    fn ps(&mut self) -> Result<()> {
        self.import()?;
        let names: Vec<String> = (0..LISTED).map(|number| format!("listed{number}")).collect();
        for engine in self.engines() {
            eprintln!("    {LISTED} containers for {}", engine.name);
            let create =
                |name: &String| engine.call(&["create", "--name", name, "--network", "none", IMAGE, "true"]);
            names.iter().try_for_each(create)?;
        }
        let turns = self.engines().map(|engine| Turn::new(engine.name, move || engine.call(&["ps", "-a"])));
        let figures = in_turns("ps -a of 300", &turns, self.samples, 2)?;
        drop(turns);
        self.engines().into_iter().try_for_each(|engine| engine.remove(&names))?;
        self.keep(figures)
    }
}
