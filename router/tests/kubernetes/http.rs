//! A server of raw answers: what stands on the wire is the test's business.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) body: Vec<u8>,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }
}

/// Answers one request on a connection, which is closed then.
pub(crate) trait Serve: Send + Sync + 'static {
    fn serve(
        self: Arc<Self>,
        asked: Asked,
        out: TcpStream,
    ) -> impl Future<Output = std::io::Result<()>> + Send;
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(serve: Arc<impl Serve>) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), serve).await
    }

    pub(crate) async fn at(address: SocketAddr, serve: Arc<impl Serve>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let serve = serve.clone();
                connections.spawn(async move {
                    let mut reader = BufReader::new(stream);
                    let Some(asked) = read(&mut reader).await else { return };
                    // A client that has left is no failure of the test.
                    serve.serve(asked, reader.into_inner()).await.ok();
                });
            }
        });
        Self { address, accepting }
    }

    /// Ends it, and all connections to it.
    pub(crate) async fn stop(mut self) {
        self.accepting.shutdown().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    reader.read_line(&mut first).await.ok()?;
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).await.ok()? > 2 {
        if let Some((_, value)) = line.to_lowercase().split_once("content-length:") {
            length = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    let (method, target) = first.split_once(' ')?;
    let target = target.split(' ').next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| -> Option<(String, String)> {
        let (key, value) = pair.split_once('=')?;
        Some((key.into(), value.replace("%3D", "=").replace("%2F", "/")))
    };
    let query = query.split('&').filter_map(pair).collect();
    Some(Asked { method: method.into(), body, path: path.into(), query })
}

/// A whole answer.
pub(crate) async fn answer(
    out: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    out.write_all(head.as_bytes()).await?;
    out.write_all(body).await
}

/// The head of an answer whose length nobody knows yet.
pub(crate) async fn begin_chunks(out: &mut TcpStream) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
                connection: close\r\n\r\n";
    out.write_all(head.as_bytes()).await
}

pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend(bytes);
    chunk.extend(b"\r\n");
    chunk
}
