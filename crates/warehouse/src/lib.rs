//! Models, checks and indicators over the datasets of a project's engine.
//!
//! A model is one SELECT in a file with a header; what it reads decides when it runs ([`graph`]). It is written beside the
//! table that readers see, checked there, and swapped in ([`build`]): a crash leaves the old table or the new one.

pub mod build;
pub mod check;
pub mod graph;
pub mod indicator;
pub mod interval;
pub mod macros;
pub mod model;
pub mod state;
pub mod unit;

mod error;

pub use error::WarehouseError;
