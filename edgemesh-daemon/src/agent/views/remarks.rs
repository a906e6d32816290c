//! What is to be said of documents and of their source.

use edgemesh_core::manifests::{Remark, Severity};

use crate::api;

/// Why the source cannot be read, if so, then what was said of its documents.
pub(crate) fn remarks(trouble: Option<&String>, said: &[Remark]) -> Vec<api::Remark> {
    let trouble = trouble.map(|reason| api::Remark {
        severity: api::Severity::Rejected,
        file: String::new(),
        line: 0,
        object: "source".into(),
        field: String::new(),
        reason: format!("{reason}; the last records stay in force"),
    });
    let said = said.iter().map(|remark| api::Remark {
        severity: match remark.severity {
            Severity::Rejected => api::Severity::Rejected,
            Severity::Note => api::Severity::Warning,
            Severity::Ignored => api::Severity::Ignored,
        },
        file: remark.file.display().to_string(),
        line: remark.line.into(),
        object: remark.object.clone(),
        field: remark.field.clone(),
        reason: remark.reason.clone(),
    });
    trouble.into_iter().chain(said).collect()
}
