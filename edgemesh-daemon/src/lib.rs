//! The daemon's parts as a library, so that its tests and the `edgemesh` binary share them.

pub mod capture;
pub mod guard;
