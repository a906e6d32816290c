//! The verifiers that rustls asks during a handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use crate::identity::certificate::Leaf;
use crate::identity::error::IdentityError;
use crate::identity::hash::CaHash;
use crate::identity::name::Subject;
use crate::identity::tls::Shared;
use crate::identity::trust::{Judging, Trust, provider, refused};

/// Whom we dial: has to be whom we expect.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) shared: Arc<Shared>,
    pub(super) expect: Subject,
}

/// Who dials us: any node of our cloud.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) shared: Arc<Shared>,
    /// Whether somebody without a certificate is let in, to join.
    pub(super) is_optional: bool,
}

/// The hub of the cloud that a token pins: all that is known is the hash of its CA.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) pin: CaHash,
    pub(super) judging: Judging,
}

/// The signature of the handshake itself, which is the same for everyone.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            verify_tls13_signature(message, leaf, signed, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let subject = self.shared.identity().trust().server(leaf, self.shared.judging())?;
        compare(&subject, &self.expect)
    }

    signatures!();
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.is_optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // who dials us has one certificate and shows it
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.shared.identity().trust().client(leaf, self.shared.judging())?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(ca) = others.iter().find(|other| CaHash::of(other) == self.pin) else {
            return Err(self.unpinned(leaf));
        };
        let trust = Trust::new(ca).map_err(refused)?;
        compare(&trust.server(leaf, self.judging)?, &Subject::Hub)
    }

    signatures!();
}

impl Pinned {
    fn unpinned(&self, leaf: &CertificateDer<'_>) -> Error {
        let pinned = self.pin.id();
        match Leaf::read(leaf) {
            // Nodes do not show their CA.
            Ok(leaf) if leaf.ca == pinned => other(&leaf.subject, &Subject::Hub),
            Ok(leaf) => refused(IdentityError::OtherPin { pinned, theirs: Some(leaf.ca) }),
            Err(_) => refused(IdentityError::OtherPin { pinned, theirs: None }),
        }
    }
}

fn compare(is: &Subject, expected: &Subject) -> Result<ServerCertVerified, Error> {
    if is == expected { Ok(ServerCertVerified::assertion()) } else { Err(other(is, expected)) }
}

fn other(is: &Subject, expected: &Subject) -> Error {
    Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        expected: expected.as_expect().server_name(),
        presented: vec![is.dns()],
    })
}
