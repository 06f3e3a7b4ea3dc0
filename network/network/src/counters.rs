//! Traffic counters of a container's interfaces, from proc_pid_net(5).

/// Counters of one interface since it was made, as the container sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceCounters {
    /// Interface name.
    pub interface: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Received packets dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Send errors.
    pub tx_errors: u64,
    /// Packets dropped before sending.
    pub tx_dropped: u64,
}

/// Reads the text of `/proc/<pid>/net/dev`. Loopback is left out, as in `docker stats`.
pub fn parse_net_dev(text: &str) -> Vec<InterfaceCounters> {
    text.lines().skip(2).filter_map(parse_line).filter(|counters| counters.interface != "lo").collect()
}

fn parse_line(line: &str) -> Option<InterfaceCounters> {
    let (name, numbers) = line.rsplit_once(':')?;
    let n: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
    if n.len() < 12 {
        return None;
    }
    Some(InterfaceCounters {
        interface: name.trim().to_owned(),
        rx_bytes: n[0],
        rx_packets: n[1],
        rx_errors: n[2],
        rx_dropped: n[3],
        tx_bytes: n[8],
        tx_packets: n[9],
        tx_errors: n[10],
        tx_dropped: n[11],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0\n  \
            eth0: 1296 16 1 2 0 0 0 0 840 12 3 4 0 0 0 0\n broken: 1 2\n";
        let counters = parse_net_dev(text);
        assert_eq!(counters.len(), 1);
        let eth0 = &counters[0];
        assert_eq!(eth0.interface, "eth0");
        assert_eq!((eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped), (1296, 16, 1, 2));
        assert_eq!((eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped), (840, 12, 3, 4));
    }
}
