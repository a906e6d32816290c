//! Starts the proxy of a mesh, and what looks after its Backends meanwhile: idle connections, probes.

use std::net::SocketAddr;

use crate::forward::http::SWEEP_EVERY;
use crate::io::now;
use crate::listen::Listener;
use crate::mesh::Mesh;
use crate::proxy::{Proxy, Redirected};

impl Mesh {
    /// Serves the proxy on `listeners`; once a mesh. Returns where they listen.
    pub fn listen(&mut self, listeners: Vec<Listener>) -> Vec<SocketAddr> {
        let own: Box<[SocketAddr]> = listeners.iter().map(Listener::address).collect();
        let _ = self.shared.own.set(own.clone()); // once a mesh
        let room = self.options.max_connections;
        let proxy = Proxy::new(Redirected, self.shared.clone(), room, self.accepting.clone());
        for listener in listeners {
            proxy.clone().start(listener, &self.lanes);
        }
        self.sweep_pools();
        own.into()
    }

    /// Closes what is idle for too long, and probes Backends, until the mesh stops.
    pub(super) fn sweep_pools(&self) {
        self.check_backends();
        let shared = self.shared.clone();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                shared.pools.sweep(now());
            }
        }));
    }
}
