//! One HTTP/1 exchange: a captured client, the mesh and a Backend, over loopback.
//!
//! The kernel must lead what goes to the first Service to [`LISTEN`]: `benches/counts/run.py` has
//! a namespace for it. Client and Backend know what comes and look at no more than its end, so
//! that what is counted is nearly all the mesh's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use edgemesh_benches::{PORT, address, world};
use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::io::now;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::{Folders, Mesh, Options};
use edgemesh_core::snapshot::{Builder, Change};
use edgemesh_proto::record::{BalancePolicy, Body, NodeName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// Where captured connections come.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
const REQUEST: &[u8] = b"GET /api/v1/items?limit=20 HTTP/1.1\r\nHost: service-00000.team-000\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\nAccept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\nX-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\
    Date: Mon, 30 Nov 2026 12:02:20 GMT\r\n\r\n{\"hello\":1}\r\n";
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";
const END_OF_ANSWER: &[u8] = b"{\"hello\":1}\r\n";
/// A request or an answer, with what the mesh adds.
const LONGEST: usize = 4096;
/// The node of the only Backend.
const NODE: &str = "edge-0";

/// Requests on one connection, each after the answer to the last.
pub(crate) fn http1(times: u64) -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("edgemesh-counted-{}", std::process::id()));
    let done = crate::block_on(async {
        let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let tasks = TaskTracker::new();
        let mut mesh = Mesh::open(options(&folder)).map_err(io::Error::other)?;
        let mut builder = Builder::new(NodeName(NODE.into()), None);
        mesh.live().store(builder.apply(records(backend.local_addr()?), now()));
        mesh.listen(vec![Listener::bind(LISTEN).map_err(io::Error::other)?]);
        tasks.spawn(answer(backend));
        ask(times).await
    });
    let removed = std::fs::remove_dir_all(folder);
    done.and(removed)
}

async fn ask(times: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect((address(0), PORT)).await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; LONGEST];
    for _ in 0..times {
        stream.write_all(REQUEST).await?;
        if !read_to(END_OF_ANSWER, &mut stream, &mut buffer).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn answer(listener: TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; LONGEST];
    while read_to(END_OF_REQUEST, &mut stream, &mut buffer).await? {
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}

/// Reads until what was read ends with `end`; false = the other side was done before.
async fn read_to(end: &[u8], stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while !buffer[..filled].ends_with(end) {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(false),
            n => filled += n,
        }
    }
    Ok(true)
}

/// One Service, whose only Backend is at `backend`.
fn records(backend: SocketAddr) -> Change {
    let mut change = world(1, 1, BalancePolicy::RoundRobin);
    for record in &mut change.put {
        if let Body::Slice(slice) = &mut record.body {
            slice.backends[0].addresses = vec![backend.ip()];
            slice.ports[0].port = NonZeroU16::new(backend.port()).unwrap_or(NonZeroU16::MIN);
        }
    }
    change
}

fn options(folder: &std::path::Path) -> Options {
    Options {
        node: NodeName(NODE.into()),
        zone: None,
        data_dir: folder.to_owned(),
        folders: Folders::default(),
        supply: None,
        is_linked: false,
        is_synced: false,
        virtual_range: Vec::new(),
        domain: "cluster.local".into(),
        dial: Dial::default(),
        access_log: AccessLog::Errors,
        max_connections: 8,
        lanes: 0,
    }
}
