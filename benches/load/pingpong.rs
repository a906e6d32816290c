//! Small messages there and back on connections of bytes: one after the other, or at a fixed rate.

use std::io;
use std::time::{Duration, Instant};

use edgemesh_core::io::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Load;
use crate::latencies::Seen;

/// `rate` is of all connections together; with one, latencies count from when a message was due.
pub(crate) async fn run(load: &Load, rate: Option<f64>) -> io::Result<Seen> {
    let mut all = JoinSet::new();
    let gap = rate.map(|rate| Duration::from_secs_f64(load.connections as f64 / rate));
    for index in 0..load.connections {
        let stream = TcpStream::connect(load.to).await?;
        stream.set_nodelay(true)?;
        // One after the other, and not all at once.
        let late = gap.map(|gap| gap.mul_f64(index as f64 / load.connections as f64));
        all.spawn(connection(stream, load.clone(), gap, now() + late.unwrap_or_default()));
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

async fn connection(
    mut stream: TcpStream,
    load: Load,
    gap: Option<Duration>,
    mut due: Instant,
) -> Seen {
    let (mut seen, mut message) = (Seen::default(), vec![0; load.bytes]);
    let end = now() + load.time();
    loop {
        let began = begin(&mut due, gap).await;
        if began >= end {
            return seen;
        }
        let sent = stream.write_all(&message).await;
        match sent.and(stream.read_exact(&mut message).await) {
            Ok(_) => seen.call(now() - began),
            Err(_) => {
                seen.error();
                return seen;
            }
        }
    }
}

/// When the next message counts as sent: now, or when it is due.
async fn begin(due: &mut Instant, gap: Option<Duration>) -> Instant {
    let Some(gap) = gap else { return now() };
    let this = *due;
    *due += gap;
    tokio::time::sleep_until(this.into()).await;
    this
}
