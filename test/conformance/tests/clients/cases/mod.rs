//! The cases, by what they look at.

pub(crate) mod copy;
pub(crate) mod engine;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod life;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod run;
pub(crate) mod tell;
pub(crate) mod volumes;
