//! An HTTP/1.1 backend that remembers what it was asked and can misbehave on demand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use crate::world::listen;

/// Paths that the backend knows; all others answer with its name.
///
/// * `/head`: the head of the request as it came
/// * `/echo`: the body, chunked, with the trailer `x-length` and those of the request
/// * `/status/N`: that status, with no body; `?rest=SECONDS` adds Retry-After, `?rest-of=NAME` only
///   at the backend of that name, while others answer as usual
/// * `/wait`: says nothing
/// * `/half`: half of an answer, then says nothing
/// * `/reset`: breaks the connection
/// * `/refuse`: 417, without reading the body
/// * `/upgrade`: 101, then an echo of the bytes
/// * `/both`: an answer that is chunked and says a shorter length
#[derive(Debug, Default)]
pub(crate) struct Backend {
    name: String,
    /// Connections that were accepted.
    pub(crate) connections: AtomicU64,
    /// Requests that were read.
    pub(crate) requests: AtomicU64,
    /// While set, every answer is 503.
    pub(crate) ill: AtomicBool,
    /// While set, connections are reset when they are accepted.
    pub(crate) gone: AtomicBool,
    heads: Mutex<Vec<String>>,
}

impl Backend {
    /// Listens at both addresses until the test ends.
    pub(crate) fn start(netns: &'static str, name: &str, ips: [&str; 2], port: u16) -> Arc<Self> {
        let backend = Arc::new(Self { name: name.into(), ..Self::default() });
        for at in [format!("{}:{port}", ips[0]), format!("[{}]:{port}", ips[1])] {
            let (listener, backend) = (listen(netns, &at), backend.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let backend = backend.clone();
                    stream.set_nodelay(true).ok();
                    backend.connections.fetch_add(1, SeqCst);
                    std::thread::spawn(move || backend.converse(&stream));
                }
            });
        }
        backend
    }

    /// The head of the last request.
    pub(crate) fn last_head(&self) -> String {
        self.heads.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Connections and requests so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.connections.load(SeqCst), self.requests.load(SeqCst))
    }

    fn converse(&self, stream: &TcpStream) {
        if self.gone.load(SeqCst) {
            return reset(stream);
        }
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader) {
            self.requests.fetch_add(1, SeqCst);
            self.heads.lock().unwrap().push(head.clone());
            if self.answer(&head, &mut reader, stream).is_none() {
                return;
            }
        }
    }

    /// Answers one request; `None` ends the connection.
    fn answer(
        &self,
        head: &str,
        reader: &mut BufReader<&TcpStream>,
        mut stream: &TcpStream,
    ) -> Option<()> {
        let mut words = head.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let path = target.split('?').next()?;
        if path == "/refuse" {
            write!(stream, "HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .ok()?;
            return None;
        }
        if header(head, "expect").is_some() {
            write!(stream, "HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        let (body, trailers) = read_body(head, reader)?;
        if self.ill.load(SeqCst) {
            return write!(stream, "HTTP/1.1 503 Ill\r\nContent-Length: 4\r\n\r\nill\n").ok();
        }
        match path {
            "/head" => whole(stream, head.as_bytes()),
            "/echo" => chunked(stream, &body, &trailers),
            "/wait" => hold(reader),
            "/half" => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.").ok()?;
                hold(reader)
            }
            "/reset" => {
                reset(stream);
                None
            }
            "/both" => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
                write!(stream, "{head}b\r\nhello world\r\n0\r\n\r\n").ok()
            }
            "/upgrade" => upgraded(head, reader, stream),
            _ if target.contains("rest-of=") && !target.ends_with(&self.name) => {
                whole(stream, self.name.as_bytes())
            }
            _ => match path.strip_prefix("/status/") {
                Some("204") => write!(stream, "HTTP/1.1 204 No Content\r\n\r\n").ok(),
                Some(status) => {
                    let rest =
                        target.split_once("rest=").and_then(|(_, rest)| rest.split('&').next());
                    let rest =
                        rest.map(|rest| format!("Retry-After: {rest}\r\n")).unwrap_or_default();
                    write!(stream, "HTTP/1.1 {status} So\r\n{rest}Content-Length: 0\r\n\r\n").ok()
                }
                None if method == "HEAD" => {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4321\r\n\r\n").ok()
                }
                None => whole(stream, self.name.as_bytes()),
            },
        }
    }
}

fn whole(mut stream: &TcpStream, body: &[u8]) -> Option<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
    stream.write_all(body).ok()
}

fn chunked(mut stream: &TcpStream, body: &[u8], trailers: &str) -> Option<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-length, x-sent\r\n\r\n"
    )
    .ok()?;
    for piece in body.chunks(7000) {
        write!(stream, "{:x}\r\n", piece.len()).ok()?;
        stream.write_all(piece).ok()?;
        write!(stream, "\r\n").ok()?;
    }
    write!(stream, "0\r\nx-length: {}\r\n{trailers}\r\n", body.len()).ok()
}

/// Waits for the client to go away.
fn hold(reader: &mut BufReader<&TcpStream>) -> Option<()> {
    std::io::copy(reader, &mut std::io::sink()).ok();
    None
}

fn upgraded(head: &str, reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> Option<()> {
    let protocol = header(head, "upgrade")?;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ";
    write!(stream, "{answer}{protocol}\r\n\r\n").ok()?;
    std::io::copy(reader, &mut stream).ok();
    stream.shutdown(Shutdown::Write).ok();
    None
}

/// Makes the close of `stream` a reset.
pub(crate) fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One head, `None` at the end of the connection.
pub(crate) fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head.len() - before <= 2 {
            return Some(head);
        }
    }
}

/// The value of a header.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Body and trailers (as lines).
pub(crate) fn read_body(head: &str, reader: &mut impl BufRead) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding") != Some("chunked") {
        let length = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
        reader.take(length).read_to_end(&mut body).ok()?;
        return Some((body, String::new()));
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.trim(), 16).ok()?;
        if size == 0 {
            break;
        }
        reader.by_ref().take(size).read_to_end(&mut body).ok()?;
        reader.read_line(&mut String::new()).ok()?;
    }
    let trailers = read_head(reader)?;
    Some((
        body,
        trailers.trim_end_matches("\r\n").lines().map(|line| format!("{line}\r\n")).collect(),
    ))
}
