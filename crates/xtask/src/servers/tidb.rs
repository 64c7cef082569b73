//! TiDB, built from its Go modules at the versions that `servers/tidb/go.mod` locks.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::{loud, need, quiet, step, workspace};

pub const VERSION: &str = "tidb 8.5.6, recipe 1";

const RELEASE: &str = "v8.5.6";
const COMMIT: &str = "ae18096e023780bb56bfce33698abec0d4640d0a";
const MODULE: &str = "github.com/pingcap/tidb";

pub fn install(install: &Path, work: &Path) -> Result<()> {
    need("go", "apt-get install golang-go` (1.25.8 or newer is needed) or from `https://go.dev/dl")?;
    let locked = workspace().join("crates/xtask/servers/tidb");
    for file in ["go.mod", "go.sum"] {
        fs::copy(locked.join(file), work.join(file))?;
    }
    let abi = abi_flag()?;
    step("download TiDB's modules (300 MB the first time)", || loud(go(work).args(["mod", "download"])))?;
    step("test that this Go keeps its maps as TiDB expects", || {
        let package = format!("{MODULE}/pkg/util/hack");
        quiet(go(work).args(["test", "-count=1", "-ldflags", &abi, &package]))
    })?;
    step("build tidb-server (about 6 minutes the first time)", || build(install, work, &abi))?;
    // Several GiB that only another build of the same version would use again.
    step("remove the build cache", || quiet(go(work).args(["clean", "-cache"])))?;
    Ok(())
}

fn build(install: &Path, work: &Path, abi: &str) -> Result<()> {
    let flags = format!(
        "-s -w {abi} -X {MODULE}/pkg/parser/mysql.TiDBReleaseVersion={RELEASE} \
         -X {MODULE}/pkg/util/versioninfo.TiDBGitHash={COMMIT} \
         -X {MODULE}/pkg/util/versioninfo.TiDBEdition=Community"
    );
    let program = install.join("bin/tidb-server");
    let package = format!("{MODULE}/cmd/tidb-server");
    loud(
        go(work)
            .args(["build", "-trimpath", "-tags", "codes", "-ldflags", &flags, "-o"])
            .arg(program)
            .arg(package),
    )
}

/// Go, with a build cache that goes with the work folder.
pub(super) fn go(work: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(work).env("GOCACHE", work.join("gocache")).env("CGO_ENABLED", "0");
    command
}

/// TiDB 8.5 reads Go's map layout and panics at start unless the runtime calls itself 1.25. The layout is the same in
/// Go 1.26, which TiDB's own test proves before each build, so the linker names both.
fn abi_flag() -> Result<String> {
    let version = quiet(Command::new("go").args(["env", "GOVERSION"]))?;
    Ok(format!("-X 'runtime.buildVersion={} X:tidb-map-abi-as-go1.25'", version.trim()))
}
