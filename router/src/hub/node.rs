//! One node as the hub sees it: its Control, and a Link on which the hub may open exchanges.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use edgemesh_core::link::Link;
use edgemesh_core::peers::NoWay;
use edgemesh_proto::message::{Body, DialBack, Hello};
use edgemesh_proto::record::NodeName;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::hub::roster::Seat;

/// Longest wait for a node to dial back, also for who waits behind others.
const DIAL_BACK_WITHIN: Duration = Duration::from_secs(5);

/// A node whose Control stands.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Which Control this is.
    pub seat: Seat,
    /// When the certificate was issued by which it is here.
    pub issued: i64,
    /// Where it called from.
    pub address: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// Version of its program.
    pub version: String,
    say: mpsc::Sender<Body>,
    link: watch::Sender<Option<Link>>,
    asking: Mutex<()>,
    /// A newer Control took its seat.
    over: CancellationToken,
    /// In microseconds; 0 = not measured yet.
    round_trip: AtomicU64,
}

impl Node {
    /// What is said to it goes to `say`.
    pub fn new(
        hello: &Hello,
        seat: Seat,
        issued: i64,
        address: SocketAddr,
        say: mpsc::Sender<Body>,
    ) -> Self {
        let (since, link) = (SystemTime::now(), watch::Sender::default());
        Self {
            name: hello.node.clone(),
            seat,
            issued,
            address,
            since,
            version: hello.version.clone(),
            say,
            link,
            asking: Mutex::default(),
            over: CancellationToken::new(),
            round_trip: AtomicU64::new(0),
        }
    }

    /// It dialled back.
    pub fn arrived(&self, link: Link) {
        if let Some(before) = self.link.send_replace(Some(link)) {
            before.close();
        }
        if self.over.is_cancelled() {
            self.left(); // it left while it arrived
        }
    }

    /// Its Control ended: what is under way may end, nothing new begins.
    pub fn left(&self) {
        self.over.cancel();
        if let Some(link) = self.link.send_replace(None) {
            link.close();
        }
    }

    /// A Link on which we may open exchanges, if one stands.
    pub fn ready(&self) -> Option<Link> {
        self.link.borrow().as_ref().filter(|link| link.is_open()).cloned()
    }

    /// The same; asks the node to dial back where there is none.
    ///
    /// # Errors
    /// When it does not.
    pub async fn link(&self) -> Result<Link, NoWay> {
        if let Some(link) = self.ready() {
            return Ok(link);
        }
        let dialled_back = tokio::time::timeout(DIAL_BACK_WITHIN, self.dialled_back());
        let silent = || NoWay::new(format!("node {} does not dial back", self.name.0));
        tokio::select! {
            link = dialled_back => link.unwrap_or_else(|_| Err(silent())),
            () = self.over() => Err(self.gone()),
        }
    }

    async fn dialled_back(&self) -> Result<Link, NoWay> {
        let _asking = self.asking.lock().await; // once for all who wait
        if let Some(link) = self.ready() {
            return Ok(link);
        }
        let mut links = self.link.subscribe();
        self.tell(Body::DialBack(DialBack { node: None, links: Vec::new() }))?;
        let open = |link: &Option<Link>| link.as_ref().is_some_and(Link::is_open);
        let link = links.wait_for(open).await.map_err(|_| self.gone())?;
        link.clone().ok_or_else(|| self.gone())
    }

    fn gone(&self) -> NoWay {
        NoWay::new(format!("node {} is not linked to the hub", self.name.0))
    }

    /// Resolves when its Control is to end.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Notes how long there and back takes.
    pub fn took(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.round_trip.store(micros.max(1), Relaxed);
    }

    /// How long there and back takes, once measured.
    pub fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Says something on its Control. Waits for nobody: a node that does not read is its own trouble
    /// and not that of whoever wants something of it.
    ///
    /// # Errors
    /// When its Control has ended, or it does not read what it was told before.
    pub fn tell(&self, body: Body) -> Result<(), NoWay> {
        self.say.try_send(body).map_err(|error| match error {
            TrySendError::Full(_) => {
                NoWay::new(format!("node {} does not read what the hub tells it", self.name.0))
            }
            TrySendError::Closed(_) => self.gone(),
        })
    }
}
