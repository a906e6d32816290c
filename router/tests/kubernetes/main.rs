//! Kubernetes as a source, against servers that replay what real ones said and others that misbehave.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod bad_answers;
mod converging;
mod http;
mod meta_server;
mod ranges;
mod replayed;
mod statuses;
mod world;
