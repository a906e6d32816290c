//! A backend that keeps every byte it is sent, and answers what it understands.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::backend::{read_body, read_head};
use crate::world::listen;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    /// Method and path.
    pub(crate) fn asked(&self) -> String {
        self.head.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    fn count(&self, name: &str) -> usize {
        let names = self.head.lines().filter_map(|line| line.split_once(':'));
        names.filter(|(have, _)| have.eq_ignore_ascii_case(name)).count()
    }

    /// What is wrong with its form; two readers of it must not be able to disagree.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let (lengths, codings) = (self.count("content-length"), self.count("transfer-encoding"));
        let bare = self.head.replace("\r\n", "").contains(['\r', '\n', '\0', '\x0b']);
        match () {
            () if lengths + codings > 1 => Some("more than one framing"),
            () if self.count("host") != 1 => Some("not one Host"),
            () if bare => Some("a bare CR, LF or NUL"),
            () if self.head.contains("\n ") || self.head.contains("\n\t") => Some("a folded line"),
            () => None,
        }
    }
}

/// What arrived.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    seen: Mutex<Vec<Seen>>,
    /// What came after the last whole request of a connection.
    rests: Mutex<Vec<String>>,
}

impl Recorder {
    /// Listens at `at` until the test ends.
    pub(crate) fn start(at: &str) -> Arc<Self> {
        let recorder = Arc::<Self>::default();
        let (listener, kept) = (listen("", at), recorder.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || kept.converse(&stream));
            }
        });
        recorder
    }

    /// What arrived since the last look.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn converse(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader) {
            let body = read_body(&head, &mut reader).map(|(body, _)| body);
            let text = String::from_utf8_lossy(body.as_deref().unwrap_or(b"?")).into_owned();
            self.seen.lock().unwrap().push(Seen { head, body: text });
            body?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).ok()?;
        self.rests.lock().unwrap().push(String::from_utf8_lossy(&rest).into_owned());
        Some(())
    }
}
