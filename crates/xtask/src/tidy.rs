//! The rules of the house that no compiler checks. All violations are reported at once, as `path:line: what`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::crates::{Crate, crates};
use crate::step::{step, workspace};

/// Which crate may use which others of the workspace, and why a line is drawn there: `base` has words and no policy,
/// `expr`, `journal`, `mysql`, `catalog` and `engine` are mechanisms that know nothing of each other (the engine evaluates by
/// `expr`), `flow` is a room that stands on
/// them, `tidemill` wires all. `testkit`, `bench` and `xtask` judge the rest and must not lean on it: `bench` measures
/// the program that users run, from outside.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("base", &[]),
    ("dial", &["base"]),
    ("journal", &["base"]),
    ("mysql", &["base"]),
    ("catalog", &["base"]),
    ("expr", &["base"]),
    ("engine", &["base", "expr"]),
    ("door", &["base", "engine", "mysql"]),
    ("flow", &["base", "dial", "expr", "journal", "mysql", "catalog"]),
    ("mesh", &["base", "mysql"]),
    ("placement", &["base"]),
    ("collect", &["base", "dial", "mysql", "engine", "catalog"]),
    ("warehouse", &["base", "catalog", "engine", "expr"]),
    ("proto", &[]),
    ("client", &["proto"]),
    (
        "tidemill",
        &[
            "base",
            "journal",
            "mysql",
            "catalog",
            "door",
            "engine",
            "flow",
            "collect",
            "warehouse",
            "mesh",
            "placement",
            "proto",
            "client",
        ],
    ),
    ("testkit", &[]),
    ("bench", &["testkit", "client"]),
    ("xtask", &[]),
];

/// The crate that any other may use, in tests only. `bench` is the exception that the table names: it ships nothing, and
/// starts the same servers outside of any test.
const TEST_ONLY: &str = "testkit";

/// What a crate may use in tests besides: `flow` is judged by a device that knows the interface alone.
const IN_TESTS: [(&str, &[&str]); 1] = [("flow", &["proto", "client"])];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "helpers", "helper", "common", "manager", "misc"];

/// A longer file has several subjects.
const FILE_LINES_MAX: usize = 1000;

/// Text that no source may hold, with the reason. Split, so that this file does not hold it either.
const FORBIDDEN: [(&str, &str); 4] = [
    (concat!("#[ig", "nore"), "a test is run or deleted, never ignored"),
    (concat!("to", "do!("), "it works or it is absent"),
    (concat!("unimple", "mented!("), "it works or it is absent"),
    (concat!("db", "g!("), "left over from debugging"),
];

/// Checks every rule; fails when any is broken.
pub fn run() -> Result<()> {
    step("tidy: crate edges, file heads, sizes, names, forbidden words", || {
        let root = workspace();
        let crates = crates(&root)?;
        let mut violations: Vec<String> =
            crates.iter().flat_map(|it| edge_violations(it, &crates, &root)).collect();
        for folder in ["crates", "examples", "bench"] {
            visit(&root.join(folder), &root, &mut violations)?;
        }
        if violations.is_empty() {
            return Ok(());
        }
        eprintln!("{}", violations.join("\n"));
        bail!("{} violations of the rules of the house", violations.len())
    })
}

fn edge_violations(it: &Crate, crates: &[Crate], root: &Path) -> Vec<String> {
    let manifest = shown(&it.folder.join("Cargo.toml"), root);
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == it.name) else {
        return vec![format!(
            "{manifest}:1: crate `{}` is not in the table of crates/xtask/src/tidy.rs",
            it.name
        )];
    };
    let ours =
        it.dependencies.iter().filter(|dependency| crates.iter().any(|known| known.name == dependency.name));
    ours.filter_map(|dependency| {
        let name = &dependency.name;
        let in_tests = IN_TESTS.iter().any(|(own, all)| *own == it.name && all.contains(&name.as_str()));
        let problem = if dependency.dev && in_tests {
            None
        } else if name == TEST_ONLY && !allowed.contains(&TEST_ONLY) {
            (!dependency.dev).then(|| format!("`{TEST_ONLY}` may only be a dev-dependency"))
        } else {
            (!allowed.contains(&name.as_str())).then(|| format!("`{}` must not depend on `{name}`", it.name))
        };
        Some(format!("{manifest}:{}: {}", dependency.line, problem?))
    })
    .collect()
}

/// Checks the sources below a folder; one that is absent has none.
fn visit(folder: &Path, root: &Path, violations: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        let stem = name.split('.').next().unwrap_or_default();
        let shown = shown(&path, root);
        let is_source = name.ends_with(".rs");
        if (path.is_dir() || is_source) && EMPTY_NAMES.contains(&stem) {
            violations.push(format!("{shown}:1: the name `{stem}` says nothing about what is inside"));
        }
        if path.is_dir() {
            visit(&path, root, violations)?;
        } else if is_source {
            violations.extend(source_violations(&shown, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn source_violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: a file begins with `//!` and what it is for"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{path}:{lines}: more than {FILE_LINES_MAX} lines"));
    }
    let is_test = path.contains("/tests/");
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        for (word, reason) in FORBIDDEN {
            if line.contains(word) {
                found.push(format!("{path}:{number}: `{word}`: {reason}"));
            }
        }
        if is_test && line.contains("sleep") && (line.contains("thread::") || line.contains("time::")) {
            found.push(format!("{path}:{number}: a test waits for what it needs, it does not sleep"));
        }
    }
    found
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crates::Dependency;

    fn violations_of(name: &str, dependencies: &[(&str, bool)]) -> Vec<String> {
        let make =
            |name: &str, dependencies| Crate { name: name.to_owned(), folder: name.into(), dependencies };
        let all: Vec<Crate> = ALLOWED.iter().map(|(name, _)| make(name, Vec::new())).collect();
        let dependencies =
            dependencies.iter().map(|&(name, dev)| Dependency { name: name.to_owned(), line: 3, dev });
        edge_violations(&make(name, dependencies.collect()), &all, Path::new(""))
    }

    #[test]
    fn only_the_edges_of_the_table_are_allowed() {
        assert_eq!(violations_of("flow", &[("base", false), ("serde", false), ("testkit", true)]), [""; 0]);
        assert_eq!(violations_of("flow", &[("client", true)]), [""; 0]);
        assert_eq!(violations_of("flow", &[("client", false)]).len(), 1);
        assert_eq!(
            violations_of("base", &[("flow", true)]),
            ["base/Cargo.toml:3: `base` must not depend on `flow`"]
        );
        assert_eq!(
            violations_of("flow", &[("testkit", false)]),
            ["flow/Cargo.toml:3: `testkit` may only be a dev-dependency"]
        );
        assert_eq!(violations_of("testkit", &[("base", false)]).len(), 1);
        assert_eq!(violations_of("bench", &[("testkit", false), ("flow", false)]).len(), 1);
        assert_eq!(violations_of("newcomer", &[]).len(), 1);
    }

    #[test]
    fn sources_without_a_head_and_with_forbidden_words_are_found() {
        let text = format!("fn f() {{\n    {}\n}}\n", concat!("to", "do!()"));
        let found = source_violations("crates/x/src/lib.rs", &text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("crates/x/src/lib.rs:1: ")
                && found[1].starts_with("crates/x/src/lib.rs:2: ")
        );
        let sleepy = "//! X.\nfn f() { std::thread::sl\u{65}ep(x) }\n";
        assert_eq!(source_violations("crates/x/tests/y.rs", sleepy).len(), 1);
        assert_eq!(source_violations("crates/x/src/y.rs", sleepy).len(), 0);
        assert_eq!(
            source_violations("crates/x/src/y.rs", &format!("//! X.\n{}", "\n".repeat(1000))).len(),
            1
        );
    }
}
