//! Real packets between a host, its containers and an outside neighbour. Needs root.

mod support;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hull_network::{Bridges, Protocol};
use support::*;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A world whose host filters packets between the ports of a bridge, or does not. `None` where the kernel cannot.
fn world_with(br_netfilter: bool) -> Option<World> {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let world = World::new();
    if std::fs::exists(path).unwrap_or(false) {
        world.on_host(|| std::fs::write(path, if br_netfilter { "1" } else { "0" })).unwrap();
    } else if br_netfilter {
        eprintln!("br_netfilter is not loaded: not tested");
        return None;
    }
    Some(world)
}

/// A published port is reached from outside, from the host's addresses, from 127.0.0.1, from the container itself,
/// from a neighbour on its network and from another network; and from nowhere once it is unpublished.
fn published_port_everywhere(br_netfilter: bool) {
    let Some(world) = world_with(br_netfilter) else { return };
    let bridges = Bridges::new("e1");
    let (first, second) = (network("172.17.0.0/16"), network("172.18.0.0/16"));
    world.on_host(|| bridges.reconcile(&[], &[])).unwrap();
    world.on_host(|| bridges.ensure(&first)).unwrap();
    world.on_host(|| bridges.ensure(&second)).unwrap();
    let web = Container::new(&world, &bridges, &first, 2);
    let neighbour = Container::new(&world, &bridges, &first, 3);
    let stranger = Container::new(&world, &bridges, &second, 2);
    serve(&web.ns, 80, "web");
    let port = tcp(ANY, 8080, &web, 80);
    world.on_host(|| bridges.publish(std::slice::from_ref(&port))).unwrap();

    let gateway = first.gateway;
    assert_eq!(fetch(&world.outside, HOST, 8080).unwrap(), format!("web {OUTSIDE}"), "from outside");
    assert_eq!(fetch(&world.host, HOST, 8080).unwrap(), format!("web {HOST}"), "from the host's address");
    assert_eq!(fetch(&world.host, LOCALHOST, 8080).unwrap(), format!("web {gateway}"), "from 127.0.0.1");
    assert_eq!(
        fetch(&world.host, gateway, 8080).unwrap(),
        format!("web {gateway}"),
        "from the gateway's address"
    );
    assert_eq!(fetch(&web.ns, HOST, 8080).unwrap(), format!("web {gateway}"), "from the container itself");
    assert_eq!(fetch(&neighbour.ns, HOST, 8080).unwrap(), format!("web {gateway}"), "from its neighbour");
    assert_eq!(fetch(&neighbour.ns, gateway, 8080).unwrap(), format!("web {gateway}"), "over the gateway");
    assert_eq!(fetch(&stranger.ns, HOST, 8080).unwrap(), format!("web {gateway}"), "from another network");
    assert_eq!(fetch(&neighbour.ns, web.ip(), 80).unwrap(), format!("web {}", neighbour.ip()), "directly");
    assert_eq!(fetch(&world.host, web.ip(), 80).unwrap(), format!("web {gateway}"), "from the host directly");

    assert!(unreachable(&stranger.ns, web.ip(), 80), "networks are apart");
    assert!(unreachable(&world.outside, web.ip(), 80), "unpublished from outside");

    world.on_host(|| bridges.unpublish(std::slice::from_ref(&port))).unwrap();
    world.on_host(|| bridges.unpublish(&[port])).expect("twice does no harm");
    assert!(unreachable(&world.outside, HOST, 8080));
    assert!(unreachable(&world.host, LOCALHOST, 8080));
}

#[test]
fn published_port_without_br_netfilter() {
    published_port_everywhere(false);
}

#[test]
fn published_port_with_br_netfilter() {
    published_port_everywhere(true);
}

#[test]
fn containers_reach_outside_under_the_hosts_address() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let mut routed = network("172.18.0.0/16");
    routed.masquerade = false;
    let plain = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&plain)).unwrap();
    world.on_host(|| bridges.ensure(&routed)).unwrap();
    let client = Container::new(&world, &bridges, &plain, 2);
    let routed_client = Container::new(&world, &bridges, &routed, 2);
    serve(&world.outside, 90, "out");
    assert_eq!(fetch(&client.ns, OUTSIDE, 90).unwrap(), format!("out {HOST}"));
    assert_eq!(fetch(&routed_client.ns, OUTSIDE, 90).unwrap(), format!("out {}", routed_client.ip()));
}

#[test]
fn a_port_of_one_address_is_not_on_others() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    serve(&web.ns, 80, "web");
    let ports = [tcp(LOCALHOST, 8080, &web, 80), tcp(HOST, 8081, &web, 80)];
    world.on_host(|| bridges.publish(&ports)).unwrap();

    assert!(fetch(&world.host, LOCALHOST, 8080).is_ok());
    assert!(unreachable(&world.host, HOST, 8080));
    assert!(unreachable(&world.outside, HOST, 8080));
    assert!(fetch(&world.host, HOST, 8081).is_ok());
    assert!(fetch(&world.outside, HOST, 8081).is_ok());
    assert!(unreachable(&world.host, LOCALHOST, 8081));
}

#[test]
fn loopback_is_out_of_reach_for_outsiders_and_containers() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    let evil = Container::new(&world, &bridges, &net, 3);
    serve(&web.ns, 80, "web");
    serve(&world.host, 22, "host");
    world.on_host(|| bridges.publish(&[tcp(LOCALHOST, 8080, &web, 80)])).unwrap();
    assert!(fetch(&world.host, LOCALHOST, 22).is_ok());
    for (ns, via) in [(&world.outside, HOST), (&evil.ns, net.gateway)] {
        // Packets to 127.0.0.1 sent on the wire: only a hostile neighbour does this.
        ns.ip("link set lo down");
        ns.ip("addr flush dev lo");
        ns.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")).unwrap();
        ns.ip(&format!("route add 127.0.0.0/8 via {via}"));
        assert!(unreachable(ns, LOCALHOST, 8080), "published on loopback, via {via}");
        assert!(unreachable(ns, LOCALHOST, 22), "a service of the host, via {via}");
    }
}

#[test]
fn udp_is_published() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let dns = Container::new(&world, &bridges, &net, 2);
    serve_udp(&dns.ns, 53, "dns");
    let mut port = tcp(ANY, 5353, &dns, 53);
    port.protocol = Protocol::Udp;
    world.on_host(|| bridges.publish(&[port])).unwrap();
    assert_eq!(ask_udp(&world.outside, HOST, 5353).unwrap(), format!("dns {OUTSIDE}"));
    assert_eq!(ask_udp(&world.host, LOCALHOST, 5353).unwrap(), format!("dns {}", net.gateway));
    assert!(unreachable(&world.outside, HOST, 5353), "TCP is another port");
}

#[test]
fn icc_off_without_br_netfilter() {
    icc_off(false);
}

#[test]
fn icc_off_with_br_netfilter() {
    icc_off(true);
}

/// Neighbours are kept apart, but not from published ports.
fn icc_off(br_netfilter: bool) {
    let Some(world) = world_with(br_netfilter) else { return };
    let bridges = Bridges::new("e1");
    let mut net = network("172.17.0.0/16");
    net.icc = false;
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    let other = Container::new(&world, &bridges, &net, 3);
    serve(&web.ns, 80, "web");
    serve(&world.outside, 90, "out");
    world.on_host(|| bridges.publish(&[tcp(ANY, 8080, &web, 80)])).unwrap();
    assert!(unreachable(&other.ns, web.ip(), 80));
    assert!(fetch(&other.ns, HOST, 8080).is_ok());
    assert!(fetch(&world.outside, HOST, 8080).is_ok());
    assert!(fetch(&other.ns, OUTSIDE, 90).is_ok());
}

#[test]
fn internal_networks_have_no_way_out_and_none_in() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let mut net = network("172.17.0.0/16");
    net.internal = true;
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let (a, b) = (Container::new(&world, &bridges, &net, 2), Container::new(&world, &bridges, &net, 3));
    serve(&a.ns, 80, "a");
    serve(&world.outside, 90, "out");
    assert!(fetch(&b.ns, a.ip(), 80).is_ok());
    assert!(fetch(&world.host, a.ip(), 80).is_ok());
    assert!(unreachable(&b.ns, OUTSIDE, 90), "no default route");
    b.ns.ip(&format!("route add default via {}", net.gateway));
    assert!(unreachable(&b.ns, OUTSIDE, 90), "nor a way with one");
    assert!(unreachable(&world.outside, a.ip(), 80));
}

#[test]
fn two_engines_do_not_meet() {
    let world = World::new();
    let (one, two) = (Bridges::new("e1"), Bridges::new("e2"));
    let mut first = network("172.17.0.0/16");
    first.bridge = world.on_host(|| one.default_bridge_name()).unwrap();
    world.on_host(|| one.ensure(&first)).unwrap();
    let mut second = network("172.18.0.0/16");
    second.bridge = world.on_host(|| two.default_bridge_name()).unwrap();
    world.on_host(|| two.ensure(&second)).unwrap();
    assert_eq!((first.bridge.as_str(), second.bridge.as_str()), ("hull0", "hull0-e2"));
    assert_eq!(world.on_host(|| one.default_bridge_name()).unwrap(), "hull0");

    let a = Container::new(&world, &one, &first, 2);
    let b = Container::new(&world, &two, &second, 2);
    serve(&a.ns, 80, "a");
    serve(&b.ns, 80, "b");
    world.on_host(|| one.publish(&[tcp(ANY, 8080, &a, 80)])).unwrap();
    world.on_host(|| two.publish(&[tcp(ANY, 8081, &b, 80)])).unwrap();
    assert!(fetch(&world.outside, HOST, 8080).unwrap().starts_with("a "));
    assert!(fetch(&world.outside, HOST, 8081).unwrap().starts_with("b "));
    assert!(fetch(&a.ns, HOST, 8081).unwrap().starts_with("b "), "published ports are for everybody");
    assert!(unreachable(&a.ns, b.ip(), 80));
    assert!(unreachable(&b.ns, a.ip(), 80));

    world.on_host(|| two.purge()).unwrap();
    assert!(fetch(&world.outside, HOST, 8080).is_ok(), "the other engine goes on");
    assert!(!world.ruleset().contains("hull-e2"));
}

/// A container takes over the address, and so the MAC, of one that has ended but whose interface is not gone yet.
#[test]
fn a_reused_address_is_reached_at_once() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let old = Container::new(&world, &bridges, &net, 2);
    let other = Container::new(&world, &bridges, &net, 3);
    serve(&old.ns, 80, "old");
    assert!(fetch(&other.ns, old.ip(), 80).is_ok());
    assert!(fetch(&world.host, old.ip(), 80).is_ok());
    let new = Container::new(&world, &bridges, &net, 2);
    serve(&new.ns, 80, "new");
    // A lost first packet would be sent again only after a second.
    let start = Instant::now();
    assert_eq!(fetch(&world.host, new.ip(), 80).unwrap(), format!("new {}", net.gateway));
    assert_eq!(fetch(&other.ns, new.ip(), 80).unwrap(), format!("new {}", other.ip()));
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
}

/// A sender that never pauses notices when a port is published, moved and unpublished.
#[test]
fn udp_senders_notice_changes() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let (one, two) = (Container::new(&world, &bridges, &net, 2), Container::new(&world, &bridges, &net, 3));
    serve_udp(&one.ns, 53, "one");
    serve_udp(&two.ns, 53, "two");
    let sender = UdpSender::new(&world.outside, HOST, 5353);
    assert_eq!(sender.ask(), None, "nothing is published");
    let port = |container: &Container| {
        let mut port = tcp(ANY, 5353, container, 53);
        port.protocol = Protocol::Udp;
        [port]
    };
    world.on_host(|| bridges.publish(&port(&one))).unwrap();
    assert_eq!(sender.ask().as_deref(), Some("one 10.99.0.2"));
    world.on_host(|| bridges.unpublish(&port(&one))).unwrap();
    assert_eq!(sender.ask(), None, "unpublished");
    world.on_host(|| bridges.publish(&port(&two))).unwrap();
    assert_eq!(sender.ask().as_deref(), Some("two 10.99.0.2"));
}

/// Ten thousand ports in one transaction, and one of them works.
#[test]
fn a_large_range_is_published_at_once() {
    let world = World::new();
    let bridges = Bridges::new("e1");
    let net = network("172.17.0.0/16");
    world.on_host(|| bridges.ensure(&net)).unwrap();
    let web = Container::new(&world, &bridges, &net, 2);
    serve(&web.ns, 12345, "web");
    let ports: Vec<_> = (10000..20000).map(|port| tcp(ANY, port, &web, port)).collect();
    world.on_host(|| bridges.publish(&ports)).unwrap();
    assert!(fetch(&world.outside, HOST, 12345).is_ok());
    world.on_host(|| bridges.unpublish(&ports)).unwrap();
    assert!(unreachable(&world.outside, HOST, 12345));
}
