//! Samples taken in turns, and what they say.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Samples of one measurement on one engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) row: String,
    pub(super) engine: String,
    pub(super) unit: String,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Processors that the rest of the machine used meanwhile, median.
    pub(super) other_load: f64,
    pub(super) samples: Vec<f64>,
}

impl Figure {
    pub(super) fn new(row: &str, engine: &str, unit: &str, samples: Vec<f64>, other_load: &[f64]) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Self {
            row: row.to_owned(),
            engine: engine.to_owned(),
            unit: unit.to_owned(),
            median: median(&sorted),
            min: sorted.first().copied().unwrap_or_default(),
            max: sorted.last().copied().unwrap_or_default(),
            other_load: {
                let mut load = other_load.to_vec();
                load.sort_by(f64::total_cmp);
                median(&load)
            },
            samples,
        }
    }
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// One engine's turn.
pub(super) struct Turn<'a> {
    pub(super) engine: &'static str,
    /// What is timed.
    pub(super) work: Box<dyn Fn() -> Result<()> + 'a>,
    /// What follows each sample untimed.
    pub(super) after: Box<dyn Fn() -> Result<()> + 'a>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(engine: &'static str, work: impl Fn() -> Result<()> + 'a) -> Self {
        Self { engine, work: Box::new(work), after: Box::new(|| Ok(())) }
    }

    pub(super) fn then(mut self, after: impl Fn() -> Result<()> + 'a) -> Self {
        self.after = Box::new(after);
        self
    }
}

/// Takes `rounds` samples of each turn, one after the other in every round so that what disturbs the machine
/// disturbs all, after `warm` rounds that do not count. Figures are in milliseconds.
pub(super) fn in_turns(row: &str, turns: &[Turn], rounds: usize, warm: usize) -> Result<Vec<Figure>> {
    let mut times = vec![Vec::new(); turns.len()];
    let mut loads = vec![Vec::new(); turns.len()];
    for round in 0..rounds + warm {
        eprint!("\r    {row}: round {} of {}  ", round + 1, rounds + warm);
        std::io::stderr().flush()?;
        for (index, turn) in turns.iter().enumerate() {
            let (time, load) = timed(&turn.work).with_context(|| format!("{row} with {}", turn.engine))?;
            (turn.after)()?;
            if round >= warm {
                times[index].push(time.as_secs_f64() * 1e3);
                loads[index].push(load);
            }
        }
    }
    eprintln!();
    let figures = turns.iter().zip(times.into_iter().zip(loads));
    Ok(figures.map(|(turn, (times, loads))| Figure::new(row, turn.engine, "ms", times, &loads)).collect())
}

fn timed(work: &dyn Fn() -> Result<()>) -> Result<(Duration, f64)> {
    let (busy, own) = (machine_busy(), own_cpu());
    let begun = Instant::now();
    work()?;
    let wall = begun.elapsed();
    // What is cleaned up after the client's end belongs to this engine's sample of load, not to the next one's time.
    std::thread::sleep(Duration::from_millis(30));
    let window = begun.elapsed().as_secs_f64();
    let others = (machine_busy() - busy) - (own_cpu() - own);
    Ok((wall, (others / window).max(0.0)))
}

/// Seconds that all processors were busy (proc_stat(5): user, nice, system).
fn machine_busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: f64 =
        first.split_whitespace().skip(1).take(3).filter_map(|word| word.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds of processor time used in the room.
fn own_cpu() -> f64 {
    let version_1 = fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage");
    if let Ok(nanoseconds) = version_1 {
        return nanoseconds.trim().parse::<f64>().unwrap_or_default() / 1e9;
    }
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat").unwrap_or_default();
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    usage.and_then(|usage| usage.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let figure = Figure::new("r", "e", "ms", vec![9.0, 1.0, 2.0], &[0.5, 0.1]);
        assert_eq!((figure.median, figure.min, figure.max), (2.0, 1.0, 9.0));
        assert!((figure.other_load - 0.3).abs() < 1e-9);
        assert_eq!(Figure::new("r", "e", "ms", vec![1.0, 2.0], &[]).median, 1.5);
    }

    #[test]
    fn turns_alternate_and_warm_rounds_do_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let note = |letter: char| {
            order.borrow_mut().push(letter);
            Ok(())
        };
        let turns = [Turn::new("a", || note('a')), Turn::new("b", || note('b')).then(|| note('-'))];
        let figures = in_turns("r", &turns, 2, 1).unwrap();
        assert_eq!(*order.borrow(), "ab-ab-ab-");
        assert_eq!(figures[1].samples.len(), 2);
    }
}
