//! The hub as nodes meet it: over loopback, with certificates, Message by Message.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod counts;
mod deaf;
mod relay;
mod removal;
mod strangers;
mod talk;
mod world;
