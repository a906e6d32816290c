//! The whole server over loopback sockets, with upstreams that play a script.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Step, WAITING_MAX};
use crate::dns::reply::Transport;
use crate::dns::sample::{edns, query, question};
use world::{GOOD, World, answers, framed, good, tell};

const A: u16 = 1;

/// (what, scripts of the upstreams, what the client is told, times asked by UDP and by TCP)
#[tokio::test]
async fn forwards() {
    let rows: &[(&str, &[world::Script], &str, [usize; 2])] = &[
        ("an answer", &[|q, _| vec![good(q)]], GOOD, [1, 0]),
        ("a wrong id first", &[|q, _| vec![wrong(good(q), 0), good(q)]], GOOD, [1, 0]),
        ("a wrong name first", &[|q, _| vec![wrong(good(q), 14), good(q)]], GOOD, [1, 0]),
        ("a wrong type first", &[|q, _| vec![wrong(good(q), 26), good(q)]], GOOD, [1, 0]),
        ("an echo first", &[|q, _| vec![q.to_vec(), good(q)]], GOOD, [1, 0]),
        ("noise first", &[|q, _| vec![vec![], vec![1], vec![0xff; 99], good(q)]], GOOD, [1, 0]),
        ("only wrong ids", &[|q, _| vec![wrong(good(q), 1); 20]], "2", [3, 0]),
        ("truncated, then TCP", &[|q, t| vec![truncated_by_udp(q, t)]], GOOD, [1, 1]),
        ("truncated, and no TCP", &[truncated_without_tcp], "0 truncated", [1, 1]),
        ("an error passes", &[|q, _| vec![world::code(q, 5)]], "5", [1, 0]),
        ("a second opinion", &[|q, _| vec![world::code(q, 2)], |q, _| vec![good(q)]], GOOD, [2, 0]),
        ("the next one answers", &[|_, _| vec![], |q, _| vec![good(q)]], GOOD, [2, 0]),
        ("nobody to ask", &[], "2", [0, 0]),
    ];
    for (what, scripts, want, asked) in rows {
        let world = World::new(scripts).await;
        let reply = world.udp(&query(7, "example.com", A)).await;
        assert_eq!(tell(&reply, 7), *want, "{what}");
        assert_eq!(world.asked(), *asked, "{what}");
        world.end().await;
    }
}

/// Not an answer to our question: one bit is wrong. Its address shows if it was taken for one.
fn wrong(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    *bytes.last_mut().unwrap() = 66;
    bytes
}

fn truncated_by_udp(query: &[u8], transport: Transport) -> Vec<u8> {
    match transport {
        Transport::Udp => {
            let mut bytes = question(query);
            bytes[2] |= 0x82;
            bytes[7] = 9; // claims answers that were cut off
            bytes
        }
        Transport::Tcp => good(query),
    }
}

fn truncated_without_tcp(query: &[u8], transport: Transport) -> Vec<Vec<u8>> {
    match transport {
        Transport::Udp => vec![truncated_by_udp(query, transport)],
        Transport::Tcp => vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn upstream_away_is_servfail_within_a_second() {
    let rows: &[&[world::Script]] = &[&[|_, _| vec![]], &[|_, _| vec![], |_, _| vec![]]];
    for scripts in rows {
        let world = World::new(scripts).await;
        let start = Instant::now();
        let reply = world.udp(&query(7, "example.com", A)).await;
        assert_eq!(tell(&reply, 7), "2");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(world.counters.failed.load(Ordering::Relaxed), 1);
        // Mesh names do not care.
        assert_eq!(tell(&world.udp(&query(8, "web.default", A)).await, 8), "0 198.18.0.7");
        world.end().await;
    }
}

/// (script of the upstream, what is said of a name that stands for one outside)
#[tokio::test]
async fn aliases_are_followed_through_the_upstreams() {
    let rows: &[(world::Script, &str, [usize; 2])] = &[
        (|q, _| vec![good(q)], "0 shop.example.com 192.0.2.0", [1, 0]),
        (|q, t| vec![truncated_by_udp(q, t)], "0 shop.example.com 192.0.2.0", [1, 1]),
        (|q, _| vec![world::absent(q)], "3 shop.example.com", [1, 0]),
        (|q, _| vec![answers(q, 60, 0)], "0 shop.example.com", [1, 0]),
        (|q, _| vec![world::code(q, 2)], "2", [1, 0]),
    ];
    for (script, want, asked) in rows {
        let world = World::new(&[*script]).await;
        let reply = world.udp(&query(7, "shop.default", A)).await;
        assert_eq!(tell(&reply, 7), *want);
        assert_eq!(world.asked(), *asked, "{want}");
        let owner = world.udp(&query(8, "Shop.default.svc.cluster.local", A)).await;
        assert_eq!(tell(&owner, 8), *want, "another name for it");
        world.end().await;
    }
    // The answer is remembered, and outlives the uplink.
    let world = World::new(&[|q, _| vec![good(q)]]).await;
    for id in 1..4 {
        let reply = world.udp(&query(id, "shop.default", A)).await;
        assert_eq!(tell(&reply, id), "0 shop.example.com 192.0.2.0");
        world.cut.store(true, Ordering::Relaxed);
    }
    assert_eq!(world.asked(), [1, 0]);
    world.end().await;
}

#[tokio::test]
async fn memory_answers_the_second_time_and_when_the_uplink_is_gone() {
    let world = World::new(&[|q, _| vec![answers(q, 60, 1)]]).await;
    let ask = async |id| tell(&world.udp(&query(id, "example.com", A)).await, id);
    assert_eq!(ask(1).await, GOOD);
    assert_eq!(ask(2).await, GOOD);
    assert_eq!(world.asked(), [1, 0]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(100)).await;
    world.cut.store(true, Ordering::Relaxed);
    assert_eq!(ask(3).await, GOOD);
    assert_eq!(tell(&world.udp(&query(4, "example.net", A)).await, 4), "2");
    assert_eq!(world.asked(), [1, 0]);
    let counters = &world.counters;
    let seen = [&counters.forwarded, &counters.cached, &counters.failed];
    assert_eq!(seen.map(|counter| counter.load(Ordering::Relaxed)), [1, 2, 1]);
    world.end().await;
}

#[tokio::test]
async fn a_search_list_is_walked_in_memory() {
    let world = World::new(&[|q, _| vec![world::absent(q)]]).await;
    let names = ["x.default.svc.cluster.local", "x.svc.cluster.local", "x.cluster.local"];
    let outside = ["x.site.example", "x.example"];
    for round in 0..3 {
        for name in names.iter().chain(&outside) {
            for qtype in [A, 28] {
                let reply = world.udp(&query(round, name, qtype)).await;
                assert_eq!(tell(&reply, round), "3", "{name}");
            }
        }
        assert_eq!(world.asked(), [4, 0], "round {round}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_too_long_for_udp_comes_by_tcp_from_memory() {
    let world = World::new(&[|q, t| match t {
        Transport::Udp => vec![truncated_by_udp(q, t)],
        Transport::Tcp => vec![answers(q, 60, 100)],
    }])
    .await;
    for asked in [query(7, "example.com", A), edns(query(7, "example.com", A), 4096, 0, false)] {
        let reply = world.udp(&asked).await;
        assert_eq!((reply[2] & 0x02, reply[7]), (0x02, 0), "truncated, without answers");
    }
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&framed(&query(8, "example.com", A))).await.unwrap();
    let reply = world::read_frame(&mut stream).await;
    assert_eq!((reply[1], reply[2] & 0x02, reply[7]), (8, 0, 100));
    assert_eq!(world.asked(), [1, 1]);
    world.end().await;
}

#[tokio::test]
async fn tcp_takes_many_queries_at_once_and_a_half_close() {
    let world = World::new(&[|q, _| vec![good(q)]]).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut sent = Vec::new();
    let rows: Vec<(u16, String, &str)> = (0..40)
        .map(|id| match id % 2 {
            0 => (id, format!("n{id}.example.com"), GOOD),
            _ => (id, "web.default".into(), "0 198.18.0.7"),
        })
        .collect();
    for (id, name, _) in &rows {
        sent.extend(framed(&query(*id, name, A)));
    }
    // In pieces that respect no boundary.
    for piece in sent.chunks(101) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let mut replies = world::frames(&received);
    replies.sort();
    let got: Vec<String> = replies.iter().zip(0..).map(|(reply, id)| tell(reply, id)).collect();
    let want: Vec<&str> = rows.iter().map(|row| row.2).collect();
    assert_eq!(got, want);
    // A client that came by TCP is asked for by TCP.
    assert_eq!(world.asked(), [0, 20]);
    world.end().await;
}

/// What a client sends → the connection is closed without a reply.
#[tokio::test(start_paused = true)]
async fn tcp_connections_that_get_nowhere_are_closed() {
    for sent in [&b""[..], &[0], &[0, 50, 1, 2, 3], &[0xff, 0xff], &[0, 0]] {
        let world = World::new(&[]).await;
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut received = Vec::new();
        // A reset is an end, too: it says that octets were left unread.
        let _ = stream.read_to_end(&mut received).await;
        assert!(received.is_empty(), "{sent:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn waiting_queries_are_bounded() {
    let world = World::new(&[]).await;
    let ask = |id| world.server.step(&query(id, "example.com", A), Transport::Udp);
    let held: Vec<Step> = (0..WAITING_MAX).map(|_| ask(1)).collect();
    assert!(held.iter().all(|step| matches!(step, Step::Wait(_))));
    let Step::Reply(reply) = ask(2) else { panic!("one too many") };
    assert_eq!(tell(&reply, 2), "2");
    drop(held);
    assert!(matches!(ask(3), Step::Wait(_)));
    world.end().await;
}

#[tokio::test]
async fn stopping_ends_every_task() {
    let world = World::new(&[|_, _| vec![]]).await;
    let server = Arc::downgrade(&world.server);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&framed(&query(7, "example.com", A))).await.unwrap();
    world.end().await;
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0);
    assert!(server.upgrade().is_none());
}
