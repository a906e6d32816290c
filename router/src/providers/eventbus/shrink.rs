//! Keeps messages that are too large from being read whole.
//!
//! MQTT 3.1.1 has no way to tell a broker what a client can take, and packets up to 256 MiB are read into
//! memory at once. Ending the connection is no help: the broker would send the message again, for ever. So
//! in what it sends, the payload of such a message is replaced by a note of its size before anybody
//! collects it; the message can be counted and acknowledged then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use crate::providers::connect::Stream;

/// Largest packet that is read as it is: the longest topic beside a payload of 16 MiB.
pub(super) const MOST_READ: usize = 16 * 1024 * 1024 + 64 * 1024;
/// Bytes that are read at once.
const CHUNK: usize = 8 * 1024;
/// The upper half of the first byte of a PUBLISH.
const PUBLISH: u8 = 3;

/// What notes begin with. Nobody who publishes knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark([u8; 16]);

/// See the module.
pub(super) struct Shrinking {
    inner: Stream,
    shrink: Shrink,
    /// What was read, and from where on it was not passed on.
    out: (Vec<u8>, usize),
}

/// What was shrunk so far, packet after packet.
struct Shrink {
    mark: Mark,
    most: usize,
    now: Now,
}

enum Now {
    /// What a packet begins with: its kind and size; if it is too large, its topic and number too.
    Head(Vec<u8>),
    /// So many bytes are passed on.
    Pass(usize),
    /// So many are left out.
    Skip(usize),
}

impl Mark {
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }

    /// The size of the packet that `payload` stands for, if it is a note.
    pub(super) fn size(self, payload: &[u8]) -> Option<u64> {
        let size = payload.strip_prefix(&self.0)?;
        size.try_into().ok().map(u64::from_be_bytes)
    }

    fn note(self, size: usize) -> [u8; 24] {
        let mut note = [0; 24];
        note[..16].copy_from_slice(&self.0);
        note[16..].copy_from_slice(&(size as u64).to_be_bytes());
        note
    }
}

impl Shrinking {
    pub(super) fn new(inner: Stream, mark: Mark) -> Self {
        let shrink = Shrink { mark, most: MOST_READ, now: Now::Head(Vec::new()) };
        Self { inner, shrink, out: (Vec::new(), 0) }
    }
}

impl Shrink {
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some(first) = bytes.first() {
            let (Now::Pass(left) | Now::Skip(left)) = &mut self.now else {
                self.begin(*first, out);
                bytes = &bytes[1..];
                continue;
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(*left));
            *left -= taken.len();
            let ended = *left == 0;
            if matches!(self.now, Now::Pass(_)) {
                out.extend_from_slice(taken);
            }
            if ended {
                self.now = Now::Head(Vec::new());
            }
            bytes = rest;
        }
    }

    /// One more byte of a head.
    fn begin(&mut self, byte: u8, out: &mut Vec<u8>) {
        let Now::Head(head) = &mut self.now else { return };
        head.push(byte);
        let Some((size, behind)) = size(head) else {
            if head.len() > 4 {
                // It is no MQTT, which whoever reads it finds out.
                out.append(head);
                self.now = Now::Pass(usize::MAX);
            }
            return;
        };
        if head[0] >> 4 != PUBLISH || size <= self.most {
            out.append(head);
            self.now = if size > 0 { Now::Pass(size) } else { Now::Head(Vec::new()) };
            return;
        }
        let [high, low, ..] = *behind else { return };
        let has_number = head[0] & 0b0110 != 0;
        let around = 2 + usize::from(u16::from_be_bytes([high, low])) + 2 * usize::from(has_number);
        // One whose topic is longer than itself is no MQTT either.
        let around = around.min(size);
        if behind.len() < around {
            return;
        }
        let note = self.mark.note(size);
        out.push(head[0]);
        varint(around + note.len(), out);
        out.extend_from_slice(behind);
        out.extend_from_slice(&note);
        let left = size - around;
        self.now = if left > 0 { Now::Skip(left) } else { Now::Head(Vec::new()) };
    }
}

/// The size of a packet without its fixed header, and what of that is in `head`; `None` if that is not
/// whole.
fn size(head: &[u8]) -> Option<(usize, &[u8])> {
    let mut size = 0;
    for (at, byte) in head.iter().enumerate().skip(1).take(4) {
        size |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((size, &head[at + 1..]));
        }
    }
    None
}

fn varint(mut size: usize, out: &mut Vec<u8>) {
    while size > 0x7f {
        out.push(size.to_le_bytes()[0] | 0x80);
        size >>= 7;
    }
    out.push(size.to_le_bytes()[0]);
}

impl AsyncRead for Shrinking {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, shrink, out: (out, at) } = self.get_mut();
        while *at == out.len() {
            out.clear();
            *at = 0;
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut *inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            shrink.feed(chunk.filled(), out);
        }
        let taken = to.remaining().min(out.len() - *at);
        to.put_slice(&out[*at..*at + taken]);
        *at += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shrinking {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets in hex, and what they become where 8 bytes are the most.
    #[test]
    fn packets_become() {
        let noted = |size: u8| format!("{}00000000000000{size:02x}", "ab".repeat(16));
        for (from, want) in [
            ("d000 40020001", "d000 40020001".to_owned()),
            ("3008 0001616162636465 d000", "3008 0001616162636465 d000".into()),
            ("3009 000161616263646566 d000", format!("301b 000161 {} d000", noted(9))),
            ("3209 000161 0007 61626364 d000", format!("321d 000161 0007 {} d000", noted(9))),
            ("3a09 000161 0007 61626364", format!("3a1d 000161 0007 {}", noted(9))),
            // Only what is published.
            ("9009 000100000000000000 d000", "9009 000100000000000000 d000".into()),
            // Not MQTT: a topic longer than its packet, a size without end.
            ("3009 00ff61616263646566 d000", format!("3021 00ff61616263646566 {} d000", noted(9))),
            ("30ffffffff 3009", "30ffffffff 3009".into()),
        ] {
            for step in [1, 3, 100] {
                let now = Now::Head(Vec::new());
                let mut shrink = Shrink { mark: Mark([0xab; 16]), most: 8, now };
                let mut out = Vec::new();
                bytes(from).chunks(step).for_each(|chunk| shrink.feed(chunk, &mut out));
                assert_eq!(out, bytes(&want), "{from} by {step}");
            }
        }
    }

    #[test]
    fn a_note_is_known_again() {
        let mark = Mark::new();
        assert_eq!(mark.size(&mark.note(77)), Some(77));
        for other in [&b""[..], &[0; 24], &mark.note(77)[..23], &Mark::new().note(77)] {
            assert_eq!(mark.size(other), None);
        }
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for n in [0, 127, 128, 16_383, 16_384, 2_097_152, 268_435_455] {
            let mut head = vec![0x30];
            varint(n, &mut head);
            assert_eq!(size(&head), Some((n, &[][..])));
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = hex.replace(' ', "");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }
}
