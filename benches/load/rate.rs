//! An open loop: requests are due at fixed times, whatever became of those before them.
//!
//! A latency counts from when its request was due, so that a stall shows in every request that
//! it held up (no coordinated omission).

use std::io;
use std::time::{Duration, Instant};

use edgemesh_core::io::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Load;
use crate::latencies::Seen;

pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.default\r\n\r\n";
/// Longest head and body of an answer.
const MAX_ANSWER: usize = 16 * 1024;

pub(crate) async fn run(load: &Load, rate: f64) -> io::Result<Seen> {
    let mut all = JoinSet::new();
    let gap = Duration::from_secs_f64(load.connections as f64 / rate);
    let mut streams = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.to).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let (start, end) = (now(), now() + load.time());
    for (index, stream) in (0..).zip(streams) {
        let first = start + gap * index / u32::try_from(load.connections).unwrap_or(u32::MAX);
        all.spawn(connection(stream, first, gap, end));
    }
    let mut seen = Seen::default();
    while let Some(ended) = all.join_next().await {
        match ended {
            Ok(of_one) => seen.add(of_one),
            Err(_) => seen.error(),
        }
    }
    Ok(seen)
}

async fn connection(mut stream: TcpStream, mut due: Instant, gap: Duration, end: Instant) -> Seen {
    let (mut seen, mut buffer) = (Seen::default(), vec![0; MAX_ANSWER]);
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        match exchange(&mut stream, &mut buffer).await {
            Ok(()) => seen.call(now() - due),
            Err(_) => {
                seen.error();
                return seen;
            }
        }
        due += gap;
    }
    seen
}

/// One request and its answer, which names its length.
pub(crate) async fn exchange(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(REQUEST).await?;
    let (mut filled, mut whole) = (0, None);
    while whole.is_none_or(|whole| filled < whole) {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if whole.is_none() {
            whole = length(&buffer[..filled]).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Length of the whole answer, once its head is there.
fn length(text: &[u8]) -> Result<Option<usize>, &'static str> {
    let text = String::from_utf8_lossy(text);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200") {
        return Err("not a 200");
    }
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let body = lengths.next().and_then(|(_, value)| value.trim().parse::<usize>().ok());
    Ok(Some(head.len() + 4 + body.ok_or("no length")?))
}
