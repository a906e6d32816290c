//! Backends that misbehave: the client is told, the next one does not suffer, nothing comes twice.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::{Backend, read_body, read_head, reset};
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::frames::{DATA, END_HEADERS, GOAWAY, HEADERS, LAST, OK, RST_STREAM, SETTINGS, frame};
use crate::raw::{End, Raw};
use crate::world::{ONE, World, listen};

/// What a backend says before it closes, and how the client's answer begins; `whole`: that it
/// ends as a whole answer.
struct Row {
    path: &'static str,
    says: &'static str,
    /// How often; at the end `then`.
    times: usize,
    then: &'static str,
    breaks: bool,
    want: &'static str,
    whole: bool,
}

const fn row(path: &'static str, says: &'static str, want: &'static str, whole: bool) -> Row {
    Row { path, says, times: 1, then: "", breaks: false, want, whole }
}

const ROWS: &[Row] = &[
    row("/silent", "", "HTTP/1.1 502", true),
    Row { breaks: true, ..row("/reset", "", "HTTP/1.1 502", true) },
    row("/head-only", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "", false),
    row("/half-head", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 502", true),
    row("/short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 200", false),
    Row {
        breaks: true,
        ..row("/broken", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "", false)
    },
    row(
        "/no-end",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200",
        false,
    ),
    row(
        "/bad-chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        "",
        false,
    ),
    row("/until-close", "HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 200", true),
    row(
        "/too-long",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200",
        true,
    ),
    row(
        "/two-lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 502",
        true,
    ),
    row(
        "/both-framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200",
        true,
    ),
    row("/noise", "\x01\x02\x03 what is this\r\n\r\n", "HTTP/1.1 502", true),
    row("/0.9", "hello", "HTTP/1.1 502", true),
    row(
        "/folded",
        "HTTP/1.1 200 OK\r\nX: 1\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 502",
        true,
    ),
    Row { times: 2_000_000, ..row("/headers", "X: yyyyyyyyyyyy\r\n", "HTTP/1.1 502", true) },
    Row {
        times: 200,
        then: "Content-Length: 2\r\n\r\nok",
        ..row("/200-headers", "X: y\r\n", "HTTP/1.1 502", true)
    },
    Row { times: 1 << 22, ..row("/long-header", "xxxxxxxx", "HTTP/1.1 502", true) },
    Row {
        times: 20_000,
        then: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ..row("/1xx", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 200", true)
    },
    Row {
        times: 2_000_000,
        ..row("/endless-1xx", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 502", true)
    },
    row(
        "/101",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: evil\r\n\r\nevil",
        "HTTP/1.1 502",
        true,
    ),
    row("/999", "HTTP/1.1 999 So\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 999", true),
    row("/99999", "HTTP/1.1 99999 So\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 502", true),
    row("/204", "HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", "HTTP/1.1 204", true),
];

/// Says what the row of the path says, then closes.
fn rogue(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)?;
    let path = head.split(' ').nth(1)?;
    let row = ROWS.iter().find(|row| row.path == path)?;
    if row.path.ends_with("headers") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").ok()?;
    } else if row.path == "/long-header" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").ok()?;
    }
    let block = row.says.repeat(row.times.min(1000));
    for _ in 0..row.times.div_ceil(1000) {
        stream.write_all(block.as_bytes()).ok()?;
    }
    stream.write_all(row.then.as_bytes()).ok()?;
    if row.breaks {
        reset(stream);
    }
    Some(())
}

/// A server that serves each connection with `serve`, on a thread.
fn server(at: &str, serve: impl Fn(&TcpStream) -> Option<()> + Clone + Send + 'static) {
    let listener = listen("", at);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            stream.set_nodelay(true).ok();
            std::thread::spawn(move || serve(&stream));
        }
    });
}

/// Whether `answer` is one whole answer, by its own framing.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    match (head.contains("transfer-encoding: chunked"), head.split_once("content-length: ")) {
        (true, None) => body.ends_with("0\r\n\r\n"),
        (false, Some((_, length))) => {
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            body.len() == length || head.starts_with("http/1.1 204")
        }
        (false, None) => head.starts_with("http/1.1 204"),
        (true, Some(_)) => false,
    }
}

#[test]
fn rogues_are_told_from_the_rest() {
    in_namespace("backends::rogues_are_told_from_the_rest", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        server("10.4.0.1:8081", rogue);
        server("10.4.0.1:8082", hasty);
        world.service("hasty", &["10.96.0.82"], &["http:80:8082"], &[["10.4.0.1", ""]]);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        world.service("rogue", &["10.96.0.81"], &["http:80:8081"], &[["10.4.0.1", ""]]);
        world.policy("rogue", "  circuitBreaker: { consecutiveFailures: 1000 }");
        let agent = Agent::start(&world);
        let before = agent.resident();
        let mut well = Raw::connect("pod", "10.96.0.80:80");
        let mut bad = Vec::new();
        for row in ROWS {
            let mut raw = Raw::connect("", "10.96.0.81:80");
            raw.stream().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            raw.send(
                format!("GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", row.path)
                    .as_bytes(),
            );
            let (answer, end) = raw.rest();
            // A reset may overtake the head: then nothing is half.
            let begins = answer.starts_with(row.want);
            let evil = answer.contains("evil") || answer.contains("\n ");
            if !begins || is_whole(&answer) != row.whole && !row.breaks || end == End::Open || evil
            {
                bad.push(format!(
                    "{}: {:?} {end:?}",
                    row.path,
                    answer.get(..300).unwrap_or(&answer)
                ));
            }
            assert_eq!(well.get("/").body, "one", "after {}", row.path);
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        let grown = agent.resident().saturating_sub(before);
        assert!(grown < 24 * 1024, "{grown} KiB");
        early_answers();
    });
}

/// A refusal of an upload that nobody reads to its end, then a close: the client is told.
fn early_answers() {
    let body = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let mut raw = Raw::connect("", "10.96.0.82:80");
        raw.stream().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n");
        raw.send(&body);
        let (answer, end) = raw.rest();
        assert!(answer.starts_with("HTTP/1.1 413") && end != End::Open, "{answer:?} {end:?}");
    }
}

/// Says no at once, and lets the rest of the upload go by.
fn hasty(mut stream: &TcpStream) -> Option<()> {
    read_head(&mut BufReader::with_capacity(1, stream))?;
    stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno").ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    std::io::copy(&mut stream, &mut std::io::sink()).ok().map(drop)
}

/// Closes after each third answer, without a word; counts what each id was.
#[derive(Default)]
struct Fickle {
    posts: Mutex<HashMap<String, usize>>,
    closes: AtomicUsize,
}

impl Fickle {
    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        for _ in 0..3 {
            let head = read_head(&mut reader)?;
            read_body(&head, &mut reader)?;
            if head.starts_with("POST") {
                let id = head.split(' ').nth(1)?.to_owned();
                *self.posts.lock().unwrap().entry(id).or_default() += 1;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        }
        self.closes.fetch_add(1, SeqCst);
        // As RFC 9112 §9.6 wants it: a reset would look like a crash over the request.
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        std::io::copy(&mut reader, &mut std::io::sink()).ok().map(drop)
    }
}

#[test]
fn closes_under_way_lose_and_double_nothing() {
    in_namespace("backends::closes_under_way_lose_and_double_nothing", || {
        let world = World::new();
        let fickle = Arc::<Fickle>::default();
        let shared = fickle.clone();
        server("10.4.0.1:8080", move |stream| shared.serve(stream));
        world.service("fickle", &["10.96.0.80"], &[":80:8080"], &[["10.4.0.1", ""]]);
        world.policy("fickle", "  circuitBreaker: { consecutiveFailures: 1000 }");
        let _agent = Agent::start(&world);
        let client = |number: usize| {
            std::thread::spawn(move || {
                let (mut gets, mut posts) = (Vec::new(), Vec::new());
                let mut raw = Raw::connect("", "10.96.0.80:80");
                for count in 0..500 {
                    let status = raw.get("/").status;
                    if status != 200 {
                        gets.push(status);
                    }
                    let id = format!("/{number}-{count}");
                    raw.send(
                        format!("POST {id} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                            .as_bytes(),
                    );
                    if raw.answer("POST").status != 200 {
                        posts.push(id);
                    }
                }
                (gets, posts)
            })
        };
        let clients: Vec<_> = (0..4).map(client).collect();
        let (mut gets, mut posts) = (Vec::new(), Vec::new());
        for client in clients {
            let (bad_gets, bad_posts) = client.join().unwrap();
            gets.extend(bad_gets);
            posts.extend(bad_posts);
        }
        let seen = fickle.posts.lock().unwrap();
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        let closes = fickle.closes.load(SeqCst);
        eprintln!(
            "{closes} closes, {} GETs and {} POSTs failed, {} twice",
            gets.len(),
            posts.len(),
            twice.len()
        );
        assert!(twice.is_empty(), "{twice:?}");
        assert!(gets.is_empty(), "{} of 2000 GETs: {:?}", gets.len(), &gets[..gets.len().min(5)]);
        assert!(closes > 500, "{closes}");
    });
}

/// What an HTTP/2 backend does with the first request of its first connection; all others are
/// answered.
#[derive(Clone, Copy, Debug)]
enum Whim {
    Refuses,
    GoesAwayBefore,
    GoesAwayAfter,
    GoesAwayMidway,
    /// It took the stream, and is gone: nobody knows what it did with it.
    Dies,
}

fn fickle_http2(whim: Whim, seen: &AtomicUsize, mut stream: &TcpStream) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).ok()?;
        let id = u32::from_be_bytes(head[5..].try_into().unwrap());
        match (head[3], head[4] & LAST) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, LAST, 0, &[])).ok()?,
            (HEADERS, _) => {
                let first = seen.fetch_add(1, SeqCst) == 0;
                let answer = [
                    frame(HEADERS, END_HEADERS, id, OK),
                    frame(DATA, 0, id, b"he"),
                    frame(DATA, LAST, id, b"llo"),
                ];
                let away = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
                let said = match (first, whim) {
                    (false, _) => answer.concat(),
                    (true, Whim::Refuses) => frame(RST_STREAM, 0, id, &[0, 0, 0, 7]),
                    (true, Whim::GoesAwayBefore) => away(0),
                    (true, Whim::GoesAwayAfter) => [answer.concat(), away(id)].concat(),
                    (true, Whim::Dies) => away(id),
                    (true, Whim::GoesAwayMidway) => {
                        [&answer[..2].concat()[..], &away(id), &answer[2]].concat()
                    }
                };
                stream.write_all(&said).ok()?;
                if first && !matches!(whim, Whim::Refuses) {
                    return stream.shutdown(std::net::Shutdown::Write).ok();
                }
            }
            _ => {}
        }
    }
}

#[test]
fn http2_backends_that_go_away_lose_nothing() {
    in_namespace("backends::http2_backends_that_go_away_lose_nothing", || {
        let world = World::new();
        use Whim::{Dies, GoesAwayAfter, GoesAwayBefore, GoesAwayMidway, Refuses};
        let whims = [Refuses, GoesAwayBefore, GoesAwayAfter, GoesAwayMidway, Dies];
        let cases =
            || (0..10).map(|number| (number, whims[number / 2], ["GET", "POST"][number % 2]));
        let mut asked = Vec::new();
        for (number, whim, _) in cases() {
            let seen = Arc::<AtomicUsize>::default();
            asked.push(seen.clone());
            // Of those that die there are two, of which the second would do.
            let ips = &["10.4.0.1", "10.4.0.2"][..1 + usize::from(matches!(whim, Dies))];
            for ip in ips {
                let (at, seen) = (format!("{ip}:{}", 8080 + number), seen.clone());
                server(&at, move |stream| fickle_http2(whim, &seen, stream));
            }
            let (ip, port) = (format!("10.96.0.{}", 80 + number), format!(":80:{}", 8080 + number));
            let ips: Vec<[&str; 2]> = ips.iter().map(|ip| [*ip, ""]).collect();
            world.service(&format!("s{number}"), &[&ip], &[&port], &ips);
            // Whoever asks for repeats after a reset means calls that may be repeated.
            world.policy(&format!("s{number}"), "  retries: { on: [connect, reset] }");
        }
        let _agent = Agent::start(&world);
        let mut bad = Vec::new();
        for (number, whim, method) in cases() {
            for round in 0..3 {
                let url = format!("http://10.96.0.{}/", 80 + number);
                let ran =
                    run("", &format!("curl -sS -m 5 --http2-prior-knowledge -X {method} {url}"));
                let lost = matches!((whim, round, method), (Dies, 0, "POST"));
                let once = !lost || asked[number].load(SeqCst) == 1;
                if (ran.out == "hello") == lost || !once {
                    bad.push(format!("{whim:?} {method} {round}: {ran:?}"));
                }
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    });
}
