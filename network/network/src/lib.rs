//! Container networks: address management, bridge, veth, published ports, name files.
