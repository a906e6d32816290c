//! How a node gets its certificate, and how it is asked to dial.

use bytes::Bytes;

use crate::record::NodeName;

/// Asks for a certificate: with a token, or, over an identified Link, for a newer one.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// The name that the certificate is to have.
    pub node: NodeName,
    /// Empty = renew.
    pub token: String,
    /// PKCS #10, DER.
    pub csr: Bytes,
}

impl std::fmt::Debug for Join {
    /// Without the token, which is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let csr = self.csr.len();
        f.debug_struct("Join").field("node", &self.node).field("csr", &csr).finish_non_exhaustive()
    }
}

/// The certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Leaf first, DER; the CA's own last.
    pub chain: Vec<Bytes>,
}

/// Asks the node that hears it to dial the one that asks, in reversed roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialBack {
    /// Who asks; `None` = the hub.
    pub node: Option<NodeName>,
    /// `host:port`, tried in turn; empty = the hub's own address.
    pub links: Vec<Box<str>>,
}
