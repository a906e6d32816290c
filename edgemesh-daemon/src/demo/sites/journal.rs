//! Which way calls took, by the access logs of both ends.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use anyhow::ensure;
use serde::Deserialize;

use crate::demo::clock::until;
use crate::demo::world::World;

/// How long a line may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// One line of an access log, as far as the demo asks for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Flow {
    service: String,
    /// `local`, `direct`, `hub`; absent where nothing was chosen.
    #[serde(default)]
    pub(crate) via: String,
    pub(crate) outcome: String,
    /// The Message that opened the stream on a Link.
    #[serde(default)]
    message: String,
}

/// The flows of one Service at one machine, from now on.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    world: &'a World,
    machine: &'static str,
    service: String,
    before: usize,
}

impl<'a> Journal<'a> {
    pub(crate) fn new(world: &'a World, machine: &'static str, service: &str) -> Self {
        let service = format!("default/{service}");
        let mut journal = Self { world, machine, service, before: 0 };
        journal.before = journal.flows().len();
        journal
    }

    /// What is new since then.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let file = self.world.folder.join(format!("{}.out", self.machine));
        let text = fs::read_to_string(file).unwrap_or_default();
        let flows = text.lines().filter_map(|line| serde_json::from_str::<Flow>(line).ok());
        flows.filter(|flow| flow.service == self.service).skip(self.before).collect()
    }

    /// The same once there are so many.
    pub(crate) fn wait(&self, count: usize) -> anyhow::Result<Vec<Flow>> {
        let found = until(WRITTEN_WITHIN, || {
            let flows = self.flows();
            (flows.len() >= count).then_some(flows)
        });
        found.with_context(|| {
            format!("{} of {count} calls are in the log of {}", self.flows().len(), self.machine)
        })
    }
}

/// All took the way `via`; those that left the machine are in the log of the other end as well.
pub(crate) fn ensure_all(flows: &[Flow], via: &str, other: &Journal<'_>) -> anyhow::Result<()> {
    let others: BTreeSet<&str> =
        flows.iter().map(|flow| flow.via.as_str()).filter(|took| *took != via).collect();
    ensure!(
        others.is_empty(),
        "not {via} but {}",
        others.into_iter().collect::<Vec<_>>().join(", ")
    );
    if via == "local" {
        return Ok(());
    }
    let arrived = other.wait(flows.len())?;
    let arrived: BTreeSet<&str> = arrived.iter().map(|flow| flow.message.as_str()).collect();
    let lost = flows.iter().filter(|flow| !arrived.contains(flow.message.as_str())).count();
    ensure!(
        lost == 0,
        "{lost} of {} Messages are not in the log of {}",
        flows.len(),
        other.machine
    );
    Ok(())
}
