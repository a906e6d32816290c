//! The agent under attack: bad clients, bad backends, full disks, lost rules; nobody else suffers.
//!
//! Numbers are small enough for every run; `ABUSE_TIMES=20` makes the crowds that much larger

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "shared with `flows`, of which this uses a part")]

#[path = "common"]
mod common {
    pub(crate) mod folder;
    pub(crate) mod namespace;
    pub(crate) mod run;
    pub(crate) mod wait;
}

#[path = "flows/agent.rs"]
mod agent;
#[path = "flows/backend.rs"]
mod backend;
#[path = "flows/raw.rs"]
mod raw;
#[path = "flows/world.rs"]
mod world;

#[path = "abuse/backends.rs"]
mod backends;
#[path = "abuse/capture.rs"]
mod capture;
#[path = "abuse/churn.rs"]
mod churn;
#[path = "abuse/crowds.rs"]
mod crowds;
#[path = "abuse/disk.rs"]
mod disk;
#[path = "abuse/frames.rs"]
mod frames;
#[path = "abuse/garbage.rs"]
mod garbage;
#[path = "abuse/h2.rs"]
mod h2;
#[path = "abuse/loops.rs"]
mod loops;
#[path = "abuse/record.rs"]
mod record;
#[path = "abuse/smuggling.rs"]
mod smuggling;

/// How many times larger than usual crowds are.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
fn times() -> usize {
    std::env::var("ABUSE_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}
