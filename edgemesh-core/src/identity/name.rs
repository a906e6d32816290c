//! Names in certificates: who somebody is (a SPIFFE id) and what DNS calls them.

use std::fmt;

use edgemesh_proto::record::NodeName;
use rustls::pki_types::{DnsName, ServerName};

use crate::identity::hash::CaId;

/// The cloud's name where a node's stands otherwise: in routes, and in what [`super::proved`] says
/// of the hub. No node can have it.
pub const CLOUD: &str = "cloud";

/// Longest name of a node: with `.node.edgemesh` it is a DNS name.
pub const MAX_NODE_NAME: usize = 253 - NODE_SUFFIX.len();

const NODE_SUFFIX: &str = ".node.edgemesh";
const HUB_DNS: &str = "hub.edgemesh";

/// Whom one means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// This node.
    Node(&'a NodeName),
    /// The hub.
    Hub,
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Node(NodeName),
    Hub,
}

impl Expect<'_> {
    /// The name for the handshake (SNI). What counts is the certificate's SPIFFE id.
    pub fn server_name(&self) -> ServerName<'static> {
        let name = match self {
            Self::Node(node) => DnsName::try_from(format!("{node}{NODE_SUFFIX}")),
            Self::Hub => DnsName::try_from(HUB_DNS.to_owned()),
        };
        // A name that is none for DNS cannot have joined; the handshake will say so.
        let name = name.or_else(|_| DnsName::try_from(&NODE_SUFFIX[1..]).map(|n| n.to_owned()));
        ServerName::DnsName(name.expect("a constant that is a DNS name"))
    }
}

impl From<Expect<'_>> for Subject {
    fn from(expect: Expect<'_>) -> Self {
        match expect {
            Expect::Node(node) => Self::Node(node.clone()),
            Expect::Hub => Self::Hub,
        }
    }
}

impl Subject {
    /// `spiffe://<ca>/node/<name>` or `spiffe://<ca>/hub`.
    pub(super) fn uri(&self, ca: CaId) -> String {
        match self {
            Self::Node(node) => format!("spiffe://{ca}/node/{node}"),
            Self::Hub => format!("spiffe://{ca}/hub"),
        }
    }

    /// Reads what [`Subject::uri`] writes.
    pub(super) fn parse(uri: &str) -> Option<(CaId, Self)> {
        let (ca, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let subject = match path.strip_prefix("node/") {
            Some(node) if check_node_name(node).is_ok() => Self::Node(NodeName(node.into())),
            None if path == "hub" => Self::Hub,
            Some(_) | None => return None,
        };
        Some((CaId::parse(ca)?, subject))
    }

    /// What DNS calls it.
    pub(super) fn dns(&self) -> String {
        match self {
            Self::Node(node) => format!("{node}{NODE_SUFFIX}"),
            Self::Hub => HUB_DNS.to_owned(),
        }
    }

    /// Reads what [`Subject::dns`] writes.
    pub(super) fn from_dns(name: &str) -> Option<Self> {
        match name.strip_suffix(NODE_SUFFIX) {
            Some(node) => Some(Self::Node(NodeName(node.into()))),
            None => (name == HUB_DNS).then_some(Self::Hub),
        }
    }

    pub(super) fn as_expect(&self) -> Expect<'_> {
        match self {
            Self::Node(node) => Expect::Node(node),
            Self::Hub => Expect::Hub,
        }
    }

    /// The node's name; the hub's is [`CLOUD`].
    pub(super) fn node(&self) -> NodeName {
        match self {
            Self::Node(node) => node.clone(),
            Self::Hub => NodeName(CLOUD.into()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Hub => f.write_str("the hub"),
        }
    }
}

/// Whether a node may be called so: a DNS-1123 subdomain of at most [`MAX_NODE_NAME`] bytes, its
/// labels of at most 63, and not [`CLOUD`].
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn check_node_name(name: &str) -> Result<(), String> {
    let edge = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|c| edge(Some(c)) || *c == b'-')
    };
    if name == CLOUD {
        return Err(format!("`{CLOUD}` is what the cloud itself is called"));
    }
    if name.len() > MAX_NODE_NAME {
        return Err(format!("it has {} bytes, at most {MAX_NODE_NAME} are possible", name.len()));
    }
    if !name.split('.').all(label) {
        return Err("wanted are lower-case letters, digits and `-` in parts joined by dots, each \
                    of at most 63 bytes and with a letter or digit at both ends"
            .into());
    }
    Ok(())
}
