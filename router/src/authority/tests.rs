//! A cloud that lets nodes in and out, on a real folder.

mod disk;
mod joins;
mod moves;

use std::path::Path;
use std::time::Duration;

use edgemesh_core::identity::{Identity, JoinToken, OFFLINE_GRACE, Pending, Proved, is_revoked};
use edgemesh_proto::message::{Join, Joined};
use edgemesh_proto::record::NodeName;

use super::*;

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// A day in 2026.
const TODAY: i64 = 1_790_000_000;

fn node(name: &str) -> NodeName {
    NodeName(name.into())
}

fn open(folder: &Path) -> Authority {
    Authority::open(folder, TODAY, OFFLINE_GRACE).unwrap()
}

/// A machine: it keeps its key until it has a certificate.
fn machine() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn ask(machine: &tempfile::TempDir, name: &str, token: Option<&JoinToken>) -> Join {
    Pending::kept(machine.path(), &node(name)).unwrap().join(token).unwrap()
}

/// What the machine has once it was answered.
fn complete(machine: &tempfile::TempDir, name: &str, joined: &Joined, ca: CaHash) -> Identity {
    let pending = Pending::kept(machine.path(), &node(name)).unwrap();
    pending.complete(&joined.chain, ca).unwrap()
}

/// What a Link proves of a machine with this identity.
fn proved(identity: &Identity) -> Proved {
    Proved {
        node: identity.node().clone(),
        is_hub: false,
        issued: identity.not_before(),
        until: identity.not_after(),
    }
}

/// The label of a refusal; empty for a certificate.
fn outcome(answer: &Result<Joined, JoinRefused>) -> &'static str {
    answer.as_ref().err().map_or("", JoinRefused::label)
}
