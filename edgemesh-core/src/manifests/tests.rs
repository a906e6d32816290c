//! What documents become: tables of text in, records or remarks out.

mod destination_rules;
mod guards;
mod policies;
mod records;
mod remarks;
mod routes;
mod rules;
mod sets;
mod watching;
mod weights;

use std::path::Path;

use edgemesh_proto::record::{Body, Record};

use crate::manifests::{Parsed, Severity, parse};

/// Reads a text as `a.yaml`.
fn yaml(text: &str) -> Parsed {
    parse(Path::new("a.yaml"), text)
}

/// The records of a text that must give no Remark.
fn records(text: &str) -> Vec<Record> {
    let parsed = yaml(text);
    assert_eq!(parsed.remarks, [], "{text}");
    parsed.documents.into_iter().flat_map(|document| document.records).collect()
}

/// The body of the only record of a text.
fn body(text: &str) -> Body {
    let [record] = &records(text)[..] else { panic!("not one record: {text}") };
    record.body.clone()
}

/// The Remarks of a text, as `severity line object field: reason`.
fn remarks(text: &str) -> Vec<String> {
    yaml(text).remarks.iter().map(shown).collect()
}

fn shown(remark: &crate::manifests::Remark) -> String {
    let severity = match remark.severity {
        Severity::Rejected => "rejected",
        Severity::Ignored => "ignored",
        Severity::Note => "note",
    };
    let (line, object, field) = (remark.line, &remark.object, &remark.field);
    format!("{severity} {line} {object} [{field}] {}", remark.reason)
}
