//! Hands a Backend's answer to its client, piece by piece, and settles the call with its last byte.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::forward::http::ending::{Ending, How, is_unwell};
use crate::forward::http::plain::Wire;
use crate::forward::http::plain::answered::Answered;
use crate::forward::http::plain::fields::end;
use crate::forward::http::plain::upload::Upload;
use crate::forward::http::rest::heed_field;
use crate::io::now;

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
    mut backend: Wire,
    answered: Box<Answered>,
    closes: bool,
) -> bool {
    let Answered { status, head, mut body, keeps, retry_after } = *answered;
    let (shared, address) = (ending.call.origin.shared.clone(), ending.hop.address());
    ending.status = status;
    if !is_unwell(status) {
        ending.hop.answered(now());
    }
    if matches!(status, 429 | 503) {
        heed_field(&mut ending.hop, status, retry_after.as_deref());
    }
    let mut delivery = Delivery { ending: Some(ending), down: 0 };
    let mut out = head;
    end(&mut out, closes);
    let how = loop {
        let passed = body.pass(&mut backend.unread, &mut out);
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
        match poll_fn(|cx| more(&mut upload, &mut backend, cx)).await {
            More::Said => {}
            More::Ended if body.ends(&mut out) => {
                let mut sent = 0;
                let client = &mut *upload.client;
                let said = poll_fn(|cx| client.poll_write(cx, &out, &mut sent)).await;
                break if said.is_ok() { How::Whole } else { How::Dropped };
            }
            More::Ended | More::Broken => break How::Broken,
            More::Gone => break How::Dropped,
        }
    };
    delivery.settle(how);
    let whole = how == How::Whole && upload.is_whole();
    let may_wait = keeps && backend.unread.is_empty() && !shared.stop.is_cancelled();
    if whole && may_wait {
        backend.rests();
        shared.pools.keep(address, backend, now());
    } else if how == How::Whole && !whole {
        upload.client.linger().await;
    }
    whole
}

/// What comes next of an answer.
enum More {
    /// Some of it.
    Said,
    /// The end of its connection.
    Ended,
    /// A break.
    Broken,
    /// Nothing: its client is gone.
    Gone,
}

fn more(upload: &mut Upload<'_>, backend: &mut Wire, cx: &mut Context<'_>) -> Poll<More> {
    match backend.poll_read(cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(More::Ended),
        Poll::Ready(Ok(_)) => Poll::Ready(More::Said),
        Poll::Ready(Err(_)) => Poll::Ready(More::Broken),
        Poll::Pending if upload.poll(cx, backend).is_err() => Poll::Ready(More::Gone),
        Poll::Pending => Poll::Pending,
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
