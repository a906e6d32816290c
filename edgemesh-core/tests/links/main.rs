//! Calls between two meshes in one process, over Links on loopback: what one passes on and the other
//! serves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "what a test spawns ends with its runtime")]

mod backend;
mod bytes;
mod ends;
#[path = "../plan/grammar.rs"]
#[allow(dead_code, reason = "the plan tables use all of it")]
mod grammar;
mod http;
mod log;
mod refusals;
mod retries;
mod wires;
mod world;
