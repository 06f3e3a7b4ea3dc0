//! Mounts through descriptors: overlay, bind, attributes, mountinfo.
//!
//! Everything here makes a *detached* mount (a descriptor, visible nowhere) and attaches it to a target that is a
//! descriptor too. A detached mount goes away with its last descriptor, so a failure leaves nothing.

mod attach;
mod info;
mod options;
mod overlay;

pub use attach::{
    attach, attach_at, attach_beneath_root, bind, change_propagation, clone_of, detach_root, new_filesystem,
    new_filesystem_and_context, set_attributes, set_attributes_privately,
};
pub use hull_sys::mount::Propagation;
pub use info::{MountInfo, mountinfo, parse_mountinfo};
pub use options::{MountOptions, OptionError, parse_options};
pub use overlay::{Overlay, overlay};

use rustix::io::Errno;

/// A failed mount operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed.
    #[error("{step}{}", kernel_says(log))]
    Step {
        /// What was being done, on what.
        step: String,
        /// What the file system wrote to its log, if anything.
        log: String,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// `/proc/self/mountinfo` cannot be read.
    #[error("read mountinfo")]
    MountInfo(#[source] std::io::Error),
}

fn kernel_says(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

impl Error {
    fn step(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let step = step.into();
        move |source| Self::Step { step, log: String::new(), source }
    }

    /// The errno, when the failure is one of the kernel's.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Step { source, .. } => Some(*source),
            Self::MountInfo(_) => None,
        }
    }
}

/// Result of a mount operation.
pub type Result<T> = std::result::Result<T, Error>;
