//! An API server as a source: every kind is followed, and what is new goes to whoever keeps the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_core::config::ServiceFilter;
use edgemesh_core::dial::Dial;
use edgemesh_core::io::unique_id;
use edgemesh_core::mesh::{Mesh, Supplied, Supplier};
use edgemesh_core::peers::Pause;
use edgemesh_proto::record::NodeName;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kubernetes::asked::{ASKED, Asked, By};
use crate::kubernetes::following::{Following, Teller, Told};
use crate::kubernetes::objects::{News, Objects, record_of};
use crate::kubernetes::server::{Flavour, Found, Server};
use crate::kubernetes::statuses::{self, Statuses};
use crate::kubernetes::{Access, meta_server};
use crate::registry::shared::Shared as Registry;

/// Objects on the way from the followers.
const ON_THE_WAY: usize = 1024;
/// Objects that are taken in before what is new is told.
const AT_ONCE: usize = 20_000;
/// Longest wait at the start until every kind has answered, so that Services come with their Backends.
const FIRST_ANSWERS: Duration = Duration::from_secs(10);

/// What a source is told.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// How the API server is reached.
    pub access: Access,
    /// Makes its connections.
    pub dial: Dial,
    /// An agent's: of Pods, only those of this node are followed.
    pub node: Option<NodeName>,
    /// Which Services are left to others.
    pub service_filter: ServiceFilter,
    /// How patient it is.
    pub pace: Pace,
}

/// How patient a source is.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Pauses after failures.
    pub pause: Pause,
    /// Longest silence within an answer. A watch is never silent for longer than it is asked for.
    pub silence: Duration,
    /// After so many seconds the server ends a watch, and it is gone on with where it ended.
    pub watch_for: u32,
    /// Where nothing can be followed for so long, the server is looked for anew, by what files say then.
    pub renew: Duration,
}

impl Default for Pace {
    /// A server that has just come back is not overrun.
    fn default() -> Self {
        let pause = Pause::new(Duration::from_millis(800), Duration::from_secs(30));
        let renew = Duration::from_secs(60);
        Self { pause, silence: Duration::from_secs(75), watch_for: 60, renew }
    }
}

/// How each kind is, for people. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<ArcSwap<Followed>>);

/// How a source is at one moment.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// URL of the server, when it was found.
    pub server: Box<str>,
    /// By kind.
    pub kinds: BTreeMap<&'static str, KindReport>,
}

/// How one kind is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindReport {
    /// Objects that count.
    pub objects: usize,
    /// Objects that are wrong: they count as they were before, or not at all.
    pub wrong: usize,
    /// It has been listed whole.
    pub synced: bool,
    /// A part of it is known: the node is cut off from its cloud.
    pub partial: bool,
    /// The server knows no such kind.
    pub absent: bool,
    /// Why it cannot be followed at this moment.
    pub trouble: Option<Box<str>>,
    /// How often it could not be followed.
    pub failures: u64,
}

impl Report {
    /// At this moment.
    pub fn get(&self) -> Arc<Followed> {
        self.0.load_full()
    }
}

/// See the module.
pub struct Source {
    options: SourceOptions,
    report: Report,
    objects: Objects,
    followed: Followed,
    /// What is wrong with the server as a whole.
    trouble: Option<String>,
    /// Whoever says what became of each object.
    judged: Option<watch::Sender<statuses::Told>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Source {
    /// A source that has not begun.
    pub fn new(options: SourceOptions, report: Report) -> Self {
        let kinds = ASKED.iter().map(|asked| asked.kind);
        let objects = Objects::new(kinds, options.service_filter);
        let followed = Followed::default();
        Self { options, report, objects, followed, trouble: None, judged: None }
    }

    /// Says in the status of each object of the mesh's own kinds what became of it: of Rules and Policies
    /// as `mesh` has them, with what `registry` knows of Rules on all nodes.
    pub fn say_what_became(
        &mut self,
        mesh: Arc<Mesh>,
        registry: Registry,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (tell, told) = watch::channel(statuses::Told::default());
        self.judged = Some(tell);
        Statuses { told, mesh, registry }.run()
    }

    /// Follows the server and tells `supplier`, for as long as `mesh` runs.
    pub fn follow_for(self, mesh: &Mesh, supplier: Supplier) {
        let shared = mesh.shared();
        let (tasks, stop) = (shared.tasks.clone(), shared.stop.clone());
        shared.tasks.spawn(self.run(supplier, tasks, stop));
    }

    /// Follows the server and tells `supplier`, until the stop or until nobody listens.
    pub async fn run(mut self, supplier: Supplier, tasks: TaskTracker, stop: CancellationToken) {
        let server = Server {
            access: self.options.access.clone(),
            dial: self.options.dial,
            tasks: tasks.clone(),
            // Ends with this function, too.
            stop: stop.child_token(),
        };
        let _end = server.stop.clone().drop_guard();
        let ending = server.stop.clone();
        ending.run_until_cancelled(self.follow(server, supplier)).await;
    }

    /// Finds the server and follows it; again, when it is not to be followed any more.
    async fn follow(&mut self, server: Server, supplier: Supplier) {
        while let Some((client, flavour)) = self.find(&server, &supplier).await {
            if let Some(judged) = self.judged.as_ref().filter(|_| flavour != Flavour::MetaServer) {
                judged.send_modify(|told| told.client = Some(client.clone()));
            }
            self.expect(flavour);
            let life = server.stop.child_token();
            let _end = life.clone().drop_guard();
            let mut hear = self.spawn_followers(client, flavour, &server.tasks, &life);
            self.first_answers(&mut hear).await;
            if !self.pass_on(&mut hear, &supplier).await {
                return;
            }
            tracing::info!("nothing can be followed any more: the API server is looked for anew");
        }
    }

    /// Which kinds are to be followed. What is known stays, unless it was another kind of server.
    fn expect(&mut self, flavour: Flavour) {
        let kinds = || ASKED.iter().filter(|asked| is_followed(asked, flavour)).map(|a| a.kind);
        if !self.followed.kinds.keys().copied().eq(kinds().collect::<BTreeSet<_>>()) {
            self.objects = Objects::new(kinds(), self.options.service_filter);
        }
        self.followed.kinds = kinds().map(|kind| (kind, KindReport::default())).collect();
    }

    /// Has every kind followed until `life` ends.
    fn spawn_followers(
        &self,
        client: kube::Client,
        flavour: Flavour,
        tasks: &TaskTracker,
        life: &CancellationToken,
    ) -> mpsc::Receiver<(&'static Asked, Told)> {
        let (tell, hear) = mpsc::channel(ON_THE_WAY);
        let (returned, returns) = watch::channel(0);
        let spawn = |task: BoxedTask| {
            tasks.spawn(life.clone().run_until_cancelled_owned(task));
        };
        for row in ASKED.iter().filter(|asked| is_followed(asked, flavour)) {
            let following = Following {
                client: client.clone(),
                teller: Teller { asked: row, tell: tell.clone() },
                asked: *row,
                fields: self.fields(row),
                pace: self.options.pace.clone(),
            };
            let returns = returns.clone();
            spawn(Box::pin(async move {
                // Deaf: the source ends.
                match flavour {
                    Flavour::ApiServer { streams } => following.at_api_server(streams).await.ok(),
                    Flavour::MetaServer => following.at_meta_server(returns).await.ok(),
                };
            }));
        }
        if flavour == Flavour::MetaServer {
            spawn(Box::pin(meta_server::look(client, returned)));
        }
        hear
    }

    /// Passes on what is told. `false`: nobody listens; `true`: nothing could be followed for a while.
    async fn pass_on(
        &mut self,
        hear: &mut mpsc::Receiver<(&'static Asked, Told)>,
        supplier: &Supplier,
    ) -> bool {
        let mut failing_since = None;
        while self.tell(supplier).await {
            let Some(told) = hear.recv().await else { return false };
            self.hear(told);
            for _ in 0..AT_ONCE {
                let Ok(told) = hear.try_recv() else { break };
                self.hear(told);
            }
            // Those that are not installed are asked for too seldom to tell.
            let mut installed = self.followed.kinds.values().filter(|kind| !kind.absent);
            let fails = installed.all(|kind| kind.trouble.is_some());
            failing_since = failing_since.filter(|_| fails).or_else(|| fails.then(Instant::now));
            if failing_since
                .is_some_and(|since: Instant| since.elapsed() >= self.options.pace.renew)
            {
                return true;
            }
        }
        false
    }

    /// Finds the server; tells why it cannot, as long as it cannot. `None`: nobody listens.
    async fn find(
        &mut self,
        server: &Server,
        supplier: &Supplier,
    ) -> Option<(kube::Client, Flavour)> {
        let mut pauses = self.options.pace.pause.clone();
        loop {
            let trouble = match server.find(self.options.pace.silence).await {
                Ok(Found { client, url, flavour }) => {
                    tracing::info!(server = %url, ?flavour, "the API server is followed");
                    self.followed.server = url;
                    self.trouble = None;
                    return Some((client, flavour));
                }
                Err(trouble) => trouble,
            };
            if self.trouble.as_ref() != Some(&trouble) {
                tracing::warn!("{trouble}; the last records stay in force");
                self.trouble = Some(trouble);
                if !self.tell(supplier).await {
                    return None;
                }
            }
            sleep(pauses.next(unique_id() as u64)).await;
        }
    }

    /// Waits until every kind has said something: all of it, or what is wrong.
    async fn first_answers(&mut self, hear: &mut mpsc::Receiver<(&'static Asked, Told)>) {
        let until = Instant::now() + FIRST_ANSWERS;
        let answered = |kind: &KindReport| kind.synced || kind.partial || kind.trouble.is_some();
        while !self.followed.kinds.values().all(answered) {
            match timeout_at(until, hear.recv()).await {
                Ok(Some(told)) => self.hear(told),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn hear(&mut self, (asked, told): (&'static Asked, Told)) {
        let kind = self.followed.kinds.entry(asked.kind).or_default();
        match told {
            Told::News(news) => {
                let listed = match news {
                    News::Listed { whole } => Some(whole),
                    News::Absent => Some(true),
                    News::Listing | News::Put(..) | News::Ranges(..) | News::Gone(_) => None,
                };
                if let Some(whole) = listed {
                    kind.absent = news == News::Absent;
                    kind.synced |= whole;
                    kind.partial = !kind.synced;
                    if kind.trouble.take().is_some() {
                        tracing::info!(kind = asked.kind, "followed again");
                    }
                }
                self.objects.hear(asked.kind, news);
            }
            Told::Mark(name, mark) => self.objects.mark(asked.kind, name, mark),
            Told::Trouble(why) => {
                kind.failures += 1;
                if kind.trouble.as_deref() != Some(&*why) {
                    tracing::warn!(kind = asked.kind, "{why}; the last records stay in force");
                    kind.trouble = Some(why.into());
                }
            }
        }
    }

    /// Tells what is new. `false`: nobody listens.
    async fn tell(&mut self, supplier: &Supplier) -> bool {
        let step = self.objects.step();
        for (kind, report) in &mut self.followed.kinds {
            report.objects = self.objects.count(kind);
            report.wrong = self.objects.wrong(kind);
        }
        let trouble = self.trouble();
        let before = self.report.get();
        self.report.0.store(Arc::new(self.followed.clone()));
        let is_other = trouble != trouble_of(&before) || self.trouble.is_some();
        if let Some(tell) = &self.judged
            && let Some(judged) = self.objects.judged()
        {
            tell.send_modify(|told| told.judged = judged.into());
        }
        match step {
            Some(step) => supplier.tell(Supplied { trouble, ..step }).await,
            None if is_other => supplier.tell(self.objects.again(trouble)).await,
            None => true,
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.clone().or_else(|| trouble_of(&self.followed))
    }

    /// By which the objects of a kind are chosen.
    fn fields(&self, asked: &Asked) -> Option<String> {
        let node = self.options.node.as_ref().filter(|_| asked.kind == "Pod")?;
        Some(format!("spec.nodeName={}", node.0))
    }
}

type BoxedTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn is_followed(asked: &Asked, flavour: Flavour) -> bool {
    match (asked.by, flavour) {
        (By::All, Flavour::ApiServer { .. }) => true,
        // Its lists of EndpointSlices are damaged.
        (By::All, Flavour::MetaServer) => asked.kind != "EndpointSlice",
        (By::WithoutSlices, Flavour::ApiServer { .. }) => false,
        (By::WithoutSlices, Flavour::MetaServer) => true,
    }
}

/// What is wrong with kinds; said once where it is the same of several. Whose objects become no records
/// keeps nobody from the records: a role of before there was such a kind does not let it be read.
fn trouble_of(followed: &Followed) -> Option<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, report) in followed.kinds.iter().filter(|(kind, _)| record_of(kind).is_some()) {
        if let Some(why) = &report.trouble {
            by_reason.entry(why).or_default().push(kind);
        }
    }
    if by_reason.is_empty() {
        return None;
    }
    let said = by_reason.iter().map(|(why, kinds)| format!("{}: {why}", kinds.join(", ")));
    Some(format!("API server {}: {}", followed.server, said.collect::<Vec<_>>().join("; ")))
}
