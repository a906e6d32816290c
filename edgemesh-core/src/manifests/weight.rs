//! The label `edgemesh.io/weight` of Pods and EndpointSlices.

use edgemesh_proto::record::{MAX_WEIGHT, Slice, WEIGHT_LABEL};

use crate::manifests::Severity;
use crate::manifests::field::{Fault, Field, brief};
use crate::manifests::http_route::Notes;

/// The weight that the label says. One that says nothing sensible counts as none, with a note: for
/// a slip in a label no Backend should be gone.
pub(super) fn of(metadata: &Field<'_>, notes: &mut Notes) -> Result<Option<u16>, Fault> {
    let Some(labels) = metadata.get("labels")? else { return Ok(None) };
    let Some(field) = labels.get(WEIGHT_LABEL)? else { return Ok(None) };
    let text = field.text()?;
    let weight = text.parse().ok().filter(|weight| *weight <= MAX_WEIGHT);
    if weight.is_none() {
        let fault = field.fault(format!(
            "`{}` is no weight and counts as 1; write a whole number from 0 to {MAX_WEIGHT}",
            brief(text)
        ));
        notes.push((Severity::Note, fault));
    }
    Ok(weight)
}

/// Gives every Backend of the Slice that weight.
pub(super) fn weigh(slice: &mut Slice, weight: Option<u16>) {
    slice.backends.iter_mut().for_each(|backend| backend.weight = weight);
}
