//! The CA: what it signs, and that it is the same one after a move.

use std::collections::BTreeMap;

use rcgen::{CertificateParams, IsCa, KeyPair, SanType};

use super::*;

fn csr(params: &CertificateParams, algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn a_certificate_has_the_names_of_the_contract() {
    let cloud = Authority::new(TODAY).unwrap();
    let names = |identity: &Identity| {
        let (_, read) = x509_parser::parse_x509_certificate(&identity.chain[0]).unwrap();
        let names = read.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ca = cloud.ca().id();
    assert_eq!(
        names(&cloud.node(&node("edge-1"), TODAY, LIFETIME).unwrap()),
        [format!("URI(spiffe://{ca}/node/edge-1)"), "DNSName(edge-1.node.edgemesh)".into()]
    );
    let hub = cloud.hub(&["cloud.example".into(), "192.0.2.1".into()], TODAY, LIFETIME).unwrap();
    assert_eq!(
        names(&hub),
        [
            format!("URI(spiffe://{ca}/hub)"),
            "DNSName(hub.edgemesh)".into(),
            "DNSName(cloud.example)".into(),
            "IPAddress(c0:00:02:01)".into(),
        ]
    );
    let error = cloud.hub(&["wölke".into()], TODAY, LIFETIME).unwrap_err();
    assert!(error.to_string().contains("wölke"), "{error}");
}

/// Names and powers that a request asks for are not granted.
#[test]
fn of_a_request_only_the_key_counts() {
    let cloud = Authority::new(TODAY).unwrap();
    let mut params = CertificateParams::new(vec!["hub.edgemesh".into()]).unwrap();
    let uri = Subject::Hub.uri(cloud.ca().id());
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = csr(&params, &rcgen::PKCS_ECDSA_P256_SHA256);
    let [leaf, _] = cloud.sign(&csr, &node("edge-1"), TODAY, LIFETIME).unwrap();
    let proved = proved(std::slice::from_ref(&leaf)).unwrap();
    assert_eq!((&*proved.node.0, proved.is_hub), ("edge-1", false));
    let (_, read) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert!(!read.is_ca());
}

#[test]
fn a_request_that_is_none_is_refused() {
    let cloud = Authority::new(TODAY).unwrap();
    let plain = CertificateParams::default();
    let good = csr(&plain, &rcgen::PKCS_ECDSA_P256_SHA256);
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut long = good.clone();
    long.resize(authority::MAX_CSR + 1, 0);
    for (case, csr) in [
        ("empty", vec![]),
        ("garbage", vec![0x30; 200]),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec()),
        ("cut off", good[..good.len() / 2].to_vec()),
        ("signed by another key", altered),
        ("too long", long),
        ("P-384", csr(&plain, &rcgen::PKCS_ECDSA_P384_SHA384)),
        ("Ed25519", csr(&plain, &rcgen::PKCS_ED25519)),
    ] {
        let error = cloud.sign(&csr, &node("edge-1"), TODAY, LIFETIME).unwrap_err();
        assert!(matches!(error, IdentityError::Request(_)), "{case}: {error:?}");
    }
    for end in 0..good.len() {
        assert!(cloud.sign(&good[..end], &node("edge-1"), TODAY, LIFETIME).is_err(), "{end}");
    }
    cloud.sign(&good, &node("edge-1"), TODAY, LIFETIME).unwrap();
}

/// A CA that moved to another machine is the same CA: old nodes believe what it signs now.
#[tokio::test]
async fn a_restored_ca_is_the_same() {
    let cloud = Authority::new(TODAY).unwrap();
    let edge = tls(&cloud, "edge-1", TODAY, TODAY);
    let moved = Authority::from_pem(&cloud.to_pem()).unwrap();
    assert_eq!(moved.ca(), cloud.ca());
    let (near, far) = dial(&edge, Expect::Hub, &hub(&moved, TODAY, TODAY), Role::Hub).await;
    assert_eq!((who(&near), who(&far)), (CLOUD.into(), "edge-1".into()));
    // Whoever edits such files may turn them round.
    let turned = format!("{}{}", cloud.certificate_pem(), cloud.key_pem());
    assert_eq!(Authority::from_pem(&turned).unwrap().ca(), cloud.ca());
}

#[test]
fn what_is_no_ca_is_not_taken_for_one() {
    let (cloud, other) = (Authority::new(TODAY).unwrap(), Authority::new(TODAY).unwrap());
    let leaf = cloud.node(&node("edge-1"), TODAY, LIFETIME).unwrap();
    let leaf_key = block("PRIVATE KEY", leaf.key.secret_pkcs8_der());
    for (case, text, says) in [
        ("nothing", String::new(), "no private key"),
        ("no key", cloud.certificate_pem(), "no private key"),
        ("no certificate", cloud.key_pem(), "no certificate of a CA"),
        ("two halves", format!("{}{}", cloud.key_pem(), other.certificate_pem()), "is not that of"),
        ("a node's", format!("{leaf_key}{}", pem(&leaf.chain[0])), "not that of a CA"),
    ] {
        let error = Authority::from_pem(&text).unwrap_err().to_string();
        assert!(error.contains(says), "{case}: {error}");
    }
    assert!(!format!("{cloud:?}").contains("PRIVATE"));
}

#[test]
fn a_removed_node_is_void_until_it_joins_again() {
    let of = |name: &str, issued| Proved {
        node: node(name),
        is_hub: name == CLOUD,
        issued,
        until: issued + 30 * DAY,
    };
    let removed = |before| edgemesh_proto::record::Revocation { before };
    let revocations =
        BTreeMap::from([(Box::from("edge-1"), removed(TODAY)), (Box::from(CLOUD), removed(TODAY))]);
    for (name, issued, void) in [
        ("edge-1", TODAY - DAY, true),
        ("edge-1", TODAY - 1, true),
        ("edge-1", TODAY, false),
        ("edge-1", TODAY + 1, false),
        ("edge-2", TODAY - DAY, false),
        (CLOUD, TODAY - DAY, false),
    ] {
        assert_eq!(is_revoked(&of(name, issued), &revocations), void, "{name} {issued}");
    }
}
