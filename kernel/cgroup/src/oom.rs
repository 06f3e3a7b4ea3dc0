//! Being told when the kernel runs out of a cgroup's memory.

use crate::file::{failed, open_write, read};
use crate::{Cgroup, Error, Result};
use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};

impl Cgroup {
    /// A descriptor that becomes readable when the memory limit was hit for good: on v1 an eventfd registered in
    /// `cgroup.event_control`, on v2 an inotify of `memory.events`, which changes for other reasons, too (see
    /// [`Cgroup::oom_kills`]). `None` without a memory controller. Both also become readable when the cgroup is removed.
    pub fn oom_watch(&self) -> Result<Option<OwnedFd>> {
        if let Some(directory) = self.v2_directory() {
            let file = directory.join("memory.events");
            if !file.exists() {
                return Ok(None);
            }
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
            let watch = watch.map_err(failed("watch", &file))?;
            inotify::add_watch(&watch, &file, WatchFlags::MODIFY).map_err(failed("watch", &file))?;
            return Ok(Some(watch));
        }
        let Some(directory) = self.v1_directory("memory") else { return Ok(None) };
        let (control, events) =
            (directory.join("memory.oom_control"), directory.join("cgroup.event_control"));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let oom = rustix::fs::open(&control, flags, Mode::empty()).map_err(failed("open", &control))?;
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(failed("make an event for", &control))?;
        let register = open_write(&events).map_err(failed("open", &events))?;
        let line = format!("{} {}", event.as_raw_fd(), oom.as_raw_fd());
        rustix::io::write(&register, line.as_bytes()).map_err(failed("register an event in", &events))?;
        Ok(Some(event))
    }

    /// Refuses a memory limit that is below what is used already, which on v2 would call the kernel's killer.
    pub(crate) fn check_usage(&self, limit: i64) -> Result<()> {
        let Some(file) = self.v2_directory().map(|directory| directory.join("memory.current")) else {
            return Ok(());
        };
        let Ok(limit) = u64::try_from(limit) else { return Ok(()) };
        let usage: u64 = read(&file)?.trim().parse().unwrap_or(0);
        if usage <= limit {
            return Ok(());
        }
        let reason = format!("{limit} is less than the {usage} bytes in use");
        Err(Error::Invalid { field: "memory.limit".into(), reason })
    }
}
