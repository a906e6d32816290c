//! Asks a silent peer whether it is still there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::link::PING_EVERY;
use crate::link::wire::Line;

/// Says PING where nothing was heard for [`PING_EVERY`]. What comes of it is [`Wire`]'s to judge:
/// the answer may wait behind whatever is under way, and any byte is life.
///
/// [`Wire`]: crate::link::wire::Wire
#[derive(Debug)]
pub(super) struct Keepalive {
    pings: Option<PingPong>,
    line: Arc<Line>,
    next: Pin<Box<Sleep>>,
}

impl Keepalive {
    pub(super) fn new(pings: Option<PingPong>, line: Arc<Line>) -> Self {
        Self { pings, line, next: Box::pin(sleep(PING_EVERY)) }
    }

    /// To be called where the connection is polled, and before it: what it says goes out with that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while self.next.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.line.unread().heard() + PING_EVERY;
            if due > now {
                self.next.as_mut().reset(due);
                continue;
            }
            self.next.as_mut().reset(now + PING_EVERY);
            if let Some(pings) = &mut self.pings {
                // Takes the last answer, and else does nothing; one at a time is under way.
                if let Poll::Ready(Err(_)) = pings.poll_pong(cx) {
                    self.pings = None; // the connection ends
                    continue;
                }
                let _ = pings.send_ping(Ping::opaque());
            }
        }
    }
}
