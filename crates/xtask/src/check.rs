//! What CI asks of the sources, cheapest first.

use anyhow::Result;

use crate::step::{cargo, loud, step};
use crate::{docs, tidy};

/// Stops at the first step that fails.
pub fn run() -> Result<()> {
    step("check the format (`cargo fmt` mends it)", || loud(&mut cargo(["fmt", "--all", "--check"])))?;
    tidy::run()?;
    step("lint every crate with clippy", || {
        loud(&mut cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny=warnings"]))
    })?;
    if docs::are_generated()? {
        docs::check()?;
    } else {
        eprintln!("==> tidemill writes no reference pages yet: none to check");
    }
    Ok(())
}
