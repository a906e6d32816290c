//! `allow` of a TrafficPolicy: who may call.

use edgemesh_proto::record::{AllowedCaller, NodeName};

use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::known;
use crate::manifests::syntax;

/// Most entries of one list: each is looked at for every call.
const MAX_ENTRIES: usize = 64;

/// The list; an empty one lets nobody in.
pub(super) fn allow(field: &Field<'_>) -> Result<Vec<AllowedCaller>, Fault> {
    let entries = field.items()?;
    if entries.len() > MAX_ENTRIES {
        let reason = format!("has {} entries: at most {MAX_ENTRIES}", entries.len());
        return Err(field.fault(reason));
    }
    entries.map(|entry| caller(&entry)).collect()
}

fn caller(field: &Field<'_>) -> Result<AllowedCaller, Fault> {
    known(field, &["namespace", "service", "node"])?;
    let caller = AllowedCaller {
        namespace: field.maybe("namespace", syntax::label)?,
        service: field.maybe("service", syntax::label)?,
        node: field.maybe("node", syntax::subdomain)?.map(NodeName),
    };
    if caller == AllowedCaller::default() {
        return Err(field.fault("says nothing; add `namespace`, `service` or `node`"));
    }
    Ok(caller)
}
