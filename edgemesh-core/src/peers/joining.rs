//! How a node comes by its certificate, and by the next one.

use std::path::Path;
use std::time::Duration;

use edgemesh_proto::message::{Body, Join, Refused};
use edgemesh_proto::record::NodeName;
use tokio_util::task::TaskTracker;

use crate::dial::Dial;
use crate::identity::{
    CLOUD, Clock, Expect, Identity, IdentityError, JoinToken, Pending, TokenError,
};
use crate::link::{self, ALPN_H2, Limits, Link, LinkError, Operation, Reply, Rest};
use crate::peers::{message, stagger};

/// Longest wait for a connection, TLS included.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the certificate.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Longest token file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// Why a node has no certificate, or keeps its old one.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No server answers as the hub that the token names.
    #[error("{0}")]
    Unreached(String),
    /// The Link broke.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The cloud says no.
    #[error("the cloud does not let this node join: {} ({})", .0.text, .0.label)]
    Refused(Refused),
    /// Keys, files, or what the cloud answered.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token.
    #[error("cannot use the join token in {file}")]
    Token {
        /// Its file.
        file: String,
        /// What is wrong with it.
        source: TokenError,
    },
    /// The token's file.
    #[error("cannot read the join token in {file}")]
    File {
        /// Its name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Neither certificate nor token.
    #[error(
        "this node has not joined, and cloud.tokenFile names no token: `edgemesh token create` on \
         the cloud makes one"
    )]
    NoToken,
    /// It said something else.
    #[error("the cloud answers a request for a certificate with `{0}`")]
    Strange(&'static str),
    /// It said nothing.
    #[error("the cloud did not answer a request for a certificate within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
}

/// Where a node that has no certificate asks for one.
#[derive(Debug)]
pub struct Joining<'a> {
    /// Its name.
    pub node: &'a NodeName,
    /// Its data folder.
    pub data_dir: &'a Path,
    /// The file with its token.
    pub token_file: Option<&'a Path>,
    /// `host:port` of each hub.
    pub servers: &'a [Box<str>],
    /// Makes connections.
    pub dial: Dial,
    /// Judges certificates.
    pub clock: &'a Clock,
    /// How long they may have been expired.
    pub grace: Duration,
    /// Owns the tasks.
    pub tasks: &'a TaskTracker,
}

impl Joining<'_> {
    /// Asks once.
    ///
    /// # Errors
    /// [`JoinError`]; another try may succeed.
    pub async fn join(&self) -> Result<Identity, JoinError> {
        let token = self.token()?;
        let pending = Pending::kept(self.data_dir, self.node)?;
        let servers = self.servers.to_vec();
        let tries = servers.into_iter().map(|server| self.dial(server, &token));
        let link = stagger::first(tries).await.map_err(JoinError::Unreached)?;
        let join = pending.join(Some(&token))?;
        let chain = ask(&link, self.node, join).await?;
        link.close();
        let identity = pending.complete(&chain, token.ca())?;
        identity.save(self.data_dir)?;
        Ok(identity)
    }

    /// The token, from its file.
    ///
    /// # Errors
    /// [`JoinError::NoToken`], or why it cannot be read.
    pub fn token(&self) -> Result<JoinToken, JoinError> {
        let path = self.token_file.ok_or(JoinError::NoToken)?;
        let file = path.display().to_string();
        let text = read(path).map_err(|source| JoinError::File { file: file.clone(), source })?;
        text.trim().parse().map_err(|source| JoinError::Token { file, source })
    }

    async fn dial(&self, server: Box<str>, token: &JoinToken) -> Result<Link, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{server}: {error}");
        let found = tokio::net::lookup_host(&*server).await.map_err(|error| failed(&error))?;
        let tries = found.map(|address| async move {
            let tls = crate::identity::joining(token.ca(), self.clock, self.grace, ALPN_H2);
            let name = Expect::Hub.server_name();
            let dialled = link::dial(&self.dial, address, DIAL_WITHIN, tls, name).await?;
            link::client(dialled, Limits::CONTROL, self.tasks.clone()).await
        });
        stagger::first(tries).await.map_err(|error| failed(&error))
    }
}

/// Asks for a newer certificate on a Link of this node.
///
/// # Errors
/// [`JoinError`]; the old one counts on.
pub async fn renew(link: &Link, identity: &Identity) -> Result<Identity, JoinError> {
    let pending = Pending::new(identity.node())?;
    let join = pending.join(None)?;
    let chain = ask(link, identity.node(), join).await?;
    Ok(pending.complete(&chain, identity.ca())?)
}

async fn ask(link: &Link, node: &NodeName, join: Join) -> Result<Vec<bytes::Bytes>, JoinError> {
    let opening = message([&node.0, CLOUD], Body::Join(join));
    let asked = link.open(Operation::Join, &opening, Rest::Nothing);
    let Reply { opening, .. } =
        tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(|_| JoinError::Silent)??;
    match opening.body.map(|body| *body) {
        Some(Body::Joined(joined)) => Ok(joined.chain),
        Some(Body::Refused(refused)) => Err(JoinError::Refused(refused)),
        Some(other) => Err(JoinError::Strange(other.operation())),
        None => Err(JoinError::Strange("nothing")),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}
