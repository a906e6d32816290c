//! The mesh's name server: which Snapshot it answers from, and whom it asks for the rest.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpSocket, UdpSocket};

use crate::dial::Dial;
use crate::dns::bind::Sockets;
use crate::dns::names::Live;
use crate::dns::resolv::{ResolvConf, Upstreams};
use crate::dns::server::Server;
use crate::dns::upstream::{Connect, Forwarder};
use crate::mesh::Mesh;
use crate::snapshot::Snapshot;

impl Mesh {
    /// From here on names are answered from the Snapshot that was announced last. To be called
    /// before [`Mesh::serve_dns`] where addresses have to be captured first: a connection to an
    /// address that is named but not captured yet is lost for minutes, since the kernel tracks it
    /// as one that is not redirected.
    pub fn hold_names(&mut self) {
        self.announced = Some(Arc::new(ArcSwap::new(self.snapshot())));
    }

    /// Names the Services of `snapshot`, whose addresses are captured now.
    pub fn announce(&self, snapshot: Arc<Snapshot>) {
        if let Some(announced) = &self.announced {
            announced.store(snapshot);
        }
    }

    /// Serves names on `sockets`; once a mesh.
    pub fn serve_dns(&mut self, sockets: Vec<Sockets>) {
        let Some(domain) = self.domain.take() else { return };
        let addresses = sockets.iter().filter_map(|sockets| sockets.address().ok());
        let own: Vec<IpAddr> = addresses.filter(|a| a.port() == 53).map(|a| a.ip()).collect();
        let conf = ResolvConf::host(own);
        let upstreams = Arc::new(Upstreams::new(conf.load()));
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(conf.follow(upstreams.clone())));
        let names = Live(self.announced.as_ref().unwrap_or(&self.live).clone());
        let dial = Arc::new(self.options.dial);
        let server = Server::new(domain, Arc::new(names), Forwarder::new(upstreams, dial));
        for sockets in sockets {
            server.serve(sockets, &self.tasks, &self.accepting);
        }
        self.dns_counters = Some(server.counters());
    }
}

impl Connect for Dial {
    fn udp(&self, upstream: SocketAddr) -> std::io::Result<UdpSocket> {
        self.udp_socket(upstream)
    }

    fn tcp(&self, upstream: SocketAddr) -> std::io::Result<TcpSocket> {
        self.tcp_socket(upstream)
    }
}
