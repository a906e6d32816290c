//! The cloud side of EdgeMesh, as a library.
//!
//! [`cloud`] puts it together: record [`sources`] feed the [`registry`], which keeps every agent in
//! step through the [`hub`]; the hub also passes on what nodes ask of each other. The [`authority`]
//! says who belongs to the mesh. By the [`ingress`] clients in the cloud reach its Services. The
//! [`providers`], which an agent has too, carry messages of Rules to and from what is no Service.

pub mod authority;
pub mod cloud;
pub mod hub;
pub mod ingress;
pub mod kubernetes;
pub mod providers;
pub mod registry;
pub mod sources;
