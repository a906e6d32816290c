//! A mesh with an entrance of the caller's own: who comes in there names the Service that is meant.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::forward::Shared;
use crate::io::own_addresses;
use crate::mesh::Mesh;
use crate::proxy::{Entrance, Proxy};

impl Mesh {
    /// What serves connections to `address` by `entrance`, `room` of them at once, until the mesh
    /// stops. A Backend at that address would be a loop from now on.
    pub fn ingress<E: Entrance>(&self, address: SocketAddr, entrance: E, room: usize) -> Proxy<E> {
        let _ = self.shared.own.set(behind(address)); // a mesh that listens has said so already
        Proxy::new(entrance, self.shared.clone(), room, self.accepting.clone())
    }

    /// What every flow of this mesh uses, for entrances.
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
