//! x
pub mod tar;
