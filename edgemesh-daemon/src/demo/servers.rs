//! Built-in servers: Backends of HTTP and gRPC that say who they are, redis' PING, and one that
//! speaks before it is spoken to.

use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::demo::grpc;
use crate::demo::world::Place;
use crate::demo::world::World;

/// Last bytes of the addresses that the serving pod has beside its own.
pub(crate) const ADDRESSES: std::ops::RangeInclusive<u8> = 11..=42;
/// Where each kind listens.
pub(crate) const HTTP: u16 = 8080;
pub(crate) const GRPC: u16 = 50051;
pub(crate) const GREETER: u16 = 3306;
/// What the built-in server-first server says.
pub(crate) const BANNER: &str = "220 demo.edgemesh speaks first\r\n";

/// One Backend.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// What it answers.
    pub(crate) name: String,
    /// Where it listens; more than one where it has IPv6.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Set, it answers 503 to everything.
    pub(crate) fails: Arc<AtomicBool>,
}

/// What a Backend speaks.
#[derive(Clone, Copy, Debug)]
enum Speaks {
    Http,
    Grpc,
    Resp,
    Banner,
}

/// Where a Backend listens.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    place: Place,
    addresses: &'a [IpAddr],
    port: u16,
}

/// HTTP/1.1 Backends `NAME-1`, `NAME-2`, …, the first at the pod's address `first`.
pub(crate) fn http(
    world: &World,
    name: &str,
    first: u8,
    count: u8,
    ipv6: bool,
) -> anyhow::Result<Vec<Backend>> {
    (0..count)
        .map(|i| {
            let at = first + i;
            let addresses = std::iter::once(world.address(at));
            let addresses: Vec<_> = addresses.chain(world.address6(at).filter(|_| ipv6)).collect();
            let spot = Spot { place: Place::Apps, addresses: &addresses, port: HTTP };
            serve(world, Speaks::Http, &format!("{name}-{}", i + 1), spot)
        })
        .collect()
}

/// gRPC Backends.
pub(crate) fn grpc(
    world: &World,
    name: &str,
    first: u8,
    count: u8,
) -> anyhow::Result<Vec<Backend>> {
    let one = |i| {
        let name = format!("{name}-{}", i + 1);
        let addresses = &[world.address(first + i)];
        serve(world, Speaks::Grpc, &name, Spot { place: Place::Apps, addresses, port: GRPC })
    };
    (0..count).map(one).collect()
}

/// What stands for redis.
pub(crate) fn resp(world: &World, at: IpAddr) -> anyhow::Result<Backend> {
    let spot = Spot { place: Place::Apps, addresses: &[at], port: 6379 };
    serve(world, Speaks::Resp, "built-in redis", spot)
}

/// What stands for a database that greets.
pub(crate) fn banner(world: &World, at: IpAddr) -> anyhow::Result<Backend> {
    let spot = Spot { place: Place::Apps, addresses: &[at], port: GREETER };
    serve(world, Speaks::Banner, "built-in greeter", spot)
}

/// One of each on a machine: who speaks HTTP and gRPC says that it is `name`.
pub(crate) fn on(world: &World, place: Place, at: IpAddr, name: &str) -> anyhow::Result<()> {
    for (speaks, port) in [(Speaks::Http, HTTP), (Speaks::Grpc, GRPC), (Speaks::Banner, GREETER)] {
        serve(world, speaks, name, Spot { place, addresses: &[at], port })?;
    }
    Ok(())
}

/// An HTTP server that keeps the bodies that it gets.
pub(crate) fn inbox(
    world: &World,
    place: Place,
    at: SocketAddr,
) -> anyhow::Result<Arc<Mutex<Vec<String>>>> {
    let got = Arc::<Mutex<Vec<String>>>::default();
    let listener = world.within(place, || {
        let listener = TcpListener::bind(at).with_context(|| format!("an inbox at {at}"))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    let _inside = world.runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let all = got.clone();
    world.runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let all = all.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let all = all.clone();
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    all.lock().push(String::from_utf8_lossy(&body).into_owned());
                    Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
                }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::runtime::Handle::current().spawn(connection);
        }
    });
    Ok(got)
}

fn serve(world: &World, speaks: Speaks, name: &str, spot: Spot<'_>) -> anyhow::Result<Backend> {
    let fails = Arc::new(AtomicBool::new(false));
    let mut backend = Backend { name: name.into(), addresses: Vec::new(), fails: fails.clone() };
    for address in spot.addresses {
        let at = SocketAddr::new(*address, world.port(spot.port));
        let listener = world.within(spot.place, || {
            let listener = TcpListener::bind(at).with_context(|| format!("{name} at {at}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        backend.addresses.push(listener.local_addr()?);
        let _inside = world.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let name: Arc<str> = name.into();
        let fails = fails.clone();
        world.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A refusal would only delay small answers.
                let _ = stream.set_nodelay(true);
                let connection = connection(speaks, stream, name.clone(), fails.clone());
                tokio::runtime::Handle::current().spawn(connection);
            }
        });
    }
    Ok(backend)
}

async fn connection(speaks: Speaks, stream: TcpStream, name: Arc<str>, fails: Arc<AtomicBool>) {
    // An error here is a client that went away.
    match speaks {
        Speaks::Http => {
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = answer(&name, fails.load(Ordering::Relaxed));
                async move { Ok::<_, Infallible>(answer) }
            });
            let builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
        Speaks::Grpc => grpc::serve(stream, name).await,
        Speaks::Resp => drop(pong(stream).await),
        Speaks::Banner => drop(greet(stream).await),
    }
}

fn answer(name: &str, fails: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{name}\n"))));
    if fails {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Answers each PING, in whatever pieces it comes.
async fn pong(mut stream: TcpStream) -> std::io::Result<()> {
    let mut heard = Vec::new();
    let mut piece = [0; 512];
    loop {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        heard.extend_from_slice(&piece[..length]);
        if heard.windows(6).any(|words| words.eq_ignore_ascii_case(b"PING\r\n")) {
            heard.clear();
            stream.write_all(b"+PONG\r\n").await?;
        }
    }
}

async fn greet(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(BANNER.as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}
