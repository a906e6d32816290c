//! The cloud side of EdgeMesh, as a library.
//!
//! The table of record [`sources`], the [`registry`] that keeps every agent in step with them, and the
//! [`ingress`] by which clients in the cloud reach Services.

pub mod ingress;
pub mod registry;
pub mod sources;
