//! `source`: where the records come from, for an agent and for a cloud.

use std::path::PathBuf;

use edgemesh_router::kubernetes::Access;

use crate::config::Flags;
use crate::config::Kind;
use crate::config::Origin;
use crate::config::Source;
use crate::config::parse;
use crate::config::read::Reader;
use crate::config::read::Section;
use crate::config::tree::Node;
use crate::config::tree::Value;

/// The source that is a folder, for messages.
const MANIFESTS: &str = "source: { manifests: DIR }";

/// What may stand there, for messages.
const fn known(whose: Kind) -> &'static str {
    match whose {
        Kind::Agent => "cloud, none, { manifests: DIR }, { kubernetes: … }",
        Kind::Cloud => "none, { manifests: DIR }, { kubernetes: … }",
    }
}

/// Reads `source`; the flag wins, and `absent` counts where nobody says anything. Where it is wrong
/// that is noted, and it is a folder, which draws no second problem.
pub(crate) fn read(
    reader: &mut Reader,
    top: &mut Section,
    whose: Kind,
    absent: Source,
    flags: &Flags,
) -> Source {
    let in_file = match top.take("source") {
        None | Some((_, Node { value: Value::Null, .. })) => Some(absent),
        Some((line, node)) => {
            reader.came_from("source", Origin::File(line));
            value(reader, line, node, whose)
        }
    };
    if let Some(folder) = &flags.manifests {
        reader.came_from("source", Origin::Flag("--manifests"));
        return Source::Manifests(folder.clone());
    }
    in_file.unwrap_or_else(|| Source::Manifests(PathBuf::new()))
}

fn value(reader: &mut Reader, line: usize, node: Node, whose: Kind) -> Option<Source> {
    match node.value {
        Value::Scalar(word) if word == "cloud" && whose == Kind::Agent => Some(Source::Cloud),
        Value::Scalar(word) if word == "none" => Some(Source::None),
        Value::Map(entries) if entries.len() == 1 => {
            let before = reader.problems.len();
            let mut section =
                reader.open("source", Some(Node { line, value: Value::Map(entries) }));
            let folder = reader.value(&mut section, "manifests", parse::path);
            let source = match section.take("kubernetes") {
                Some((_, node)) => kubernetes(reader, node).map(Source::Kubernetes),
                None => folder.map(Source::Manifests),
            };
            reader.close(section);
            if source.is_none() && reader.problems.len() == before {
                reader.problem("source", format!("names no folder: {MANIFESTS}"));
            }
            source
        }
        Value::Scalar(word) => {
            let text = format!("`{word}` is no source: one of {}", known(whose));
            reader.problem("source", text);
            None
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            reader.problem("source", format!("wants one entry: {MANIFESTS}"));
            None
        }
    }
}

/// How the API server is reached: as a Pod, as a kubeconfig says, or by its URL.
fn kubernetes(reader: &mut Reader, node: Node) -> Option<Access> {
    let mut section = reader.open("source.kubernetes", Some(node));
    let server = reader.value(&mut section, "server", parse::url);
    let kubeconfig = reader.value(&mut section, "kubeconfig", parse::path);
    let context = reader.value(&mut section, "context", |text| Ok(text.to_owned()));
    let token_file = reader.value(&mut section, "tokenFile", parse::path);
    let ca_file = reader.value(&mut section, "caFile", parse::path);
    reader.close(section);
    let mut idle = |key: &str, reason: &str| {
        reader.problem(&format!("source.kubernetes.{key}"), reason.to_owned());
    };
    if context.is_some() && kubeconfig.is_none() {
        idle("context", "means nothing without `kubeconfig`; add that, or remove it");
    }
    for (key, file) in [("tokenFile", &token_file), ("caFile", &ca_file)] {
        if file.is_some() && server.is_none() {
            idle(key, "means nothing without `server`; add that, or remove it");
        }
    }
    match (server, kubeconfig) {
        (Some(_), Some(_)) => {
            idle("kubeconfig", "says where the server is, as `server` does; keep one of the two");
            None
        }
        (Some(server), None) => Some(Access::Url { server, token_file, ca_file }),
        (None, Some(file)) => Some(Access::Kubeconfig { file, context }),
        (None, None) => Some(Access::InCluster),
    }
}
