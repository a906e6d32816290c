//! Services that the mesh leaves to others, by the label that KubeEdge's EdgeMesh goes by.

use edgemesh_proto::record::{Body, Key, Kind};

use crate::config::ServiceFilter;
use crate::manifests::Observed;
use crate::manifests::field::{Fault, Field};

/// Its value does not matter, as with Kubernetes' `service.kubernetes.io/service-proxy-name`.
const LABEL: &str = "service.edgemesh.kubeedge.io/service-proxy-name";

/// Whether an object carries the label.
pub(super) fn is_labelled(metadata: &Field<'_>) -> Result<bool, Fault> {
    let Some(labels) = metadata.get("labels")? else { return Ok(false) };
    Ok(labels.get(LABEL)?.is_some())
}

impl Observed {
    /// Takes their ports from the Services that `filter` leaves to others: nothing of theirs is
    /// captured or served, while their names still lead to their own addresses.
    #[must_use]
    pub fn without(mut self, filter: ServiceFilter) -> Self {
        let Self { records, labelled, .. } = &mut self;
        let left = |key: &Key| match filter {
            ServiceFilter::LabelExists => labelled.contains(key),
            ServiceFilter::LabelDoesNotExist => !labelled.contains(key),
        };
        for (_, record) in
            records.iter_mut().filter(|(key, _)| key.kind == Kind::Service && left(key))
        {
            if let Body::Service(service) = &mut record.body {
                service.ports.clear();
                service.external_ips.clear();
            }
        }
        self
    }
}
