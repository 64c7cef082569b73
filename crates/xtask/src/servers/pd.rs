//! PD, which knows a TiDB cluster's servers, built from its Go module at the versions that `servers/pd/go.mod` locks.
//!
//! Upstream tags no release that the module index serves: this is its main branch of April 2024, between 8.1.0-alpha and
//! 8.1. Its etcd and the routes of it are those of the releases.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::tidb::go;
use crate::step::{loud, need, quiet, step, workspace};

pub const VERSION: &str = "pd 8.1.0-alpha-4-g7179657d1, recipe 1";

const MODULE: &str = "github.com/tikv/pd";

pub fn install(install: &Path, work: &Path) -> Result<()> {
    need("go", "apt-get install golang-go` (1.25.8 or newer is needed) or from `https://go.dev/dl")?;
    let locked = workspace().join("crates/xtask/servers/pd");
    for file in ["go.mod", "go.sum"] {
        fs::copy(locked.join(file), work.join(file))?;
    }
    step("build pd-server (about 4 minutes the first time)", || build(install, work))?;
    step("remove the build cache", || quiet(go(work).args(["clean", "-cache"])))?;
    Ok(())
}

fn build(install: &Path, work: &Path) -> Result<()> {
    let version = VERSION.split([' ', ',']).nth(1).unwrap_or_default();
    let flags = format!("-s -w -X {MODULE}/pkg/versioninfo.PDReleaseVersion=v{version}");
    let program = install.join("bin/pd-server");
    let package = format!("{MODULE}/cmd/pd-server");
    loud(
        go(work)
            .args(["build", "-trimpath", "-tags", "without_dashboard", "-ldflags", &flags, "-o"])
            .arg(program)
            .arg(package),
    )
}
