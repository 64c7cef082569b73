//! Random changes of JSON documents under `binlog_row_value_options = PARTIAL_JSON`: what the binlog has are the changes alone, and
//! every document must come out as the server has it.

use crate::random::Rng;
use testkit::SqlServer;
use testkit::mysql_async::prelude::Queryable;

const STATEMENTS: u64 = 250;
const ROWS: u64 = 4;

const LEGS: [&str; 10] =
    [".a", ".b", ".\"c d\"", ".\"é\"", ".\"q\\\\\"\"", "[0]", "[1]", "[7]", "[last]", "[last-1]"];

const VALUES: [&str; 12] = [
    "1",
    "-70000",
    "18446744073709551615",
    "1.5e0",
    "CAST(2.50 AS DECIMAL(6,2))",
    "'text'",
    "REPEAT('long ', 60)",
    "NULL",
    "TRUE",
    "CAST('2026-01-02 03:04:05.6' AS DATETIME(1))",
    "JSON_OBJECT('a', JSON_ARRAY(1, 'x', JSON_OBJECT('b', 2)), 'c d', 'y')",
    "JSON_ARRAY(JSON_ARRAY(), JSON_OBJECT(), 'z', JSON_ARRAY(3, 4))",
];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

fn path(rng: &mut Rng) -> String {
    let legs = 1 + rng.below(3);
    (0..legs).fold("$".to_owned(), |path, _| path + pick(rng, &LEGS))
}

/// Changes of `shop.documents`, as the judge writes them. A statement that changes nothing is none.
pub async fn write(server: &SqlServer) -> Vec<String> {
    let seed = 0x5eed_d0c5;
    let mut rng = Rng::new(seed);
    let mut conn = server.conn().await.unwrap();
    for sql in [
        "SET NAMES utf8mb4",
        "SET binlog_row_value_options = 'PARTIAL_JSON'",
        "CREATE TABLE shop.documents (id INT PRIMARY KEY, n INT, j JSON, k JSON)",
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    let mut changes = Vec::new();
    for id in 1..=ROWS {
        let (j, k) = (VALUES[10], VALUES[11]);
        conn.query_drop(format!("INSERT INTO shop.documents VALUES ({id}, 0, {j}, {k})")).await.unwrap();
        changes.push(format!("i{id}"));
    }
    for n in 1..=STATEMENTS {
        let id = 1 + rng.below(ROWS);
        let column = pick(&mut rng, &["j", "k"]);
        let function = pick(&mut rng, &["JSON_SET", "JSON_SET", "JSON_REPLACE", "JSON_REMOVE"]);
        let edits = 1 + rng.below(3);
        let arguments: Vec<String> = (0..edits)
            .map(|_| match function {
                "JSON_REMOVE" => format!("'{}'", path(&mut rng)),
                _ => format!("'{}', {}", path(&mut rng), pick(&mut rng, &VALUES)),
            })
            .collect();
        let sql = format!(
            "UPDATE shop.documents SET n = {n}, {column} = {function}({column}, {}) WHERE id = {id}",
            arguments.join(", ")
        );
        conn.query_drop(&sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
        changes.push(format!("u{id}"));
    }
    println!("documents: {STATEMENTS} statements, seed {seed:#x}");
    changes
}
