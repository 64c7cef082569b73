//! What someone meets who has just begun: what `init` makes, what mistakes are told, and what each command says of a
//! project on which nothing or little has happened.

use crate::node::{Node, PATIENCE};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

const SHOP: &str = "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n";
const FILES: &str = "kind: files\npath: ./out\n";

fn shop(node: &Node) -> Connection {
    let db = Connection::open(node.path("shop.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE orders (id INTEGER PRIMARY KEY, product TEXT);
         CREATE TABLE products (id INTEGER PRIMARY KEY);
         INSERT INTO orders VALUES (1, 'tea');",
    )
    .unwrap();
    db
}

fn with(source: &str, flow: &str) -> Node {
    Node::new(&[
        ("sources/main.yaml", source.to_owned()),
        ("sinks/out.yaml", FILES.into()),
        ("flows/main_to_out.yaml", flow.to_owned()),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_that_matches_nothing_is_told_by_check_and_by_up() {
    let mut node = with(
        "kind: sqlite\npath: ./shop.db\ntables: [\"shpo.*\", \"shop.order?\"]\n",
        "from: main\nto: out\ntables: [\"shop.order\"]\n",
    );
    shop(&node);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "a table may be made later: {err}");
    assert!(out.contains("sources/main.yaml: captures 1 table;"), "{out}");
    assert!(
        err.contains("note: sources/main.yaml: `shpo.*` matches no table: did you mean `shop.*`?")
            && err.contains("note: flows/main_to_out.yaml: `shop.order` matches no table that the source `main` captures: did you mean `shop.orders`?")
            && !err.contains("`shop.order?` matches"),
        "{err}"
    );
    let (code, out, _) = node.run(&["check", "--connect", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["problems"], answer["notes"].as_array().unwrap().len()), (0, &json!([]), 2));
    node.start();
    node.wait("the table is read", |s| s["flows"][0]["lag_changes"] == 0 && s["sources"][0]["lsn"] == 1)
        .await;
    node.until("both are logged", || async { node.log().matches("a pattern matches nothing").count() == 2 })
        .await;
    assert!(node.log().contains("`shpo.*`") && node.log().contains("`shop.order`"), "{}", node.log());
}

#[test]
fn mistakes_in_files_are_told_once_and_where_they_stand() {
    let node = with("kind: sqlite\npath: ./shop.db\ntables: shop.*\n", "from: main\nto: out\n");
    node.write("sources/second.yml", SHOP);
    node.write("sinks/.hidden", "not ours");
    let (code, _, err) = node.run(&["check"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("sources/main.yaml:3:9: `tables` must be a list, for example [\"shop.*\"]\n"),
        "{err}"
    );
    assert!(err.contains("sources/second.yml:1:1:") && err.contains("rename it to second.yaml"), "{err}");
    assert!(err.ends_with("error: the project has 2 mistakes\n"), "{err}");
    fs::remove_file(node.path("sources/second.yml")).unwrap();
    node.write("sources/main.yaml", SHOP);
    fs::remove_file(node.path("flows/main_to_out.yaml")).unwrap();
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 0 && err.contains("note: flows: there is no flow"), "{code} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_check_and_up_ask_for_the_secrets() {
    let source = "# SHOP_PASSWORD is in the vault\nkind: mysql\nurl: mysql://cdc:${env:NO_SUCH_VARIABLE}@127.0.0.1:1\n\
                  tables: [\"shop.*\"]\n";
    let mut node = with(source, "from: main\nto: out\n");
    for command in ["check", "up"] {
        let (code, _, err) = node.run(&[command]);
        let wanted = "sources/main.yaml:3:24: the environment has no `NO_SUCH_VARIABLE`\n  hint: export \
                      NO_SUCH_VARIABLE=…, then run again\n";
        assert!(code == 2 && err.contains(wanted), "{code} {err}");
        assert_eq!(err.contains("nothing was started"), command == "up", "{err}");
    }
    let away =
        format!("error: no node answers at http://{}\nhint: start it with `tidemill up`\n", node.address());
    for command in [&["status"][..], &["flow", "list"], &["tail", "main"]] {
        let (code, _, err) = node.run(command);
        assert_eq!((code, err.as_str()), (3, away.as_str()), "{command:?}");
    }
    let (code, _, err) = node.run(&["tail", "main", "--offline"]);
    assert!(code != 0 && err.contains("journal") && !err.contains("NO_SUCH_VARIABLE"), "{code} {err}");
    let (code, out, _) = node.run(&["doctor"]);
    assert!(code == 0 && out.contains("source main\n  kind: mysql\n  url: [redacted]\n"), "{code} {out}");
    assert!(out.contains("status: no node answers"), "{out}");
    let (_, out, _) = node.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["facts"]["sink out"]["kind"], "files", "{report:#}");
    // Where the running node has the variable, its commands need none.
    node.write("sources/main.yaml", SHOP);
    shop(&node);
    node.start();
    node.wait("the shop is read", |s| s["flows"][0]["lsn"] == 1).await;
    node.write("sources/main.yaml", source);
    let (code, out, err) = node.run(&["status"]);
    assert!(code == 0 && out.contains("0 changes"), "{code} {out} {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_answer_in_words() {
    let mut node = with(SHOP, "from: main\nto: out\n");
    let db = shop(&node);
    node.start();
    node.wait("the shop is read", |s| s["flows"][0]["lsn"] == 1).await;
    node.until("the snapshot's end is logged", || async { node.log().contains("snapshot done") }).await;
    let said = |args: &[&str]| {
        let (code, out, err) = node.run(args);
        (code, out + &err)
    };
    assert_eq!(said(&["flow", "dead-letters", "main_to_out"]), (0, "no parked changes\n".into()));
    let (code, text) = said(&["tail", "main", "--from", "foo"]);
    assert_eq!((code, text.matches("is not start, now or an lsn").count()), (2, 1), "{text}");
    assert_eq!(said(&["flow", "pause", "main_to_out"]).0, 0);
    db.execute("INSERT INTO orders VALUES (2, 'rice')", []).unwrap();
    node.wait("one change waits", |s| s["flows"][0]["lag_changes"] == 1).await;
    for command in [&["flow", "list"][..], &["status"]] {
        let (_, text) = said(command);
        assert!(text.contains("  1 change  "), "{text}");
    }
    assert_eq!(said(&["flow", "resume", "main_to_out"]).0, 0);
    let (code, text) = said(&["flow", "resnapshot", "main_to_out", "shop.orders"]);
    assert_eq!((code, text.as_str()), (0, "reading anew: shop.orders\n"));
    node.write("tidemill.yaml", "name: second\nlisten: {http: \"127.0.0.1:0\"}\n");
    let (code, text) = said(&["up"]);
    assert!(code != 0 && text.contains("stop it first") && !text.contains("--offline"), "{code} {text}");
    let address = node.address();
    node.write(
        "tidemill.yaml",
        &format!("name: third\ndata_dir: ./other\nlisten: {{http: \"{address}\"}}\n"),
    );
    let (code, text) = said(&["up"]);
    assert!(
        code != 0 && text.contains("write into tidemill.yaml: listen: {http: 127.0.0.1:"),
        "{code} {text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_logged_once_and_so_is_its_end() {
    let mut node = with(SHOP, "from: main\nto: out\n");
    node.write("out", "a file where the sink wants a folder");
    let db = shop(&node);
    node.start();
    let failed = node
        .wait("the sink's folder cannot be made", |s| s["flows"][0]["error"]["message"].is_string())
        .await;
    assert!(failed["flows"][0]["error"]["hint"].is_string(), "{failed:#}");
    fs::remove_file(node.path("out")).unwrap();
    // Ends the wait before the next look.
    assert_eq!(node.run(&["flow", "resume", "main_to_out"]).0, 0);
    node.wait("it is delivered", |s| s["flows"][0]["lsn"] == 1 && s["flows"][0]["error"].is_null()).await;
    node.until("the end is logged", || async { node.log().contains("delivery resumed") }).await;
    assert_eq!(node.log().matches("delivery interrupted").count(), 1, "{}", node.log());
    db.execute("INSERT INTO orders VALUES (2, 'rice')", []).unwrap();
    node.wait("the rest flows", |s| s["flows"][0]["lsn"] == 2).await;
    assert_eq!(node.log().matches("delivery resumed").count(), 1, "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_folder_names_the_address_that_it_listens_on() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["demo"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let (sender, told) = mpsc::channel();
    // The pipe is read to its end, so that the demo never waits for us.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let command = loop {
        let line = told.recv_timeout(PATIENCE).unwrap();
        if let Some(command) = line.trim().strip_prefix("status ") {
            break command.trim().to_owned();
        }
    };
    let status = Command::new("sh").args(["-c", &command]).output().unwrap();
    let ended = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(ended.success() && demo.wait().unwrap().success());
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("shop_to_copy"), "{command}\n{status:?}");
}

#[test]
fn three_devices_of_the_live_demo_end_with_what_the_shop_has() {
    let node = Node::new(&[]);
    let (code, out, err) = node.run(&["demo", "live", "--seconds", "3"]);
    assert_eq!(code, 0, "{out}{err}");
    for told in
        ["is switched off. Its token", "is switched on with nothing", "changes come", "All three devices"]
    {
        assert!(out.contains(told), "{told}\n{out}");
    }
    let ends: Vec<Vec<&str>> = out
        .lines()
        .filter(|line| line.ends_with("equal"))
        .map(|line| line.split_whitespace().skip(2).collect())
        .collect();
    assert!(ends.len() == 3 && ends.iter().all(|end| *end == ends[0]), "{out}");
    assert!(out.lines().any(|line| line.contains("the shop") && line.contains(ends[0][1])), "{out}");
}
