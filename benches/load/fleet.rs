//! Many agents in one process, as far as the hub can tell: they join, keep Control, decode every step
//! of the records and acknowledge it. What they would make of the records is left out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgemesh_core::dial::Dial;
use edgemesh_core::identity::{Clock, OFFLINE_GRACE, Tls};
use edgemesh_core::lanes::Seats;
use edgemesh_core::link::{Answering, Called, Rest, Serve};
use edgemesh_core::peers::{
    Advertise, Introduction, Joining, Position, Talk, Uplink, UplinkParts, message,
};
use edgemesh_core::sync::replica::{Reaction, Replica};
use edgemesh_proto::message::{Refused, Selector};
use edgemesh_proto::record::NodeName;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Agents that join at once: a token is checked on the hub's disk.
const JOINING: usize = 8;

/// What an agent tells of itself: it stored a step.
type Stored = (u64, u64);

/// Runs `count` agents against the hub at `server` for `time`; prints a line for each revision that
/// all of them have: when the first, the hundredth in a hundred, and the last had it, in
/// microseconds since 1970.
pub(crate) async fn run(
    server: &str,
    token: &Path,
    count: usize,
    time: Duration,
) -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("edgemesh-fleet-{}", std::process::id()));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (tell, mut told) = mpsc::channel(1024);
    let began = micros();
    let mut waiting: Vec<NodeName> =
        (0..count).map(|n| NodeName(format!("fleet-{n}").into())).collect();
    while !waiting.is_empty() {
        let some = waiting.split_off(waiting.len().saturating_sub(JOINING));
        let joined = some.iter().map(|node| {
            let agent = Agent { node: node.clone(), server: server.into(), token: token.into() };
            agent.start(folder.join(&*node.0), tell.clone(), tasks.clone(), stop.clone())
        });
        futures_util::future::try_join_all(joined).await?;
    }
    drop(tell);
    print(&serde_json::json!({ "joined": count, "micros": micros() - began }));
    let mut revisions: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let until = tokio::time::Instant::now() + time;
    while let Ok(Some((revision, at))) = tokio::time::timeout_at(until, told.recv()).await {
        let all = revisions.entry(revision).or_default();
        all.push(at);
        if all.len() == count {
            all.sort_unstable();
            let p99 = all[(count * 99 / 100).min(count - 1)];
            print(&serde_json::json!({
                "revision": revision, "first": all[0], "p99": p99, "last": all[count - 1],
            }));
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    std::fs::remove_dir_all(folder)
}

struct Agent {
    node: NodeName,
    server: Box<str>,
    token: PathBuf,
}

impl Agent {
    /// Joins, and keeps in step from then on.
    async fn start(
        self,
        data_dir: PathBuf,
        tell: mpsc::Sender<Stored>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> io::Result<()> {
        std::fs::create_dir_all(&data_dir)?;
        let clock = Arc::new(Clock::open(&data_dir));
        let joining = Joining {
            node: &self.node,
            data_dir: &data_dir,
            token_file: Some(&self.token),
            servers: std::slice::from_ref(&self.server),
            dial: Dial::default(),
            clock: &clock,
            grace: OFFLINE_GRACE,
            tasks: &tasks,
        };
        let identity = joining.join().await.map_err(io::Error::other)?;
        let (asked, _) = mpsc::channel(1);
        let uplink = Uplink::new(UplinkParts {
            node: self.node.clone(),
            instance: edgemesh_core::io::unique_id().to_le_bytes(),
            introduction: Introduction {
                servers: vec![self.server],
                links: Advertise::Fixed(Vec::new()),
                selector: Selector::default(),
                generation: 1,
                takes_over: false,
            },
            dial: Dial::default(),
            tls: Arc::new(Tls::new(identity, clock, OFFLINE_GRACE)),
            handler: Arc::new(Deaf),
            asked,
            seats: Seats::default(),
            tasks: tasks.clone(),
            stop,
        });
        let (talks, conversations) = mpsc::channel(1);
        let (position, holding) = watch::channel(Position::default());
        tasks.spawn(uplink.run(holding, talks));
        tasks.spawn(follow(conversations, position, tell));
        Ok(())
    }
}

/// Decodes and acknowledges, for as long as there are conversations.
async fn follow(
    mut conversations: mpsc::Receiver<Talk>,
    position: watch::Sender<Position>,
    tell: mpsc::Sender<Stored>,
) {
    let mut replica = Replica::new([0; 16], 0, []);
    while let Some(mut talk) = conversations.recv().await {
        replica.begin();
        while let Some(body) = talk.incoming.recv().await {
            let answer = match replica.on(body) {
                Ok(Reaction::Nothing) | Err(_) => continue,
                Ok(Reaction::Say(body)) => body,
                Ok(Reaction::Apply(step)) => {
                    // Bodies are looked into, as an agent would.
                    let readable = step.put.iter().filter(|put| put.record().is_ok()).count();
                    std::hint::black_box(readable);
                    let to = step.to;
                    position.send_replace(Position {
                        epoch: to.epoch,
                        revision: to.revision,
                        digest: to.digest,
                    });
                    if tell.send((to.revision, micros())).await.is_err() {
                        return;
                    }
                    replica.done(true)
                }
            };
            if talk.outgoing.send(answer).await.is_err() {
                break;
            }
        }
    }
}

/// Serves nobody.
#[derive(Debug)]
struct Deaf;

impl Serve for Deaf {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        let text = "this is a load generator".to_owned();
        let refused = Refused { label: "noService".into(), text, retry_after_ms: 0 };
        let opening = message(["fleet", &called.opening.route.source], refused.into());
        Box::pin(async move { Answering { opening, rest: Rest::Nothing } })
    }
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::print_stdout, reason = "what a load generator is for")]
fn print(line: &serde_json::Value) {
    println!("{line}");
}
