//! rtnetlink and nftables requests used by Hull's networks.
