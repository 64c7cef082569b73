//! `cargo xtask`: the chores of this repository.

mod servers;
mod step;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    match run(&verb, &words.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: &str, words: &[String]) -> Result<()> {
    match verb {
        "servers" => servers::install(words),
        other => bail!("there is no chore `{other}`"),
    }
}
