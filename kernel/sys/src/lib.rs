//! System calls rustix lacks, the only crate that may use unsafe.
//!
//! Every function is safe to call: what must hold for the kernel call to be sound is checked here
//! (a single thread before `clone3`, for instance) or given by the argument types. Names are the kernel's, so
//! that the manual pages are found. Errors are [`rustix::io::Errno`].

#![allow(unsafe_code)]

pub mod bpf;
#[cfg(target_arch = "x86_64")]
pub mod early;
pub mod exec;
pub mod fd;
pub mod image;
pub mod kernel;
pub mod key;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod net;
pub mod ns;
pub mod prctl;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod start;

pub use image::{is_protected_image, sealed_copy};
pub use process::{CloneArgs, CloneFlags, Forked, clone3};

use rustix::io::Errno;

/// Result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// The value of a raw `syscall(2)`, with errno turned into an error.
fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value == -1 { Err(last_errno()) } else { Ok(value) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
