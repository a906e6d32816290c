//! Accepts connections, makes room for them, and gives each a task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::forward::flow::Flow;
use crate::forward::{Place, Shared, Turn};
use crate::io::now;
use crate::lanes::{Lane, Lanes};
use crate::listen::{Accepted, Came, Listener, came};
use crate::proxy::crowd::Crowd;
use crate::proxy::flow;
use crate::refusal::Refusal;

/// A connection for which there is room.
#[derive(Debug)]
pub struct Newcomer {
    /// What every flow uses.
    pub shared: Arc<Shared>,
    /// The connection.
    pub stream: TcpStream,
    /// Who dialled.
    pub peer: SocketAddr,
    /// Its room.
    pub place: Arc<Place>,
}

/// What becomes of connections.
pub trait Entrance: Clone + Send + Sync + 'static {
    /// Serves one to its end, and holds its place for as long.
    fn serve(&self, newcomer: Newcomer) -> impl Future<Output = ()> + Send + 'static;
}

/// Serves what the kernel redirected here, and the explicit proxy.
#[derive(Clone, Copy, Debug)]
pub struct Redirected;

impl Entrance for Redirected {
    fn serve(&self, newcomer: Newcomer) -> impl Future<Output = ()> + Send + 'static {
        flow(newcomer)
    }
}

/// What the accept loops of one mesh share.
#[derive(Clone, Debug)]
pub struct Proxy<E = Redirected> {
    entrance: E,
    shared: Arc<Shared>,
    /// Room for connections; over it the oldest idle one goes, or the new one is reset at once.
    room: Arc<Semaphore>,
    /// Ends the loops; what was accepted goes on.
    accepting: CancellationToken,
    crowd: Arc<Crowd>,
    /// Where it accepts; `None` = in the runtime that it is called in.
    lane: Option<Lane>,
}

/// How soon the task of a connection that was shed has given its room back, on a busy machine too.
const SHED_WITHIN: Duration = Duration::from_secs(1);

impl<E: Entrance> Proxy<E> {
    /// Loops that share `room` for connections, until `accepting` ends them.
    pub fn new(
        entrance: E,
        shared: Arc<Shared>,
        room: usize,
        accepting: CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(room));
        Self { entrance, shared, room, accepting, crowd: Arc::default(), lane: None }
    }

    /// The same, that accepts in `lane`.
    pub(super) fn within(self, lane: Lane) -> Self {
        Self { lane: Some(lane), ..self }
    }

    /// Accepts from `listener` in every lane, each for itself; where there are none, in this runtime.
    pub fn start(self, listener: Listener, lanes: &Lanes) {
        let tasks = self.shared.tasks.clone();
        let each = lanes.each().map(|lane| Ok((lane, listener.duplicate()?)));
        match each.collect::<io::Result<Vec<_>>>() {
            Ok(each) if !each.is_empty() => {
                for (lane, same) in each {
                    let proxy = self.clone().within(lane.clone());
                    let accepting = async move {
                        match Listener::from_std(same.into()) {
                            Ok(listener) => proxy.run(listener).await,
                            Err(error) => tracing::error!(%error, "a lane cannot accept"),
                        }
                    };
                    tasks.spawn_on(accepting, lane.handle());
                }
            }
            Ok(_) => drop(tasks.spawn(self.run(listener))),
            Err(error) => {
                tracing::warn!(%error, "lanes have no listeners; serving without");
                tasks.spawn(self.run(listener));
            }
        }
    }

    /// Accepts until told to stop, and lets what was accepted end, or cuts it. Connections that cannot
    /// be served for lack of room are reset, so that their clients know at once.
    pub async fn run(self, listener: Listener) {
        let accepting = self.accepting.clone();
        let make_room = || {
            self.shared.pools.sweep_all();
            self.shed_oldest_idle();
        };
        while let Some(accepted) = accepting.run_until_cancelled(listener.accept(make_room)).await {
            let (stream, peer) = match accepted {
                Accepted::Served(stream, peer) => (stream, peer),
                Accepted::NoFiles(stream, peer) => {
                    self.shed(&stream, peer);
                    continue;
                }
            };
            match self.room().await {
                Some(room) => self.begin(room, stream, peer),
                None => self.shed(&stream, peer),
            }
        }
        drop(listener);
        tokio::select! {
            () = self.crowd.gone() => {}
            // Here and not in each of them, which would look at it whenever anything is said.
            () = self.shared.cut.cancelled() => self.crowd.end(),
        }
    }

    /// Room for one more; where there is none, that of a connection on which nothing is under way.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            return Some(room);
        }
        if !self.shed_oldest_idle() {
            return None;
        }
        tokio::time::timeout(SHED_WITHIN, self.room.clone().acquire_owned()).await.ok()?.ok()
    }

    fn shed_oldest_idle(&self) -> bool {
        let shed = self.crowd.shed_oldest_idle(now());
        self.shared.metrics.connections_shed.fetch_add(u64::from(shed), Relaxed);
        shed
    }

    fn begin(&self, room: OwnedSemaphorePermit, stream: TcpStream, peer: SocketAddr) {
        let turn = Arc::<Turn>::default();
        let open = self.shared.metrics.connection();
        let seat = self.lane.as_ref().map(Lane::seat);
        let elsewhere = seat.as_ref().zip(self.lane.as_ref()).and_then(|(s, own)| s.outside(own));
        let place = Arc::new(Place { room, open, turn: turn.clone(), seat });
        let (entrance, shared, tasks) =
            (self.entrance.clone(), self.shared.clone(), &self.shared.tasks);
        self.crowd.join(turn, now(), |member| match elsewhere {
            None => {
                let flow = entrance.serve(Newcomer { shared, stream, peer, place });
                let serving = async move {
                    let _listed = member;
                    flow.await;
                };
                tasks.spawn(serving).abort_handle()
            }
            Some(lane) => {
                // Told of what comes by the thread that serves it.
                let moving = stream.into_std();
                let serving = async move {
                    let _listed = member;
                    match moving.and_then(TcpStream::from_std) {
                        Ok(stream) => {
                            entrance.serve(Newcomer { shared, stream, peer, place }).await;
                        }
                        Err(error) => tracing::warn!(%error, "no way for a connection to its lane"),
                    }
                };
                tasks.spawn_on(serving, &lane).abort_handle()
            }
        });
    }

    fn shed(&self, stream: &TcpStream, peer: SocketAddr) {
        self.shared.metrics.connections_shed.fetch_add(1, Relaxed);
        let to = match came(stream, peer) {
            Ok(Came::Captured(to)) => Some(to),
            Ok(Came::Direct) | Err(_) => None,
        };
        Flow::begin(&self.shared, peer, to).refuse(stream, Refusal::Overloaded);
    }
}
