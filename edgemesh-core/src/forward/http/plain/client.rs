//! Whoever waits for an answer: a client's connection, or the client of another node.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use crate::forward::http::plain::Wire;

/// The client has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// Whoever waits for an answer.
pub(super) trait Client {
    /// Whether nobody waits any more.
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool;
    /// Passes on what has come of the request, as far as the Backend takes it.
    fn poll(&mut self, cx: &mut Context<'_>, backend: &mut Wire) -> Result<(), Gone>;
    /// Whether all of it was passed on.
    fn is_whole(&self) -> bool;
}

/// A client of another node, which has said all, and for whom that node gives the call up.
pub(super) struct Elsewhere;

impl Client for Elsewhere {
    fn has_left(&mut self, _: &mut Context<'_>) -> bool {
        false
    }

    fn poll(&mut self, _: &mut Context<'_>, _: &mut Wire) -> Result<(), Gone> {
        Ok(())
    }

    fn is_whole(&self) -> bool {
        true
    }
}

/// Waits for `what`, unless the client leaves.
pub(super) async fn unless_gone<T>(
    client: &mut impl Client,
    what: impl Future<Output = T>,
) -> Result<T, Gone> {
    let mut what = pin!(what);
    poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending if client.has_left(cx) => Poll::Ready(Err(Gone)),
        Poll::Pending => Poll::Pending,
    })
    .await
}
