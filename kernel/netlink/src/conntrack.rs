//! Connections the kernel tracks for address translation: nfnetlink's conntrack part.
//!
//! A translation is chosen with a connection's first packet. UDP knows no end, so a sender that never pauses would
//! keep an old choice for ever; such entries have to be deleted when a translation changes.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::message::{Buffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, attributes};
use crate::nft::Connection;
use crate::socket::{NetlinkError, Pending};

// linux/netfilter/nfnetlink_conntrack.h
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Match on the protocol number.
const FILTER_PROTO_NUM: u32 = 1 << 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const AF_INET: u8 = 2;
const UDP: u8 = 17;

/// A UDP conversation over IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpFlow {
    /// Where the first packet was sent to.
    pub destination: (Ipv4Addr, u16),
    /// Who answers: the destination after translation.
    pub answered_by: (Ipv4Addr, u16),
    /// The kernel's own description, to name it when deleting.
    original: Vec<u8>,
}

/// All UDP conversations over IPv4 in the connection's network namespace. Kernels before 5.8 do not filter, and the
/// list is searched here.
///
/// # Errors
/// The kernel refuses, or tracks no connections.
pub fn udp_flows(connection: &Connection) -> Result<Vec<UdpFlow>, NetlinkError> {
    let mut buffer = Buffer::default();
    begin(&mut buffer, IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, 1);
    buffer.nested(CTA_TUPLE_ORIG, |tuple| {
        tuple.nested(CTA_TUPLE_PROTO, |proto| proto.attr_u8(CTA_PROTO_NUM, UDP));
    });
    buffer.nested(CTA_FILTER, |filter| {
        filter.attr_u32(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM);
        filter.attr_u32(CTA_FILTER_REPLY_FLAGS, 0);
    });
    buffer.finish();
    let request = Pending { sequence: 1, operation: "list UDP conversations".to_owned(), tolerated: None };
    let mut flows = Vec::new();
    connection.socket().dump(&buffer, &request, |payload| flows.extend(parse_flow(payload)))?;
    Ok(flows)
}

/// Forgets a conversation: its next packet chooses its translation anew. One that ended by itself is no error.
///
/// # Errors
/// The kernel refuses.
pub fn delete_udp_flow(connection: &Connection, flow: &UdpFlow) -> Result<(), NetlinkError> {
    let mut buffer = Buffer::default();
    begin(&mut buffer, IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, 1);
    buffer.nested(CTA_TUPLE_ORIG, |tuple| tuple.put(&flow.original));
    buffer.finish();
    let (address, port) = flow.destination;
    let operation = format!("forget a UDP conversation with {address}:{port}");
    let request = Pending { sequence: 1, operation, tolerated: Some(Errno::NOENT) };
    connection.socket().transact(&buffer, &[request])
}

fn begin(buffer: &mut Buffer, kind: u16, flags: u16, sequence: u32) {
    buffer.begin(NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, sequence);
    // struct nfgenmsg: family, version, resource id
    buffer.put(&[AF_INET, 0, 0, 0]);
}

fn parse_flow(payload: &[u8]) -> Option<UdpFlow> {
    let find =
        |wanted| attributes(payload.get(4..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (original, reply) = (find(CTA_TUPLE_ORIG)?, find(CTA_TUPLE_REPLY)?);
    let (protocol, destination) = tuple_end(original, CTA_IP_V4_DST, CTA_PROTO_DST_PORT)?;
    let (_, answered_by) = tuple_end(reply, CTA_IP_V4_SRC, CTA_PROTO_SRC_PORT)?;
    (protocol == UDP).then(|| UdpFlow { destination, answered_by, original: original.to_vec() })
}

/// Protocol, address and port of one end of a tuple.
fn tuple_end(tuple: &[u8], address_kind: u16, port_kind: u16) -> Option<(u8, (Ipv4Addr, u16))> {
    let (mut address, mut protocol, mut port) = (None, None, None);
    for (kind, value) in attributes(tuple) {
        for (inner, value) in attributes(value) {
            match kind {
                CTA_TUPLE_IP if inner == address_kind => address = <[u8; 4]>::try_from(value).ok(),
                CTA_TUPLE_PROTO if inner == CTA_PROTO_NUM => protocol = value.first().copied(),
                CTA_TUPLE_PROTO if inner == port_kind => port = <[u8; 2]>::try_from(value).ok(),
                _ => {}
            }
        }
    }
    Some((protocol?, (Ipv4Addr::from(address?), u16::from_be_bytes(port?))))
}
