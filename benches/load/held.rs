//! Connections that are held open and say nothing.

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::rate::exchange;

/// A buffer for one answer.
const ANSWER: usize = 16 * 1024;

pub(crate) async fn run(to: SocketAddr, connections: usize) -> io::Result<()> {
    let (mut held, mut buffer) = (Vec::with_capacity(connections), vec![0; ANSWER]);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(to).await?;
        exchange(&mut stream, &mut buffer).await?;
        held.push(stream);
    }
    writeln!(io::stdout(), "{}", serde_json::json!({ "held": held.len() }))?;
    // Whoever started us says when it is enough.
    let ended = tokio::task::spawn_blocking(|| io::read_to_string(io::stdin()));
    ended.await?.map(drop)
}
