//! How much the other side may still send on a connection: follows the frames of HTTP/2 by their
//! heads, since h2 does not tell.

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// What a client says before its first frame.
const PREFACE: usize = 24;
const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;
/// What a connection begins with (RFC 9113 §6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// The share of the window below which it is short. HTTP/2 gives back what was read when that is
/// half of the window, so more than the rest of it was not read.
const SHORT: i64 = 16;

/// The window for what we receive.
#[derive(Debug)]
pub(super) struct Window {
    received: Heads,
    sent: Heads,
    room: i64,
    /// Below this it is short.
    short: i64,
    /// It has its full size, which is given with the first frames.
    is_open: bool,
}

impl Window {
    /// Of `size` bytes, at the client or at the server of HTTP/2.
    pub(super) const fn new(size: u32, is_client: bool) -> Self {
        let (sent, received) = if is_client { (PREFACE, 0) } else { (0, PREFACE) };
        let short = size as i64 / SHORT;
        let (received, sent) = (Heads::after(received), Heads::after(sent));
        Self { received, sent, room: FIRST_WINDOW, short, is_open: false }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        let room = &mut self.room;
        self.received.read(bytes, |frame| match frame {
            Frame::Data(length) => *room -= length,
            Frame::Room(_) => {}
        });
    }

    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let (room, is_open) = (&mut self.room, &mut self.is_open);
        self.sent.read(bytes, |frame| match frame {
            Frame::Room(more) => (*room, *is_open) = (*room + more, true),
            Frame::Data(_) => {}
        });
    }

    /// Whether so much lies unread that the other side is about to have to wait.
    pub(super) const fn is_short(&self) -> bool {
        self.is_open && self.room < self.short
    }
}

/// What counts.
enum Frame {
    /// Bytes of the window are used.
    Data(i64),
    /// Bytes of it are given back.
    Room(i64),
}

/// One direction.
#[derive(Debug)]
struct Heads {
    /// Bytes before the next head.
    skip: usize,
    /// The next head, and the number after it where that is needed.
    head: [u8; HEAD + 4],
    have: usize,
}

impl Heads {
    const fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD + 4], have: 0 }
    }

    fn read(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let need = if self.have < HEAD { HEAD } else { HEAD + 4 };
            let n = bytes.len().min(need - self.have);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have < need {
                return;
            }
            self.look(&mut see);
        }
    }

    /// Looks at a head that is there.
    fn look(&mut self, see: &mut impl FnMut(Frame)) {
        let [a, b, c, kind, _, s, t, u, v, w, x, y, z] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let of_all = u32::from_be_bytes([s & 0x7f, t, u, v]) == 0;
        if self.have > HEAD {
            see(Frame::Room(u32::from_be_bytes([w & 0x7f, x, y, z]).into()));
        } else if kind == WINDOW_UPDATE && of_all && length == 4 {
            return; // and on to the number
        } else {
            if kind == DATA {
                see(Frame::Data(length.into()));
            }
            self.skip = length as usize;
        }
        self.have = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, 0]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn the_window_is_followed_however_the_bytes_are_cut() {
        let sent = [
            vec![b'x'; PREFACE],
            frame(4, 0, &[0; 12]),
            frame(WINDOW_UPDATE, 0, &1_000_000u32.to_be_bytes()),
            frame(DATA, 1, &[0; 100]), // uses the other side's window
            frame(WINDOW_UPDATE, 1, &500u32.to_be_bytes()), // of a stream
            frame(WINDOW_UPDATE, 0, &7u32.to_be_bytes()),
        ];
        let received = [
            frame(4, 0, &[]),
            frame(DATA, 1, &[8; 1000]),
            frame(1, 3, &[8; 50]),
            frame(DATA, 1, &[]),
        ];
        for cut in [1, 2, 3, 7, 9, 13, 64, 4096] {
            let mut window = Window::new(1 << 20, true);
            assert!(!window.is_short(), "it was not opened yet");
            sent.concat().chunks(cut).for_each(|bytes| window.sent(bytes));
            received.concat().chunks(cut).for_each(|bytes| window.received(bytes));
            assert_eq!(window.room, FIRST_WINDOW + 1_000_007 - 1000, "{cut}");
            assert!(!window.is_short());
            window.received(&frame(DATA, 5, &[0; 1_020_000]));
            assert!(window.is_short());
        }
    }
}
