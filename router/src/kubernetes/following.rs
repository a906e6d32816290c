//! One kind of object, followed at its server for as long as the process lives.

use std::time::Duration;

use edgemesh_core::io::{now, unique_id};
use futures_util::StreamExt as _;
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::kubernetes::asked::Asked;
use crate::kubernetes::objects::{Mark, Name, News};
use crate::kubernetes::seen::Seen;
use crate::kubernetes::source::Pace;
use crate::kubernetes::words;

/// Objects in one part of a list.
pub(super) const PAGE: u32 = 250;
/// A kind that the server does not know is looked for again after this long.
const ABSENT_AGAIN: Duration = Duration::from_secs(30);

/// What one kind tells.
#[derive(Debug)]
pub(super) enum Told {
    /// Of its objects.
    News(News),
    /// What the server holds of an object.
    Mark(Name, Mark),
    /// They cannot be followed at this moment, and why.
    Trouble(String),
}

/// Tells of one kind. Waits where nobody keeps up.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    pub(super) asked: &'static Asked,
    pub(super) tell: mpsc::Sender<(&'static Asked, Told)>,
}

/// Whoever listened has ended.
#[derive(Debug)]
pub(super) struct Deaf;

impl Teller {
    pub(super) async fn news(&self, news: Option<News>) -> Result<(), Deaf> {
        let Some(news) = news else { return Ok(()) };
        self.tell.send((self.asked, Told::News(news))).await.map_err(|_| Deaf)
    }

    pub(super) async fn trouble(&self, why: String) -> Result<(), Deaf> {
        self.tell.send((self.asked, Told::Trouble(why))).await.map_err(|_| Deaf)
    }
}

/// How one kind is followed.
#[derive(Clone)]
pub(super) struct Following {
    pub(super) client: Client,
    pub(super) teller: Teller,
    /// With the version that the server has.
    pub(super) asked: Asked,
    /// Only objects with this field, `spec.nodeName=edge-1`.
    pub(super) fields: Option<String>,
    pub(super) pace: Pace,
}

/// Why a stream of events ended.
enum Ended {
    /// It is to be begun anew after a pause.
    Failed,
    /// The server has no such kind.
    Absent,
    /// The server does not tell lists as streams.
    NoStreams,
}

impl Following {
    pub(super) fn api(&self) -> Api<Seen> {
        Api::all_with(self.client.clone(), &resource(&self.asked))
    }

    /// Turns to the next version where the server does not have this one. `false`: there is none; from now
    /// on it is the first again.
    pub(super) fn turn_to_older(&mut self) -> bool {
        let row = self.teller.asked;
        let all = std::iter::once(row.version).chain(row.older.iter().copied());
        let next = all.skip_while(|version| *version != self.asked.version).nth(1);
        self.asked.version = next.unwrap_or(row.version);
        next.is_some()
    }

    async fn put(&self, object: Seen) -> Result<(), Deaf> {
        let Teller { asked, tell } = &self.teller;
        if let Some((name, mark)) = object.mark(asked) {
            tell.send((asked, Told::Mark(name, mark))).await.map_err(|_| Deaf)?;
        }
        self.teller.news(object.put(&self.asked)).await
    }

    /// Follows the kind at an API server, which tells its list as a stream where `streams`.
    pub(super) async fn at_api_server(mut self, mut streams: bool) -> Result<(), Deaf> {
        let mut pauses = self.pace.pause.clone();
        loop {
            let began = now();
            match self.events(streams).await? {
                Ended::NoStreams => streams = false,
                Ended::Absent if self.turn_to_older() => {}
                Ended::Absent => {
                    self.teller.news(Some(News::Absent)).await?;
                    sleep(ABSENT_AGAIN).await;
                }
                Ended::Failed => {
                    pauses.worked(now().saturating_duration_since(began));
                    sleep(pauses.next(unique_id() as u64)).await;
                }
            }
        }
    }

    /// Tells of everything until something fails. A stream that only ends is gone on with where it ended;
    /// after a failure all is listed anew, so that nothing can be missed.
    async fn events(&self, streams: bool) -> Result<Ended, Deaf> {
        let mut events = watcher(self.api(), self.config(streams)).boxed();
        let mut is_listing = false;
        while let Some(event) = events.next().await {
            let news = match event {
                // A stream that is too long for the time of a watch would begin anew for ever.
                Ok(Event::Init) if streams && is_listing => return Ok(Ended::NoStreams),
                Ok(Event::Init) => {
                    is_listing = true;
                    Some(News::Listing)
                }
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    self.put(object).await?;
                    continue;
                }
                Ok(Event::Delete(object)) => object.gone(),
                Ok(Event::InitDone) => {
                    is_listing = false;
                    Some(News::Listed { whole: true })
                }
                Err(error) => return self.failed(&error, streams).await,
            };
            self.teller.news(news).await?;
        }
        Ok(Ended::Failed)
    }

    async fn failed(&self, error: &watcher::Error, streams: bool) -> Result<Ended, Deaf> {
        let is_start = matches!(error, watcher::Error::WatchStartFailed(_));
        match words::code(error) {
            Some(404) if self.asked.optional && words::is_unknown_kind(error) => {
                return Ok(Ended::Absent);
            }
            Some(400 | 422) if streams && is_start => return Ok(Ended::NoStreams),
            // What was known is too old to go on with; a new list mends it.
            Some(410) => tracing::debug!(kind = self.teller.asked.kind, "listed anew: {error}"),
            Some(_) | None => self.teller.trouble(words::of_watch(error)).await?,
        }
        Ok(Ended::Failed)
    }

    fn config(&self, streams: bool) -> watcher::Config {
        let config = watcher::Config::default().timeout(self.pace.watch_for).page_size(PAGE);
        let config = if streams { config.streaming_lists() } else { config };
        match &self.fields {
            Some(fields) => config.fields(fields),
            None => config,
        }
    }
}

/// As `kube` names a kind.
pub(super) fn resource(asked: &Asked) -> ApiResource {
    ApiResource {
        group: asked.group.into(),
        version: asked.version.into(),
        api_version: asked.api_version(),
        kind: asked.kind.into(),
        plural: asked.resource.into(),
    }
}
