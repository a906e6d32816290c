//! Who is meant: a mesh Host, then a reserved segment, then a known node, then nobody; and what is
//! said to those who were not understood.

use http::Version;

use crate::client::{ask, request, say};
use crate::world::World;

/// Host and target; status, label and a part of the text.
type Row = ((&'static str, &'static str), u16, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        ("other.default", "/x/y"),
        404,
        "noService",
        "Host `other.default` is no Service; first segment `x` is neither reserved nor a known node",
    ),
    (
        ("cloud.example:9443", "/"),
        404,
        "noService",
        "Host `cloud.example` is no Service; the path has no first segment",
    ),
    (
        ("echo", "/echo"),
        404,
        "noService",
        "Host `echo` is no Service; first segment `echo` is neither",
    ),
    (("127.0.0.1", "//_svc/default/echo"), 404, "noService", "the path has no first segment"),
    (("x", "/%5Fsvc/default/echo/"), 404, "noService", "first segment `%5Fsvc` is neither"),
    (("x", "/../_svc/default/echo/"), 404, "noService", "first segment `..` is neither"),
    (("x", "/EDGE-1/default/x"), 404, "noService", "first segment `EDGE-1` is neither"),
    (("x", "/edge-2/default/x"), 404, "noService", "first segment `edge-2` is neither"),
    (
        ("x", "/edge-1/default/x"),
        404,
        "noRule",
        "no Rule of namespace `default` with a rest source takes path `/x`",
    ),
    (("x", "/edge-1"), 404, "noRule", "the path lacks its namespace"),
    (("x", "/_any/default/x"), 404, "noRule", "of namespace `default`"),
    (("us.default", "/edge-1/x"), 404, "noRule", "of namespace `x`"),
    (("us.default", "/x"), 508, "loop", "would come back to the mesh itself"),
    (("x", "/_svc/default/gone/"), 404, "noService", "there is no Service `default/gone`"),
    (("x", "/_svc/default%2Fecho/x"), 404, "noService", "there is no Service `default%2Fecho/x`"),
    (("x", "/_svc/default/ech%6F/x"), 404, "noService", "there is no Service `default/ech%6F`"),
    (("x", "/_svc/default/.%2E/x"), 404, "noService", "no Service `default/.%2E`"),
    (("x", "/_svc/default/Echo/"), 404, "noService", "no Service `default/Echo`"),
    (("x", "/_svc/default/echo.default/"), 404, "noService", "no Service `default/echo.default`"),
    (
        ("x", "/_svc/default"),
        400,
        "badRequest",
        "the path lacks a part of /_svc/{namespace}/{service}[:port]/",
    ),
    (("x", "/_svc//echo/"), 400, "badRequest", "the path lacks a part"),
    (("x", "/_svc/default/echo:http/"), 400, "badRequest", "`http` is no port"),
    (("x", "/_svc/default/echo:99999/"), 400, "badRequest", "`99999` is no port"),
    (("x", "/_svc/default/echo:/"), 400, "badRequest", "`` is no port"),
    (("x", "/_svc/default/echo:81/"), 404, "noPort", "the Service has no such port"),
    (("echo.default:81", "/"), 404, "noPort", "the Service has no such port"),
    // A name of the mesh decides, also where it leads nowhere.
    (("echo.default:81", "/_svc/shop/echo/"), 404, "noPort", "the Service has no such port"),
    (("dead.default", "/_svc/shop/echo/"), 503, "connectFailed", "Service default/dead"),
];

#[tokio::test]
async fn whoever_is_not_understood_is_told_what_was_tried() {
    let world = World::open().await;
    for (i, (named, status, label, text)) in ROWS.iter().enumerate() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let before = world.ended(label);
            let answer = ask(world.at, request(version, "GET", *named, &[])).await;
            let got = (answer.status, answer.header("x-edgemesh-refusal"));
            assert_eq!(got, (*status, *label), "{i} {version:?} {named:?}: {}", answer.body);
            assert!(answer.body.contains(text), "{named:?}: {}", answer.body);
            assert_eq!(answer.body.lines().count(), 1);
            let after = world.ended(label);
            assert_eq!(after, (before.0 + 1, before.1 + 1), "{named:?}: one account");
        }
    }
}

#[tokio::test]
async fn long_words_are_not_repeated_whole() {
    let world = World::open().await;
    let (host, path) = ("h".repeat(200), format!("/{}", "p".repeat(5000)));
    let answer = ask(world.at, request(Version::HTTP_11, "GET", (&host, &path), &[])).await;
    assert!(
        answer.body.contains("ppp...` is neither") && answer.body.len() < 400,
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn grpc_hears_it_in_its_own_words() {
    let world = World::open().await;
    let grpc = [("content-type", "application/grpc")];
    for ((host, target), status, text) in [
        (
            ("x", "/p.S/M"),
            "5",
            "edgemesh: Host `x` is no Service; first segment `p.S` is neither reserved nor a known node",
        ),
        (("x", "/_svc/default/a%2Fb/M"), "5", "edgemesh: there is no Service `default/a%252Fb`"),
        (("x", "/edge-1/M"), "5", "edgemesh: no Rule of namespace `M`"),
    ] {
        let answer = ask(world.at, request(Version::HTTP_2, "POST", (host, target), &grpc)).await;
        assert_eq!(answer.status, 200);
        let (told, message) = answer.grpc();
        assert!(told == status && message.starts_with(text), "{told} {message}");
    }
}

#[tokio::test]
async fn connect_is_by_name_alone() {
    let world = World::open().await;
    for (target, status, text) in [
        ("gone.default:80", "404 ", "CONNECT names `gone.default`, no Service"),
        ("127.0.0.1:80", "404 ", "CONNECT names `127.0.0.1`, no Service"),
        ("[::1]:80", "404 ", "CONNECT names `[::1]`, no Service"),
        ("edge-1:80", "404 ", "CONNECT names `edge-1`, no Service"),
        ("bytes.default:80", "404 ", "no such port"),
        ("dead.default:80", "503 ", "no backend took the connection"),
        ("us.default:80", "508 ", "would come back to the mesh itself"),
    ] {
        let text_said =
            format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
        let answer = say(world.at, &text_said).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {answer}");
        assert!(answer.contains(text), "{target}: {answer}");
        let answer = ask_connect(&world, target).await;
        assert_eq!(format!("{answer} "), status, "{target}");
    }
    assert_eq!(world.ended("noService"), (14, 8));
}

/// The status of the same by HTTP/2.
async fn ask_connect(world: &World, target: &str) -> u16 {
    let by_http2 = http::Request::connect(target).version(Version::HTTP_2);
    ask(world.at, by_http2.body(http_body_util::Full::default()).unwrap()).await.status
}
