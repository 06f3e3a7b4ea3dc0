//! The Docker Engine API as data: request, response and stream types (API 1.50, docker 28.2).
//!
//! Every struct reads and writes JSON as Go does, because the clients are Go programs or were written against one:
//! `null` reads as the zero value, keys marked omitempty are left out when empty, `Option<Vec>` and `Option<Map>`
//! write `null` where docker does, and plain `Vec` and map fields write `[]` and `{}`.

mod container;
mod event;
mod exec;
mod filters;
mod go;
mod hull;
mod image;
mod inspect;
pub mod nat;
mod network;
mod progress;
mod stats;
mod stream;
mod system;
mod volume;

pub use container::*;
pub use event::*;
pub use exec::*;
pub use filters::Filters;
pub use go::{Empty, StrSlice, ZERO_TIME, rfc3339_nano};
pub use hull::*;
pub use image::*;
pub use inspect::*;
pub use network::*;
pub use progress::*;
pub use stats::*;
pub use stream::*;
pub use system::*;
pub use volume::*;

/// The newest API version Hull speaks.
pub const API_VERSION: &str = "1.50";
/// The oldest API version Hull answers.
pub const MIN_API_VERSION: &str = "1.24";
