//! What became of the mesh's own objects, written into their `status` by server-side apply.
//!
//! Level-triggered and slow: a look every few seconds, a condition that has changed at the next look,
//! counters now and then, never per message, so much at once. What cannot be written is tried again; a server
//! whose definitions have no `status` is left alone for a while.

mod wanted;

use std::collections::BTreeMap;
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
/// A kind whose status cannot be written is left alone for so long.
const ASIDE: Duration = Duration::from_secs(60);
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

/// When an object was last written, by kind and name.
type Written = BTreeMap<(&'static str, Name), Instant>;

impl Statuses {
    pub(super) async fn run(self) {
        let (mut written, mut aside) = (Written::new(), BTreeMap::new());
        loop {
            sleep(LOOK_EVERY).await;
            let Told { client: Some(client), judged } = self.told.borrow().clone() else {
                continue;
            };
            written.retain(|(kind, name), _| {
                judged.iter().any(|one| one.kind == *kind && one.name == *name)
            });
            aside.retain(|_, until| *until > now());
            self.look(&client, &judged, &mut written, &mut aside).await;
        }
    }

    async fn look(
        &self,
        client: &Client,
        judged: &[Judged],
        written: &mut Written,
        aside: &mut BTreeMap<&'static str, Instant>,
    ) {
        let facts = Facts::new(&self.mesh.snapshot(), self.registry.counts());
        let mut left = AT_ONCE;
        for one in judged {
            let at = (one.kind, one.name.clone());
            let wanted = facts.status(one);
            let is_due = written.get(&at).is_none_or(|at| now() >= *at + COUNTS_EVERY);
            let is_settled = is_same(&one.mark.status, &wanted)
                || !is_due && is_same_but_for_counts(&one.mark.status, &wanted);
            if is_settled || aside.contains_key(one.kind) {
                continue;
            }
            if left == 0 {
                return;
            }
            left -= 1;
            match write(client, one, wanted).await {
                Ok(()) => drop(written.insert(at, now())),
                Err(error) => {
                    let why = words::of(&error);
                    tracing::warn!(kind = one.kind, "its status cannot be written: {why}");
                    aside.insert(one.kind, now() + ASIDE);
                }
            }
        }
    }
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
        // It is gone, which the watch is about to tell; or its kind has no status to write.
        Err(kube::Error::Api(gone)) if gone.code == 404 && gone.message.contains(&**name) => Ok(()),
        written => written.map(drop),
    }
}
