//! IPv4 networks in CIDR notation.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network: address and prefix length, host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// The text is no IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {text}")]
pub struct ParseNetError {
    text: String,
}

impl Ipv4Net {
    /// The network of `prefix` bits that contains `address`. `None` when `prefix` is over 32.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), prefix })
    }

    /// First address, the network's own.
    pub fn network(self) -> Ipv4Addr {
        self.address
    }

    /// Prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Last address, the broadcast address in networks of up to 30 bits.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix).unwrap_or(u32::MAX))
    }

    /// Whether `address` lies in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.address <= address && address <= self.last()
    }

    /// Whether `other` lies wholly in the network.
    pub fn covers(self, other: Self) -> bool {
        self.contains(other.address) && self.contains(other.last())
    }

    /// Whether the two networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix)),
        _ => None,
    }
}

/// Parses an address with its prefix length, host bits kept.
pub(crate) fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), ParseNetError> {
    let wrong = || ParseNetError { text: text.to_owned() };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    if prefix.len() > 2 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    if prefix > 32 {
        return Err(wrong());
    }
    Ok((address.parse().map_err(|_| wrong())?, prefix))
}

impl FromStr for Ipv4Net {
    type Err = ParseNetError;

    /// Parses CIDR notation. Host bits are cut off, as Go's `net.ParseCIDR` does.
    fn from_str(text: &str) -> Result<Self, ParseNetError> {
        let (address, prefix) = parse_cidr(text)?;
        Self::containing(address, prefix).ok_or_else(|| ParseNetError { text: text.to_owned() })
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = ParseNetError;

    fn try_from(text: String) -> Result<Self, ParseNetError> {
        text.parse()
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_cuts_host_bits() {
        let net: Ipv4Net = "172.18.3.4/16".parse().unwrap();
        assert_eq!(net.to_string(), "172.18.0.0/16");
        assert_eq!(net.last(), Ipv4Addr::new(172, 18, 255, 255));
        for wrong in ["", "1.2.3.4", "1.2.3/8", "1.2.3.4/33", "1.2.3.4/+8", "::/0", "1.2.3.4/"] {
            assert!(wrong.parse::<Ipv4Net>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn knows_overlap_and_cover() {
        let net = |t: &str| t.parse::<Ipv4Net>().unwrap();
        assert!(net("10.0.0.0/8").overlaps(net("10.3.0.0/16")));
        assert!(net("10.3.0.0/16").overlaps(net("10.0.0.0/8")));
        assert!(!net("10.3.0.0/16").overlaps(net("10.4.0.0/16")));
        assert!(net("0.0.0.0/0").covers(net("255.255.255.255/32")));
        assert!(!net("10.3.0.0/16").covers(net("10.0.0.0/8")));
    }
}
