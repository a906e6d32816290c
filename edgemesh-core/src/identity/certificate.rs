//! What a certificate says: whom it names, by which cloud, and from when to when.

use std::collections::BTreeMap;
use std::time::Duration;

use edgemesh_proto::record::{NodeName, Revocation};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::error::IdentityError;
use crate::identity::hash::CaId;
use crate::identity::name::Subject;

/// Certificates are renewed daily, so that whoever is cut off has weeks left.
pub const RENEW_AFTER: Duration = Duration::from_secs(86_400);

/// A leaf as far as we use it. Nothing of it is proved by reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) ca: CaId,
    pub(super) subject: Subject,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// What the certificate of a finished handshake proves of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Which node; [`super::CLOUD`] for the hub.
    pub node: NodeName,
    /// It is the hub.
    pub is_hub: bool,
    /// When the certificate was issued, in seconds since 1970.
    pub issued: i64,
    /// Until when it is valid; beyond it lives on `offlineGrace`.
    pub until: i64,
}

impl Proved {
    /// Whether it is time for the next certificate: this one is older than [`RENEW_AFTER`].
    pub fn is_due(&self, now: i64) -> bool {
        is_due(self.issued, now)
    }

    /// How long the certificate has been expired at `now` (seconds since 1970, of the
    /// [`super::Clock`]). At the hub, such a node may only renew.
    pub fn expired_for(&self, now: i64) -> Option<Duration> {
        expired_for(self.until, now)
    }
}

pub(super) fn is_due(issued: i64, now: i64) -> bool {
    now.saturating_sub(issued) >= RENEW_AFTER.as_secs().cast_signed()
}

pub(super) fn expired_for(until: i64, now: i64) -> Option<Duration> {
    let over = u64::try_from(now.saturating_sub(until)).ok()?;
    (over > 0).then(|| Duration::from_secs(over))
}

/// What `chain` proves of who showed it in a handshake with a configuration of [`super::Tls`].
///
/// # Errors
/// Where there is no certificate of a node or hub. After a handshake of ours that is only the
/// case for who joins: a hub asks for a certificate but does not insist.
pub fn proved(chain: &[CertificateDer<'_>]) -> Result<Proved, IdentityError> {
    let leaf = chain.first().ok_or_else(|| IdentityError::Certificate("there is none".into()))?;
    let leaf = Leaf::read(leaf)?;
    Ok(Proved {
        node: leaf.subject.node(),
        is_hub: leaf.subject == Subject::Hub,
        issued: leaf.not_before,
        until: leaf.not_after,
    })
}

/// Whether the certificate was issued before its node was removed. Not checked in the handshake,
/// so that the other side can be told in words.
pub fn is_revoked(proved: &Proved, revocations: &BTreeMap<Box<str>, Revocation>) -> bool {
    !proved.is_hub
        && revocations.get(&proved.node.0).is_some_and(|removed| proved.issued < removed.before)
}

impl Leaf {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let broken = |what: &str| IdentityError::Certificate(what.to_owned());
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| broken("it cannot be read"))?;
        let names = parsed.subject_alternative_name().map_err(|_| broken("its names clash"))?;
        let mut ids = names.iter().flat_map(|names| &names.value.general_names).filter_map(
            |name| match name {
                GeneralName::URI(uri) => Subject::parse(uri),
                _ => None,
            },
        );
        let Some((ca, subject)) = ids.next() else {
            return Err(broken("it names neither a node nor a hub"));
        };
        if ids.next().is_some() {
            return Err(broken("it names several"));
        }
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { ca, subject, not_before, not_after })
    }
}
