//! From the journal to a sink: cursor, transform, batch, apply, acknowledge.

pub mod sink;
