//! Servers at the far end: an echo of bytes, and gRPC over HTTP/2 with prior knowledge.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What an echo reads at once.
const CHUNK: usize = 64 * 1024;

pub(crate) async fn echo(listen: SocketAddr) -> io::Result<()> {
    accept(listen, |mut stream| async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    })
    .await
}

pub(crate) async fn grpc(listen: SocketAddr) -> io::Result<()> {
    accept(listen, |stream| async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // A client that ends a connection in the middle is its own business.
        let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
    .await
}

pub(crate) async fn sink(listen: SocketAddr) -> io::Result<()> {
    accept(listen, |stream| async move {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service_fn(forget)).await;
    })
    .await
}

async fn forget(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

async fn accept<F>(listen: SocketAddr, serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    let mut all = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while all.try_join_next().is_some() {}
        all.spawn(serve(stream));
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let message = request.into_body().collect().await.map(|whole| whole.to_bytes());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message.unwrap_or_default());
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
    Ok(response)
}
