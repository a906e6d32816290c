//! A conversation of the little world: the registry's side of it, and what is under way.

use std::collections::VecDeque;
use std::time::Instant;

use edgemesh_proto::message::Body;
use edgemesh_proto::record::Delta;
use edgemesh_router::registry::Registry;
use edgemesh_router::registry::session::{Said, Session};

/// Messages under way in both directions.
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) down: VecDeque<Body>,
    pub(crate) up: VecDeque<Body>,
    /// A step or a question is out, whole, and nothing was heard since.
    awaits: bool,
}

impl Link {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, down: VecDeque::new(), up: VecDeque::new(), awaits: false }
    }

    /// The registry says something, if it has something to say.
    pub(crate) fn pump(&mut self, registry: &mut Registry, now: Instant) -> bool {
        let Some(said) = self.session.next(registry, now) else { return false };
        assert!(!self.awaits, "one step is out at a time, but it also says {said:?}");
        self.awaits = match &said {
            Said::Held(_) => true,
            Said::Delta(bytes) => !Delta::decode(bytes.clone()).unwrap().0.more,
        };
        self.down.push_back(match said {
            Said::Held(held) => Body::Held(held),
            Said::Delta(bytes) => {
                let (delta, bad) = Delta::decode(bytes).unwrap();
                assert!(bad.is_empty(), "{bad:?}");
                Body::Delta(delta)
            }
        });
        true
    }

    /// The registry hears the agent.
    pub(crate) fn deliver_up(&mut self, registry: &mut Registry, now: Instant) -> bool {
        let Some(body) = self.up.pop_front() else { return false };
        self.awaits = false;
        let heard = self.session.on(registry, &body, now);
        heard.unwrap_or_else(|violation| panic!("{violation}"));
        true
    }
}
