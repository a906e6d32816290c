//! Who may join under which name, and who may no more.

use edgemesh_core::identity::CLOUD;
use edgemesh_proto::message::Refused;

use super::*;

#[test]
fn a_token_invites_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let token = open(folder.path()).create_token(TOKEN_TTL, None, TODAY).unwrap();
    // As after a restart, and as by another process.
    let cloud = open(folder.path());
    for (n, (later, want)) in [
        (0, ""),
        (DAY - 1, ""),
        (DAY, "expiredToken"),
        (7 * DAY, "expiredToken"),
        (400 * DAY, "expiredToken"),
    ]
    .into_iter()
    .enumerate()
    {
        let join = ask(&machine(), &format!("edge-{n}"), Some(&token));
        assert_eq!(outcome(&cloud.join(&join, None, TODAY + later)), want, "{later}");
    }
    let join = ask(&machine(), "edge-1", Some(&token));
    let text = cloud.join(&join, None, TODAY + DAY + 3 * HOUR).unwrap_err().to_string();
    assert!(text.contains("expired 3 hours ago") && text.contains("token create"), "{text}");

    cloud.create_token(TOKEN_TTL, None, TODAY + 9 * DAY).unwrap();
    let forgotten = cloud.join(&join, None, TODAY + 9 * DAY);
    assert_eq!(outcome(&forgotten), "unknownToken", "long expired ones are swept");
}

#[test]
fn a_life_that_no_token_should_have() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    for (ttl, good) in [
        (Duration::ZERO, false),
        (Duration::from_secs(1), true),
        (MAX_TOKEN_TTL, true),
        (MAX_TOKEN_TTL + Duration::from_secs(1), false),
        (Duration::MAX, false),
    ] {
        assert_eq!(cloud.create_token(ttl, None, TODAY).is_ok(), good, "{ttl:?}");
    }
    assert!(cloud.create_token(TOKEN_TTL, Some(&node(CLOUD)), TODAY).is_err());
}

/// What somebody may show in place of a token, and what they hear.
#[test]
fn what_is_no_invitation_is_refused_by_name() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (cloud, other) = (open(here.path()), open(there.path()));
    let token = cloud.create_token(TOKEN_TTL, None, TODAY).unwrap().reveal();
    let foreign = other.create_token(TOKEN_TTL, None, TODAY).unwrap().reveal();
    let mut guessed = token.clone();
    let last = if guessed.pop() == Some('0') { '1' } else { '0' };
    guessed.push(last);
    let elsewhere = format!("it pins CA {}, ours is {}", other.ca().id(), cloud.ca().id());
    for (token, want, says) in [
        ("hello", "noSuchToken", "this is no join token"),
        (&token[..60], "noSuchToken", "copy it again"),
        (&guessed, "unknownToken", "unknown here"),
        (&JoinToken::new(cloud.ca()).reveal(), "unknownToken", "unknown here"),
        (&foreign, "otherCloud", &elsewhere),
        ("", "noToken", "has not joined"),
        (&"edgemesh1.".repeat(1000), "noSuchToken", "copy it again"),
        (&token, "", ""),
    ] {
        let join = Join { token: token.to_owned(), ..ask(&machine(), "edge-1", None) };
        let answer = cloud.join(&join, None, TODAY);
        assert_eq!(outcome(&answer), want, "{token}");
        if let Err(refused) = answer {
            let refused = Refused::from(&refused);
            assert!(refused.text.contains(says), "{}", refused.text);
            assert_eq!((&*refused.label, refused.retry_after_ms), (want, 0));
            assert!(token.len() < 20 || !refused.text.contains(&token[80.min(token.len() - 5)..]));
        }
    }
}

#[test]
fn requests_and_names_that_cannot_be_granted() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    let token = cloud.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let good = ask(&machine(), "edge-1", Some(&token));
    for (join, want) in [
        (Join { csr: "".into(), ..good.clone() }, "badRequest"),
        (Join { csr: vec![0x30; 300].into(), ..good.clone() }, "badRequest"),
        (Join { csr: vec![0; 1 << 20].into(), ..good.clone() }, "badRequest"),
        (Join { csr: good.csr.slice(..good.csr.len() - 1), ..good.clone() }, "badRequest"),
        (Join { node: node(""), ..good.clone() }, "badName"),
        (Join { node: node(CLOUD), ..good.clone() }, "badName"),
        (Join { node: node("_svc"), ..good.clone() }, "badName"),
        (Join { node: node("../edge"), ..good.clone() }, "badName"),
        (Join { node: node(&"a".repeat(300)), ..good.clone() }, "badName"),
        (good.clone(), ""),
    ] {
        assert_eq!(outcome(&cloud.join(&join, None, TODAY)), want, "{join:?}");
    }
}

/// A name belongs to whom it was given to.
#[test]
fn a_name_is_not_taken_from_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    let (first, second) = (machine(), machine());
    let token = |only: Option<&str>, now| {
        cloud.create_token(TOKEN_TTL, only.map(node).as_ref(), now).unwrap()
    };
    let join = |machine: &_, token: &JoinToken, now| {
        outcome(&cloud.join(&ask(machine, "edge-1", Some(token)), None, now))
    };
    let open_token = token(None, TODAY);
    assert_eq!(join(&first, &open_token, TODAY), "");
    assert_eq!(join(&first, &open_token, TODAY + HOUR), "", "asks again: the answer got lost");
    assert_eq!(join(&second, &open_token, TODAY + HOUR), "nameTaken");
    let text = cloud
        .join(&ask(&second, "edge-1", Some(&open_token)), None, TODAY)
        .unwrap_err()
        .to_string();
    assert!(text.contains("edgemesh token create --node edge-1"), "{text}");

    // Until certificate and grace are over.
    let last = TODAY + HOUR + 60 * DAY;
    assert_eq!(join(&second, &token(None, last), last), "nameTaken");
    let over = last + 1;
    assert_eq!(join(&second, &token(None, over), over), "");
    assert!(cloud.revocations().unwrap().is_empty());

    // Or for a token that names it.
    assert_eq!(join(&first, &token(None, over), over), "nameTaken");
    let named = token(Some("edge-1"), over);
    let other_name = cloud.join(&ask(&machine(), "edge-2", Some(&named)), None, over);
    assert_eq!(outcome(&other_name), "otherNode");
    let taken_over = cloud.join(&ask(&first, "edge-1", Some(&named)), None, over).unwrap();
    let taken_over = complete(&first, "edge-1", &taken_over, cloud.ca());
    let revocations = cloud.revocations().unwrap();
    assert_eq!(revocations.len(), 1);
    assert!(!is_revoked(&proved(&taken_over), &revocations));
    let old = Proved { issued: over, ..proved(&taken_over) };
    assert!(is_revoked(&old, &revocations), "two machines cannot have one name");
}

#[test]
fn a_node_renews_its_own_certificate_only() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    let token = cloud.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let edge = machine();
    let joined = cloud.join(&ask(&edge, "edge-1", Some(&token)), None, TODAY).unwrap();
    let mine = proved(&complete(&edge, "edge-1", &joined, cloud.ca()));
    let of = |name: &str, is_hub| Proved { node: node(name), is_hub, ..mine.clone() };
    for (from, asks_for, later, want) in [
        (Some(of("edge-1", false)), "edge-1", DAY, ""),
        (Some(of("edge-1", false)), "edge-1", 45 * DAY, ""),
        (Some(of("edge-1", false)), "edge-2", DAY, "anotherName"),
        (Some(of("edge-1", true)), "edge-1", DAY, "noToken"),
        (Some(of("unheard-of", false)), "unheard-of", DAY, ""),
        (None, "edge-1", DAY, "noToken"),
    ] {
        // With a new key each time.
        let pending = Pending::new(&node(asks_for)).unwrap();
        let join = pending.join(None).unwrap();
        let answer = cloud.join(&join, from.as_ref(), TODAY + later);
        assert_eq!(outcome(&answer), want, "{from:?} {asks_for} {later}");
        if let Ok(joined) = answer {
            let renewed = pending.complete(&joined.chain, cloud.ca()).unwrap();
            assert_eq!(renewed.not_before(), TODAY + later);
        }
    }
}

/// Removed means out, with everything that the node has, until an operator says otherwise.
#[test]
fn a_removed_node_is_out() {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, command) = (open(folder.path()), open(folder.path()));
    let edge = machine();
    let (used, spare) = (
        cloud.create_token(TOKEN_TTL, None, TODAY).unwrap(),
        cloud.create_token(TOKEN_TTL, None, TODAY).unwrap(),
    );
    let joined = cloud.join(&ask(&edge, "edge-1", Some(&used)), None, TODAY).unwrap();
    let before = proved(&complete(&edge, "edge-1", &joined, cloud.ca()));
    let seen = cloud.version().unwrap();
    assert_eq!(cloud.version().unwrap(), seen);
    assert!(!is_revoked(&before, &cloud.revocations().unwrap()));

    // By another process, in the very second of the certificate.
    let Removal { revocation, was_known } = command.remove(&node("edge-1"), TODAY).unwrap();
    assert!(was_known);
    assert_eq!(revocation.before, TODAY + 1);
    assert_ne!(cloud.version().unwrap(), seen, "a running cloud notices");
    assert!(is_revoked(&before, &cloud.revocations().unwrap()));

    let now = TODAY;
    let renewal = cloud.join(&ask(&edge, "edge-1", None), Some(&before), now);
    assert_eq!(outcome(&renewal), "removed");
    let join = |token: &JoinToken, name| {
        outcome(&cloud.join(&ask(&machine(), name, Some(token)), None, now + 2))
    };
    assert_eq!(join(&used, "edge-1"), "unknownToken", "it knows the token");
    assert_eq!(join(&used, "edge-2"), "unknownToken", "by another name too");
    assert_eq!(join(&spare, "edge-1"), "removed", "the token is older than the removal");
    assert_eq!(join(&spare, "edge-2"), "", "others are not concerned");

    let fresh = command.create_token(TOKEN_TTL, None, TODAY + 2).unwrap();
    let joined = cloud.join(&ask(&edge, "edge-1", Some(&fresh)), None, TODAY + 2).unwrap();
    let after = proved(&complete(&edge, "edge-1", &joined, cloud.ca()));
    let revocations = cloud.revocations().unwrap();
    assert!(!is_revoked(&after, &revocations) && is_revoked(&before, &revocations));
}

/// Removal, token and join within one second: that happens to scripts.
#[test]
fn a_node_may_come_back_within_the_second_of_its_removal() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = open(folder.path());
    let edge = machine();
    let removal = cloud.remove(&node("edge-1"), TODAY).unwrap();
    assert!(!removal.was_known, "nobody had the name yet");
    assert!(cloud.remove(&node("edge-1"), TODAY).unwrap().was_known, "it was removed before");
    let token = cloud.create_token(TOKEN_TTL, Some(&node("edge-1")), TODAY).unwrap();
    let joined = cloud.join(&ask(&edge, "edge-1", Some(&token)), None, TODAY).unwrap();
    let identity = complete(&edge, "edge-1", &joined, cloud.ca());
    assert!(!is_revoked(&proved(&identity), &cloud.revocations().unwrap()));
}
