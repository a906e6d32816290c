//! Rules between a cloud and an edge: real applications, a real broker, real clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Shared with others, of which this uses a part.
#[path = "../common"]
#[allow(dead_code, reason = "see there")]
mod common {
    pub(crate) mod folder;
    pub(crate) mod namespace;
    pub(crate) mod run;
    pub(crate) mod wait;
}

/// Shared with `links`, of which this uses a part.
#[path = "../links"]
#[allow(dead_code, unused_imports, reason = "see there")]
mod links {
    pub(crate) mod nodes;
    pub(crate) mod world;
}
use links::{nodes, world};

mod apps;
mod bad;
mod bounds;
mod cases;
mod life;
mod pairs;
mod recording;
mod site;

use std::time::Duration;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
