//! Load for the comparison with peers: what wrk and h2load cannot do, and the servers for it.
//!
//! Clients print one line of JSON: `calls`, `errors`, and latencies in microseconds.

mod cut;
mod fleet;
mod held;
mod latencies;
mod pingpong;
mod rate;
mod servers;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Load for `make bench-peers`
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: every byte comes back
    Echo { listen: SocketAddr },
    /// Serve: gRPC over HTTP/2 with prior knowledge, each message comes back
    Grpc { listen: SocketAddr },
    /// Serve: HTTP/1.1, bodies are read to their end and forgotten
    Sink { listen: SocketAddr },
    /// Send a message, wait until it is back, over and over, on each connection
    Pingpong {
        #[command(flatten)]
        load: Load,
        /// Messages a second, over all connections; as fast as it goes without
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Open HTTP/1.1 connections and cut them in the middle
    Cut {
        #[command(flatten)]
        load: Load,
        /// Connections a second
        #[arg(long)]
        rate: f64,
    },
    /// HTTP/1.1 at a fixed rate; latencies count from when a request was due
    Rate {
        #[command(flatten)]
        load: Load,
        /// Requests a second, over all connections
        #[arg(long)]
        rate: f64,
    },
    /// Be many agents of a hub: join, decode, acknowledge
    Fleet {
        /// host:port of the hub
        server: String,
        /// File with a join token
        token: PathBuf,
        #[arg(long, default_value_t = 100)]
        agents: usize,
        #[arg(long, default_value = "10")]
        seconds: f64,
    },
    /// Serve zeros over one plain TLS connection; write the certificate to a file
    TlsServe { listen: SocketAddr, file: PathBuf },
    /// Read so many bytes from `tls-serve`
    TlsFetch {
        to: SocketAddr,
        file: PathBuf,
        #[arg(long)]
        bytes: u64,
    },
    /// Open connections, send one HTTP request on each, then hold them until standard input ends
    Hold {
        to: SocketAddr,
        #[arg(long)]
        connections: usize,
    },
}

/// What all loads have.
#[derive(Clone, Debug, Args)]
struct Load {
    /// Where
    to: SocketAddr,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value = "3")]
    seconds: f64,
    /// Size of a message
    #[arg(long, default_value_t = 64)]
    bytes: usize,
}

impl Load {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Echo { listen } => servers::echo(listen).await,
            Command::Grpc { listen } => servers::grpc(listen).await,
            Command::Sink { listen } => servers::sink(listen).await,
            Command::Pingpong { load, rate } => pingpong::run(&load, rate).await?.print(),
            Command::Cut { load, rate } => cut::run(&load, rate).await?.print(),
            Command::Rate { load, rate } => rate::run(&load, rate).await?.print(),
            Command::Fleet { server, token, agents, seconds } => {
                fleet::run(&server, &token, agents, Duration::from_secs_f64(seconds)).await
            }
            Command::TlsServe { listen, file } => tls::serve(listen, &file).await,
            Command::TlsFetch { to, file, bytes } => tls::fetch(to, &file, bytes).await,
            Command::Hold { to, connections } => held::run(to, connections).await,
        }
    })
}
