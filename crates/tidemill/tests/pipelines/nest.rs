//! Documents with rows of other tables inside: whatever changes, in whichever order, they end as SQL would join them, and
//! never show what was not.

use crate::elasticsearch::{ask, documents, must};
use crate::node::{Node, mysql_source, run_all};
use crate::random::Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{MySql, MySqlOptions, OpenSearch, OpenSearchOptions, SqlServer};

const USERS: u64 = 40;
const ORDERS: u64 = 150;
const COUNT: &str = "UPDATE shop.users SET n = (SELECT COUNT(*) FROM shop.orders WHERE user_id = users.id)";

fn project(server: &SqlServer, search: &OpenSearch, nest: &str) -> Node {
    Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*") + "options: {snapshot_chunk_rows: 20}\n"),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        (
            "flows/users.yaml",
            format!(
                "from: shop\nto: search\ntables: [shop.users]\noptions:\n  index: users\n  nest: {{{nest}}}\n"
            ),
        ),
    ])
}

/// The documents as SQL joins them, by id.
async fn joined(server: &SqlServer) -> BTreeMap<String, Value> {
    let users: Vec<(i64, String, i64)> = server.query("SELECT id, name, n FROM shop.users").await.unwrap();
    let orders: Vec<(i64, Option<i64>, String)> =
        server.query("SELECT id, user_id, note FROM shop.orders ORDER BY id").await.unwrap();
    users
        .into_iter()
        .map(|(id, name, n)| {
            let own = orders.iter().filter(|order| order.1 == Some(id));
            let own: Vec<Value> =
                own.map(|(id, user, note)| json!({"id": id, "user_id": user, "note": note})).collect();
            (id.to_string(), json!({"id": id, "name": name, "n": n, "orders": own}))
        })
        .collect()
}

/// Writes into both tables; after each transaction a user's `n` is the number of his orders.
async fn write(server: &SqlServer, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let (user, other) = (rng.below(USERS), rng.below(USERS));
        let order = rng.below(ORDERS);
        let sql = match rng.below(10) {
            0 | 1 => format!(
                "INSERT IGNORE INTO shop.users SELECT {user}, 'new {written}', COUNT(*) FROM shop.orders WHERE user_id = {user}"
            ),
            2 => format!("DELETE FROM shop.users WHERE id = {user}"),
            3 => format!(
                "UPDATE shop.users SET name = 'seen {written}' WHERE id BETWEEN {user} AND {}",
                user + 3
            ),
            4 | 5 => format!("REPLACE INTO shop.orders VALUES ({order}, {user}, 'order {written}'); {COUNT}"),
            6 => format!("UPDATE shop.orders SET user_id = {other} WHERE user_id = {user}; {COUNT}"),
            7 => format!("DELETE FROM shop.orders WHERE id = {order}; {COUNT}"),
            8 => format!("UPDATE IGNORE shop.users SET id = {other} WHERE id = {user}; {COUNT}"),
            _ => format!(
                "UPDATE shop.orders SET user_id = NULL WHERE id = {order};
                 UPDATE IGNORE shop.orders SET id = {} WHERE id = {order}; {COUNT}",
                rng.below(ORDERS)
            ),
        };
        // Two writers may lock each other out: then nothing of it was done.
        if server.exec(&format!("BEGIN; {sql}; COMMIT")).await.is_ok() {
            written += 1;
        }
    }
    written
}

async fn make_shop(server: &SqlServer) {
    run_all(
        server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.users (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, n INT NOT NULL)",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, user_id BIGINT UNSIGNED, note VARCHAR(40) NOT NULL)",
            "INSERT INTO shop.orders WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
             SELECT i, i % 30, CONCAT('first ', i) FROM n",
            "INSERT INTO shop.users WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 24)
             SELECT i, CONCAT('user ', i), 0 FROM n",
            COUNT,
        ],
    )
    .await;
}

/// Each document is of one moment of the source. Answers how many there are.
async fn look(search: &OpenSearch) -> usize {
    let found = documents(search, "users").await;
    for (id, document) in &found {
        let orders = document["orders"].as_array().unwrap();
        assert_eq!(document["n"].as_u64(), Some(orders.len() as u64), "{id}: {document:#}");
        assert!(orders.iter().all(|order| order["user_id"] == document["id"]), "{id}: {document:#}");
    }
    found.len()
}

async fn equals(node: &Node, server: &SqlServer, search: &OpenSearch) {
    let wanted = joined(server).await;
    let seen = std::cell::Cell::new(String::new());
    node.until("the documents are what SQL joins", || async {
        let found = documents(search, "users").await;
        let differs = |(id, wanted): &(&String, &Value)| found.get(*id) != Some(*wanted);
        let first = wanted
            .iter()
            .find(differs)
            .map(|(id, wanted)| format!("{id}: {wanted} and not {:?}", found.get(id)));
        let more = found.keys().find(|id| !wanted.contains_key(*id)).map(|id| format!("{id} is too much"));
        let told = first.or(more).unwrap_or_default();
        if seen.replace(told.clone()) != told {
            println!("{told}");
        }
        found == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_joined_as_sql_does_whatever_changes_and_whoever_is_killed() {
    let seed = 20_261_127;
    println!("seed {seed}");
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    make_shop(&server).await;
    let mut node = project(&server, &search, "orders: {from: shop.orders, on: {user_id: id}}");
    let (code, out, err) = node.run(&["check"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();
    let stop = AtomicBool::new(false);
    let story = async {
        let mut rng = Rng::new(seed);
        for round in 0..6 {
            let delivered = || node.status()["flows"][0]["lsn"].as_u64();
            let at = delivered().unwrap_or(0);
            node.until("the flow moves", || async { delivered() > Some(at + 20) }).await;
            for _ in 0..rng.below(4) + 1 {
                look(&search).await;
            }
            if round < 4 {
                node.kill9();
                if round == 2 {
                    let _ = std::fs::remove_file(node.path("data/mirror/shop.db"));
                    let _ = std::fs::remove_file(node.path("data/mirror/shop.db-wal"));
                }
                node.start();
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (one, two, ()) = tokio::join!(write(&server, seed, &stop), write(&server, seed ^ 0x77, &stop), story);
    assert!(one + two > 20, "{one} and {two} transactions");
    equals(&node, &server, &search).await;
    assert!(look(&search).await > 0);
    let status = node.status();
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");
    // Each nested row is searched by itself.
    let mapping = must(&search, "GET", "/users/_mapping", Value::Null).await;
    let index = mapping.as_object().unwrap().values().next().unwrap();
    let nested = &index["mappings"]["properties"]["orders"];
    assert_eq!(nested["type"], "nested", "{mapping:#}");
    assert_eq!(nested["properties"]["user_id"]["type"], "unsigned_long");
    // What touches all documents at once.
    server.exec("TRUNCATE shop.orders").await.unwrap();
    equals(&node, &server, &search).await;
    server.exec("INSERT INTO shop.orders VALUES (1, 3, 'again'), (2, 99, 'nobody yet')").await.unwrap();
    server.exec("ALTER TABLE shop.orders ADD COLUMN total DECIMAL(10,2)").await.unwrap();
    server.exec("INSERT INTO shop.users VALUES (99, 'late', 0)").await.unwrap();
    node.until("a late parent has its child", || async {
        documents(&search, "users").await.get("99").is_some_and(|user| {
            user["orders"] == json!([{"id": 2, "user_id": 99, "note": "nobody yet", "total": null}])
        })
    })
    .await;
    // Rows that left while nobody looked: the table is read anew, and all documents are written once more.
    server.exec("SET SESSION sql_log_bin = 0; DELETE FROM shop.orders WHERE id = 1").await.unwrap();
    let (code, out, err) = node.run(&["flow", "resnapshot", "users", "shop.orders"]);
    assert_eq!(code, 0, "{out}{err}");
    node.until("the vanished row is in no document", || async {
        documents(&search, "users").await.values().all(|user| {
            user["orders"].as_array().is_some_and(|orders| orders.iter().all(|order| order["id"] != 1))
        })
    })
    .await;
    server.exec("DROP TABLE shop.orders").await.unwrap();
    node.until("no document has orders", || async {
        let found = documents(&search, "users").await;
        !found.is_empty() && found.values().all(|user| user["orders"] == json!([]))
    })
    .await;
    let (code, out, err) = node.run(&["flow", "verify", "users"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_many_documents_share_and_documents_with_too_many_rows() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.users (id INT PRIMARY KEY, name VARCHAR(40), city_code CHAR(3))",
            "CREATE TABLE shop.cities (code CHAR(3) PRIMARY KEY, name VARCHAR(40), secret INT)",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, user_id INT)",
            "INSERT INTO shop.cities VALUES ('VIE', 'Wien', 1)",
            "INSERT INTO shop.users WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
             SELECT i, CONCAT('user ', i), IF(i = 7, 'GRZ', 'VIE') FROM n",
        ],
    )
    .await;
    let nest = "city: {from: shop.cities, on: {code: city_code}, as: object, columns: [code, name]}, \
                orders: {from: shop.orders, on: {user_id: id}, max: 3}";
    let mut node = project(&server, &search, nest);
    node.start();
    let user = |id: i64, city: Value, orders: Value| {
        let code = if id == 7 { "GRZ" } else { "VIE" };
        json!({"id": id, "name": format!("user {id}"), "city_code": code, "city": city, "orders": orders})
    };
    let holds = async |id: i64, wanted: &Value| {
        let (_, answer) = ask(&search, "GET", &format!("/users/_doc/{id}"), Value::Null).await;
        answer["_source"] == *wanted
    };
    let vienna = |name: &str| json!({"code": "VIE", "name": name});
    node.until("all are there", || async { documents(&search, "users").await.len() == 900 }).await;
    assert!(holds(1, &user(1, vienna("Wien"), json!([]))).await);
    assert!(holds(7, &user(7, Value::Null, json!([]))).await);
    server.exec("UPDATE shop.cities SET name = 'Vienna'").await.unwrap();
    node.until("all who live there show the new name", || async {
        let found = documents(&search, "users").await;
        found.values().filter(|user| user["city"] == vienna("Vienna")).count() == 899
    })
    .await;
    server.exec("INSERT INTO shop.orders VALUES (1, 5), (2, 5), (3, 5), (4, 5), (5, 6)").await.unwrap();
    node.wait("too many rows are parked", |s| s["flows"][0]["dead_letters"] == 1).await;
    node.until("another document goes on", || async {
        holds(6, &user(6, vienna("Vienna"), json!([{"id": 5, "user_id": 6}]))).await
    })
    .await;
    let (_, letters, _) = node.run(&["flow", "dead-letters", "users", "--json"]);
    assert!(letters.contains("more than 3 rows of `shop.orders`"), "{letters}");
    server.exec("DELETE FROM shop.orders WHERE id = 4").await.unwrap();
    node.wait("its change waits behind", |s| {
        s["flows"][0]["lag_changes"] == 0 && s["flows"][0]["dead_letters"] == 2
    })
    .await;
    let (code, out, err) = node.run(&["flow", "retry", "users"]);
    assert_eq!(code, 0, "{out}{err}");
    let orders = json!([{"id": 1, "user_id": 5}, {"id": 2, "user_id": 5}, {"id": 3, "user_id": 5}]);
    node.until("the document is whole", || async {
        holds(5, &user(5, vienna("Vienna"), orders.clone())).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_compared_with_the_source_while_their_rows_change_and_each_difference_is_found() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    make_shop(&server).await;
    let badge =
        "CREATE TABLE shop.badges (id INT PRIMARY KEY, owner VARCHAR(40) NOT NULL, worth DECIMAL(8,2))";
    run_all(
        &server,
        &[badge, "INSERT INTO shop.badges VALUES (1, 'user 3', 1.5), (2, 'USER 4', 2), (3, 'user 5', 3)"],
    )
    .await;
    let nest = "orders: {from: shop.orders, on: {user_id: id}}, \
                badge: {from: shop.badges, on: {owner: name}, as: object, columns: [worth, id]}";
    let mut node = project(&server, &search, nest);
    node.start();
    let verify = |node: &Node, more: &[&str]| {
        let (code, out, err) = node.run(&[&["flow", "verify", "users", "--json"], more].concat());
        let report: Value =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{err}\n{}", node.log()));
        let table = report["tables"][0].clone();
        let counts = ["rows", "missing", "extra", "different", "undecided", "parked"];
        (code, counts.map(|count| table[count].as_u64().unwrap()), table)
    };
    let stop = AtomicBool::new(false);
    let story = async {
        let lsn = || node.status()["flows"][0]["lsn"].as_u64();
        node.until("documents come", || async { lsn() > Some(100) }).await;
        for _ in 0..3 {
            let (_, [rows, missing, extra, different, _, parked], table) = verify(&node, &[]);
            assert_eq!([missing, extra, different, parked], [0; 4], "{table:#}");
            assert!(rows > 0, "{table:#}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(write(&server, 7, &stop), story);
    let (code, [_, rest @ ..], table) = verify(&node, &[]);
    assert_eq!((code, rest), (0, [0; 5]), "{table:#}");

    // A row that is not nested, one that is too much, one that is otherwise, and a document that is gone.
    run_all(
        &server,
        &[
            "DELETE FROM shop.orders",
            "DELETE FROM shop.users",
            "INSERT INTO shop.users VALUES (1, 'one', 2), (2, 'two', 0), (3, 'user 3', 0), (4, 'user 4', 0), (5, 'five', 1)",
            "INSERT INTO shop.orders VALUES (2, 1, 'b'), (1, 1, 'a'), (3, 5, 'c')",
        ],
    )
    .await;
    let (code, counts, table) = verify(&node, &[]);
    assert_eq!((code, counts), (0, [5, 0, 0, 0, 0, 0]), "{table:#}");
    let whole = documents(&search, "users").await;
    // Texts are joined by their bytes, whatever the server takes for equal.
    assert_eq!(
        (&whole["3"]["badge"], &whole["4"]["badge"]),
        (&json!({"worth": "1.50", "id": 1}), &Value::Null)
    );
    assert_eq!(whole["1"]["orders"][1]["note"], "b");
    let spoil = async |id: &str, change: &dyn Fn(&mut Value)| {
        let mut document = whole[id].clone();
        change(&mut document);
        must(&search, "PUT", &format!("/users/_doc/{id}"), document).await;
    };
    spoil("1", &|one| one["orders"] = json!([one["orders"][0]])).await;
    spoil("2", &|two| two["orders"] = json!([{"id": 9, "user_id": 2, "note": "nobody's"}])).await;
    spoil("3", &|three| three["badge"]["worth"] = json!("1.49")).await;
    must(&search, "DELETE", "/users/_doc/5", Value::Null).await;
    let (code, counts, table) = verify(&node, &[]);
    assert_eq!((code, counts), (4, [5, 1, 0, 3, 0, 0]), "{table:#}");
    let told = table["differences"].as_array().unwrap();
    let one = told.iter().find(|difference| difference["key"] == json!({"id": 1})).unwrap();
    let orders = |side: &str| one[side]["orders"].as_str().unwrap().to_owned();
    assert!(orders("source").contains("\"b\"") && !orders("sink").contains("\"b\""), "{one:#}");
    let missing = told.iter().find(|difference| difference["kind"] == "missing").unwrap();
    assert!(missing["source"]["orders"].as_str().unwrap().contains("\"c\""), "{missing:#}");

    // The rows are journaled again, and the documents made anew.
    let (code, counts, table) = verify(&node, &["--repair"]);
    assert_eq!((code, counts), (0, [5, 0, 0, 0, 0, 0]), "{table:#}");
    assert_eq!(documents(&search, "users").await, whole);

    // A document that may not have so many rows is parked, and told so.
    server.exec("INSERT INTO shop.badges VALUES (4, 'one', 1), (5, 'one', 2)").await.unwrap();
    node.wait("it is parked", |s| s["flows"][0]["dead_letters"] != 0).await;
    let (code, counts, table) = verify(&node, &[]);
    assert_eq!((code, counts[5]), (4, 1), "{table:#}");
}
