//! A cloud as a whole, in this process, with a folder of manifests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod counts;
mod stop;
