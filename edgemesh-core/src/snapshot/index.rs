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
    pub(super) owners: HashMap<IpAddr, u32>,
    pub(super) by_name: HashMap<Box<str>, HashMap<Box<str>, u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) service: u32,
    pub(super) port: u32,
}

impl Index {
    pub(super) fn new(services: &[Arc<Service>]) -> Self {
        let mut index = Self::default();
        for (slot, service) in services.iter().enumerate() {
            let slot = slot as u32;
            let of_namespace = index.by_name.entry(service.name.namespace.clone()).or_default();
            of_namespace.insert(service.name.name.clone(), slot);
            for address in &service.addresses {
                index.owners.entry(*address).or_insert(slot);
                let tcp = |(_, p): &(usize, &Port)| p.transport == Transport::Tcp;
                for (port, of_port) in service.ports.iter().enumerate().filter(tcp) {
                    let place = Place { service: slot, port: port as u32 };
                    index.by_address.entry((*address, of_port.port)).or_insert(place);
                }
            }
        }
        index
    }
}
