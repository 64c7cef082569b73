//! The SQL door of a node: open where the project says so, closed to strangers, and shut again with the node.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use engine::{Engine, Options, Sqlite};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use testkit::Port;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn tidemill(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("-C").arg(dir).args(arguments).env_remove("TIDEMILL_PROJECT").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn up(dir: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("-C").arg(dir).args(["up", "--quiet"]).env_remove("TIDEMILL_PROJECT");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What the client of MySQL hears.
fn asked(port: u16, sql: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(testkit::MySql::client_program().unwrap());
    command.args(["-h127.0.0.1", "-ubi", "--batch", &format!("-P{port}"), "-e", sql]).args(arguments);
    command.output().unwrap()
}

/// Asks until the answer is as wanted.
fn heard(port: u16, sql: &str, arguments: &[&str], wanted: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let out = asked(port, sql, arguments);
        if text(&out.stdout) == wanted || text(&out.stderr).contains(wanted) {
            return;
        }
        assert!(Instant::now() < until, "{sql}: {out:?}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_node_opens_its_door_to_this_machine_then_to_tokens_and_shuts_it() {
    let dir = tempfile::tempdir().unwrap();
    let (http, mysql) = (Port::reserve().unwrap(), Port::reserve().unwrap());
    let listen = format!(
        "name: shop\nlisten: {{http: \"{}\", mysql: \"{}\"}}\nengine: sqlite:./data/warehouse.db\n",
        http.addr(),
        mysql.addr()
    );
    fs::write(dir.path().join("tidemill.yaml"), listen).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let engine = Sqlite::open(&dir.path().join("data/warehouse.db"), Options::default()).await.unwrap();
    engine.execute("create table dw.sale (id int primary key, amount decimal(10,2))").await.unwrap();
    engine.execute("insert into dw.sale values (1, 0.10), (2, 7)").await.unwrap();
    let mut node = up(dir.path());
    let port = mysql.number();
    heard(port, "use dw; select sum(amount) as s from sale", &[], "s\n7.10\n");
    heard(port, "show databases", &[], "Database\ndw\ninformation_schema\nmain\n");
    let made = tidemill(dir.path(), &["token", "create", "bi", "--scope", "read"]);
    let token = text(&made.stdout).split_whitespace().find(|it| it.starts_with("tidemill_")).unwrap();
    let password = format!("--password={token}");
    let clear = ["--ssl-mode=DISABLED", "--enable-cleartext-plugin"];
    heard(port, "select 1", &[], "ERROR 1045");
    heard(port, "select 1 as a", &[&password, clear[0], clear[1]], "a\n1\n");
    let made = tidemill(dir.path(), &["token", "create", "device", "--scope", "subscribe"]);
    let other = text(&made.stdout).split_whitespace().find(|it| it.starts_with("tidemill_"));
    if let Some(other) = other {
        let password = format!("--password={other}");
        heard(port, "select 1", &[&password, clear[0], clear[1]], "has not the scope `read`");
    }
    let killed = Command::new("kill").arg("-TERM").arg(node.id().to_string()).status().unwrap();
    assert!(killed.success() && node.wait().unwrap().success());
    assert!(text(&asked(port, "select 1", &[]).stderr).contains("2003"), "the port is closed");
}

#[test]
fn what_stands_against_the_door_is_told_before() {
    let dir = tempfile::tempdir().unwrap();
    for (yaml, part) in [
        (
            "name: a\nlisten: {mysql: \"127.0.0.1:7306\"}\n",
            "listen.mysql opens a door to the `engine`, and there is none",
        ),
        ("name: a\nlisten: {mysql: \"127.0.0.1:7070\"}\nengine: sqlite:./w.db\n", "as listen.http is"),
        ("name: a\nlisten: {mysql: \"0.0.0.0:7306\"}\nengine: sqlite:./w.db\n", "and there is no `tls`"),
        ("name: a\nlisten: {mysql: \"0.0.0.0:7306\"}\nengine: sqlite:./w.db\n", "and there is no token"),
    ] {
        fs::write(dir.path().join("tidemill.yaml"), yaml).unwrap();
        let out = tidemill(dir.path(), &["check"]);
        assert_eq!(out.status.code(), Some(2), "{yaml}");
        assert!(text(&out.stderr).contains(part) || text(&out.stdout).contains(part), "{yaml}: {out:?}");
    }
}
