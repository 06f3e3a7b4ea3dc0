//! Links, addresses and routes: rtnetlink(7).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

mod moving;

pub use moving::PermanentAddress;

use crate::message::{
    Buffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, attributes,
    read_u32, text,
};
use crate::socket::{NetlinkError, Pending, Socket};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

// linux/if_link.h, linux/if_addr.h, linux/veth.h, linux/if.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;

// linux/neighbour.h
const AF_BRIDGE: u8 = 7;
const NUD_REACHABLE: u16 = 2;
const NTF_MASTER: u8 = 4;
const NDA_LLADDR: u16 = 2;

/// Which link a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// By interface index.
    Index(u32),
    /// By name; it is looked up when the request is handled, so links made earlier in a batch are found.
    Name(&'a str),
}

impl std::fmt::Display for LinkRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "#{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A pair of connected interfaces, veth(4).
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the end in this socket's namespace.
    pub name: &'a str,
    /// Index of the bridge this end becomes a port of.
    pub master: u32,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// MAC address of the other end.
    pub peer_mac: [u8; 6],
    /// Network namespace of the other end.
    pub peer_netns: BorrowedFd<'a>,
    /// MTU of both ends in bytes, the kernel's default when absent.
    pub mtu: Option<u32>,
}

/// Changes to a link. What is absent stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// New name; only with [`LinkRef::Index`].
    pub name: Option<&'a str>,
    /// Free text kept with the link (ifalias).
    pub alias: Option<&'a str>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub mac: Option<[u8; 6]>,
    /// Index of the bridge the link becomes a port of.
    pub master: Option<u32>,
    /// Bring the link up.
    pub up: bool,
    /// Give the link no IPv6 address by itself. Fails on kernels without IPv6.
    pub no_ipv6_autoconf: bool,
    /// Bridge port: send packets back through the port they came from.
    pub hairpin: Option<bool>,
    /// Bridge port: keep it from other isolated ports.
    pub isolated: Option<bool>,
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Free text kept with the link.
    pub alias: Option<String>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Kind: `bridge`, `veth`, …; absent for hardware and loopback.
    pub kind: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
}

/// An IPv4 network a route or an address speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Interface index; 0 when the route names none.
    pub link: u32,
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub length: u8,
}

/// An rtnetlink socket, bound to the network namespace it was opened in.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
}

impl Route {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(NETLINK_ROUTE)? })
    }

    /// Sends all requests at once. Each is handled whether or not one before it failed.
    ///
    /// # Errors
    /// The first request refused.
    pub fn send(&self, requests: &Requests) -> Result<(), NetlinkError> {
        self.socket.transact(&requests.buffer, &requests.pending)
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel refused, or its answer could not be read.
    pub fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = Vec::new();
        self.dump(RTM_GETLINK, &[0; 16], "list links", |payload| links.extend(parse_link(payload)))?;
        Ok(links)
    }

    /// The link of this name, `None` if there is none.
    ///
    /// # Errors
    /// The kernel refused, or its answer could not be read.
    pub fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut buffer = Buffer::default();
        // With an ack, the answer ends like a dump's: the link, then an NLMSG_ERROR with code 0.
        buffer.begin(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, 1);
        buffer.put(&[0; 16]);
        buffer.attr_str(IFLA_IFNAME, name);
        buffer.finish();
        let request =
            Pending { sequence: 1, operation: format!("look up link {name}"), tolerated: Some(Errno::NODEV) };
        let mut link = None;
        self.socket.dump(&buffer, &request, |payload| link = parse_link(payload))?;
        Ok(link)
    }

    /// All IPv4 addresses of the namespace.
    ///
    /// # Errors
    /// The kernel refused, or its answer could not be read.
    pub fn addresses(&self) -> Result<Vec<Prefix>, NetlinkError> {
        let mut found = Vec::new();
        self.dump(RTM_GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], "list addresses", |payload| {
            found.extend(parse_address(payload));
        })?;
        Ok(found)
    }

    /// All IPv4 routes of the main table of the namespace; the default route has length 0.
    ///
    /// # Errors
    /// The kernel refused, or its answer could not be read.
    pub fn routes(&self) -> Result<Vec<Prefix>, NetlinkError> {
        let mut found = Vec::new();
        let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.dump(RTM_GETROUTE, &header, "list routes", |payload| found.extend(parse_route(payload)))?;
        Ok(found)
    }

    fn dump(
        &self,
        kind: u16,
        header: &[u8],
        operation: &str,
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let mut buffer = Buffer::default();
        buffer.begin(kind, NLM_F_REQUEST | NLM_F_DUMP, 1);
        buffer.put(header);
        buffer.finish();
        let request = Pending { sequence: 1, operation: operation.to_owned(), tolerated: None };
        self.socket.dump(&buffer, &request, each)
    }
}

/// Requests that travel together, handled in this order.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    buffer: Buffer,
    pending: Vec<Pending>,
}

impl Requests {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The request added last succeeds also where the kernel answers with `errno`.
    pub fn tolerate(&mut self, errno: Errno) -> &mut Self {
        if let Some(last) = self.pending.last_mut() {
            last.tolerated = Some(errno);
        }
        self
    }

    /// Makes a bridge without spanning tree and forward delay, so that its ports forward at once. Fails with
    /// `EEXIST` when the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> &mut Self {
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, format!("create bridge {name}"), |buffer| {
            buffer.put(&ifinfo(0, 0));
            buffer.attr_str(IFLA_IFNAME, name);
            buffer.nested(IFLA_LINKINFO, |info| {
                info.attr_str(IFLA_INFO_KIND, "bridge");
                info.nested(IFLA_INFO_DATA, |data| {
                    data.attr_u32(IFLA_BR_FORWARD_DELAY, 0);
                    data.attr_u32(IFLA_BR_STP_STATE, 0);
                });
            });
        })
    }

    /// Makes a veth pair, one end a port of a bridge, the other directly in its namespace under its final name.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> &mut Self {
        let operation = format!("create veth {} with peer {}", veth.name, veth.peer_name);
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, operation, |buffer| {
            buffer.put(&ifinfo(0, 0));
            buffer.attr_str(IFLA_IFNAME, veth.name);
            buffer.attr_u32(IFLA_MASTER, veth.master);
            put_one_queue(buffer);
            if let Some(mtu) = veth.mtu {
                buffer.attr_u32(IFLA_MTU, mtu);
            }
            buffer.nested(IFLA_LINKINFO, |info| {
                info.attr_str(IFLA_INFO_KIND, "veth");
                info.nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |peer| {
                        peer.put(&ifinfo(0, 0));
                        peer.attr_str(IFLA_IFNAME, veth.peer_name);
                        put_one_queue(peer);
                        peer.attr(IFLA_ADDRESS, &veth.peer_mac);
                        peer.attr(IFLA_NET_NS_FD, &veth.peer_netns.as_raw_fd().to_ne_bytes());
                        if let Some(mtu) = veth.mtu {
                            peer.attr_u32(IFLA_MTU, mtu);
                        }
                    });
                });
            });
        })
    }

    /// Changes a link.
    pub fn change_link(&mut self, link: LinkRef<'_>, change: &LinkChange<'_>) -> &mut Self {
        // RTM_NEWLINK without NLM_F_CREATE changes an existing link; unlike RTM_SETLINK it also takes port settings.
        self.request(RTM_NEWLINK, 0, format!("change link {link}"), |buffer| {
            buffer.put(&ifinfo(index_of(link), if change.up { IFF_UP } else { 0 }));
            put_name(buffer, link);
            if let Some(name) = change.name {
                buffer.attr_str(IFLA_IFNAME, name);
            }
            if let Some(alias) = change.alias {
                buffer.attr_str(IFLA_IFALIAS, alias);
            }
            if let Some(mtu) = change.mtu {
                buffer.attr_u32(IFLA_MTU, mtu);
            }
            if let Some(mac) = change.mac {
                buffer.attr(IFLA_ADDRESS, &mac);
            }
            if let Some(master) = change.master {
                buffer.attr_u32(IFLA_MASTER, master);
            }
            if change.no_ipv6_autoconf {
                buffer.nested(IFLA_AF_SPEC, |families| {
                    families.nested(AF_INET6, |inet6| {
                        inet6.attr_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
                    });
                });
            }
            put_port_settings(buffer, change);
        })
    }

    /// Removes a link; of a veth pair both ends. Takes some 20 ms in the kernel.
    pub fn delete_link(&mut self, link: LinkRef<'_>) -> &mut Self {
        self.request(RTM_DELLINK, 0, format!("delete link {link}"), |buffer| {
            buffer.put(&ifinfo(index_of(link), 0));
            put_name(buffer, link);
        })
    }

    /// Tells the bridge of a port that a MAC address is behind it now, as if a packet had come from there.
    pub fn learn_mac(&mut self, port: u32, mac: [u8; 6]) -> &mut Self {
        let operation = format!("teach the bridge of link #{port} a MAC address");
        self.request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, operation, |buffer| {
            // struct ndmsg: family, padding, index, state, flags, type
            buffer.put(&[AF_BRIDGE, 0, 0, 0]);
            buffer.put(&port.to_ne_bytes());
            buffer.put(&NUD_REACHABLE.to_ne_bytes());
            buffer.put(&[NTF_MASTER, 0]);
            buffer.attr(NDA_LLADDR, &mac);
        })
    }

    /// Adds an IPv4 address with its network's broadcast address.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> &mut Self {
        let operation = format!("add address {address}/{prefix} to link #{link}");
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, operation, |buffer| {
            buffer.put(&[AF_INET, prefix, 0, 0]);
            buffer.put(&link.to_ne_bytes());
            buffer.attr(IFA_LOCAL, &address.octets());
            buffer.attr(IFA_ADDRESS, &address.octets());
            if prefix < 31 {
                let broadcast = Ipv4Addr::from_bits(address.to_bits() | (u32::MAX >> prefix.min(31)));
                buffer.attr(IFA_BROADCAST, &broadcast.octets());
            }
        })
    }

    /// Adds the IPv4 default route.
    pub fn add_default_route(&mut self, link: u32, gateway: Ipv4Addr) -> &mut Self {
        let operation = format!("add default route via {gateway} on link #{link}");
        self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, operation, |buffer| {
            buffer.put(&[AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0]);
            buffer.attr(RTA_GATEWAY, &gateway.octets());
            buffer.attr_u32(RTA_OIF, link);
        })
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        operation: String,
        fill: impl FnOnce(&mut Buffer),
    ) -> &mut Self {
        let sequence = u32::try_from(self.pending.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.buffer.begin(kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
        fill(&mut self.buffer);
        self.buffer.finish();
        self.pending.push(Pending { sequence, operation, tolerated: None });
        self
    }
}

/// struct ifinfomsg: family, pad, type, index, flags, mask of flags to change.
fn ifinfo(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn index_of(link: LinkRef<'_>) -> u32 {
    match link {
        LinkRef::Index(index) => index,
        LinkRef::Name(_) => 0,
    }
}

fn put_name(buffer: &mut Buffer, link: LinkRef<'_>) {
    if let LinkRef::Name(name) = link {
        buffer.attr_str(IFLA_IFNAME, name);
    }
}

/// A veth has a queue per processor by default, each with its own directory in sysfs, which is most of what making one
/// costs on a large machine. Queues help XDP programs only: packets go to the other end's processor queue directly.
fn put_one_queue(buffer: &mut Buffer) {
    buffer.attr_u32(IFLA_NUM_TX_QUEUES, 1);
    buffer.attr_u32(IFLA_NUM_RX_QUEUES, 1);
}

fn put_port_settings(buffer: &mut Buffer, change: &LinkChange<'_>) {
    let settings = [(IFLA_BRPORT_MODE, change.hairpin), (IFLA_BRPORT_ISOLATED, change.isolated)];
    if settings.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    buffer.nested(IFLA_LINKINFO, |info| {
        info.attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
        info.nested(IFLA_INFO_SLAVE_DATA, |data| {
            for (kind, value) in settings {
                if let Some(value) = value {
                    data.attr_u8(kind, u8::from(value));
                }
            }
        });
    });
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let mut link =
        Link { index: read_u32(payload, 4)?, up: read_u32(payload, 8)? & IFF_UP != 0, ..Link::default() };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_MASTER => link.master = read_u32(value, 0),
            IFLA_MTU => link.mtu = read_u32(value, 0)?,
            IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = name.map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(payload: &[u8]) -> Option<Prefix> {
    let (length, link) = (*payload.get(1)?, read_u32(payload, 4)?);
    let mut address = None;
    for (kind, value) in attributes(payload.get(8..)?) {
        // On point-to-point links IFA_ADDRESS is the other end's; IFA_LOCAL comes where there is a difference.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = parse_ipv4(value);
        }
    }
    Some(Prefix { link, address: address?, length })
}

fn parse_route(payload: &[u8]) -> Option<Prefix> {
    let (length, mut table) = (*payload.get(1)?, u32::from(*payload.get(4)?));
    let (mut address, mut link) = (Ipv4Addr::UNSPECIFIED, 0);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => address = parse_ipv4(value)?,
            RTA_OIF => link = read_u32(value, 0)?,
            RTA_TABLE => table = read_u32(value, 0)?,
            _ => {}
        }
    }
    (table == u32::from(RT_TABLE_MAIN)).then_some(Prefix { link, address, length })
}

fn parse_ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}
