//! The maps of a Snapshot: names and addresses to Services.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use edgemesh_proto::record::Transport;

use crate::snapshot::{Port, Service};

/// Names and addresses to slots. Shared by Snapshots until a Service itself changes, so that a
/// changed Slice costs no rebuild of these maps.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) by_address: HashMap<(IpAddr, u16), Place>,
    pub(super) by_node_port: HashMap<u16, Place>,
    pub(super) owners: HashMap<IpAddr, Owner>,
    pub(super) by_name: HashMap<Box<str>, HashMap<Box<str>, u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) service: u32,
    pub(super) port: u32,
    pub(super) host: Option<u32>,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) service: u32,
    pub(super) host: Option<u32>,
}

impl Index {
    pub(super) fn new(services: &[Arc<Service>]) -> Self {
        let mut index = Self::default();
        for (slot, service) in services.iter().enumerate() {
            let slot = slot as u32;
            let of_namespace = index.by_name.entry(service.name.namespace.clone()).or_default();
            of_namespace.insert(service.name.name.clone(), slot);
            let own = Owner { service: slot, host: None };
            index.addresses(own, &service.addresses, service);
            for (at, host) in service.hosts.iter().enumerate() {
                let own = Owner { service: slot, host: Some(at as u32) };
                index.addresses(own, &host.addresses, service);
            }
        }
        // Last, so that an address of a Service's own always wins.
        for (slot, service) in services.iter().enumerate() {
            index.of_nodes(slot as u32, service);
        }
        index
    }

    fn addresses(&mut self, owner: Owner, addresses: &[IpAddr], service: &Service) {
        for address in addresses {
            self.owners.entry(*address).or_insert(owner);
            for (port, number) in tcp(service) {
                let place = Place { service: owner.service, port, host: owner.host };
                self.by_address.entry((*address, number.port)).or_insert(place);
            }
        }
    }

    /// What leads to the Service from outside: addresses of which it has some ports only, and
    /// ports of every address of the node.
    fn of_nodes(&mut self, slot: u32, service: &Service) {
        for (port, number) in tcp(service) {
            let place = Place { service: slot, port, host: None };
            for address in &service.external_ips {
                self.by_address.entry((*address, number.port)).or_insert(place);
            }
            if let Some(node_port) = number.node_port {
                self.by_node_port.entry(node_port).or_insert(place);
            }
        }
    }
}

fn tcp(service: &Service) -> impl Iterator<Item = (u32, &Port)> {
    let ports = service.ports.iter().enumerate().map(|(at, port)| (at as u32, port));
    ports.filter(|(_, port)| port.transport == Transport::Tcp)
}
