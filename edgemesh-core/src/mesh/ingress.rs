//! A mesh with a door of the caller's own: who comes in there names the Service that is meant.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::forward::Shared;
use crate::io::own_addresses;
use crate::mesh::Mesh;
use crate::proxy::{Door, Proxy};

impl Mesh {
    /// What serves connections at `address` by `door`, `room` of them at once, until the mesh stops.
    /// A Backend at that address would be a loop from now on.
    pub fn ingress<D: Door>(&self, address: SocketAddr, door: D, room: usize) -> Proxy<D> {
        let _ = self.shared.own.set(behind(address)); // a mesh that listens has said so already
        Proxy::new(door, self.shared.clone(), room, self.accepting.clone())
    }

    /// What every flow of this mesh uses, for doors.
    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

/// Every address at which a listener on `address` is reached.
fn behind(address: SocketAddr) -> Box<[SocketAddr]> {
    if !address.ip().is_unspecified() {
        return Box::new([address]);
    }
    let all = own_addresses().unwrap_or_default().into_iter();
    let same = all.filter(|own| own.is_ipv4() == address.is_ipv4());
    same.map(|own| SocketAddr::new(own, address.port())).collect()
}
