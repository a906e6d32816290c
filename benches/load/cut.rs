//! Connections that are cut in the middle, at a fixed rate, each kind of cut in turn.

use std::io;
use std::time::Duration;

use edgemesh_core::io::now;
use edgemesh_core::listen::reset_on_close;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Load;
use crate::latencies::Seen;

/// What is said before the cut, how much of an answer is read, and whether the cut is a reset.
const CUTS: &[(&[u8], usize, bool)] = &[
    (b"", 0, false),
    (b"", 0, true),
    (b"GET /8m HTTP/1.1\r\nHost: ben", 0, false),
    (b"POST / HTTP/1.1\r\nHost: bench.default\r\nContent-Length: 100000\r\n\r\nhalf", 0, false),
    (b"GET /8m HTTP/1.1\r\nHost: bench.default\r\n\r\n", 0, true),
    (b"GET /8m HTTP/1.1\r\nHost: bench.default\r\n\r\n", 100_000, true),
    (b"GET /8m HTTP/1.1\r\nHost: bench.default\r\n\r\n", 100_000, false),
];
/// Longest life of one connection.
const LIFE: Duration = Duration::from_secs(5);

/// `load.connections` is of no account: there are as many as the rate asks for.
pub(crate) async fn run(load: &Load, rate: f64) -> io::Result<Seen> {
    let (mut all, mut seen) = (JoinSet::new(), Seen::default());
    let (mut due, end) = (now(), now() + load.time());
    let mut cuts = CUTS.iter().cycle();
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        due += Duration::from_secs_f64(1.0 / rate);
        if let Some((said, read, reset)) = cuts.next() {
            all.spawn(tokio::time::timeout(LIFE, one(load.to, said, *read, *reset)));
        }
        while let Some(ended) = all.try_join_next() {
            count(&mut seen, ended.is_ok_and(|in_time| in_time.is_ok_and(|done| done.is_ok())));
        }
    }
    while let Some(ended) = all.join_next().await {
        count(&mut seen, ended.is_ok_and(|in_time| in_time.is_ok_and(|done| done.is_ok())));
    }
    Ok(seen)
}

fn count(seen: &mut Seen, good: bool) {
    match good {
        true => seen.call(Duration::ZERO),
        false => seen.error(),
    }
}

async fn one(
    to: std::net::SocketAddr,
    said: &[u8],
    mut read: usize,
    reset: bool,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(said).await?;
    let mut buffer = vec![0; read];
    while read > 0 {
        match stream.read(&mut buffer[..read]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read -= n,
        }
    }
    if reset {
        reset_on_close(&stream);
    }
    Ok(())
}
