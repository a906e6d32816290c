//! A closed loop of small messages on connections of bytes.

use std::io;

use edgemesh_core::io::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Load;
use crate::latencies::Seen;

pub(crate) async fn run(load: &Load) -> io::Result<Seen> {
    let mut all = JoinSet::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.to).await?;
        stream.set_nodelay(true)?;
        all.spawn(connection(stream, load.clone()));
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

async fn connection(mut stream: TcpStream, load: Load) -> Seen {
    let (mut seen, mut message) = (Seen::default(), vec![0; load.bytes]);
    let end = now() + load.time();
    loop {
        let began = now();
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
