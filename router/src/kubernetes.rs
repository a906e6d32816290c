//! Kubernetes as a source of records: what is asked of an API server, and how its answers are followed.
//!
//! [`source`] finds the server and follows each kind of object that [`asked`] names, [`objects`] makes records
//! of what is told. What is wrong is said and changes nothing: the last records stay in force. [`crds`]
//! defines the mesh's own kinds, and `statuses` writes what became of each of their objects.

mod access;
pub mod asked;
#[cfg(feature = "cloud")]
pub mod crds;
#[cfg(feature = "cloud")]
mod following;
#[cfg(feature = "cloud")]
mod meta_server;
#[cfg(feature = "cloud")]
pub mod objects;
#[cfg(feature = "cloud")]
mod ranges;
#[cfg(feature = "cloud")]
mod seen;
#[cfg(feature = "cloud")]
mod server;
#[cfg(feature = "cloud")]
pub mod source;
#[cfg(feature = "cloud")]
mod statuses;
#[cfg(feature = "cloud")]
mod words;

pub use access::Access;
#[cfg(feature = "cloud")]
pub use meta_server::LOOK_EVERY;

/// Where objects are, for Remarks: they have no file.
#[cfg(feature = "cloud")]
const PLACE: &str = "kubernetes";
