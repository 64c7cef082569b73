//! What tables are read from, a module a kind of source.

pub mod access;
pub mod config;
pub mod files;
pub mod http_api;
pub mod mysql;
pub mod singer;
pub mod sqlite;

mod cell;
mod csv;
mod encoding;
mod excel;
mod infer;
mod json;
mod lines;
mod ole;
mod outlet;
mod redact;
mod zipped;
