//! What became of the mesh's own objects, written into their `status` by server-side apply.
//!
//! Level-triggered and slow: a look every few seconds, a condition that has changed at the next look,
//! counters now and then, never per message, so much at once. What cannot be written is tried again; a server
//! whose definitions have no `status` is left alone for a while.

mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_core::io::now;
use edgemesh_core::mesh::Mesh;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::kubernetes::asked::{ASKED, Asked};
use crate::kubernetes::following::resource;
use crate::kubernetes::objects::{Judged, Name};
use crate::kubernetes::seen::Seen;
use crate::kubernetes::statuses::wanted::{Facts, is_same, is_same_but_for_counts};
use crate::kubernetes::words;
use crate::registry::shared::Shared as Registry;

/// How often is looked what there is to be written.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Objects that are written at one look; others wait for the next.
const AT_ONCE: usize = 50;
/// Counters alone are written so often.
const COUNTS_EVERY: Duration = Duration::from_secs(15);
/// An object whose status cannot be written is left alone for so long.
const ASIDE: Duration = Duration::from_secs(60);
/// So long is a kind whose definition has no status.
const KIND_ASIDE: Duration = Duration::from_secs(600);
/// Who it is that writes, in `managedFields`.
const MANAGER: &str = "edgemesh";

/// What is to be said, and to whom.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) client: Option<Client>,
    pub(super) judged: Arc<[Judged]>,
}

/// Writes what is told.
pub(super) struct Statuses {
    pub(super) told: watch::Receiver<Told>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) registry: Registry,
}

/// Kind and name.
type At = (&'static str, Name);

/// What was written, and what cannot be.
#[derive(Default)]
struct Progress {
    written: BTreeMap<At, Instant>,
    aside: BTreeMap<At, Instant>,
    kinds_aside: BTreeMap<&'static str, Instant>,
    /// What was said of it.
    said: BTreeSet<(&'static str, String)>,
    /// Where the next look begins, so that all have their turn.
    next: usize,
}

impl Statuses {
    pub(super) async fn run(self) {
        let mut progress = Progress::default();
        loop {
            sleep(LOOK_EVERY).await;
            let Told { client: Some(client), judged } = self.told.borrow().clone() else {
                continue;
            };
            progress.forget_others(&judged);
            self.look(&client, &judged, &mut progress).await;
        }
    }

    async fn look(&self, client: &Client, judged: &[Judged], progress: &mut Progress) {
        let facts = Facts::new(&self.mesh.snapshot(), self.registry.counts());
        let (mut changed, mut counted) = (Vec::new(), Vec::new());
        let from = progress.next.checked_rem(judged.len()).unwrap_or(0);
        for (index, one) in judged.iter().enumerate().cycle().skip(from).take(judged.len()) {
            let Some(wanted) = facts.status(one) else { continue };
            if is_same(&one.mark.status, &wanted) || progress.is_aside(one) {
                continue;
            }
            match is_same_but_for_counts(&one.mark.status, &wanted) {
                false => changed.push((index, one, wanted)),
                true if progress.is_due(one) => counted.push((index, one, wanted)),
                true => {}
            }
        }
        for (index, one, wanted) in changed.into_iter().chain(counted).take(AT_ONCE) {
            progress.next = index + 1;
            let wrote = write(client, one, wanted).await;
            progress.note(one, wrote);
        }
    }
}

impl Progress {
    /// Objects that are gone, and times that are over.
    fn forget_others(&mut self, judged: &[Judged]) {
        let there: BTreeSet<At> = judged.iter().map(at).collect();
        self.written.retain(|at, _| there.contains(at));
        self.aside.retain(|at, until| there.contains(at) && *until > now());
        self.kinds_aside.retain(|_, until| *until > now());
    }

    fn is_aside(&self, one: &Judged) -> bool {
        self.kinds_aside.contains_key(one.kind) || self.aside.contains_key(&at(one))
    }

    fn is_due(&self, one: &Judged) -> bool {
        self.written.get(&at(one)).is_none_or(|written| now() >= *written + COUNTS_EVERY)
    }

    fn note(&mut self, one: &Judged, wrote: Result<(), kube::Error>) {
        let Err(error) = wrote else {
            self.written.insert(at(one), now());
            return;
        };
        let is_unknown = matches!(&error, kube::Error::Api(status) if status.code == 404);
        match is_unknown {
            true => drop(self.kinds_aside.insert(one.kind, now() + KIND_ASIDE)),
            false => drop(self.aside.insert(at(one), now() + ASIDE)),
        }
        let why = words::of(&error);
        if self.said.len() < AT_ONCE && self.said.insert((one.kind, why.clone())) {
            let Name { namespace, name } = &one.name;
            tracing::warn!(kind = one.kind, %namespace, %name, "its status cannot be written: {why}");
        }
    }
}

fn at(one: &Judged) -> At {
    (one.kind, one.name.clone())
}

async fn write(client: &Client, one: &Judged, status: Value) -> Result<(), kube::Error> {
    let Some(asked) = ASKED.iter().find(|asked: &&Asked| asked.kind == one.kind) else {
        return Ok(());
    };
    let Name { namespace, name } = &one.name;
    let api: Api<Seen> = Api::namespaced_with(client.clone(), namespace, &resource(asked));
    let body = json!({
        "apiVersion": asked.api_version(),
        "kind": asked.kind,
        "metadata": {"namespace": namespace, "name": name},
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(body)).await {
        // It is gone, which the watch is about to tell.
        Err(kube::Error::Api(gone)) if gone.code == 404 && names(&gone, name) => Ok(()),
        written => written.map(drop),
    }
}

/// Whether a refusal is about that object, and not about its kind.
fn names(status: &kube::core::Status, name: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.name == name)
}
