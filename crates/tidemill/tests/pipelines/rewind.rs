//! Delivering again from a change on: each kind of sink ends as the source is, or says why it cannot go back.

use crate::node::{Node, PATIENCE, mysql_source, run_all, sqlite_rows};
use serde_json::{Value, json};
use testkit::{
    Kafka, KafkaOptions, MySql, MySqlOptions, Nats, NatsOptions, OpenSearch, OpenSearchOptions, Redis,
    RedisOptions,
};

/// A project with a SQLite shop, `orders` of it, and one flow `a` to the sink `out`.
fn shop(sink: &str, options: &str) -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/out.yaml", sink.into()),
        ("flows/a.yaml", format!("from: shop\nto: out\noptions: {{{options}}}\n")),
    ]);
    run(&node, "PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)");
    node
}

fn run(node: &Node, sql: &str) {
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(sql).unwrap();
}

/// Rows 1 to 3, of which the first changes and the third goes: changes 2 to 6, behind the snapshot's beginning.
async fn history(node: &mut Node) {
    node.start();
    node.wait("streaming", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    // One by one: what one look finds becomes one transaction, but every change stays.
    run(node, "INSERT INTO orders VALUES (1, 'old'), (2, 'two'), (3, 'gone')");
    run(node, "UPDATE orders SET note = 'new' WHERE id = 1");
    run(node, "DELETE FROM orders WHERE id = 3");
    at_end(node).await;
}

/// Waits until the flow has delivered all that its journal has, which is all that the source did.
async fn at_end(node: &Node) -> Value {
    let seen = sqlite_rows(&node.path("shop.db"), "SELECT count(*) FROM tidemill_changes");
    assert_eq!(seen.len(), 1, "the triggers are there");
    node.until("capture has taken everything", || async {
        sqlite_rows(&node.path("shop.db"), "SELECT count(*) FROM tidemill_changes") == [["0"]]
    })
    .await;
    node.wait("everything is delivered", |s| {
        let (flow, source) = (&s["flows"][0], &s["sources"][0]);
        flow["lsn"].is_u64() && flow["lsn"] == source["lsn"] && source["lsn"] != 0 && flow["error"].is_null()
    })
    .await
}

async fn rewind(node: &Node, to: &str) {
    node.until("the rewind is taken", || async { node.run(&["flow", "rewind", "a", "--to", to]).0 == 0 })
        .await;
}

/// What a refused rewind says.
fn refusal(node: &Node, to: &str) -> String {
    let (code, out, err) = node.run(&["flow", "rewind", "a", "--to", to]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("error: failed to rewind flow `a`: ") && err.contains("\nhint: "), "{err}");
    err
}

fn first_lsn_of(node: &Node, op: &str) -> u64 {
    let changes = node.changes("shop");
    changes.iter().find(|change| change["op"] == op).unwrap()["lsn"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_sqlite_file_lost_come_again_also_paused_and_killed() {
    let mut node = shop("kind: sqlite\npath: ./out.db\n", "");
    history(&mut node).await;
    let orders = |node: &Node| sqlite_rows(&node.path("out.db"), "SELECT id, note FROM orders ORDER BY id");
    let wanted = [["1", "new"], ["2", "two"]];
    assert_eq!(orders(&node), wanted);
    let lose = |node: &Node| {
        let db = rusqlite::Connection::open(node.path("out.db")).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        db.execute_batch("DELETE FROM orders").unwrap();
    };
    let insert = first_lsn_of(&node, "insert").to_string();
    // Running.
    lose(&node);
    rewind(&node, &insert).await;
    node.until("the rows are back", || async { orders(&node) == wanted }).await;
    at_end(&node).await;
    // Paused, and killed before it goes on.
    assert_eq!(node.run(&["flow", "pause", "a"]).0, 0);
    lose(&node);
    rewind(&node, "start").await;
    node.kill9();
    node.start();
    node.wait("paused", |s| s["flows"][0]["state"] == "paused").await;
    assert_eq!(orders(&node).len(), 0, "nothing moves before it may");
    assert_eq!(node.run(&["flow", "resume", "a"]).0, 0);
    node.until("the rows are back", || async { orders(&node) == wanted }).await;
    // What is not there, or not yet.
    assert!(refusal(&node, "99").contains("99 has not been delivered yet"));
    assert!(refusal(&node, "0").contains("the oldest that the journal has is 1"));
    let (code, _, err) = node.run(&["flow", "rewind", "a", "--to", "yesterday"]);
    assert!(code == 2 && err.contains("neither the number of a change nor `start`"), "{err}");
    // Another shape: the old rows have no place any more.
    run(&node, "ALTER TABLE orders ADD COLUMN city TEXT");
    run(&node, "INSERT INTO orders VALUES (4, 'four', 'Rome')");
    node.until("the new column is there", || async {
        sqlite_rows(&node.path("out.db"), "SELECT city FROM orders WHERE id = 4") == [["Rome"]]
    })
    .await;
    let told = refusal(&node, &insert);
    assert!(told.contains("`shop.orders` had other columns") && told.contains("flow resnapshot a"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_ends_equal_however_often_it_is_rewound_and_killed() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE DATABASE copy",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, name VARCHAR(40))",
            "CREATE TABLE shop.log (line VARCHAR(40))",
            "CREATE TABLE shop.users (id INT PRIMARY KEY, mail VARCHAR(40) UNIQUE)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/out.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        (
            "flows/a.yaml",
            "from: shop\nto: out\ntables: [shop.orders]\nroute: {\"shop.*\": \"copy.*\"}\noptions: {batch_rows: 7}\n"
                .into(),
        ),
        (
            "flows/b.yaml",
            "from: shop\nto: out\ntables: [shop.log]\nroute: {\"shop.*\": \"copy.*\"}\n".into(),
        ),
        (
            "flows/c.yaml",
            "from: shop\nto: out\ntables: [shop.users]\nroute: {\"shop.*\": \"copy.*\"}\n".into(),
        ),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.log VALUES ('x')",
            "INSERT INTO shop.users VALUES (1, 'b@c')",
            "UPDATE shop.users SET mail = 'a@b'",
            "INSERT INTO shop.users VALUES (2, 'b@c')",
        ],
    )
    .await;
    for id in 0..60 {
        server.exec(&format!("REPLACE INTO shop.orders VALUES ({}, 'row {id}')", id % 20)).await.unwrap();
        server.exec(&format!("DELETE FROM shop.orders WHERE id = {}", (id * 7) % 20)).await.unwrap();
    }
    let rows = async |db: &str| -> Vec<(i32, String)> {
        server.query(&format!("SELECT id, name FROM {db}.orders ORDER BY id")).await.unwrap_or_default()
    };
    let wanted = rows("shop").await;
    node.until("both are equal", || async { rows("copy").await == wanted }).await;
    // The name of a change that is no row's of another table, seen while everything is delivered.
    let delivered = |s: &Value| {
        let at = |i: usize| s["flows"][i]["lsn"].as_u64();
        (0..3).all(|i| at(i).is_some_and(|lsn| Some(lsn) == s["sources"][0]["lsn"].as_u64()))
    };
    node.wait("all flows are at the end", delivered).await;
    let changes = node.changes("shop");
    let first = |table: &str| {
        changes.iter().find(|c| c["table"] == table && c["op"] == "insert").unwrap()["lsn"].to_string()
    };
    for (round, to) in ["start", &first("orders"), "start", &first("orders")].into_iter().enumerate() {
        server.exec("DELETE FROM copy.orders").await.unwrap();
        rewind(&node, to).await;
        // At any moment: before the sink has been told, and in the middle of what comes again.
        if round % 2 == 1 {
            node.until("it has begun", || async { !rows("copy").await.is_empty() }).await;
        }
        node.kill9();
        node.start();
        node.until("both are equal", || async { rows("copy").await == wanted }).await;
        node.wait("all flows are at the end", delivered).await;
    }
    let told = |flow: &str, to: &str| {
        let (code, _, err) = node.run(&["flow", "rewind", flow, "--to", to]);
        assert_eq!(code, 1, "{err}");
        err
    };
    assert!(told("b", &first("log")).contains("`shop.log` has no key"), "twice would be two rows");
    // From where the table is read anew, it can. Unique keys of the source are none of ours.
    for (flow, to) in [("b", "start"), ("c", &first("users"))] {
        let (code, out, err) = node.run(&["flow", "rewind", flow, "--to", to]);
        assert!(
            code == 0 && out.starts_with(&format!("rewound: {flow} delivers again from change ")),
            "{err}"
        );
    }
    let status = node.wait("all flows are at the end", delivered).await;
    assert!((0..3).all(|i| status["flows"][i]["dead_letters"] == 0), "{status:#}");
    let mails: Vec<String> = server.query("SELECT mail FROM copy.users").await.unwrap();
    assert_eq!(mails, ["a@b", "b@c"]);
    let lines: Vec<String> = server.query("SELECT line FROM copy.log").await.unwrap();
    assert_eq!(lines, ["x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_behind_a_rewind_comes_again_and_the_rest_stays_parked() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE DATABASE copy",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, v VARCHAR(40))",
            "CREATE TABLE copy.a (id INT PRIMARY KEY, v VARCHAR(5))",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/out.yaml", format!("kind: mysql\nurl: {}\n", server.url())),
        ("flows/a.yaml", "from: shop\nto: out\nroute: {\"shop.*\": \"copy.*\"}\n".into()),
    ]);
    node.start();
    node.wait("streaming", |s| s["sources"][0]["snapshot"]["state"] == "done").await;
    run_all(
        &server,
        &[
            "INSERT INTO shop.a VALUES (1, 'much too long')",
            "INSERT INTO shop.a VALUES (2, 'also too long')",
            "UPDATE shop.a SET v = 'ok' WHERE id = 1",
            "UPDATE shop.a SET v = 'fine' WHERE id = 2",
        ],
    )
    .await;
    node.wait("four are parked", |s| s["flows"][0]["dead_letters"] == 4).await;
    let parked = |node: &Node| -> Vec<u64> {
        let (code, out, err) = node.run(&["flow", "dead-letters", "a", "--json"]);
        assert_eq!(code, 0, "{err}");
        let letters: Value = serde_json::from_str(&out).unwrap();
        letters.as_array().unwrap().iter().map(|letter| letter["lsn"].as_u64().unwrap()).collect()
    };
    let lsns = parked(&node);
    server.exec("ALTER TABLE copy.a MODIFY v VARCHAR(40)").await.unwrap();
    rewind(&node, &lsns[1].to_string()).await;
    let row = async |id: i32| -> Vec<String> {
        server.query(&format!("SELECT v FROM copy.a WHERE id = {id}")).await.unwrap()
    };
    node.until("the second row is there", || async { row(2).await == ["fine"] }).await;
    node.wait("the first row waits", |s| s["flows"][0]["dead_letters"] == 2).await;
    assert_eq!(parked(&node), [lsns[0], lsns[2]], "its second change came again, and waits behind its first");
    assert_eq!(row(1).await.len(), 0);
    node.until("retry goes through", || async {
        node.run(&["flow", "retry", "a"]).1.contains("0 still parked")
    })
    .await;
    assert_eq!(row(1).await, ["ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_fills_again_and_a_stream_in_it_is_refused() {
    let redis = Redis::start(RedisOptions::default()).await.unwrap();
    let mut node = shop(&format!("kind: redis\nurl: {}\n", redis.url()), "");
    history(&mut node).await;
    let note = async |id: u64| -> Option<String> {
        let mut ask = redis::cmd("HGET");
        ask.arg(format!("shop:orders:{id}"))
            .arg("note")
            .query_async(&mut client_of(&redis).await)
            .await
            .unwrap()
    };
    // A row that someone deleted, and one that is newer than what comes.
    let () = redis::cmd("DEL").arg("shop:orders:2").query_async(&mut client_of(&redis).await).await.unwrap();
    rewind(&node, "start").await;
    node.until("the row is back", || async { note(2).await.as_deref() == Some("two") }).await;
    at_end(&node).await;
    assert_eq!((note(1).await.as_deref(), note(3).await), (Some("new"), None));
    let () = redis::cmd("FLUSHALL").query_async(&mut client_of(&redis).await).await.unwrap();
    node.wait("the flow says that it was emptied", |s| {
        s["flows"][0]["error"]["message"].as_str().is_some_and(|message| message.contains("emptied"))
    })
    .await;
    rewind(&node, "start").await;
    node.until("the rows are back", || async {
        note(1).await.as_deref() == Some("new") && note(2).await.as_deref() == Some("two")
    })
    .await;
    at_end(&node).await;
    assert_eq!(note(3).await, None);
    node.stop();
    node.write("flows/a.yaml", "from: shop\nto: out\noptions: {type: stream}\n");
    node.start();
    node.wait("running", |s| s["flows"][0]["state"] == "running").await;
    assert!(refusal(&node, "start").contains("a Redis stream takes none that is not above its last"));
}

async fn client_of(redis: &Redis) -> redis::aio::MultiplexedConnection {
    redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_get_the_changes_again() {
    for options in ["topic: plain, partitions: 1", "topic: exact, partitions: 1, exactly_once: true"] {
        let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
        let mut node = shop(&format!("kind: kafka\nurl: {}\n", kafka.url()), options);
        history(&mut node).await;
        let topic = options.split([' ', ',']).nth(1).unwrap();
        let lsns = async || -> Vec<u64> {
            let lsn = |value: Option<&str>| -> u64 {
                serde_json::from_str::<Value>(value.unwrap()).unwrap()["lsn"].as_u64().unwrap()
            };
            let records = kafka.messages(topic).await.unwrap();
            records.iter().map(|record| lsn(record.value.as_deref())).collect()
        };
        // A broker shows what a transaction wrote a little after it has said that it is committed.
        let last = node.status()["flows"][0]["lsn"].as_u64();
        node.until("all are shown", || async { lsns().await.last().copied() == last }).await;
        let once = lsns().await;
        let from = first_lsn_of(&node, "insert");
        rewind(&node, &from.to_string()).await;
        // At least once, a kill may repeat more than was asked for.
        let exact = topic == "exact";
        if exact {
            node.kill9();
            node.start();
        }
        let again: Vec<u64> = once.iter().copied().filter(|lsn| *lsn >= from).collect();
        let wanted = [once, again].concat();
        node.until("they came again", || async { lsns().await == wanted }).await;
        at_end(&node).await;
        // The next start does not repeat them.
        if exact {
            node.kill9();
        }
        node.stop();
        node.start();
        run(&node, "INSERT INTO orders VALUES (9, 'last')");
        node.until("the last is there", || async { lsns().await.len() > wanted.len() }).await;
        assert_eq!(lsns().await[..wanted.len()], wanted);
        assert_eq!(lsns().await.len(), wanted.len() + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_gets_back_what_it_lost() {
    let server = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&format!("kind: elasticsearch\nurl: {}\n", server.url()), "index: orders");
    history(&mut node).await;
    use crate::elasticsearch::{becomes, indexes, must};
    let order = |id: i64, note: &str| (id.to_string(), json!({"id": id, "note": note}));
    let wanted = [order(1, "new"), order(2, "two")];
    becomes(&node, &server, "orders", &wanted).await;
    // What is there is as new: nothing changes.
    rewind(&node, "start").await;
    at_end(&node).await;
    becomes(&node, &server, "orders", &wanted).await;
    let index = indexes(&server).await.remove(0);
    must(&server, "DELETE", &format!("/{index}"), Value::Null).await;
    node.wait("the flow says that it was emptied", |s| {
        s["flows"][0]["error"]["message"].as_str().is_some_and(|message| message.contains("emptied"))
    })
    .await;
    rewind(&node, "start").await;
    becomes(&node, &server, "orders", &wanted).await;
    at_end(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_their_own_progress_say_why_they_stay() {
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    for (sink, reason) in [
        (format!("kind: nats\nurl: {}\n", nats.url()), "the last message of a JetStream stream"),
        ("kind: files\npath: ./lines\n".to_owned(), "the files say by their lines"),
    ] {
        let mut node = shop(&sink, "");
        history(&mut node).await;
        let told = refusal(&node, "start");
        assert!(told.contains("the sink `out` cannot be rewound: ") && told.contains(reason), "{told}");
        let before = node.status()["flows"][0]["lsn"].clone();
        node.kill9();
        node.start();
        assert_eq!(at_end(&node).await["flows"][0]["lsn"], before);
    }
}
