//! Collection: tables of other systems, read whole or in part, into datasets of the project's engine.
//!
//! A run reads tables one by one ([`run`]). Each row goes from the source's columns into those that keep it ([`plan`]), and
//! what does not fit is put aside with its reason ([`rejected`]). How rows get into the dataset is the mode's: [`full`] makes a
//! new table beside the old one and swaps them, [`cursor`] goes on where the last run stood, [`key_diff`] compares by key. What
//! must outlive a crash is in the engine, in the transaction of the rows ([`state`]); nothing is kept elsewhere.

pub mod config;
mod cursor;
mod digest;
mod error;
mod full;
mod key_diff;
pub mod names;
mod pace;
pub mod plan;
pub mod reader;
pub mod readers;
mod rejected;
mod report;
mod run;
mod source;
mod state;
mod table;

pub use config::{CollectConfig, Mode};
pub use error::CollectError;
pub use rejected::{RetryReport, retry};
pub use report::{CollectReport, Progress, Reconciled, TableReport};
pub use run::{mapping, run};
pub use source::{Source, SourceConfig, open_reader};
