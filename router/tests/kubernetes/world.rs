//! A source at a server, and the registry that its records go to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::config::ServiceFilter;
use edgemesh_core::dial::Dial;
use edgemesh_core::manifests::Remark;
use edgemesh_core::mesh::Supply;
use edgemesh_core::peers::Pause;
use edgemesh_proto::record::{Key, Record};
use edgemesh_router::kubernetes::Access;
use edgemesh_router::kubernetes::source::{Followed, Pace, Report, Source, SourceOptions};
use edgemesh_router::registry::shared::Shared as Registry;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Nothing here takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module. Ends when it is dropped.
pub(crate) struct World {
    pub(crate) registry: Registry,
    report: Report,
    said: Arc<Mutex<Said>>,
    _stop: DropGuard,
}

/// What was said beside the records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) remarks: Vec<Remark>,
    pub(crate) trouble: Option<String>,
}

impl World {
    pub(crate) fn at(server: String) -> Self {
        Self::with(Registry::in_memory([1; 16]), server)
    }

    /// Beside a registry that has records already.
    pub(crate) fn with(registry: Registry, server: String) -> Self {
        Self::patient(registry, server, PATIENCE)
    }

    /// Gives up an answer after so much silence.
    pub(crate) fn patient(registry: Registry, server: String, silence: Duration) -> Self {
        let access = Access::Url { server, token_file: None, ca_file: None };
        Self::by(registry, access, (silence, PATIENCE))
    }

    /// Gives up an answer after so much silence, and looks for the server anew after so much failure.
    pub(crate) fn by(
        registry: Registry,
        access: Access,
        (silence, renew): (Duration, Duration),
    ) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (supplier, supply) = Supply::new();
        let report = Report::default();
        let options = SourceOptions {
            access,
            dial: Dial::default(),
            node: None,
            service_filter: ServiceFilter::default(),
            pace: Pace {
                pause: Pause::new(Duration::from_millis(5), Duration::from_millis(40)),
                silence,
                watch_for: 60,
                renew,
            },
        };
        let source = Source::new(options, report.clone());
        tasks.spawn(source.run(supplier, tasks.clone(), stop.clone()));
        let said = Arc::new(Mutex::new(Said::default()));
        let (taking, told) = (registry.clone(), said.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let step = supply.next().await;
                let now = Said { remarks: step.remarks.to_vec(), trouble: step.trouble.clone() };
                taking.supply(step).await;
                *told.lock() = now;
            }
        }));
        Self { registry, report, said, _stop: stop.drop_guard() }
    }

    pub(crate) fn records(&self) -> BTreeMap<Key, Record> {
        let all = self.registry.records().into_iter();
        all.map(|put| (put.key.clone(), put.record().unwrap())).collect()
    }

    pub(crate) fn said(&self) -> Said {
        self.said.lock().clone()
    }

    pub(crate) fn followed(&self) -> Arc<Followed> {
        self.report.get()
    }

    /// Waits until it `is` so.
    pub(crate) async fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let waiting = async {
            while !is(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            let names: Vec<_> = self.records().keys().map(ToString::to_string).collect();
            panic!("{what}: {names:?}, {:?}, {:?}", self.said(), self.followed());
        }
    }

    /// Names of the records, `Service demo/web`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.records().keys().map(ToString::to_string).collect()
    }
}
