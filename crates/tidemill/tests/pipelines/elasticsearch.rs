//! An index holds what the source holds: each type, each kind of change, each shape of a table.

use crate::node::{Node, PATIENCE, mysql_source, run_all};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testkit::{MySql, MySqlOptions, OpenSearch, OpenSearchOptions};

/// More documents than any test has.
const DOCUMENTS_MAX: u32 = 10_000;

/// Asks the server: the status and the answer, null where it has none.
pub async fn ask(server: &OpenSearch, method: &str, path: &str, body: Value) -> (u16, Value) {
    try_ask(server, method, path, body).await.unwrap()
}

async fn try_ask(
    server: &OpenSearch,
    method: &str,
    path: &str,
    body: Value,
) -> reqwest::Result<(u16, Value)> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = reqwest::Client::new().request(method, format!("{}{path}", server.url()));
    let request = if body.is_null() { request } else { request.json(&body) };
    let answer = request.timeout(PATIENCE).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or_default()))
}

pub async fn must(server: &OpenSearch, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = ask(server, method, path, body).await;
    assert!(status < 300, "{method} {path}: {status} {answer:#}");
    answer
}

/// What searchers find behind an alias, by `_id`; nothing where there is no such alias, or no server.
pub async fn documents(server: &OpenSearch, alias: &str) -> BTreeMap<String, Value> {
    let _ = try_ask(server, "POST", &format!("/{alias}/_refresh"), Value::Null).await;
    let found = try_ask(server, "POST", &format!("/{alias}/_search?size={DOCUMENTS_MAX}"), Value::Null).await;
    let (_, answer) = found.unwrap_or_default();
    let Some(hits) = answer["hits"]["hits"].as_array() else { return BTreeMap::new() };
    hits.iter().map(|hit| (hit["_id"].as_str().unwrap().to_owned(), hit["_source"].clone())).collect()
}

/// The ids that a query finds.
async fn found(server: &OpenSearch, alias: &str, query: Value) -> Vec<String> {
    ask(server, "POST", &format!("/{alias}/_refresh"), Value::Null).await;
    let answer = must(server, "POST", &format!("/{alias}/_search"), json!({"query": query})).await;
    let hits = answer["hits"]["hits"].as_array().unwrap();
    let mut ids: Vec<String> = hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// The names of all indexes but Tidemill's own.
pub async fn indexes(server: &OpenSearch) -> Vec<String> {
    let answer =
        must(server, "GET", "/_cat/indices?format=json&h=index&expand_wildcards=all", Value::Null).await;
    let names = answer.as_array().unwrap().iter().map(|row| row["index"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("tidemill")).collect();
    names.sort();
    names
}

/// A project with a SQLite shop, `orders` of it, and one flow to a search server.
pub fn shop(url: &str, options: &str) -> Node {
    let node = Node::new(&[
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {url}\n")),
        ("flows/a.yaml", format!("from: shop\nto: search\noptions: {{{options}}}\n")),
    ]);
    run(&node, "PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT, city TEXT)");
    node
}

pub fn run(node: &Node, sql: &str) {
    let db = rusqlite::Connection::open(node.path("shop.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch(sql).unwrap();
}

pub fn order(id: i64, note: &str) -> (String, Value) {
    (id.to_string(), json!({"id": id, "note": note, "city": null}))
}

pub async fn becomes(node: &Node, server: &OpenSearch, alias: &str, wanted: &[(String, Value)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().cloned().collect();
    node.until(&format!("{alias} to hold {wanted:?}"), || async { documents(server, alias).await == wanted })
        .await;
}

pub fn error_of(status: &Value) -> String {
    status["flows"][0]["error"].to_string()
}

/// Waits until the flow has delivered all that the source has committed.
pub async fn settled(node: &Node) -> Value {
    node.wait("everything is delivered", |s| {
        s["sources"][0]["snapshot"]["state"] == "done"
            && s["flows"][0]["lsn"] == s["sources"][0]["lsn"]
            && s["flows"][0]["lsn"] != 0
            && s["flows"][0]["state"] == "running"
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_mysql_is_kept_exactly_and_found_by_what_it_means() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (a VARCHAR(90), b INT, tiny TINYINT UNSIGNED, u BIGINT UNSIGNED, price DECIMAL(30,2), f DOUBLE,
         at DATETIME(3), ts TIMESTAMP(6) NULL, d DATE, tm TIME, y YEAR, bits BIT(64), e ENUM('x','y'), s SET('p','q'), j JSON,
         bin VARBINARY(9), loc POINT SRID 4326, area POLYGON, note TEXT, PRIMARY KEY (a, b))",
        "SET SESSION sql_mode = '', time_zone = '+00:00';
         INSERT INTO shop.t VALUES ('k:1%', 7, 255, 18446744073709551615, 9999999999999999999999.50, 1.5, '2026-01-02 03:04:05.120',
         '2026-01-02 03:04:05.123456', '2026-01-02', '-838:59:59', 2026, 18446744073709551615, 'y', 'p,q',
         '{\"k\": [1, {\"big\": 12345678901234567890}]}', x'00ff22', ST_GeomFromText('POINT(48.25 11.5)', 4326),
         ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))'), 'Quick brown foxes');
         INSERT INTO shop.t (a, b, at, d, j) VALUES ('z', -1, '0000-00-00 00:00:00', '0000-00-00', '\"alone\"')",
        "INSERT INTO shop.t (a, b, j, note) VALUES ('z', -2, '[1, \"x\"]', REPEAT('long ', 12000))",
    ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        ("flows/a.yaml", "from: shop\nto: search\n".into()),
        (
            "flows/b.yaml",
            "from: shop\nto: search\noptions: {index: flat, mappings: {j: {type: flat_object}}}\n".into(),
        ),
    ]);
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{out}{err}");
    node.start();
    let status = settled(&node).await;
    assert_eq!(status["flows"][0]["dead_letters"], 0, "{status:#}");

    let rows = documents(&search, "shop.t").await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    let row = &rows["k%3A1%25:7"];
    let wanted = json!({
        "a": "k:1%", "b": 7, "tiny": 255, "u": 18446744073709551615u64, "price": "9999999999999999999999.50", "f": 1.5,
        "at": "2026-01-02 03:04:05.120", "ts": "2026-01-02T03:04:05.123456Z", "d": "2026-01-02", "tm": "-838:59:59", "y": 2026,
        "bits": 18446744073709551615u64, "e": "y", "s": ["p", "q"], "j": {"k": [1, {"big": 12345678901234567890u64}]},
        "bin": "AP8i", "loc": {"lat": 48.25, "lon": 11.5}, "area": row["area"].clone(), "note": "Quick brown foxes",
    });
    assert_eq!(*row, wanted);
    assert!(row["area"]["wkb"].is_string());
    assert_eq!((&rows["z:-1"]["j"], &rows["z:-2"]["j"]), (&json!("alone"), &json!([1, "x"])));

    let first = ["k%3A1%25:7"];
    for query in [
        json!({"range": {"u": {"gte": 18446744073709551614u64}}}),
        json!({"range": {"price": {"gt": "9999999999999999999"}}}),
        json!({"range": {"at": {"gte": "2026-01-02 03:04:05.100", "lt": "2026-01-02 03:04:05.121"}}}),
        json!({"range": {"ts": {"gte": "2026-01-02T03:04:05Z"}}}),
        json!({"term": {"d": "2026-01-02"}}),
        json!({"term": {"e": "y"}}),
        json!({"term": {"s": "q"}}),
        json!({"term": {"a.keyword": "k:1%"}}),
        json!({"match": {"note": "brown"}}),
        json!({"geo_distance": {"distance": "1km", "loc": {"lat": 48.25, "lon": 11.5}}}),
    ] {
        assert_eq!(found(&search, "shop.t", query.clone()).await, first, "{query}");
    }
    // Where the flow maps JSON itself, what is no object is refused, and the others are found by what is inside.
    node.wait("bare JSON is parked", |s| s["flows"][1]["dead_letters"] == 2).await;
    assert_eq!(found(&search, "flat", json!({"term": {"j.k": "1"}})).await, first);
    // What a type of the index cannot hold is in the document, and is told.
    assert_eq!(rows["z:-1"]["at"], "0000-00-00 00:00:00.000");
    assert_eq!(found(&search, "shop.t", json!({"exists": {"field": "_ignored"}})).await, ["z:-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_change_swap_or_go_leave_nothing_behind() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.users (id INT PRIMARY KEY, email VARCHAR(40) UNIQUE, city VARCHAR(20))",
        "INSERT INTO shop.users VALUES (1, 'a@x', 'Rome'), (2, 'b@x', 'Rome'), (3, 'c@x', 'Oslo'), (4, 'd@x', NULL)",
    ],
    )
    .await;
    let flow = |options: &str| format!("from: shop\nto: search\noptions: {{{options}}}\n");
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        (
            "flows/a.yaml",
            flow("index: \"by-id\", routing: \"{city}\", index_settings: {number_of_shards: 3}"),
        ),
        ("flows/b.yaml", flow("index: \"mail-{table}\", id: \"{email}\"")),
    ]);
    node.start();
    node.until("the snapshot is there", || async {
        documents(&search, "by-id").await.len() == 4 && documents(&search, "mail-users").await.len() == 4
    })
    .await;
    let settings = must(&search, "GET", "/by-id/_settings", Value::Null).await;
    let settings = &settings["by-id-000001"]["settings"]["index"];
    assert_eq!((&settings["number_of_shards"], &settings["gc_deletes"]), (&json!("3"), &json!("15m")));
    run_all(
        &server,
        &[
            "UPDATE shop.users SET id = 30 WHERE id = 3",
            // To another shard and back to the same: no copy stays, none is lost.
            "UPDATE shop.users SET city = 'Oslo' WHERE id = 1",
            "UPDATE shop.users SET city = 'Lima' WHERE id = 1",
            "UPDATE shop.users SET city = NULL WHERE id = 2",
            "DELETE FROM shop.users WHERE id = 4",
        ],
    )
    .await;
    // Two rows trade a unique value inside one transaction.
    let mut conn = server.conn().await.unwrap();
    for sql in [
        "BEGIN",
        "UPDATE shop.users SET email = 'tmp' WHERE id = 1",
        "UPDATE shop.users SET email = 'a@x' WHERE id = 2",
        "UPDATE shop.users SET email = 'b@x' WHERE id = 1",
        "COMMIT",
    ] {
        testkit::mysql_async::prelude::Queryable::query_drop(&mut conn, sql).await.unwrap();
    }
    let user = |id: u32, email: &str, city: Value| json!({"id": id, "email": email, "city": city});
    let users = [user(1, "b@x", json!("Lima")), user(2, "a@x", Value::Null), user(30, "c@x", json!("Oslo"))];
    let by = |key: &str| -> Vec<(String, Value)> {
        users.iter().map(|u| (u[key].to_string().trim_matches('"').to_owned(), u.clone())).collect()
    };
    becomes(&node, &search, "by-id", &by("id")).await;
    becomes(&node, &search, "mail-users", &by("email")).await;
    let status = node.status();
    assert!(status["flows"].as_array().unwrap().iter().all(|f| f["dead_letters"] == 0), "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_made_altered_renamed_emptied_and_dropped() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.a (id INT PRIMARY KEY, n INT)",
            "INSERT INTO shop.a VALUES (1, 1)",
        ],
    )
    .await;
    let mut node = Node::new(&[
        ("sources/shop.yaml", mysql_source(&server.url(), "shop.*")),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        ("flows/f.yaml", "from: shop\nto: search\n".into()),
    ]);
    node.start();
    becomes(&node, &search, "shop.a", &[("1".into(), json!({"id": 1, "n": 1}))]).await;
    run_all(
        &server,
        &[
            "ALTER TABLE shop.a ADD COLUMN word VARCHAR(20), ADD COLUMN big BIGINT UNSIGNED",
            "INSERT INTO shop.a VALUES (2, 2, 'two words', 18446744073709551615)",
            // Wider, and of another kind: what is there keeps its mapping, and the flow goes on.
            "ALTER TABLE shop.a MODIFY n BIGINT, MODIFY big VARCHAR(30)",
            "INSERT INTO shop.a VALUES (3, 99999999999, 'three', '3')",
            "CREATE TABLE shop.later (k VARCHAR(9) PRIMARY KEY)",
            "INSERT INTO shop.later VALUES ('x')",
        ],
    )
    .await;
    becomes(&node, &search, "shop.later", &[("x".into(), json!({"k": "x"}))]).await;
    let rows = documents(&search, "shop.a").await;
    assert_eq!(rows["3"], json!({"id": 3, "n": 99999999999u64, "word": "three", "big": "3"}));
    assert_eq!(found(&search, "shop.a", json!({"match": {"word": "words"}})).await, ["2"]);
    assert_eq!(found(&search, "shop.a", json!({"range": {"n": {"gt": 5}}})).await, ["3"]);

    server.exec("RENAME TABLE shop.a TO shop.b").await.unwrap();
    server.exec("UPDATE shop.b SET word = 'one' WHERE id = 1").await.unwrap();
    node.until("the row is found by the table's new name", || async {
        documents(&search, "shop.b").await.get("1").is_some_and(|row| row["word"] == "one")
    })
    .await;
    assert_eq!(documents(&search, "shop.b").await.len(), 3);
    assert_eq!(ask(&search, "GET", "/_alias/shop.a", Value::Null).await.0, 404);
    server.exec("TRUNCATE TABLE shop.b").await.unwrap();
    server.exec("INSERT INTO shop.b (id) VALUES (9)").await.unwrap();
    let nine = json!({"id": 9, "n": null, "word": null, "big": null});
    becomes(&node, &search, "shop.b", &[("9".into(), nine)]).await;
    server.exec("DROP TABLE shop.b").await.unwrap();
    node.until("the index is gone", || async { indexes(&search).await == ["shop.later-000001"] }).await;
    assert_eq!(settled(&node).await["flows"][0]["dead_letters"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searchers_keep_the_old_documents_until_a_table_is_read_anew() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    run_all(
        &server,
        &["CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY, note VARCHAR(40))"],
    )
    .await;
    let values: Vec<String> = (0..2000).map(|id| format!("({id}, 'row {id}')")).collect();
    server.exec(&format!("INSERT INTO shop.orders VALUES {}", values.join(","))).await.unwrap();
    let mut node = Node::new(&[
        (
            "sources/shop.yaml",
            mysql_source(&server.url(), "shop.*")
                + "options: {snapshot_chunk_rows: 100, snapshot_rows_per_second: 2000}\n",
        ),
        ("sinks/search.yaml", format!("kind: elasticsearch\nurl: {}\n", search.url())),
        ("flows/a.yaml", "from: shop\nto: search\noptions: {index: orders, batch_rows: 100}\n".into()),
    ]);
    node.start();
    node.until("the snapshot is there", || async { documents(&search, "orders").await.len() == 2000 }).await;
    // A document that no row stands behind, as after a restore of the source.
    let stray = "/orders/_doc/stray?version=9&version_type=external";
    must(&search, "PUT", stray, json!({"id": -1})).await;
    let (code, out, err) = node.run(&["flow", "resnapshot", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    server.exec("UPDATE shop.orders SET note = 'new' WHERE id = 1999").await.unwrap();
    server.exec("DELETE FROM shop.orders WHERE id = 0").await.unwrap();
    // Killed in the middle: what was filled is not lost, or is filled again.
    node.until("a new index is filled", || async { indexes(&search).await.len() == 2 }).await;
    node.kill9();
    node.start();
    node.until("the new index takes over", || async {
        let rows = documents(&search, "orders").await;
        assert!(rows.len() >= 1999, "searchers saw {} of 2000", rows.len());
        !rows.contains_key("stray")
    })
    .await;
    let rows = documents(&search, "orders").await;
    assert_eq!(rows.len(), 1999);
    assert_eq!(rows["1999"], json!({"id": 1999, "note": "new"}));
    assert_eq!(indexes(&search).await.len(), 1, "the old index is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_searched_through_our_own_port() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    let mut node = shop(&search.url(), "index: orders");
    node.write("sinks/out.yaml", "kind: files\npath: ./out\n");
    node.write("flows/b.yaml", "from: shop\nto: out\n");
    run(
        &node,
        "INSERT INTO orders VALUES (1, 'green tea', 'Rome'), (2, 'black tea', 'Oslo'), (3, 'a \"quoted\" {\"x\":1} *', NULL)",
    );
    node.start();
    settled(&node).await;
    node.until("all are found", || async { documents(&search, "orders").await.len() == 3 }).await;
    let address = node.address();
    let get = |path: &str, pairs: &[(&str, &str)]| {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| {
                format!(
                    "{name}={}",
                    value.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('+', "%2B")
                )
            })
            .collect();
        let url = format!("http://{address}{path}?{}", pairs.join("&"));
        async move {
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let ids = |answer: &Value| {
        let hits = answer["hits"].as_array().unwrap().iter();
        let mut ids: Vec<String> = hits.map(|hit| hit["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    for (words, wanted) in [
        ("tea", vec!["1", "2"]),
        ("tea rome", vec!["1"]),
        ("tea -green", vec!["2"]),
        ("\"green tea\"", vec!["1"]),
        ("bla*", vec!["2"]),
        ("quoted", vec!["3"]),
        ("nothing", vec![]),
        // No text is wrong, and none is more than words.
        ("\"}},{\"match_all\":{}} quoted", vec![]),
    ] {
        let (status, answer) = get("/api/v1/search/a", &[("q", words)]).await;
        assert_eq!(
            (status, ids(&answer)),
            (200, wanted.iter().map(|id| (*id).to_owned()).collect()),
            "{words}: {answer:#}"
        );
    }
    for words in ["(((( tea | \\ ~ ", "\"", "/.*/ [1 TO 2} a:b^9 !", "*"] {
        assert_eq!(get("/api/v1/search/a", &[("q", words)]).await.0, 200, "{words}");
    }
    let (_, answer) = get("/api/v1/search/a", &[("q", "tea"), ("limit", "1")]).await;
    assert_eq!(
        (&answer["total"], ids(&answer).len(), &answer["more"]),
        (&json!(2), 1, &json!(false)),
        "{answer:#}"
    );
    let hit = &answer["hits"][0];
    assert!(
        hit["index"] == "orders" && hit["source"]["note"].is_string() && hit["score"].is_number(),
        "{hit}"
    );
    for (path, pairs, status, code) in [
        ("/api/v1/search/nope", vec![("q", "x")], 404, "not_found"),
        ("/api/v1/search/b", vec![("q", "x")], 412, "failed_precondition"),
        ("/api/v1/search/a", vec![], 400, "invalid"),
        ("/api/v1/search/a", vec![("q", "x"), ("limit", "101")], 400, "invalid"),
    ] {
        let (got, answer) = get(path, &pairs).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{path} {answer:#}");
    }
    let long = "x".repeat(2000);
    assert_eq!(get("/api/v1/search/a", &[("q", &long)]).await.0, 400);
    search.kill9();
    let (status, answer) = get("/api/v1/search/a", &[("q", "tea")]).await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_not_ours_or_would_be_shared_stops_the_flow() {
    let search = OpenSearch::start(OpenSearchOptions::default()).await.unwrap();
    must(&search, "PUT", "/orders", json!({})).await;
    must(&search, "PUT", "/theirs-000001", json!({"aliases": {"theirs": {}}})).await;
    let mut node = shop(&search.url(), "index: orders");
    run(&node, "INSERT INTO orders VALUES (1, 'a', NULL)");
    for (index, told) in [("orders", "is an index of its own"), ("theirs", "which flow `a` has not made")] {
        node.write("flows/a.yaml", &format!("from: shop\nto: search\noptions: {{index: {index}}}\n"));
        node.start();
        node.wait("the name is refused", |s| error_of(s).contains(told)).await;
        node.stop();
    }
    assert_eq!(indexes(&search).await, ["orders", "theirs-000001"]);
    // An index that happens to have the next name is passed over, and never deleted.
    must(&search, "PUT", "/all-000001", json!({})).await;
    node.write("flows/a.yaml", "from: shop\nto: search\noptions: {index: all}\n");
    node.start();
    becomes(&node, &search, "all", &[order(1, "a")]).await;
    run(&node, "CREATE TABLE second (id INTEGER PRIMARY KEY); INSERT INTO second VALUES (1)");
    node.wait("two tables in one index", |s| error_of(s).contains("would share the index `all`")).await;
    assert_eq!(indexes(&search).await, ["all-000001", "all-000002", "orders", "theirs-000001"]);
}

#[test]
fn options_that_cannot_work_are_told_before_anything_starts() {
    let node = shop("http://127.0.0.1:1", "");
    let wrong = [
        ("index: \"orders-{city}\"", "`index` names a column"),
        ("id: \"{table}\"", "`id` is the same for all rows"),
        ("id: \"{id\"", "`id` has a `{` without its `}`"),
        ("mappings: {note: text}", "the mapping of `note` is no object"),
        ("key: \"{id}\"", "`key` means nothing to the sink"),
        ("format: canal", "`format` means nothing to the sink"),
    ];
    for (options, told) in wrong {
        node.write("flows/a.yaml", &format!("from: shop\nto: search\noptions: {{{options}}}\n"));
        let (code, _, err) = node.run(&["check"]);
        assert!(code == 2 && err.contains(told), "{options}: {code} {err}");
    }
    node.write("flows/a.yaml", "from: shop\nto: search\n");
    node.write("sinks/search.yaml", "kind: elasticsearch\nurl: redis://127.0.0.1:1\n");
    let (code, _, err) = node.run(&["check"]);
    assert!(code == 2 && err.contains("http://"), "{err}");
}
