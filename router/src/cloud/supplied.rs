//! An API server as the registry's source.

use std::time::SystemTime;

use edgemesh_core::mesh::{Supplied, Supply};
use tokio_util::sync::CancellationToken;

use crate::cloud::manifests::{Read, Report, note_reach};
use crate::registry::shared::Shared as Registry;

pub(super) struct Taking {
    pub(super) supply: Supply,
    pub(super) zone: Box<str>,
    pub(super) registry: Registry,
    pub(super) report: Report,
}

impl Taking {
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.take(self.supply.next().await).await;
            }
        })
        .await;
    }

    async fn take(&self, mut step: Supplied) {
        self.report.say(&step.remarks);
        step.put.iter_mut().for_each(|record| note_reach(record, &self.zone));
        let (remarks, trouble) = (step.remarks.clone(), step.trouble.take());
        self.registry.supply(step).await;
        let at = match trouble {
            None => Some(SystemTime::now()),
            Some(_) => self.report.get().at,
        };
        self.report.set(Read { remarks, trouble, at });
    }
}
