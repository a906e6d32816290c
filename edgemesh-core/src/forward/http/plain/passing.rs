//! The body of an answer on its way through, as its head says that it is framed.

use crate::forward::http::plain::chunks::Chunks;

/// What of a body is still to come.
#[derive(Debug)]
pub(super) enum Passing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All that comes.
    UntilItsEnd,
}

/// How whoever is next tells where a body ends that has no known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By chunks.
    Chunks,
    /// In a way of its own, beside the bytes.
    Bytes,
}

/// How a piece of a body was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// Bytes of the body in it.
    pub(super) bytes: u64,
    /// It was the last one.
    pub(super) whole: bool,
}

/// A body that is not framed as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Passing {
    /// Moves what is the body's from `unread` to `out`, framed as whoever is next will see it.
    pub(super) fn pass(
        &mut self,
        unread: &mut Vec<u8>,
        out: &mut Vec<u8>,
        form: Form,
    ) -> Result<Passed, Malformed> {
        match self {
            Self::Length(left) => {
                let bytes = unread.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                take(unread, bytes, out);
                *left -= bytes as u64;
                Ok(Passed { bytes: bytes as u64, whole: *left == 0 })
            }
            Self::Chunked(chunks) => {
                let (used, passed) = chunks.pass(unread, out, form)?;
                unread.drain(..used);
                Ok(passed)
            }
            Self::UntilItsEnd => {
                let bytes = unread.len();
                match form {
                    Form::Bytes => take(unread, bytes, out),
                    Form::Chunks if bytes > 0 => {
                        out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
                        out.append(unread);
                        out.extend_from_slice(b"\r\n");
                    }
                    Form::Chunks => {}
                }
                Ok(Passed { bytes: bytes as u64, whole: false })
            }
        }
    }

    /// Its Backend has ended the connection in order; whether that is the end of the body, too.
    pub(super) fn ends(&self, out: &mut Vec<u8>, form: Form) -> bool {
        let ends = matches!(self, Self::UntilItsEnd);
        if ends && form == Form::Chunks {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        ends
    }
}

/// Moves the first `bytes` of `unread` behind `out`.
fn take(unread: &mut Vec<u8>, bytes: usize, out: &mut Vec<u8>) {
    if out.is_empty() && bytes == unread.len() {
        std::mem::swap(unread, out);
    } else {
        out.extend_from_slice(&unread[..bytes]);
        unread.drain(..bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_kept_to_the_byte() {
        let (mut left, mut out) = (Passing::Length(6), Vec::new());
        let mut unread = b"hell".to_vec();
        let passed = left.pass(&mut unread, &mut out, Form::Chunks);
        assert_eq!(passed, Ok(Passed { bytes: 4, whole: false }));
        unread.extend_from_slice(b"o!HTTP/1.1");
        let passed = left.pass(&mut unread, &mut out, Form::Chunks);
        assert_eq!(passed, Ok(Passed { bytes: 2, whole: true }));
        assert_eq!((&out[..], &unread[..]), (&b"hello!"[..], &b"HTTP/1.1"[..]));
        assert!(!left.ends(&mut out, Form::Chunks));
    }

    #[test]
    fn what_ends_with_its_connection_ends_for_the_client_too() {
        let (mut body, mut out) = (Passing::UntilItsEnd, Vec::new());
        for piece in ["", "hello", "0123456789abcdef"] {
            let passed = body.pass(&mut piece.as_bytes().to_vec(), &mut out, Form::Chunks);
            assert_eq!(passed, Ok(Passed { bytes: piece.len() as u64, whole: false }));
        }
        assert!(body.ends(&mut out, Form::Chunks));
        assert_eq!(out, b"5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
    }
}
