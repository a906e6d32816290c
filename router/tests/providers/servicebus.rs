//! Applications that call the ServiceBus of their node, in KubeEdge's form.

use std::net::SocketAddr;

use edgemesh_core::refusal::Refusal;
use edgemesh_router::providers::servicebus::serve;
use edgemesh_router::providers::{Failure, Providers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::recorded::recorded;
use crate::server::Server;
use crate::world::{Answer, PATIENCE, World, nobody, until};

/// Where KubeEdge's cases were recorded, and the URL that their Rule is for.
const URL: &str = "http://127.0.0.1:7777/key";

/// What KubeEdge's clients saw they see here, byte for byte but for the date; where KubeEdge lost method
/// or payload, these are right.
#[tokio::test]
async fn cases_of_kubeedge() {
    let (world, server) = (World::with(""), Server::default());
    let target = server.listen(None, &world.tasks).await;
    let rules =
        format!("r: servicebus target_url={URL} -> rest resource=http://{target}/from-servicebus");
    world.rules(&rules);
    let providers = Providers::new(world.call(), None);
    world.messages.answer(Answer::Targets(providers, world.live.clone()));
    let at = listen(&world).await;
    for (case, arrives) in [
        ("post", Some("POST /from-servicebus hello")),
        ("get", Some("GET /from-servicebus ")),
        ("object-payload", Some("PUT /from-servicebus {\"a\":[1,2]}")),
        ("bad-json", None),
        ("no-target", None),
        ("unknown-url", None),
    ] {
        let recorded = recorded(&format!("servicebus-rest-{case}"));
        let request = recorded["client_request"]["body"].as_str().unwrap();
        let got = post(at, request.as_bytes()).await;
        let want = recorded["client_response"]["raw"].as_str().unwrap();
        // KubeEdge's target always saw POST.
        let method = arrives.map_or("POST", |line| line.split(' ').next().unwrap());
        let want = want.replace("answers POST", &format!("answers {method}"));
        assert_eq!(
            told(&got),
            told(&want.replace("\r\nContent-Length: 112", &length(&want))),
            "{case}"
        );
        let asked = std::mem::take(&mut *server.asked.lock());
        let lines: Vec<_> =
            asked.iter().map(|a| format!("{} {}", a.line, a.body.escape_ascii())).collect();
        let arrives = arrives.map(|line| line.replace('"', "\\\""));
        assert_eq!(lines, Vec::from_iter(arrives), "{case}");
    }
    // A Rule that is gone takes nothing more, which in KubeEdge it does.
    world.rules(&format!("other: servicebus target_url=else -> rest resource=http://{target}/"));
    let request = recorded("servicebus-rest-after-rule-delete")["client_request"]["body"].clone();
    let got = post(at, request.as_str().unwrap().as_bytes()).await;
    assert!(
        got.contains("{\"code\":400,\"msg\":\"url http://127.0.0.1:7777/key is not allowed"),
        "{got}"
    );
    assert!(server.asked.lock().is_empty());
}

/// What becomes of a message, and what the application reads of it.
#[tokio::test]
async fn answers() {
    let world = World::with("r: servicebus target_url=u -> rest resource=http://h/");
    let at = listen(&world).await;
    let failure = |refusal, reason: &str| Answer::Fails(Failure { refusal, reason: reason.into() });
    let wait = std::time::Duration::from_secs(1);
    let over = vec![b'x'; 12 * 1024 * 1024 + 1];
    for (answer, want) in [
        (
            Answer::With(201, "made".into()),
            r#"{"code":201,"msg":"receive response from cloud successfully","body":"made"}"#,
        ),
        (
            Answer::With(404, "".into()),
            r#"{"code":404,"msg":"receive response from cloud successfully","body":""}"#,
        ),
        (
            Answer::With(200, vec![0xff, 0].into()),
            r#"{"code":200,"msg":"receive response from cloud successfully","body":"/wA=","encoding":"base64"}"#,
        ),
        (
            Answer::With(200, over.into()),
            r#"{"code":502,"msg":"the answer is larger than 12 MiB","body":""}"#,
        ),
        (
            failure(Refusal::NoPath, "no way to the cloud"),
            r#"{"code":503,"msg":"no way to the cloud","body":""}"#,
        ),
        (failure(Refusal::BackendReset, "it broke"), r#"{"code":502,"msg":"it broke","body":""}"#),
        (
            failure(Refusal::RequestTimeout, "too slow"),
            r#"{"code":504,"msg":"too slow","body":""}"#,
        ),
        (
            failure(Refusal::RateLimited { retry_after: wait }, "too often"),
            r#"{"code":429,"msg":"too often","body":""}"#,
        ),
    ] {
        world.messages.answer(answer);
        let got = post(at, br#"{"targetURL":"u","payload":"x"}"#).await;
        assert_eq!(got.split("\r\n\r\n").nth(1).unwrap(), want);
    }
    let mut most = br#"{"targetURL":"u","payload":""#.to_vec();
    most.resize(5_000_000 - 2, b'x');
    most.extend(b"\"}");
    assert!(post(at, &most).await.contains("\"code\":429"), "as much as is allowed");
    most.push(b' ');
    let want = r#"{"code":413,"msg":"the request is larger than 5000000 bytes","body":""}"#;
    assert!(post(at, &most).await.ends_with(want));
}

/// Nobody listens unless a Rule begins on this node; a port that is in use is tried again.
#[tokio::test]
async fn who_listens_is_decided_by_the_rules() {
    let rule = "r: servicebus target_url=u -> rest resource=http://h/";
    let world =
        World::with("r: servicebus target_url=u node_name=edge-2 -> rest resource=http://h/");
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = holder.local_addr().unwrap();
    serve(world.here(), at, &world.tasks, world.stop.clone());
    world.rules(rule);
    for _ in 0..100 {
        tokio::task::yield_now().await; // it tries, in vain
    }
    drop(holder);
    let call = br#"{"targetURL":"u"}"#;
    wait_until_listening(at).await;
    assert!(post(at, call).await.contains("\"code\":200"));
    world.rules("");
    until("the port is closed", || std::net::TcpStream::connect(at).is_err()).await;
    world.rules(rule);
    wait_until_listening(at).await;
    assert!(post(at, call).await.contains("\"code\":200"));
}

/// A Rule of this node goes before one of each; one that is paused or waits says so when it is called.
#[tokio::test]
async fn which_rule_takes_a_call() {
    let world = World::with(
        "
        each: servicebus target_url=u -> rest resource=http://h/
        own: servicebus target_url=u node_name=edge-1 -> rest resource=http://h/
        paused!: servicebus target_url=p -> rest resource=http://h/
        waits: servicebus target_url=w -> absent resource=http://h/
        elsewhere: servicebus target_url=e node_name=edge-2 -> rest resource=http://h/
        ",
    );
    let at = listen(&world).await;
    for (url, want) in [("u", "own"), ("p", "paused"), ("w", "waits")] {
        let before = world.messages.all().len();
        post(at, format!("{{\"targetURL\":\"{url}\"}}").as_bytes()).await;
        assert_eq!(world.messages.all()[before].rule, want);
    }
    let got = post(at, br#"{"targetURL":"e"}"#).await;
    assert!(got.contains("url e is not allowed"), "{got}");
}

/// A web page in a browser on the node makes no Rule fire, and reads nothing under a name of its own.
#[tokio::test]
async fn web_pages_are_refused() {
    let world = World::with("r: servicebus target_url=u -> rest resource=http://h/");
    let at = listen(&world).await;
    for (fields, is_served) in [
        (format!("Host: {at}\r\n"), true),
        (format!("Host: localhost:{}\r\n", at.port()), true),
        (format!("Host: {at}\r\nOrigin: http://page.example\r\n"), false),
        (format!("Host: {at}\r\nSec-Fetch-Site: cross-site\r\n"), false),
        (format!("Host: page.example:{}\r\n", at.port()), false),
    ] {
        for method in ["POST", "GET"] {
            let before = world.messages.all().len();
            let body = r#"{"targetURL":"u"}"#;
            let request = format!(
                "{method} / HTTP/1.1\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let got = exchange(at, &request).await;
            let status = if is_served { "HTTP/1.1 200 OK" } else { "HTTP/1.1 403 Forbidden" };
            assert!(got.starts_with(status), "{method} {fields}: {got}");
            assert_eq!(world.messages.all().len() - before, usize::from(is_served), "{fields}");
        }
    }
}

async fn listen(world: &World) -> SocketAddr {
    let at = nobody();
    serve(world.here(), at, &world.tasks, world.stop.clone());
    wait_until_listening(at).await;
    at
}

async fn wait_until_listening(at: SocketAddr) {
    until("somebody listens", || std::net::TcpStream::connect(at).is_ok()).await;
}

/// Posts, as curl does, and gives all that comes back.
async fn post(at: SocketAddr, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "POST /anything HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that is too large is not read to its end.
    stream.write_all(body).await.ok();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().ok();
    String::from_utf8(answer).unwrap()
}

/// Sends it, and gives all that comes back.
async fn exchange(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// The header of the length of this answer's body.
fn length(answer: &str) -> String {
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    format!("\r\nContent-Length: {}", body.len())
}

/// An answer without what differs from day to day: its fields, sorted, and its body.
fn told(answer: &str) -> (Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let kept = |line: &&str| !line.starts_with("date:") && !line.starts_with("connection:");
    let lower = head.to_ascii_lowercase();
    let mut lines: Vec<_> = lower.split("\r\n").filter(kept).map(str::to_owned).collect();
    lines.sort_unstable();
    (lines, body.to_owned())
}
