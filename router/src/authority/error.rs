//! Why somebody may not join, in words for both ends, and what can be wrong with a CA's folder.

use std::io;
use std::path::{Path, PathBuf};

use edgemesh_core::identity::{CaId, IdentityError, TokenError};
use edgemesh_proto::message::Refused;
use edgemesh_proto::record::NodeName;
use rusqlite::ErrorCode;

/// Why a certificate is not given.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefused {
    /// What was shown is no token.
    #[error(transparent)]
    NoSuchToken(#[from] TokenError),
    /// A token of our form that we do not know.
    #[error(
        "the join token is unknown here: it is mistyped, expired long ago, or was withdrawn with a \
             node that had joined by it; make a new one with `edgemesh token create`"
    )]
    UnknownToken,
    /// Too late.
    #[error("the join token expired {} ago: make a new one with `edgemesh token create`",
            span(*ago))]
    ExpiredToken {
        /// Seconds.
        ago: u64,
    },
    /// It pins another CA.
    #[error(
        "the join token is for another cloud (it pins CA {pinned}, ours is {ours}): make one \
             here with `edgemesh token create`"
    )]
    OtherCloud {
        /// What the token pins.
        pinned: CaId,
        /// Our CA.
        ours: CaId,
    },
    /// It was made for another node.
    #[error("the join token is for node {only} only: make one for this node")]
    OtherNode {
        /// The one.
        only: NodeName,
    },
    /// Somebody else is called so.
    #[error(
        "another machine is node {node} already: give this one another name; if it takes the \
             other's place, make a token with `edgemesh token create --node {node}`"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
    },
    /// An operator removed the node.
    #[error(
        "node {node} was removed: to let it join again, make a new token with `edgemesh token \
             create`"
    )]
    Removed {
        /// The name.
        node: NodeName,
    },
    /// A name that no node can have.
    #[error("`{node}` cannot be the name of a node: {why}")]
    BadName {
        /// The name.
        node: NodeName,
        /// What is wrong with it.
        why: String,
    },
    /// What should be signed cannot be.
    #[error("{0}")]
    BadRequest(String),
    /// To renew, one has to have something.
    #[error(
        "there is neither a certificate to renew nor a token: this node has not joined; give \
             it a token"
    )]
    NoToken,
    /// A node speaks only for itself.
    #[error("node {is} asks for a certificate of node {asked}: a node may renew its own only")]
    AnotherName {
        /// Who asks.
        is: NodeName,
        /// For whose.
        asked: NodeName,
    },
    /// Our disk.
    #[error("the cloud cannot write down who joins: see its log")]
    Store(#[from] AuthorityError),
}

impl JoinRefused {
    /// A word that code reads.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoSuchToken(_) => "noSuchToken",
            Self::UnknownToken => "unknownToken",
            Self::ExpiredToken { .. } => "expiredToken",
            Self::OtherCloud { .. } => "otherCloud",
            Self::OtherNode { .. } => "otherNode",
            Self::NameTaken { .. } => "nameTaken",
            Self::Removed { .. } => "removed",
            Self::BadName { .. } => "badName",
            Self::BadRequest(_) => "badRequest",
            Self::NoToken => "noToken",
            Self::AnotherName { .. } => "anotherName",
            Self::Store(_) => "authorityFailed",
        }
    }

    /// What the cloud's own trouble is worth waiting for; nothing else changes by itself.
    const fn retry_after_ms(&self) -> u64 {
        if matches!(self, Self::Store(_)) { 60_000 } else { 0 }
    }
}

impl From<&JoinRefused> for Refused {
    fn from(refused: &JoinRefused) -> Self {
        Self {
            label: refused.label().into(),
            text: refused.to_string(),
            retry_after_ms: refused.retry_after_ms(),
        }
    }
}

/// What is wrong with the folder of a CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There has never been a CA.
    #[error(
        "there is no authority in {}: is this the cloud's machine? `edgemesh cloud` makes one at its \
             first start; --config names the configuration that says where",
        folder.display()
    )]
    NoneThere {
        /// The data folder.
        folder: PathBuf,
    },
    /// It cannot be made, entered or locked.
    #[error("cannot use the data folder {}: run this as the user that the cloud runs as, or point \
             dataDir at a folder that this user may write", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The CA itself, or a name in a certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The CA is broken.
    #[error("the CA in {} cannot be used: put ca.key and ca.crt back from an export (no new CA is \
             made in their place, since no node would believe it)", folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// The CA is gone, or half of it.
    #[error("{missing} is missing in {}: put it back, or restore the CA from an export (no new CA \
             is made in its place, since no node would believe it)", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// Which files.
        missing: &'static str,
    },
    /// Another CA is at work in the folder where one should be restored.
    #[error("{} has a CA of its own ({there:.32}) that nodes have joined; to put {wanted} in its \
             place, which makes them strangers, move ca.key, ca.crt and authority.db away first",
            folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The hash of the CA there.
        there: String,
        /// The one to be restored.
        wanted: CaId,
    },
    /// A later release wrote the file.
    #[error("{} was written by a newer EdgeMesh: run that one", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
    },
    /// The file's content is broken.
    #[error("{} is damaged: put it back from a copy, or move it away; then tokens are void, and \
             who was removed lately has to be removed again", file.display())]
    DamagedBook {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("cannot read or write {}: check its permissions, the disk and its free space",
            file.display())]
    Store {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A life that no token should have.
    #[error("a token lives for more than nothing and at most 366 days")]
    Ttl,
    /// A bound of ours.
    #[error("there are {0} already: wait until some have expired")]
    TooMany(&'static str),
}

impl AuthorityError {
    /// What SQLite said of `file`.
    pub(super) fn of_sqlite(file: &Path, source: rusqlite::Error) -> Self {
        let file = file.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::DamagedBook { file, source }
            }
            Some(_) | None => Self::Store { file, source },
        }
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
