//! How we speak to others: TLS and an HTTP client, for the crates that have such others.
//!
//! What is said to them is not decided here.

pub mod http;
pub mod tls;
