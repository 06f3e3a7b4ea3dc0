//! Least privilege: capabilities, seccomp filters, no-new-privileges, LSM labels.
//!
//! Everything here works on the calling thread and is meant for the last steps of a container's init, where one
//! thread exists. The order that keeps each step permitted is
//!
//! 1. [`CapabilitySets::limit_bounding`], while `CAP_SETPCAP` is still effective;
//! 2. the change of user with `keep capabilities` set;
//! 3. [`CapabilitySets::apply`];
//! 4. [`no_new_privileges`] and [`label::write`];
//! 5. [`seccomp::Program::load`], last, so that the filter need not allow the steps above. Without
//!    no-new-privileges loading needs `CAP_SYS_ADMIN`, so then it comes before step 2.

mod capabilities;
pub mod label;
pub mod seccomp;

pub use capabilities::{ApplyError, CapSet, CapabilitySets, TweakError, UnknownCapability};

/// Sets `no_new_privs` on the calling thread: execve grants nothing the thread does not have (prctl(2)).
///
/// # Errors
/// What the kernel answers; there is no case in which it fails on a supported kernel.
pub fn no_new_privileges() -> std::io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}
