//! Virtual addresses: one of each family for every Service that has none of its own, and for
//! every host of a Service.
//!
//! An address is a hash of the Service's name, moved on past those that are taken, so that it
//! is the same on every start and, for the most part, on every node; what was given out is
//! stored and stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edgemesh_proto::record::{Key, Record, Service, ServiceName, ServicePort, Transport};
use ipnet::IpNet;

use crate::snapshot::{Builder, Host};
use crate::store::VirtualAddress;
use crate::sync::Moved;
use crate::sync::after::After;

/// The addresses that are given out.
#[derive(Debug)]
pub(super) struct Addresses {
    ranges: Vec<IpNet>,
    by_name: BTreeMap<Name, Vec<IpAddr>>,
    owner: HashMap<IpAddr, Name>,
    /// Addresses in the ranges that Services have of their own, and how many have them.
    taken: HashMap<IpAddr, usize>,
    /// Services to be looked at with the next step.
    review: BTreeSet<ServiceName>,
    /// Those that have less than they need, since a range is full.
    starving: BTreeSet<ServiceName>,
}

/// Whom an address is for: a Service (no hostname), or one host of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    service: ServiceName,
    hostname: Box<str>,
}

impl Addresses {
    /// Goes on with what the store held. [`Addresses::review`] must follow.
    pub(super) fn new(ranges: &[IpNet], stored: Vec<VirtualAddress>) -> Self {
        let mut new = Self {
            ranges: ranges.to_vec(),
            by_name: BTreeMap::new(),
            owner: HashMap::new(),
            taken: HashMap::new(),
            review: BTreeSet::new(),
            starving: BTreeSet::new(),
        };
        for VirtualAddress { service, hostname, address } in stored {
            let name = Name { service, hostname };
            new.owner.insert(address, name.clone());
            new.by_name.entry(name).or_default().push(address);
        }
        new
    }

    /// Compares with what the `known` records need: where that is something else (the ranges were
    /// changed), the next [`Addresses::settle`] puts it right.
    pub(super) fn review(&mut self, known: &Builder) {
        for name in known.service_names() {
            self.take(known.service_record(name), 1);
        }
        let nothing = After::new(known, &[], &[]);
        let given = self.by_name.keys().map(|name| &name.service);
        let all: BTreeSet<&ServiceName> = known.service_names().chain(given).collect();
        let wrong = all.into_iter().filter(|name| !self.is_right(name, &nothing));
        self.review = wrong.cloned().collect();
    }

    /// Whether a Service and its hosts have what they need, and no more.
    fn is_right(&self, service: &ServiceName, after: &After<'_>) -> bool {
        let needy = needy_of(service, after);
        let has = |name: &Name| {
            let addresses = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
            let fits = |range: &IpNet| addresses.iter().filter(|a| range.contains(*a)).count() == 1;
            let fine = |address: &IpAddr| !self.taken.contains_key(address);
            addresses.len() == self.ranges.len()
                && self.ranges.iter().all(fits)
                && addresses.iter().all(fine)
        };
        self.names_of(service).all(|name| needy.contains(name)) && needy.iter().all(has)
    }

    /// Whose names have addresses: the Service, its hosts.
    fn names_of(&self, service: &ServiceName) -> impl Iterator<Item = &Name> {
        let first = Name { service: service.clone(), hostname: "".into() };
        self.by_name.range(first..).map(|(name, _)| name).take_while(|n| n.service == *service)
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

    /// As [`Addresses::settle`], after a step from what `known` holds.
    pub(super) fn settle_put(&mut self, known: &Builder, put: &[Record], delete: &[Key]) -> Moved {
        self.settle(&After::new(known, put, delete))
    }

    /// Gives addresses to those that need some after a step, takes them from those that do not any
    /// more.
    pub(super) fn settle(&mut self, after: &After<'_>) -> Moved {
        let mut moved = Moved::default();
        let mut concerned = after.concerned();
        let freed = self.account(&concerned, after);
        concerned.append(&mut self.review);
        concerned.extend(self.evicted(&concerned, after));
        let needy: BTreeSet<Name> =
            concerned.iter().flat_map(|service| needy_of(service, after)).collect();
        let mut changed = BTreeSet::new();
        for service in &concerned {
            let gone: Vec<Name> =
                self.names_of(service).filter(|name| !needy.contains(*name)).cloned().collect();
            self.give_back(gone, &mut moved, &mut changed);
        }
        for name in needy {
            if self.give(&name, &mut moved) {
                changed.insert(name);
            }
        }
        if freed || !moved.delete.is_empty() {
            // There may be room now for those who found none; one that lacks it again is back.
            for service in std::mem::take(&mut self.starving) {
                for name in needy_of(&service, after) {
                    if self.give(&name, &mut moved) {
                        changed.insert(name);
                    }
                }
            }
        }
        self.tell(changed, &mut moved);
        moved
    }

    /// Counts the addresses that Services have of their own. `true`: some are free now.
    fn account(&mut self, concerned: &BTreeSet<ServiceName>, after: &After<'_>) -> bool {
        let before = self.taken.len();
        for service in concerned {
            self.take(after.before(service), -1);
        }
        let least = self.taken.len();
        for service in concerned {
            self.take(after.service(service), 1);
        }
        least < before
    }

    fn take(&mut self, service: Option<&Service>, by: isize) {
        let addresses = service.into_iter().flat_map(|service| &service.cluster_ips);
        for address in addresses.filter(|a| self.ranges.iter().any(|range| range.contains(*a))) {
            let count = self.taken.entry(*address).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.taken.remove(address);
            }
        }
    }

    /// Services whose virtual address one of the concerned has as its own now.
    fn evicted(&self, concerned: &BTreeSet<ServiceName>, after: &After<'_>) -> Vec<ServiceName> {
        let services = concerned.iter().filter_map(|service| after.service(service));
        let owners = services.flat_map(|s| &s.cluster_ips).filter_map(|a| self.owner.get(a));
        owners.map(|name| name.service.clone()).collect()
    }

    fn give_back(&mut self, gone: Vec<Name>, moved: &mut Moved, changed: &mut BTreeSet<Name>) {
        for name in gone {
            for address in self.by_name.remove(&name).unwrap_or_default() {
                self.owner.remove(&address);
                moved.delete.push(entry(&name, address));
            }
            changed.insert(name);
        }
    }

    /// What the Snapshot is to know.
    fn tell(&self, changed: BTreeSet<Name>, moved: &mut Moved) {
        let of_hosts: BTreeSet<&ServiceName> =
            changed.iter().filter(|name| !name.hostname.is_empty()).map(|n| &n.service).collect();
        moved.hosts = of_hosts.into_iter().map(|s| (s.clone(), self.hosts_of(s))).collect();
        for name in changed.into_iter().filter(|name| name.hostname.is_empty()) {
            let addresses = self.by_name.get(&name).cloned().unwrap_or_default();
            moved.services.push((name.service, addresses));
        }
    }

    /// `true`: something is different now.
    fn give(&mut self, name: &Name, moved: &mut Moved) -> bool {
        let mut addresses = self.by_name.get(name).cloned().unwrap_or_default();
        let before = addresses.clone();
        let (ranges, taken) = (&self.ranges, &self.taken);
        addresses.retain(|a| ranges.iter().any(|r| r.contains(a)) && !taken.contains_key(a));
        for range in ranges {
            if !addresses.iter().any(|address| range.contains(address)) {
                let free = |a: &IpAddr| !taken.contains_key(a) && !self.owner.contains_key(a);
                addresses.extend(candidates(range, name).find(free));
            }
        }
        if addresses.len() < ranges.len() {
            self.starving.insert(name.service.clone());
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

/// Who of a Service and its hosts needs addresses after a step.
fn needy_of(service: &ServiceName, after: &After<'_>) -> BTreeSet<Name> {
    let Some(record) = after.service(service).filter(|record| is_reached(record)) else {
        return BTreeSet::new();
    };
    let hostnames = after.hostnames(service).into_iter();
    let own = record.cluster_ips.is_empty().then(Box::default);
    let name = |hostname| Name { service: service.clone(), hostname };
    own.into_iter().chain(hostnames).map(name).collect()
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
mod tests;
