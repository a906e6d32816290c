//! A server, upstreams that play a script, and a client, all on loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::answer::Domain;
use crate::dns::bind::{Sockets, bind};
use crate::dns::names::{Named, Names};
use crate::dns::reply::Transport;
use crate::dns::resolv::Upstreams;
use crate::dns::sample::respond;
use crate::dns::server::{Counters, Server};
use crate::dns::upstream::{Connect, Forwarder, Unmarked};

/// Messages that an upstream sends back for a query.
pub(super) type Script = fn(&[u8], Transport) -> Vec<Vec<u8>>;

/// What [`tell`] says about [`good`].
pub(super) const GOOD: &str = "0 192.0.2.0";

pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) server: Arc<Server>,
    pub(super) counters: Arc<Counters>,
    /// No socket towards an upstream can be made any more.
    pub(super) cut: Arc<AtomicBool>,
    asked: Arc<[AtomicUsize; 2]>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// `web.default` has an address, `shop.default` stands for `shop.example.com`.
struct Known;

impl Names for Known {
    fn service(&self, namespace: &str, name: &str) -> Option<Named> {
        match (namespace, name) {
            ("default", "web") => Some(Named::Addresses(vec![IpAddr::from([198, 18, 0, 7])])),
            ("default", "shop") => Some(Named::Alias("shop.example.com".into())),
            _ => None,
        }
    }
}

struct Cuttable(Arc<AtomicBool>);

impl Cuttable {
    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        Ok(())
    }
}

impl Connect for Cuttable {
    fn udp(&self, upstream: SocketAddr) -> io::Result<UdpSocket> {
        self.check().and_then(|()| Unmarked.udp(upstream))
    }

    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket> {
        self.check().and_then(|()| Unmarked.tcp(upstream))
    }
}

impl World {
    pub(super) async fn new(scripts: &[Script]) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let asked: Arc<[AtomicUsize; 2]> = Arc::default();
        let mut list = Vec::new();
        for script in scripts {
            let sockets = loopback().await;
            list.push(sockets.address().unwrap());
            let play = play(sockets, *script, Arc::clone(&asked));
            tasks.spawn(stop.clone().run_until_cancelled_owned(play));
        }
        let cut = Arc::new(AtomicBool::new(false));
        let connect = Arc::new(Cuttable(Arc::clone(&cut)));
        let forwarder = Forwarder::new(Arc::new(Upstreams::new(list)), connect);
        let domain = Domain::new("cluster.local").unwrap();
        let server = Server::new(domain, Arc::new(Known), forwarder);
        let sockets = loopback().await;
        let address = sockets.address().unwrap();
        server.serve(sockets, &tasks, &stop);
        let counters = server.counters();
        Self { address, server, counters, cut, asked, tasks, stop }
    }

    /// The reply to one query by UDP.
    pub(super) async fn udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(query).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    /// How often upstreams were asked by UDP and by TCP.
    pub(super) fn asked(&self) -> [usize; 2] {
        [0, 1].map(|i| self.asked[i].load(Ordering::Relaxed))
    }

    /// Stops everything; returns when every task has ended.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn loopback() -> Sockets {
    bind("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

async fn play(sockets: Sockets, script: Script, asked: Arc<[AtomicUsize; 2]>) {
    let Sockets { udp, tcp } = sockets;
    let by_udp = async {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            asked[0].fetch_add(1, Ordering::Relaxed);
            for reply in script(&buffer[..length], Transport::Udp) {
                let _ = udp.send_to(&reply, client).await;
            }
        }
    };
    let by_tcp = async {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let query = read_frame(&mut stream).await;
            asked[1].fetch_add(1, Ordering::Relaxed);
            for reply in script(&query, Transport::Tcp) {
                let _ = stream.write_all(&framed(&reply)).await;
            }
        }
    };
    tokio::join!(by_udp, by_tcp);
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

pub(super) async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

pub(super) fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, next) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        found.push(message.to_vec());
        bytes = next;
    }
    found
}

pub(super) fn good(query: &[u8]) -> Vec<u8> {
    answers(query, 60, 1)
}

/// So many addresses, from 192.0.2.0 up.
pub(super) fn answers(query: &[u8], ttl: u32, count: u8) -> Vec<u8> {
    let addresses: Vec<_> = (0..count).map(|i| (ttl, Ipv4Addr::new(192, 0, 2, i))).collect();
    respond(query, 0, &addresses, None)
}

pub(super) fn absent(query: &[u8]) -> Vec<u8> {
    respond(query, 3, &[], Some((900, 900)))
}

pub(super) fn code(query: &[u8], code: u8) -> Vec<u8> {
    respond(query, code, &[], None)
}

/// Code, truncation and addresses of a reply, in a line; checks the id.
pub(super) fn tell(reply: &[u8], id: u16) -> String {
    assert_eq!(reply[..2], id.to_be_bytes());
    let packet = simple_dns::Packet::parse(reply).unwrap();
    let mut words = vec![(reply[3] & 0x0f).to_string()];
    if reply[2] & 0x02 != 0 {
        words.push("truncated".into());
    }
    for record in &packet.answers {
        match &record.rdata {
            simple_dns::rdata::RData::A(a) => words.push(Ipv4Addr::from(a.address).to_string()),
            simple_dns::rdata::RData::CNAME(other) => words.push(other.0.to_string()),
            _ => {}
        }
    }
    words.join(" ")
}
