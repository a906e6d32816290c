//! Backends: one that says how it was asked, in HTTP/1 and HTTP/2, and one that does with bytes what
//! their first word says.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What a Backend does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Behave {
    /// See [`answer`]; under this name.
    Http(&'static str),
    /// See [`bytes`]; notes how clients ended that were heard to their end.
    Bytes(watch::Sender<Vec<String>>),
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Starts one, until `tasks` end.
pub(crate) async fn start(behave: Behave, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match &behave {
                Behave::Http(name) => connections.spawn(http(stream, name)),
                Behave::Bytes(ends) => connections.spawn(bytes(stream, ends.clone())),
            };
        }
    });
    address
}

async fn http(stream: TcpStream, name: &'static str) {
    let mut first = [0; 4];
    while stream.peek(&mut first).await.is_ok_and(|n| (1..4).contains(&n)) {
        tokio::task::yield_now().await;
    }
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(name, request).await));
    // A client that leaves is no fault of the Backend.
    if &first == b"PRI " {
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), service).await.ok();
    } else {
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        serving.with_upgrades().await.ok();
    }
}

/// Says how it was asked; echoes gRPC, with trailers, WebSocket's bytes, and what is sent to
/// `/stream`, as it comes.
async fn answer(name: &str, mut request: Request<Incoming>) -> Response<Body> {
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned()
    };
    if request.headers().contains_key(UPGRADE) {
        let ours = hyper::upgrade::on(&mut request);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut stream = TokioIo::new(ours.await.unwrap());
            let mut word = [0; 4];
            while stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(&word).await.unwrap();
            }
        });
        tasks.detach_all();
        let mut response = Response::new(whole(String::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    }
    if text(request.headers(), "content-type") == "application/grpc" {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from_static("well"));
        let said = Ok(trailers);
        let echo = request.into_body().with_trailers(async { Some(said) }).boxed_unsync();
        let mut response = Response::new(echo);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        return response;
    }
    if request.uri().path() == "/stream" {
        let echo = request.into_body().map_frame(|frame| match frame.into_data() {
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        });
        return Response::new(echo.boxed_unsync());
    }
    let headers = request.headers();
    let cookies: Vec<_> = headers.get_all("cookie").iter().map(|v| v.to_str().unwrap()).collect();
    let authority = request.uri().authority().map(ToString::to_string);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let scheme = request.uri().scheme_str().unwrap_or("-");
    let said = format!(
        "{name} {} {target} host={} scheme={scheme} of={} off={} auth={}/{} cookies={}",
        request.method(),
        authority.unwrap_or_else(|| text(headers, HOST.as_str())),
        text(headers, "x-forwarded-host"),
        text(headers, "x-forwarded-prefix"),
        text(headers, AUTHORIZATION.as_str()),
        text(headers, "proxy-authorization"),
        cookies.join("|"),
    );
    Response::new(whole(said))
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Greets, reads a word of four bytes, and does what it says.
async fn bytes(mut stream: TcpStream, ends: watch::Sender<Vec<String>>) {
    let mut word = [0; 4];
    let begun = stream.write_all(b"+hello").await.is_ok();
    if !begun || stream.read_exact(&mut word).await.is_err() {
        return;
    }
    match &word {
        // Answers once the client has said all.
        b"hear" => {
            stream.write_all(b"yes").await.ok();
            let mut rest = Vec::new();
            let end = match stream.read_to_end(&mut rest).await {
                Ok(_) => "end",
                Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
                Err(error) => panic!("{error}"),
            };
            let heard = format!("{} and {end}", String::from_utf8(rest).unwrap());
            stream.write_all(heard.as_bytes()).await.ok();
            ends.send_modify(|ends| ends.push(heard));
        }
        // Breaks in the middle of a word.
        b"dies" => {
            stream.write_all(b"half a w").await.ok();
            // Its client has it before the reset, which may overtake it otherwise.
            stream.read_exact(&mut word).await.ok();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        // Sends as many kilobytes as the client wants, whatever else it says.
        b"bulk" => {
            let kilobytes = stream.read_u32().await.unwrap();
            for _ in 0..kilobytes {
                if stream.write_all(&[7; 1024]).await.is_err() {
                    return;
                }
            }
        }
        _ => drop(stream.write_all(&word).await),
    }
}
