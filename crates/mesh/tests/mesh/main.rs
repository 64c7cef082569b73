//! The mesh in front of real servers, with real clients.

mod admin;
mod capture;
mod compressed;
mod cut;
mod door;
mod group;
mod history;
mod migrate;
mod mirror;
mod pd;
mod pool_keys;
mod pools;
mod proxy;
mod raw;
mod reload;
mod replay;
mod reuse;
mod rules;
mod split;
mod support;
mod tenants;
mod topics;
mod tracker;
mod traffic;
mod upgrade;
mod warm;
