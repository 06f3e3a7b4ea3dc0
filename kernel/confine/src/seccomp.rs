//! Seccomp filters: docker's policy, docker's profile files, and a compiler from OCI rules to BPF.

mod compile;
mod policy;
mod profile;
mod syscalls;

use std::io;
use std::os::fd::OwnedFd;

use hull_sys::seccomp::FLAG_NEW_LISTENER;
pub use hull_sys::seccomp::SockFilter as Instruction;

pub use compile::{CompileError, compile};
pub use policy::docker_default;
pub use profile::{ProfileError, from_docker_profile};

/// A compiled filter, ready to be loaded.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

/// Loading a filter failed; the container must not start.
#[derive(Debug, thiserror::Error)]
#[error("load a seccomp filter of {instructions} instructions")]
pub struct LoadError {
    /// Length of the program.
    pub instructions: usize,
    /// What the kernel answered: EACCES without `CAP_SYS_ADMIN` and without no-new-privileges, EINVAL for a
    /// flag the kernel does not know.
    #[source]
    pub source: io::Error,
}

impl Program {
    /// The instructions (linux/filter.h, `struct sock_filter`).
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Whether a rule hands calls to a supervisor, so that [`Self::load`] returns its descriptor.
    pub fn notifies(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }

    /// Puts the filter in force for the calling thread, and for all it becomes or starts (seccomp(2)).
    ///
    /// Returns the notification descriptor when [`Self::notifies`]. Allocates nothing, so it may be called
    /// between fork and execve.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self) -> Result<Option<OwnedFd>, LoadError> {
        hull_sys::seccomp::set_mode_filter(&self.instructions, self.flags)
            .map_err(|errno| LoadError { instructions: self.instructions.len(), source: errno.into() })
    }
}
