//! Clients: HTTP/1 and HTTP/2 by hyper, and bytes as they are.

use std::net::SocketAddr;

use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::world::PATIENCE;

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("-", |value| value.to_str().unwrap())
    }

    /// How a gRPC call ended.
    pub(crate) fn grpc(&self) -> (&str, &str) {
        let of = |name| {
            let said = self.trailers.get(name).or_else(|| self.headers.get(name));
            said.map_or("-", |value| value.to_str().unwrap())
        };
        (of("grpc-status"), of("grpc-message"))
    }
}

/// A request of either version: `host` becomes the authority of HTTP/2 and the Host of HTTP/1.
pub(crate) fn request(
    version: Version,
    method: &str,
    (host, target): (&str, &str),
    headers: &[(&str, &str)],
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).version(version);
    request = match version {
        Version::HTTP_2 => request.uri(format!("http://{host}{target}")),
        _ => request.uri(target).header("host", host),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

/// Sends one request over a connection of its own to `at`.
pub(crate) async fn ask(at: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    ask_over(TcpStream::connect(at).await.unwrap(), request).await
}

/// The same over `stream`.
pub(crate) async fn ask_over<S>(stream: S, request: Request<Full<Bytes>>) -> Answer
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut tasks = JoinSet::new();
    let asked = async {
        match request.version() {
            Version::HTTP_2 => {
                let io = TokioIo::new(stream);
                let made = http2::handshake(TokioExecutor::new(), io).await;
                let (mut sender, connection) = made.unwrap();
                tasks.spawn(async { drop(connection.await) });
                read(sender.send_request(request).await.unwrap()).await
            }
            _ => {
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.unwrap();
                tasks.spawn(async { drop(connection.await) });
                read(sender.send_request(request).await.unwrap()).await
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("in time")
}

async fn read(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let body = String::from_utf8(body.to_bytes().into()).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers }
}

/// Says `text` on a connection of its own, and reads until that ends.
pub(crate) async fn say(at: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A reset after the answer is no matter: more was sent than was read.
    let _ = read.expect("in time");
    String::from_utf8(answer).unwrap()
}

/// Reads an HTTP/1 head.
pub(crate) async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
