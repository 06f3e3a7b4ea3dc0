//! nftables transactions: tables, sets, maps, chains and rules, applied all or not at all.
//!
//! Numbers are from linux/netfilter/nf_tables.h. Attributes of nfnetlink are in network byte order; values in
//! registers are in the order of where they come from: packets in network order, `meta`, `ct` and `fib` in the
//! machine's.

mod expression;

pub use expression::{CtKey, Expression, MetaKey, PayloadBase, Verdict};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use crate::message::{Buffer, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use crate::socket::{NetlinkError, Pending, Socket};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(crate) const NFTA_LIST_ELEM: u16 = 1;
pub(crate) const NFTA_DATA_VALUE: u16 = 1;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;
const NF_ACCEPT: u32 = 1;
/// libnftnl's TLV for a rule's comment.
const UDATA_RULE_COMMENT: u8 = 0;
/// libnftnl's TLV for the byte order of a set's keys, with the value for the machine's own.
const UDATA_SET_KEY_IN_HOST_ORDER: [u8; 6] = {
    let order = 1u32.to_ne_bytes();
    [0, 4, order[0], order[1], order[2], order[3]]
};
/// So many elements of the widest key stay well under an attribute's 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 only.
    Ipv4,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
        }
    }
}

/// Type of a chain that packets enter by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of every connection.
    Nat,
}

/// Where packets enter a chain; `enum nf_inet_hooks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Every packet received, before routing.
    Prerouting = 0,
    /// Packets routed through.
    Forward = 2,
    /// Packets made on this host.
    Output = 3,
    /// Every packet sent, after routing.
    Postrouting = 4,
}

/// What a field of a set's key or data means, so that `nft list` can print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// IPv4 address.
    Ipv4Address,
    /// IP protocol number.
    Protocol,
    /// Port.
    Service,
    /// Interface name.
    InterfaceName,
}

impl DataType {
    /// nft's number for it; users of several types shift them together six bits each.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Address => 7,
            Self::Protocol => 12,
            Self::Service => 13,
            Self::InterfaceName => 41,
        }
    }

    /// Bytes in registers and keys: every field begins on a multiple of four.
    fn width(self) -> u32 {
        match self {
            Self::InterfaceName => 16,
            _ => 4,
        }
    }

    /// Bytes that carry the value. A key of one field is as long as its value.
    fn bytes(self) -> u32 {
        match self {
            Self::Ipv4Address => 4,
            Self::Protocol => 1,
            Self::Service => 2,
            Self::InterfaceName => 16,
        }
    }
}

fn type_and_length(fields: &[DataType]) -> (u32, u32) {
    let number = fields.iter().fold(0, |sum, field| sum << 6 | field.number());
    match fields {
        [one] => (number, one.bytes()),
        several => (number, several.iter().map(|field| field.width()).sum()),
    }
}

/// A set, or with `data` a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// Name in its table.
    pub name: &'a str,
    /// Fields of the key.
    pub key: &'a [DataType],
    /// Fields of the value; empty for a set.
    pub data: &'a [DataType],
    /// Elements are the bounds of intervals.
    pub interval: bool,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    key: Vec<u8>,
    data: Vec<u8>,
    interval_end: bool,
}

impl Element {
    /// An element of a set. `key` has every field of several padded to four bytes, see [`concat()`].
    pub fn key(key: Vec<u8>) -> Self {
        Self { key, data: Vec::new(), interval_end: false }
    }

    /// An element of a map.
    pub fn pair(key: Vec<u8>, data: Vec<u8>) -> Self {
        Self { key, data, interval_end: false }
    }

    /// The first value after an interval.
    pub fn interval_end(key: Vec<u8>) -> Self {
        Self { key, data: Vec::new(), interval_end: true }
    }
}

/// Joins fields of a key or a value, each padded to a multiple of four bytes.
pub fn concat(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// An interface name as it stands in keys and registers: 16 bytes, zeros at the end.
pub fn interface_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

/// A way to the kernel's nftables, bound to the network namespace it was opened in.
///
/// Worth keeping: when a netfilter socket is closed, the kernel first waits until everything deleted from any table
/// is freed, a grace period of some 10 ms, while a transaction itself takes less than 0.1 ms.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
}

impl Connection {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(NETLINK_NETFILTER)? })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// A transaction on one table.
#[derive(Debug, Clone)]
pub struct Transaction {
    family: Family,
    table: String,
    buffer: Buffer,
    pending: Vec<Pending>,
    sets: u32,
}

impl Transaction {
    /// Nothing to do yet. The table need not exist: see [`Self::replace_table`].
    pub fn new(family: Family, table: &str) -> Self {
        let mut transaction =
            Self { family, table: table.to_owned(), buffer: Buffer::default(), pending: Vec::new(), sets: 0 };
        transaction.bracket(NFNL_MSG_BATCH_BEGIN);
        // The kernel reports what concerns the whole transaction on its first message.
        transaction.pending.clear();
        transaction
    }

    /// Makes the table empty, whether or not it exists. What follows fills it.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// Makes the table if it does not exist.
    pub fn add_table(&mut self) {
        self.request(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add table".to_owned(), |buffer, table| {
            buffer.attr_str(NFTA_TABLE_NAME, table);
            buffer.attr_be32(NFTA_TABLE_FLAGS, 0);
        });
    }

    /// Removes the table with all it holds.
    pub fn delete_table(&mut self) {
        self.request(NFT_MSG_DELTABLE, 0, "delete table".to_owned(), |buffer, table| {
            buffer.attr_str(NFTA_TABLE_NAME, table);
        });
    }

    /// Adds a set or map.
    pub fn add_set(&mut self, set: &Set<'_>) {
        self.sets += 1;
        let id = self.sets;
        self.request(NFT_MSG_NEWSET, NLM_F_CREATE, format!("add set {}", set.name), |buffer, table| {
            let (key_type, key_length) = type_and_length(set.key);
            let interval = if set.interval { NFT_SET_INTERVAL } else { 0 };
            let map = if set.data.is_empty() { 0 } else { NFT_SET_MAP };
            buffer.attr_str(NFTA_SET_TABLE, table);
            buffer.attr_str(NFTA_SET_NAME, set.name);
            buffer.attr_be32(NFTA_SET_FLAGS, interval | map);
            buffer.attr_be32(NFTA_SET_KEY_TYPE, key_type);
            buffer.attr_be32(NFTA_SET_KEY_LEN, key_length);
            if !set.data.is_empty() {
                let (data_type, data_length) = type_and_length(set.data);
                buffer.attr_be32(NFTA_SET_DATA_TYPE, data_type);
                buffer.attr_be32(NFTA_SET_DATA_LEN, data_length);
            }
            buffer.attr_be32(NFTA_SET_ID, id);
            // Without it `nft list` reads names backwards and shows none.
            if set.key == [DataType::InterfaceName] {
                buffer.attr(NFTA_SET_USERDATA, &UDATA_SET_KEY_IN_HOST_ORDER);
            }
        });
    }

    /// Adds elements. One that exists with the same data is no error, with other data `EEXIST`.
    pub fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, "add", set, elements);
    }

    /// Deletes elements. One that does not exist is `ENOENT`.
    pub fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NFT_MSG_DELSETELEM, 0, "delete", set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, verb: &str, set: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let operation = format!("{verb} {} elements of set {set}", part.len());
            self.request(kind, flags, operation, |buffer, table| {
                buffer.attr_str(NFTA_SET_ELEM_LIST_TABLE, table);
                buffer.attr_str(NFTA_SET_ELEM_LIST_SET, set);
                buffer.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    part.iter().for_each(|element| put_element(list, element));
                });
            });
        }
    }

    /// Adds a chain that packets enter by itself, with policy accept.
    pub fn add_base_chain(&mut self, name: &str, kind: ChainType, hook: Hook, priority: i32) {
        self.request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, format!("add chain {name}"), |buffer, table| {
            buffer.attr_str(NFTA_CHAIN_TABLE, table);
            buffer.attr_str(NFTA_CHAIN_NAME, name);
            buffer.nested(NFTA_CHAIN_HOOK, |attrs| {
                attrs.attr_be32(NFTA_HOOK_HOOKNUM, hook as u32);
                attrs.attr_be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
            });
            buffer.attr_be32(NFTA_CHAIN_POLICY, NF_ACCEPT);
            buffer.attr_str(
                NFTA_CHAIN_TYPE,
                match kind {
                    ChainType::Filter => "filter",
                    ChainType::Nat => "nat",
                },
            );
        });
    }

    /// Adds a chain that rules jump to.
    pub fn add_chain(&mut self, name: &str) {
        self.request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, format!("add chain {name}"), |buffer, table| {
            buffer.attr_str(NFTA_CHAIN_TABLE, table);
            buffer.attr_str(NFTA_CHAIN_NAME, name);
        });
    }

    /// Appends a rule to a chain. `comment` is shown by `nft list`.
    pub fn add_rule(&mut self, chain: &str, comment: &str, expressions: &[Expression<'_>]) {
        let operation = format!("add rule {comment:?} to chain {chain}");
        self.request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, operation, |buffer, table| {
            buffer.attr_str(NFTA_RULE_TABLE, table);
            buffer.attr_str(NFTA_RULE_CHAIN, chain);
            buffer.nested(NFTA_RULE_EXPRESSIONS, |list| {
                expressions.iter().for_each(|expression| expression.put(list));
            });
            buffer.attr(NFTA_RULE_USERDATA, &comment_tlv(comment));
        });
    }

    /// Applies everything, or nothing.
    ///
    /// # Errors
    /// The first request refused.
    pub fn commit(mut self, connection: &Connection) -> Result<(), NetlinkError> {
        self.bracket(NFNL_MSG_BATCH_END);
        let begin = Pending { sequence: 1, operation: self.describe("change"), tolerated: None };
        connection.socket.transact_batch(&self.buffer, &begin, &self.pending)
    }

    fn describe(&self, operation: &str) -> String {
        format!("nftables table {}: {operation}", self.table)
    }

    fn next_sequence(&self) -> u32 {
        // 1 is the begin of the transaction.
        u32::try_from(self.pending.len()).unwrap_or(u32::MAX).saturating_add(2)
    }

    fn bracket(&mut self, kind: u16) {
        let sequence = if kind == NFNL_MSG_BATCH_BEGIN { 1 } else { self.next_sequence() };
        self.buffer.begin(kind, NLM_F_REQUEST, sequence);
        // struct nfgenmsg: family, version, resource id
        self.buffer.put(&[0, 0]);
        self.buffer.put(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
        self.buffer.finish();
    }

    fn request(&mut self, kind: u16, flags: u16, operation: String, fill: impl FnOnce(&mut Buffer, &str)) {
        let sequence = self.next_sequence();
        self.buffer.begin(NFNL_SUBSYS_NFTABLES << 8 | kind, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
        self.buffer.put(&[self.family.number(), 0, 0, 0]);
        fill(&mut self.buffer, &self.table);
        self.buffer.finish();
        let operation = self.describe(&operation);
        self.pending.push(Pending { sequence, operation, tolerated: None });
    }
}

fn put_element(list: &mut Buffer, element: &Element) {
    list.nested(NFTA_LIST_ELEM, |attrs| {
        if element.interval_end {
            attrs.attr_be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        }
        attrs.nested(NFTA_SET_ELEM_KEY, |key| key.attr(NFTA_DATA_VALUE, &element.key));
        if !element.data.is_empty() {
            attrs.nested(NFTA_SET_ELEM_DATA, |data| data.attr(NFTA_DATA_VALUE, &element.data));
        }
    });
}

fn comment_tlv(comment: &str) -> Vec<u8> {
    let text = comment.as_bytes();
    let text = &text[..text.len().min(120)];
    let mut tlv = vec![UDATA_RULE_COMMENT, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    tlv.extend_from_slice(text);
    tlv.push(0);
    tlv
}

/// Whether a transaction failed because the table, or an element to delete, does not exist.
pub fn is_missing(error: &NetlinkError) -> bool {
    error.errno() == Some(Errno::NOENT)
}
