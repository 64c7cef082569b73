//! The movement of data: capture from sources into the journal, delivery from the journal to sinks.

pub mod cache;
pub mod capture;
pub mod config;
pub mod deliver;
pub mod formats;
pub mod http_client;
mod interruptions;
mod kafka;
mod marks;
pub mod mirror;
pub mod nest;
pub mod preview;
pub mod schema_registry;
pub mod sinks;
pub mod subscribe;
pub mod transform;
pub mod verify;
pub mod webhook;

pub use base::{patterns, schedule};
pub use dial::tls;
