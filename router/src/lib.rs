//! The cloud side of EdgeMesh, as a library.
//!
//! [`cloud`] puts it together: record [`sources`] feed the [`registry`], which keeps every agent in
//! step through the [`hub`]; the hub also passes on what nodes ask of each other. The [`authority`]
//! says who belongs to the mesh. By the [`ingress`] clients in the cloud reach its Services. The
//! [`providers`], which an agent has too, carry messages of Rules to and from what is no Service.
//!
//! Without the feature `cloud`, which is on by default, there is only what an agent needs: no API server is
//! followed then, and neither `kube` nor a database of the cloud is built.

#[cfg(feature = "cloud")]
pub mod authority;
#[cfg(feature = "cloud")]
pub mod cloud;
#[cfg(feature = "cloud")]
pub mod hub;
#[cfg(feature = "cloud")]
pub mod ingress;
pub mod kubernetes;
pub mod providers;
#[cfg(feature = "cloud")]
pub mod registry;
pub mod sources;
