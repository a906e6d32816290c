//! Hands a Backend's answer to its client, piece by piece, and settles the call with its last byte.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::forward::http::ending::{Ending, How, is_unwell};
use crate::forward::http::plain::Wire;
use crate::forward::http::plain::across::Far;
use crate::forward::http::plain::answered::Answered;
use crate::forward::http::plain::client::Client as _;
use crate::forward::http::plain::fields::end;
use crate::forward::http::plain::passing::Form;
use crate::forward::http::plain::upload::Upload;
use crate::forward::http::rest::heed_field;
use crate::io::now;

/// Where an answer comes from.
#[derive(Debug)]
pub(super) enum Upstream {
    /// A Backend's connection.
    Near(Wire),
    /// The agent of its node.
    Far(Far),
}

/// An answer on its way; dropped before its end, its client is gone or the mesh has cut it.
struct Delivery {
    ending: Option<Box<Ending>>,
    down: u64,
}

/// Delivers an answer, and keeps the Backend's connection where it can serve again. Whether the client
/// may ask for more.
pub(super) async fn deliver(
    mut upload: Upload<'_>,
    mut ending: Box<Ending>,
    mut upstream: Upstream,
    answered: Box<Answered>,
    closes: bool,
) -> bool {
    let (shared, address) = (ending.call.origin.shared.clone(), ending.hop.address());
    heed(&mut ending, &answered);
    let Answered { head, mut body, keeps, .. } = *answered;
    let mut delivery = Delivery { ending: Some(ending), down: 0 };
    let mut out = head;
    end(&mut out, closes);
    let how = loop {
        let passed = body.pass(upstream.unread(), &mut out, Form::Chunks);
        let mut sent = 0;
        let client = &mut *upload.client;
        if poll_fn(|cx| client.poll_write(cx, &out, &mut sent)).await.is_err() {
            break How::Dropped;
        }
        // Its client has what came before.
        let Ok(passed) = passed else { break How::Broken };
        delivery.down += passed.bytes;
        out.clear();
        if passed.whole {
            break How::Whole;
        }
        match poll_fn(|cx| upstream.more(&mut upload, cx)).await {
            More::Said => {}
            More::Ended if body.ends(&mut out, Form::Chunks) => {
                let mut sent = 0;
                let client = &mut *upload.client;
                let said = poll_fn(|cx| client.poll_write(cx, &out, &mut sent)).await;
                break if said.is_ok() { How::Whole } else { How::Dropped };
            }
            More::Ended => break How::Broken,
            More::Cut(how) => break how,
        }
    };
    delivery.settle(how);
    let whole = how == How::Whole && upload.is_whole();
    let may_wait = keeps && upstream.unread().is_empty() && !shared.stop.is_cancelled();
    match upstream {
        Upstream::Near(mut backend) if whole && may_wait => {
            backend.rests();
            shared.pools.keep(address, backend, now());
        }
        Upstream::Near(_) | Upstream::Far(_) if how == How::Whole && !whole => {
            upload.client.linger().await;
        }
        Upstream::Near(_) | Upstream::Far(_) => {}
    }
    whole
}

/// Notes what the head of an answer says of its Backend.
pub(super) fn heed(ending: &mut Ending, answered: &Answered) {
    ending.status = answered.status;
    if !is_unwell(answered.status) {
        ending.hop.answered(now());
    }
    if matches!(answered.status, 429 | 503) {
        heed_field(&mut ending.hop, answered.status, answered.retry_after.as_deref());
    }
}

/// What comes next of an answer.
enum More {
    /// Some of it.
    Said,
    /// Its end.
    Ended,
    /// A break, or nothing since its client is gone.
    Cut(How),
}

impl Upstream {
    /// What was read of it and not passed on.
    const fn unread(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Near(backend) => &mut backend.unread,
            Self::Far(far) => &mut far.unread,
        }
    }

    fn more(&mut self, upload: &mut Upload<'_>, cx: &mut Context<'_>) -> Poll<More> {
        let read = match self {
            Self::Near(backend) => backend.poll_read(cx).map_err(|_| How::Broken),
            Self::Far(far) => far.poll_read(cx),
        };
        let is_left = match (&read, self) {
            (Poll::Ready(_), _) => false,
            (Poll::Pending, Self::Near(backend)) => upload.poll(cx, backend).is_err(),
            (Poll::Pending, Self::Far(_)) => upload.has_left(cx), // it was asked for as a whole
        };
        match read {
            Poll::Ready(Ok(0)) => Poll::Ready(More::Ended),
            Poll::Ready(Ok(_)) => Poll::Ready(More::Said),
            Poll::Ready(Err(how)) => Poll::Ready(More::Cut(how)),
            Poll::Pending if is_left => Poll::Ready(More::Cut(How::Dropped)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Delivery {
    fn settle(&mut self, how: How) {
        if let Some(ending) = self.ending.take() {
            ending.settle(how, self.down);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(How::Dropped);
    }
}
