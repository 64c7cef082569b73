//! Runs the benchmarks, which live in a crate of their own.

use anyhow::{Result, bail};

use crate::crates::crates;
use crate::step::{cargo, loud, step, workspace};

/// Runs all of them, or those that the arguments name.
pub fn run(words: &[String]) -> Result<()> {
    if !crates(&workspace())?.iter().any(|it| it.name == "bench") {
        bail!("this workspace has no crate `bench`, so there is nothing to run");
    }
    step("run the benchmarks", || loud(cargo(["run", "--release", "-p", "bench", "--"]).args(words)))
}
