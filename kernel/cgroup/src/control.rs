//! Freezing, killing, listing, removing.

use crate::file::{failed, pairs, read, try_read, try_write, write};
use crate::{Cgroup, Error, Mode, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode as FileMode, OFlags, RawDir};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a freeze may take: tasks in uninterruptible sleep freeze when they wake.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a cgroup may stay busy after its last task ended.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

impl Cgroup {
    /// Stops all its tasks, and waits until they are.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Whether it is frozen.
    pub fn frozen(&self) -> Result<bool> {
        match self.freezer()? {
            Freezer::V1(directory) => Ok(read(&directory.join("freezer.state"))?.trim() != "THAWED"),
            Freezer::V2(directory) => Ok(read(&directory.join("cgroup.freeze"))?.trim() == "1"),
        }
    }

    /// The directory whose freezer stops all its tasks; `None` without one.
    pub fn freezer_directory(&self) -> Option<PathBuf> {
        self.v1_directory("freezer").or_else(|| self.v2_directory())
    }

    fn freezer(&self) -> Result<Freezer> {
        if let Some(directory) = self.v1_directory("freezer") {
            return Ok(Freezer::V1(directory));
        }
        match self.v2_directory() {
            Some(directory) => Ok(Freezer::V2(directory)),
            None => Err(Error::NoController { field: "", controller: "freezer" }),
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        match self.freezer()? {
            Freezer::V1(directory) => set_frozen_v1(&directory.join("freezer.state"), frozen),
            Freezer::V2(directory) => set_frozen_v2(&directory, frozen),
        }
    }

    /// Sends SIGKILL to everything in it and below, atomically with `cgroup.kill`, else frozen meanwhile so that nothing can
    /// fork away.
    pub fn kill(&self) -> Result<()> {
        if let Some(directory) = self.v2_directory() {
            match try_write(&directory.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                // Before Linux 5.14.
                Err(Errno::NOENT | Errno::ACCESS) => {}
                Err(error) => return Err(failed("write \"1\" to", &directory.join("cgroup.kill"))(error)),
            }
        }
        self.signal_all(9)
    }

    /// Sends a signal to everything in it and below, frozen meanwhile.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if self.pids()?.is_empty() {
            return Ok(());
        }
        let was_frozen = self.frozen().unwrap_or(false);
        let frozen = was_frozen || self.freeze().is_ok();
        let pids = self.pids()?;
        for pid in pids {
            match hull_sys::signal::kill(pid, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(source) => {
                    let operation = format!("send signal {signal} to process {pid} of");
                    return Err(Error::File { operation, path: self.path().into(), source });
                }
            }
        }
        // A frozen task takes no signal, SIGKILL included on v1.
        if frozen && (!was_frozen || signal == 9) { self.thaw() } else { Ok(()) }
    }

    /// The processes in it and below.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(directory) = self.membership_directory() {
            collect_pids(&directory, &mut pids)?;
        }
        Ok(pids)
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.membership_directory().is_some_and(|directory| directory.exists())
    }

    /// How many tasks the kernel killed here because of the memory limit.
    pub fn oom_kills(&self) -> Result<u64> {
        let file = match (self.v1_directory("memory"), self.v2_directory()) {
            (Some(directory), _) => directory.join("memory.oom_control"),
            (None, Some(directory)) => directory.join("memory.events"),
            (None, None) => return Ok(0),
        };
        match try_read(&file) {
            Ok(text) => Ok(pairs(&text).find(|(key, _)| *key == "oom_kill").map_or(0, |(_, count)| count)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(0),
            Err(error) => Err(failed("read", &file)(error)),
        }
    }

    /// Removes it from every hierarchy, with what is below. A cgroup still busy is tried again for a moment. Missing is fine.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let mut first_error = None;
        for directory in self.directories() {
            if let Err(error) = remove_directory(&directory, deadline) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Removes it from every hierarchy if nothing is in it or below; else false, and some of it may be left. Costs less than
    /// looking first.
    pub fn remove_if_unused(&self) -> Result<bool> {
        for directory in self.directories() {
            match rustix::fs::rmdir(&directory) {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(Errno::BUSY | Errno::NOTEMPTY) => return Ok(false),
                Err(error) => return Err(failed("remove", &directory)(error)),
            }
        }
        Ok(true)
    }

    /// A directory whose `cgroup.procs` tells who is in.
    fn membership_directory(&self) -> Option<PathBuf> {
        match self.layout.mode {
            Mode::V2 => self.v2_directory(),
            Mode::V1 | Mode::Hybrid => ["pids", "freezer", "memory", "cpu"]
                .iter()
                .find_map(|controller| self.v1_directory(controller))
                .or_else(|| self.directories().next()),
        }
    }
}

enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

fn set_frozen_v1(file: &Path, frozen: bool) -> Result<()> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + FREEZE_PATIENCE;
    let mut pause = Duration::from_micros(50);
    write(file, wanted)?;
    while read(file)?.trim() != wanted {
        if Instant::now() > deadline {
            // A container half frozen would be worse than one that runs.
            write(file, "THAWED")?;
            return Err(failed("freeze", file)(Errno::TIMEDOUT));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
        // A task that forked while being frozen leaves the group FREEZING until it is written again.
        write(file, wanted)?;
    }
    Ok(())
}

fn set_frozen_v2(directory: &Path, frozen: bool) -> Result<()> {
    write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let events = directory.join("cgroup.events");
    let deadline = Instant::now() + FREEZE_PATIENCE;
    let file = rustix::fs::open(&events, OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())
        .map_err(failed("open", &events))?;
    loop {
        let mut buffer = [0; 256];
        let length = rustix::io::pread(&file, &mut buffer, 0).map_err(failed("read", &events))?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let state = pairs(&text).find(|(key, _)| *key == "frozen").map(|(_, value)| value == 1);
        if state.unwrap_or(frozen) == frozen {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed("freeze", directory)(Errno::TIMEDOUT));
        }
        let timeout =
            rustix::time::Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().min(100_000_000).into() };
        let _ = poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout));
    }
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = directory.join("cgroup.procs");
    match try_read(&file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        // A threaded cgroup of v2 lists its processes in its domain only.
        Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(failed("read", &file)(error)),
    }
    for child in children(directory)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

/// Directories below.
fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = match rustix::fs::open(directory, flags, FileMode::empty()) {
        Ok(open) => open,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(failed("open", directory)(error)),
    };
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&open, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed("list", directory))?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            found.push(directory.join(name.as_ref()));
        }
    }
    Ok(found)
}

fn remove_directory(directory: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY | Errno::INTR) => {}
            Err(error) => return Err(failed("remove", directory)(error)),
        }
        for child in children(directory)? {
            remove_directory(&child, deadline)?;
        }
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(failed("remove", directory)(error)),
            Err(_) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
