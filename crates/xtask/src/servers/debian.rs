//! Unpacks Debian packages and everything they need into one folder, and writes scripts that run programs from it.
//!
//! apt resolves and downloads against a state of its own, dpkg-deb only unpacks: no root rights, no maintainer scripts,
//! nothing of the system's apt or dpkg is read (apart from where its mirror is) or written. A program then runs with the
//! unpacked C library, whatever the machine's own is.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{need, quiet, step};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Unpacks `packages` of a suite of Debian, with their dependencies, into `root`.
pub fn unpack(suite: &str, packages: &[&str], root: &Path, work: &Path) -> Result<()> {
    let state = state(suite, "deb", work)?;
    let list = packages.join(" ");
    step(&format!("read the package index of Debian {suite}"), || quiet(apt(&state).arg("update")))?;
    step(&format!("download {list}"), || {
        quiet(apt(&state).args(["--download-only", "--yes", "install"]).args(packages))
    })?;
    step(&format!("unpack {list}"), || {
        fs::create_dir_all(root)?;
        for entry in fs::read_dir(state.join("cache/archives"))? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                quiet(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(root))?;
            }
        }
        Ok(())
    })
}

/// Unpacks the original source of a package of a suite of Debian, without Debian's changes, into `into`.
pub fn source(suite: &str, package: &str, into: &Path, work: &Path) -> Result<()> {
    let state = state(suite, "deb-src", work)?;
    step(&format!("read the index of sources of Debian {suite}"), || quiet(apt(&state).arg("update")))?;
    let archive = step(&format!("download the source of {package}"), || {
        let said = quiet(apt(&state).args(["source", "--download-only", package]).current_dir(&state));
        // Debian's changes come in files of their own, whose absence from a mirror does not matter here.
        let stem = format!("{package}_");
        let found = fs::read_dir(&state)?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&stem) && name.contains(".orig.tar.") && !name.ends_with(".asc")
        });
        match found {
            Some(archive) => Ok(archive),
            None => Err(said.err().unwrap_or_else(|| anyhow::anyhow!("no original source came"))),
        }
    })?;
    fs::create_dir_all(into)?;
    quiet(Command::new("tar").arg("-xf").arg(archive).args(["--strip-components=1", "-C"]).arg(into))?;
    Ok(())
}

/// A state of apt for binary packages (`deb`) or sources (`deb-src`) of one suite.
fn state(suite: &str, kind: &str, work: &Path) -> Result<PathBuf> {
    need("apt-get", "a Debian or Ubuntu system is needed; elsewhere install apt")?;
    need("dpkg-deb", "apt-get install dpkg")?;
    if !Path::new(KEYRING).is_file() {
        bail!("{KEYRING} is missing\nhint: install it with `apt-get install debian-archive-keyring`");
    }
    let mirror = mirror()?;
    let state = work.join(format!("apt-{kind}-{suite}"));
    for folder in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(state.join(folder))?;
    }
    // An empty status file: as if nothing were installed, so that the C library comes along.
    fs::write(state.join("status"), "")?;
    fs::write(state.join("suite.list"), format!("{kind} [signed-by={KEYRING}] {mirror} {suite} main\n"))?;
    Ok(state)
}

fn apt(state: &Path) -> Command {
    let at = |name: &str| state.join(name).display().to_string();
    let mut command = Command::new("apt-get");
    for option in [
        format!("Dir::Etc::sourcelist={}", at("suite.list")),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State={}", at("state")),
        format!("Dir::State::status={}", at("status")),
        format!("Dir::Cache={}", at("cache")),
        "APT::Install-Recommends=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::Retries=3".to_owned(),
        // The download folder is the user's own; apt's usual user could not write there.
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// The Debian mirror that this machine uses, or the one that `TIDEMILL_DEBIAN_MIRROR` names.
fn mirror() -> Result<String> {
    if let Some(mirror) = env::var("TIDEMILL_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let found = texts.filter_map(|text| mirror_in(&text)).next();
    found.context(
        "no Debian mirror is named under /etc/apt\nhint: set TIDEMILL_DEBIAN_MIRROR to the URL of one, ending in /debian",
    )
}

/// The first URL in an apt source file whose last folder is `debian`: the archive proper, not its security updates.
fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut urls = lines.flat_map(str::split_whitespace).filter(|word| word.starts_with("http"));
    urls.find(|url| url.trim_end_matches('/').ends_with("/debian")).map(str::to_owned)
}

/// Writes `bin/NAME`, a script that runs a program of the tree `root/` beside it.
///
/// `program` and `flags` may say `$root`; the caller's own arguments follow the flags.
pub fn write_launcher(install: &Path, name: &str, program: &str, flags: &str) -> Result<()> {
    let (triple, loader) = match env::consts::ARCH {
        "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        other => bail!("servers from Debian packages are not supported on {other}"),
    };
    let root = install.join("root");
    if !root.join(program).is_file() {
        bail!("the packages hold no {program}");
    }
    // Before Debian merged /lib into /usr/lib, the C library's package used the former.
    let folders = [format!("usr/lib/{triple}"), format!("lib/{triple}")];
    let folder = folders.iter().find(|folder| root.join(folder).join(loader).exists());
    let folder = folder.with_context(|| format!("the packages hold no {loader}"))?;
    let script = format!(
        "#!/bin/sh\n\
         # Runs {program} of the unpacked packages with their own loader and libraries.\n\
         root=$(cd \"$(dirname \"$0\")/../root\" && pwd) || exit 1\n\
         exec \"$root/{folder}/{loader}\" --library-path \"$root/lib/{triple}:$root/usr/lib/{triple}\" \\\n\
         \t--argv0 {name} \"$root/{program}\" {flags} \"$@\"\n"
    );
    let path = install.join("bin").join(name);
    fs::create_dir_all(install.join("bin"))?;
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn the_mirror_is_read_from_both_kinds_of_source_file() {
        let one_line =
            "# deb http://old.example/debian x main\ndeb https://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(one_line).as_deref(), Some("https://mirror.example/debian/"));
        let stanza = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(stanza).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("deb http://mirror.example/debian-security bookworm main"), None);
    }
}
