//! Conversations with a cloud, as the keeper of the records hears them.
