//! Rows on their way: taken apart, split, looked up, set aside and mended, and shown before and after.

use crate::node::{Node, mysql_source, run_all, sqlite_rows};
use serde_json::Value;
use testkit::{MySql, MySqlOptions};

const EDGE: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 \
                    Safari/537.36 Edg/126.0.2592.87";

/// A table of a server, and a flow with these steps into a SQLite file.
async fn flow(setup: &[&str], transform: &str) -> (MySql, Node) {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(&server, &["CREATE DATABASE web"]).await;
    run_all(&server, setup).await;
    let node = Node::new(&[
        ("sources/web.yaml", mysql_source(&server.url(), "web.*")),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("lookups/status.csv", "code,label,class\n200,OK,2\n404,Not Found,4\n".into()),
        ("flows/logs.yaml", format!("from: web\nto: copy\ntransform:\n{transform}")),
    ]);
    (server, node)
}

/// Waits until the flow is at the journal's end, which is at least this far.
async fn delivered(node: &Node, lsn: u64) -> Value {
    node.wait("all is delivered or parked", |s| {
        s["flows"][0]["lsn"].as_u64() >= Some(lsn) && s["flows"][0]["lag_changes"] == 0
    })
    .await
}

fn rows(node: &Node, sql: &str) -> Vec<Vec<String>> {
    sqlite_rows(&node.path("copy.db"), sql)
}

async fn rows_become(node: &Node, sql: &str, wanted: &[&[&str]]) {
    node.until("the rows are there", || async { rows(node, sql) == wanted }).await;
}

fn preview(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let (code, out, err) = node.run(&[&["flow", "preview", "logs", "--json"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const ACCESS: &str = r#"  - grok: {column: line, match: ["^%{COMBINEDAPACHELOG}$"]}
  - date: {column: timestamp, formats: ["dd/MMM/yyyy:HH:mm:ss Z"], into: at}
  - user_agent: {column: agent}
  - geo_point: {lat: lat, lon: lon, into: place}
  - lookup: {column: response, file: lookups/status.csv, key: code, columns: {label: "varchar(30)", class: int}, default: {label: unknown}}
  - filter: "request <> '/health'"
  - columns: [id, clientip, verb, request, response, bytes, at, ua_browser, ua_os, place, label, class]
"#;

fn line(request: &str, status: &str, bytes: &str) -> String {
    format!(
        r#"203.0.113.7 - - [26/Nov/2026:18:30:05 +0100] "GET {request} HTTP/1.1" {status} {bytes} "-" "{EDGE}""#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_lines_become_columns_and_a_broken_one_is_mended() {
    let table = "CREATE TABLE web.log (id INT PRIMARY KEY, line TEXT, lat DOUBLE, lon DECIMAL(9,6))";
    let (server, mut node) = flow(&[table], ACCESS).await;
    let insert = async |id: u32, line: &str| {
        server.exec(&format!("INSERT INTO web.log VALUES ({id}, '{line}', 48.2, 16.37)")).await.unwrap();
    };
    insert(1, &line("/a", "200", "2326")).await;
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    insert(2, &line("/gone", "499", "-")).await;
    insert(3, &line("/health", "200", "2")).await;
    insert(4, "not a line at all").await;
    insert(5, &line("/b", "404", "7")).await;
    node.wait("the broken line is parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let all = "SELECT id, clientip, verb, request, response, bytes, at, ua_browser, ua_os, place, label, class \
               FROM log ORDER BY id";
    let row = |id: &'static str, request: &'static str, rest: [&'static str; 4]| -> Vec<String> {
        let [response, bytes, label, class] = rest;
        let at = "2026-11-26 17:30:05.000";
        let place = r#"{"lat": 48.2, "lon": 16.37}"#;
        let cells =
            [id, "203.0.113.7", "GET", request, response, bytes, at, "Edge", "Windows", place, label, class];
        cells.map(str::to_owned).to_vec()
    };
    let mut wanted = vec![
        row("1", "/a", ["200", "2326", "OK", "2"]),
        row("2", "/gone", ["499", "NULL", "unknown", "NULL"]),
        row("5", "/b", ["404", "7", "Not Found", "4"]),
    ];
    node.until("the others are there", || async { rows(&node, all) == wanted }).await;
    let types = rows(&node, "SELECT name, type FROM pragma_table_info('log') ORDER BY cid");
    let types: Vec<String> = types.into_iter().map(|cells| cells.join(" ")).collect();
    assert_eq!(
        types.join(", "),
        "id INTEGER, clientip TEXT, verb TEXT, request TEXT, response INTEGER, bytes INTEGER, at TEXT, \
         ua_browser TEXT, ua_os TEXT, place TEXT, label TEXT, class INTEGER"
    );

    // What the rules make of each, while the flow runs, for programs and for people.
    let shown = preview(&node, &["--limit", "4"]);
    let outcomes: Vec<_> = shown.iter().map(|c| c["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passes", "left_out", "parked", "passes"]);
    assert_eq!(shown[0]["rows"][0]["after"]["label"], "unknown");
    assert_eq!(shown[0]["rows"][0]["op"], "insert");
    assert_eq!(shown[3]["after"]["line"], line("/b", "404", "7"));
    let reason = "grok: \"not a line at all\" matches no pattern";
    assert_eq!(shown[2]["reason"], reason);
    let (code, text, err) = node.run(&["flow", "preview", "logs", "--limit", "4"]);
    assert_eq!(code, 0, "{err}");
    for part in ["-> left out", &format!("-> would be parked: {reason}"), "FOR THE SINK", "Not Found"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(node.status()["flows"][0]["dead_letters"], 1, "a preview parks nothing");

    // Trying again does not help before the line is mended, and does then.
    let (_, out, _) = node.run(&["flow", "dead-letters", "logs"]);
    assert!(out.contains(reason), "{out}");
    let (_, out, _) = node.run(&["flow", "retry", "logs"]);
    assert!(out.contains("0 delivered, 1 still parked"), "{out}");
    let mended = line("/mended", "200", "9");
    server.exec(&format!("UPDATE web.log SET line = '{mended}' WHERE id = 4")).await.unwrap();
    node.wait("the update waits behind it", |s| s["flows"][0]["dead_letters"] == 2).await;
    let (_, out, _) = node.run(&["flow", "retry", "logs"]);
    assert!(out.contains("2 delivered, 0 still parked"), "{out}");
    wanted.insert(2, row("4", "/mended", ["200", "9", "OK", "2"]));
    assert_eq!(rows(&node, all), wanted);
    // A row that goes bad later keeps its last good state in the sink until it is mended.
    server.exec("UPDATE web.log SET line = 'bad again' WHERE id = 4").await.unwrap();
    node.wait("parked again", |s| s["flows"][0]["dead_letters"] == 1).await;
    server.exec("DELETE FROM web.log WHERE id = 4").await.unwrap();
    node.wait("the delete waits", |s| s["flows"][0]["dead_letters"] == 2).await;
    let (_, out, _) = node.run(&["flow", "retry", "logs"]);
    assert!(out.contains("0 still parked"), "{out}");
    wanted.remove(2);
    assert_eq!(rows(&node, all), wanted);

    node.stop();
    let offline = preview(&node, &["--limit", "3", "--offline"]);
    assert_eq!(offline.len(), 3, "the journal's newest");
    assert_eq!(offline[2]["op"], "delete");
    // The image before the delete has no answer; its key is enough.
    assert_eq!(offline[2]["rows"][0]["before"]["id"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_rows_follow_lists_that_grow_and_shrink() {
    let table = "CREATE TABLE web.posts (id INT PRIMARY KEY, title VARCHAR(20), tags VARCHAR(60))";
    let steps = "  - split: {column: tags, separator: \",\", type: \"varchar(6)\"}\n  - filter: \"tags <> 'hidden'\"\n";
    let (server, mut node) = flow(&[table], steps).await;
    run_all(&server, &["INSERT INTO web.posts VALUES (1, 'one', 'a,b,c'), (2, 'two', '')"]).await;
    node.start();
    let all = "SELECT id, \"#\", title, tags FROM posts ORDER BY id, \"#\"";
    rows_become(&node, all, &[&["1", "0", "one", "a"], &["1", "1", "one", "b"], &["1", "2", "one", "c"]])
        .await;
    let key = rows(&node, "SELECT name FROM pragma_table_info('posts') WHERE pk > 0 ORDER BY pk");
    assert_eq!(key.concat(), ["id", "#"]);
    run_all(
        &server,
        &[
            "UPDATE web.posts SET tags = 'a,x' WHERE id = 1",
            "UPDATE web.posts SET tags = 'p,q' WHERE id = 2",
            "INSERT INTO web.posts VALUES (3, 'three', NULL)",
        ],
    )
    .await;
    let grown: [&[&str]; 4] =
        [&["1", "0", "one", "a"], &["1", "1", "one", "x"], &["2", "0", "two", "p"], &["2", "1", "two", "q"]];
    rows_become(&node, all, &grown).await;
    // Only what differs goes to the sink.
    let shown = preview(&node, &["--limit", "3"]);
    let ops = |change: &Value| -> Vec<String> {
        let rows = change["rows"].as_array().unwrap();
        rows.iter().map(|row| row["op"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ops(&shown[0]), ["update", "delete"]);
    assert_eq!(ops(&shown[1]), ["insert", "insert"]);
    assert_eq!((ops(&shown[2]).len(), shown[2]["outcome"].as_str()), (0, Some("left_out")));
    // Another key, a kill between, and an element that is filtered out.
    run_all(&server, &["UPDATE web.posts SET id = 9, tags = 'hidden,x,y' WHERE id = 1"]).await;
    node.kill9();
    node.start();
    run_all(&server, &["DELETE FROM web.posts WHERE id = 2"]).await;
    rows_become(&node, all, &[&["9", "1", "one", "x"], &["9", "2", "one", "y"]]).await;
    // An element that is too long parks the whole row, under its old key and its new one.
    run_all(&server, &["UPDATE web.posts SET id = 7, tags = 'x,toolong' WHERE id = 9"]).await;
    node.wait("parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    let (_, out, _) = node.run(&["flow", "dead-letters", "logs", "--json"]);
    let letters: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(letters[0]["key"], serde_json::json!({"id": 7}), "{out}");
    run_all(
        &server,
        &["INSERT INTO web.posts VALUES (9, 'new', 'n')", "INSERT INTO web.posts VALUES (4, 'four', 'k')"],
    )
    .await;
    node.wait("the new row of the old key waits", |s| s["flows"][0]["dead_letters"] == 2).await;
    rows_become(&node, all, &[&["4", "0", "four", "k"], &["9", "1", "one", "x"], &["9", "2", "one", "y"]])
        .await;
    // A rule that fits: all goes through, together.
    node.stop();
    let wider = "from: web\nto: copy\ntransform:\n  - split: {column: tags, separator: \",\"}\n  - filter: \"tags <> 'hidden'\"\n";
    node.write("flows/logs.yaml", wider);
    node.start();
    node.until("retry goes through", || async {
        node.run(&["flow", "retry", "logs"]).1.contains("0 still parked")
    })
    .await;
    let last: [&[&str]; 4] = [
        &["4", "0", "four", "k"],
        &["7", "0", "one", "x"],
        &["7", "1", "one", "toolong"],
        &["9", "0", "new", "n"],
    ];
    rows_become(&node, all, &last).await;
    delivered(&node, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_steps_are_told_before_anything_runs() {
    let node = Node::new(&[
        ("sources/web.yaml", "kind: sqlite\npath: ./web.db\ntables: [\"web.*\"]\n".into()),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
    ]);
    let steps = [
        ("grok: {column: a, match: [\"%{WROD:x}\"]}", "`WORD` is one"),
        ("grok: {column: a, match: [\"%{WORD:x:number}\"]}", "`number` is not a type"),
        ("grok: {column: a, match: [\"%{A:x}\"], define: {A: \"%{A}\"}}", "names itself"),
        ("grok: {column: a, match: [\"(?<=x)%{WORD:x}\"]}", "look-around"),
        ("dissect: {column: a, pattern: \"%{x}%{y}\"}", "side by side"),
        ("date: {column: a, formats: [\"MMM dd HH:mm\"]}", "no year"),
        ("date: {column: a, formats: [ISO8601], timezone: Mars/Base}", "`Mars/Base` is not a time zone"),
        ("json: {column: a, columns: {x: {path: user}}}", "is not a path"),
        ("lookup: {column: a, file: ../secret.csv, key: k, columns: {x: text}}", "outside of the project"),
        ("lookup: {column: a, file: /etc/passwd, key: k, columns: {x: text}}", "outside of the project"),
        ("lookup: {column: a, file: none.csv, key: k, columns: {x: text}}", "the file `none.csv`"),
        ("split: {column: a}", "finds its progress in its last message"),
        ("split: {column: a, seperator: \",\"}", "seperator"),
    ];
    for (step, part) in steps {
        let flow = format!("from: web\nto: lines\ntransform:\n  - filter: \"1 = 1\"\n  - {step}\n");
        node.write("flows/logs.yaml", &flow);
        let (code, _, err) = node.run(&["check"]);
        assert!(code == 2 && err.contains(part) && err.contains("flows/logs.yaml:5:"), "{step}\n{err}");
        assert!(err.contains("hint:"), "{err}");
    }
    std::os::unix::fs::symlink("/etc/passwd", node.path("link.csv")).unwrap();
    let flow = "from: web\nto: lines\ntransform:\n  - lookup: {column: a, file: link.csv, key: k, columns: {x: text}}\n";
    node.write("flows/logs.yaml", flow);
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("outside of the project"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_gets_columns_of_another_tables_row_as_it_is_at_delivery() {
    let steps = "  - lookup: {column: user_id, table: web.users, key: id, columns: {name: text, city: \"varchar(20)\"}, \
                 default: {name: nobody}}\n";
    let tables = [
        "CREATE TABLE web.users (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(20), city VARCHAR(20))",
        "CREATE TABLE web.logs (id INT PRIMARY KEY, user_id INT)",
        "INSERT INTO web.users VALUES (1, 'ann', 'Wien'), (2, 'bob', NULL)",
        "INSERT INTO web.logs VALUES (1, 1), (2, 2), (3, 3), (4, NULL)",
    ];
    let (server, mut node) = flow(&tables, &format!("{steps}tables: [web.logs]\n")).await;
    let (code, out, err) = node.run(&["check"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();
    let all = "SELECT id, user_id, name, city FROM logs ORDER BY id";
    let first = [
        &["1", "1", "ann", "Wien"][..],
        &["2", "2", "bob", "NULL"],
        &["3", "3", "nobody", "NULL"],
        &["4", "NULL", "nobody", "NULL"],
    ];
    rows_become(&node, all, &first).await;
    // What is looked up is of the same moment or later: one transaction makes both rows.
    server.exec("BEGIN; INSERT INTO web.logs VALUES (5, 9); INSERT INTO web.users VALUES (9, 'zoe', 'Linz'); COMMIT").await.unwrap();
    let fifth = &["5", "9", "zoe", "Linz"][..];
    rows_become(&node, all, &[&first[..], &[fifth]].concat()).await;
    // A later change is not carried over by itself, and is seen by the next change of the row.
    server.exec("UPDATE web.users SET name = 'eve' WHERE id = 1").await.unwrap();
    server.exec("INSERT INTO web.logs VALUES (6, 1)").await.unwrap();
    let sixth = &["6", "1", "eve", "Wien"][..];
    rows_become(&node, all, &[&first[..], &[fifth, sixth]].concat()).await;
    server.exec("UPDATE web.logs SET user_id = 2 WHERE id = 1").await.unwrap();
    server.exec("DELETE FROM web.logs WHERE id = 2").await.unwrap();
    let moved = &["1", "2", "bob", "NULL"][..];
    rows_become(&node, all, &[&[moved], &first[2..], &[fifth, sixth]].concat()).await;
    let shown = preview(&node, &["--limit", "1"]);
    assert_eq!(shown[0]["outcome"], "passes", "{shown:?}");
    let (code, _, err) = node.run(&["flow", "verify", "logs"]);
    assert!(code == 2 && err.contains("lookup"), "{code} {err}");
    node.write(
        "flows/logs.yaml",
        &format!("from: web\nto: copy\ntransform:\n{steps}  - filter: \"city = 'Wien'\"\n"),
    );
    node.stop();
    node.start();
    node.wait("a filter behind it is refused", |s| {
        s["flows"][0]["error"]["message"].to_string().contains("behind a `lookup`")
    })
    .await;
}
