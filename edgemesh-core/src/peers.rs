//! How other nodes are reached: direct Links, the hub, and what is said on both beside calls.
//!
//! [`Ways`] is all that a call needs to know. An agent's are [`Peers`]: direct Links that are made
//! when somebody calls, and the [`Uplink`], which keeps Control with the hub. [`Door`] is where other
//! agents come in, [`Controls`] what agents tell each other.

mod advertise;
mod agents;
mod answers;
mod control;
mod door;
mod joining;
mod path;
mod pause;
mod pulse;
mod saying;
mod slot;
mod slots;
mod stagger;
mod standing;
mod uplink;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgemesh_proto::message::{Body, Message, Refused, fresh_id};
use edgemesh_proto::record::NodeName;

use crate::backends::Way;
use crate::dial::Dial;
use crate::identity::{Expect, Tls};
use crate::link::{self, Dialled, Link, LinkError, ServedLink};
use crate::peers::standing::Stay;

pub use advertise::Advertise;
pub use agents::{Choice, Parts as PeersParts, PeerView, Peers};
pub use answers::Answers;
pub use control::{Controls, PeerSaid};
pub use door::{Door, Parts as DoorParts};
pub use joining::{JoinError, Joining, renew};
pub use pause::Pause;
pub use pulse::{Heard, PULSE_EVERY, Pulse};
pub use standing::Standing;
pub use uplink::{Introduction, Linked, Parts as UplinkParts, Position, Talk, Uplink, UplinkState};

/// A way that is being looked for.
pub type Finding<'a> = Pin<Box<dyn Future<Output = Found> + Send + 'a>>;

/// A Link that leads to a node, and which way it takes.
pub type Found = Result<(Link, Way), NoWay>;

/// How other nodes are reached.
pub trait Ways: Send + Sync + fmt::Debug {
    /// A Link that stands and leads to `node`, and which way it takes. Does not wait.
    fn ready(&self, node: &NodeName) -> Option<(Link, Way)>;

    /// The same; makes one where none stands.
    fn find<'a>(&'a self, node: &'a NodeName) -> Finding<'a>;

    /// A call that was sent to `node` came back: whoever was to pass it on does not reach that.
    fn leads_nowhere(&self, _node: &NodeName, _why: &str) {}

    /// Closes the Links on which nothing is under way, for a mesh that ends.
    fn close_idle(&self) {}
}

/// Resolves when the connection is gone. Dropped before, it lets what is under way end there, and
/// nothing new begin.
pub async fn while_served(link: ServedLink) {
    struct Closes(ServedLink);
    impl Drop for Closes {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    Closes(link).0.closed().await;
}

/// The same for a Link of another agent, which is cut when that is removed.
async fn while_welcome(link: ServedLink, stay: Stay) {
    tokio::select! {
        () = while_served(link.clone()) => {}
        () = stay.over() => link.cut(),
    }
}

/// Why no Link leads to a node, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoWay(Box<str>);

impl NoWay {
    /// For that reason.
    pub fn new(why: impl Into<Box<str>>) -> Self {
        Self(why.into())
    }
}

/// Label of what a node hears that was removed.
pub const REMOVED: &str = "removed";

/// Label of what a node hears whose certificate expired, and that may renew it all the same.
pub const EXPIRED: &str = "expired";

/// What a node hears that was removed.
pub fn removal(node: &NodeName) -> Refused {
    let text = format!("node {} was removed from this mesh: join again with a new token", node.0);
    Refused { label: REMOVED.into(), text, retry_after_ms: 0 }
}

/// Whoever dials for Links.
#[derive(Clone, Copy, Debug)]
struct Dialler<'a> {
    dial: &'a Dial,
    tls: &'a Tls,
    within: Duration,
}

impl Dialler<'_> {
    /// Connects to whom we expect there, for what `alpn` says.
    async fn dial(
        self,
        address: SocketAddr,
        expect: Expect<'_>,
        alpn: &'static [u8],
    ) -> Result<Dialled, LinkError> {
        let (config, name) = (self.tls.client(expect, alpn), expect.server_name());
        link::dial(self.dial, address, self.within, config, name).await
    }
}

/// A Message of a Link, from whom to whom.
pub fn message(route: [&str; 2], body: Body) -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Message::of_link(fresh_id(), i64::try_from(now).unwrap_or(i64::MAX), route, body)
}
