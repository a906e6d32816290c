//! POST is counted at the backends: never twice under kills, resets, GOAWAYs and time-outs, unless
//! its Policy opts in.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};

use crate::agent::{Agent, PATIENCE};
use crate::common::namespace::in_namespace;
use crate::common::wait::{eventually, throughout};
use crate::h2peer::{ask, connect, runtime, spawn};
use crate::raw::Raw;
use crate::world::{ONE, TWO, World, listen};

/// Tells a test process that it is a backend: at which address, and where it counts.
const BACKEND: &str = "EDGEMESH_TEST_COUNTS_AT";
const FILE: &str = "EDGEMESH_TEST_COUNTS_IN";
/// Requests of one connection until the backend says that it goes away.
const UNTIL_GOAWAY: usize = 40;
/// Calls that each client makes, and how many clients there are of each protocol.
const CALLS: usize = 400;
const CLIENTS: usize = 4;
/// Between two kills of a backend.
const KILL_EVERY: Duration = Duration::from_millis(300);

/// Not a test by itself: what is killed below. HTTP/1 on port 8080, HTTP/2 on 8082; each request's
/// path is on disk before it is answered.
#[test]
#[expect(clippy::disallowed_methods, reason = "how a test tells its child what to be")]
fn backend_process() {
    let (Ok(ip), Ok(file)) = (std::env::var(BACKEND), std::env::var(FILE)) else { return };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    let file = Arc::new(file);
    let listeners = ["8080", "8082"].map(|port| listen("", &format!("{ip}:{port}")));
    runtime().block_on(async {
        let [one, two] = listeners.map(|listener| {
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        });
        loop {
            let (stream, http2) = tokio::select! {
                accepted = one.accept() => (accepted.unwrap().0, false),
                accepted = two.accept() => (accepted.unwrap().0, true),
            };
            spawn(converse(stream, http2, file.clone()));
        }
    });
}

/// Serves one connection, and ends it in order after a while.
async fn converse(stream: TcpStream, http2: bool, file: Arc<std::fs::File>) {
    stream.set_nodelay(true).ok();
    let served = Arc::<AtomicUsize>::default();
    let enough = Arc::<tokio::sync::Notify>::default();
    let (count, full) = (served, enough.clone());
    let service = service_fn(move |request| {
        if count.fetch_add(1, SeqCst) + 1 == UNTIL_GOAWAY {
            full.notify_one();
        }
        behave(request, file.clone())
    });
    let io = TokioIo::new(stream);
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = enough.notified() => connection.as_mut().graceful_shutdown(),
        }
        connection.await.ok();
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new());
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = connection.as_mut() => return,
            () = enough.notified() => connection.as_mut().graceful_shutdown(),
        }
        connection.await.ok();
    }
}

/// Why a backend breaks an answer off: on purpose.
#[derive(Debug, thiserror::Error)]
#[error("on purpose")]
struct OnPurpose;

/// Counts a request and does what its path says.
async fn behave(
    request: Request<Incoming>,
    file: Arc<std::fs::File>,
) -> Result<Response<Full<Bytes>>, OnPurpose> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(|_| OnPurpose)?.to_bytes();
    // One write of a file that appends is whole, also under a kill.
    (&*file).write_all(format!("{path} {}\n", body.len()).as_bytes()).unwrap();
    match path.rsplit('/').next() {
        Some("breaks") => Err(OnPurpose),
        Some("ill") => Ok(Response::builder().status(503).body(Full::default()).unwrap()),
        Some("slow") => {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok(Response::new(Full::from("late")))
        }
        _ => Ok(Response::new(Full::from(path))),
    }
}

/// What each call asks for; most are answered at once.
fn path(client: &str, number: usize) -> String {
    let kind = match number % 40 {
        7 | 27 => "breaks",
        13 => "ill",
        21 => "slow",
        _ => "ok",
    };
    format!("/{client}-{number}/{kind}")
}

fn start(ip: &str, file: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http_counts::backend_process", "--nocapture", "--test-threads=1"])
        .env(BACKEND, ip)
        .env(FILE, file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn accepts(ip: &str) {
    eventually("the backend accepts", PATIENCE, || {
        std::net::TcpStream::connect(format!("{ip}:8082")).ok()
    });
}

/// One client of HTTP/1: (path, status) of each call.
fn http1(at: &'static str, name: String) -> Vec<(String, u16)> {
    let mut done = Vec::new();
    let mut raw = Raw::connect("", at);
    for number in 0..CALLS {
        let path = path(&name, number);
        raw.send(
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").as_bytes(),
        );
        raw.send(&[b'x'; 1000]);
        let answer = raw.answer("POST");
        assert!(answer.status != 200 || answer.body == path || answer.body == "late", "{answer:?}");
        done.push((path, answer.status));
    }
    done
}

/// One client of HTTP/2, with several streams under way.
async fn http2(at: &'static str, name: String) -> Vec<(String, u16)> {
    let sender = connect(at).await;
    let mut done = Vec::new();
    for first in (0..CALLS).step_by(8) {
        let calls = (first..first + 8).map(|number| {
            let (path, sender) = (path(&name, number), sender.clone());
            spawn(async move {
                let request = Request::post(format!("http://{at}{path}")).body(()).unwrap();
                let answer = ask(&sender, request, vec![Bytes::from(vec![b'x'; 1000])]).await;
                (path, answer.status)
            })
        });
        for call in calls.collect::<Vec<_>>() {
            done.push(call.await.unwrap());
        }
    }
    done
}

/// All clients of one Service at once: `at` for HTTP/1 and for HTTP/2.
fn storm(name: &str, at: [&'static str; 2]) -> Vec<(String, u16)> {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let name = format!("{name}1-{number}");
            std::thread::spawn(move || http1(at[0], name))
        })
        .collect();
    let mut done = runtime().block_on(async {
        let clients = (0..CLIENTS).map(|number| spawn(http2(at[1], format!("{name}2-{number}"))));
        let mut done = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            done.extend(client.await.unwrap());
        }
        done
    });
    done.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    done
}

const SPEC: &str =
    "  circuitBreaker: { consecutiveFailures: 10000 }\n  timeouts: { request: 200ms }";

#[test]
fn post_is_counted_once() {
    in_namespace("http_counts::post_is_counted_once", || {
        let world = World::new();
        let ips = [ONE, TWO].map(|ips| [ips[0], ""]);
        let files = [world.path("one"), world.path("two")];
        for (number, (name, more)) in
            [("meek", ""), ("eager", ", nonIdempotent: true")].iter().enumerate()
        {
            let at = format!("10.96.0.3{number}");
            world.service(name, &[&at], &["http:80:8080", "http2:82:8082"], &ips);
            let retries = format!(
                "retries: {{ attempts: 3, on: [connect, reset, 503], budgetPercent: 100{more} }}"
            );
            world.policy(name, &format!("{SPEC}\n  {retries}"));
        }
        let agent = Agent::start(&world);
        let over = Arc::<AtomicBool>::default();
        let killer = {
            let (over, files) = (over.clone(), files.clone());
            std::thread::spawn(move || kill_in_turn(&files, &over))
        };
        ips.iter().for_each(|[ip, _]| accepts(ip));
        let meek = storm("meek", ["10.96.0.30:80", "10.96.0.30:82"]);
        let eager = storm("eager", ["10.96.0.31:80", "10.96.0.31:82"]);
        over.store(true, SeqCst);
        let kills = killer.join().unwrap();

        let mut seen = HashMap::<String, usize>::new();
        for line in files.iter().flat_map(|file| lines(file)) {
            let (path, length) = line.rsplit_once(' ').unwrap();
            assert_eq!(length, "1000", "{line}: half a body was taken for a whole one");
            *seen.entry(path.to_owned()).or_default() += 1;
        }
        let times = |path: &String| seen.get(path).copied().unwrap_or_default();
        let lost = meek.iter().filter(|(path, status)| *status == 200 && times(path) != 1).count();
        let twice: Vec<_> = meek.iter().filter(|(path, _)| times(path) > 1).collect();
        let failed = |all: &[(String, u16)]| all.iter().filter(|(_, s)| *s != 200).count();
        let repeated = eager.iter().filter(|(path, _)| times(path) > 1).count();
        eprintln!(
            "{} + {} POSTs, {kills} kills: meek {} failed, {} twice; eager {} failed, {repeated} repeated",
            meek.len(),
            eager.len(),
            failed(&meek),
            twice.len(),
            failed(&eager),
        );
        assert!(twice.is_empty(), "{twice:?}");
        assert_eq!(lost, 0, "answered, and not counted once");
        assert!(kills > 3, "{kills}");
        // The same run shows that doubles would be seen.
        assert!(repeated > 20, "{repeated}");
        drop(agent);
    });
}

fn lines(file: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

/// Keeps both backends running, and kills one after the other until it is over.
fn kill_in_turn(files: &[std::path::PathBuf; 2], over: &AtomicBool) -> usize {
    let ips = [ONE[0], TWO[0]];
    let mut children = [0, 1].map(|i| start(ips[i], &files[i]));
    let mut kills = 0;
    while throughout(KILL_EVERY, || !over.load(SeqCst)) {
        let turn = kills % 2;
        accepts(ips[turn]);
        kill(Pid::from_raw(children[turn].id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        children[turn].wait().unwrap();
        children[turn] = start(ips[turn], &files[turn]);
        kills += 1;
    }
    for child in &mut children {
        child.kill().ok();
        child.wait().ok();
    }
    kills
}
