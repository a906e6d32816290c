//! The CA of a cloud: one key that signs nodes and hubs.
//!
//! It stands here and not in `router`, so that whoever tests the library can have certificates.
//! Who may have which is the router's to decide.

use std::net::IpAddr;
use std::time::Duration;

use edgemesh_proto::record::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::identity::Identity;
use crate::identity::error::IdentityError;
use crate::identity::hash::{CaHash, hex, sha256};
use crate::identity::joining::{check_name, new_key, read_key};
use crate::identity::name::Subject;
use crate::identity::token::fill;

/// How long a certificate lives.
pub const LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// The CA outlives every board: nothing can replace it on a site that nobody visits.
const CA_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Longest request for a certificate that is read; ours have 250 bytes.
pub const MAX_CSR: usize = 4096;

/// An uncompressed point of P-256.
const PUBLIC_KEY: usize = 65;

/// The last second of the year 9999, beyond which certificates cannot say a time.
const END_OF_TIME: u64 = 253_402_300_799;

/// A CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub(super) hash: CaHash,
}

impl Authority {
    /// A new CA that begins at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// When no key can be made, which does not happen.
    pub fn new(now: i64) -> Result<Self, IdentityError> {
        let key = new_key()?;
        let mut params = params(now, CA_LIFETIME);
        params.distinguished_name = called(&format!("EdgeMesh {}", key_name(&key)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(IdentityError::Making)?;
        Self::with(key, certificate.into())
    }

    /// From its key and certificate in PEM, in any order, as [`Authority::to_pem`] gives them.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`], with what is missing or does not fit.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let broken = |what: String| IdentityError::Certificate(what);
        let key = read_key(pem).map_err(broken)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| broken(format!("no certificate of a CA: {error}")))?;
        Self::with(key, certificate)
    }

    fn with(key: KeyPair, certificate: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let read = x509_parser::parse_x509_certificate(&certificate);
        let (_, read) = read.map_err(|_| IdentityError::Certificate("it cannot be read".into()))?;
        if !read.is_ca() {
            return Err(IdentityError::Certificate("it is not that of a CA".into()));
        }
        if *read.public_key().subject_public_key.data != *key.public_key_raw() {
            let what = "the key of the CA is not that of its certificate";
            return Err(IdentityError::Certificate(what.into()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(IdentityError::Making)?;
        Ok(Self { issuer, hash: CaHash::of(&certificate), certificate })
    }

    /// Key and certificate: all there is to a CA, and to be kept as secret as the key.
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.key_pem(), self.certificate_pem())
    }

    /// The key alone.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The certificate alone; no secret.
    pub fn certificate_pem(&self) -> String {
        super::pem(&self.certificate)
    }

    /// What tokens pin.
    pub const fn ca(&self) -> CaHash {
        self.hash
    }

    /// A certificate for `node`, whose key signed `csr`; leaf first, then the CA's own. Of the
    /// request only the key counts.
    ///
    /// # Errors
    /// [`IdentityError::Request`] or [`IdentityError::Name`].
    pub fn sign(
        &self,
        csr: &[u8],
        node: &NodeName,
        now: i64,
        lifetime: Duration,
    ) -> Result<[CertificateDer<'static>; 2], IdentityError> {
        check_name(node)?;
        self.issue(&read_csr(csr)?, &Subject::Node(node.clone()), &[], now, lifetime)
    }

    /// The hub's identity, for dialling by `names` (DNS names and addresses).
    ///
    /// # Errors
    /// [`IdentityError::Name`] for a name that cannot stand in a certificate.
    pub fn hub(
        &self,
        names: &[String],
        now: i64,
        lifetime: Duration,
    ) -> Result<Identity, IdentityError> {
        let key = new_key()?;
        let chain = self.issue(&key, &Subject::Hub, names, now, lifetime)?;
        Identity::assemble(&key.serialize_der(), chain)
    }

    /// A node's identity, key and all: for a node of the cloud's own process.
    ///
    /// # Errors
    /// [`IdentityError::Name`].
    pub fn node(
        &self,
        node: &NodeName,
        now: i64,
        lifetime: Duration,
    ) -> Result<Identity, IdentityError> {
        check_name(node)?;
        let key = new_key()?;
        let chain = self.issue(&key, &Subject::Node(node.clone()), &[], now, lifetime)?;
        Identity::assemble(&key.serialize_der(), chain)
    }

    pub(super) fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        names: &[String],
        now: i64,
        lifetime: Duration,
    ) -> Result<[CertificateDer<'static>; 2], IdentityError> {
        let mut params = params(now, lifetime);
        params.distinguished_name = called(&subject.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject {
            Subject::Node(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Subject::Hub => vec![ExtendedKeyUsagePurpose::ServerAuth], // it never dials
        };
        params.use_authority_key_identifier_extension = true;
        let uri = subject.uri(self.hash.id());
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().map_err(IdentityError::Making)?),
            SanType::DnsName(subject.dns().try_into().map_err(IdentityError::Making)?),
        ];
        for name in names {
            params.subject_alt_names.push(alternative(name)?);
        }
        let leaf = params.signed_by(key, &self.issuer).map_err(IdentityError::Making)?;
        Ok([leaf.into(), self.certificate.clone()])
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("ca", &self.hash).finish_non_exhaustive()
    }
}

/// The SHA-256 of the key that signed a request, by which a CA knows who asks again.
///
/// # Errors
/// As [`Authority::sign`] for the request.
pub fn key_hash(csr: &[u8]) -> Result<[u8; 32], IdentityError> {
    Ok(sha256(read_csr(csr)?.der_bytes()))
}

/// The key that a request is for; it signed the request, so whoever asks has it.
fn read_csr(csr: &[u8]) -> Result<rcgen::PublicKey, IdentityError> {
    let wrong = |what: String| IdentityError::Request(what);
    if csr.len() > MAX_CSR {
        return Err(wrong(format!("it has {} bytes, at most {MAX_CSR}", csr.len())));
    }
    let csr = CertificateSigningRequestDer::from(csr);
    let read = CertificateSigningRequestParams::from_der(&csr)
        .map_err(|error| wrong(error.to_string()))?;
    let key = read.public_key;
    if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != PUBLIC_KEY {
        return Err(wrong("its key is none of ECDSA P-256".into()));
    }
    Ok(key)
}

fn params(now: i64, lifetime: Duration) -> CertificateParams {
    let begin = u64::try_from(now).unwrap_or(0).min(END_OF_TIME);
    let end = begin.saturating_add(lifetime.as_secs()).min(END_OF_TIME);
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (at(begin), at(end));
    let mut serial = [0; 16];
    fill(&mut serial);
    serial[0] &= 0x7f; // positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn called(name: &str) -> DistinguishedName {
    // X.520 gives a common name 64 characters; who somebody is stands in the SPIFFE id.
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    subject
}

/// Makes the names of two CAs differ.
fn key_name(key: &KeyPair) -> String {
    hex(&sha256(key.public_key_raw())[..8])
}

fn alternative(name: &str) -> Result<SanType, IdentityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let failed = || IdentityError::Name { name: name.into(), why: "not ASCII".into() };
    Ok(SanType::DnsName(name.try_into().map_err(|_| failed())?))
}
