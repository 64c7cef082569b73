//! The Durable Streams protocol: streams over plain HTTP, which are read from an offset on, waited for by long-poll, or followed by
//! server-sent events.
//!
//! [`shape`] serves the shapes of subscriptions in this way; [`streams`] serves streams that clients make themselves, which
//! [`store`] keeps. [`wire`] is what both have in common.

pub mod shape;
pub mod store;
pub mod streams;
mod wire;
