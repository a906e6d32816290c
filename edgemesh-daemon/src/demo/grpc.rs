//! gRPC without a framework: one unary method that says who answers, its server and its client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

use crate::demo::clients::Tally;
use crate::demo::clock::now;
use crate::demo::world::World;

/// The method.
const WHO: &str = "/demo.Echo/Who";
/// How long all calls of one client may take.
const CALLS_WITHIN: Duration = Duration::from_secs(8);
/// Flag and length before each message.
const PREFIX: usize = 5;

/// Request and answer: the caller's words, the server's name.
#[derive(Clone, PartialEq, Message)]
struct Echo {
    #[prost(string, tag = "1")]
    said: String,
    #[prost(string, tag = "2")]
    who: String,
}

fn framed(message: &Echo) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.encoded_len());
    bytes.put_u8(0); // not compressed
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn unframed(bytes: &[u8]) -> anyhow::Result<Echo> {
    let Some((prefix, message)) = bytes.split_first_chunk::<PREFIX>() else {
        bail!("no gRPC message in the answer");
    };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length)? != message.len() {
        bail!("a gRPC message of another length than it says");
    }
    Ok(Echo::decode(message)?)
}

/// Serves one connection.
pub(crate) async fn serve(stream: TcpStream, name: Arc<str>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let name = name.clone();
        async move { Ok::<_, Infallible>(answer(request, &name).await) }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // An error here is a client that went away.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    name: &str,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
    let known = request.uri().path() == WHO;
    let said = match request.into_body().collect().await {
        Ok(body) => unframed(&body.to_bytes()).map(|echo| echo.said).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if known { "0" } else { "12" }));
    let body = Full::new(framed(&Echo { said, who: name.into() }));
    let mut response = Response::new(body.with_trailers(async { Some(Ok(trailers)) }));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A client's one connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Client {
    pub(crate) async fn new(stream: TcpStream, authority: &str) -> anyhow::Result<Self> {
        let executor = TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await?;
        tokio::runtime::Handle::current().spawn(connection);
        Ok(Self { sender, authority: authority.into() })
    }

    /// Asks who answers.
    ///
    /// # Errors
    /// A broken connection, another gRPC status than 0, or an answer that is none.
    pub(crate) async fn who(&mut self, said: &str) -> anyhow::Result<String> {
        let echo = Echo { said: said.into(), who: String::new() };
        let request = Request::post(format!("http://{}{WHO}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed(&echo)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let early = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let late = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let code = late.or(early).with_context(|| format!("HTTP {status} without grpc-status"))?;
        if code != "0" {
            bail!("grpc-status {}", code.to_str().unwrap_or("?"));
        }
        let answer = unframed(&body.to_bytes())?;
        if answer.said != said {
            bail!("the request arrived changed");
        }
        Ok(answer.who)
    }
}

/// `count` calls on one connection, bounded in time.
pub(crate) fn calls(
    world: &World,
    stream: TcpStream,
    authority: &str,
    count: u32,
) -> anyhow::Result<Tally> {
    let calls = async {
        let mut client = Client::new(stream, authority).await?;
        let mut tally = Tally { connections: 1, ..Tally::default() };
        for call in 0..count {
            let begin = now();
            tally.timed(begin, client.who(&call.to_string()).await);
        }
        anyhow::Ok(tally)
    };
    world.runtime.block_on(async { tokio::time::timeout(CALLS_WITHIN, calls).await })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_must_be_as_long_as_it_says() {
        let echo = Echo { said: "x".into(), who: "y".into() };
        let whole = framed(&echo);
        assert_eq!(unframed(&whole).unwrap(), echo);
        for cut in 0..whole.len() {
            assert!(unframed(&whole[..cut]).is_err(), "{cut} bytes");
        }
    }
}
