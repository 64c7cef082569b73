//! `tidemill import`: what other tools' files become, to the letter, and that the project passes its own check.
//!
//! `TIDEMILL_GOLDEN=write` writes the wanted files anew; look at the difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tidemill(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(args);
    for name in ["INVENTORY_CONNECTOR", "CRM", "BANK", "SHOP_CHANGES"] {
        command.env(format!("{name}_PASSWORD"), "p@ss:word");
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imports").join(name)
}

/// The files of a project, one behind the other.
fn project(dir: &Path) -> String {
    let mut out = String::new();
    for folder in ["", "sources", "sinks", "flows", "drafts"] {
        let entries = fs::read_dir(dir.join(folder)).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.is_file()) {
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            out.push_str(&format!("==> {name}\n{}", fs::read_to_string(path).unwrap()));
        }
    }
    out
}

fn becomes(tool: &str, file: &str, secrets: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().to_str().unwrap();
    let given = here(file);
    let done = tidemill(&["import", tool, given.to_str().unwrap(), "--into", into]);
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{out}{err}");
    let made = project(dir.path());
    for secret in secrets {
        assert!(!(made.clone() + &out + &err).contains(secret), "{secret} came along:\n{made}{err}");
    }
    let wanted = here(&format!("{file}.expected"));
    if std::env::var("TIDEMILL_GOLDEN").as_deref() == Ok("write") {
        fs::write(&wanted, &made).unwrap();
    }
    assert_eq!(made, fs::read_to_string(&wanted).unwrap(), "{}", wanted.display());
    // Every note is told twice: on stderr, and in the flow's file.
    let notes: Vec<&str> = made.lines().filter_map(|line| line.strip_prefix("# - ")).collect();
    let told: Vec<&str> = err.lines().filter_map(|line| line.strip_prefix("note: ")).collect();
    assert!(notes.len() > 3 && notes == told, "{err}");
    let checked = tidemill(&["-C", into, "check"]);
    assert_eq!(checked.status.code(), Some(0), "{made}\n{}", text(&checked.stderr));
    // Nothing is written over.
    let again = tidemill(&["import", tool, given.to_str().unwrap(), "--into", into]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("already"), "{}", text(&again.stderr));
    assert_eq!(project(dir.path()), made);
}

#[test]
fn a_debezium_connector_becomes_a_project() {
    becomes("debezium", "debezium.json", &["s3cret-literal", "do-not-print-me"]);
}

#[test]
fn a_debezium_connector_that_tells_transactions_becomes_a_flow_that_does() {
    becomes("debezium", "debezium_transactions.json", &[]);
}

#[test]
fn a_flat_debezium_configuration_becomes_a_project() {
    becomes("debezium", "debezium_flat.json", &[]);
}

#[test]
fn a_canal_instance_becomes_a_project() {
    becomes("canal", "canal.properties", &["literal:password"]);
}

#[test]
fn the_guide_shows_what_the_import_does() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/coming-from.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (_, rest) = guide.split_once("```json\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("connector.json"), rest.split_once("```").unwrap().0).unwrap();
    let mut import = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    import.current_dir(dir.path()).args(["import", "debezium", "connector.json", "--into", "new"]);
    let done = import.output().unwrap();
    let new = dir.path().join("new");
    let flow = fs::read_to_string(new.join("flows/shop_shop_users.yaml")).unwrap();
    let shown = [text(&done.stderr) + &text(&done.stdout), format!("# flows/shop_shop_users.yaml\n{flow}")];
    for shown in shown {
        assert!(guide.contains(&shown), "the guide lacks\n{shown}");
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    let checked = check
        .env("SHOP_PASSWORD", "cdc-secret")
        .args(["-C", new.to_str().unwrap(), "check"])
        .output()
        .unwrap();
    assert!(guide.contains(&text(&checked.stdout)) && checked.status.success(), "{}", text(&checked.stdout));
}

#[test]
fn what_is_no_configuration_of_the_tool_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for (tool, content, told) in [
        ("debezium", "not json", "not JSON"),
        ("debezium", "{\"config\": 7}", "no object of settings"),
        (
            "debezium",
            "{\"connector.class\": \"io.debezium.connector.oracle.OracleConnector\"}",
            "OracleConnector",
        ),
        ("debezium", "{\"connector.class\": \"x.MySqlConnector\"}", "`database.hostname` is missing"),
        ("canal", "a=b", "`canal.instance.master.address` is missing"),
    ] {
        fs::write(&file, content).unwrap();
        let into = dir.path().join("project");
        let done = tidemill(&["import", tool, file.to_str().unwrap(), "--into", into.to_str().unwrap()]);
        let err = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{err}");
        assert!(err.starts_with("error: failed to import: ") && err.contains(told), "{err}");
        assert!(!into.exists(), "nothing is written");
    }
    let done = tidemill(&["import", "canal", "/does/not/exist"]);
    assert_eq!(done.status.code(), Some(2));
}
