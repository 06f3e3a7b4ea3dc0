//! `cargo xtask bench runtime`: the runtime's command beside crun and runc, and youki when there is one, on one bundle.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Options,
    engines::quietly,
    report::{Place, Report, Target},
    room,
    sample::{Figure, Turn, in_turns},
};
use crate::step::run;

/// The row's name on the command line, and the first word of its figures.
pub(super) const ROW: &str = "runtime";

pub(super) const RESULTS: &str = "runtimes.jsonl";

/// Environment variable: a youki to measure too.
pub(super) const YOUKI: &str = "HULL_BENCH_YOUKI";

/// Its name in the room.
pub(super) const YOUKI_PROGRAM: &str = "youki";

const RUN: &str = "runtime run";
const EXEC: &str = "runtime exec";
const RUN_CPU: &str = "runtime run, CPU";
const EXEC_CPU: &str = "runtime exec, CPU";
const MEMORY: &str = "runtime memory";
const CALLS: &str = "runtime system calls";

const ROWS: [(&str, &str, Target); 6] = [
    (RUN, "`run` of true", Target::Share(0.5, "crun")),
    (EXEC, "`exec` of true", Target::Share(0.5, "crun")),
    (RUN_CPU, "CPU time of the run", Target::Share(0.5, "crun")),
    (EXEC_CPU, "CPU time of the exec", Target::Share(0.5, "crun")),
    (MEMORY, "most resident memory of a process of the run", Target::Share(1.0, "crun")),
    (CALLS, "system calls of the run, those of true included", Target::Below(400.0)),
];

const PLACE: Place =
    Place { begin: "<!-- cargo xtask bench runtime writes from here -->", end: "<!-- to here: runtimes -->" };

/// A runtime under test.
struct Runtime {
    name: &'static str,
    program: String,
}

impl Runtime {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command
    }

    fn version(&self) -> String {
        let output = self.command(&["--version"]).output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

fn runtimes() -> Vec<Runtime> {
    let ours = |name: &str| format!("{}/{name}", room::PROGRAMS);
    let mut all = vec![
        Runtime { name: "hull", program: ours("hull-runtime") },
        Runtime { name: "crun", program: "crun".into() },
        Runtime { name: "runc", program: "runc".into() },
    ];
    if Path::new(&ours(YOUKI_PROGRAM)).exists() {
        all.push(Runtime { name: "youki", program: ours(YOUKI_PROGRAM) });
    }
    all
}

/// What runs in the room.
pub(super) fn measure(options: &Options) -> Result<()> {
    let runtimes = runtimes();
    let mut results = File::create(format!("{}/{RESULTS}", room::RESULTS))?;
    let mut facts = json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "processors": std::thread::available_parallelism()?, "samples": options.samples,
    });
    for runtime in &runtimes {
        facts[runtime.name] = json!(runtime.version());
    }
    writeln!(results, "{facts}")?;
    let (to_run, to_exec) =
        (Bundle::new("true", &["/bin/true"])?, Bundle::new("sleep", &["/bin/sleep", "100000"])?);
    let mut figures = timed(&runtimes, RUN, RUN_CPU, options.samples, |runtime| {
        runtime.command(&["run", "--bundle", &to_run.folder, "bench-run"])
    })?;
    for runtime in &runtimes {
        figures.extend(execs(runtime, &to_exec, options.samples)?);
    }
    for runtime in &runtimes {
        let arguments = ["run", "--bundle", &to_run.folder, "bench-run"];
        figures.push(memory(runtime, &arguments)?);
        figures.extend(calls(runtime, &arguments)?);
    }
    for figure in figures {
        writeln!(results, "{}", serde_json::to_string(&figure)?)?;
    }
    Ok(())
}

/// Wall and CPU time of a command of each runtime.
fn timed(
    runtimes: &[Runtime],
    wall: &str,
    cpu: &str,
    samples: usize,
    command: impl Fn(&Runtime) -> Command,
) -> Result<Vec<Figure>> {
    const WARM: usize = 3;
    let spent: Vec<RefCell<Vec<f64>>> = runtimes.iter().map(|_| RefCell::default()).collect();
    let turns: Vec<Turn> = runtimes
        .iter()
        .zip(&spent)
        .map(|(runtime, spent)| {
            let command = &command;
            Turn::new(runtime.name, move || {
                spent.borrow_mut().push(cpu_milliseconds(command(runtime))?);
                Ok(())
            })
        })
        .collect();
    let mut figures = in_turns(wall, &turns, samples, WARM)?;
    drop(turns);
    for (runtime, spent) in runtimes.iter().zip(spent) {
        figures.push(Figure::new(cpu, runtime.name, "ms", spent.into_inner().split_off(WARM), &[]));
    }
    Ok(figures)
}

/// The runtimes have one cgroup path, so they take turns in having the container.
fn execs(runtime: &Runtime, bundle: &Bundle, samples: usize) -> Result<Vec<Figure>> {
    let id = "bench-exec";
    quietly(runtime.command(&["create", "--bundle", &bundle.folder, id]))?;
    quietly(runtime.command(&["start", id]))?;
    let figures = timed(std::slice::from_ref(runtime), EXEC, EXEC_CPU, samples, |runtime| {
        runtime.command(&["exec", id, "/bin/true"])
    });
    quietly(runtime.command(&["delete", "--force", id]))?;
    figures
}

/// User and system time of the command and of all it waited for.
fn cpu_milliseconds(mut command: Command) -> Result<f64> {
    let mut said = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let (status, cpu) = hull_sys::process::wait_with_cpu_time(child.id().try_into()?)?;
    if status != 0 {
        let mut text = String::new();
        std::io::Seek::rewind(&mut said)?;
        std::io::Read::read_to_string(&mut said, &mut text)?;
        anyhow::bail!("{command:?} failed ({status:#x}): {text}");
    }
    Ok(cpu.as_secs_f64() * 1e3)
}

/// busybox starts the runtime: a process begins with the memory of the one it was forked from, and that one is small.
fn memory(runtime: &Runtime, arguments: &[&str]) -> Result<Figure> {
    let mut samples = Vec::new();
    for _ in 0..5 {
        let mut command = Command::new("busybox");
        command.args(["time", "-v", &runtime.program]).args(arguments);
        let output = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command:?}: {text}");
        let line = text.lines().find(|line| line.contains("Maximum resident set size"));
        let number = line.and_then(|line| line.rsplit(' ').next()).context("no resident set size")?;
        samples.push(number.parse().with_context(|| text.clone())?);
    }
    Ok(Figure::new(MEMORY, runtime.name, "KiB", samples, &[]))
}

/// `None` in a room without strace.
fn calls(runtime: &Runtime, arguments: &[&str]) -> Result<Option<Figure>> {
    if !Path::new("/usr/bin/strace").exists() {
        return Ok(None);
    }
    let file = "/run/calls";
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o", file, &runtime.program]).args(arguments);
    // Go's scheduler makes each run another number.
    let mut samples = Vec::new();
    for _ in 0..3 {
        quietly_again(&mut command)?;
        let text = fs::read_to_string(file)?;
        let total = text.lines().find(|line| line.ends_with(" total")).context("no total")?;
        // 100.00  0.012  3  402  18 total: percent, seconds, microseconds, calls, errors.
        let number = total.split_whitespace().nth(3).context("no number of calls")?;
        samples.push(number.parse().with_context(|| total.to_owned())?);
    }
    Ok(Some(Figure::new(CALLS, runtime.name, "calls", samples, &[])))
}

fn quietly_again(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A bundle of busybox with six namespaces, docker's seccomp policy and capabilities, and limits.
struct Bundle {
    folder: String,
}

impl Bundle {
    fn new(name: &str, arguments: &[&str]) -> Result<Self> {
        let folder = format!("/tmp/bundle-{name}");
        fs::create_dir_all(format!("{folder}/rootfs"))?;
        let archive = format!("{}/busybox.tar", room::RESULTS);
        run(Command::new("tar").args(["-xf", &archive, "-C", &format!("{folder}/rootfs")]))?;
        fs::write(format!("{folder}/config.json"), configuration(arguments)?.to_string())?;
        Ok(Self { folder })
    }
}

fn configuration(arguments: &[&str]) -> Result<Value> {
    let granted = hull_confine::CapSet::DOCKER_DEFAULT;
    let names: Vec<String> = granted.names().collect();
    let mount = |target: &str, kind: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": target, "type": kind, "source": kind, "options": options })
    };
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": arguments, "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/bin", "HOME=/root"],
            "capabilities": { "bounding": names, "effective": names, "permitted": names },
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
        ],
        "linux": {
            "cgroupsPath": "/bench-runtime/one",
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": { "limit": 256 << 20 }, "pids": { "limit": 100 },
            },
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": hull_confine::seccomp::docker_default(granted),
        },
    }))
}

/// The table in Markdown.
pub(super) fn table(report: &Report) -> String {
    let engines = ["hull", "crun", "runc", "youki"];
    let shown: Vec<&str> = engines.into_iter().filter(|engine| report.has(engine)).collect();
    let titles: Vec<&str> =
        shown.iter().map(|engine| if *engine == "hull" { "hull-runtime" } else { engine }).collect();
    report.table_of(&ROWS, &shown, &titles)
}

pub(super) fn write_into(report: &Report, page: &Path) -> Result<()> {
    let versions: Vec<String> = ["crun", "runc", "youki"]
        .into_iter()
        .filter(|name| report.has(name))
        .map(|name| report.fact(name))
        .collect();
    let facts = format!(
        "`cargo xtask bench runtime`, {} samples, on {} processors and Linux {}; {}.\n\
         Medians, in brackets the least and the greatest.\n",
        report.fact("samples"),
        report.fact("processors"),
        report.fact("kernel"),
        versions.join(", ")
    );
    PLACE.write(page, &format!("{facts}\n{}", table(report)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_what_the_rows_speak_of() {
        let configuration = configuration(&["/bin/true"]).unwrap();
        assert_eq!(configuration["linux"]["namespaces"].as_array().unwrap().len(), 6);
        assert_eq!(configuration["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(configuration["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    }
}
