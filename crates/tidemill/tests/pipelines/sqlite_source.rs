//! A SQLite file as a source: what `check --connect` shows, `up` installs, and no kill may lose.

use crate::node::{Node, assert_dense, sqlite_rows};
use crate::random::Rng;
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

fn shop(path: &Path) -> Connection {
    let shop = Connection::open(path).unwrap();
    shop.busy_timeout(Duration::from_secs(20)).unwrap();
    shop.execute_batch(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount REAL, note BLOB, code TEXT UNIQUE);
         CREATE TABLE pairs (a TEXT, b INTEGER, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
         CREATE TABLE loose (rowid TEXT, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
           INSERT INTO orders SELECT i, 'order ' || i, i / 4.0, NULL, NULL FROM n;
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
           INSERT INTO pairs SELECT 'p' || (i % 10), i, i FROM n;
         INSERT INTO orders VALUES (9223372036854775807, 'last', 1e300, X'00ff', 'x');
         INSERT INTO orders VALUES (-5, 'first', -0.5, X'', 'y');
         INSERT INTO loose VALUES ('r', 1), ('r', 1), (NULL, 'it''s');",
    )
    .unwrap();
    shop
}

fn project() -> Vec<(&'static str, String)> {
    vec![
        ("sources/shop.yaml", "kind: sqlite\npath: ./shop.db\ntables: [\"shop.*\"]\n".into()),
        ("sinks/copy.yaml", "kind: sqlite\npath: ./copy.db\n".into()),
        ("flows/copy.yaml", "from: shop\nto: copy\n".into()),
    ]
}

const ORDERS: &str = "SELECT id, name, amount, quote(note), code FROM orders ORDER BY id";
const PAIRS: &str = "SELECT a, b, CAST(v AS TEXT) FROM pairs ORDER BY a, b";
const LOOSE: &str = "SELECT \"rowid\", CAST(v AS TEXT) FROM loose ORDER BY 1, 2";

async fn equal(node: &Node) {
    let (source, copy) = (node.path("shop.db"), node.path("copy.db"));
    for sql in [ORDERS, PAIRS, LOOSE] {
        let wanted = sqlite_rows(&source, sql);
        assert!(!wanted.is_empty(), "{sql}");
        node.until(sql, || async { sqlite_rows(&copy, sql) == wanted }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_kills_and_changed_tables() {
    let mut node = Node::new(&project());
    let db = shop(&node.path("shop.db"));
    let (code, out, err) = node.run(&["check", "--connect"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("CREATE TRIGGER") && out.contains("tidemill_changes"), "{out}");
    assert!(out.contains("recursive_triggers"), "{out}");
    let mut rng = Rng::new(11);
    node.start();
    for round in 0..6 {
        for _ in 0..rng.below(40) + 5 {
            let id = rng.below(300);
            let sql = match rng.below(5) {
                0 => format!(
                    "INSERT OR REPLACE INTO orders (id, name, amount, note, code) VALUES ({id}, 'new {id}', {id}.125, randomblob(9), NULL)"
                ),
                1 => format!("UPDATE orders SET name = name || '!' WHERE id BETWEEN {id} AND {}", id + 9),
                2 => format!("DELETE FROM orders WHERE id = {id}"),
                3 => {
                    format!("UPDATE OR IGNORE pairs SET b = b + 100000 WHERE a = 'p{}' AND b < {id}", id % 10)
                }
                _ => format!(
                    "BEGIN; INSERT INTO loose VALUES ('{id}', {id}.5); DELETE FROM pairs WHERE b = {id}; COMMIT"
                ),
            };
            db.execute_batch(&sql).unwrap();
        }
        if round == 3 {
            db.execute_batch("ALTER TABLE orders ADD COLUMN extra TEXT DEFAULT 'e'").unwrap();
        }
        node.kill9();
        node.start();
    }
    equal(&node).await;
    assert_dense(&node.changes("shop"));
    let left = sqlite_rows(&node.path("shop.db"), "SELECT count(*) FROM tidemill_changes");
    assert_eq!(left, [["0"]], "what is in the journal has left the file");
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_have_the_published_shape_and_a_resnapshot_mends_the_copy() {
    let mut node = Node::new(&project());
    let db = shop(&node.path("shop.db"));
    node.start();
    equal(&node).await;
    db.execute("UPDATE orders SET amount = 2.5 WHERE id = -5", []).unwrap();
    equal(&node).await;
    let changes = node.changes("shop");
    let last = changes.last().unwrap();
    assert_eq!((&last["op"], &last["key"]), (&json!("update"), &json!({"id": -5})));
    assert_eq!(last["before"]["amount"], json!(-0.5));
    assert_eq!(last["after"], json!({"id": -5, "name": "first", "amount": 2.5, "note": "", "code": "y"}));
    Connection::open(node.path("copy.db")).unwrap().execute("DELETE FROM orders WHERE id > 50", []).unwrap();
    let (code, out, err) = node.run(&["flow", "resnapshot", "copy"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("shop.orders"), "{out}");
    equal(&node).await;
}
