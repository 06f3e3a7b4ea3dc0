use super::*;
use proptest::prelude::*;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn subnet(text: &str) -> PoolRequest {
    PoolRequest { subnet: Some(text.to_owned()), ..PoolRequest::default() }
}

#[test]
fn default_subnets_skip_the_host_and_each_other() {
    let mut ipam = Ipam::new();
    let host = [net("172.17.0.0/16"), net("172.19.5.0/24")];
    let any = PoolRequest::default();
    assert_eq!(ipam.create("a", &any, &host).unwrap().subnet, net("172.18.0.0/16"));
    assert_eq!(ipam.create("b", &any, &host).unwrap().subnet, net("172.20.0.0/16"));
    ipam.remove("a");
    let again = ipam.create("c", &any, &host).unwrap();
    assert_eq!((again.subnet, again.gateway), (net("172.18.0.0/16"), ip("172.18.0.1")));
}

#[test]
fn default_subnets_run_out() {
    let mut ipam = Ipam::new();
    let any = PoolRequest::default();
    let created: Vec<Pool> = (0..31).map(|n| ipam.create(&n.to_string(), &any, &[]).unwrap()).collect();
    assert_eq!(created[14].subnet, net("172.31.0.0/16"));
    assert_eq!(created[15].subnet, net("192.168.0.0/20"));
    assert_eq!(created[30].subnet, net("192.168.240.0/20"));
    assert_eq!(ipam.create("x", &any, &[]), Err(IpamError::NoSubnet));
}

#[test]
fn released_addresses_come_last() {
    let mut ipam = Ipam::new();
    ipam.create("n", &subnet("10.1.0.0/29"), &[]).unwrap();
    let first: Vec<_> = (0..3).map(|_| ipam.allocate("n").unwrap()).collect();
    assert_eq!(first, ["10.1.0.2", "10.1.0.3", "10.1.0.4"].map(ip));
    ipam.release("n", ip("10.1.0.2"));
    assert_eq!(ipam.allocate("n").unwrap(), ip("10.1.0.5"));
    assert_eq!(ipam.allocate("n").unwrap(), ip("10.1.0.6"));
    assert_eq!(ipam.allocate("n").unwrap(), ip("10.1.0.2"));
    assert!(matches!(ipam.allocate("n"), Err(IpamError::NoAddress { .. })));
}

#[test]
fn a_requested_pool_is_honoured() {
    let mut ipam = Ipam::new();
    let request = PoolRequest {
        subnet: Some("10.0.0.0/8".to_owned()),
        ip_range: Some("10.2.0.0/30".to_owned()),
        gateway: Some("10.2.0.1".to_owned()),
        aux_addresses: [("router".to_owned(), "10.2.0.2".to_owned())].into(),
    };
    ipam.create("n", &request, &[]).unwrap();
    assert_eq!(ipam.allocate("n").unwrap(), ip("10.2.0.0"));
    assert_eq!(ipam.allocate("n").unwrap(), ip("10.2.0.3"));
    assert!(ipam.allocate("n").is_err());
    ipam.claim("n", ip("10.9.9.9")).unwrap();
    assert_eq!(ipam.claim("n", ip("10.9.9.9")), Err(IpamError::InUse { address: ip("10.9.9.9") }));
    assert!(matches!(ipam.claim("n", ip("10.2.0.1")), Err(IpamError::InUse { .. })));
    assert!(matches!(ipam.claim("n", ip("10.255.255.255")), Err(IpamError::Outside { .. })));
    assert!(matches!(ipam.claim("n", ip("11.0.0.1")), Err(IpamError::Outside { .. })));
    assert!(matches!(ipam.create("m", &subnet("10.5.0.0/16"), &[]), Err(IpamError::Overlap { .. })));
}

#[test]
fn bad_requests_are_named() {
    let with = |f: fn(&mut PoolRequest)| {
        let mut request = subnet("10.1.0.0/16");
        f(&mut request);
        Ipam::new().create("n", &request, &[]).unwrap_err().to_string()
    };
    let cases = [
        (
            with(|r| r.subnet = Some("10.1.2.0/16".into())),
            "invalid subnet 10.1.2.0/16: it should be 10.1.0.0/16",
        ),
        (with(|r| r.subnet = Some("x".into())), "invalid subnet x: invalid CIDR block notation"),
        (
            with(|r| r.gateway = Some("10.2.0.1".into())),
            "parent subnet 10.1.0.0/16 doesn't contain this address",
        ),
        (with(|r| r.gateway = Some("10.1.0.0".into())), "network or broadcast address"),
        (with(|r| r.ip_range = Some("10.2.0.0/24".into())), "doesn't contain ip-range"),
        (with(|r| drop(r.aux_addresses.insert("a".into(), "nope".into()))), "invalid auxiliary address nope"),
    ];
    for (message, part) in cases {
        assert!(message.contains(part), "{message}");
    }
    let gateway_only = PoolRequest { gateway: Some("10.0.0.1".into()), ..PoolRequest::default() };
    let error = Ipam::new().create("n", &gateway_only, &[]).unwrap_err();
    assert_eq!(error, IpamError::SubnetMissing { what: "gateway" });
    assert!(matches!(Ipam::new().create("n", &subnet("fd00::/64"), &[]), Err(IpamError::Ipv6 { .. })));
}

#[derive(Debug, Clone)]
enum Step {
    Allocate,
    Claim(u8),
    Release(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Allocate),
        1 => any::<u8>().prop_map(Step::Claim),
        2 => any::<u8>().prop_map(Step::Release),
    ]
}

proptest! {
    /// Against a plain set: no address twice, none outside, none refused while one is free.
    #[test]
    fn addresses_are_unique_and_none_is_lost(prefix in 24u8..=32, steps in proptest::collection::vec(step(), 0..600)) {
        let request = subnet(&format!("10.7.7.{}/{prefix}", if prefix == 32 { 7 } else { 0 }));
        let mut ipam = Ipam::new();
        let pool = ipam.create("n", &request, &[]).unwrap();
        let size = 1usize << (32 - prefix);
        let capacity = (if prefix < 31 { size - 2 } else { size }) - 1;
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Step::Allocate => match ipam.allocate("n") {
                    Ok(address) => {
                        prop_assert!(pool.subnet.contains(address));
                        prop_assert_ne!(address, pool.gateway);
                        prop_assert!(model.insert(address), "given twice: {}", address);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, IpamError::NoAddress { network: "n".into() });
                        prop_assert_eq!(model.len(), capacity);
                    }
                },
                Step::Claim(last) => {
                    let address = Ipv4Addr::new(10, 7, 7, last);
                    if ipam.claim("n", address).is_ok() {
                        prop_assert!(model.insert(address));
                    }
                }
                Step::Release(last) => {
                    let address = Ipv4Addr::new(10, 7, 7, last);
                    ipam.release("n", address);
                    model.remove(&address);
                }
            }
            prop_assert!(model.len() <= capacity);
        }
    }

    /// Any two pools of one engine are disjoint, whatever the mixture of requests.
    #[test]
    fn pools_never_overlap(requests in proptest::collection::vec((any::<u32>(), 8u8..=30, any::<bool>()), 1..40)) {
        let mut ipam = Ipam::new();
        let mut pools: Vec<Ipv4Net> = Vec::new();
        for (n, (bits, prefix, chosen)) in requests.into_iter().enumerate() {
            let wanted = Ipv4Net::containing(Ipv4Addr::from_bits(bits), prefix).unwrap();
            let request = if chosen { subnet(&wanted.to_string()) } else { PoolRequest::default() };
            if let Ok(pool) = ipam.create(&n.to_string(), &request, &[]) {
                prop_assert!(pools.iter().all(|other| !other.overlaps(pool.subnet)));
                prop_assert!(pool.subnet.contains(pool.gateway));
                pools.push(pool.subnet);
            }
        }
    }
}
