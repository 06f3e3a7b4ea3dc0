//! What is in the kernel before, during and after: reconciliation, leaks, undo. Needs root.

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hull_network::{Bridges, NetworkError, PortAllocator, PortRequest, counters};
use support::*;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// nft reads the table back as it was meant.
#[test]
fn the_table_reads_as_meant() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let mut internal = network("172.18.0.0/16");
    internal.internal = true;
    internal.icc = false;
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.reconcile(&[net.clone(), internal.clone()], &[])).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    world.on_host(|| bridges.publish(&[tcp(ANY, 8080, &web, 80), tcp(HOST, 8081, &web, 81)])).unwrap();
    let rules = world.ruleset();
    for expected in [
        "tcp . 8080 : 172.17.0.2 . 80",
        "10.99.0.1 . tcp . 8081 : 172.17.0.2 . 81",
        "elements = { 172.17.0.0/16, 172.18.0.0/16 }",
        "elements = { 172.17.0.0/16 }",
        "dnat ip to ip daddr . meta l4proto . th dport map @ports",
        "dnat ip to meta l4proto . th dport map @ports_any",
        "fib daddr type local jump publish",
        "ct state established,related accept",
        "iifname . oifname @icc accept",
        "iifname @bridges ip daddr 127.0.0.0/8 drop",
        "ip saddr @outbound oifname != @bridges masquerade",
        "type nat hook prerouting priority dstnat; policy accept;",
    ] {
        assert!(rules.contains(expected), "{expected} in\n{rules}");
    }
    assert!(rules.contains(&format!(
        "set internal {{\n\t\ttype ifname\n\t\telements = {{ \"{}\" }}",
        internal.bridge
    )));
}

#[test]
fn after_teardown_nothing_is_left() {
    let world = World::new();
    let before = (world.links(), world.ruleset());
    let bridges = Bridges::new("e1");
    let networks = [network("172.17.0.0/16"), network("172.18.0.0/16"), network("172.19.0.0/16")];
    for net in &networks {
        world.on_host(|| bridges.ensure(net)).unwrap();
        world.on_host(|| bridges.ensure(net)).expect("twice does no harm");
    }
    let ended = Container::new(&world, &bridges, &networks[0], 2);
    let live = Container::new(&world, &bridges, &networks[1], 2);
    let port = tcp(ANY, 8080, &ended, 80);
    world.on_host(|| bridges.publish(std::slice::from_ref(&port))).unwrap();

    world.on_host(|| bridges.unpublish(&[port])).unwrap();
    drop(ended.ns);
    world.on_host(|| bridges.detach(&live.endpoint)).unwrap();
    world.on_host(|| bridges.detach(&live.endpoint)).expect("twice does no harm");
    assert!(!live.ns.run(|| command("ip", "-o link")).contains("eth0"));
    wait_for("the ended container's veth is gone", || {
        !world.links().contains(&ended.endpoint.host_interface)
    });
    // The middle one of three adjacent subnets first: intervals that touch must stay apart.
    for net in [&networks[1], &networks[0], &networks[2]] {
        world.on_host(|| bridges.remove(net)).unwrap();
        world.on_host(|| bridges.remove(net)).expect("twice does no harm");
    }
    assert_eq!(world.ruleset().matches("elements").count(), 0, "{}", world.ruleset());
    world.on_host(|| bridges.purge()).unwrap();
    assert_eq!((world.links(), world.ruleset()), before);
}

#[test]
fn reconcile_removes_strays_and_rebuilds_what_is_missing() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let other = Bridges::new("e2");
    let (kept, stray, foreign) =
        (network("172.17.0.0/16"), network("172.18.0.0/16"), network("172.19.0.0/16"));
    for (driver, net) in [(&bridges, &kept), (&bridges, &stray), (&other, &foreign)] {
        world.on_host(|| driver.ensure(net)).unwrap();
    }
    let mut web = Container::new(&world, &bridges, &kept, 2);
    let forgotten = Container::new(&world, &bridges, &kept, 3);
    let foreigner = Container::new(&world, &other, &foreign, 2);
    serve(&web.ns, 80, "web");
    web.endpoint.ports = vec![tcp(ANY, 8080, &web, 80)];
    world.on_host(|| bridges.publish(&web.endpoint.ports)).unwrap();
    world.on_host(|| bridges.publish(&[tcp(ANY, 9999, &forgotten, 80)])).unwrap();
    world.host.ip("link add docker0 type bridge");

    let known = [web.endpoint.clone()];
    let done = world.on_host(|| bridges.reconcile(std::slice::from_ref(&kept), &known)).unwrap();
    let mut removed = done.removed.clone();
    removed.sort();
    let mut strays = vec![stray.bridge.clone(), forgotten.endpoint.host_interface.clone()];
    strays.sort();
    assert_eq!((removed, done.created), (strays, vec![]));
    let links = world.links();
    for name in ["docker0", &foreign.bridge, &foreigner.endpoint.host_interface, &kept.bridge] {
        assert!(links.iter().any(|link| link == name), "{name} in {links:?}");
    }
    assert!(fetch(&world.outside, HOST, 8080).is_ok());
    assert!(!world.ruleset().contains("9999"));
    assert!(world.ruleset().contains("table inet hull-e2"));

    // The bridge and the table vanish: somebody cleaned up too much.
    world.host.ip(&format!("link del {}", kept.bridge));
    world.on_host(|| command("nft", "flush ruleset"));
    let error = world.on_host(|| bridges.publish(&web.endpoint.ports)).unwrap_err();
    assert!(matches!(error, NetworkError::FirewallGone { .. }), "{error}");
    let request = request(&kept, 9);
    let error = world.on_host(|| bridges.attach(forgotten.ns.fd(), &kept, &request)).unwrap_err();
    assert!(matches!(error, NetworkError::BridgeMissing { .. }), "{error}");
    let done = world.on_host(|| bridges.reconcile(std::slice::from_ref(&kept), &known)).unwrap();
    assert_eq!(done.created, [kept.bridge.as_str()]);
    assert!(fetch(&world.outside, HOST, 8080).is_ok(), "the running container is back on its network");
    let done = world.on_host(|| bridges.reconcile(std::slice::from_ref(&kept), &known)).unwrap();
    assert_eq!(done, Default::default(), "a second time changes nothing");
}

#[test]
fn interfaces_of_others_are_left_alone() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let mut net = network("172.17.0.0/16");
    net.bridge = "br-theirs".to_owned();
    world.host.ip("link add br-theirs type bridge");
    let before = (world.links(), world.ruleset());
    let error = world.on_host(|| bridges.ensure(&net)).unwrap_err();
    assert!(matches!(error, NetworkError::BridgeTaken { .. }), "{error}");
    world.on_host(|| bridges.remove(&net)).unwrap();
    assert!(world.links().contains(&"br-theirs".to_owned()));
    assert_eq!(world.links(), before.0);
}

#[test]
fn a_failed_attach_leaves_nothing() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let ns = NetNs::new();
    // The container's side fails: its default route is taken.
    ns.ip("link add dummy0 type veth peer name dummy1");
    ns.ip("link set dummy0 up");
    ns.ip("link set dummy1 up");
    ns.ip("addr add 10.1.1.1/24 dev dummy0");
    ns.ip("route add default via 10.1.1.2");
    let before = world.links();
    let error = world.on_host(|| bridges.attach(ns.fd(), &net, &request(&net, 2))).unwrap_err();
    assert!(matches!(error, NetworkError::Link { .. }), "{error}");
    assert_eq!(world.links(), before);
    // The host's side fails: the name in the container is taken.
    let mut taken = request(&net, 2);
    taken.interface = "dummy0".to_owned();
    let error = world.on_host(|| bridges.attach(ns.fd(), &net, &taken)).unwrap_err();
    assert!(matches!(error, NetworkError::Link { .. }), "{error}");
    assert_eq!(world.links(), before);
    assert!(ns.run(|| command("ip", "-o link")).contains("dummy0"));
}

#[test]
fn a_container_sees_what_was_asked_for() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let mut net = network("172.17.0.0/16");
    net.mtu = Some(1400);
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let ns = NetNs::new();
    let mut wanted = request(&net, 77);
    wanted.mac = Some([0x02, 1, 2, 3, 4, 5]);
    let endpoint = world.on_host(|| bridges.attach(ns.fd(), &net, &wanted)).unwrap();
    assert_eq!(endpoint.mac, "02:01:02:03:04:05");
    let seen = ns.run(|| command("ip", "addr show eth0"));
    for part in ["mtu 1400", "02:01:02:03:04:05", "172.17.0.77/16 brd 172.17.255.255", "state UP"] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    assert!(!seen.contains("inet6"), "{seen}");
    let details = ns.run(|| command("ip", "-d link show eth0"));
    assert!(details.contains("numtxqueues 1 ") && details.contains("numrxqueues 1 "), "{details}");
    assert!(ns.run(|| command("ip", "route")).contains("default via 172.17.0.1 dev eth0"));
    assert!(ns.run(|| command("ip", "addr show lo")).contains("inet 127.0.0.1/8"));
    let bridge = world.on_host(|| command("ip", &format!("addr show {}", net.bridge)));
    for part in ["mtu 1400", "172.17.0.1/16 brd 172.17.255.255", "02:42:ac:11:00:01"] {
        assert!(bridge.contains(part), "{part} in {bridge}");
    }
    assert!(!bridge.contains("inet6"), "{bridge}");

    let second = network("172.18.0.0/16");
    world.on_host(|| bridges.ensure(&second)).unwrap();
    let mut wanted = request(&second, 2);
    (wanted.interface, wanted.default_route) = ("eth1".to_owned(), false);
    world.on_host(|| bridges.attach(ns.fd(), &second, &wanted)).unwrap();
    let text = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let names: Vec<String> = counters::parse_net_dev(&text).into_iter().map(|c| c.interface).collect();
    assert_eq!(names, ["eth0", "eth1"]);
}

#[test]
fn loopback_alone_for_network_none() {
    let ns = NetNs::new();
    Bridges::new("e1").attach_loopback(ns.fd()).unwrap();
    assert!(ns.run(|| command("ip", "addr show lo")).contains("inet 127.0.0.1/8"));
    assert!(Bridges::new("e1").attach_loopback(std::os::fd::AsFd::as_fd(&std::io::stderr())).is_err());
}

#[test]
fn a_held_port_reaches_the_container_and_no_listener() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    serve(&web.ns, 80, "web");
    let ports = PortAllocator::new();
    let mapping = tcp(ANY, 8080, &web, 80);
    let held = world.on_host(|| ports.reserve(&PortRequest::from(&mapping))).unwrap();
    world.on_host(|| bridges.publish(&[held.mapping().clone()])).unwrap();
    assert!(fetch(&world.outside, HOST, 8080).is_ok());
    assert!(fetch(&world.host, Ipv4Addr::LOCALHOST, 8080).is_ok());
    world.on_host(|| bridges.unpublish(std::slice::from_ref(&mapping))).unwrap();
    assert!(unreachable(&world.host, Ipv4Addr::LOCALHOST, 8080), "refused: nobody listens");
    serve(&world.host, 9090, "host");
    let mut taken = mapping;
    taken.host_port = 9090;
    let error = world.on_host(|| ports.reserve(&PortRequest::from(&taken))).unwrap_err();
    assert!(error.to_string().ends_with(": address already in use"), "{error}");
}

#[test]
fn host_networks_name_addresses_and_routes() {
    let world = World::new();
    world.host.ip("route add 172.17.0.0/16 via 10.99.0.2");
    world.host.ip("route add 0.0.0.0/1 via 10.99.0.2");
    let networks = world.on_host(|| Bridges::new("e1").host_networks()).unwrap();
    let text: Vec<String> = networks.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["10.99.0.0/24", "127.0.0.0/8", "172.17.0.0/16"]);
}

/// How long the steps take. Prints; fails only when something is far off.
#[test]
fn costs() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let start = Instant::now();
    world.on_host(|| bridges.reconcile(&[], &[])).unwrap();
    println!("empty table: {:?}", start.elapsed());
    let start = Instant::now();
    world.on_host(|| bridges.ensure(&net)).unwrap();
    println!("bridge: {:?}", start.elapsed());
    let (mut attach, mut publish, mut unpublish) = (Vec::new(), Vec::new(), Vec::new());
    let mut containers = Vec::new();
    for last in 2..32 {
        let ns = NetNs::new();
        let request = request(&net, last);
        let (time, endpoint) = world.on_host(|| {
            let start = Instant::now();
            let endpoint = bridges.attach(ns.fd(), &net, &request).unwrap();
            (start.elapsed(), endpoint)
        });
        attach.push(time);
        let container = Container { ns, endpoint };
        let port = [tcp(ANY, 8000 + u16::from(last), &container, 80)];
        let (on, off) = world.on_host(|| {
            let start = Instant::now();
            bridges.publish(&port).unwrap();
            let on = start.elapsed();
            let start = Instant::now();
            bridges.unpublish(&port).unwrap();
            (on, start.elapsed())
        });
        publish.push(on);
        unpublish.push(off);
        containers.push(container);
    }
    let attach = median(attach);
    println!("attach: {attach:?}, publish: {:?}, unpublish: {:?}", median(publish), median(unpublish));
    let many: Vec<_> = (1..=1000).map(|n| tcp(ANY, 20000 + n, &containers[0], n)).collect();
    let start = Instant::now();
    world.on_host(|| bridges.publish(&many)).unwrap();
    println!("publish 1000: {:?}", start.elapsed());
    let start = Instant::now();
    world.on_host(|| bridges.unpublish(&many)).unwrap();
    println!("unpublish 1000: {:?}", start.elapsed());
    assert!(attach < Duration::from_millis(100));
}
