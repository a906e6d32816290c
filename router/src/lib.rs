//! The cloud side of EdgeMesh, as a library.
//!
//! The table of record [`sources`], and the [`registry`] that keeps every agent in step with them.

pub mod hub;
pub mod registry;
pub mod sources;
