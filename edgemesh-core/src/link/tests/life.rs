//! Ends of Links.
