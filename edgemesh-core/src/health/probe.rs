//! One probe: dial, ask, judge.

use std::fmt::Display;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Check;
use crate::dial::Dial;
use crate::health::Target;

/// What servers see in their logs.
const USER_AGENT: &str = concat!("edgemesh-check/", env!("CARGO_PKG_VERSION"));
/// Longest answer to a gRPC check that is looked at: it has two bytes, and room.
const MAX_GRPC_ANSWER: usize = 1024;
/// `HealthCheckResponse { status: SERVING }`, framed.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// Probes once; the error is for people.
pub(super) async fn probe(dial: &Dial, target: &Target, timeout: Duration) -> Result<(), String> {
    let late = || format!("no answer within {} ms", timeout.as_millis());
    tokio::time::timeout(timeout, ask(dial, target, timeout)).await.map_err(|_| late())?
}

async fn ask(dial: &Dial, target: &Target, timeout: Duration) -> Result<(), String> {
    let stream = dial.tcp(target.address, timeout).await.map_err(explained)?;
    match &target.check {
        Check::Tcp => Ok(()),
        Check::Http(path) => http(stream, &target.address.to_string(), path).await,
        Check::Grpc(service) => grpc(stream, &target.address.to_string(), service).await,
    }
}

async fn http(stream: TcpStream, authority: &str, path: &str) -> Result<(), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(explained)?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(explained)?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // Driven side by side: when the connection ends first, what it read is still to be taken.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let status = answer.map_err(explained)?.status();
    match status.is_success() || status.is_redirection() {
        true => Ok(()),
        false => Err(format!("{path} answered {}", status.as_u16())),
    }
}

async fn grpc(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let (client, connection) = h2::client::handshake(stream).await.map_err(explained)?;
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::TE, "trailers")
        .body(())
        .map_err(explained)?;
    let question = question(service);
    let exchange = async {
        let mut client = client.ready().await?;
        let (answer, mut body) = client.send_request(request, false)?;
        body.send_data(question, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut data = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            if data.len() + chunk.len() <= MAX_GRPC_ANSWER {
                data.extend_from_slice(&chunk);
            }
        }
        let trailers = body.trailers().await?;
        Ok::<_, h2::Error>((head.status, head.headers, data, trailers))
    };
    let mut exchange = std::pin::pin!(exchange);
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    };
    let (status, headers, data, trailers) = answer.map_err(explained)?;
    judge(status, &headers, &data, trailers.as_ref())
}

/// `HealthCheckRequest { service }`, framed.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a); // field 1, length-delimited
        let mut length = service.len(); // bounded by `Check`
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    data: &[u8],
    trailers: Option<&HeaderMap>,
) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("answered {}, as no gRPC server does", status.as_u16()));
    }
    let code = trailers.unwrap_or(headers).get("grpc-status").and_then(|code| code.to_str().ok());
    match code {
        Some("0") if data == SERVING => Ok(()),
        Some("0") => Err("grpc.health.v1 says it is not serving".into()),
        Some("12") => Err("has no grpc.health.v1 (UNIMPLEMENTED); check tcp instead".into()),
        Some("5") => Err("grpc.health.v1 knows no such service".into()),
        Some(code) => Err(format!("grpc.health.v1 answered status {code}")),
        None => Err("the answer has no gRPC status".into()),
    }
}

fn explained(error: impl std::error::Error) -> String {
    let level = |error: &dyn Display| error.to_string();
    let (mut text, mut source) = (level(&error), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {}", level(&cause));
        source = cause.source();
    }
    text
}
