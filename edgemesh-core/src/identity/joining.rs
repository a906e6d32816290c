//! How a node comes by its first certificate, and by each next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_proto::message::Join;
use edgemesh_proto::record::NodeName;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;

use crate::identity::Identity;
use crate::identity::clock::{Clock, Now};
use crate::identity::error::IdentityError;
use crate::identity::file;
use crate::identity::hash::CaHash;
use crate::identity::name::{Subject, check_node_name};
use crate::identity::token::JoinToken;
use crate::identity::trust::{Judging, provider};
use crate::identity::verify::Pinned;

/// The key with which a node is joining. Kept until it has: a node whose first answer got lost
/// asks again with the same key, and is not taken for a stranger with the same name.
const FILE: &str = "joining.key";

/// A key that has no certificate yet.
pub struct Pending {
    node: NodeName,
    key: KeyPair,
}

impl Pending {
    /// A new key for `node`, in memory: to renew.
    ///
    /// # Errors
    /// [`IdentityError::Name`] where no node can have that name.
    pub fn new(node: &NodeName) -> Result<Self, IdentityError> {
        check_name(node)?;
        Ok(Self { node: node.clone(), key: new_key()? })
    }

    /// The key with which `node` began to join, or a new one, which is kept in `data_dir` until
    /// [`Identity::save`].
    ///
    /// # Errors
    /// As [`Pending::new`], and where the file cannot be read or written.
    pub fn kept(data_dir: &Path, node: &NodeName) -> Result<Self, IdentityError> {
        let path = path(data_dir);
        let known = file::read(&path)?.and_then(|text| read_key(&text).ok());
        if let Some(key) = known {
            check_name(node)?;
            return Ok(Self { node: node.clone(), key });
        }
        let pending = Self::new(node)?;
        file::write(&path, pending.key.serialize_pem().as_bytes())?;
        Ok(pending)
    }

    /// The request for a certificate: PKCS #10, DER.
    ///
    /// # Errors
    /// When it cannot be signed, which does not happen.
    pub fn csr(&self) -> Result<Bytes, IdentityError> {
        let mut params = CertificateParams::default();
        // Names are the CA's to give: it knows who asks.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&self.key).map_err(IdentityError::Making)?;
        Ok(Bytes::copy_from_slice(csr.der()))
    }

    /// What to ask the cloud; without a token, to renew over a Link of this node.
    ///
    /// # Errors
    /// As [`Pending::csr`].
    pub fn join(&self, token: Option<&JoinToken>) -> Result<Join, IdentityError> {
        let token = token.map_or_else(String::new, JoinToken::reveal);
        Ok(Join { node: self.node.clone(), token, csr: self.csr()? })
    }

    /// The identity that this key has with `chain`, which the cloud with CA `pin` sent.
    ///
    /// # Errors
    /// [`IdentityError::Answer`] where it is for another name, key or cloud.
    pub fn complete(self, chain: &[Bytes], pin: CaHash) -> Result<Identity, IdentityError> {
        let [leaf, ca] = chain else {
            let count = chain.len();
            return Err(IdentityError::Answer(format!("{count} certificates instead of two")));
        };
        let certificate = |bytes: &Bytes| CertificateDer::from(bytes.to_vec());
        let chain = [certificate(leaf), certificate(ca)];
        if CaHash::of(&chain[1]) != pin {
            return Err(IdentityError::Answer("it comes with the CA of another cloud".into()));
        }
        let identity = Identity::assemble(&self.key.serialize_der(), chain)?;
        if *identity.subject() != Subject::Node(self.node.clone()) {
            let (is, wanted) = (identity.subject(), &self.node);
            return Err(IdentityError::Answer(format!("it is for {is}, not for node {wanted}")));
        }
        Ok(identity)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a node has to do before it can be anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: go on with the identity that was loaded.
    Serve,
    /// Ask for a new identity with the token.
    Join,
}

/// What `node` has to do, with what was loaded from its data folder and the token that its
/// configuration names. A token of another cloud, or another name, means that the node moved.
///
/// # Errors
/// Where it has to join and has no token, with the reason.
pub fn step(
    known: Option<&Identity>,
    node: &NodeName,
    token: Option<&JoinToken>,
    now: i64,
    grace: Duration,
) -> Result<Step, IdentityError> {
    let why = match known {
        None => IdentityError::NotJoined,
        Some(known) if known.node() != node => {
            IdentityError::OtherName { is: known.node().clone(), wanted: node.clone() }
        }
        Some(known) if known.expired_for(now).is_some_and(|over| over > grace) => {
            IdentityError::Over { node: node.clone() }
        }
        Some(known) if token.is_none_or(|token| token.ca() == known.ca()) => {
            return Ok(Step::Serve);
        }
        Some(_) => return Ok(Step::Join),
    };
    if token.is_some() { Ok(Step::Join) } else { Err(why) }
}

/// To dial a hub and join: it is believed if its CA is the one that `pin` names and its own
/// certificate is not over at the time of `clock`. We show no certificate.
pub fn joining(pin: CaHash, clock: &Clock, grace: Duration, alpn: &[u8]) -> Arc<ClientConfig> {
    // A new board has no certificate of its own to tell it that 1970 is over.
    let now = Now { is_sure: false, ..clock.now() };
    let judging = Judging { now, grace };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, judging }))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Forgets the key with which a node was joining.
pub(super) fn forget(data_dir: &Path) -> Result<(), IdentityError> {
    file::remove(&path(data_dir))
}

pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Making)
}

/// The first PKCS #8 key in `pem`.
pub(super) fn read_key(pem: &str) -> Result<KeyPair, String> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("no private key: {error}"))?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| "its private key is none of ECDSA P-256".into())
}

pub(super) fn check_name(node: &NodeName) -> Result<(), IdentityError> {
    check_node_name(&node.0).map_err(|why| IdentityError::Name { name: node.to_string(), why })
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}
