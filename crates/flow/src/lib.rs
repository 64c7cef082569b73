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
pub mod patterns;
pub mod preview;
pub mod schedule;
pub mod schema_registry;
pub mod sinks;
pub mod subscribe;
pub mod tls;
pub mod transform;
pub mod verify;
pub mod webhook;
