//! How long `mysql::sql::scan` takes for statements of several sizes: `cargo run --release -p mysql --example scan_speed`.

use std::hint::black_box;
use std::time::Instant;

use mysql::sql::{Modes, scan};

/// Runs of each statement; the best of [`TRIES`] counts, since other work only ever adds time.
const RUNS: u32 = 100_000;
const TRIES: usize = 15;

fn main() {
    let insert =
        format!("insert into orders (id, user, total) values {}", ["(1, 'abc', 12.50)"; 100].join(", "));
    for (name, sql) in [
        ("begin", "BEGIN"),
        ("point select", "SELECT id, name, balance FROM accounts WHERE id = 4711"),
        ("point select, prepared", "SELECT c FROM sbtest1 WHERE id=?"),
        (
            "update",
            "UPDATE accounts SET balance = balance - 100, touched = NOW() WHERE id = 4711 AND open = 'y'",
        ),
        (
            "insert",
            "INSERT INTO orders (id, user, total, note, made) VALUES (1, 'abc', 12.50, 'a note of some length', NOW())",
        ),
        (
            "join",
            "SELECT o.id, o.total, u.name, COUNT(*) AS lines, SUM(l.price * l.amount) AS gross FROM orders o \
             JOIN users u ON u.id = o.user_id LEFT JOIN order_lines l ON l.order_id = o.id WHERE o.made >= '2026-01-01' \
             AND o.state IN ('paid', 'sent', 'done') AND u.country = 'DE' GROUP BY o.id, o.total, u.name \
             HAVING SUM(l.price) > 100 ORDER BY gross DESC LIMIT 50",
        ),
        ("insert of 100 rows", insert.as_str()),
    ] {
        let best = (0..TRIES).map(|_| run(sql)).min().unwrap_or_default();
        println!("{name:24} {:5} bytes {:6} ns", sql.len(), best);
    }
}

/// Nanoseconds of one scan, of a run of many.
fn run(sql: &str) -> u128 {
    let start = Instant::now();
    for _ in 0..RUNS {
        black_box(scan(black_box(sql.as_bytes()), Modes::default()));
    }
    start.elapsed().as_nanos() / u128::from(RUNS)
}
