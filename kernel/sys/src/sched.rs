//! Scheduling attributes and I/O priority.

use crate::{Result, check};

/// `struct sched_attr` of `sched_setattr(2)`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SchedAttr {
    /// Size of the structure; filled in by [`sched_setattr`].
    pub size: u32,
    /// SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, ISO 4, IDLE 5, DEADLINE 6
    pub policy: u32,
    /// SCHED_FLAG_*
    pub flags: u64,
    /// Nice value for OTHER and BATCH.
    pub nice: i32,
    /// Static priority for FIFO and RR.
    pub priority: u32,
    /// Deadline: nanoseconds of run time.
    pub runtime: u64,
    /// Deadline: nanoseconds.
    pub deadline: u64,
    /// Deadline: nanoseconds.
    pub period: u64,
}

/// `sched_setattr(2)` of this thread.
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: a complete sched_attr that says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// `ioprio_set(2)` of this process: class 1 real time, 2 best effort, 3 idle; priority 0 (highest) to 7.
pub fn ioprio_set(class: u32, priority: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    // SAFETY: plain integers.
    check(unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (class << IOPRIO_CLASS_SHIFT) | priority)
    })
    .map(drop)
}
