//! Folders of Kubernetes manifests as checked records, and a watch on those folders.
//!
//! [`read`] walks folders of `.yaml`, `.yml` and `.json` files and says everything they hold at
//! that moment; [`parse`] does one text, without I/O, [`parse_object`] one object of an API server, and
//! [`settle`] says what holds over all of them. A document that is wrong is rejected alone,
//! with a [`Remark`] that names file, line, field and remedy. [`Watcher`] tells when to read again.
//!
//! A new kind of object is one file here and one line in the table of `object`.

mod destination_rule;
mod field;
mod filter;
mod folder;
mod http_route;
mod json;
mod machines;
mod object;
mod plain;
mod policy;
mod rules;
mod service;
mod settle;
mod slices;
mod split;
mod syntax;
mod tree;
mod watch;
mod weight;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use edgemesh_proto::record::{Key, MAX_BODY, Record, ServiceName};

use crate::config::Check;
use crate::manifests::tree::Broken;
use crate::manifests::whole::Whole;

pub use crate::manifests::folder::{
    MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_REMARKS, MAX_TOTAL_BYTES, read,
};
pub use crate::manifests::json::parse_object;
pub(crate) use crate::manifests::syntax::is_label;

pub use crate::manifests::settle::{MAX_DELAY, QUIET};
pub use crate::manifests::watch::{RESCAN, Watcher};

/// Everything that a set of folders says, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The records of every document that was accepted.
    pub records: BTreeMap<Key, Record>,
    /// Services whose Backends are to be probed: annotation `edgemesh.io/check`.
    pub checks: BTreeMap<ServiceName, Check>,
    /// Services with the label that [`Observed::without`] goes by.
    pub labelled: BTreeSet<Key>,
    /// What an operator should know, in the order of paths and lines.
    pub remarks: Vec<Remark>,
}

/// How much a [`Remark`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Wrong: the mesh works without it until it is corrected.
    Rejected,
    /// Fine, but not for the mesh, or of no effect at this moment.
    Ignored,
    /// Accepted, and probably not what was meant.
    Note,
}

/// Something about one document, file or folder that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it matters.
    pub severity: Severity,
    /// The file, or the folder.
    pub file: PathBuf,
    /// Line of the field, from 1; 0 when it is about the whole file or folder.
    pub line: u32,
    /// `Service default/hello`, as far as it is known; empty for a file or folder.
    pub object: String,
    /// `spec.ports[0].port`, or empty when no one field is to blame.
    pub field: String,
    /// What is wrong, and how to put it right.
    pub reason: String,
}

impl Remark {
    /// Writes it to the log, as loud as it matters.
    pub fn log(&self) {
        let Self { severity, file, line, object, field, reason } = self;
        let file = file.display();
        match severity {
            Severity::Rejected => tracing::warn!(%file, line, object, field, "rejected: {reason}"),
            Severity::Note => tracing::info!(%file, line, object, field, "{reason}"),
            Severity::Ignored => tracing::debug!(%file, line, object, "ignored: {reason}"),
        }
    }
}

/// What one text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The documents that were accepted, in their order.
    pub documents: Vec<Document>,
    /// What is to be said of the others, in their order.
    pub remarks: Vec<Remark>,
}

/// One accepted document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// `Service default/hello`; two documents with the same are one too many.
    pub object: String,
    /// Where it begins in its file, from 1.
    pub line: u32,
    /// The field by which it may be at odds with others: address of a Service, target of a policy.
    pub focus: Focus,
    /// Whether its records yield to better ones.
    pub origin: Origin,
    /// How the Backends of its Service are probed.
    pub check: Option<Check>,
    /// Whether it is a Service with the label that [`Observed::without`] goes by.
    pub labelled: bool,
    /// Its records: one, or one for each subset of Endpoints.
    pub records: Vec<Record>,
    /// Of a Rule.
    pub sides: Option<Box<Sides>>,
}

/// The two sides of a Rule, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Sides {
    /// Where the source is named.
    pub source: Focus,
    /// Where the target is named.
    pub target: Focus,
    /// Endpoints that are written out there; each counts where no document of its own says it.
    pub embedded: Vec<Record>,
}

/// A field and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Focus {
    /// From 1.
    pub line: u32,
    /// `spec.clusterIP`, or empty for the whole document.
    pub field: String,
}

/// How far a [`Document`] is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It says what it says.
    Itself,
    /// It is `Endpoints`, which count only where the Service has no EndpointSlice.
    Endpoints,
}

/// Reads one text: YAML of any number of documents, or JSON (by the extension of `file`, which is
/// not opened). Never fails as a whole; every document that is not accepted has its [`Remark`].
pub fn parse(file: &Path, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for part in split::documents(file, text) {
        match tree::read(part.text) {
            Ok(item) => object::read(file, part.before, &item, &mut parsed),
            Err(Broken { line, reason }) => parsed.remarks.push(Remark {
                severity: Severity::Rejected,
                file: file.to_owned(),
                line: part.before.saturating_add(line),
                object: String::new(),
                field: String::new(),
                reason,
            }),
        }
    }
    drop_too_large(file, &mut parsed);
    parsed
}

/// What holds over all these documents: who keeps a name, an address, a Service.
pub fn settle(documents: impl IntoIterator<Item = (PathBuf, Document)>) -> Observed {
    let mut whole = Whole::default();
    documents.into_iter().for_each(|(place, document)| {
        whole.add(&place, vec![document], Vec::new());
    });
    whole.finish()
}

/// A record that no Message could carry counts nowhere, so that it is not seen on one node only.
fn drop_too_large(file: &Path, parsed: &mut Parsed) {
    let Parsed { documents, remarks } = parsed;
    documents.retain(|document| {
        let sizes = document.records.iter().map(|record| record.encode_body().len());
        let Some(size) = sizes.max().filter(|size| *size > MAX_BODY) else { return true };
        remarks.push(Remark {
            severity: Severity::Rejected,
            file: file.to_owned(),
            line: document.line,
            object: document.object.clone(),
            field: String::new(),
            reason: format!("it takes {size} bytes: at most {MAX_BODY} count; split it"),
        });
        false
    });
}
