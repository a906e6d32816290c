//! Active health checks of Backends, as Policies ask for them: what the probes say goes into the
//! live state that decisions read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{HealthCheck, HealthQuestion};
use tokio::sync::watch;

use crate::backends::BackendLive;
use crate::config::Check;
use crate::health::{Checker, Health, Pace, Target};
use crate::mesh::Mesh;
use crate::snapshot::Snapshot;

impl Mesh {
    /// Probes the Backends of Services whose Policy asks for it, until the mesh stops.
    pub(super) fn check_backends(&self) {
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let checker = Checker::new(self.options.dial, Pace::default(), tasks, stop);
        let checks = Checks { live: self.live.clone(), checker, probed: Vec::new() };
        let following = checks.follow(self.status.changes());
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(following));
    }
}

/// Keeps probes and live state in step with the Snapshots.
struct Checks {
    live: Arc<ArcSwap<Snapshot>>,
    checker: Checker,
    /// Backends that are probed; those that no longer are count as well.
    probed: Vec<(Target, Arc<BackendLive>)>,
}

impl Checks {
    /// Follows both for ever. `changes` wakes when the records changed.
    async fn follow(mut self, mut changes: watch::Receiver<u64>) {
        let mut verdicts = self.checker.changes();
        loop {
            self.probe();
            self.tell();
            let news = async {
                tokio::select! {
                    changed = changes.changed() => changed,
                    changed = verdicts.changed() => changed,
                }
            };
            if news.await.is_err() {
                return; // whoever told of changes is gone
            }
        }
    }

    /// Probes whom the Snapshot in force wants probed.
    fn probe(&mut self) {
        let snapshot = self.live.load();
        let (mut targets, mut probed) = (BTreeMap::new(), Vec::new());
        // By Policy: where none asks, ten thousand Services are not looked at with each change.
        let asking = snapshot.policies.iter().filter(|listed| listed.policy.health_check.is_some());
        let services: BTreeSet<_> = asking.map(|listed| &listed.service).collect();
        for name in services {
            let Some(service) = snapshot.by_name(&name.namespace, &name.name) else { continue };
            let Some(check) = &service.policy.health_check else { continue };
            let backends = service.ports.iter().flat_map(|port| port.backends());
            // Others are probed by the agent of their own node, which answers for them.
            for backend in backends.filter(|backend| backend.is_dialled()) {
                let target = Target::new(backend.address, asks(&check.how));
                targets.insert(target.clone(), pace(check));
                probed.push((target, backend.live.clone()));
            }
        }
        let still: HashSet<_> = probed.iter().map(|(_, live)| Arc::as_ptr(live)).collect();
        for (_, before) in &self.probed {
            if !still.contains(&Arc::as_ptr(before)) {
                before.ill.store(false, Relaxed);
            }
        }
        self.probed = probed;
        self.checker.watch_each(targets);
    }

    fn tell(&self) {
        for (target, live) in &self.probed {
            let ill = match self.checker.health(target) {
                Some(Health::Unhealthy(_)) => true,
                // Nobody is kept away from a Backend that was not asked yet.
                Some(Health::Healthy | Health::Unknown) | None => false,
            };
            if live.ill.swap(ill, Relaxed) != ill {
                let (backend, check) = (target.address, &target.check);
                tracing::info!(%backend, %check, ill, "a health check changed its mind");
            }
        }
    }
}

fn asks(how: &HealthQuestion) -> Check {
    match how {
        HealthQuestion::Http(path) => Check::Http(path.clone()),
        HealthQuestion::Tcp => Check::Tcp,
        HealthQuestion::Grpc(service) => Check::Grpc(service.clone()),
    }
}

fn pace(check: &HealthCheck) -> Pace {
    Pace {
        every: check.interval,
        every_while_down: check.interval,
        timeout: check.timeout,
        unhealthy_after: check.unhealthy.get(),
        healthy_after: check.healthy.get(),
    }
}
