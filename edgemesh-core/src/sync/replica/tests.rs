//! What an agent makes of what it hears.

use bytes::Bytes;
use edgemesh_proto::message::Ping;
use edgemesh_proto::record::Kind;

use super::*;

const E: [u8; 16] = [1; 16];
const F: [u8; 16] = [2; 16];

fn key(name: &str) -> Key {
    Key { kind: Kind::Service, namespace: "default".into(), name: name.into() }
}

/// `a1` is the record `a` with body 1.
fn put(text: &str) -> Put {
    let (name, body) = text.split_at(1);
    Put { key: key(name), body: Bytes::copy_from_slice(body.as_bytes()) }
}

/// A Delta, as in `r 0-5 +a1 +b1 -c ~a more`: reset, from and to, puts, deletes, the bucket of `a`
/// voided, more follows.
fn delta(epoch: [u8; 16], text: &str) -> Body {
    let mut delta = Delta { epoch, ..Delta::default() };
    for word in text.split(' ') {
        match (word, word.split_at(1)) {
            ("r", _) => delta.reset = true,
            ("more", _) => delta.more = true,
            (_, ("+", record)) => delta.put.push(put(record)),
            (_, ("-", name)) => delta.delete.push(key(name)),
            (_, ("~", name)) => delta.buckets.push(Hasher::default().bucket(&key(name))),
            (range, _) => {
                let (from, to) = range.split_once('-').unwrap();
                (delta.from, delta.to) = (from.parse().unwrap(), to.parse().unwrap());
            }
        }
    }
    Body::Delta(delta)
}

fn digest(records: &str) -> [u8; 32] {
    let (mut hasher, mut sums) = (Hasher::default(), Sums::default());
    for Put { key, body } in records.split_whitespace().map(put) {
        sums.add(hasher.bucket(&key), hasher.of(&key, &body));
    }
    sums.whole()
}

fn with_digest(body: Body, records: &str) -> Body {
    let Body::Delta(delta) = body else { panic!("no delta") };
    Body::Delta(Delta { digest: Some(digest(records)), ..delta })
}

/// Holds `a1 b1 c1` at 5.
fn replica() -> Replica {
    let mut replica = Replica::new([0; 16], 0, []);
    let whole = with_digest(delta(E, "r 0-5 +a1 +b1 +c1"), "a1 b1 c1");
    assert!(matches!(replica.on(whole), Ok(Reaction::Apply(step)) if step.whole));
    assert_eq!(replica.done(true), Body::Ack(Ack { epoch: E, revision: 5 }));
    replica
}

/// Parts → what they change, and what is held then.
#[test]
fn parts_are_taken_in_order_and_applied_together() {
    let rows: &[(&[&str], &str, &str)] = &[
        (&["5-6 +a2 +d1 -b"], "+a2 +d1 -b", "a2 c1 d1"),
        (&["5-5"], "", "a1 b1 c1"),
        (&["5-6 +a1 -x"], "", "a1 b1 c1"),
        (&["5-6 +a2 more", "5-6 +a3 more", "5-6 -a"], "-a", "b1 c1"),
        (&["5-6 -a more", "5-6 +a2"], "+a2", "a2 b1 c1"),
        (&["5-6 -a +a1"], "", "a1 b1 c1"),
        (&["r 0-6 +a1 more", "0-6 +d1"], "+d1 -b -c", "a1 d1"),
        (&["r 0-6"], "-a -b -c", ""),
        (&["r 0-3 +a1 more", "0-3 +d1 more", "0-3 +e1"], "+d1 +e1 -b -c", "a1 d1 e1"),
        (&["5-6 +d1 more", "r 0-7 +a2 more", "0-7 +b1"], "+a2 -c", "a2 b1"),
        (&["5-6 ~a more", "5-6 +d1"], "+d1 -a", "b1 c1 d1"),
        (&["5-6 ~a +a2"], "+a2", "a2 b1 c1"),
        (&["5-6 +a9 more", "5-6 ~a ~b more", "5-7 +b2"], "+b2 -a", "b2 c1"),
    ];
    for (parts, changes, held) in rows {
        let mut replica = replica();
        let (last, before) = parts.split_last().unwrap();
        for part in before {
            assert_eq!(replica.on(delta(E, part)), Ok(Reaction::Nothing), "{parts:?}");
            assert_eq!(replica.holding().revision, 5, "{parts:?}: nothing is applied yet");
        }
        let Ok(Reaction::Apply(step)) = replica.on(delta(E, last)) else { panic!("{parts:?}") };
        let mut got: Vec<String> = step
            .put
            .iter()
            .map(|put| format!("+{}{}", put.key.name, std::str::from_utf8(&put.body).unwrap()))
            .chain(step.delete.iter().map(|key| format!("-{}", key.name)))
            .collect();
        got.sort();
        assert_eq!(got.join(" "), *changes, "{parts:?}");
        assert_eq!(step.to.digest, digest(held), "{parts:?}");
        assert_eq!(step.to, replica.holding());
        let again = held.split_whitespace().map(put);
        let mut hasher = Hasher::default();
        let again = Replica::new(
            E,
            0,
            again
                .map(|p| {
                    let d = hasher.of(&p.key, &p.body);
                    (p.key, d)
                })
                .collect::<Vec<_>>(),
        );
        assert_eq!(again.sums, replica.sums, "{parts:?}");
    }
}

/// Words → why that is the end.
#[test]
fn what_makes_no_sense_is_named() {
    let held =
        |revision| Body::Held(Held { epoch: E, revision, digest: [0; 32], buckets: Vec::new() });
    let rows: &[(&[Body], Broken)] = &[
        (&[delta(E, "3-4")], Broken::Backwards { held: 5, told: 4 }),
        (&[delta(E, "3-6")], Broken::Backwards { held: 5, told: 3 }),
        (&[delta(E, "6-7")], Broken::Gap { held: 5, from: 6 }),
        (&[delta(F, "5-7")], Broken::Gap { held: 0, from: 5 }),
        (&[held(4)], Broken::Backwards { held: 5, told: 4 }),
        (
            &[delta(E, "5-6 more"), delta(E, "6-7")],
            Broken::Interrupted("its parts do not belong together"),
        ),
        (
            &[delta(E, "5-6 more"), delta(F, "0-7")],
            Broken::Interrupted("its parts do not belong together"),
        ),
        (&[delta(E, "5-6 more"), held(5)], Broken::Interrupted("a question for the digest")),
        (&[delta(E, "5-6 more"), delta(E, "5-4")], Broken::Backwards { held: 5, told: 4 }),
        (&[delta(E, "5-6"), delta(E, "6-7")], Broken::Early),
        (&[Body::Ping(Ping { number: 1, answer: false })], Broken::Unexpected("ping")),
    ];
    for (words, want) in rows {
        let mut replica = replica();
        let (last, before) = words.split_last().unwrap();
        before.iter().for_each(|word| drop(replica.on(word.clone()).unwrap()));
        assert_eq!(replica.on(last.clone()), Err(want.clone()), "{words:?}");
        // Only a reset leads to a lower number, and a new conversation begins with what is held.
        let at = replica.holding();
        assert_eq!(replica.begin(), at);
        assert!(matches!(replica.on(delta(E, "r 0-2 +a1")), Ok(Reaction::Apply(_))));
        assert_eq!(replica.holding().revision, 2);
    }
}

#[test]
fn what_is_staged_is_bounded() {
    let body = Bytes::from(vec![0; 2 << 20]);
    let mut replica = replica();
    let mut parts = 0;
    let broken = loop {
        let name = format!("large-{parts}");
        let put = vec![Put { key: key(&name), body: body.clone() }];
        let part = Delta { epoch: E, from: 5, to: 6, put, more: true, ..Delta::default() };
        match replica.on(Body::Delta(part)) {
            Ok(_) => parts += 1,
            Err(broken) => break broken,
        }
    };
    assert_eq!((broken, parts), (Broken::TooLarge, STAGED_BYTES / body.len() - 1));
    assert_eq!(replica.begin().digest, digest("a1 b1 c1"));
}

#[test]
fn what_went_astray_is_mended_once_and_then_told() {
    let mut replica = replica();
    let wrong = |text| with_digest(delta(E, text), "z9");
    let mends = |body: Body| matches!(body, Body::Held(held) if held.buckets.len() == BUCKETS);
    let apply = |replica: &mut Replica, body| {
        assert!(matches!(replica.on(body), Ok(Reaction::Apply(_))));
        replica.done(true)
    };
    assert!(mends(apply(&mut replica, wrong("5-6 +a2"))));
    assert!(!replica.is_unlike());
    // Whole buckets came, and it is still another: that is not to be mended from here.
    assert!(!mends(apply(&mut replica, wrong("6-6 ~a +a2"))));
    assert!(replica.is_unlike());
    assert!(!mends(apply(&mut replica, wrong("6-7 +a3"))), "not with every step");
    // Asked, it says what it has.
    let question = Held { epoch: E, revision: 7, digest: digest("z9"), buckets: Vec::new() };
    let Ok(Reaction::Say(answer)) = replica.on(Body::Held(question)) else { panic!("silent") };
    assert!(mends(answer));
    let right = with_digest(delta(E, "7-8 +a4"), "a4 b1 c1");
    assert!(!mends(apply(&mut replica, right)));
    assert!(!replica.is_unlike());
    assert!(mends(apply(&mut replica, wrong("8-9 +a5"))), "and anew");
}

#[test]
fn a_digest_that_is_the_same_is_acknowledged_under_its_number() {
    let mut replica = replica();
    let held = |epoch, revision| {
        let digest = digest("a1 b1 c1");
        Body::Held(Held { epoch, revision, digest, buckets: Vec::new() })
    };
    let ack = |epoch, revision| Body::Ack(Ack { epoch, revision });
    assert_eq!(replica.on(held(E, 5)), Ok(Reaction::Say(ack(E, 5))));
    for (epoch, revision) in [(E, 9), (F, 3)] {
        let Ok(Reaction::Apply(step)) = replica.on(held(epoch, revision)) else { panic!() };
        assert!(step.put.is_empty() && step.delete.is_empty());
        assert_eq!((step.to.epoch, step.to.revision), (epoch, revision));
        assert_eq!(replica.done(true), ack(epoch, revision));
    }
    let others = [key("a"), key("z")].into();
    assert_eq!(replica.gone(&others), [key("b"), key("c")]);
}

#[test]
fn what_is_not_saved_is_not_acknowledged_by_a_question_for_the_digest_either() {
    let mut replica = replica();
    let visible = |revision, records| {
        let (epoch, digest) = (E, digest(records));
        Body::Held(Held { epoch, revision, digest, buckets: Vec::new() })
    };
    let ack = |revision| Body::Ack(Ack { epoch: E, revision });
    assert!(matches!(replica.on(delta(E, "5-6 +a2")), Ok(Reaction::Apply(_))));
    let not_saved = visible(6, "a2 b1 c1");
    assert_eq!(replica.done(false), not_saved);
    // Asked, it has the same records, but still not on its disk.
    assert_eq!(replica.on(not_saved.clone()), Ok(Reaction::Say(not_saved.clone())));
    assert_eq!(replica.saved(), ack(6));
    assert_eq!(replica.on(not_saved), Ok(Reaction::Say(ack(6))));
}
