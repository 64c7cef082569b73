//! The mesh in front of real servers, with real clients.

mod cut;
mod door;
mod migrate;
mod reload;
mod split;
mod support;
mod traffic;
mod upgrade;
