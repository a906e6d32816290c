//! Who gets through to whom, and what both ends say where not.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::UnixTime;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS12;
use rustls::{DigitallySignedStruct, Error, HandshakeKind, RootCertStore, SignatureScheme};

use super::*;

#[tokio::test]
async fn both_ends_know_each_other() {
    let cloud = Authority::new(TODAY).unwrap();
    let (a, b) = (tls(&cloud, "edge-1", TODAY, TODAY), tls(&cloud, "edge-2", TODAY, TODAY));
    let (at_a, at_b) = dial(&a, Expect::Node(&node("edge-2")), &b, Role::Peer).await;
    assert_eq!((who(&at_a), who(&at_b)), ("edge-2".into(), "edge-1".into()));

    let hub = hub(&cloud, TODAY, TODAY);
    let (at_a, at_hub) = dial(&a, Expect::Hub, &hub, Role::Hub).await;
    let (at_a, at_hub) = (proved(&at_a.unwrap()).unwrap(), proved(&at_hub.unwrap()).unwrap());
    assert_eq!((&*at_a.node.0, at_a.is_hub, at_a.issued), (CLOUD, true, TODAY));
    assert_eq!((&*at_hub.node.0, at_hub.is_hub, at_hub.until), ("edge-1", false, TODAY + 30 * DAY));
}

#[tokio::test]
async fn the_longest_name_gets_through() {
    let cloud = Authority::new(TODAY).unwrap();
    let label = "n".repeat(63);
    let name = node(&[&*label, &label, &label, &"n".repeat(MAX_NODE_NAME - 192)].join("."));
    assert_eq!(name.0.len(), MAX_NODE_NAME);
    let (a, b) = (tls(&cloud, "edge-1", TODAY, TODAY), tls(&cloud, &name.0, TODAY, TODAY));
    let (at_a, _) = dial(&a, Expect::Node(&name), &b, Role::Peer).await;
    assert_eq!(who(&at_a), name.to_string());
}

/// What happens, the dialler and whom it expects, the listener and as what it listens, and what
/// the two say.
type Case<'a> = (&'a str, Tls, Expect<'a>, Tls, Role, [&'a str; 2]);

#[tokio::test]
async fn who_does_not_belong_here_is_told_so_at_both_ends() {
    let (cloud, other) = (Authority::new(TODAY).unwrap(), Authority::new(TODAY).unwrap());
    let edge = |authority, name| tls(authority, name, TODAY, TODAY);
    let (edge_2, edge_3, never) = (node("edge-2"), node("edge-3"), node("Ünfug"));
    let to_2 = Expect::Node(&edge_2);
    let cases: [Case<'_>; 6] = [
        (
            "a node of another cloud is dialled",
            edge(&cloud, "edge-1"),
            to_2,
            edge(&other, "edge-2"),
            Role::Peer,
            [
                &format!(
                    "belongs to another cloud (CA {}, ours is {})",
                    other.ca().id(),
                    cloud.ca().id()
                ),
                "refused by the other side: we belong to another cloud",
            ],
        ),
        (
            "the hub is dialled in place of a node",
            edge(&cloud, "edge-1"),
            to_2,
            hub(&cloud, TODAY, TODAY),
            Role::Hub,
            ["the hub answers, not node edge-2", "we are not whom the other side expected"],
        ),
        (
            "a node is dialled in place of the hub",
            edge(&cloud, "edge-1"),
            Expect::Hub,
            edge(&cloud, "edge-2"),
            Role::Peer,
            ["node edge-2 answers, not the hub", "we are not whom the other side expected"],
        ),
        (
            "another node is dialled",
            edge(&cloud, "edge-1"),
            Expect::Node(&edge_3),
            edge(&cloud, "edge-2"),
            Role::Peer,
            ["node edge-2 answers, not node edge-3", "we are not whom the other side expected"],
        ),
        (
            "the hub's certificate dials",
            hub(&cloud, TODAY, TODAY),
            to_2,
            edge(&cloud, "edge-2"),
            Role::Peer,
            ["the hub's cannot dial", "the hub's cannot dial"],
        ),
        (
            "a name that cannot be",
            edge(&cloud, "edge-1"),
            Expect::Node(&never),
            edge(&cloud, "edge-2"),
            Role::Peer,
            ["node edge-2 answers, not", "we are not whom the other side expected"],
        ),
    ];
    for (case, client, expect, server, role, says) in cases {
        failed(case, dial(&client, expect, &server, role).await, says);
    }
}

/// Two that are not whom they claim to be: one has a certificate that our CA did not sign, one the
/// real certificate without its key. Both believe anything, so that they are not the ones to end
/// the handshake.
#[tokio::test]
async fn neither_a_forged_nor_a_stolen_certificate_is_believed() {
    let cloud = Authority::new(TODAY).unwrap();
    let mut forger = Authority::new(TODAY).unwrap();
    forger.hash = cloud.hash;
    let subject = Subject::Node(node("edge-2"));
    let key = joining::new_key().unwrap();
    let [forged, _] = forger.issue(&key, &subject, &[], TODAY, LIFETIME).unwrap();
    let [stolen, _] =
        cloud.issue(&joining::new_key().unwrap(), &subject, &[], TODAY, LIFETIME).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(key)).unwrap();

    let edge = tls(&cloud, "edge-1", TODAY, TODAY);
    let expect = node("edge-2");
    for (case, leaf) in [("forged", forged), ("stolen", stolen)] {
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![leaf], key.clone()));
        let shown = Arc::new(shown);
        let (here, there) = ("CA did not give it to that machine", "did not give us our certif");

        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        let client = edge.client(Expect::Node(&expect), ALPN);
        let ends = shake(client, Expect::Node(&expect).server_name(), Arc::new(server)).await;
        failed(case, ends, [here, there]);

        for role in [Role::Peer, Role::Hub] {
            let client = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Gullible))
                .with_client_cert_resolver(shown.clone());
            let server = edge.server(role, &[ALPN]);
            let ends = shake(Arc::new(client), Expect::Hub.server_name(), server).await;
            failed(case, ends, [there, here]);
        }
    }
}

/// Without a certificate only the hub lets somebody in.
#[tokio::test]
async fn who_has_not_joined_gets_to_the_hub_only() {
    let cloud = Authority::new(TODAY).unwrap();
    let client = || joining(cloud.ca(), &clock_at(TODAY), OFFLINE_GRACE, ALPN);
    let name = Expect::Hub.server_name();

    let (near, far) =
        shake(client(), name.clone(), hub(&cloud, TODAY, TODAY).server(Role::Hub, &[ALPN])).await;
    assert_eq!(who(&near), CLOUD);
    assert_eq!(far, Ok(Vec::new()));

    let strict = hub(&cloud, TODAY, TODAY).server(Role::Peer, &[ALPN]);
    let says = ["this node has not joined", "the other side showed no certificate"];
    failed("a peer", shake(client(), name, strict).await, says);
}

/// What does not speak our TLS at all.
#[tokio::test]
async fn strangers_are_named() {
    let cloud = Authority::new(TODAY).unwrap();
    let edge = tls(&cloud, "edge-1", TODAY, TODAY);
    for (bytes, says) in [
        (&b"GET / HTTP/1.1\r\nHost: edge-1\r\n\r\n"[..], "speaks no TLS but plain text"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no TLS but plain text"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "speaks no TLS but plain text"),
        (&[0; 64], "speaks no TLS but plain text"),
        (&[0xff; 4096], "speaks no TLS but plain text"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "breaks the rules of TLS"),
        (b"\x16\x03", "closed the connection during the handshake"),
        (b"", "closed the connection during the handshake"),
    ] {
        // The stranger dials, then it listens.
        let (mut near, far) = tokio::io::duplex(1 << 16);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let text = accept(edge.server(Role::Peer, &[ALPN]), far).await.unwrap_err();
        assert!(text.contains(says), "{bytes:?} dialled: {text}");

        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        let client = edge.client(Expect::Hub, ALPN);
        let text = connect(client, Expect::Hub.server_name(), near).await.unwrap_err();
        assert!(text.contains(says) || text.contains("TLS"), "{bytes:?} listened: {text}");
    }
}

#[tokio::test]
async fn other_protocols_within_tls_are_named() {
    let cloud = Authority::new(TODAY).unwrap();
    let (edge, hub) = (tls(&cloud, "edge-1", TODAY, TODAY), hub(&cloud, TODAY, TODAY));
    let name = Expect::Hub.server_name();

    let ends =
        shake(edge.client(Expect::Hub, b"http/1.1"), name.clone(), hub.server(Role::Hub, &[ALPN]))
            .await;
    failed("ALPN", ends, ["no protocol that we offered", "no protocol of EdgeMesh"]);

    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let ends = shake(Arc::new(old), name, hub.server(Role::Hub, &[ALPN])).await;
    failed("TLS 1.2", ends, ["speaks no TLS 1.3", "speaks no TLS 1.3"]);
}

/// A renewed identity counts in configurations that are in use, and no session is resumed, in
/// which nobody would look at certificates again.
#[tokio::test]
async fn renewal_counts_from_the_next_handshake_on() {
    let cloud = Authority::new(TODAY).unwrap();
    let edge = tls(&cloud, "edge-1", TODAY, TODAY);
    let hub = hub(&cloud, TODAY, TODAY);
    let (client, server) = (edge.client(Expect::Hub, ALPN), hub.server(Role::Hub, &[ALPN]));
    for day in 0..3 {
        let issued = TODAY + day * DAY;
        edge.renew(cloud.node(&node("edge-1"), issued, LIFETIME).unwrap());
        hub.renew(cloud.hub(&[], issued, LIFETIME).unwrap());
        let (near, far) = shake(client.clone(), Expect::Hub.server_name(), server.clone()).await;
        assert_eq!(proved(&near.unwrap()).unwrap().issued, issued);
        assert_eq!(proved(&far.unwrap()).unwrap().issued, issued);
    }
    assert_eq!(edge.identity().not_before(), TODAY + 2 * DAY);

    let (near, far) = tokio::io::duplex(1 << 16);
    let dialling = TlsConnector::from(client).connect(Expect::Hub.server_name(), near);
    let (near, far) = tokio::join!(dialling, TlsAcceptor::from(server).accept(far));
    assert_eq!(near.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(far.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
}

/// Believes everything.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
