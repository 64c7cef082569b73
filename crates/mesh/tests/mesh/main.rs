//! The mesh in front of real servers, with real clients.

mod compressed;
mod cut;
mod door;
mod migrate;
mod pools;
mod proxy;
mod raw;
mod reload;
mod rules;
mod split;
mod support;
mod tenants;
mod traffic;
mod upgrade;
