//! Host ports of published ports: who has which, held by sockets.
//!
//! The firewall sends packets for a published port to the container before any socket on the host sees them. A
//! program of the host that listened on the same port would therefore be cut off in silence. So every published
//! port is also held by a bound socket that does not listen: others get `EADDRINUSE`, and packets that bypass the
//! firewall's map are refused instead of hanging.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::record::{PortMapping, Protocol};

/// Where a published port should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address, `0.0.0.0` for all.
    pub host_ip: Ipv4Addr,
    /// Ports to choose from; `None` lets the allocator choose an ephemeral one.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The container's address.
    pub container_ip: Ipv4Addr,
    /// Port in the container.
    pub container_port: u16,
}

impl From<&PortMapping> for PortRequest {
    /// Asks for exactly this mapping, as after a restart of the engine.
    fn from(mapping: &PortMapping) -> Self {
        Self {
            protocol: mapping.protocol,
            host_ip: mapping.host_ip,
            host_ports: Some(mapping.host_port..=mapping.host_port),
            container_ip: mapping.container_ip,
            container_port: mapping.container_port,
        }
    }
}

/// Why a host port could not be had. The texts are the ones Docker's clients know.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A container of this engine has the port.
    #[error("Bind for {host_ip}:{port} failed: port is already allocated")]
    Allocated {
        /// Host address asked for.
        host_ip: Ipv4Addr,
        /// Port asked for, the first of a range.
        port: u16,
    },
    /// The kernel refuses the port, in most cases because a program of the host has it.
    #[error(
        "failed to bind host port for {}:{}:{}:{}/{}: {}",
        .mapping.host_ip, .mapping.host_port, .mapping.container_ip, .mapping.container_port, .mapping.protocol,
        errno_text(*.errno)
    )]
    Bind {
        /// What was asked for.
        mapping: PortMapping,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Every port of the ephemeral range is taken.
    #[error("all ports are allocated")]
    Exhausted,
}

/// The words Go programs use for an error number; clients match on them.
fn errno_text(errno: Errno) -> String {
    match errno {
        Errno::ADDRINUSE => "address already in use".to_owned(),
        Errno::ADDRNOTAVAIL => "cannot assign requested address".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        other => io::Error::from(other).to_string(),
    }
}

/// The host ports this engine has given out.
#[derive(Debug, Clone, Default)]
pub struct PortAllocator {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    ports: BTreeSet<(Protocol, u16, Ipv4Addr)>,
    /// The ephemeral port given out last: a released one is not given to the next container at once.
    last_ephemeral: u16,
}

/// A host port held for a container. Dropping it lets the port go; unpublish it before.
#[derive(Debug)]
pub struct PortReservation {
    mapping: PortMapping,
    taken: Arc<Mutex<Taken>>,
    /// Absent for SCTP, which not every kernel has.
    _socket: Option<OwnedFd>,
}

impl PortReservation {
    /// The port as it was given.
    pub fn mapping(&self) -> &PortMapping {
        &self.mapping
    }
}

impl Drop for PortReservation {
    fn drop(&mut self) {
        let key = (self.mapping.protocol, self.mapping.host_port, self.mapping.host_ip);
        lock(&self.taken).ports.remove(&key);
    }
}

impl PortAllocator {
    /// Nothing given out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a host port and holds it. Binds in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The port, or every port of the range, is taken by this engine or on the host.
    pub fn reserve(&self, request: &PortRequest) -> Result<PortReservation, PortError> {
        let mut taken = lock(&self.taken);
        match &request.host_ports {
            Some(ports) => self.reserve_from(&mut taken, request, ports.clone()),
            None => self.reserve_ephemeral(&mut taken, request),
        }
    }

    /// The first port that is free; the first one's error when none is.
    fn reserve_from(
        &self,
        taken: &mut Taken,
        request: &PortRequest,
        ports: impl Iterator<Item = u16>,
    ) -> Result<PortReservation, PortError> {
        let mut first_error = None;
        for port in ports {
            match self.reserve_one(taken, request, port) {
                Ok(reservation) => return Ok(reservation),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(PortError::Exhausted))
    }

    fn reserve_ephemeral(
        &self,
        taken: &mut Taken,
        request: &PortRequest,
    ) -> Result<PortReservation, PortError> {
        let range = ephemeral_range();
        let last = taken.last_ephemeral;
        let after = range.clone().filter(|port| *port > last);
        let before = range.clone().filter(|port| *port <= last);
        let result = self.reserve_from(taken, request, after.chain(before));
        match result {
            Ok(reservation) => {
                taken.last_ephemeral = reservation.mapping.host_port;
                Ok(reservation)
            }
            // An address the host does not have fails on every port alike and says so.
            Err(error @ PortError::Bind { errno: Errno::ADDRNOTAVAIL | Errno::ACCESS, .. }) => Err(error),
            Err(_) => Err(PortError::Exhausted),
        }
    }

    fn reserve_one(
        &self,
        taken: &mut Taken,
        request: &PortRequest,
        port: u16,
    ) -> Result<PortReservation, PortError> {
        if taken.conflicts(request.protocol, port, request.host_ip) {
            return Err(PortError::Allocated { host_ip: request.host_ip, port });
        }
        let mapping = PortMapping {
            protocol: request.protocol,
            host_ip: request.host_ip,
            host_port: port,
            container_ip: request.container_ip,
            container_port: request.container_port,
        };
        let socket = hold(&mapping).map_err(|errno| PortError::Bind { mapping: mapping.clone(), errno })?;
        taken.ports.insert((mapping.protocol, port, mapping.host_ip));
        Ok(PortReservation { mapping, taken: Arc::clone(&self.taken), _socket: socket })
    }
}

impl Taken {
    fn conflicts(&self, protocol: Protocol, port: u16, host_ip: Ipv4Addr) -> bool {
        let all = (protocol, port, Ipv4Addr::UNSPECIFIED)..=(protocol, port, Ipv4Addr::BROADCAST);
        self.ports
            .range(all)
            .any(|(_, _, other)| *other == host_ip || other.is_unspecified() || host_ip.is_unspecified())
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // The set is changed by single inserts and removes, so it is whole even after a panic elsewhere.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hold(mapping: &PortMapping) -> Result<Option<OwnedFd>, Errno> {
    let kind = match mapping.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Ok(None),
    };
    let address = SocketAddrV4::new(mapping.host_ip, mapping.host_port);
    match bind(kind, address, false) {
        // Connections of an earlier server in TIME_WAIT block the port too, though nobody has it any more.
        Err(Errno::ADDRINUSE) if kind == SocketType::STREAM => bind(kind, address, true).map(Some),
        result => result.map(Some),
    }
}

/// Without `SO_REUSEADDR` a bound socket keeps out everybody. With it, two sockets that both set it and do not
/// listen would share the port, so it is cleared again after binding.
fn bind(kind: SocketType, address: SocketAddrV4, reuse: bool) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    Ok(socket)
}

/// ip_local_port_range of the calling thread's network namespace, Docker's default where it cannot be read.
fn ephemeral_range() -> RangeInclusive<u16> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse_range(&text))
        .unwrap_or(49153..=65535)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn request(host_ip: Ipv4Addr, ports: Option<RangeInclusive<u16>>) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            host_ip,
            host_ports: ports,
            container_ip: Ipv4Addr::new(172, 17, 0, 2),
            container_port: 80,
        }
    }

    /// An address of this test alone, so that nobody else takes its ports.
    fn own_address(test: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 77, 0, test)
    }

    #[test]
    fn a_port_is_given_once_and_again_after_release() {
        let ports = PortAllocator::new();
        let first = ports.reserve(&request(own_address(1), None)).unwrap();
        let port = first.mapping().host_port;
        let all = request(Ipv4Addr::UNSPECIFIED, Some(port..=port));
        assert_eq!(
            ports.reserve(&all).unwrap_err().to_string(),
            format!("Bind for 0.0.0.0:{port} failed: port is already allocated")
        );
        let other_address = ports.reserve(&request(own_address(2), Some(port..=port))).unwrap();
        assert_eq!(other_address.mapping().host_port, port);
        drop(first);
        let again = ports.reserve(&request(own_address(1), Some(port..=port))).unwrap();
        assert_eq!(again.mapping().host_port, port);
    }

    #[test]
    fn a_listener_of_the_host_is_respected_in_both_directions() {
        let address = own_address(3);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = PortAllocator::new();
        let error = ports.reserve(&request(address, Some(port..=port))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to bind host port for {address}:{port}:172.17.0.2:80/tcp: address already in use"
            )
        );
        drop(listener);
        let held = ports.reserve(&request(address, Some(port..=port))).unwrap();
        assert!(TcpListener::bind((address, port)).is_err());
        let second_engine = PortAllocator::new();
        assert!(second_engine.reserve(&PortRequest::from(held.mapping())).is_err());
    }

    #[test]
    fn connections_of_an_earlier_server_do_not_block_a_port() {
        let address = own_address(4);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect((address, port)).unwrap();
        // The side that closes first keeps the connection in TIME_WAIT.
        drop(listener.accept().unwrap());
        drop((client, listener));
        let ports = PortAllocator::new();
        assert!(ports.reserve(&request(address, Some(port..=port))).is_ok());
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let ports = PortAllocator::new();
        let first = ports.reserve(&request(own_address(5), None)).unwrap();
        let start = first.mapping().host_port;
        let range = Some(start..=start.saturating_add(1));
        let second = ports.reserve(&request(own_address(5), range.clone())).unwrap();
        assert_eq!(second.mapping().host_port, start + 1);
        assert!(matches!(
            ports.reserve(&request(own_address(5), range)).unwrap_err(),
            PortError::Allocated { port, .. } if port == start
        ));
    }

    #[test]
    fn an_address_the_host_lacks_is_named() {
        let error = PortAllocator::new().reserve(&request(Ipv4Addr::new(192, 0, 2, 1), None)).unwrap_err();
        assert!(error.to_string().ends_with("/tcp: cannot assign requested address"), "{error}");
    }

    #[test]
    fn reads_the_kernels_range() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("9 1"), None);
        assert_eq!(parse_range("x 1"), None);
    }
}
