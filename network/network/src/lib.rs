//! Container networks: address management, bridge, veth, published ports, name files.
//!
//! The engine keeps the records; this crate turns them into kernel objects and back:
//!
//! ```text
//! Ipam           subnets and addresses, rebuilt from records, no I/O
//! PortAllocator  host ports held by bound sockets, so that nobody else takes them
//! Bridges        bridge, veth, routes and the nftables table `hull-<engine>`, all through netlink
//! files          contents of /etc/hosts, /etc/resolv.conf and /etc/hostname, pure functions
//! counters       interface counters of a container
//! ```
//!
//! Everything made in the kernel names its owner: links carry the alias `hull:<engine>:<network>[:<endpoint>]`, the
//! firewall table carries the engine in its name. [`Bridges::reconcile`] removes what nobody recorded and builds what
//! is missing; it never touches what carries another owner. All functions block for at most a few milliseconds and
//! act in the network namespace of the calling thread.

pub mod counters;
pub mod files;

mod bridge;
mod firewall;
mod ipam;
mod ports;
mod record;
mod subnet;

pub use bridge::{Bridges, NetworkError, Reconciled};
pub use ipam::{Ipam, IpamError, Pool, PoolRequest};
pub use ports::{PortAllocator, PortError, PortRequest, PortReservation};
pub use record::{AttachRequest, BridgeNetwork, Endpoint, OptionError, PortMapping, Protocol};
pub use subnet::{Ipv4Net, ParseNetError};
