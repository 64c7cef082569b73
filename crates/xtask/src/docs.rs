//! The reference pages under `docs/reference`, which the tidemill binary writes from its own code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::{cargo, loud, step, workspace};

/// `docs` writes the pages; `docs --check` compares them.
pub fn run(words: &[String]) -> Result<()> {
    match words {
        [] => step("write docs/reference", || write(&workspace().join("docs/reference"))),
        [flag] if flag == "--check" => check(),
        _ => bail!("usage: cargo xtask docs [--check]"),
    }
}

/// Whether the tidemill binary has the hidden subcommand that writes the pages.
pub fn are_generated() -> Result<bool> {
    step("build tidemill", || loud(&mut cargo(["build", "--quiet", "-p", "tidemill"])))?;
    let output = tidemill().args(["docs", "--help"]).output().context("failed to start tidemill")?;
    Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("--write"))
}

/// Fails when the pages in the repository are not what the code says now.
pub fn check() -> Result<()> {
    step("compare docs/reference with what the code says", || {
        let kept = workspace().join("docs/reference");
        let fresh = std::env::temp_dir().join(format!("tidemill-reference-{}", std::process::id()));
        let written = write(&fresh);
        let stale = written.and_then(|()| differences(&kept, &fresh));
        fs::remove_dir_all(&fresh).with_context(|| format!("failed to remove {}", fresh.display()))?;
        let stale = stale?;
        if !stale.is_empty() {
            bail!("stale in docs/reference: {}\nhint: run `cargo xtask docs`", stale.join(", "));
        }
        Ok(())
    })
}

fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    loud(tidemill().args(["docs", "--write"]).arg(folder))
}

fn tidemill() -> std::process::Command {
    cargo(["run", "--quiet", "-p", "tidemill", "--"])
}

/// Pages that differ, are missing, or should not be there.
fn differences(kept: &Path, fresh: &Path) -> Result<Vec<String>> {
    let names: BTreeSet<PathBuf> =
        files(kept, Path::new(""))?.into_iter().chain(files(fresh, Path::new(""))?).collect();
    let differ = |name: &PathBuf| fs::read(kept.join(name)).ok() != fs::read(fresh.join(name)).ok();
    Ok(names.into_iter().filter(differ).map(|name| name.display().to_string()).collect())
}

/// Every file below `root/folder`, as paths below `root`; none when it is absent.
fn files(root: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return Ok(found) };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(root, &path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
