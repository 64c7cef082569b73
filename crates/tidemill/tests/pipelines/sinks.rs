//! What each sink promises beyond copying rows: history, held statements, references, fences, hidden columns.

use crate::node::{Node, mysql_source, run_all, sqlite_rows, streams};
use futures_util::StreamExt;
use serde_json::{Value, json};
use testkit::{MySql, MySqlOptions, Nats, NatsOptions};

async fn shop() -> MySql {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let make = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.users (id INT PRIMARY KEY, phone VARCHAR(20) NOT NULL, memo LONGTEXT, level ENUM('low','high'))",
        "INSERT INTO shop.users VALUES (1, '13812345678', 'first', 'high')",
    ];
    run_all(&server, &make).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_keeps_every_change_as_a_row_once() {
    let server = shop().await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/file.yaml", "kind: sqlite\npath: ./log.db\n".into()),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_file.yaml", "from: shop\nto: file\noptions: {history: true}\n".into()),
        (
            "flows/to_db.yaml",
            "from: shop\nto: db\nroute: {\"shop.*\": \"log.*\"}\noptions: {history: true}\n".into(),
        ),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["state"] == "stream").await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.users VALUES (2, '139', NULL, NULL)",
            "UPDATE shop.users SET memo = 'second' WHERE id = 1",
            "UPDATE shop.users SET id = 3 WHERE id = 2",
            "DELETE FROM shop.users WHERE id = 1",
        ],
    )
    .await;
    node.kill9();
    node.start();
    run_all(&server, &["TRUNCATE TABLE shop.users"]).await;
    let file = node.path("log.db");
    let sql = "SELECT op, row_key, json_extract(before_row, '$.memo'), json_extract(after_row, '$.memo') \
               FROM tidemill_history_users ORDER BY lsn";
    let wanted = [
        ["read", "{\"id\":1}", "NULL", "first"],
        ["insert", "{\"id\":2}", "NULL", "NULL"],
        ["update", "{\"id\":1}", "first", "second"],
        ["update", "{\"id\":3}", "NULL", "NULL"],
        ["delete", "{\"id\":1}", "second", "NULL"],
        ["truncate", "NULL", "NULL", "NULL"],
    ];
    node.until("the SQLite history", || async {
        sqlite_rows(&file, sql).iter().filter(|row| row[0] != "ddl").eq(wanted.iter())
    })
    .await;
    node.until("the MySQL history", || async {
        let rows: Vec<(String, u64)> = server
            .query("SELECT op, lsn FROM log.tidemill_history_users WHERE op <> 'ddl' ORDER BY lsn")
            .await
            .unwrap_or_default();
        rows.iter().map(|(op, _)| op.as_str()).eq(wanted.iter().map(|row| row[0]))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_statement_stops_its_flow_until_someone_has_made_the_change() {
    let server = shop().await;
    let hold = "from: shop\nto: db\nroute: {\"shop.*\": \"copy.*\"}\noptions: {ddl: hold}\n";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", hold.into()),
    ]);
    node.start();
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 1).await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.users ADD COLUMN age INT",
            "INSERT INTO shop.users VALUES (2, '1', NULL, NULL, 33)",
        ],
    )
    .await;
    let status = node.wait("the statement is held", |s| s["flows"][0]["state"] == "failed").await;
    let error = &status["flows"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("ADD COLUMN age INT"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("by hand"), "{error}");
    run_all(&server, &["ALTER TABLE copy.users ADD COLUMN age INT"]).await;
    node.until("the flow goes on by itself", || async {
        let ages: Vec<Option<i32>> =
            server.query("SELECT age FROM copy.users ORDER BY id").await.unwrap_or_default();
        ages == [None, Some(33)]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_gets_large_rows_by_reference_and_one_publisher_at_a_time() {
    let server = shop().await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let flow = "from: shop\nto: events\noptions: {stream: USERS, subject: \"app.{source}.{db}.{table}\"}\n";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/to_events.yaml", flow.into()),
    ]);
    node.start();
    node.wait("the snapshot is delivered", |s| s["flows"][0]["lsn"] == 1).await;
    run_all(&server, &["INSERT INTO shop.users VALUES (2, '139', REPEAT('m', 3000000), 'low')"]).await;
    node.wait("the large row is delivered", |s| s["flows"][0]["lsn"] == 2).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream("USERS").await.unwrap();
    let message = stream.get_raw_message(2).await.unwrap();
    assert_eq!(message.subject.as_str(), "app.shop.shop.users");
    let journal = message.headers.get("Tidemill-Journal").unwrap().as_str();
    let id = message.headers.get("Nats-Msg-Id").unwrap().as_str();
    assert_eq!(id, format!("shop:{journal}:1:2"));
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!((&body["key"], &body["op"]), (&json!({"id": 2}), &json!("insert")));
    let url = format!("http://{}{}", node.address(), body["ref"].as_str().unwrap());
    let whole: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(whole["after"]["memo"].as_str().unwrap().len(), 3_000_000);

    // A stranger writes to the flow's stream: the flow stops rather than mix.
    context.publish("app.shop.shop.users", "stray".into()).await.unwrap().await.unwrap();
    run_all(&server, &["INSERT INTO shop.users VALUES (3, '137', NULL, 'low')"]).await;
    let status = node.wait("the stranger is noticed", |s| s["flows"][0]["error"] != Value::Null).await;
    let message = status["flows"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("another publisher") || message.contains("is not ours"), "{status:#}");
    stream.delete_message(3).await.unwrap();
    let mut messages = client.subscribe("app.>").await.unwrap();
    node.until("after the stray message is gone, the flow goes on", || async {
        node.status()["flows"][0]["lsn"] == 3
    })
    .await;
    let next: Value = serde_json::from_slice(&messages.next().await.unwrap().payload).unwrap();
    assert_eq!(next["lsn"], 3);
}

/// The lsns of what a stream holds.
async fn lsns(stream: &async_nats::jetstream::stream::Stream) -> Vec<u64> {
    let state = stream.get_info().await.unwrap().state;
    let mut out = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            let body: Value = serde_json::from_slice(&message.payload).unwrap();
            out.push(body["lsn"].as_u64().unwrap());
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_its_consumers_emptied_is_not_filled_again() {
    let server = shop().await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/to_events.yaml", "from: shop\nto: events\n".into()),
    ]);
    node.start();
    run_all(&server, &["INSERT INTO shop.users VALUES (2, '139', NULL, 'low'), (3, '139', NULL, 'low')"])
        .await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 3).await;
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = context.get_stream("TIDEMILL_TO_EVENTS").await.unwrap();
    stream.purge().await.unwrap();
    node.stop();
    node.start();
    run_all(&server, &["INSERT INTO shop.users VALUES (4, '139', NULL, 'low')"]).await;
    node.wait("the new one is delivered", |s| s["flows"][0]["lsn"] == 4).await;
    assert_eq!(lsns(&stream).await, [4]);

    // Killed before it could note how far it was, it publishes again, and the server knows the ids.
    run_all(&server, &["INSERT INTO shop.users VALUES (5, '139', NULL, 'low'), (6, '139', NULL, 'low')"])
        .await;
    node.wait("delivered", |s| s["flows"][0]["lsn"] == 6).await;
    node.kill9();
    let catalog = rusqlite::Connection::open(node.path("data/catalog.db")).unwrap();
    catalog.execute("UPDATE flow_progress SET lsn = 4", []).unwrap();
    drop(catalog);
    stream.purge().await.unwrap();
    run_all(&server, &["INSERT INTO shop.users VALUES (7, '139', NULL, 'low')"]).await;
    node.start();
    node.wait("the newest is delivered", |s| s["flows"][0]["lsn"] == 7).await;
    assert_eq!(lsns(&stream).await, [7]);
    assert_eq!(stream.get_info().await.unwrap().state.last_sequence, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_made_or_fits_badly_is_told() {
    let server = shop().await;
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = |name: &str, subject: &str, max_message_size| async_nats::jetstream::stream::Config {
        name: name.into(),
        subjects: vec![subject.into()],
        max_message_size,
        ..Default::default()
    };
    context.create_stream(stream("OTHERS", "tidemill.shop.>", -1)).await.unwrap();
    context.create_stream(stream("NARROW", "narrow.only", -1)).await.unwrap();
    context.create_stream(stream("SMALL", "small.*.*", 1500)).await.unwrap();
    let flow = |options: &str| format!("from: shop\nto: events\noptions: {{{options}}}\n");
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/events.yaml", format!("kind: nats\nurl: {}\n", nats.url())),
        ("flows/a.yaml", flow("stream: MINE")),
        ("flows/b.yaml", flow("stream: NARROW, subject: \"narrow.{table}\"")),
        ("flows/c.yaml", flow("stream: SMALL, subject: \"small.{db}.{table}\"")),
    ]);
    node.start();
    let status = node.wait("both are told", |s| (0..2).all(|i| s["flows"][i]["state"] == "failed")).await;
    let told = |i: usize, part: &str| {
        let message = status["flows"][i]["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    };
    told(0, "subjects overlap");
    told(1, "takes narrow.only, not `narrow.*`");
    // A row that comes while the snapshot runs may be read as well.
    node.wait("streaming", streams).await;
    run_all(&server, &["INSERT INTO shop.users VALUES (2, '139', REPEAT('m', 3000), 'low')"]).await;
    node.wait("the rest goes on", |s| s["flows"][2]["lsn"] == 2).await;
    let message = context.get_stream("SMALL").await.unwrap().get_raw_message(2).await.unwrap();
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert!(body["bytes"].as_u64() > Some(3000) && body["ref"] == "/api/v1/changes/shop/2", "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_reach_a_sink_chosen_renamed_and_masked() {
    let server = shop().await;
    let flow = "
from: shop
to: db
route: {\"shop.users\": \"dw.people\"}
transform:
  - columns: [id, phone, level]
  - rename: {level: rank}
  - mask: {phone: partial}
";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("sinks/lines.yaml", "kind: files\npath: ./lines\n".into()),
        ("flows/to_db.yaml", flow.into()),
        ("flows/to_lines.yaml", flow.replace("to: db", "to: lines")),
    ]);
    node.start();
    run_all(&server, &["INSERT INTO shop.users VALUES (2, '15900001111', 'hidden', 'low')"]).await;
    node.until("the rows are there", || async {
        let rows: Vec<(i32, String, String)> =
            server.query("SELECT id, phone, `rank` FROM dw.people ORDER BY id").await.unwrap_or_default();
        let row = |id, phone: &str, rank: &str| (id, phone.to_owned(), rank.to_owned());
        rows == [row(1, "138****5678", "high"), row(2, "159****1111", "low")]
    })
    .await;
    node.wait("the lines are there", |s| s["flows"][1]["lsn"] == 2).await;
    let lines = std::fs::read_dir(node.path("lines")).unwrap().map(|entry| entry.unwrap().path());
    let lines: String = lines.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert!(
        lines.contains("159****1111") && !lines.contains("hidden") && !lines.contains("15900001111"),
        "{lines}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_filtered_and_computed_as_mysql_would() {
    let server = shop().await;
    let make = [
        "CREATE TABLE shop.items (id INT PRIMARY KEY, price DECIMAL(8,2) NOT NULL, quantity INT NOT NULL, status VARCHAR(10))",
        "INSERT INTO shop.items VALUES (1, 0.10, 3, 'new'), (2, 19.99, 7, 'DRAFT'), (3, 5, 1, NULL)",
    ];
    run_all(&server, &make).await;
    let flow = "
from: shop
to: db
tables: [shop.items]
route: {\"shop.*\": \"dw.*\"}
transform:
  - filter: \"status <> 'draft' or status is null\"
  - set: {total: \"price * quantity\", label: \"concat(id, ':', coalesce(status, '-'))\"}
  - filter: \"total < 100\"
";
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/db.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/to_db.yaml", flow.into()),
    ]);
    let (code, _, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{err}");
    node.start();
    let rows = async || -> Vec<(i32, String, String)> {
        let sql = "SELECT id, CAST(total AS CHAR), label FROM dw.items ORDER BY id";
        server.query(sql).await.unwrap_or_default()
    };
    let text = |rows: &[(i32, &str, &str)]| -> Vec<(i32, String, String)> {
        rows.iter().map(|(id, total, label)| (*id, (*total).to_owned(), (*label).to_owned())).collect()
    };
    let first = text(&[(1, "0.30", "1:new"), (3, "5.00", "3:-")]);
    node.until("the snapshot has passed the filter", || async { rows().await == first }).await;
    let changes = [
        "UPDATE shop.items SET status = 'paid' WHERE id = 2",
        "UPDATE shop.items SET quantity = 1 WHERE id = 2",
        "UPDATE shop.items SET quantity = 5000 WHERE id = 1",
        "INSERT INTO shop.items VALUES (4, 1.25, 3, 'draft'), (5, 1.25, 3, 'new')",
        "DELETE FROM shop.items WHERE id = 3",
    ];
    run_all(&server, &changes).await;
    let last = text(&[(2, "19.99", "2:paid"), (5, "3.75", "5:new")]);
    node.until("rows enter and leave the filter", || async { rows().await == last }).await;
    node.write(
        "flows/to_db.yaml",
        "from: shop\nto: db\ntransform:\n  - rename: {a: b}\n  - filter: \"now() > 1\"\n",
    );
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("flows/to_db.yaml:5:3: transform[1].filter"), "{code} {err}");
}
