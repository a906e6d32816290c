//! Which destinations `include: auto` stands for.
//!
//! Where it is known in which ranges Services get their addresses (Kubernetes' ServiceCIDRs), these are
//! captured: they never change, and a Service is captured before it is known. Of what lies in none of
//! them, and everywhere else, only addresses of Services are known.
//!
//! Exact addresses would touch nothing else, but a chain of rules is walked by each new connection, and
//! it would change with every Service. One wide range would be short and stable, but could cover hosts
//! that are no Services. So: exact addresses, neighbours merged, while they are few; beyond that the
//! smallest of three widths that makes them few. The widest, a /16 (a /108), is no wider than the
//! Service ranges that clusters are set up with, and what is captured in it without being known passes
//! through to where it was going.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most prefixes of one family that `auto` makes from addresses of Services.
pub const AUTO_PREFIXES: usize = 256;
/// Prefix lengths (IPv4, IPv6) to try in turn, until few enough remain.
const WIDTHS: [(u8, u8); 4] = [(32, 128), (24, 120), (20, 116), (16, 108)];

/// The destinations to capture: `service_cidrs`, those for Services elsewhere, and `virtual_range`, which
/// is always among them. For Services elsewhere at most [`AUTO_PREFIXES`] a family: of Services spread over
/// more /16s (/108s) than that, the highest addresses are left out (`status` names Services that are not
/// captured). Addresses that no Service can have (loopback, link-local, multicast, unspecified) are skipped.
pub fn auto_include(
    service_cidrs: &[IpNet],
    cluster_ips: &[IpAddr],
    virtual_range: &[IpNet],
) -> Vec<IpNet> {
    let known = cluster_ips.iter().map(IpAddr::to_canonical).filter(can_be_a_service);
    let known: Vec<IpAddr> = known.filter(|ip| !covers(service_cidrs, *ip)).collect();
    let mut include = narrowest(&known, IpAddr::is_ipv4);
    include.extend(narrowest(&known, IpAddr::is_ipv6));
    include.extend(service_cidrs.iter().chain(virtual_range).map(IpNet::trunc));
    IpNet::aggregate(&include)
}

/// Whether `address` lies in one of `ranges`.
pub fn covers(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// Prefixes of one family, neighbours merged, sorted.
pub(super) fn of_family(ranges: &[IpNet], v4: bool) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> =
        IpNet::aggregate(&ranges.iter().map(IpNet::trunc).collect::<Vec<_>>());
    ranges.retain(|range| range.addr().is_ipv4() == v4);
    ranges.sort();
    ranges
}

fn narrowest(known: &[IpAddr], family: fn(&IpAddr) -> bool) -> Vec<IpNet> {
    let mut merged = Vec::new();
    for width in WIDTHS {
        let covering: Vec<IpNet> =
            known.iter().filter(|ip| family(ip)).map(|ip| covering(*ip, width)).collect();
        merged = IpNet::aggregate(&covering);
        if merged.len() <= AUTO_PREFIXES {
            break;
        }
    }
    merged.truncate(AUTO_PREFIXES);
    merged
}

fn covering(address: IpAddr, (v4, v6): (u8, u8)) -> IpNet {
    match address {
        IpAddr::V4(a) => Ipv4Net::new_assert(a, v4).trunc().into(),
        IpAddr::V6(a) => Ipv6Net::new_assert(a, v6).trunc().into(),
    }
}

/// Each refused range is aligned to at least the widest of [`WIDTHS`], so that widening an
/// admitted address never reaches into one.
fn can_be_a_service(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first != 0 && first < 224 && !a.is_loopback() && !a.is_link_local()
        }
        IpAddr::V6(a) => {
            let segments = a.segments();
            let low = segments[..6] == [0; 6]; // ::, ::1 and their neighbours
            !low && !a.is_multicast() && segments[0] & 0xffc0 != 0xfe80
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn check(ips: &[&str], ranges: &[&str], want: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let ranges: Vec<IpNet> = ranges.iter().map(|net| net.parse().unwrap()).collect();
        let want: Vec<IpNet> = want.iter().map(|net| net.parse().unwrap()).collect();
        assert_eq!(auto_include(&[], &ips, &ranges), want, "{ips:?} {ranges:?}");
    }

    #[test]
    fn few_addresses_stay_exact() {
        check(&[], &[], &[]);
        check(&[], &["198.18.0.0/16", "fd96::/112"], &["198.18.0.0/16", "fd96::/112"]);
        check(&["10.96.0.1"], &[], &["10.96.0.1/32"]);
        check(&["10.96.0.1", "10.96.0.1"], &[], &["10.96.0.1/32"]);
        check(&["10.96.0.10", "10.96.0.11"], &[], &["10.96.0.10/31"]);
        check(&["10.96.0.1", "fd00::7"], &[], &["10.96.0.1/32", "fd00::7/128"]);
        check(&["198.18.3.4"], &["198.18.0.0/16"], &["198.18.0.0/16"]);
        check(&["::ffff:10.96.0.1"], &[], &["10.96.0.1/32"]);
    }

    #[test]
    fn service_cidrs_stand_for_the_addresses_in_them() {
        let nets =
            |text: &[&str]| text.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let cidrs = nets(&["10.96.0.0/16", "fd00:96::/112"]);
        let ips =
            ["10.96.0.1", "10.96.7.7", "fd00:96::7", "10.97.0.1", "192.168.1.20", "fd00:97::1"];
        let ips = ips.map(|ip| ip.parse().unwrap());
        let include = auto_include(&cidrs, &ips, &nets(&["198.18.0.0/16"]));
        let others = ["10.97.0.1/32", "192.168.1.20/32", "198.18.0.0/16", "fd00:97::1/128"];
        let mut want: Vec<IpNet> = nets(&others).into_iter().chain(cidrs.clone()).collect();
        want.sort_unstable();
        assert_eq!(include, want);
        // Neighbours merge, and a thousand Services in a range need no rule of their own.
        assert_eq!(
            auto_include(&cidrs, &v4(1000, 7), &nets(&["10.97.0.0/16"])),
            nets(&["10.96.0.0/15", "fd00:96::/112"])
        );
    }

    #[test]
    fn what_can_be_no_service_is_skipped() {
        let no = ["0.0.0.0", "127.0.0.1", "169.254.96.16", "224.0.0.1", "255.255.255.255"];
        check(&no, &[], &[]);
        check(&["::", "::1", "::5", "fe80::1", "febf::1", "ff02::1", "::ffff:127.0.0.1"], &[], &[]);
    }

    fn v4(n: u32, step: u32) -> Vec<IpAddr> {
        (0..n).map(|i| Ipv4Addr::from(0x0a60_0000 + i * step).into()).collect()
    }

    #[test]
    fn many_addresses_become_few_prefixes_that_cover_them_and_no_more_than_a_16() {
        let v6 = (0..5000_u128).map(|i| Ipv6Addr::from((0xfd00 << 112) | (i * 3)).into());
        let sets: [(Vec<IpAddr>, u8); 6] = [
            (v4(256, 2), 32),
            (v4(257, 2), 24),
            (v4(10_000, 2), 20), // 79 /24s
            (v4(60_000, 600), 16),
            (v6.collect(), 120),
            (v4(60_000, 1), 24),
        ];
        for (ips, width) in sets {
            let include = auto_include(&[], &ips, &[]);
            assert!(include.len() <= AUTO_PREFIXES, "{}", include.len());
            for ip in &ips {
                assert!(covers(&include, *ip), "{ip} is left out of {include:?}");
            }
            // Neighbours may merge into something wider, but each part of it holds a Service.
            for net in &include {
                let parts = net.subnets(width.max(net.prefix_len())).unwrap();
                for part in parts {
                    assert!(ips.iter().any(|ip| part.contains(ip)), "{part} has no Service");
                }
            }
        }
    }

    #[test]
    fn the_bound_holds_for_services_everywhere() {
        let ips: Vec<IpAddr> =
            (0..600_u32).map(|i| Ipv4Addr::from((1 << 24) + (i << 17)).into()).collect();
        let include = auto_include(&[], &ips, &[]);
        assert_eq!(include.len(), AUTO_PREFIXES);
        assert!(include.iter().all(|net| net.prefix_len() == 16), "{include:?}");
    }
}
