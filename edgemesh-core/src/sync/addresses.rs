//! Virtual addresses: one of each family for every Service that has none of its own, and for
//! every host of a Service.
//!
//! An address is a hash of the Service's name, moved on past those that are taken, so that it
//! is the same on every start and, for the most part, on every node; what was given out is
//! stored and stays.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgemesh_proto::record::{Body, Key, Record, Service, ServiceName, ServicePort, Transport};
use ipnet::IpNet;

use crate::snapshot::Host;
use crate::store::VirtualAddress;
use crate::sync::Moved;

/// The addresses that are given out.
#[derive(Debug)]
pub(super) struct Addresses {
    ranges: Vec<IpNet>,
    by_name: BTreeMap<Name, Vec<IpAddr>>,
    owner: HashMap<IpAddr, Name>,
}

/// Whom an address is for: a Service (no hostname), or one host of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    service: ServiceName,
    hostname: Box<str>,
}

impl Addresses {
    /// Goes on with what the store held. What is outside of `ranges` (they were changed) is
    /// given back with the next [`Addresses::settle`].
    pub(super) fn new(ranges: &[IpNet], stored: Vec<VirtualAddress>) -> Self {
        let mut new =
            Self { ranges: ranges.to_vec(), by_name: BTreeMap::new(), owner: HashMap::new() };
        for VirtualAddress { service, hostname, address } in stored {
            let name = Name { service, hostname };
            new.owner.insert(address, name.clone());
            new.by_name.entry(name).or_default().push(address);
        }
        new
    }

    /// Every Service that has some, with its addresses.
    pub(super) fn services(&self) -> Vec<(ServiceName, Vec<IpAddr>)> {
        let own = self.by_name.iter().filter(|(name, _)| name.hostname.is_empty());
        own.map(|(name, addresses)| (name.service.clone(), addresses.clone())).collect()
    }

    /// Every Service that has hosts, with all of them.
    pub(super) fn hosts(&self) -> Vec<(ServiceName, Vec<Host>)> {
        let services: BTreeSet<&ServiceName> = self.host_names().map(|n| &n.service).collect();
        services.into_iter().map(|service| (service.clone(), self.hosts_of(service))).collect()
    }

    fn host_names(&self) -> impl Iterator<Item = &Name> {
        self.by_name.keys().filter(|name| !name.hostname.is_empty())
    }

    fn hosts_of(&self, service: &ServiceName) -> Vec<Host> {
        let first = Name { service: service.clone(), hostname: "".into() };
        let all = self.by_name.range(first..).take_while(|(name, _)| name.service == *service);
        all.filter(|(name, _)| !name.hostname.is_empty())
            .map(|(name, at)| Host { name: name.hostname.clone(), addresses: at.clone() })
            .collect()
    }

    /// In the store's form.
    pub(super) fn entries(&self) -> Vec<VirtualAddress> {
        let of = |(name, addresses): (&Name, &Vec<IpAddr>)| {
            addresses.iter().map(|address| entry(name, *address)).collect::<Vec<_>>()
        };
        self.by_name.iter().flat_map(of).collect()
    }

    /// Gives addresses to those among `records` that need some, takes them from those that do
    /// not any more.
    pub(super) fn settle(&mut self, records: &BTreeMap<Key, Record>) -> Moved {
        let mut moved = Moved::default();
        let (needy, taken) = wishes(records);
        let gone: Vec<Name> =
            self.by_name.keys().filter(|name| !needy.contains(*name)).cloned().collect();
        let mut changed = BTreeSet::new();
        for name in gone {
            for address in self.by_name.remove(&name).unwrap_or_default() {
                self.owner.remove(&address);
                moved.delete.push(entry(&name, address));
            }
            changed.insert(name);
        }
        for name in needy {
            if self.give(&name, &taken, &mut moved) {
                changed.insert(name);
            }
        }
        let of_hosts: BTreeSet<&ServiceName> =
            changed.iter().filter(|name| !name.hostname.is_empty()).map(|n| &n.service).collect();
        moved.hosts = of_hosts.into_iter().map(|s| (s.clone(), self.hosts_of(s))).collect();
        for name in changed.into_iter().filter(|name| name.hostname.is_empty()) {
            let addresses = self.by_name.get(&name).cloned().unwrap_or_default();
            moved.services.push((name.service, addresses));
        }
        moved
    }

    /// `true`: something is different now.
    fn give(&mut self, name: &Name, taken: &HashSet<IpAddr>, moved: &mut Moved) -> bool {
        let mut addresses = self.by_name.get(name).cloned().unwrap_or_default();
        let before = addresses.clone();
        let ranges = &self.ranges;
        addresses.retain(|a| ranges.iter().any(|r| r.contains(a)) && !taken.contains(a));
        for range in ranges {
            if !addresses.iter().any(|address| range.contains(address)) {
                let free = |a: &IpAddr| !taken.contains(a) && !self.owner.contains_key(a);
                addresses.extend(candidates(range, name).find(free));
            }
        }
        if addresses == before {
            return false;
        }
        for address in before.iter().filter(|a| !addresses.contains(a)) {
            self.owner.remove(address);
            moved.delete.push(entry(name, *address));
        }
        for address in addresses.iter().filter(|a| !before.contains(a)) {
            self.owner.insert(*address, name.clone());
            moved.put.push(entry(name, *address));
        }
        self.by_name.insert(name.clone(), addresses);
        true
    }
}

/// Who needs addresses, Services before their hosts, and which are taken by Services that have
/// some of their own.
fn wishes(records: &BTreeMap<Key, Record>) -> (BTreeSet<Name>, HashSet<IpAddr>) {
    let (mut needy, mut reachable) = (BTreeSet::new(), HashSet::new());
    let mut taken = HashSet::new();
    for record in records.values() {
        if let Body::Service(service) = &record.body {
            taken.extend(service.cluster_ips.iter().copied());
            let name = ServiceName::new(&record.namespace, &record.name);
            if is_reached(service) {
                reachable.insert(name.clone());
            }
            if is_reached(service) && service.cluster_ips.is_empty() {
                needy.insert(Name { service: name, hostname: "".into() });
            }
        }
    }
    for record in records.values() {
        let Body::Slice(slice) = &record.body else { continue };
        let service = ServiceName::new(&record.namespace, &slice.service);
        if !reachable.contains(&service) {
            continue;
        }
        let hostnames = slice.backends.iter().filter_map(|backend| backend.hostname.clone());
        needy.extend(hostnames.map(|hostname| Name { service: service.clone(), hostname }));
    }
    (needy, taken)
}

/// Whether anything is carried to it: an address that answers nothing would hide its Backends.
fn is_reached(service: &Service) -> bool {
    let carried = |port: &ServicePort| match port.transport {
        Transport::Tcp | Transport::Udp => true,
        Transport::Sctp => false,
    };
    service.external_name.is_none() && service.ports.iter().any(carried)
}

fn entry(name: &Name, address: IpAddr) -> VirtualAddress {
    let Name { service, hostname } = name.clone();
    VirtualAddress { service, hostname, address }
}

/// What is hashed: `namespace/name[/hostname]`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.hostname.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.service, self.hostname)
    }
}

/// Addresses that are tried in a range before it counts as full.
const PROBES: u128 = 65_536;

/// All addresses of `range` but its first and last, beginning at the hash of the name.
fn candidates(range: &IpNet, name: &Name) -> impl Iterator<Item = IpAddr> + use<> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
    let usable = size.saturating_sub(2).max(1);
    let start = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, name.to_string().as_bytes());
    let start = start.as_u128() % usable;
    let network = range.network();
    (0..usable.min(PROBES)).map(move |i| {
        let offset = 1 + (start + i) % usable;
        match network {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() + offset as u32).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() + offset).into(),
        }
    })
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::{Backend, Slice, TargetPort};

    use super::*;

    fn name(of: &str) -> Name {
        Name { service: ServiceName::new("default", of), hostname: "".into() }
    }

    #[test]
    fn candidates_cover_the_range_once() {
        let range: IpNet = "198.18.0.0/28".parse().unwrap();
        let all: HashSet<IpAddr> = candidates(&range, &name("a")).collect();
        assert_eq!(all.len(), 14);
        assert!(!all.contains(&range.network()) && !all.contains(&range.broadcast()));
    }

    /// Ports as letters (TCP, UDP, SCTP), ClusterIPs, ExternalName, hostnames → who got addresses.
    #[test]
    fn who_gets_an_address() {
        type Row<'r> = (&'r str, &'r [&'r str], bool, &'r [&'r str], &'r [&'r str]);
        let rows: &[Row<'_>] = &[
            ("T", &[], false, &[], &["default/a"]),
            ("U", &[], false, &[], &["default/a"]),
            ("S", &[], false, &["h"], &[]),
            ("", &[], true, &["h"], &[]),
            ("T", &["10.96.0.1"], false, &[], &[]),
            ("T", &[], false, &["h1", "h0"], &["default/a", "default/a/h0", "default/a/h1"]),
            ("U", &["10.96.0.1"], false, &["h"], &["default/a/h"]),
            // they were those of the range a moment ago
            ("T", &["198.18.0.1", "198.18.0.2", "198.18.0.3"], false, &["h"], &["default/a/h"]),
        ];
        let mut addresses = Addresses::new(&["198.18.0.0/29".parse().unwrap()], Vec::new());
        let mut held = HashMap::new();
        for (ports, ips, external, hostnames, want) in rows {
            let moved = addresses.settle(&records(ports, ips, *external, hostnames));
            let got: Vec<String> = addresses.by_name.keys().map(Name::to_string).collect();
            assert_eq!(got, *want, "{ports} {ips:?} {hostnames:?}");
            for gone in moved.delete {
                assert_eq!(held.remove(&gone.address), Some(gone.hostname));
            }
            for new in moved.put {
                assert!(!ips.contains(&new.address.to_string().as_str()), "{new:?} is taken");
                assert_eq!(held.insert(new.address, new.hostname), None);
            }
            // What the store holds leads to the same.
            assert_eq!(held.len(), addresses.entries().len());
            let again = Addresses::new(&addresses.ranges, addresses.entries());
            assert_eq!(again.by_name, addresses.by_name);
            assert_eq!(again.hosts().iter().flat_map(|(_, hosts)| hosts).count(), hosts(want));
        }
    }

    fn hosts(names: &[&str]) -> usize {
        names.iter().filter(|name| name.matches('/').count() == 2).count()
    }

    fn records(
        ports: &str,
        ips: &[&str],
        external: bool,
        hostnames: &[&str],
    ) -> BTreeMap<Key, Record> {
        let port = |(at, letter): (usize, char)| ServicePort {
            name: letter.to_string().into(),
            port: (at as u16 + 1).try_into().unwrap(),
            target: TargetPort::Same,
            transport: match letter {
                'T' => Transport::Tcp,
                'U' => Transport::Udp,
                _ => Transport::Sctp,
            },
            app_protocol: None,
            node_port: None,
        };
        let service = Service {
            ports: ports.chars().enumerate().map(port).collect(),
            cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            external_name: external.then(|| "example.com".into()),
            ..Service::default()
        };
        let backend = |hostname: &&str| Backend {
            addresses: vec![IpAddr::from([10, 1, 0, 1])],
            hostname: Some((*hostname).into()),
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            workload: None,
            weight: None,
        };
        let backends = hostnames.iter().map(backend).collect();
        let slice = Slice { service: "a".into(), ports: Vec::new(), backends };
        let record =
            |name: &str, body| Record { namespace: "default".into(), name: name.into(), body };
        let all = [record("a", Body::Service(service)), record("a-1", Body::Slice(slice))];
        all.into_iter().map(|record| (record.key(), record)).collect()
    }

    #[test]
    fn a_full_range_leaves_the_rest_without() {
        let mut addresses = Addresses::new(&["10.0.0.0/30".parse().unwrap()], Vec::new());
        let mut moved = Moved::default();
        for who in ["a", "b", "c"] {
            addresses.give(&name(who), &HashSet::new(), &mut moved);
        }
        assert_eq!(moved.put.len(), 2);
    }
}
