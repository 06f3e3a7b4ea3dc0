//! rtnetlink and nftables requests used by Hull's networks.
//!
//! Synchronous, over a plain socket, without running programs. Requests are encoded here rather than through the
//! typed netlink crates: those lack most nftables expressions, and a request is only a header and attributes.
//! Several requests travel in one send, and the kernel's own words about an error (extended ack) are kept.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good; see [`in_namespace`] for acting
//! in another namespace without ever bringing a thread of a pool into it.

pub mod conntrack;
pub mod nft;
pub mod route;

mod message;
mod namespace;
mod socket;

pub use namespace::{NamespaceError, in_namespace};
pub use socket::NetlinkError;
