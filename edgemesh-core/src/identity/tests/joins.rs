//! From a token to an identity, and what may go wrong on the way.

use super::*;

fn bytes(chain: &[CertificateDer<'_>]) -> Vec<bytes::Bytes> {
    chain.iter().map(|certificate| bytes::Bytes::copy_from_slice(certificate)).collect()
}

#[test]
fn a_token_is_one_line_and_keeps_its_secret() {
    let cloud = Authority::new(TODAY).unwrap();
    let token = JoinToken::new(cloud.ca());
    let line = token.reveal();
    assert!(line.len() <= MAX_TOKEN && line.bytes().all(|c| c.is_ascii_graphic()), "{line}");
    assert!(line.starts_with(&format!("edgemesh1.{}.{}.", cloud.ca(), token.id())));
    for text in [line.clone(), format!("{line}\n"), format!("  {line}\r\n")] {
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
    }
    let secret = line.rsplit('.').next().unwrap();
    assert!(!format!("{token:?}").contains(secret));
    let pending = Pending::new(&node("edge-1")).unwrap();
    assert!(!format!("{:?}", pending.join(Some(&token)).unwrap()).contains(secret));
    assert_ne!(JoinToken::new(cloud.ca()).secret_hash(), token.secret_hash());
}

#[test]
fn what_is_no_token_is_told_without_repeating_it() {
    let line = JoinToken::new(Authority::new(TODAY).unwrap().ca()).reveal();
    for end in 0..line.len() {
        let error = line[..end].parse::<JoinToken>().unwrap_err();
        let want = if end < 10 { TokenError::Other } else { TokenError::Broken };
        assert_eq!(error, want, "{end}");
        // Fewer characters may stand in any text.
        assert!(end < 18 || !error.to_string().contains(&line[10..end]));
    }
    for (text, want) in [
        (line.to_uppercase(), TokenError::Other),
        (format!("{line}0"), TokenError::Broken),
        (format!("{line}.0"), TokenError::Broken),
        (line.replace('.', "-"), TokenError::Other),
        (format!("edgemesh1.{}", "é".repeat(32)), TokenError::Broken),
        ("eyJhbGciOi.J".into(), TokenError::Other),
    ] {
        assert_eq!(text.parse::<JoinToken>(), Err(want), "{text}");
    }
}

/// Token, handshake on nothing but the pin, request, certificate.
#[tokio::test]
async fn a_node_joins() {
    let cloud = Authority::new(TODAY).unwrap();
    let token = JoinToken::new(cloud.ca());
    // A board that is in 1970 and has no certificate to tell it otherwise.
    for clock in [TODAY, 40] {
        let client = joining(token.ca(), &clock_at(clock), OFFLINE_GRACE, ALPN);
        let server = hub(&cloud, TODAY, TODAY).server(Role::Hub, &[ALPN]);
        let (near, _) = shake(client, Expect::Hub.server_name(), server).await;
        assert_eq!(who(&near), CLOUD, "{clock}");
    }
    let pending = Pending::new(&node("edge-1")).unwrap();
    let join = pending.join(Some(&token)).unwrap();
    assert_eq!((join.token, &*join.node.0), (token.reveal(), "edge-1"));
    let chain = cloud.sign(&join.csr, &join.node, TODAY, LIFETIME).unwrap();
    let identity = pending.complete(&bytes(&chain), token.ca()).unwrap();
    assert_eq!((identity.node(), identity.ca()), (&node("edge-1"), cloud.ca()));
    assert_eq!((identity.not_before(), identity.not_after()), (TODAY, TODAY + 30 * DAY));
}

#[tokio::test]
async fn only_the_hub_of_the_pinned_cloud_is_joined() {
    let (cloud, other) = (Authority::new(TODAY).unwrap(), Authority::new(TODAY).unwrap());
    let pinned = format!("it pins CA {}, CA {} answers", cloud.ca().id(), other.ca().id());
    let elsewhere = "or the token is for another one";
    // Shows our CA, which is no secret, beside a leaf of its own.
    let mut mimic = other.hub(&[], TODAY, LIFETIME).unwrap();
    let ours = cloud.hub(&[], TODAY, LIFETIME).unwrap();
    let leaf = mimic.chain[0].clone();
    let shown = vec![leaf, ours.chain[1].clone()];
    mimic.shown = Arc::new(CertifiedKey::new(shown, mimic.shown.key.clone()));
    let mimic = Tls::new(mimic, clock_at(TODAY), OFFLINE_GRACE);
    let not_the_hub = "we are not whom the other side expected";
    let over = "by the other side's clock our certificate expired";
    let cases: [(&str, Tls, [&str; 2]); 4] = [
        ("another cloud's hub", hub(&other, TODAY, TODAY), [&pinned, elsewhere]),
        ("a mimic", mimic, ["belongs to another cloud", elsewhere]),
        (
            "a node",
            tls(&cloud, "edge-2", TODAY, TODAY),
            ["node edge-2 answers, not the hub", not_the_hub],
        ),
        (
            "an old certificate",
            hub(&cloud, TODAY - 61 * DAY, TODAY),
            ["its certificate expired on", over],
        ),
    ];
    for (case, server, says) in cases {
        let client = joining(cloud.ca(), &clock_at(TODAY), OFFLINE_GRACE, ALPN);
        let server = server.server(Role::Hub, &[ALPN]);
        failed(case, shake(client, Expect::Hub.server_name(), server).await, says);
    }
}

#[test]
fn a_node_joins_when_it_has_to() {
    let (cloud, other) = (Authority::new(TODAY).unwrap(), Authority::new(TODAY).unwrap());
    let identity = cloud.node(&node("edge-1"), TODAY, LIFETIME).unwrap();
    let (here, there) = (JoinToken::new(cloud.ca()), JoinToken::new(other.ca()));
    let (known, unknown) = (Some(&identity), None);
    let (fresh, over) = (TODAY, TODAY + 60 * DAY + 1);
    for (known, name, token, now, want) in [
        (unknown, "edge-1", None, fresh, Err("has not joined")),
        (unknown, "edge-1", Some(&here), fresh, Ok(Step::Join)),
        (known, "edge-1", None, fresh, Ok(Step::Serve)),
        (known, "edge-1", Some(&here), fresh, Ok(Step::Serve)),
        (known, "edge-1", Some(&there), fresh, Ok(Step::Join)),
        (known, "edge-1", None, over - 1, Ok(Step::Serve)),
        (known, "edge-1", None, over, Err("expired longer ago than offlineGrace")),
        (known, "edge-1", Some(&here), over, Ok(Step::Join)),
        (known, "edge-2", None, fresh, Err("the identity of node edge-1, but this node is")),
        (known, "edge-2", Some(&here), fresh, Ok(Step::Join)),
    ] {
        match (step(known, &node(name), token, now, OFFLINE_GRACE), want) {
            (Ok(step), Ok(want)) => assert_eq!(step, want, "{name} {token:?} {now}"),
            (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
            (is, want) => panic!("{name} {token:?} {now}: {is:?}, not {want:?}"),
        }
    }
}

#[test]
fn an_answer_has_to_fit_what_was_asked_for() {
    let (cloud, other) = (Authority::new(TODAY).unwrap(), Authority::new(TODAY).unwrap());
    let ask = || Pending::new(&node("edge-1")).unwrap();
    let sign = |by: &Authority, csr: &[u8], name| {
        bytes(&by.sign(csr, &node(name), TODAY, LIFETIME).unwrap())
    };
    let csr = ask().csr().unwrap();
    let another_key = sign(&cloud, &csr, "edge-1");
    for (case, chain, says) in [
        ("nothing", vec![], "0 certificates instead of two"),
        ("half", another_key[..1].to_vec(), "1 certificates instead of two"),
        ("another key's", another_key.clone(), "does not fit"),
        ("garbage", vec!["x".into(), another_key[1].clone()], "none of EdgeMesh"),
        ("the CA twice", vec![another_key[1].clone(), another_key[1].clone()], "names neither"),
        ("another cloud's", sign(&other, &csr, "edge-1"), "the CA of another cloud"),
    ] {
        let text = ask().complete(&chain, cloud.ca()).unwrap_err().to_string();
        assert!(text.contains(says), "{case}: {text}");
    }
    let pending = ask();
    let chain = sign(&cloud, &pending.csr().unwrap(), "edge-2");
    let text = pending.complete(&chain, cloud.ca()).unwrap_err().to_string();
    assert!(text.contains("it is for node edge-2, not for node edge-1"), "{text}");
}

#[test]
fn names_that_no_node_can_have() {
    for (name, says) in [
        ("", "lower-case letters"),
        ("Edge", "lower-case letters"),
        ("edge_1", "lower-case letters"),
        ("-edge", "lower-case letters"),
        ("edge.", "lower-case letters"),
        ("a..b", "lower-case letters"),
        ("edge/1", "lower-case letters"),
        ("kante-ü", "lower-case letters"),
        (&"a".repeat(64), "at most 63"),
        (&"a.".repeat(120), "at most 239"),
        ("cloud", "what the cloud itself is called"),
    ] {
        let text = Pending::new(&node(name)).unwrap_err().to_string();
        assert!(text.contains(says), "{name}: {text}");
        let csr = Pending::new(&node("edge-1")).unwrap().csr().unwrap();
        let signed = Authority::new(TODAY).unwrap().sign(&csr, &node(name), TODAY, LIFETIME);
        assert!(matches!(signed, Err(IdentityError::Name { .. })), "{name}");
    }
    for name in ["a", "1", "edge-1", "10.0.0.1", "node.site-a.example", &"a".repeat(63)] {
        assert!(check_node_name(name).is_ok(), "{name}");
    }
}
