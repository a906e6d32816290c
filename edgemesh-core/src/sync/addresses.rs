//! Virtual addresses: one of each family for every Service that has none of its own.
//!
//! An address is a hash of the Service's name, moved on past those that are taken, so that it
//! is the same on every start and, for the most part, on every node; what was given out is
//! stored and stays.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgemesh_proto::record::{Body, Key, Record, Service, ServiceName, Transport};
use ipnet::IpNet;

use crate::store::VirtualAddress;
use crate::sync::Moved;

/// The addresses that are given out.
#[derive(Debug)]
pub(super) struct Addresses {
    ranges: Vec<IpNet>,
    by_service: BTreeMap<ServiceName, Vec<IpAddr>>,
    owner: HashMap<IpAddr, ServiceName>,
}

impl Addresses {
    /// Goes on with what the store held. What is outside of `ranges` (they were changed) is
    /// given back with the next [`Addresses::settle`].
    pub(super) fn new(ranges: &[IpNet], stored: Vec<VirtualAddress>) -> Self {
        let mut new =
            Self { ranges: ranges.to_vec(), by_service: BTreeMap::new(), owner: HashMap::new() };
        for VirtualAddress { service, address, .. } in stored {
            new.owner.insert(address, service.clone());
            new.by_service.entry(service).or_default().push(address);
        }
        new
    }

    /// Every Service with its addresses.
    pub(super) fn all(&self) -> Vec<(ServiceName, Vec<IpAddr>)> {
        self.by_service.iter().map(|(name, addresses)| (name.clone(), addresses.clone())).collect()
    }

    /// In the store's form.
    pub(super) fn entries(&self) -> Vec<VirtualAddress> {
        let of = |(name, addresses): (&ServiceName, &Vec<IpAddr>)| {
            addresses.iter().map(|address| entry(name, *address)).collect::<Vec<_>>()
        };
        self.by_service.iter().flat_map(of).collect()
    }

    /// Gives addresses to those among `records` that need some, takes them from those that do
    /// not any more.
    pub(super) fn settle(&mut self, records: &BTreeMap<Key, Record>) -> Moved {
        let mut moved = Moved::default();
        let (mut needy, mut taken) = (Vec::new(), HashSet::new());
        for record in records.values() {
            if let Body::Service(service) = &record.body {
                taken.extend(service.cluster_ips.iter().copied());
                if needs_address(service) {
                    needy.push(ServiceName::new(&record.namespace, &record.name));
                }
            }
        }
        let wanted: HashSet<&ServiceName> = needy.iter().collect();
        let gone: Vec<ServiceName> =
            self.by_service.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in gone {
            for address in self.by_service.remove(&name).unwrap_or_default() {
                self.owner.remove(&address);
                moved.delete.push(entry(&name, address));
            }
            moved.services.push((name, Vec::new()));
        }
        for name in needy {
            self.give(name, &taken, &mut moved);
        }
        moved
    }

    fn give(&mut self, name: ServiceName, taken: &HashSet<IpAddr>, moved: &mut Moved) {
        let mut addresses = self.by_service.get(&name).cloned().unwrap_or_default();
        let before = addresses.clone();
        let ranges = &self.ranges;
        addresses.retain(|a| ranges.iter().any(|r| r.contains(a)) && !taken.contains(a));
        for range in ranges {
            if !addresses.iter().any(|address| range.contains(address)) {
                let free = |a: &IpAddr| !taken.contains(a) && !self.owner.contains_key(a);
                addresses.extend(candidates(range, &name).find(free));
            }
        }
        if addresses == before {
            return;
        }
        for address in before.iter().filter(|a| !addresses.contains(a)) {
            self.owner.remove(address);
            moved.delete.push(entry(&name, *address));
        }
        for address in addresses.iter().filter(|a| !before.contains(a)) {
            self.owner.insert(*address, name.clone());
            moved.put.push(entry(&name, *address));
        }
        moved.services.push((name.clone(), addresses.clone()));
        self.by_service.insert(name, addresses);
    }
}

/// UDP-only Services get none: an address that answers nothing would hide their Backends.
fn needs_address(service: &Service) -> bool {
    service.cluster_ips.is_empty()
        && service.external_name.is_none()
        && service.ports.iter().any(|port| port.transport == Transport::Tcp)
}

fn entry(name: &ServiceName, address: IpAddr) -> VirtualAddress {
    VirtualAddress { service: name.clone(), hostname: "".into(), address }
}

/// Addresses that are tried in a range before it counts as full.
const PROBES: u128 = 65_536;

/// All addresses of `range` but its first and last, beginning at the hash of the name.
fn candidates(range: &IpNet, name: &ServiceName) -> impl Iterator<Item = IpAddr> + use<> {
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
    use super::*;

    #[test]
    fn candidates_cover_the_range_once() {
        let range: IpNet = "198.18.0.0/28".parse().unwrap();
        let name = ServiceName::new("default", "a");
        let all: HashSet<IpAddr> = candidates(&range, &name).collect();
        assert_eq!(all.len(), 14);
        assert!(!all.contains(&range.network()) && !all.contains(&range.broadcast()));
    }

    #[test]
    fn a_full_range_leaves_the_rest_without() {
        let mut addresses = Addresses::new(&["10.0.0.0/30".parse().unwrap()], Vec::new());
        let mut moved = Moved::default();
        for name in ["a", "b", "c"] {
            addresses.give(ServiceName::new("default", name), &HashSet::new(), &mut moved);
        }
        assert_eq!(moved.put.len(), 2);
    }
}
