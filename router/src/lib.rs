//! The cloud side of EdgeMesh, as a library.
//!
//! [`sources`] is the table of where records come from; [`authority`] decides which node may join,
//! under which name, and signs its certificates.

pub mod authority;
pub mod sources;
