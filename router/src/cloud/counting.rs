//! What Rules have counted: the cloud's own counts join those of the nodes, and all are kept.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::mesh::Mesh;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::Rule;
use edgemesh_proto::message::{Counts, RuleCount};
use tokio_util::sync::CancellationToken;

use crate::registry::shared::Shared as Registry;

/// How often; a kill loses no more of them.
const EVERY: Duration = Duration::from_secs(1);
/// It never changes: what the disk loses of the cloud's own counts, the cloud has lost too.
const COUNTER: [u8; 16] = [0; 16];

#[derive(Clone)]
pub(super) struct Counting {
    pub(super) registry: Registry,
    pub(super) mesh: Arc<Mesh>,
}

impl Counting {
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut tick = tokio::time::interval(EVERY);
            loop {
                tick.tick().await;
                self.count().await;
            }
        })
        .await;
    }

    /// Also once more at the end.
    pub(super) async fn count(&self) {
        count_own(&self.registry, &self.mesh.snapshot());
        self.registry.keep_counts().await;
    }
}

/// Tells the registry what the cloud's own process has counted by now.
pub fn count_own(registry: &Registry, snapshot: &Snapshot) {
    let count = |rule: &Arc<Rule>| {
        let (success, fail) = rule.live.counts();
        let last_success = rule.live.last_success().unwrap_or(0);
        // What is wrong here, the Rule's own state says.
        let trouble = None;
        RuleCount { rule: rule.name.clone(), success, fail, last_success, trouble }
    };
    let rules = snapshot.rules.all().map(count);
    let rules = rules.filter(|count| (count.success, count.fail) != (0, 0)).collect();
    registry.count_own(&Counts { counter: COUNTER, rules });
}
