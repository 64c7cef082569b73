//! Builds tidemill and becomes its demo.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::servers;
use crate::step::{cargo, loud, step};

/// Passes every argument on; `--mysql` and `--mesh` first install the server that the demo then starts.
pub fn run(words: &[String]) -> Result<()> {
    if words.iter().any(|word| word == "--mysql" || word == "--mesh") {
        servers::install(&["mysql".to_owned()])?;
    }
    step("build tidemill", || loud(&mut cargo(["build", "-p", "tidemill"])))?;
    let mut demo = cargo(["run", "--quiet", "-p", "tidemill", "--", "demo"]);
    demo.args(words).env("TIDEMILL_SERVERS", servers::folder()?);
    // Replaces this process, so that a signal sent to it reaches the demo.
    Err(demo.exec()).context("failed to start the demo")
}
