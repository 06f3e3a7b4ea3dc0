//! The cases, by what they look at.

pub(crate) mod escapes;
pub(crate) mod features;
pub(crate) mod hooks;
pub(crate) mod isolation;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod process;
