//! What can be wrong with an identity, in words that name the cause and the remedy.

use std::io;
use std::path::PathBuf;

use edgemesh_proto::record::NodeName;

use crate::identity::hash::CaId;

/// Why an identity could not be made, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the data folder cannot be read or written.
    #[error("cannot read or write {}: check its permissions, the disk and its free space",
            file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} is damaged ({what}): put it back from a copy, or move it away and join again \
             with a token", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate that cannot be read or names nobody.
    #[error("the certificate is none of EdgeMesh: {0}")]
    Certificate(String),
    /// Issued by the CA of another cloud.
    #[error(
        "the certificate belongs to another cloud (CA {theirs}, ours is {ours}): join the \
             node to this cloud with a token of its own, or correct the address"
    )]
    OtherCloud {
        /// Their CA.
        theirs: CaId,
        /// Our CA.
        ours: CaId,
    },
    /// A token pins the CA of another cloud than the one that answers.
    #[error("the token is for another cloud (it pins CA {pinned}, {}): take a token of the cloud \
             at that address, or correct the address", answers(*theirs))]
    OtherPin {
        /// What the token pins.
        pinned: CaId,
        /// The CA of who answered, where it names one.
        theirs: Option<CaId>,
    },
    /// Neither an identity nor a token.
    #[error(
        "this node has not joined a cloud: make a token there with `edgemesh token create` \
             and name its file in cloud.tokenFile"
    )]
    NotJoined,
    /// The identity is of another node than the configuration.
    #[error(
        "the data folder has the identity of node {is}, but this node is called {wanted}: \
             correct `node`, or name a token in cloud.tokenFile to join as {wanted}"
    )]
    OtherName {
        /// Whose identity it is.
        is: NodeName,
        /// What the configuration says.
        wanted: NodeName,
    },
    /// Nobody accepts the certificate any more.
    #[error(
        "the certificate of node {node} expired longer ago than offlineGrace allows: make a \
             new token with `edgemesh token create` and name its file in cloud.tokenFile; if that \
             cannot be, set this machine's clock"
    )]
    Over {
        /// Who we are.
        node: NodeName,
    },
    /// A name that no node can have.
    #[error("`{name}` cannot be the name of a node: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// What came back is not what was asked for.
    #[error("the cloud's answer does not fit what was asked for: {0}")]
    Answer(String),
    /// A request for a certificate that cannot be granted.
    #[error("the request for a certificate is none: {0}")]
    Request(String),
    /// Keys or certificates could not be made.
    #[error("cannot make a key or certificate")]
    Making(#[source] rcgen::Error),
}

fn answers(theirs: Option<CaId>) -> String {
    theirs.map_or_else(|| "and who answers shows no CA".into(), |ca| format!("CA {ca} answers"))
}
