//! The workspace's crates, as their manifests say.
//!
//! Reads the few lines of TOML that our own manifests use: section headers and one dependency a line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One crate of `crates/`.
pub struct Crate {
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    pub dependencies: Vec<Dependency>,
}

/// One line of a manifest that names a dependency.
#[derive(Debug, PartialEq)]
pub struct Dependency {
    pub name: String,
    pub line: usize,
    /// Needed by tests only.
    pub dev: bool,
}

/// Every crate of the workspace, by name.
pub fn crates(root: &Path) -> Result<Vec<Crate>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("crates")).context("failed to read crates/")? {
        let folder = entry?.path();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push(Crate { name, folder, dependencies: dependencies(&manifest) });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            // `[dependencies.NAME]` names one in the header itself.
            if let Some((kind, name)) = section.rsplit_once('.')
                && kind.ends_with("dependencies")
            {
                found.push(Dependency {
                    name: name.to_owned(),
                    line: number,
                    dev: kind.ends_with("dev-dependencies"),
                });
            }
        } else if section.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default().trim_matches('"').to_owned();
            found.push(Dependency { name, line: number, dev: section.ends_with("dev-dependencies") });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_every_kind_of_section() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nbase.workspace = true\n# why\nserde = { version = \"1\" }\n\
                        [target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n[dev-dependencies.testkit]\nworkspace = true\n\
                        [dev-dependencies]\ntempfile = \"3\"\n";
        let found: Vec<_> = dependencies(manifest).into_iter().map(|it| (it.name, it.line, it.dev)).collect();
        let expected = [("base", 4, false), ("serde", 6, false), ("libc", 8, false), ("testkit", 9, true)];
        let mut expected: Vec<_> = expected.map(|(name, line, dev)| (name.to_owned(), line, dev)).into();
        expected.push(("tempfile".to_owned(), 12, true));
        assert_eq!(found, expected);
    }
}
