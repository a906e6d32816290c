//! Records of a source outside of this crate, such as an API server, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgemesh_proto::record::{Key, Kind, Record, ServiceName};
use ipnet::IpNet;
use tokio::sync::{Mutex, mpsc};

use crate::config::Check;
use crate::manifests::{Observed, Remark};

/// Steps that wait for whoever keeps the records; then the source waits.
const MOST_STEPS: usize = 16;

/// One step: what the source says anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Supplied {
    /// Of these kinds `put` is everything. Of others the source knows nothing yet, or nothing else:
    /// what was known before stays.
    pub whole: BTreeSet<Kind>,
    /// Records that are new or changed.
    pub put: Vec<Record>,
    /// Records that are gone.
    pub delete: Vec<Key>,
    /// Services whose Backends are to be probed, all of them.
    pub checks: Arc<BTreeMap<ServiceName, Check>>,
    /// Where addresses of Services lie, all of it; `None`: that is not known, and what was told before stays.
    pub service_cidrs: Option<Arc<[IpNet]>>,
    /// What an operator should know of its objects, all of it.
    pub remarks: Arc<[Remark]>,
    /// Why it cannot be read at this moment.
    pub trouble: Option<String>,
}

/// The end of whoever keeps the records. Clones take turns.
#[derive(Clone, Debug)]
pub struct Supply(Arc<Mutex<mpsc::Receiver<Supplied>>>);

/// The end of the source.
#[derive(Clone, Debug)]
pub struct Supplier(mpsc::Sender<Supplied>);

impl Supply {
    /// Both ends.
    pub fn new() -> (Supplier, Self) {
        let (tell, hear) = mpsc::channel(MOST_STEPS);
        (Supplier(tell), Self(Arc::new(Mutex::new(hear))))
    }

    /// The next step; never, when the source has ended. Dropping the future loses nothing.
    pub async fn next(&self) -> Supplied {
        match self.0.lock().await.recv().await {
            Some(step) => step,
            None => std::future::pending().await,
        }
    }
}

impl Supplier {
    /// Tells a step, when there is room. `false`: nobody will ever hear it.
    pub async fn tell(&self, step: Supplied) -> bool {
        self.0.send(step).await.is_ok()
    }
}

/// What the source has said so far, beside this node's own folder.
#[derive(Debug)]
pub(super) struct Supplies {
    supply: Supply,
    records: BTreeMap<Key, Record>,
    checks: Arc<BTreeMap<ServiceName, Check>>,
    remarks: Arc<[Remark]>,
    own: Observed,
}

impl Supplies {
    /// `kept` is what is in force, which stays until the source says otherwise.
    pub(super) fn new(supply: Supply, kept: BTreeMap<Key, Record>) -> Self {
        let (checks, remarks, own) = (Arc::default(), Arc::default(), Observed::default());
        Self { supply, records: kept, checks, remarks, own }
    }

    /// The next step, which is to be applied. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Supplied {
        self.supply.next().await
    }

    pub(super) fn apply(&mut self, step: Supplied) {
        let Supplied { whole, put, delete, checks, remarks, service_cidrs: _, trouble: _ } = step;
        if !whole.is_empty() {
            self.records.retain(|key, _| !whole.contains(&key.kind));
        }
        for key in &delete {
            self.records.remove(key);
        }
        self.records.extend(put.into_iter().map(|record| (record.key(), record)));
        (self.checks, self.remarks) = (checks, remarks);
    }

    /// The own folder was read.
    pub(super) fn read(&mut self, own: Observed) {
        self.own = own;
    }

    /// All of it; of one record this node's own word counts.
    pub(super) fn all(&self) -> Observed {
        let mut all = self.own.clone();
        for (key, record) in &self.records {
            if !all.records.contains_key(key) {
                all.records.insert(key.clone(), record.clone());
            }
        }
        for (service, check) in &*self.checks {
            all.checks.entry(service.clone()).or_insert_with(|| check.clone());
        }
        all.remarks.extend(self.remarks.iter().cloned());
        all
    }
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::{Body, Node};

    use super::*;

    fn node(name: &str, zone: &str) -> Record {
        let body = Body::Node(Node { zone: Some(zone.into()), ..Node::default() });
        Record { namespace: "".into(), name: name.into(), body }
    }

    fn keyed(records: &[Record]) -> BTreeMap<Key, Record> {
        records.iter().map(|record| (record.key(), record.clone())).collect()
    }

    #[test]
    fn what_was_kept_counts_until_a_kind_is_told_whole() {
        let mut supplies = Supplies::new(Supply::new().1, keyed(&[node("old", "a")]));
        let put = |record| Supplied { put: vec![record], ..Supplied::default() };
        supplies.apply(put(node("new", "b")));
        assert_eq!(supplies.all().records, keyed(&[node("new", "b"), node("old", "a")]));
        let whole = BTreeSet::from([Kind::Node]);
        supplies.apply(Supplied { whole, ..put(node("new", "c")) });
        assert_eq!(supplies.all().records, keyed(&[node("new", "c")]));
        let delete = vec![node("new", "c").key()];
        supplies.apply(Supplied { delete, ..Supplied::default() });
        assert_eq!(supplies.all().records, BTreeMap::new());
    }

    #[test]
    fn of_one_record_this_nodes_own_word_counts() {
        let mut supplies = Supplies::new(Supply::new().1, keyed(&[node("edge", "theirs")]));
        let own = Observed { records: keyed(&[node("edge", "own")]), ..Observed::default() };
        supplies.read(own);
        assert_eq!(supplies.all().records, keyed(&[node("edge", "own")]));
        supplies.read(Observed::default());
        assert_eq!(supplies.all().records, keyed(&[node("edge", "theirs")]));
    }
}
