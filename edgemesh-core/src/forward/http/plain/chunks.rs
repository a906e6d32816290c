//! Chunked bodies (RFC 9112 §7.1): read strictly, and written anew, so that whoever reads them after
//! us finds the same ends. Extensions and trailers stay behind.

use crate::forward::http::plain::passing::{Form, Malformed, Passed};

/// Most bytes of extensions and trailers of one body.
const MOST_ASIDE: usize = 16 * 1024;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    aside: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    #[default]
    Start,
    /// After a digit.
    Size(u64),
    /// After the size, before the end of its line.
    Extension(u64),
    /// After the carriage return behind it.
    SizeEnd(u64),
    /// Within data, of which so much is left.
    Data(u64),
    /// After it.
    DataEnd,
    /// After the carriage return behind it.
    DataLine,
    /// At the beginning of a line of trailers, or of the empty line.
    Trailer,
    /// Within a line of trailers.
    TrailerLine,
    /// After the carriage return of such a line.
    TrailerEnd,
    /// After the carriage return of the empty line.
    Last,
    /// After all of it.
    Over,
}

impl Chunks {
    /// Writes what of `said` is the body's to `out`. Gives how much of it was used.
    pub(super) fn pass(
        &mut self,
        said: &[u8],
        out: &mut Vec<u8>,
        form: Form,
    ) -> Result<(usize, Passed), Malformed> {
        let (mut used, mut bytes) = (0, 0);
        while used < said.len() && self.at != At::Over {
            if let At::Data(left) = self.at {
                let length = (said.len() - used).min(usize::try_from(left).unwrap_or(usize::MAX));
                out.extend_from_slice(&said[used..used + length]);
                (used, bytes) = (used + length, bytes + length as u64);
                let left = left - length as u64;
                self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
            } else {
                self.at = self.step(said[used])?;
                if form == Form::Chunks {
                    self.at.write(out);
                }
                used += 1;
            }
        }
        Ok((used, Passed { bytes, whole: self.at == At::Over }))
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Start, digit) => At::Size(hex(digit)?),
            (At::Size(size), b'\r') | (At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Size(size), b';' | b' ' | b'\t') => At::Extension(self.aside(size)?),
            (At::Size(size), digit) if size >> 60 == 0 => At::Size(size << 4 | hex(digit)?),
            // A line feed alone ends a line for some readers and not for others.
            (At::Extension(size), byte) if byte != b'\n' => At::Extension(self.aside(size)?),
            (At::SizeEnd(0), b'\n') => At::Trailer,
            (At::SizeEnd(size), b'\n') => At::Data(size),
            (At::DataEnd, b'\r') => At::DataLine,
            (At::DataLine, b'\n') => At::Start,
            (At::Trailer, b'\r') => At::Last,
            (At::TrailerLine, b'\r') => At::TrailerEnd,
            (At::Trailer | At::TrailerLine, byte) if byte != b'\n' => {
                self.aside(0)?;
                At::TrailerLine
            }
            (At::TrailerEnd, b'\n') => At::Trailer,
            (At::Last, b'\n') => At::Over,
            _ => return Err(Malformed),
        })
    }

    /// Counts a byte that stays behind.
    fn aside(&mut self, size: u64) -> Result<u64, Malformed> {
        self.aside += 1;
        if self.aside > MOST_ASIDE { Err(Malformed) } else { Ok(size) }
    }
}

impl At {
    /// Writes what is said to get here, but for data.
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Data(size) => out.extend_from_slice(format!("{size:x}\r\n").as_bytes()),
            Self::Start => out.extend_from_slice(b"\r\n"),
            Self::Over => out.extend_from_slice(b"0\r\n\r\n"),
            Self::Size(_)
            | Self::Extension(_)
            | Self::SizeEnd(_)
            | Self::DataEnd
            | Self::DataLine
            | Self::Trailer
            | Self::TrailerLine
            | Self::TrailerEnd
            | Self::Last => {}
        }
    }
}

fn hex(digit: u8) -> Result<u64, Malformed> {
    char::from(digit).to_digit(16).map(u64::from).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(said: &[u8], piece: usize) -> Result<(Vec<u8>, u64, bool, usize), Malformed> {
        let (mut chunks, mut out, mut sum, mut all_used) = (Chunks::default(), Vec::new(), 0, 0);
        let mut over = false;
        for piece in said.chunks(piece.max(1)) {
            let (used, Passed { bytes, whole }) = chunks.pass(piece, &mut out, Form::Chunks)?;
            (sum, over, all_used) = (sum + bytes, whole, all_used + used);
            if whole {
                break;
            }
        }
        Ok((out, sum, over, all_used))
    }

    #[test]
    fn chunks_in_any_pieces() {
        for (said, want, length) in [
            ("0\r\n\r\n", "0\r\n\r\n", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", 5),
            ("05 \r\nhello\r\n00\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", 5),
            ("A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n", 10),
            ("1\r\nx\r\n0;e\r\nX-A: b\r\nX-C: d\r\n\r\n", "1\r\nx\r\n0\r\n\r\n", 1),
        ] {
            for piece in 1..=said.len() {
                let got = all(said.as_bytes(), piece);
                let want = (want.as_bytes().to_vec(), length, true, said.len());
                assert_eq!(got, Ok(want), "{said:?} by {piece}");
            }
            let more = format!("{said}HTTP/1.1 200 OK\r\n");
            assert_eq!(all(more.as_bytes(), more.len()).unwrap().3, said.len(), "{said:?}");
            assert!(!all(&said.as_bytes()[..said.len() - 1], 3).unwrap().2, "not before its end");
        }
    }

    #[test]
    fn what_readers_could_disagree_about_is_no_body() {
        for said in [
            "\r\n",
            ";\r\n",
            "-1\r\n",
            "+1\r\nx\r\n",
            "0x1\r\nx\r\n",
            "1\nx\r\n",
            "1\r\nx\n",
            "1\r\nxy\r\n",
            "1;a\nb\r\nx\r\n",
            "1\rx",
            "10000000000000000\r\n",
            "g\r\n",
            "0\r\n\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\rx",
        ] {
            for piece in [1, said.len()] {
                assert_eq!(all(said.as_bytes(), piece), Err(Malformed), "{said:?}");
            }
        }
        let endless = format!("1;{}", "x".repeat(MOST_ASIDE));
        assert_eq!(all(endless.as_bytes(), 1000), Err(Malformed));
    }

    proptest! {
        /// Written anew, what came is the same to every reader: reading it again changes nothing.
        #[test]
        fn any_bytes_are_chunks_or_none(said in proptest::collection::vec(any::<u8>(), 0..60), piece in 1_usize..9) {
            if let Ok((out, bytes, true, _)) = all(&said, piece) {
                prop_assert_eq!(all(&out, out.len()), Ok((out.clone(), bytes, true, out.len())));
            }
        }

        #[test]
        fn bodies_come_out_as_they_went_in(parts in proptest::collection::vec("[a-z]{1,40}", 0..6), piece in 1_usize..50) {
            let mut said: String = parts.iter().map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
            said.push_str("0\r\n\r\n");
            let bytes = parts.iter().map(String::len).sum::<usize>() as u64;
            prop_assert_eq!(all(said.as_bytes(), piece), Ok((said.clone().into_bytes(), bytes, true, said.len())));
        }
    }
}
