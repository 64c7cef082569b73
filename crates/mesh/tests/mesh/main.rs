//! The mesh in front of real servers, with real clients.

mod door;
mod split;
mod support;
mod traffic;
