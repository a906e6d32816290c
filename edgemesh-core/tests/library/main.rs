//! The library as an application uses it: real sockets on ports of the kernel's choice, no root, no
//! namespaces, no agent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod connections;
mod ordered;
mod serving;
mod unreached;
mod world;
