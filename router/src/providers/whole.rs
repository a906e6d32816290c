//! Reads a body to its end, up to a bound.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use edgemesh_core::forward::inbox::AnswerError;
use http_body::Body;
use http_body_util::BodyExt as _;

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is larger than the bound.
    TooLarge,
    /// It broke off.
    Broken(AnswerError),
}

/// All of `body`, if it has at most `most` bytes.
pub(super) async fn whole<B>(body: B, most: usize) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes, Error: Into<AnswerError>>,
{
    // What says that it is too large need not be read.
    if body.size_hint().lower() > most as u64 {
        return Err(Unread::TooLarge);
    }
    let (mut body, mut first, mut all) = (pin!(body), Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| Unread::Broken(error.into()))?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > most {
            return Err(Unread::TooLarge);
        }
        // Most bodies are one piece, which is not copied.
        match first.is_empty() && all.is_empty() {
            true => first = data,
            false => {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn up_to_the_bound() {
        for (pieces, most, want) in [
            (&["abc"][..], 3, Some("abc")),
            (&["a", "", "bc", "d"], 4, Some("abcd")),
            (&[], 0, Some("")),
            (&["abc"], 2, None),
            (&["ab", "c"], 2, None),
        ] {
            let frame =
                |piece: &&'static str| Ok::<_, Infallible>(Frame::data(Bytes::from(*piece)));
            let body = StreamBody::new(futures_util::stream::iter(pieces.iter().map(frame)));
            let got = whole(body, most).await.ok();
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{pieces:?}");
        }
    }
}
