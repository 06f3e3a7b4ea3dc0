//! Expressions of rules: what is loaded, compared, looked up and done.

use super::{NFTA_DATA_VALUE, NFTA_LIST_ELEM};
use crate::message::Buffer;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_LOOKUP_FLAGS: u16 = 5;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG32_00: u32 = 8;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;

/// What `meta` loads; `enum nft_meta_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Name of the interface the packet came in through, 16 bytes.
    InputName = 6,
    /// Name of the interface the packet leaves through, 16 bytes.
    OutputName = 7,
    /// Network protocol: 2 is IPv4. One byte.
    NetworkProtocol = 15,
    /// Transport protocol, one byte.
    TransportProtocol = 16,
}

/// What `ct` loads; `enum nft_ct_keys`. Bit fields of 4 bytes in the machine's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// State: 2 established, 4 related, 8 new.
    State = 0,
    /// Status: 32 destination translated.
    Status = 2,
}

/// Which header a payload's offset counts from; `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadBase {
    /// IP header.
    Network = 1,
    /// TCP, UDP or SCTP header.
    Transport = 2,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Leaves this table's chain for good; other tables may still drop it.
    Accept,
    /// Ends here.
    Drop,
    /// Goes on in the calling chain.
    Return,
    /// Goes through another chain and comes back.
    Jump(&'a str),
}

/// One expression. `register` counts in steps of four bytes from 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expression<'a> {
    /// Loads a fact about the packet.
    Meta {
        /// Which one.
        key: MetaKey,
        /// Where to.
        register: u32,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Which header.
        base: PayloadBase,
        /// Bytes into it.
        offset: u32,
        /// How many bytes.
        length: u32,
        /// Where to.
        register: u32,
    },
    /// Loads a fact about the connection.
    Ct {
        /// Which one.
        key: CtKey,
        /// Where to.
        register: u32,
    },
    /// Loads the type of the destination address: 2 (`RTN_LOCAL`) is the host's own. 4 bytes, machine's order.
    FibDestinationType {
        /// Where to.
        register: u32,
    },
    /// Keeps the bits of `mask`, in place.
    And {
        /// Register.
        register: u32,
        /// Bits to keep.
        mask: &'a [u8],
    },
    /// Goes on if equal.
    Equal {
        /// Register.
        register: u32,
        /// Value.
        value: &'a [u8],
    },
    /// Goes on if different.
    Different {
        /// Register.
        register: u32,
        /// Value.
        value: &'a [u8],
    },
    /// Goes on if the registers are in a set, or with `inverted` if they are not.
    InSet {
        /// Name of the set.
        set: &'a str,
        /// First register of the key.
        register: u32,
        /// Not in the set.
        inverted: bool,
    },
    /// Loads a map's value; does not go on if there is none.
    Map {
        /// Name of the map.
        map: &'a str,
        /// First register of the key.
        register: u32,
        /// First register of the value.
        to: u32,
    },
    /// Translates the destination to an IPv4 address and a port in registers.
    DestinationNat {
        /// Register of the address.
        address: u32,
        /// Register of the port.
        port: u32,
    },
    /// Translates the source to the outgoing interface's address.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// Decides.
    Verdict(Verdict<'a>),
}

impl<'a> Expression<'a> {
    /// Loads the source address of an IPv4 packet.
    pub fn ipv4_source(register: u32) -> Self {
        Self::Payload { base: PayloadBase::Network, offset: 12, length: 4, register }
    }

    /// Loads the destination address of an IPv4 packet.
    pub fn ipv4_destination(register: u32) -> Self {
        Self::Payload { base: PayloadBase::Network, offset: 16, length: 4, register }
    }

    /// Loads the destination port of TCP, UDP and SCTP.
    pub fn destination_port(register: u32) -> Self {
        Self::Payload { base: PayloadBase::Transport, offset: 2, length: 2, register }
    }

    /// Goes on for IPv4 packets; for tables of both families.
    pub fn is_ipv4() -> [Self; 2] {
        [Self::Meta { key: MetaKey::NetworkProtocol, register: 0 }, Self::Equal { register: 0, value: &[2] }]
    }

    pub(super) fn put(&self, list: &mut Buffer) {
        list.nested(NFTA_LIST_ELEM, |expression| {
            expression.attr_str(NFTA_EXPR_NAME, self.name());
            expression.nested(NFTA_EXPR_DATA, |data| self.put_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Ct { .. } => "ct",
            Self::FibDestinationType { .. } => "fib",
            Self::And { .. } => "bitwise",
            Self::Equal { .. } | Self::Different { .. } => "cmp",
            Self::InSet { .. } | Self::Map { .. } => "lookup",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Verdict(_) => "immediate",
        }
    }

    fn put_data(&self, data: &mut Buffer) {
        match *self {
            Self::Meta { key, register } => {
                data.attr_be32(NFTA_META_KEY, key as u32);
                data.attr_be32(NFTA_META_DREG, number(register));
            }
            Self::Payload { base, offset, length, register } => {
                data.attr_be32(NFTA_PAYLOAD_DREG, number(register));
                data.attr_be32(NFTA_PAYLOAD_BASE, base as u32);
                data.attr_be32(NFTA_PAYLOAD_OFFSET, offset);
                data.attr_be32(NFTA_PAYLOAD_LEN, length);
            }
            Self::Ct { key, register } => {
                data.attr_be32(NFTA_CT_DREG, number(register));
                data.attr_be32(NFTA_CT_KEY, key as u32);
            }
            Self::FibDestinationType { register } => {
                data.attr_be32(NFTA_FIB_DREG, number(register));
                data.attr_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
                data.attr_be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
            }
            Self::And { register, mask } => put_and(data, register, mask),
            Self::Equal { register, value } => put_compare(data, register, NFT_CMP_EQ, value),
            Self::Different { register, value } => put_compare(data, register, NFT_CMP_NEQ, value),
            Self::InSet { set, register, inverted } => {
                data.attr_str(NFTA_LOOKUP_SET, set);
                data.attr_be32(NFTA_LOOKUP_SREG, number(register));
                if inverted {
                    data.attr_be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
                }
            }
            Self::Map { map, register, to } => {
                data.attr_str(NFTA_LOOKUP_SET, map);
                data.attr_be32(NFTA_LOOKUP_SREG, number(register));
                data.attr_be32(NFTA_LOOKUP_DREG, number(to));
            }
            Self::DestinationNat { address, port } => {
                data.attr_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
                data.attr_be32(NFTA_NAT_FAMILY, NFPROTO_IPV4);
                data.attr_be32(NFTA_NAT_REG_ADDR_MIN, number(address));
                data.attr_be32(NFTA_NAT_REG_PROTO_MIN, number(port));
            }
            Self::Masquerade | Self::Counter => {}
            Self::Verdict(verdict) => put_verdict(data, verdict),
        }
    }
}

/// The kernel's number of a register. nft writes the first one in its old, 16 byte wide form; so do we, for the
/// sake of what `nft list` expects.
fn number(register: u32) -> u32 {
    if register == 0 { NFT_REG_1 } else { NFT_REG32_00 + register }
}

fn put_and(data: &mut Buffer, register: u32, mask: &[u8]) {
    data.attr_be32(NFTA_BITWISE_SREG, number(register));
    data.attr_be32(NFTA_BITWISE_DREG, number(register));
    data.attr_be32(NFTA_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(0));
    data.nested(NFTA_BITWISE_MASK, |value| value.attr(NFTA_DATA_VALUE, mask));
    data.nested(NFTA_BITWISE_XOR, |value| value.attr(NFTA_DATA_VALUE, &vec![0; mask.len()]));
}

fn put_compare(data: &mut Buffer, register: u32, operator: u32, value: &[u8]) {
    data.attr_be32(NFTA_CMP_SREG, number(register));
    data.attr_be32(NFTA_CMP_OP, operator);
    data.nested(NFTA_CMP_DATA, |attrs| attrs.attr(NFTA_DATA_VALUE, value));
}

fn put_verdict(data: &mut Buffer, verdict: Verdict<'_>) {
    let (code, chain) = match verdict {
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Drop => (NF_DROP, None),
        Verdict::Return => (NFT_RETURN, None),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
    };
    data.attr_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    data.nested(NFTA_IMMEDIATE_DATA, |value| {
        value.nested(NFTA_DATA_VERDICT, |attrs| {
            attrs.attr_be32(NFTA_VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                attrs.attr_str(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}
