//! The PROXY protocol header, version 2 (haproxy.org, `proxy-protocol.txt`, §2.2): tells a Backend
//! who its client is. Written by hand, since all of it is one function of two addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What every header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and "on behalf of somebody".
const PROXIED: u8 = 0x21;
/// Version 2, and "on my own behalf", with no addresses.
const LOCAL: [u8; 4] = [0x20, 0, 0, 0];
/// Families, each with "stream".
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Says that `client` dialled `to`, before anything else is said on a new connection.
pub(super) async fn introduce(
    backend: &mut TcpStream,
    client: SocketAddr,
    to: SocketAddr,
) -> io::Result<()> {
    // It fits the empty buffer of a new socket, so this does not wait.
    backend.write_all(&header(client, to)).await
}

/// The header. Where the families differ, both addresses are written as IPv6 ones. A client without
/// an address is the application that the mesh is a part of.
fn header(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    if client.ip().is_unspecified() {
        header.extend_from_slice(&LOCAL);
        return header;
    }
    header.push(PROXIED);
    let (family, mut addresses) = match (client.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(to)) => (TCP4, [client.octets(), to.octets()].concat()),
        (client, to) => (TCP6, [wide(client), wide(to)].concat()),
    };
    for port in [client.port(), to.port()] {
        addresses.extend_from_slice(&port.to_be_bytes());
    }
    header.push(family);
    header.extend_from_slice(&(addresses.len() as u16).to_be_bytes());
    header.extend_from_slice(&addresses);
    header
}

fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers() {
        let mapped = "0000000000000000 0000ffff0a010002";
        let rows = [
            ("10.1.0.2:4000", "10.96.0.1:80", "11 000c 0a010002 0a600001 0fa0 0050".to_owned()),
            ("[::ffff:10.1.0.2]:4000", "10.96.0.1:80", "11 000c 0a010002 0a600001 0fa0 0050".into()),
            (
                "[fd01::2]:1",
                "[fd96::3]:65535",
                "21 0024 fd01000000000000 0000000000000002 fd96000000000000 0000000000000003 0001 ffff"
                    .into(),
            ),
            (
                "10.1.0.2:4000",
                "[fd96::3]:80",
                format!("21 0024 {mapped} fd96000000000000 0000000000000003 0fa0 0050"),
            ),
        ];
        let own = header("0.0.0.0:0".parse().unwrap(), "10.1.0.1:80".parse().unwrap());
        assert_eq!(own, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        for (client, to, want) in rows {
            let header = header(client.parse().unwrap(), to.parse().unwrap());
            let (front, rest) = header.split_at(13);
            assert_eq!(front, b"\r\n\r\n\0\r\nQUIT\n\x21");
            let hex: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, want.replace(' ', ""), "{client} {to}");
        }
    }

    /// Reads a header as its receiver does.
    fn read(header: &[u8]) -> [SocketAddr; 2] {
        let (family, rest) = (header[13], &header[16..]);
        assert_eq!(usize::from(u16::from_be_bytes([header[14], header[15]])), rest.len());
        let width = if family == TCP4 { 4 } else { 16 };
        let address = |at: usize| match &rest[at * width..(at + 1) * width] {
            v4 if width == 4 => IpAddr::from(<[u8; 4]>::try_from(v4).unwrap()),
            v6 => IpAddr::from(<[u8; 16]>::try_from(v6).unwrap()),
        };
        let port = |at: usize| {
            u16::from_be_bytes([rest[2 * width + 2 * at], rest[2 * width + 2 * at + 1]])
        };
        [0, 1].map(|at| SocketAddr::new(address(at).to_canonical(), port(at)))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(client: SocketAddr, to: SocketAddr) {
            prop_assume!(!client.ip().is_unspecified());
            let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
            prop_assert_eq!(read(&header(client, to)), [plain(client), plain(to)]);
        }
    }
}
