//! Peers that break the rules: each is told so, or cut off, and others are unharmed.

use edgemesh_proto::frame;
use edgemesh_proto::message::Join;
use h2::Reason;
use h2::client::SendRequest;
use http::{Method, Request as HttpRequest, Response};

use super::*;

/// A bare HTTP/2 client at the other end of a served Link.
async fn bare(peer: Arc<Peer>, handler: Arc<dyn Serve>) -> (SendRequest<Bytes>, ServedLink) {
    let (near, far) = ends();
    let tasks = TaskTracker::new();
    let served = serve(Dialled { peer, ..far }, handler, Limits::REQUESTS, &tasks);
    let (sender, connection) = h2::client::handshake(near.stream).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    (sender, served)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, message).unwrap();
    out
}

pub(super) fn encoded(message: &Message) -> Vec<u8> {
    framed(&message.encode())
}

fn posting(path: &str) -> HttpRequest<()> {
    let uri = format!("https://link{path}");
    HttpRequest::builder().method(Method::POST).uri(uri).body(()).unwrap()
}

/// The first Message of what a bare client is answered.
async fn heard(response: h2::client::ResponseFuture) -> Result<Message, h2::Error> {
    let mut body = response.await?.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece?);
        body.flow_control().release_capacity(0)?;
    }
    let (message, rest) = frame::split(&bytes).unwrap().unwrap();
    assert!(rest.is_empty());
    Ok(Message::decode(Bytes::copy_from_slice(message)).unwrap())
}

async fn ask(
    client: &mut SendRequest<Bytes>,
    path: &str,
    body: Vec<u8>,
) -> Result<Message, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(posting(path), false)?;
    stream.send_data(body.into(), true)?;
    heard(response).await
}

#[tokio::test]
async fn what_is_no_opening_is_refused_by_its_name() {
    let (request, stream) = ("/edgemesh.v1.Link/Request", "/edgemesh.v1.Link/Stream");
    let edit = |edit: fn(&mut Message)| {
        let mut message = get("/");
        edit(&mut message);
        encoded(&message)
    };
    let join = || {
        let node = NodeName("edge-1".into());
        encoded(&said(Body::Join(Join { node, token: "t".into(), csr: Bytes::new() })))
    };
    let cases: &[(&str, &str, Vec<u8>, &str)] = &[
        ("nothing", request, Vec::new(), "malformed"),
        ("half a Message", request, encoded(&get("/"))[..40].to_vec(), "malformed"),
        ("garbage", request, framed(b"\xff\xff garbage"), "malformed"),
        ("text", stream, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed"),
        ("a length without end", stream, vec![0xff; 64], "malformed"),
        ("no header", request, edit(|m| m.header = Default::default()), "malformed"),
        ("no route", request, edit(|m| m.route = Default::default()), "malformed"),
        ("no body", request, edit(|m| m.body = None), "malformed"),
        ("another body", stream, encoded(&get("/")), "unknownOperation"),
        ("an answer", request, encoded(&ok(&get("/"))), "unknownOperation"),
        (
            "an operation of tomorrow",
            "/edgemesh.v1.Link/Teleport",
            encoded(&get("/")),
            "unknownOperation",
        ),
        ("nothing of ours", "/", encoded(&get("/")), "unknownOperation"),
        ("another's name", request, edit(|m| m.route.source = "edge-9".into()), "notAllowed"),
        ("the hub's name", request, edit(|m| m.route.source = "cloud".into()), "notAllowed"),
        ("a join, as a request", request, join(), "unknownOperation"),
    ];
    let (mut client, served) = bare(peer("edge-1"), echo()).await;
    for (name, path, body, label) in cases {
        let message = ask(&mut client, path, body.clone()).await.unwrap();
        assert_eq!(refused(&message), Some(*label), "{name}: {message:?}");
        // The Link lives.
        let message = ask(&mut client, request, encoded(&get("/"))).await.unwrap();
        assert_eq!(refused(&message), None, "after {name}");
    }
    assert!(served.is_open());
}

#[tokio::test]
async fn without_a_certificate_one_may_only_join() {
    let nobody = Arc::new(Peer { proved: None, address: peer("x").address });
    let (mut client, _served) = bare(nobody, echo()).await;
    let node = NodeName("edge-1".into());
    let join = said(Body::Join(Join { node, token: "t".into(), csr: Bytes::new() }));
    let asked = ask(&mut client, "/edgemesh.v1.Link/Join", encoded(&join)).await.unwrap();
    assert_eq!(refused(&asked), None);
    for (path, message) in [("Request", get("/")), ("Stream", connect()), ("Control", get("/"))] {
        let path = format!("/edgemesh.v1.Link/{path}");
        let asked = ask(&mut client, &path, encoded(&message)).await.unwrap();
        assert_eq!(refused(&asked), Some("notAllowed"), "{path}");
    }
}

#[tokio::test]
async fn a_hub_speaks_for_others() {
    let mut hub = (*peer("cloud")).clone();
    hub.proved.iter_mut().for_each(|proved| proved.is_hub = true);
    let (mut client, _served) = bare(Arc::new(hub), echo()).await;
    let asked = ask(&mut client, "/edgemesh.v1.Link/Request", encoded(&get("/"))).await.unwrap();
    assert_eq!(refused(&asked), None);
}

#[tokio::test]
async fn a_message_past_the_bound_ends_the_link_of_who_sends_it() {
    let (link, _served) = world(echo()).await;
    let (mut client, served) = bare(peer("edge-1"), echo()).await;
    let mut long = get("/");
    long.content = edgemesh_proto::message::Content::Bytes(vec![0; MAX_OPENING].into());
    // Only its length is needed to see it.
    let message = encoded(&long)[..1000].to_vec();
    let answer = ask(&mut client, "/edgemesh.v1.Link/Request", message).await.unwrap();
    assert_eq!(refused(&answer), Some("tooLarge"));
    served.closed().await;
    // Whoever keeps to the rules finds out before anything leaves.
    let error = link.open(Operation::Request, &long, Rest::Nothing).await.unwrap_err();
    assert_eq!(error.kind(), Failure::Protocol);
    link.open(Operation::Request, &get("/"), Rest::Nothing).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_opens_and_says_nothing_is_not_waited_for() {
    let (client, served) = bare(peer("edge-1"), echo()).await;
    let mut client = client.ready().await.unwrap();
    let (response, _stream) =
        client.send_request(posting("/edgemesh.v1.Link/Request"), false).unwrap();
    let since = tokio::time::Instant::now();
    assert_eq!(refused(&heard(response).await.unwrap()), Some("malformed"));
    assert_eq!(since.elapsed().as_secs(), OPENING_TIMEOUT.as_secs());
    while served.exchanges() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_silent_reset_of_an_upload_is_no_end() {
    let (handler, mut calls) = by_hand();
    let (client, _served) = bare(peer("edge-1"), handler).await;
    let mut client = client.ready().await.unwrap();
    let (_response, mut stream) =
        client.send_request(posting("/edgemesh.v1.Link/Request"), false).unwrap();
    let mut opening = encoded(&get("/"));
    opening.extend_from_slice(b"half");
    stream.send_data(opening.into(), false).unwrap();
    let (mut called, _answer) = calls.recv().await.unwrap();
    let half = called.body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(half, "half");
    stream.send_reset(Reason::NO_ERROR);
    let end = called.body.frame().await.unwrap().unwrap_err();
    assert_eq!(end.kind(), Failure::Broken);
}

/// How a bare server answers.
type Answers = fn(h2::server::SendResponse<Bytes>) -> Option<h2::SendStream<Bytes>>;

/// A Link to a bare HTTP/2 server that answers every request in one way.
async fn to_bare(answers: Answers) -> Link {
    let (near, far) = ends();
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        let mut connection = h2::server::handshake(far.stream).await.unwrap();
        let mut kept = Vec::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            kept.push((request, answers(respond)));
        }
    });
    client(near, Limits::REQUESTS, tasks).await.unwrap()
}

fn say(
    mut to: h2::server::SendResponse<Bytes>,
    status: u16,
    body: Vec<u8>,
) -> h2::SendStream<Bytes> {
    let response = Response::builder().status(status).body(()).unwrap();
    let mut stream = to.send_response(response, false).unwrap();
    stream.send_data(body.into(), false).unwrap();
    stream
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let cases: &[(&str, Answers, Failure)] = &[
        (
            "refused",
            |mut to| {
                to.send_reset(Reason::REFUSED_STREAM);
                None
            },
            Failure::NotSent,
        ),
        (
            "given up",
            |mut to| {
                to.send_reset(Reason::CANCEL);
                None
            },
            Failure::Cancelled,
        ),
        (
            "its fault",
            |mut to| {
                to.send_reset(Reason::INTERNAL_ERROR);
                None
            },
            Failure::Broken,
        ),
        ("no Link", |to| Some(say(to, 404, vec![])), Failure::Protocol),
        ("garbage", |to| Some(say(to, 200, framed(b"\xff\xff"))), Failure::Protocol),
        ("too long", |to| Some(say(to, 200, vec![0xff, 0xff, 0x7f])), Failure::Protocol),
        (
            "nothing",
            |to| {
                let mut stream = say(to, 200, vec![]);
                stream.send_data(Bytes::new(), true).unwrap();
                None
            },
            Failure::Protocol,
        ),
    ];
    for (name, answers, kind) in cases {
        let link = to_bare(*answers).await;
        let error = link.open(Operation::Request, &get("/"), Rest::Nothing).await.unwrap_err();
        assert_eq!(error.kind(), *kind, "{name}: {error:?}");
        assert!(link.is_open(), "{name}");
        assert_eq!(link.exchanges(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_silent_end_of_an_answer_is_no_end() {
    for goes_away in [false, true] {
        let (near, far) = ends();
        let (tasks, now) = (TaskTracker::new(), Arc::new(tokio::sync::Notify::new()));
        let heard = now.clone();
        tasks.spawn(async move {
            let mut connection = h2::server::handshake(far.stream).await.unwrap();
            let (_request, respond) = connection.accept().await.unwrap().unwrap();
            let mut body = encoded(&ok(&get("/")));
            body.extend_from_slice(b"half");
            let mut stream = say(respond, 200, body);
            tokio::select! {
                _ = connection.accept() => {}
                () = heard.notified() => {}
            }
            match goes_away {
                true => connection.abrupt_shutdown(Reason::NO_ERROR),
                false => stream.send_reset(Reason::NO_ERROR),
            }
            while connection.accept().await.is_some() {}
        });
        let link = client(near, Limits::REQUESTS, tasks).await.unwrap();
        let reply = link.open(Operation::Request, &get("/"), Rest::Nothing).await.unwrap();
        let mut body = reply.body;
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        now.notify_one();
        let end = body.frame().await.unwrap().unwrap_err();
        assert_eq!(end.kind(), Failure::Broken, "{goes_away} {end:?}");
    }
}
