//! Certificates, requests for them, and join tokens: what strangers show before anyone knows them.

use edgemesh_core::identity::authority::key_hash;
use edgemesh_core::identity::{JoinToken, proved};
use rustls::pki_types::CertificateDer;

/// A certificate names at most one node, whose name is one, and is not proved by being read.
pub(super) fn certificate(bytes: &[u8]) -> bool {
    let Ok(proved) = proved(&[CertificateDer::from(bytes)]) else { return false };
    let name = &proved.node.0;
    assert!(proved.is_hub || edgemesh_core::identity::check_node_name(name).is_ok(), "{name}");
    assert_eq!(proved.expired_for(proved.until), None);
    true
}

/// A request is refused or has one key, whatever else it asks for.
pub(super) fn request(bytes: &[u8]) -> bool {
    let first = key_hash(bytes);
    assert_eq!(first.as_ref().ok(), key_hash(bytes).as_ref().ok());
    first.is_ok()
}

/// One token, one text.
pub(super) fn token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(token) = text.parse::<JoinToken>() else { return false };
    assert_eq!(token.reveal(), text.trim());
    true
}
