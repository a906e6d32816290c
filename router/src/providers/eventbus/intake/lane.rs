//! One Rule's messages, delivered one after another in the order in which they came.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::forward::inbox::{AnswerBody, RETAINED, TOPIC};
use edgemesh_core::snapshot::rules::{Filter, Rule};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::providers::Deliver;
use crate::providers::eventbus::intake::{Arrived, MOST_KEPT, Tickets, lost};
use crate::providers::whole::whole;

/// Messages of one Rule that wait when one of QoS 0 is dropped.
const MOST_LOOSE: usize = 256;
/// Messages of one Rule that wait. There is room for all that the broker keeps, so that one of those never
/// waits before a lane, and with it the connection.
const QUEUE: usize = MOST_KEPT + MOST_LOOSE;
/// Answers are read to their end, that their connection can be used again, but no further than so.
const MAX_ANSWER: usize = 1024 * 1024;
/// Longest time for that.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Why a message of QoS 0 is given up.
pub(super) const TOO_MANY: &str = "dropped: too many messages wait, and of QoS 0 none is kept";

/// See the module. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) filter: Filter,
    rule: Arc<Rule>,
    queue: mpsc::Sender<Job>,
}

/// A message for one Rule.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) message: Arrived,
    pub(super) ticket: Tickets,
}

impl Lane {
    /// A queue, and the work on it, which ends when the lane is dropped and the queue empty; after
    /// `stop`, with the message that is under way.
    pub(super) fn new(
        rule: &Arc<Rule>,
        filter: &Filter,
        deliver: Arc<dyn Deliver>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (rule, filter) = (rule.clone(), filter.clone());
        let work = work(rule.clone(), jobs, deliver, stop);
        (Self { filter, rule, queue }, work)
    }

    /// The Rule changed.
    pub(super) fn follow(&mut self, rule: &Arc<Rule>, filter: &Filter) {
        self.rule = rule.clone();
        self.filter = filter.clone();
    }

    /// Queues a message. One that the broker does not keep is dropped where too many wait.
    pub(super) fn give(&self, job: Job) {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        if job.ticket.is_none() && waiting >= MOST_LOOSE {
            self.lose(TOO_MANY);
            return;
        }
        // Fails if the work was stopped: the broker keeps it.
        self.queue.try_send(job).ok();
    }

    /// Counts a message that is given up.
    pub(super) fn lose(&self, why: &str) {
        lost(&self.rule, why);
    }
}

async fn work(
    rule: Arc<Rule>,
    mut jobs: mpsc::Receiver<Job>,
    deliver: Arc<dyn Deliver>,
    stop: CancellationToken,
) {
    // What is under way is never cut: its target may have it already, and would get it again.
    while let Some(Some(job)) = stop.run_until_cancelled(jobs.recv()).await {
        let Job { message, ticket } = job;
        match request(&message) {
            Some(request) => {
                // What came of it is counted where it was tried.
                if let Ok(answer) = deliver.send(rule.name.clone(), request).await {
                    finish(answer.into_body()).await;
                }
            }
            None => {
                tracing::warn!(rule = %rule.name, "a topic with control characters is passed over");
            }
        }
        if let Some(ticket) = ticket {
            ticket.ended();
        }
    }
    // Those that the broker keeps come again; the others end here.
    while let Ok(job) = jobs.try_recv() {
        if job.ticket.is_none() {
            lost(&rule, "dropped: this node stopped, and of QoS 0 none is kept");
        }
    }
}

/// The message as a request; `None` where its topic cannot stand in a header.
fn request(message: &Arrived) -> Option<Request<Full<Bytes>>> {
    let topic = HeaderValue::from_bytes(&message.topic).ok()?;
    let mut request = Request::new(Full::new(message.payload.clone()));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(TOPIC, topic);
    if message.retained {
        request.headers_mut().insert(RETAINED, HeaderValue::from_static("true"));
    }
    Some(request)
}

async fn finish(answer: AnswerBody) {
    // Nobody wants it.
    timeout(ANSWER_WITHIN, whole(answer, MAX_ANSWER)).await.ok();
}
