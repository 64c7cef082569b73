//! `tidemill query` as a person and a script use it: a table, JSON, exit statuses, hints.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use engine::{Engine, Options, Sqlite};
use std::path::Path;
use std::process::{Command, Output};

/// A project whose engine is a SQLite file with two tables.
async fn project(dir: &Path) {
    std::fs::write(dir.join("tidemill.yaml"), "name: shop\nengine: sqlite:./warehouse.db\n").unwrap();
    let engine = Sqlite::open(&dir.join("warehouse.db"), Options::default()).await.unwrap();
    for sql in [
        "create table city (id int primary key, name varchar(20) not null)",
        "create table sale (id int auto_increment primary key, city int, amount decimal(10,2), day date)",
        "insert into city values (1, '北京'), (2, '上海')",
        "insert into sale (city, amount, day) values (1, 0.10, '2026-01-01'), (1, 0.20, '2026-01-02'), (2, 7, null)",
    ] {
        engine.execute(sql).await.unwrap();
    }
}

fn query(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("-C").arg(dir).arg("query").args(arguments).env_remove("TIDEMILL_PROJECT").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_question_is_answered_as_a_table_or_as_json() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path()).await;
    let sql = "select c.name as city, sum(s.amount) as total, sum(s.amount) / 3 as third \
               from sale s join city c on c.id = s.city group by c.name order by total";
    let out = query(dir.path(), &[sql]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "city  total  third\n北京    0.30   0.100000\n上海    7.00   2.333333\n");
    let out = query(dir.path(), &["--json", "select id, amount, day from sale order by id desc limit 1"]);
    assert_eq!(text(&out.stdout), "{\"id\":3,\"amount\":\"7.00\",\"day\":null}\n");
    let out = query(dir.path(), &["--timeout", "18446744073709551615", "select 1 as a"]);
    assert_eq!(text(&out.stdout), "a\n1\n", "{}", text(&out.stderr));
    let out = query(dir.path(), &["--tables"]);
    assert_eq!(text(&out.stdout), "city\nsale\n");
}

#[tokio::test]
async fn what_cannot_be_answered_says_where_and_why() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path()).await;
    for (sql, status, part) in [
        ("select nope from sale", 2, "1:8: error 1054: Unknown column 'nope'"),
        ("select * from nope", 1, "1:15: error 1146"),
        ("selec 1", 2, "error 1064"),
        ("delete from sale", 2, "no query"),
        ("with q as (select 1) delete from sale", 2, "no query"),
        ("select id from sale for update", 2, "locks no rows"),
        (
            "select id from sale where amount > all (select 1)",
            2,
            "hint: compare with MIN or MAX of the query",
        ),
    ] {
        let out = query(dir.path(), &[sql]);
        assert_eq!(out.status.code(), Some(status), "{sql}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(part), "{sql}: {}", text(&out.stderr));
    }
    std::fs::write(dir.path().join("tidemill.yaml"), "name: shop\nengine: sqlite:./absent.db\n").unwrap();
    assert_eq!(query(dir.path(), &["select 1"]).status.code(), Some(3));
    std::fs::write(dir.path().join("tidemill.yaml"), "name: shop\n").unwrap();
    let out = query(dir.path(), &["select 1"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("hint: write `engine:"), "{}", text(&out.stderr));
}
