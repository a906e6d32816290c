//! Ends of connections as a handshake leaves them, for the tests of whoever uses Links.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use edgemesh_proto::record::NodeName;

use crate::identity::Proved;
use crate::link::{Dialled, Peer, Role};

/// A node, by its certificate.
pub(crate) fn peer(node: &str) -> Arc<Peer> {
    let proved = Proved { node: NodeName(node.into()), is_hub: false, issued: 0, until: i64::MAX };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Arc::new(Peer { proved: Some(proved), address })
}

/// The end at which `node` was found, to do that.
pub(crate) fn end<S>(stream: S, node: &str, role: Role) -> Dialled<S> {
    Dialled { stream, peer: peer(node), role }
}
