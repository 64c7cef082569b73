//! A source that is not as it was, and rows that do not fit: what each policy does, in the dataset and in what is told.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod support;

use base::{ColumnType, Fault, Value};
use collect::retry;
use engine::Engine;
use rusqlite::Connection;
use std::path::Path;
use support::given::{Given, column};
use support::{collected, collected_from, config, one, rows, sqlite, warehouse};

struct Shop {
    connection: Connection,
    source: collect::Source,
}

fn shop(folder: &Path, sql: &str) -> Shop {
    let path = folder.join("shop.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    Shop { connection, source: sqlite(&path) }
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT, at INT NOT NULL); INSERT INTO t VALUES (1, 10, 1), (2, 20, 2);";
/// A column comes, and one becomes text.
const CHANGE: &str = "ALTER TABLE t ADD extra TEXT; INSERT INTO t VALUES (3, 30, 3, NULL), (4, 40, 4, 'x');";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_column_is_taken_over_refused_or_left_out() {
    for mode in ["full", "key_diff", "cursor"] {
        for (policy, expected) in [
            ("evolve", Ok(("1,2,3,4", Some("NULL|NULL|NULL|x")))),
            ("freeze", Err("`shop.t`: the column `extra` is new, and `schema.columns` is freeze")),
            ("discard_row", Ok(("1,2,3", None))),
            ("discard_value", Ok(("1,2,3,4", None))),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let shop = shop(folder.path(), TABLE);
            let engine = warehouse(folder.path()).await;
            let cursor = if mode == "cursor" { ", cursor: at" } else { "" };
            let flow = config(&format!(
                "{{from: shop, tables: [shop.t], to: ods.t, mode: {mode}{cursor}, schema: {{columns: {policy}}}}}"
            ));
            collected(&flow, &shop.source, &engine).await.unwrap();
            shop.connection.execute_batch(CHANGE).unwrap();
            let ended = collected(&flow, &shop.source, &engine).await;
            let ids = one(&engine, "SELECT GROUP_CONCAT(id ORDER BY id SEPARATOR ',') AS a FROM ods.t").await;
            match (ended, expected) {
                (Ok(report), Ok((expected, extra))) => {
                    assert_eq!(ids, expected, "{mode} {policy}: {report:?}");
                    let has = engine.columns("ods.t").await.unwrap().iter().any(|it| it.name == "extra");
                    assert_eq!(has, extra.is_some(), "{mode} {policy}");
                    if let Some(extra) = extra {
                        let found = rows(&engine, "SELECT id, extra FROM ods.t").await;
                        let found: Vec<&str> = found.iter().map(|row| row[1].as_str()).collect();
                        assert_eq!(found.join("|"), extra);
                    }
                    assert_eq!(report.counts().rejected, u64::from(policy == "discard_row"));
                    assert!(!report.warnings.is_empty());
                }
                (Err(error), Err(expected)) => {
                    assert_eq!(error.to_string(), expected);
                    assert!(error.hint().unwrap().contains("evolve"));
                    assert_eq!(ids, "1,2", "the dataset stays");
                }
                (ended, expected) => panic!("{mode} {policy}: {ended:?}, and not {expected:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_goes_stays_where_rows_have_it() {
    for (mode, expected) in [("full", "gone"), ("key_diff", "10|20|NULL"), ("cursor", "10|20|NULL")] {
        let folder = tempfile::tempdir().unwrap();
        let shop = shop(folder.path(), TABLE);
        let engine = warehouse(folder.path()).await;
        let cursor = if mode == "cursor" { ", cursor: at" } else { "" };
        let flow = config(&format!("{{from: shop, tables: [shop.t], to: ods.t, mode: {mode}{cursor}}}"));
        collected(&flow, &shop.source, &engine).await.unwrap();
        shop.connection.execute_batch("ALTER TABLE t DROP COLUMN n; INSERT INTO t VALUES (3, 3)").unwrap();
        let report = collected(&flow, &shop.source, &engine).await.unwrap();
        assert!(report.warnings[0].contains("the column `n` is gone"), "{report:?}");
        let has = engine.columns("ods.t").await.unwrap().iter().any(|it| it.name == "n");
        assert_eq!(has, expected != "gone", "{mode}");
        if has {
            let found = rows(&engine, "SELECT id, n FROM ods.t").await;
            let found: Vec<&str> = found.iter().map(|row| row[1].as_str()).collect();
            // Also that at the bookmark, which is read again.
            assert_eq!(found.join("|"), expected, "{mode}");
        }
        if mode == "key_diff" {
            // Rows that change keep it, and those that do not are not written again.
            shop.connection.execute("UPDATE t SET at = 9 WHERE id = 1", []).unwrap();
            let report = collected(&flow, &shop.source, &engine).await.unwrap();
            assert_eq!(report.tables[0].written, 1, "{report:?}");
            let found = rows(&engine, "SELECT id, n, at FROM ods.t").await;
            assert_eq!(found, [["1", "10", "9"], ["2", "20", "2"], ["3", "NULL", "3"]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_type_is_taken_over_or_refused() {
    for (mode, policy) in [
        ("full", "evolve"),
        ("key_diff", "evolve"),
        ("cursor", "evolve"),
        ("cursor", "freeze"),
        ("key_diff", "discard_value"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let shop = shop(folder.path(), TABLE);
        let engine = warehouse(folder.path()).await;
        let cursor = if mode == "cursor" { ", cursor: at" } else { "" };
        let flow = config(&format!(
            "{{from: shop, tables: [shop.t], to: ods.t, mode: {mode}{cursor}, schema: {{types: {policy}}}}}"
        ));
        collected(&flow, &shop.source, &engine).await.unwrap();
        let sql = "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, n VARCHAR(20), at INT NOT NULL); \
                   INSERT INTO t VALUES (1, '10', 1), (2, '20', 2), (3, 'three', 3);";
        shop.connection.execute_batch(sql).unwrap();
        let ended = collected(&flow, &shop.source, &engine).await;
        if policy == "freeze" {
            let error = ended.unwrap_err().to_string();
            assert_eq!(
                error,
                "`shop.t`: the column `n` was bigint and is varchar(255), and `schema.types` is freeze"
            );
            continue;
        }
        let report = ended.unwrap();
        let expected = if policy == "evolve" { "three" } else { "NULL" };
        let found = rows(&engine, "SELECT id, n FROM ods.t").await;
        assert_eq!(found, [["1", "10"], ["2", "20"], ["3", expected]], "{mode} {policy}");
        assert_eq!(report.tables[0].values_discarded, u64::from(policy == "discard_value"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_put_aside_with_their_reason_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(4,2), at DATETIME); \
               INSERT INTO t VALUES (1, 1.5, '2024-01-01 00:00:00'), (2, 1000, '2024-01-02 00:00:00'), (3, 3, NULL), \
               (4, 'four', '2024-01-03 00:00:00'), (5, 5, '2024-01-04 00:00:00');";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config("{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at}");
    let report = collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!((report.counts().read, report.counts().written, report.counts().rejected), (5, 2, 3));
    assert!(report.warnings.iter().any(|it| it.contains("3 rows were put aside")), "{report:?}");
    let aside = "SELECT row_key, place, data, reason FROM tidemill_rejected";
    let found = rows(&engine, aside).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0][0], "2");
    assert!(
        found[0][2].contains("\"n\":\"1000\"") && found[0][3].contains("Out of range value for column 'n'"),
        "{found:?}"
    );
    assert!(found[1][3].contains("the cursor `at` is NULL"), "{found:?}");
    assert_eq!(rows(&engine, "SELECT id FROM ods.t").await, [["1"], ["5"]]);
    // What is bad stays where it is, once.
    assert_eq!(retry("flow", &flow, &engine).await.unwrap().left, 3);
    collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!(rows(&engine, aside).await.len(), 3);
    // The column becomes wider: the row that fits now is in the dataset at the next run, and an older one replaces nothing.
    shop.connection
        .execute_batch(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = REPLACE(sql, 'DECIMAL(4,2)', 'DECIMAL(8,2)'); \
             PRAGMA writable_schema = RESET; UPDATE t SET n = 7, at = '2024-02-01 00:00:00' WHERE id = 4;",
        )
        .unwrap();
    let report = collected(&flow, &shop.source, &engine).await.unwrap();
    assert!(report.warnings.iter().any(|it| it.contains("1 row that had been put aside")), "{report:?}");
    assert_eq!(
        rows(&engine, "SELECT id, n FROM ods.t").await,
        [["1", "1.50"], ["2", "1000.00"], ["4", "7.00"], ["5", "5.00"]]
    );

    let strict = config(
        "{from: shop, tables: [shop.t], to: ods.u, mode: full, max_rejected: 0, columns: [id, n, at], key: [n]}",
    );
    shop.connection.execute("INSERT INTO t VALUES (6, 7, '2024-02-01 00:00:00')", []).unwrap();
    let error = collected(&strict, &shop.source, &engine).await.unwrap_err();
    assert!(error.to_string().contains("1 row was put aside, and `max_rejected` is 0"), "{error}");
    assert!(error.to_string().contains("Duplicate entry"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_a_row_that_was_put_aside_come_back_as_bytes_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, raw BLOB, n DECIMAL(4,2), at INT NOT NULL); \
               INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT), NULL, 1, 1), (2, 'b', x'00ff', 1000, 2), (3, 'c', x'01', 1, 3);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config("{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at}");
    let report = collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!(report.counts().rejected, 2, "{report:?}");
    let aside = rows(&engine, "SELECT row_key, data FROM tidemill_rejected").await;
    assert!(aside[0][1].contains("\"name\":{\"hex\":\"ff41\"}"), "{aside:?}");
    assert!(aside[1][1].contains("\"raw\":{\"hex\":\"00ff\"}"), "{aside:?}");
    collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!(rows(&engine, "SELECT id FROM ods.t").await, [["3"]]);
    shop.connection
        .execute_batch(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = REPLACE(sql, 'DECIMAL(4,2)', 'DECIMAL(8,2)'); \
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
    collected(&flow, &shop.source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT id, name, raw, n FROM ods.t").await;
    assert_eq!(found, [["2", "b", "0x00FF", "1000.00"], ["3", "c", "0x01", "1.00"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_a_new_column_is_not_in_the_dataset_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(folder.path(), TABLE);
    let engine = warehouse(folder.path()).await;
    let flow = |policy: &str| {
        config(&format!(
            "{{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at, schema: {{columns: {policy}}}}}"
        ))
    };
    collected(&flow("discard_row"), &shop.source, &engine).await.unwrap();
    shop.connection.execute_batch(CHANGE).unwrap();
    for _ in 0..2 {
        collected(&flow("discard_row"), &shop.source, &engine).await.unwrap();
        assert_eq!(rows(&engine, "SELECT id FROM ods.t").await, [["1"], ["2"], ["3"]]);
        let aside = one(&engine, "SELECT data FROM tidemill_rejected").await;
        assert!(aside.contains("\"extra\":\"x\""), "{aside}");
    }
    assert_eq!(retry("flow", &flow("discard_row"), &engine).await.unwrap().left, 1);
    shop.connection.execute("DELETE FROM t WHERE id = 4", []).unwrap();
    collected(&flow("evolve"), &shop.source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT id, extra FROM ods.t").await;
    assert_eq!(found, [["1", "NULL"], ["2", "NULL"], ["3", "NULL"], ["4", "x"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_told_apart_by_every_byte_where_their_source_does_not_say_how() {
    let folder = tempfile::tempdir().unwrap();
    let engine = warehouse(folder.path()).await;
    let text = ColumnType::Text { chars_max: 20 };
    let row = |code: &str, at: i64| vec![Value::Text(code.into()), Value::Int(at)];
    let mut source = Given {
        columns: vec![
            column("code", text, "varchar(20)"),
            column("at", ColumnType::BigInt { unsigned: false }, "bigint"),
        ],
        key: vec!["code".into()],
        in_order: true,
        parts: vec![vec![row("ab1", 1), row("AB1", 2), row("ab1 ", 3), row("áb1", 4)]],
    };
    let flow = config("{from: shop, tables: [t], to: ods.t, mode: cursor, cursor: at}");
    collected_from(&flow, &mut source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT at, code FROM ods.t").await;
    assert_eq!(found, [["1", "ab1"], ["2", "AB1"], ["3", "ab1 "], ["4", "áb1"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_bad_delete_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(4,2)); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = |mode: &str, zero_rows: &str| {
        config(&format!(
            "{{from: shop, tables: [shop.t], to: ods.by_{mode}, mode: {mode}, zero_rows: {zero_rows}}}"
        ))
    };
    for mode in ["key_diff", "full"] {
        collected(&flow(mode, "fail"), &shop.source, &engine).await.unwrap();
    }
    // One is bad, one gone, one changed and one new.
    let sql = "UPDATE t SET n = 1000 WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET n = 4 WHERE id = 3; \
               INSERT INTO t VALUES (4, 4);";
    shop.connection.execute_batch(sql).unwrap();
    let report = collected(&flow("key_diff", "fail"), &shop.source, &engine).await.unwrap();
    let done = &report.tables[0];
    assert_eq!((done.inserted, done.updated, done.deleted, done.rejected), (1, 1, 0, 1), "{report:?}");
    assert!(report.warnings[0].contains("nothing was deleted, because 1 row was put aside"), "{report:?}");
    assert!(done.reconciled.as_ref().unwrap().matched);
    let found = rows(&engine, "SELECT id, n FROM ods.by_key_diff").await;
    assert_eq!(found, [["1", "1.00"], ["2", "2.00"], ["3", "4.00"], ["4", "4.00"]]);
    // All are bad.
    shop.connection.execute("UPDATE t SET n = 1000", []).unwrap();
    for mode in ["key_diff", "full"] {
        let error = collected(&flow(mode, "fail"), &shop.source, &engine).await.unwrap_err().to_string();
        let expected = "no row was taken over from `shop.t`: 3 rows were put aside, and `zero_rows` is fail";
        assert_eq!(error, expected, "{mode}");
    }
    assert_eq!(rows(&engine, "SELECT id FROM ods.by_full").await.len(), 3);
    collected(&flow("key_diff", "warn"), &shop.source, &engine).await.unwrap();
    assert_eq!(rows(&engine, "SELECT id FROM ods.by_key_diff").await.len(), 4);
    // All are good again: what is gone goes.
    shop.connection.execute("UPDATE t SET n = 5", []).unwrap();
    let report = collected(&flow("key_diff", "fail"), &shop.source, &engine).await.unwrap();
    assert_eq!((report.tables[0].deleted, report.warnings), (1, Vec::<String>::new()));
    let found = rows(&engine, "SELECT id, n FROM ods.by_key_diff").await;
    assert_eq!(found, [["1", "5.00"], ["3", "5.00"], ["4", "5.00"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bookmark_passes_no_row_that_is_neither_in_the_dataset_nor_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(4,2), at INT NOT NULL); \
               WITH RECURSIVE i(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM i WHERE v < 10010) INSERT INTO t SELECT v, 1000, v FROM i; \
               INSERT INTO t VALUES (20000, 1, 20000);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config("{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at}");
    // Those that are kept are read again by the second run, and need no more room.
    for _ in 0..2 {
        let error = collected(&flow, &shop.source, &engine).await.unwrap_err();
        assert!(error.to_string().contains("more rows are bad than tidemill_rejected keeps"), "{error}");
        assert_eq!(one(&engine, "SELECT COUNT(*) AS n FROM tidemill_rejected").await, "10000");
        assert_eq!(one(&engine, "SELECT COUNT(*) AS n FROM ods.t").await, "0");
    }
    shop.connection.execute("UPDATE t SET n = 2 WHERE id > 10000", []).unwrap();
    collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!(one(&engine, "SELECT COUNT(*) AS n FROM ods.t").await, "11");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_may_put_no_row_aside_writes_none_behind_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(4,2), at INT NOT NULL); \
               INSERT INTO t VALUES (1, 1, 1), (2, 1000, 2), (3, 3, 3);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config(
        "{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at, batch_rows: 1, max_rejected: 0}",
    );
    for _ in 0..2 {
        let error = collected(&flow, &shop.source, &engine).await.unwrap_err().to_string();
        assert!(error.contains("1 row was put aside, and `max_rejected` is 0"), "{error}");
        assert_eq!(rows(&engine, "SELECT id FROM ods.t").await, [["1"]]);
    }
    shop.connection.execute("UPDATE t SET n = 2 WHERE id = 2", []).unwrap();
    collected(&flow, &shop.source, &engine).await.unwrap();
    assert_eq!(rows(&engine, "SELECT id FROM ods.t").await, [["1"], ["2"], ["3"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrower_type_does_not_round_what_a_cursor_has_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(18,4), at INT NOT NULL); INSERT INTO t VALUES (1, 1.2345, 1);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = |mode: &str, policy: &str| {
        let cursor = if mode == "cursor" { ", cursor: at" } else { "" };
        config(&format!(
            "{{from: shop, tables: [shop.t], to: ods.by_{mode}, mode: {mode}{cursor}, schema: {{types: {policy}}}}}"
        ))
    };
    for mode in ["cursor", "key_diff"] {
        collected(&flow(mode, "evolve"), &shop.source, &engine).await.unwrap();
    }
    let sql = "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, n DECIMAL(18,2), at INT NOT NULL); \
               INSERT INTO t VALUES (1, 1.23, 1), (2, 2, 2);";
    shop.connection.execute_batch(sql).unwrap();
    let error = collected(&flow("cursor", "evolve"), &shop.source, &engine).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`shop.t`: the column `n` was decimal(18,4) and is decimal(18,2), which would round the values that the dataset has"
    );
    assert!(error.hint().unwrap().contains("discard_row"));
    assert_eq!(one(&engine, "SELECT n FROM ods.by_cursor").await, "1.2345");
    collected(&flow("cursor", "discard_row"), &shop.source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT id, n FROM ods.by_cursor").await;
    assert_eq!(found[1], ["2", "2.0000"], "{found:?}");
    // Every value comes again.
    collected(&flow("key_diff", "evolve"), &shop.source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT id, n FROM ods.by_key_diff").await;
    assert_eq!(found, [["1", "1.23"], ["2", "2.00"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_with_a_point_in_its_name_is_one_name() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (\"a.b\" INTEGER PRIMARY KEY, n DECIMAL(4,2), \"c.d\" INT NOT NULL); \
               INSERT INTO t VALUES (1, 1000, 1), (2, 2, 2);";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config("{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: c.d}");
    collected(&flow, &shop.source, &engine).await.unwrap();
    shop.connection
        .execute_batch(
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = REPLACE(sql, 'DECIMAL(4,2)', 'DECIMAL(8,2)'); \
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
    collected(&flow, &shop.source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT `a.b`, n FROM ods.t").await;
    assert_eq!(found, [["1", "1000.00"], ["2", "2.00"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_left_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(folder.path(), TABLE);
    let engine = warehouse(folder.path()).await;
    let flow = |more: &str| {
        config(&format!(
            "{{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at, exclude_columns: [id]{more}}}"
        ))
    };
    let error = collected(&flow(""), &shop.source, &engine).await.unwrap_err();
    assert_eq!(error.to_string(), "the column `id` is in the key of `shop.t`, and is left out");
    collected(&flow(", key: [n]"), &shop.source, &engine).await.unwrap();
    assert_eq!(rows(&engine, "SELECT n, at FROM ods.t").await, [["10", "1"], ["20", "2"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_is_not_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let engine = warehouse(folder.path()).await;
    let at = |fsp: u8, sql_type: &str| column("at", ColumnType::DateTime { fsp }, sql_type);
    let mut source = Given {
        columns: vec![column("id", ColumnType::BigInt { unsigned: false }, "bigint"), at(0, "datetime")],
        key: vec!["id".into()],
        in_order: true,
        parts: vec![vec![vec![Value::Int(1), Value::Text("2024-01-01 00:00:00".into())]]],
    };
    let flow = |policy: &str| {
        config(&format!(
            "{{from: shop, tables: [t], to: ods.t, mode: cursor, cursor: at, schema: {{types: {policy}}}}}"
        ))
    };
    collected_from(&flow("discard_row"), &mut source, &engine).await.unwrap();
    source.columns[1] = at(3, "datetime(3)");
    let error = collected_from(&flow("discard_row"), &mut source, &engine).await.unwrap_err();
    assert_eq!(error.to_string(), "the cursor `at` would be rounded: the dataset keeps it as datetime");
    collected_from(&flow("evolve"), &mut source, &engine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_row_of_a_key_stays_where_rows_come_in_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = warehouse(folder.path()).await;
    let whole = ColumnType::BigInt { unsigned: false };
    let row = |id: i64, v: &str, at: i64| vec![Value::Int(id), Value::Text(v.into()), Value::Int(at)];
    let mut source = Given {
        columns: vec![
            column("id", whole.clone(), "bigint"),
            column("v", ColumnType::Text { chars_max: 20 }, "varchar(20)"),
            column("at", whole, "bigint"),
        ],
        key: vec!["id".into()],
        in_order: false,
        parts: vec![vec![row(1, "new", 5), row(2, "other", 1)], vec![row(1, "old", 3)]],
    };
    let flow = config("{from: shop, tables: [t], to: ods.t, mode: cursor, cursor: at, batch_rows: 1}");
    collected_from(&flow, &mut source, &engine).await.unwrap();
    let found = rows(&engine, "SELECT id, v FROM ods.t").await;
    assert_eq!(found, [["1", "new"], ["2", "other"]]);
    source.parts =
        vec![vec![row(2, "newer", 9), row(2, "older", 7), row(1, "same", 5)], vec![row(1, "last", 9)]];
    let report = collected_from(&flow, &mut source, &engine).await.unwrap();
    assert_eq!(report.tables[0].bookmark.as_deref(), Some("9"));
    let found = rows(&engine, "SELECT id, v FROM ods.t").await;
    assert_eq!(found, [["1", "last"], ["2", "newer"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tables_are_one_run_and_what_is_wrong_with_one_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE a (id INTEGER PRIMARY KEY); INSERT INTO a VALUES (1); CREATE TABLE b (v TEXT); \
               CREATE TABLE c (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO c VALUES (1, 'x');";
    let shop = shop(folder.path(), sql);
    let engine = warehouse(folder.path()).await;
    let flow = config("{from: shop, to: \"ods.shop_*\", mode: key_diff, zero_rows: ok}");
    let error = collected(&flow, &shop.source, &engine).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("1 of 3 tables failed") && told.contains("`shop.b` has none"), "{told}");
    assert_eq!(rows(&engine, "SELECT id, v FROM ods.shop_c").await, [["1", "x"]]);
    let flow = config(
        "{from: shop, to: \"ods.shop_*\", mode: key_diff, tables: [\"shop.?\"], schema: {tables: freeze}}",
    );
    shop.connection.execute_batch("DROP TABLE b; CREATE TABLE d (id INTEGER PRIMARY KEY)").unwrap();
    let error = collected(&flow, &shop.source, &engine).await.unwrap_err();
    assert!(error.to_string().contains("the table `shop.d` is new"), "{error}");
    // A table that someone else made is not touched.
    engine.execute("CREATE TABLE mart.c (id int)").await.unwrap();
    let flow = config("{from: shop, to: mart.c, mode: full, tables: [shop.c]}");
    let error = collected(&flow, &shop.source, &engine).await.unwrap_err();
    assert!(error.to_string().contains("this flow did not make it"), "{error}");
    let empty = config("{from: shop, to: ods.d, mode: full, tables: [shop.d], zero_rows: fail}");
    assert!(
        collected(&empty, &shop.source, &engine).await.unwrap_err().to_string().contains("no row was read")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_when_it_is_stopped_late_or_outside_of_its_window() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(
        folder.path(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT i FROM n;",
    );
    let engine = warehouse(folder.path()).await;
    let text = |more: &str| format!("{{from: shop, to: ods.t, mode: full, tables: [shop.t], {more}}}");
    let error = collected(&config(&text("timeout: 200ms, rows_per_second: 100")), &shop.source, &engine)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("longer than its `timeout`"), "{error}");
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let hour = |later: i8| format!("{:02}:00", (now.hour() + later).rem_euclid(24));
    let closed = format!("window: \"{}-{}\"", hour(3), hour(6));
    let error = collected(&config(&text(&closed)), &shop.source, &engine).await.unwrap_err();
    assert!(error.to_string().contains("its `window` is over"), "{error}");
    let open = format!("window: \"{}-{}\"", hour(-1), hour(2));
    collected(&config(&text(&open)), &shop.source, &engine).await.unwrap();
    let mut reader = collect::open_reader(&shop.source).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (flow, progress) = (config(&text("rows_per_second: 10")), collect::Progress::default());
    let run = collect::run("flow", &flow, reader.as_mut(), &engine, 1, &progress, stopped);
    let stops = async {
        while progress.counts().read == 0 {
            tokio::task::yield_now().await;
        }
        stop.send(true).unwrap();
    };
    let (ended, ()) = tokio::join!(run, stops);
    assert!(ended.unwrap_err().to_string().contains("the run was stopped"));
}
