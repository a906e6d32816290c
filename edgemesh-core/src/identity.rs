//! Who a node is, and how it proves that: keys, certificates, and TLS made of them.
//!
//! A cloud is a small CA ([`Authority`]). A node has a key that never leaves it and a certificate
//! of 30 days that names it ([`Identity`]); it comes by the first with a token that pins the CA's
//! hash ([`step()`], [`JoinToken`], [`Pending`], [`joining()`]) and by each next one over a Link. [`Tls`] makes
//! the configurations of both ends of a Link; after the handshake [`proved`] says who is there,
//! [`is_revoked`] whether that still counts, and [`explain`] what was wrong.
//!
//! Names: the SPIFFE id `spiffe://<ca>/node/<name>` (`spiffe://<ca>/hub`) is what is checked, with
//! `<ca>` the first half of the SHA-256 of the CA's certificate; `<name>.node.edgemesh` is there
//! for programs that only know DNS.
//!
//! Clocks: see [`Clock`]. A certificate that has been expired for no longer than the grace is
//! accepted, and [`Proved::expired_for`] tells; so an isolated site lives on for weeks.
//!
//! Files in the data folder, all 0600: `identity.pem` (key, certificate, CA), `joining.key` while a
//! node is joining, `clock`.

pub mod authority;
mod certificate;
mod clock;
mod error;
mod explain;
pub mod file;
mod hash;
mod joining;
mod name;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod trust;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edgemesh_proto::record::NodeName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

pub use crate::identity::authority::Authority;
pub use crate::identity::certificate::{Proved, RENEW_AFTER, is_revoked, proved};
pub use crate::identity::clock::{Clock, Now, PERSIST_EVERY};
pub use crate::identity::error::IdentityError;
pub use crate::identity::explain::explain;
pub use crate::identity::hash::{CaHash, CaId};
pub use crate::identity::joining::{Pending, Step, joining, step};
pub use crate::identity::name::{CLOUD, Expect, MAX_NODE_NAME, check_node_name};
pub use crate::identity::tls::{Role, Tls};
pub use crate::identity::token::{JoinToken, MAX_TOKEN, TokenError, TokenId};

use crate::identity::certificate::Leaf;
use crate::identity::name::Subject;
use crate::identity::trust::{Trust, provider};

/// How long a certificate may have been expired where nobody says otherwise.
pub const OFFLINE_GRACE: Duration = Duration::from_secs(30 * 86_400);

const FILE: &str = "identity.pem";

/// A key, its certificate, and the CA that signed it. Immutable: renewal makes a new one.
#[derive(Clone, Debug)]
pub struct Identity {
    leaf: Leaf,
    node: NodeName,
    /// PKCS #8, for [`Identity::save`].
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    chain: [CertificateDer<'static>; 2],
    shown: Arc<CertifiedKey>,
    trust: Arc<Trust>,
}

impl Identity {
    /// The node's name; [`CLOUD`] for the hub.
    pub const fn node(&self) -> &NodeName {
        &self.node
    }

    /// The CA of the cloud that it belongs to.
    pub fn ca(&self) -> CaHash {
        self.trust.ca
    }

    /// When the certificate was issued, in seconds since 1970.
    pub const fn not_before(&self) -> i64 {
        self.leaf.not_before
    }

    /// When it expires.
    pub const fn not_after(&self) -> i64 {
        self.leaf.not_after
    }

    /// Whether it is time to renew it.
    pub fn is_due(&self, now: i64) -> bool {
        certificate::is_due(self.leaf.not_before, now)
    }

    /// How long it has been expired at `now`.
    pub fn expired_for(&self, now: i64) -> Option<Duration> {
        certificate::expired_for(self.leaf.not_after, now)
    }

    /// What was saved in `data_dir`; `None` where no node has joined.
    ///
    /// # Errors
    /// [`IdentityError::File`] or [`IdentityError::Damaged`].
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let file = path(data_dir);
        let Some(pem) = file::read(&file)? else { return Ok(None) };
        let damaged = |what: String| IdentityError::Damaged { file: file.clone(), what };
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| damaged(format!("no private key: {error}")))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| damaged(error.to_string()))?;
        let chain = chain.try_into().map_err(|_| damaged("wanted are two certificates".into()))?;
        Self::assemble(key.secret_pkcs8_der(), chain)
            .map(Some)
            .map_err(|error| damaged(error.to_string()))
    }

    /// Keeps it in `data_dir`, in place of what was there.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let key = block("PRIVATE KEY", self.key.secret_pkcs8_der());
        let text = format!("{key}{}{}", pem(&self.chain[0]), pem(&self.chain[1]));
        file::write(&path(data_dir), text.as_bytes())?;
        joining::forget(data_dir)
    }

    /// Puts together what fits together: the CA signed the leaf, and the leaf is for the key.
    fn assemble(pkcs8: &[u8], chain: [CertificateDer<'static>; 2]) -> Result<Self, IdentityError> {
        let leaf = Leaf::read(&chain[0])?;
        let trust = Trust::new(&chain[1])?;
        trust.issued(&chain[0])?;
        let key = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        // Who joins knows the CA by its hash only, so the hub shows it too.
        let shown =
            if leaf.subject == Subject::Hub { chain.to_vec() } else { vec![chain[0].clone()] };
        let shown =
            CertifiedKey::from_der(shown, PrivateKeyDer::Pkcs8(key.clone_key()), &provider())
                .map_err(|error| IdentityError::Answer(error.to_string()))?;
        Ok(Self {
            node: leaf.subject.node(),
            leaf,
            key: Arc::new(key),
            chain,
            shown: Arc::new(shown),
            trust: Arc::new(trust),
        })
    }

    const fn subject(&self) -> &Subject {
        &self.leaf.subject
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        self.shown.clone()
    }

    fn trust(&self) -> &Trust {
        &self.trust
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// A certificate as people pass it on.
fn pem(certificate: &CertificateDer<'_>) -> String {
    block("CERTIFICATE", certificate)
}

/// RFC 7468: lines of 64 characters between two marks.
fn block(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
