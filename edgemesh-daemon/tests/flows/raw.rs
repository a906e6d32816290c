//! Clients that say exactly the bytes they are told to.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::backend::{header, read_body, read_head};
use crate::common::namespace::within;

/// Longest wait for the mesh or a backend to say something.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that speaks HTTP/1, or nothing at all.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) reader: BufReader<TcpStream>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) trailers: String,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
    Open,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Raw {
    /// Connects from `netns` (empty: the node).
    #[track_caller]
    pub(crate) fn connect(netns: &str, to: &str) -> Self {
        Self::try_connect(netns, to).unwrap_or_else(|error| panic!("{to} from `{netns}`: {error}"))
    }

    /// As [`Raw::connect`], where it may fail.
    pub(crate) fn try_connect(netns: &str, to: &str) -> std::io::Result<Self> {
        let to = to.parse().unwrap();
        let stream = within(netns, move || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Connects, says `text` and gives all that comes back.
    #[track_caller]
    pub(crate) fn say(netns: &str, to: &str, text: &[u8]) -> (String, End) {
        Self::say_and(netns, to, text, false)
    }

    /// As [`Raw::say`], and half-closes the connection then.
    #[track_caller]
    pub(crate) fn say_all(netns: &str, to: &str, text: &[u8]) -> (String, End) {
        Self::say_and(netns, to, text, true)
    }

    #[track_caller]
    fn say_and(netns: &str, to: &str, text: &[u8], done: bool) -> (String, End) {
        match Self::try_connect(netns, to) {
            Ok(mut raw) => {
                raw.send(text);
                if done {
                    raw.stream().shutdown(std::net::Shutdown::Write).ok();
                }
                raw.rest()
            }
            // So quickly that not even the handshake was seen to end.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (String::new(), End::Reset),
            Err(error) => panic!("{to} from `{netns}`: {error}"),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// A write may meet a reset, which [`Raw::rest`] then tells.
    pub(crate) fn send(&mut self, text: &[u8]) {
        self.reader.get_mut().write_all(text).ok();
    }

    /// A GET on a kept connection.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: one.default\r\n\r\n").as_bytes());
        self.answer("GET")
    }

    /// The next answer to a request of `method`.
    #[track_caller]
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        let head = read_head(&mut self.reader).expect("an answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let (body, trailers) = if bodiless {
            Default::default()
        } else {
            read_body(&head, &mut self.reader).expect("a whole body")
        };
        Answer { status, body: String::from_utf8_lossy(&body).into_owned(), trailers, head }
    }

    /// Exactly as many bytes as `text` has; they must be the same.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &[u8]) {
        let mut got = vec![0; text.len()];
        self.reader.read_exact(&mut got).expect("it answers in time");
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(text));
    }

    /// All that still comes, and how it ended.
    pub(crate) fn rest(&mut self) -> (String, End) {
        let mut said = Vec::new();
        let mut buffer = [0; 65536];
        let end = loop {
            match self.reader.read(&mut buffer) {
                Ok(0) => break End::Closed,
                Ok(n) => said.extend_from_slice(&buffer[..n]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    break End::Open;
                }
                Err(_) => break End::Reset,
            }
        };
        (String::from_utf8_lossy(&said).into_owned(), end)
    }
}
