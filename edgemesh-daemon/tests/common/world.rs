//! A node with two pods and an uplink, in which everything that accepts says who it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::namespace::{sh, within};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5);
pub(crate) const MARK: u32 = 0x6d65;
pub(crate) const OWN: [&str; 2] = ["169.254.96.16", "fd00:6d65::16"];
pub(crate) const PROXY: u16 = 15001;
pub(crate) const DNS: u16 = 15053;

/// `pod`: a veth pair, its host side with addresses. `bare`: its host side with none, as Calico
/// makes them. The host serves 10.96.7.7 and fd96::77 itself, which are in the captured ranges.
pub(crate) fn pods() {
    sh("ip netns add pod; ip netns add bare
        ip link add pod0 type veth peer name eth0 netns pod
        ip addr add 10.1.0.1/24 dev pod0; ip addr add fd01::1/64 dev pod0 nodad; ip link set pod0 up
        ip -n pod addr add 10.1.0.2/24 dev eth0; ip -n pod addr add fd01::2/64 dev eth0 nodad
        ip -n pod link set eth0 up
        ip -n pod route add default via 10.1.0.1; ip -n pod route add default via fd01::1
        ip link add bare0 address 02:00:00:00:02:01 type veth peer name eth0 address 02:00:00:00:02:02 netns bare
        ip link set bare0 addrgenmode none; ip link set bare0 up
        ip route add 10.2.0.2 dev bare0; ip route add fd02::2 dev bare0
        ip neigh add 10.2.0.2 lladdr 02:00:00:00:02:02 dev bare0
        ip neigh add fd02::2 lladdr 02:00:00:00:02:02 dev bare0
        ip -n bare addr add 10.2.0.2/32 dev eth0; ip -n bare addr add fd02::2/128 dev eth0 nodad
        ip -n bare link set eth0 up
        ip -n bare route add 10.2.0.1 dev eth0; ip -n bare route add fd02::1 dev eth0
        ip -n bare neigh add 10.2.0.1 lladdr 02:00:00:00:02:01 dev eth0
        ip -n bare neigh add fd02::1 lladdr 02:00:00:00:02:01 dev eth0
        ip -n bare route add default via 10.2.0.1; ip -n bare route add default via fd02::1
        ip addr add 10.96.7.7/32 dev lo; ip addr add fd96::77/128 dev lo nodad");
    for ip in ["10.96.7.7", "fd96::77"] {
        announce("", ip, 80, |_| "real".into());
    }
}

/// `lan`: behind `up0`, which holds the default routes, and where all the real servers are.
pub(crate) fn uplink() {
    sh("ip netns add lan; ip link add up0 type veth peer name eth0 netns lan
        ip addr add 10.3.0.1/24 dev up0; ip addr add fd03::1/64 dev up0 nodad; ip link set up0 up
        ip -n lan addr add 10.3.0.2/24 dev eth0; ip -n lan addr add fd03::2/64 dev eth0 nodad
        ip -n lan link set eth0 up; ip -n lan link set lo up
        ip route add default via 10.3.0.2; ip route add default via fd03::2
        ip -n lan route add default via 10.3.0.1; ip -n lan route add default via fd03::1
        for a in 10.96.0.5 10.96.9.9 10.7.7.7 192.0.2.1; do ip -n lan addr add $a/32 dev lo; done
        for a in fd96::5 fd96::9:9 fd77::7 fd99::1; do ip -n lan addr add $a/128 dev lo; done");
    for ip in ["0.0.0.0", "::"] {
        for port in [22, 53, 80] {
            announce("lan", ip, port, |_| "real".into());
        }
    }
}

/// What stands for the agent: the proxy's listeners and the name server's.
pub(crate) fn agent() {
    for ip in ["127.0.0.1", "::1", OWN[0], OWN[1]] {
        announce("", ip, PROXY, |stream| format!("proxy {}", original(stream)));
        announce("", ip, DNS, |stream| format!("dns {}", original(stream)));
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), DNS)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(b"dns", from).unwrap();
            }
        });
    }
}

/// A listener that tells each client something, then echoes.
fn announce(netns: &str, ip: &str, port: u16, says: fn(&TcpStream) -> String) {
    let at: SocketAddr = (ip.parse::<IpAddr>().unwrap(), port).into();
    let listener = within(netns, move || listen(at));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let text = says(&stream);
            std::thread::spawn(move || {
                writeln!(stream, "{text}").unwrap();
                let mut copy = stream.try_clone().unwrap();
                std::io::copy(&mut stream, &mut copy).ok();
            });
        }
    });
}

fn listen(at: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&at.into()).unwrap_or_else(|error| panic!("{at}: {error}"));
    socket.listen(64).unwrap();
    socket.into()
}

fn original(stream: &TcpStream) -> String {
    let socket = SockRef::from(stream);
    let v4 = stream.local_addr().unwrap().is_ipv4();
    let original = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.unwrap().as_socket().unwrap().to_string()
}

/// Connects from `netns` (empty: the host) and gives what was said, or the kind of error.
pub(crate) fn reach(netns: &str, to: &str, mark: u32) -> String {
    match connect(netns, to, mark) {
        Ok(stream) => hear(&stream),
        Err(ErrorKind::NetworkUnreachable) => "unreachable".into(),
        Err(kind) => format!("{kind:?}"),
    }
}

/// An open connection.
pub(crate) fn connect(netns: &str, to: &str, mark: u32) -> Result<TcpStream, ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let connected = within(netns, move || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if mark != 0 {
            socket.set_mark(mark)?;
        }
        socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        std::io::Result::Ok(socket)
    });
    connected.map(TcpStream::from).map_err(|error| error.kind())
}

/// One line.
pub(crate) fn hear(mut stream: &TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).expect("it answers in time") == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Asks a name server by UDP from a connected socket, which hears only that server.
pub(crate) fn ask(netns: &str, server: &str) -> String {
    let server: SocketAddr = server.parse().unwrap();
    within(netns, move || {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 512];
        let answer = socket
            .connect(server)
            .and_then(|()| socket.send(b"?"))
            .and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) if error.kind() == ErrorKind::NetworkUnreachable => "unreachable".into(),
            Err(error) => format!("{:?}", error.kind()),
        }
    })
}
