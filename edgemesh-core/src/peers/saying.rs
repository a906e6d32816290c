//! What one side of a conversation has to say, while the other side may have no room for it.
//!
//! Who waits for room must go on listening: two sides that both have much to say, and listen only
//! afterwards, would wait for each other for ever.

use std::future::pending;

use edgemesh_proto::message::Message;

use crate::link::{LinkError, MessageWriter};

/// See the module.
#[derive(Debug)]
pub(super) struct Saying {
    writer: MessageWriter,
    /// Encoded; waits for room.
    now: Option<Vec<u8>>,
    /// An answer that came up meanwhile. The last one is enough.
    then: Option<Vec<u8>>,
}

impl Saying {
    pub(super) const fn new(writer: MessageWriter) -> Self {
        Self { writer, now: None, then: None }
    }

    /// Whether nothing waits.
    pub(super) const fn is_free(&self) -> bool {
        self.now.is_none()
    }

    /// To be said next, by [`Saying::done`].
    pub(super) fn say(&mut self, message: &Message) {
        let place = if self.is_free() { &mut self.now } else { &mut self.then };
        *place = Some(message.encode());
    }

    /// Waits until what waits was said; for ever where nothing does. Dropped, it waits on.
    ///
    /// # Errors
    /// As [`MessageWriter::send`].
    pub(super) async fn done(&mut self) -> Result<(), LinkError> {
        let Some(now) = &self.now else { return pending().await };
        self.writer.send_encoded(now).await?;
        self.now = self.then.take();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::time::Duration;

    use edgemesh_proto::message::{Body, Ping, Refused};
    use parking_lot::Mutex;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::link::sample::end;
    use crate::link::{
        Answering, Called, Limits, MessageReader, Messages, Operation, Role, Serve, client, pipe,
        serve,
    };
    use crate::peers::message;

    /// More than a Link of conversations has under way.
    const MUCH: usize = 3 << 20;
    const MANY: usize = 8;

    fn much() -> Message {
        let text = "x".repeat(MUCH);
        message(["near", "far"], Refused { label: "x".into(), text, retry_after_ms: 0 }.into())
    }

    /// Says much, MANY times, and hears as much. What it gives keeps the exchange alive.
    async fn talk(messages: Messages) -> (Saying, MessageReader) {
        let Messages { writer, mut reader } = messages;
        let (mut saying, mut said, mut heard) = (Saying::new(writer), 0, 0);
        while said < MANY || heard < MANY || !saying.is_free() {
            if saying.is_free() && said < MANY {
                saying.say(&much());
                said += 1;
            }
            tokio::select! {
                done = saying.done() => done.unwrap(),
                next = reader.next(), if heard < MANY => {
                    next.unwrap().unwrap();
                    heard += 1;
                }
            }
        }
        (saying, reader)
    }

    struct Far(Mutex<Option<Messages>>);

    impl Serve for Far {
        fn serve(
            self: Arc<Self>,
            called: Called,
        ) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
            let (writer, rest) = pipe();
            *self.0.lock() = Some(Messages::new(writer, called.body));
            let opening = message(["far", "near"], Body::Ping(Ping { number: 1, answer: false }));
            Box::pin(async move { Answering { opening, rest } })
        }
    }

    #[tokio::test]
    async fn two_that_both_have_much_to_say_hear_each_other() {
        let tasks = TaskTracker::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let handler = Arc::new(Far(Mutex::default()));
        serve(end(far, "near", Role::Serves), handler.clone(), Limits::CONTROL, &tasks);
        let link = client(end(near, "far", Role::Opens), Limits::CONTROL, tasks.clone()).await;
        let (writer, rest) = pipe();
        let hello = message(["near", "far"], Body::Ping(Ping { number: 1, answer: false }));
        let reply = link.unwrap().open(Operation::Control, &hello, rest).await.unwrap();
        let near = Messages::new(writer, reply.body);
        let far = handler.0.lock().take().unwrap();
        let both = async { tokio::join!(talk(near), talk(far)) };
        timeout(Duration::from_secs(20), both).await.expect("nobody waits for ever");
    }
}
