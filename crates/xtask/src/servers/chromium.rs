//! Chromium without a window, the version of Debian 12: what tests of the page of `examples/live` drive.
//!
//! About 150 MB come over the network and 360 MB stay on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::{debian, remove};

pub const VERSION: &str = "chromium from bookworm, recipe 1";

/// What only a graphics card needs, and papers: a third of all.
const UNUSED: [&str; 6] = [
    "usr/lib/*/dri",
    "usr/lib/*/libLLVM*",
    "usr/lib/*/libz3*",
    "usr/share/doc",
    "usr/share/icons",
    "usr/share/man",
];

pub fn install(install: &Path, work: &Path) -> Result<()> {
    let root = install.join("root");
    debian::unpack("bookworm", &["chromium-headless-shell", "fonts-dejavu-core"], &root, work)?;
    for pattern in UNUSED {
        for path in matching(&root, pattern)? {
            if path.is_dir() { remove(&path)? } else { fs::remove_file(path)? }
        }
    }
    let program = root.join("usr/lib/chromium");
    let loaders = ["lib/*/ld-linux-*.so.*", "usr/lib/*/ld-linux-*.so.*"];
    let found = loaders.iter().filter_map(|pattern| matching(&root, pattern).ok()?.pop()).next();
    // It looks for its files beside whatever program runs it, so the loader moves there.
    fs::copy(found.context("the packages hold no loader")?, program.join("loader"))?;
    let script = "#!/bin/sh\n\
        # Runs the unpacked Chromium with its own loader and libraries. What it opens is ours, so no sandbox, which needs rights.\n\
        root=$(cd \"$(dirname \"$0\")/../root\" && pwd) || exit 1\n\
        paths=$(echo \"$root\"/lib/*-linux-gnu \"$root\"/usr/lib/*-linux-gnu \"$root\"/usr/lib/*-linux-gnu/pulseaudio | tr ' ' ':')\n\
        exec \"$root/usr/lib/chromium/loader\" --library-path \"$paths\" --argv0 chromium \\\n\
        \t\"$root/usr/lib/chromium/chromium-headless-shell\" --no-sandbox --no-zygote --browser-subprocess-path=\"$0\" \"$@\"\n";
    let path = install.join("bin/chromium");
    fs::create_dir_all(install.join("bin"))?;
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Files below `root` whose path matches, where `*` is a part of one name.
fn matching(root: &Path, pattern: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for folder in &found {
            let Ok(entries) = fs::read_dir(folder) else { continue };
            for entry in entries {
                let entry = entry?;
                if fits(&entry.file_name().to_string_lossy(), part) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    Ok(found)
}

fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((head, rest)) => {
            let Some(name) = name.strip_prefix(head) else { return false };
            (0..=name.len()).any(|at| name.is_char_boundary(at) && fits(&name[at..], rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_any_part_of_a_name() {
        assert!(fits("libLLVM-15.so.1", "libLLVM*") && fits("dri", "dri") && fits("x86_64-linux-gnu", "*"));
        assert!(fits("ld-linux-x86-64.so.2", "ld-linux-*.so.*") && !fits("ld-linux.so.2", "ld-linux-*.so.*"));
    }
}
