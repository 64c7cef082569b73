//! Whole pipelines on real servers: a tidemill process, a project folder, a writer, and something that is killed.

mod faults;
mod kill;
mod node;
mod types;
