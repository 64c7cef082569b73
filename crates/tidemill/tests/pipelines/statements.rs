//! Statements that pass the mesh, in a search server: the mesh captures, another process reads what it captured.

use crate::mesh_upgrade::client;
use crate::node::{Node, run_all};
use serde_json::Value;
use std::collections::BTreeSet;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions, OpenSearch, OpenSearchOptions, Port};

const SHOP: [&str; 3] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (id INT PRIMARY KEY, note VARCHAR(40))",
    "INSERT INTO shop.orders VALUES (0, 'first')",
];

fn mesh(server: &MySql, door: &Port) -> Node {
    Node::new(&[(
        "mesh.yaml",
        format!(
            "listeners:
  - {{name: door, bind: \"{}\", tenants: [shop]}}
groups:
  shop:
    backends: [{{addr: \"127.0.0.1:{}\"}}]
    topology: static
capture: {{enabled: true, dir: ./sql}}
",
            door.addr(),
            server.port()
        ),
    )])
}

async fn search(node: &Node, words: &str) -> Value {
    match reqwest::get(format!("http://{}/api/v1/search/sql?q={words}", node.address())).await {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => Value::Null,
    }
}

/// How each kind of difference is told.
const WORDS: [&str; 3] =
    ["differ: 1 in the error", "differ: 1 in the number of rows", "differ: 1 in what the rows hold"];

fn told(node: &Node, args: &[&str]) -> String {
    let (code, out, err) = node.run(args);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

fn texts(changes: &[Value]) -> Vec<String> {
    let text = |change: &Value| change["after"]["text"].as_str().unwrap().to_owned();
    changes.iter().filter(|change| change["after"].is_object()).map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_found_in_an_index_each_once_over_kills_and_can_still_be_replayed() {
    const STATEMENTS: usize = 300;
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let other = MySql::start(MySqlOptions::default()).await.unwrap();
    let index = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(&server, &SHOP).await;
    run_all(&other, &SHOP).await;
    let door = Port::reserve().unwrap();
    let mut mesh = mesh(&server, &door);
    mesh.start();
    mesh.wait("the mesh serves", |s| s["mesh"]["groups"][0]["backends"][0]["state"] == "up").await;

    let folder = mesh.path("sql");
    let mut node = Node::new(&[
        ("sources/sql.yaml", format!("kind: capture\npath: {}\n", folder.display())),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", index.url())),
        ("flows/sql.yaml", "from: sql\nto: search\n".into()),
    ]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("sources/sql.yaml: 1 file of captured statements"), "{out}");
    node.start();

    let mut conn = client(&door).await;
    conn.query_drop("CREATE USER clerk@'%' IDENTIFIED BY 'geheim'").await.unwrap();
    conn.query_drop("SELECT note FROM orders WHERE note = 'marmalade'").await.unwrap();
    conn.exec_drop("SELECT id FROM orders WHERE note = ?", ("quince",)).await.unwrap();
    conn.query_drop("SELECT nothing FROM orders").await.unwrap_err();
    for n in 0..STATEMENTS {
        let note: Option<String> =
            conn.query_first(format!("SELECT note FROM orders WHERE id = 0 /* n{n} */")).await.unwrap();
        assert_eq!(note.as_deref(), Some("first"));
        // At any moment: while it starts too.
        if n % 40 == 39 {
            node.kill9();
            node.start();
        }
    }
    conn.disconnect().await.unwrap();
    node.until("the last statement is found", || async {
        search(&node, &format!("n{}", STATEMENTS - 1)).await["total"] == 1
    })
    .await;

    let found = search(&node, "marmalade").await;
    assert_eq!(found["total"], 1, "{found:#}");
    let row = &found["hits"][0]["source"];
    assert_eq!(
        [&row["kind"], &row["user"], &row["database"], &row["group"], &row["rows"], &row["error"]],
        [&Value::from("query"), &"root".into(), &"shop".into(), &"shop".into(), &0.into(), &0.into()],
        "{found:#}"
    );
    let failed = search(&node, "nothing").await;
    assert_eq!(failed["total"], 1, "{failed:#}");
    assert!(failed.to_string().contains("1054"), "{failed:#}");
    assert!(search(&node, "clerk").await["total"].as_u64() == Some(1), "the account is found");
    assert_eq!(search(&node, "geheim").await["total"], 0, "its password is not");

    node.stop();
    let changes = node.changes("sql");
    let all = texts(&changes);
    for n in 0..STATEMENTS {
        let times = all.iter().filter(|text| text.ends_with(&format!("/* n{n} */"))).count();
        assert_eq!(times, 1, "n{n}");
    }
    let ids: BTreeSet<&str> = changes.iter().filter_map(|change| change["after"]["id"].as_str()).collect();
    assert_eq!(ids.len(), all.len(), "no record has two rows");
    assert!(!changes.iter().any(|change| change.to_string().contains("geheim")));
    assert!(all.iter().any(|text| text.starts_with("CREATE") && text.contains("IDENTIFIED BY ?")), "{all:?}");

    // The files are as they were.
    mesh.stop();
    let to = format!("mysql://root@127.0.0.1:{}", other.port());
    let from = folder.to_str().unwrap();
    let (code, out, err) =
        mesh.run(&["mesh", "replay", "--from", from, "--to", &to, "--speed", "max", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {out}{err}"));
    assert_eq!((code, &report["differences"], &report["lost"]), (0, &0.into(), &0.into()), "{report:#}");
    assert!(report["compared"].as_u64().unwrap() >= STATEMENTS as u64, "{report:#}");
    assert_eq!(report["skipped"]["left_out"], 1, "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reports_of_a_mirror_and_of_a_replay_say_what_differs_in_words() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let other = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &SHOP).await;
    run_all(&other, &SHOP).await;
    run_all(&other, &["UPDATE shop.orders SET note = 'other'", "CREATE TABLE shop.more (id INT)"]).await;
    run_all(&server, &["CREATE TABLE shop.here (id INT)"]).await;
    let door = Port::reserve().unwrap();
    let mut node = Node::new(&[(
        "mesh.yaml",
        format!(
            "listeners:
  - {{name: door, bind: \"{}\", tenants: [shop]}}
groups:
  shop:
    backends: [{{addr: \"127.0.0.1:{}\"}}]
    topology: static
    mirror: {{to: \"127.0.0.1:{}\", account: {{name: root}}, share: 100, timeout: 20s}}
capture: {{enabled: true, answers: true}}
",
            door.addr(),
            server.port(),
            other.port()
        ),
    )]);
    node.start();
    node.wait("the mesh serves", |s| s["mesh"]["groups"][0]["backends"][0]["state"] == "up").await;
    let mut conn = client(&door).await;
    for id in 0..20 {
        conn.query_drop(format!("SELECT id FROM orders WHERE id = {id}")).await.unwrap();
        conn.exec_drop("SELECT note FROM orders WHERE id = ?", (id,)).await.unwrap();
    }
    conn.query_drop("SELECT id FROM here").await.unwrap();
    conn.query_drop("SELECT id FROM orders WHERE note = 'first'").await.unwrap();
    conn.query_drop("CREATE USER clerk IDENTIFIED BY 'geheim'").await.unwrap();
    conn.disconnect().await.unwrap();
    node.until("all reads are compared", || async {
        told(&node, &["mesh", "mirror"]).contains("compared   42\n")
    })
    .await;
    let mirror = told(&node, &["mesh", "mirror"]);
    let asked = format!("group      shop, 100 of 100 reads asked again of 127.0.0.1:{}", other.port());
    let wanted =
        [&asked, "differ     3", "times in ms: group > mirror", "the last: group 1 row, mirror 0 rows"];
    for line in wanted.iter().chain(&WORDS) {
        assert!(mirror.contains(line), "{line}\n{mirror}");
    }
    assert!(mirror.contains("the last: group 0 rows, mirror error 1146"), "{mirror}");
    let to = format!("mysql://root@127.0.0.1:{}", other.port());
    node.stop();
    let from = node.path("data/capture");
    let args = ["mesh", "replay", "--from", from.to_str().unwrap(), "--to", &to, "--speed", "max"];
    let (code, replay, err) = node.run(&args);
    assert_eq!(code, 4, "something differs: {replay}{err}");
    let wanted = [
        "of 1 session\n",
        "differ     3",
        "not asked  1: its literals are not in the capture",
        "times in ms: captured > replayed",
        "the last: captured 0 rows, replayed error 1146",
    ];
    for line in wanted.iter().chain(&WORDS) {
        assert!(replay.contains(line), "{line}\n{replay}");
    }
    assert!(!replay.contains("first") && !replay.contains("geheim"), "{replay}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_of_a_capture_source_are_told() {
    let node = Node::new(&[
        ("sources/sql.yaml", "kind: capture\nurl: mysql://a@b\non_gap: skip\ntopics: [a]\n".into()),
        ("sinks/out.yaml", "kind: files\npath: ./out\n".into()),
        ("flows/sql.yaml", "from: sql\nto: out\n".into()),
    ]);
    let (code, out, err) = node.run(&["check"]);
    let told = format!("{out}{err}");
    assert_eq!(code, 2, "{told}");
    for wanted in [
        "`url` means nothing to this kind of source",
        "`on_gap` means nothing to this kind of source",
        "`topics` means nothing to this kind of source",
        "a capture source needs `path`: the project has no mesh",
        "`capture.dir` of the mesh",
    ] {
        assert!(told.contains(wanted), "{wanted}\n{told}");
    }
    // Without a mesh's folder nothing is wrong yet, and it is said.
    node.write("sources/sql.yaml", "kind: capture\npath: ./nowhere\n");
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(format!("{out}{err}").contains("has no captures yet"), "{out}{err}");
}
