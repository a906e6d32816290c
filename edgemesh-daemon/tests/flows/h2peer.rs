//! HTTP/2 peers that can do what well-behaved libraries do not: reset, go away, hold back.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::world::listen;

/// One stream of a backend.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request<RecvStream>,
    pub(crate) answer: SendResponse<Bytes>,
}

/// One answer as a client has it.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// How it was broken off.
    pub(crate) reset: Option<h2::Reason>,
}

impl Answered {
    /// How a gRPC call ended.
    pub(crate) fn grpc_status(&self) -> Option<&str> {
        let said = self.headers.get("grpc-status");
        said.or_else(|| self.trailers.get("grpc-status")).map(|status| status.to_str().unwrap())
    }
}

/// Starts `task` in the test's runtime, with which it ends.
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(task)
}

/// Where clients and backends of a test run.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A backend at `at` that serves each stream with `behave`, until the runtime ends.
pub(crate) fn serve<F, S>(runtime: &Runtime, at: &str, behave: S)
where
    S: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    serve_on(runtime, listen("", at), behave);
}

/// As [`serve`], on a listener that may be anywhere.
pub(crate) fn serve_on<F, S>(runtime: &Runtime, listener: std::net::TcpListener, behave: S)
where
    S: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let behave = Arc::new(behave);
    listener.set_nonblocking(true).unwrap();
    let _in = runtime.enter();
    let listener = TcpListener::from_std(listener).unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let behave = behave.clone();
            spawn(async move {
                stream.set_nodelay(true).ok();
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, answer))) = connection.accept().await {
                    spawn(behave(Asked { request, answer }));
                }
            });
        }
    });
}

/// A client's connection to `at`.
pub(crate) async fn connect(at: &str) -> SendRequest<Bytes> {
    shake_hands(TcpStream::connect(at).await.unwrap()).await
}

/// A client's connection over `stream`.
pub(crate) async fn shake_hands(stream: TcpStream) -> SendRequest<Bytes> {
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    spawn(connection);
    sender.ready().await.unwrap()
}

/// A gRPC request.
pub(crate) fn grpc(at: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://{at}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Sends `request` with `body` and waits for the whole answer.
pub(crate) async fn ask(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: Vec<Bytes>,
) -> Answered {
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(request, body.is_empty()).unwrap();
    let last = body.len().saturating_sub(1);
    for (number, piece) in body.into_iter().enumerate() {
        if !push(&mut stream, piece, number == last).await {
            break;
        }
    }
    answered(response.await).await
}

/// Reads an answer to its end.
pub(crate) async fn answered(response: Result<Response<RecvStream>, h2::Error>) -> Answered {
    let response = match response {
        Ok(response) => response,
        Err(error) => return Answered { reset: error.reason(), ..Answered::default() },
    };
    let (head, mut stream) = response.into_parts();
    let mut answered =
        Answered { status: head.status.as_u16(), headers: head.headers, ..Answered::default() };
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                stream.flow_control().release_capacity(data.len()).unwrap();
                answered.body.extend_from_slice(&data);
            }
            Err(error) => {
                answered.reset = error.reason();
                return answered;
            }
        }
    }
    match stream.trailers().await {
        Ok(trailers) => answered.trailers = trailers.unwrap_or_default(),
        Err(error) => answered.reset = error.reason(),
    }
    answered
}

/// Sends all of `data` as the peer has room for it; whether it went.
pub(crate) async fn push(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool) -> bool {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return false;
        };
        let piece = data.split_to(room.min(data.len()));
        if stream.send_data(piece, last && data.is_empty()).is_err() {
            return false;
        }
    }
    true
}

/// Reads a request's body, as far as it comes.
pub(crate) async fn read(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body)
}
