//! The warehouse of a project: `models/**/*.sql`, `tests/*.yaml`, and flows that collect; `tidemill run`, `backfill`, `runs`,
//! `test`, and their part of `plan` and `rollback`.
//!
//! The thinking is in the crates `warehouse` and `collect`; here is what runs it, in its order, and keeps what came of it.

pub mod command;
pub mod load;
mod plan;
pub mod routes;
mod runner;
mod schedule;

pub use plan::plan;
pub use runner::{Warehouse, run_json};
pub use schedule::spawn;
