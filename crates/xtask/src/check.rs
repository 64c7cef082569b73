//! What CI asks of the sources, cheapest first.

use anyhow::{Result, bail};

use crate::step::{cargo, loud, step};
use crate::{docs, tidy};

/// Runs every step, whatever became of the ones before, so that one run shows all there is to mend.
pub fn run() -> Result<()> {
    let results =
        [("format", format()), ("tidy", tidy::run()), ("lints", lints()), ("reference pages", pages())];
    let mut failed = Vec::new();
    for (name, result) in results {
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed to pass: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    step("check the format (names files that `cargo fmt` would change)", || {
        loud(&mut cargo(["fmt", "--all", "--check", "--", "--files-with-diff"]))
    })
}

fn lints() -> Result<()> {
    step("lint every crate with clippy", || {
        loud(&mut cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny=warnings"]))
    })
}

fn pages() -> Result<()> {
    if !docs::are_generated()? {
        eprintln!("==> tidemill writes no reference pages yet: none to check");
        return Ok(());
    }
    docs::check()
}
