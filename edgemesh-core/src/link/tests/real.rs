//! Links over TLS and TCP.
