//! Listings, changes and mistakes, and what of them is told.
