//! What one CA's signature proves, and how much a wrong clock may excuse.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, Error, OtherError, RootCertStore};

use crate::identity::certificate::Leaf;
use crate::identity::clock::Now;
use crate::identity::error::IdentityError;
use crate::identity::explain::explain;
use crate::identity::hash::CaHash;
use crate::identity::name::Subject;

/// How far this machine's clock may be behind the CA's: also one that was set to local time.
pub(super) const CLOCK_SKEW: i64 = 24 * 3600;

/// The one root: the CA of our cloud.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) ca: CaHash,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// When a certificate is judged, and how old it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judging {
    pub(super) now: Now,
    pub(super) grace: Duration,
}

/// rustls with ring, passed explicitly everywhere: a library installs no default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Trust {
    /// In whatever `certificate` signs.
    pub(super) fn new(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let unusable = |why: String| IdentityError::Certificate(format!("no CA's: {why}"));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone().into_owned()).map_err(|error| unusable(error.to_string()))?;
        let roots = Arc::new(roots);
        let provider = provider();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { ca: CaHash::of(certificate), roots, clients, algorithms })
    }

    /// Proves who dialled us.
    pub(super) fn client(
        &self,
        leaf: &CertificateDer<'_>,
        judging: Judging,
    ) -> Result<Subject, Error> {
        let read = self.read(leaf)?;
        // Our CA signs leaves itself, so what else was sent is of no use.
        self.clients.verify_client_cert(leaf, &[], judging.time(&read))?;
        Ok(read.subject)
    }

    /// Proves whom we dialled.
    pub(super) fn server(
        &self,
        leaf: &CertificateDer<'_>,
        judging: Judging,
    ) -> Result<Subject, Error> {
        let read = self.read(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            &[],
            judging.time(&read),
            self.algorithms.all,
        )?;
        Ok(read.subject)
    }

    /// Whether our CA signed `leaf` at all; when it holds does not matter here.
    pub(super) fn issued(&self, leaf: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let seconds = Leaf::read(leaf)?.not_before;
        let judging = Judging { now: Now { seconds, is_sure: true }, grace: Duration::ZERO };
        match self.server(leaf, judging) {
            Ok(_) => Ok(()),
            Err(error) => Err(IdentityError::Certificate(explain(&error))),
        }
    }

    /// Not proved yet; but a certificate of another cloud says so, and that is a better answer
    /// than that its issuer is unknown.
    fn read(&self, leaf: &CertificateDer<'_>) -> Result<Leaf, Error> {
        let leaf = Leaf::read(leaf).map_err(refused)?;
        let (theirs, ours) = (leaf.ca, self.ca.id());
        if theirs == ours {
            Ok(leaf)
        } else {
            Err(refused(IdentityError::OtherCloud { theirs, ours }))
        }
    }
}

impl Judging {
    /// The time at which webpki is to look: now, or the nearest end of the validity where the
    /// distance is excused.
    fn time(self, leaf: &Leaf) -> UnixTime {
        let Self { now: Now { seconds, is_sure }, grace } = self;
        let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let early = leaf.not_before.saturating_sub(seconds);
        let late = seconds.saturating_sub(leaf.not_after);
        let at = if early > 0 && (early <= CLOCK_SKEW || !is_sure) {
            // A clock that is known to be behind cannot say that something is yet to come.
            leaf.not_before
        } else if late > 0 && late <= grace {
            leaf.not_after
        } else {
            seconds
        };
        UnixTime::since_unix_epoch(Duration::from_secs(at.try_into().unwrap_or(0)))
    }
}

/// In a form that passes through rustls. The other side gets the alert `certificate_unknown`,
/// which nothing of ours causes but [`IdentityError::OtherCloud`] and [`IdentityError::OtherPin`].
pub(super) fn refused(error: IdentityError) -> Error {
    Error::InvalidCertificate(match error {
        IdentityError::Certificate(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}
