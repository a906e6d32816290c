//! Length-delimited frames: a varint, then that many bytes, as protobuf delimits messages in a stream.

use thiserror::Error;

use crate::message::MAX_MESSAGE;

/// Largest frame, in bytes without its length: a whole Message.
pub const MAX_FRAME: usize = MAX_MESSAGE;

/// Longest length prefix, in bytes: five groups of seven bits say every length below 32 GiB.
const MAX_PREFIX: usize = 5;

/// Why bytes are no frame; nothing after them can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The frame is, or would be, larger than allowed.
    #[error("frame of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of the frame in bytes.
        length: u64,
        /// The bound in bytes.
        max: usize,
    },
    /// The length does not end within its five bytes.
    #[error("frame whose length does not end within {MAX_PREFIX} bytes")]
    BadLength,
}

/// A frame without its length, and what follows it.
pub type Parts<'a> = (&'a [u8], &'a [u8]);

/// The first frame in `bytes` and what follows it; `None` while it is not complete.
///
/// # Errors
/// [`FrameError`], as soon as the length is there: nobody needs to collect a frame that is too long.
pub fn split(bytes: &[u8]) -> Result<Option<Parts<'_>>, FrameError> {
    split_within(bytes, MAX_FRAME)
}

/// As [`split`], with a bound of the caller's in place of [`MAX_FRAME`].
///
/// # Errors
/// As [`split`].
pub fn split_within(bytes: &[u8], max: usize) -> Result<Option<Parts<'_>>, FrameError> {
    let Some((length, rest)) = prefix(bytes)? else { return Ok(None) };
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(rest.split_at_checked(length)),
        _ => Err(FrameError::TooLong { length, max }),
    }
}

/// Appends `frame` with its length to `out`.
///
/// # Errors
/// [`FrameError::TooLong`] past [`MAX_FRAME`]; `out` is then as it was.
pub fn push(out: &mut Vec<u8>, frame: &[u8]) -> Result<(), FrameError> {
    if frame.len() > MAX_FRAME {
        return Err(FrameError::TooLong { length: frame.len() as u64, max: MAX_FRAME });
    }
    let mut length = frame.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(frame);
    Ok(())
}

/// The length and what follows it; `None` while it is not complete.
fn prefix(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, FrameError> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(MAX_PREFIX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, &bytes[index + 1..])));
        }
    }
    if bytes.len() >= MAX_PREFIX { Err(FrameError::BadLength) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::{FrameError, MAX_FRAME, Parts, push, split, split_within};

    /// Bytes in; frame and rest, or the error, out.
    #[test]
    fn frames_split() {
        type Row<'a> = (&'a [u8], Result<Option<Parts<'a>>, FrameError>);
        let rows: &[Row<'_>] = &[
            (b"", Ok(None)),
            (b"\x00", Ok(Some((b"", b"")))),
            (b"\x03ab", Ok(None)),
            (b"\x03abc", Ok(Some((b"abc", b"")))),
            (b"\x03abcde", Ok(Some((b"abc", b"de")))),
            (b"\x80", Ok(None)),
            (b"\x81\x00x", Ok(Some((b"x", b"")))),
            (b"\xff\xff\xff\xff", Ok(None)),
            (b"\xff\xff\xff\xff\xff", Err(FrameError::BadLength)),
            (
                b"\x81\x80\x80\x10",
                Err(FrameError::TooLong { length: MAX_FRAME as u64 + 1, max: MAX_FRAME }),
            ),
            (b"\x80\x80\x80\x10", Ok(None)),
        ];
        for (bytes, want) in rows {
            assert_eq!(split(bytes), *want, "{bytes:?}");
        }
        let want = Err(FrameError::TooLong { length: 3, max: 2 });
        assert_eq!(split_within(b"\x03abc", 2), want);
    }

    #[test]
    fn frames_pushed_are_split_again() {
        for length in [0, 1, 127, 128, 16383, 16384, 70_000] {
            let frame = vec![7; length];
            let mut out = Vec::new();
            push(&mut out, &frame).unwrap();
            out.extend_from_slice(b"rest");
            assert_eq!(split(&out), Ok(Some((&*frame, &b"rest"[..]))), "{length}");
        }
        let mut out = vec![1];
        let too_long = push(&mut out, &vec![0; MAX_FRAME + 1]);
        assert_eq!(
            too_long,
            Err(FrameError::TooLong { length: MAX_FRAME as u64 + 1, max: MAX_FRAME })
        );
        assert_eq!(out, [1]);
    }
}
