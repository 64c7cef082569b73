//! Flows that collect and models, as people run them: by command, by schedule, over HTTP, and killed in their midst.

use crate::node::{Node, sqlite_rows};
use crate::random::Rng;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const DAILY: &str = "/* @model
kind: incremental_by_time
time_column: day
start: 2026-01-01
lookback: 400
key: [day, dept]
checks:
  - not_null: [day, dept]
  - range: {column: orders, min: 1}
*/
SELECT day, dept, SUM(amount) AS amount, COUNT(*) AS orders
FROM ods.orders WHERE day BETWEEN @start_ds AND @end_ds GROUP BY day, dept
";

const TOTALS: &str = "/* @model
key: [dept]
checks:
  - row_count: {min: 1}
*/
SELECT dept, SUM(amount) AS amount FROM dws.daily GROUP BY dept
";

fn project() -> Vec<(&'static str, String)> {
    vec![
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        (
            "flows/orders.yaml",
            "from: shop\ntables: [\"shop.orders\"]\nmode: key_diff\nkey: [id]\nto: ods.orders\n".into(),
        ),
        ("models/dws/daily.sql", DAILY.into()),
        ("models/dws/totals.sql", TOTALS.into()),
    ]
}

fn shop(path: &Path, rows: i64) -> Connection {
    let shop = Connection::open(path).unwrap();
    shop.busy_timeout(Duration::from_secs(20)).unwrap();
    shop.execute_batch(&format!(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE orders (id INTEGER PRIMARY KEY, day DATE, dept VARCHAR(20), amount DECIMAL(12,2));
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           INSERT INTO orders SELECT i, date('2026-01-01', '+' || (i % 40) || ' days'), 'd' || (i % 7), i || '.25' FROM n;"
    ))
    .unwrap();
    shop
}

/// The project with the port of the test's node.
fn node(engine: &str) -> Node {
    let node = Node::new(&project());
    let text = std::fs::read_to_string(node.path("tidemill.yaml")).unwrap();
    node.write("tidemill.yaml", &format!("{text}engine: {engine}\ntimezone: Asia/Shanghai\n"));
    node
}

/// Department, sum and count as the source has them.
fn truth(node: &Node) -> Vec<Vec<String>> {
    let sql = "SELECT dept, printf('%.2f', sum(amount)), count(*) FROM orders GROUP BY dept ORDER BY dept";
    sqlite_rows(&node.path("shop.db"), sql)
}

/// The same by the command, of what the models made.
fn answer(node: &Node) -> Option<Vec<Vec<String>>> {
    let sql = "select d.dept, t.amount, sum(d.orders) as n from dws.daily d join dws.totals t on t.dept = d.dept \
               group by d.dept, t.amount order by d.dept";
    let (code, out, err) = node.run(&["query", sql, "--json"]);
    if code != 0 {
        assert!(err.contains("doesn't exist") || err.contains("unable to open"), "{err}");
        return None;
    }
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        ["dept", "amount", "n"]
            .map(|key| row[key].as_str().map_or(row[key].to_string(), str::to_owned))
            .to_vec()
    };
    Some(out.lines().map(row).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_runs_by_command_with_no_node_and_by_the_node_that_is_up() {
    let mut node = node("sqlite:./data/warehouse.db");
    let db = shop(&node.path("shop.db"), 2000);
    let (code, out, err) = node.run(&["check"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, _) = node.run(&["plan", "--json"]);
    assert_eq!(code, 0);
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["models"][0]["change"], "new");
    assert_eq!(plan["models"][0]["downstream"], json!(["dws.totals"]));
    let (code, out, err) = node.run(&["run", "orders+", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    let batch: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> =
        batch["parts"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["orders", "dws.daily", "dws.totals"]);
    assert_eq!(batch["parts"][0]["rows_read"], 2000);
    assert_eq!(answer(&node).unwrap(), truth(&node));
    // The same by the node that is up; who waits for it is told how it ended.
    db.execute_batch(
        "DELETE FROM orders WHERE id % 10 = 3; UPDATE orders SET amount = amount + 1 WHERE id < 100",
    )
    .unwrap();
    node.start();
    node.wait("up", |status| status["name"].is_string()).await;
    let (code, out, err) = node.run(&["run", "orders+", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(answer(&node).unwrap(), truth(&node));
    let status = node.status();
    assert_eq!(status["runs"][0]["name"], "orders+");
    assert_eq!(status["runs"][0]["state"], "ok");
    let (code, out, _) = node.run(&["runs", "dws.daily", "--json"]);
    assert_eq!(code, 0);
    let runs: Value = serde_json::from_str(&out).unwrap();
    let last = runs["runs"][0]["run"].as_i64().unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    // A check that blocks keeps what readers see, and the command says so.
    db.execute_batch("DELETE FROM orders").unwrap();
    let before = answer(&node).unwrap();
    let (code, out, err) = node.run(&["run", "orders"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, _, err) = node.run(&["run", "dws.totals+", "--full"]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = node.run(&["run", "dws.daily+", "--full"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("the check `row_count` is broken: there are 0 rows"), "{err}");
    assert!(err.contains("dws.daily: the table has no rows"), "{err}");
    assert_ne!(answer(&node).unwrap(), before);
    // And back.
    let (code, _, err) = node.run(&["rollback", "--run", &last.to_string()]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("is not the last of `dws.daily`"), "{err}");
    let (_, out, _) = node.run(&["runs", "dws.daily", "--json", "--limit", "1"]);
    let runs: Value = serde_json::from_str(&out).unwrap();
    let last = runs["runs"][0]["run"].to_string();
    let (code, out, err) = node.run(&["rollback", "--run", &last]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(answer(&node).unwrap(), before);
    // What is wrong is said before anything runs.
    for (args, wanted) in [
        (&["run", "dws.dayly"][..], "did you mean `dws.daily`?"),
        (&["run", "all", "--to", "2026-01-01"], "the first day is missing"),
        (&["run", "all", "--from", "2026-01-02", "--to", "2026-01-01"], "2026-01-01 is before 2026-01-02"),
        (&["backfill", "dws.daily", "--from", "soon", "--to", "2026-01-01"], "`soon` is no day"),
        (&["rollback", "--run", "1"], "there is no run 1 of a model"),
    ] {
        let (code, out, err) = node.run(args);
        assert_eq!(code, 2, "{args:?}: {out}{err}");
        assert!(err.contains(wanted), "{args:?}: {err}");
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_killed_anywhere_is_whole_after_the_next() {
    let mut node = node("sqlite:./data/warehouse.db");
    let db = shop(&node.path("shop.db"), 6000);
    let (code, _, err) = node.run(&["run", "orders+"]);
    assert_eq!(code, 0, "{err}");
    let mut rng = Rng::new(77);
    let mut interrupted = 0;
    for round in 0..8_u64 {
        let seen = answer(&node).unwrap();
        db.execute_batch(&format!(
            "UPDATE orders SET amount = amount + 1 WHERE id % 5 = {}; DELETE FROM orders WHERE id % 97 = {round};
             INSERT INTO orders VALUES ({}, '2026-01-09', 'd1', '7.75')",
            round % 5,
            100_000 + round
        ))
        .unwrap();
        node.start();
        node.wait("up", |status| status["name"].is_string()).await;
        let url = format!("http://{}/api/v1/runs", node.address());
        let asked = json!({"target": "orders+", "full": round % 2 == 0});
        let answered = reqwest::Client::new().post(&url).json(&asked).send().await.unwrap();
        assert_eq!(answered.status(), 202);
        // The moment of the kill is the point: behind so many looks at how far it is.
        for _ in 0..rng.below(60) {
            reqwest::get(&url).await.unwrap().text().await.unwrap();
        }
        node.kill9();
        // What is seen is of some moment: sums and counts are of whole tables, never of half of one.
        let after = answer(&node).unwrap();
        assert_eq!(after.len(), seen.len(), "{after:?}");
        let (code, out, err) = node.run(&["run", "orders+", "--json"]);
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(answer(&node).unwrap(), truth(&node), "round {round}");
        let (_, out, _) = node.run(&["runs", "--json", "--kind", "batch"]);
        let runs: Value = serde_json::from_str(&out).unwrap();
        interrupted +=
            runs["runs"].as_array().unwrap().iter().filter(|it| it["state"] == "interrupted").count();
    }
    assert!(interrupted > 0, "no run was killed in its midst");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_makes_up_for_a_run_that_was_missed_and_runs_what_stands_on_it() {
    let mut node = node("sqlite:./data/warehouse.db");
    let db = shop(&node.path("shop.db"), 500);
    let flow = std::fs::read_to_string(node.path("flows/orders.yaml")).unwrap();
    node.write("flows/orders.yaml", &format!("{flow}schedule: \"30 2 * * *\"\n"));
    // A node that has never run waits for its time.
    node.start();
    node.wait("up", |status| status["name"].is_string()).await;
    node.stop();
    let (code, _, err) = node.run(&["run", "orders+"]);
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = node.run(&["runs", "--json", "--kind", "batch"]);
    let runs: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    // Three days later.
    db.execute_batch("UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0").unwrap();
    let catalog = Connection::open(node.path("data/catalog.db")).unwrap();
    catalog.execute_batch("UPDATE runs SET started_ms = started_ms - 3 * 86400000").unwrap();
    drop(catalog);
    node.start();
    let ran =
        |status: &Value| status["runs"][0]["cause"] == "schedule" && status["runs"][0]["state"] != "running";
    let status = node.wait("the run that was missed", ran).await;
    assert_eq!(status["runs"][0]["state"], "ok", "{status}");
    assert_eq!(status["runs"][0]["name"], "orders+");
    assert_eq!(answer(&node).unwrap(), truth(&node));
    // Once, however many times were missed.
    node.stop();
    let (_, out, _) = node.run(&["runs", "--json", "--kind", "batch"]);
    let runs: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_project_answers_alike_with_tidb_as_its_engine() {
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let file = node("sqlite:./data/warehouse.db");
    let tidb = node(&format!("{}/dw", server.url()));
    let mut answers = Vec::new();
    for node in [&file, &tidb] {
        shop(&node.path("shop.db"), 3000);
        let (code, out, err) = node.run(&["run", "all"]);
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(answer(node).unwrap(), truth(node));
        let (code, out, err) = node.run(&["query", "select * from dws.daily order by day, dept", "--json"]);
        assert_eq!(code, 0, "{err}");
        answers.push(out);
    }
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn mistakes_between_files_are_told_at_once() {
    let node = node("sqlite:./data/warehouse.db");
    node.write("models/dws/a.sql", "/* @model\nafter: [nobody]\n*/\nselect dept from dws.b");
    node.write("models/dws/b.sql", "select dept from dws.a");
    node.write("models/ods/orders.sql", "select 1 as id");
    node.write("models/dws/c.sql", "/* @model\nkinds: full\n*/ select 1 as id");
    node.write("models/readme.txt", "x");
    node.write("tests/t.yaml", "one: {model: dws.none, outputs: []}\n");
    let (code, _, err) = node.run(&["check"]);
    assert_eq!(code, 2);
    for wanted in [
        "models/dws/a.sql:2:9: `after` names `nobody`",
        "stand on each other: dws.a on dws.b",
        "models/ods/orders.sql:1:1: `ods.orders` is filled by the flow `orders` too",
        "models/dws/c.sql:2:1: unknown field `kinds`",
        "models/readme.txt:1:1: a file that does not end in .sql is not read",
        "tests/t.yaml:1:7: the test `one` is of `dws.none`, which is no model",
    ] {
        assert!(err.contains(wanted), "{wanted}\n{err}");
    }
}
