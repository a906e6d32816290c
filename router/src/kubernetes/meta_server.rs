//! One kind of object, followed at KubeEdge's MetaServer.
//!
//! It is no API server: a watch replays what the node has stored, which may be old, and leaves out what
//! is older than its newest object; a watch whose other end in the cloud was lost stays open and silent;
//! and a list that is asked for while the cloud is away is made of what happens to be stored. So
//! lists say what there is, also soon after a watch was opened, events up to the newest whole list are not
//! believed, and a list of an edge that is alone takes nothing away.

use std::collections::HashMap;
use std::time::Duration;

use edgemesh_core::io::unique_id;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use kube::Client;
use kube::api::{WatchEvent, WatchParams};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::kubernetes::following::{Deaf, Following};
use crate::kubernetes::objects::{Name, News};
use crate::kubernetes::seen::Seen;
use crate::kubernetes::words;

/// When to list again after a watch was opened: what it leaves out is pushed within a moment.
const SOON: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];
/// When to list again after that.
const LATER: Duration = Duration::from_secs(120);
/// How often is asked whether the cloud is there: then what watches lost there is asked for anew.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A watch that ended sooner is opened again after a pause.
const SHORT: Duration = Duration::from_secs(5);
/// A watch is opened anew after this long: it may have been lost where nobody told.
const RENEW: Duration = Duration::from_secs(9 * 60);
/// Longest silence of a watch: here they say nothing where nothing happens.
pub(super) const SILENCE: Duration = Duration::from_secs(10 * 60);

/// A list as MetaServer says it. One that is made of what the node has stored names its table.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Seen>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    self_link: Option<String>,
}

impl List {
    /// It comes from the cloud, and is all there is.
    fn is_whole(&self) -> bool {
        self.metadata.self_link.is_none() && !self.metadata.resource_version.is_empty()
    }

    /// The cloud knows no such kind, or it is away and nothing of it is stored.
    fn is_of_nothing(&self) -> bool {
        self.metadata.self_link.is_none()
            && self.metadata.resource_version.is_empty()
            && self.items.is_empty()
    }
}

/// Wakes when the node is in touch with the cloud again.
pub(super) type Returns = watch::Receiver<u64>;

/// What has been told, by its version: versions of all objects are numbers of one row.
#[derive(Default)]
struct Versions {
    /// That of the newest whole list: what is not newer is in it.
    listed: u64,
    of: HashMap<Name, u64>,
}

impl Versions {
    /// Whether an object that was stored with `version` is no older than what is known of it.
    fn is_current(&mut self, name: &Name, version: Option<u64>) -> bool {
        let Some(version) = version else { return true };
        let is_current = match self.of.get(name) {
            Some(known) => version >= *known,
            None => version > self.listed,
        };
        if is_current {
            self.of.insert(name.clone(), version);
        }
        is_current
    }

    /// Whether the end of an object is one of what is known; one that was made anew since is not gone.
    fn is_end(&mut self, name: &Name, version: Option<u64>) -> bool {
        let known = self.of.get(name).copied().unwrap_or(0);
        let is_end = version.is_none_or(|version| version >= known);
        if is_end {
            self.of.remove(name);
        }
        is_end
    }
}

/// Why a watch is over.
enum Stop {
    Deaf,
    Failed(kube::Error),
    /// A list did not come in time.
    Silent,
    /// It is to be an older version.
    Older,
}

impl From<Deaf> for Stop {
    fn from(_: Deaf) -> Self {
        Self::Deaf
    }
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

/// Asks now and then whether the cloud is there, and counts in `tell` how often it came back.
pub(super) async fn look(client: Client, tell: watch::Sender<u64>) {
    let mut was_there = true;
    loop {
        sleep(LOOK_EVERY).await;
        let is_there = is_cloud_there(&client).await;
        if is_there && !was_there {
            tell.send_modify(|returns| *returns += 1);
        }
        was_there = is_there;
    }
}

async fn is_cloud_there(client: &Client) -> bool {
    let Ok(request) = Request::get("/api/v1/nodes?limit=1").body(Vec::new()) else { return false };
    client.request::<List>(request).await.is_ok_and(|list| list.is_whole())
}

impl Following {
    /// Follows the kind at a MetaServer.
    pub(super) async fn at_meta_server(mut self, mut returns: Returns) -> Result<(), Deaf> {
        let mut pauses = self.pace.pause.clone();
        loop {
            let opened = Instant::now();
            match self.watch_and_list(&mut returns).await {
                Err(Stop::Deaf) => return Err(Deaf),
                Err(Stop::Older) => continue,
                Err(Stop::Failed(error)) => self.teller.trouble(words::of(&error)).await?,
                Err(Stop::Silent) => {
                    let silence = self.pace.silence.as_secs();
                    self.teller.trouble(format!("no list within {silence} s")).await?;
                }
                Ok(()) if opened.elapsed() >= SHORT => {
                    pauses.reset();
                    continue;
                }
                Ok(()) => {}
            }
            pauses.worked(opened.elapsed());
            sleep(pauses.next(unique_id() as u64)).await;
        }
    }

    /// One watch, from its opening to its end.
    async fn watch_and_list(&mut self, returns: &mut Returns) -> Result<(), Stop> {
        returns.mark_unchanged();
        let field_selector = self.fields.clone();
        let params = WatchParams { field_selector, ..WatchParams::default() };
        let api = self.api();
        // Of what it does not know it may say nothing at all, until it ends.
        let opening = async move { api.watch(&params, "0").await };
        let mut events = Box::pin(stream::once(opening).try_flatten());
        let mut versions = Versions::default();
        let opened = Instant::now();
        let (mut due, mut soon) = (opened, SOON.iter());
        loop {
            tokio::select! {
                // A list before the events that it makes old.
                biased;
                () = sleep_until(due) => {
                    self.list(&mut versions).await?;
                    due = soon.next().map_or_else(|| Instant::now() + LATER, |after| opened + *after);
                }
                event = events.next() => match event {
                    Some(event) => self.event(event?, &mut versions).await?,
                    None => return Ok(()),
                },
                // The watch may be lost there: it is opened anew.
                Ok(()) = returns.changed() => return Ok(()),
                () = sleep_until(opened + RENEW) => return Ok(()),
            }
        }
    }

    async fn event(&self, event: WatchEvent<Seen>, versions: &mut Versions) -> Result<(), Stop> {
        let news = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let name = object.name().filter(|n| versions.is_current(n, object.version()));
                name.and_then(|_| object.put(&self.asked))
            }
            WatchEvent::Deleted(object) => {
                let name = object.name().filter(|name| versions.is_end(name, object.version()));
                name.and_then(|_| object.gone())
            }
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        Ok(self.teller.news(news).await?)
    }

    async fn list(&mut self, versions: &mut Versions) -> Result<(), Stop> {
        let list = timeout(self.pace.silence, self.listed()).await.map_err(|_| Stop::Silent)??;
        let of_nothing = list.is_of_nothing() && self.asked.optional;
        if of_nothing && is_cloud_there(&self.client).await {
            if self.turn_to_older() {
                return Err(Stop::Older);
            }
            return Ok(self.teller.news(Some(News::Absent)).await?);
        }
        let whole = list.is_whole();
        if whole {
            versions.listed = list.metadata.resource_version.parse().unwrap_or(0);
            versions.of.clear();
        }
        self.teller.news(Some(News::Listing)).await?;
        for object in list.items {
            let Some(name) = object.name() else { continue };
            let version = object.version();
            if whole {
                versions.of.extend(version.map(|version| (name, version)));
            } else if !versions.is_current(&name, version) {
                continue;
            }
            self.teller.news(object.put(&self.asked)).await?;
        }
        Ok(self.teller.news(Some(News::Listed { whole })).await?)
    }

    async fn listed(&self) -> Result<List, kube::Error> {
        let asked = &self.asked;
        let root = if asked.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}/{}", asked.api_version(), asked.resource);
        if let Some(fields) = &self.fields {
            path.push_str("?fieldSelector=");
            path.push_str(&fields.replace('=', "%3D"));
        }
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_older_than_what_is_known_counts() {
        let name = |name: &str| Name { namespace: "demo".into(), name: name.into() };
        let mut versions = Versions { listed: 10, of: HashMap::from([(name("web"), 7)]) };
        assert!(!versions.is_current(&name("web"), Some(6)), "replayed from an old store");
        assert!(versions.is_current(&name("web"), Some(7)));
        assert!(!versions.is_current(&name("gone"), Some(9)), "the list would have it");
        assert!(versions.is_current(&name("new"), Some(11)));
        assert!(!versions.is_end(&name("new"), Some(8)), "an earlier one of that name");
        assert!(versions.is_end(&name("new"), Some(12)));
        assert!(versions.is_end(&name("web"), None));
    }

    #[test]
    fn lists_of_the_cloud_are_told_from_lists_of_the_store() {
        for (text, whole, of_nothing) in [
            (r#"{"items": [], "metadata": {"resourceVersion": "641"}}"#, true, false),
            (
                r#"{"metadata": {"resourceVersion": "641", "selfLink": "/core/v1/pods/null/null"}}"#,
                false,
                false,
            ),
            (r#"{"kind": "NosuchthingList", "items": []}"#, false, true),
        ] {
            let list: List = serde_json::from_str(text).unwrap();
            assert_eq!((list.is_whole(), list.is_of_nothing()), (whole, of_nothing), "{text}");
        }
    }
}
