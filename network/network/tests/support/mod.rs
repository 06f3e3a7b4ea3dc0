//! Network namespaces with real sockets in them. Needs root, `unshare`, `ip` and `nft`.

// Every test file uses its own part of this.
#![allow(dead_code, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hull_netlink::in_namespace;
use hull_network::{AttachRequest, BridgeNetwork, Bridges, Endpoint, PortMapping, Protocol};

const WAIT: Duration = Duration::from_secs(10);
/// How long nothing must come through where nothing may.
const SILENCE: Duration = Duration::from_millis(400);

/// A network namespace held by a sleeping process.
pub(crate) struct NetNs {
    holder: Child,
    file: File,
}

impl NetNs {
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("own namespace");
        let end = Instant::now() + WAIT;
        while std::fs::read_link(&path).ok().as_ref() == Some(&own) {
            assert!(Instant::now() < end, "no new namespace");
            thread::yield_now();
        }
        let file = File::open(&path).expect("namespace opens");
        Self { holder, file }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Runs a closure in the namespace, on a thread of its own.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        in_namespace(self.fd(), work).expect("namespace entered")
    }

    pub(crate) fn ip(&self, line: &str) {
        self.run(|| command("ip", line));
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a program in the calling thread's namespace and returns its output.
pub(crate) fn command(program: &str, line: &str) -> String {
    let output = Command::new(program).args(line.split_whitespace()).output().expect("program runs");
    assert!(output.status.success(), "{program} {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host of its own with a neighbour outside: 10.99.0.1 is the host, 10.99.0.2 the neighbour, who routes
/// everything through the host.
pub(crate) struct World {
    pub(crate) host: NetNs,
    pub(crate) outside: NetNs,
}

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

impl World {
    pub(crate) fn new() -> Self {
        let (host, outside) = (NetNs::new(), NetNs::new());
        host.ip("link set lo up");
        // The stricter setting, which some distributions have: packets must come from where answers would go.
        host.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")).expect("rp_filter set");
        outside.ip("link set lo up");
        host.ip(&format!("link add out0 type veth peer name eth0 netns {}", outside.pid()));
        host.ip("addr add 10.99.0.1/24 dev out0");
        host.ip("link set out0 up");
        outside.ip("addr add 10.99.0.2/24 dev eth0");
        outside.ip("link set eth0 up");
        outside.ip("route add default via 10.99.0.1");
        Self { host, outside }
    }

    /// Runs a closure on the host.
    pub(crate) fn on_host<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.host.run(work)
    }

    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.on_host(|| command("ip", "-o link"));
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn ruleset(&self) -> String {
        self.on_host(|| command("nft", "list ruleset"))
    }
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A fresh id of 64 hex digits.
pub(crate) fn id() -> String {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{n:012x}").chars().chain("0123456789abcdef".chars().cycle()).take(64).collect()
}

pub(crate) fn network(subnet: &str) -> BridgeNetwork {
    let subnet: hull_network::Ipv4Net = subnet.parse().expect("subnet");
    let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
    BridgeNetwork::new(&id(), subnet, gateway)
}

/// A container's network namespace on a network.
pub(crate) struct Container {
    pub(crate) ns: NetNs,
    pub(crate) endpoint: Endpoint,
}

impl Container {
    pub(crate) fn new(world: &World, bridges: &Bridges, network: &BridgeNetwork, last: u8) -> Self {
        let ns = NetNs::new();
        let request = request(network, last);
        let attached = world.on_host(|| bridges.attach(ns.fd(), network, &request));
        Self { ns, endpoint: attached.expect("attached") }
    }

    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.endpoint.address
    }
}

pub(crate) fn request(network: &BridgeNetwork, last: u8) -> AttachRequest {
    AttachRequest {
        endpoint_id: id(),
        container_id: id(),
        address: Ipv4Addr::from_bits(network.subnet.network().to_bits() + u32::from(last)),
        mac: None,
        interface: "eth0".to_owned(),
        default_route: true,
    }
}

pub(crate) fn tcp(
    host_ip: Ipv4Addr,
    host_port: u16,
    container: &Container,
    container_port: u16,
) -> PortMapping {
    let protocol = Protocol::Tcp;
    PortMapping { protocol, host_ip, host_port, container_ip: container.ip(), container_port }
}

/// Answers every connection with `<name> <address of the caller>`, for as long as the test runs.
pub(crate) fn serve(ns: &NetNs, port: u16, name: &str) {
    let listener = ns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("listening");
    let name = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(peer) = stream.peer_addr() else { continue };
            let _ = write!(stream, "{name} {}", peer.ip());
        }
    });
}

/// The same over UDP.
pub(crate) fn serve_udp(ns: &NetNs, port: u16, name: &str) {
    let socket = ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).expect("bound");
    let name = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// Connects from a namespace and reads what is answered.
pub(crate) fn fetch(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<String, std::io::Error> {
    fetch_within(ns, address, port, WAIT)
}

/// Whether nothing answers. Refused counts; silence counts after a moment.
pub(crate) fn unreachable(ns: &NetNs, address: Ipv4Addr, port: u16) -> bool {
    fetch_within(ns, address, port, SILENCE).is_err()
}

fn fetch_within(ns: &NetNs, address: Ipv4Addr, port: u16, wait: Duration) -> Result<String, std::io::Error> {
    ns.run(|| {
        let target = SocketAddr::V4(SocketAddrV4::new(address, port));
        let mut stream = TcpStream::connect_timeout(&target, wait)?;
        stream.set_read_timeout(Some(wait))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

pub(crate) fn ask_udp(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<String, std::io::Error> {
    ns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect((address, port))?;
        socket.send(b"hello")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

/// A UDP sender that keeps its port, and so its conversation.
pub(crate) struct UdpSender {
    socket: UdpSocket,
    target: SocketAddrV4,
}

impl UdpSender {
    pub(crate) fn new(ns: &NetNs, address: Ipv4Addr, port: u16) -> Self {
        let socket = ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("bound");
        socket.set_read_timeout(Some(SILENCE)).expect("timeout set");
        Self { socket, target: SocketAddrV4::new(address, port) }
    }

    /// Sends a packet and waits for an answer, for a moment.
    pub(crate) fn ask(&self) -> Option<String> {
        self.socket.send_to(b"hello", self.target).ok()?;
        let mut buffer = [0; 64];
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
