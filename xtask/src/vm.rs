//! A machine of our own for what this one cannot show: cgroup v2 with its controllers, AppArmor, an older kernel.
//!
//! The distribution's cloud kernel boots under qemu's software emulation from an initramfs that holds busybox, the
//! kernel modules Hull needs, Hull's binaries and one shell script. The script's exit status becomes the command's.

mod disk;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::project::{ENGINE, Project};

/// Modules that a host of containers has loaded, with what they depend on found in the modules themselves.
const MODULES: &[&str] = &[
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_numgen",
    "nft_hash",
    "loop",
];

/// Packages without which no machine can be made.
const PACKAGES: &[&str] = &["qemu-system-x86", "binutils"];

/// What runs inside unless told otherwise.
const SCRIPT: &str = "test/vm/engine.sh";

/// What runs in the machine with systemd unless told otherwise.
const SYSTEMD_SCRIPT: &str = "test/vm/runtime.sh";

/// Seconds after which the suite is given up; it takes a minute.
const SUITE_TIMEOUT: u64 = 300;

const RESULT: &str = "VM-RESULT:";

/// How the emulated machine is used.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A busybox shell script to run inside instead of test/vm/engine.sh
    script: Option<PathBuf>,
    /// A Debian whose init is systemd, with dbus, AppArmor's parser and criu, instead of busybox alone; runs
    /// test/vm/runtime.sh
    #[arg(long)]
    systemd: bool,
    /// Run these binaries, stripped copies of them, instead of building new ones
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 300)]
    timeout: u64,
}

/// Builds the binaries and runs the script in the machine.
pub(crate) fn run_task(project: &Project, options: &Options) -> Result<()> {
    let work = prepare(project)?;
    let built = match &options.programs {
        Some(programs) => stripped(programs, &work.join("programs"))?,
        None => crate::dist::run(project)?,
    };
    let usual = project.path(if options.systemd { SYSTEMD_SCRIPT } else { SCRIPT });
    let script = options.script.clone().unwrap_or(usual);
    let mut machine = machine(&work, &built, &script, options.timeout);
    if options.systemd {
        machine.disk = Some(disk::make(&work)?);
    }
    let outcome = machine.run()?;
    ensure!(outcome.status == 0, "the script in the machine ended with {}", outcome.status);
    Ok(())
}

/// The script as one of the suites, with the programs built for these. What the machine is made of must be there:
/// [`prepare`] finds out.
pub(crate) fn suite(project: &Project, work: &Path) -> Result<Outcome> {
    let built = stripped(&project.built("debug"), &work.join("programs"))?;
    machine(work, &built, &project.path(SCRIPT), SUITE_TIMEOUT).run()
}

/// Sees to it that the emulator and a kernel are there; returns the folder to work in.
pub(crate) fn prepare(project: &Project) -> Result<PathBuf> {
    for program in ["qemu-system-x86_64", "dpkg-deb", "strip"] {
        let found = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(found.is_ok(), "{program} is missing: apt-get install {}", PACKAGES.join(" "));
    }
    let work = project.target().join("vm");
    fs::create_dir_all(&work)?;
    Kernel::fetch(&work).context("no kernel for the emulated machine")?;
    Ok(work)
}

fn machine<'a>(work: &'a Path, programs: &Path, script: &'a Path, timeout: u64) -> Machine<'a> {
    Machine {
        work,
        binaries: ENGINE.iter().map(|name| programs.join(name)).collect(),
        script,
        disk: None,
        memory: 1536,
        timeout: Duration::from_secs(timeout),
    }
}

/// Copies of the programs without symbols in `to`: an initramfs lives in memory, and debug binaries are large.
fn stripped(programs: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to)?;
    for name in ENGINE {
        run(Command::new("strip").arg("-o").arg(to.join(name)).arg(programs.join(name)))?;
    }
    Ok(to.to_owned())
}

/// What to run inside the machine.
pub(crate) struct Machine<'a> {
    /// Where the kernel and the initramfs are kept.
    pub(crate) work: &'a Path,
    /// Static executables, placed in `/bin`.
    pub(crate) binaries: Vec<PathBuf>,
    /// A busybox shell script.
    pub(crate) script: &'a Path,
    /// A disk whose init runs the script, instead of busybox.
    pub(crate) disk: Option<PathBuf>,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// When to give up.
    pub(crate) timeout: Duration,
}

/// How the script in the machine ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Its exit status.
    pub(crate) status: i32,
    /// Lines that begin with `ok`.
    pub(crate) passed: u32,
    /// Lines that begin with `FAIL`.
    pub(crate) failed: u32,
}

impl Outcome {
    fn add(&mut self, line: &str) {
        self.passed += u32::from(line.starts_with("ok "));
        self.failed += u32::from(line.starts_with("FAIL "));
    }
}

impl Machine<'_> {
    /// Boots the machine, copies its console to ours and returns how the script ended.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let kernel = Kernel::fetch(self.work)?;
        let initrd = self.work.join("initramfs.cpio");
        self.write_initramfs(&kernel, &initrd)?;
        self.boot(&kernel.image, &initrd)
    }

    fn write_initramfs(&self, kernel: &Kernel, to: &Path) -> Result<()> {
        let mut cpio = Cpio::new(fs::File::create(to)?);
        for dir in ["bin", "proc", "sys", "dev", "mods", "run", "tmp", "etc", "var", "var/lib", "root"] {
            cpio.directory(dir)?;
        }
        cpio.file("bin/busybox", 0o755, &fs::read(hull_fixtures::image::busybox_program()?)?)?;
        for binary in &self.binaries {
            let name = binary.file_name().context("binary without a name")?.to_string_lossy();
            cpio.file(
                &format!("bin/{name}"),
                0o755,
                &fs::read(binary).with_context(|| binary.display().to_string())?,
            )?;
        }
        let mut order = String::new();
        let further = if self.disk.is_some() { disk::MODULES } else { &[] };
        for module in kernel.modules_in_order(&[MODULES, further].concat())? {
            let name = module.file_name().context("module without a name")?.to_string_lossy().into_owned();
            cpio.file(&format!("mods/{name}"), 0o644, &fs::read(&module)?)?;
            order.push_str(&name);
            order.push('\n');
        }
        cpio.file("mods/order", 0o644, order.as_bytes())?;
        cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        cpio.file("etc/group", 0o644, b"root:x:0:\n")?;
        cpio.file("init", 0o755, if self.disk.is_some() { disk::INIT } else { INIT }.as_bytes())?;
        cpio.file("test.service", 0o644, disk::SERVICE.as_bytes())?;
        cpio.file("test.sh", 0o755, &fs::read(self.script)?)?;
        cpio.finish()
    }

    fn boot(&self, kernel: &Path, initrd: &Path) -> Result<Outcome> {
        let further = if self.disk.is_some() { disk::COMMAND_LINE } else { "" };
        let mut qemu = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-nographic",
                "-no-reboot",
                "-nic",
                "none",
            ])
            .args(["-m", &self.memory.to_string()])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 lsm=apparmor {further}"))
            .args(self.disk.iter().flat_map(|disk| {
                let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
                ["-drive".to_owned(), drive]
            }))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-system-x86_64 is not installed")?;
        let output = qemu.stdout.take().context("no console")?;
        let pid = qemu.id();
        let (done, guard) = std::sync::mpsc::channel::<()>();
        let deadline = Instant::now() + self.timeout;
        let watchdog = std::thread::spawn(move || {
            if guard
                .recv_timeout(deadline - Instant::now())
                .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        });
        let mut outcome = Outcome::default();
        let mut result = None;
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
            if let Some(code) = line.split(RESULT).nth(1) {
                result = code.trim().parse().ok();
            } else {
                outcome.add(&line);
                println!("vm| {line}");
            }
        }
        drop(done);
        let _ = watchdog.join();
        qemu.wait()?;
        outcome.status = result.with_context(|| {
            format!("the machine ended, or was ended after {:?}, without a result", self.timeout)
        })?;
        Ok(outcome)
    }
}

/// The first stage moves everything to a tmpfs, because `pivot_root(2)` refuses to leave an initramfs.
const INIT: &str = "#!/bin/busybox sh
if [ -z \"$MOVED\" ]; then
  /bin/busybox mkdir /root.new
  /bin/busybox mount -t tmpfs -o size=80% tmpfs /root.new
  /bin/busybox cp -a /bin /mods /etc /init /test.sh /root.new
  for d in proc sys dev run tmp var root; do /bin/busybox mkdir /root.new/$d; done
  export MOVED=1
  exec /bin/busybox switch_root /root.new /init
fi
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var
mkdir -p /var/lib
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
while read -r m; do insmod /mods/$m || echo \"cannot load $m\"; done < /mods/order
echo
sh /test.sh
echo VM-RESULT: $?
poweroff -f
";

/// The distribution's kernel, unpacked.
struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    fn fetch(work: &Path) -> Result<Self> {
        let root = work.join("kernel");
        if !root.join("boot").is_dir() {
            fs::create_dir_all(&root)?;
            let package = newest_kernel_package()?;
            println!("fetching {package}");
            run(Command::new("apt-get").args(["download", "-q", &package]).current_dir(work))?;
            let archive = find(work, &|name| name.starts_with("linux-image") && name.ends_with(".deb"))?
                .pop()
                .context("apt-get download left no package")?;
            run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&root))?;
        }
        let image = find(&root.join("boot"), &|name| name.starts_with("vmlinuz"))?
            .pop()
            .context("no kernel image")?;
        let modules = find(&root, &|name| name.ends_with(".ko"))?;
        Ok(Self { image, modules })
    }

    /// The named modules and all they need, dependencies first. A name that is built in is left out.
    fn modules_in_order(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        for name in names {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut HashSet<String>, order: &mut Vec<PathBuf>) -> Result<()> {
        if !seen.insert(name.replace('-', "_")) {
            return Ok(());
        }
        let is_it = |path: &&PathBuf| {
            path.file_stem()
                .is_some_and(|stem| stem.to_string_lossy().replace('-', "_") == name.replace('-', "_"))
        };
        let Some(path) = self.modules.iter().find(is_it) else { return Ok(()) };
        for dependency in depends(&fs::read(path)?) {
            self.visit(&dependency, seen, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// The `depends=` entry of a module's `.modinfo` section (modpost writes it into every module).
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn newest_kernel_package() -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(str::to_owned)
        .context("the package lists have no linux-image-cloud-amd64: run apt-get update")
}

fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if wanted(&entry.file_name().to_string_lossy()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Writes the "new ASCII" cpio format the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
struct Cpio<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, &[])
    }

    fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(name, 0o100_000 | mode, data)
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out.flush()?)
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.inode += 1;
        let Ok(size) = u32::try_from(data.len()) else { bail!("{name} is too large for an initramfs") };
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, u32::try_from(name.len())? + 1, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.padded(&[header.as_bytes(), name.as_bytes(), b"\0"].concat())?;
        self.padded(data)
    }

    fn padded(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(data)?;
        Ok(self.out.write_all(&[0; 3][..data.len().wrapping_neg() % 4])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_to_four_bytes() {
        let mut bytes = Vec::new();
        let mut cpio = Cpio::new(&mut bytes);
        cpio.file("a", 0o644, b"hello").unwrap();
        cpio.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005", "file size is the seventh field");
    }

    #[test]
    fn lines_of_the_script_are_counted() {
        let mut outcome = Outcome::default();
        for line in ["ok   pids limit", "FAIL exec: expected '3', got '0'", "[ 12.3] okay", "web"] {
            outcome.add(line);
        }
        assert_eq!(outcome, Outcome { status: 0, passed: 1, failed: 1 });
    }

    #[test]
    fn dependencies_come_from_the_module_itself() {
        assert_eq!(depends(b"\x7fELF\0name=bridge\0depends=stp,llc\0vermagic=6"), ["stp", "llc"]);
        assert!(depends(b"\x7fELF\0depends=\0").is_empty());
    }
}
