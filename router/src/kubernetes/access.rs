//! How an API server is reached: what a configuration says of it.

use std::path::PathBuf;

/// How an API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// That of the cluster in which this process runs as a Pod.
    InCluster,
    /// As a kubeconfig says.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// Which of its contexts; else its current one.
        context: Option<String>,
    },
    /// By its URL.
    Url {
        /// `https://host:port`
        server: String,
        /// File with a bearer token, which is read again when it changes.
        token_file: Option<PathBuf>,
        /// File with the certificates by which it is known (PEM).
        ca_file: Option<PathBuf>,
    },
}
