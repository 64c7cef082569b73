//! Every mode from a real MySQL into SQLite, MySQL and TiDB: values of every type, what changes between runs, and what is put aside.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod support;

use collect::CollectError;
use engine::{Engine, MySql, Options};
use support::{collected, config, mysql, one, rows, warehouse};

const TYPES: &str = "CREATE TABLE shop.t (id INT UNSIGNED PRIMARY KEY, tiny TINYINT, big BIGINT UNSIGNED, price DECIMAL(12,4), \
    wide DECIMAL(40,10), f FLOAT, d DOUBLE, y YEAR, day DATE, at DATETIME(3), ts TIMESTAMP(6) NULL, len TIME(2), \
    name VARCHAR(40), note TEXT, old VARCHAR(20) CHARACTER SET gbk, raw VARBINARY(8), fixed BINARY(4), j JSON, \
    e ENUM('new','paid'), s SET('a','b'), b BIT(5), big_text LONGTEXT)";
const VALUES: &str = "INSERT INTO shop.t VALUES \
    (1, -5, 18446744073709551615, '12.5', '123456789012345678901234567890.5', 0.1, 1e300, 2024, '2024-02-29', \
     '2024-01-02 03:04:05.678', '2024-01-02 03:04:05.678901', '-12:34:56.78', '中文 é', 'it''s \\\\ \"x\"', '订单', x'00ff', x'01', \
     '{\"a\": [1, 2.50]}', 'paid', 'a,b', 9, ''), \
    (2, NULL, 0, '-0.0001', NULL, 16777217, -0.0, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL)";

async fn all_types(engine: &dyn Engine) {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    for sql in ["CREATE DATABASE shop", TYPES, VALUES] {
        server.exec(sql).await.unwrap();
    }
    let source = mysql(&server.url(), "shop.*");
    let flow = config("{from: shop, tables: [shop.t], mode: full, to: ods.t}");
    let report = collected(&flow, &source, engine).await.unwrap();
    let table = &report.tables[0];
    assert_eq!((table.read, table.written, table.rejected), (2, 2, 0), "{report:?}");
    assert!(table.reconciled.as_ref().unwrap().matched);
    assert_eq!(report.warnings, Vec::<String>::new());
    let found = one(engine, "SELECT big, price, wide, y, day, at, ts, len, name, note, old, raw, fixed, j, e, s, b FROM ods.t WHERE id = 1").await;
    assert_eq!(
        found,
        "18446744073709551615|12.5000|123456789012345678901234567890.5000000000|2024|2024-02-29|\
         2024-01-02 03:04:05.678|2024-01-02 03:04:05.678901|-12:34:56.78|中文 é|it's \\ \"x\"|订单|0x00FF|0x01000000|\
         {\"a\": [1, 2.5]}|paid|a,b|9"
    );
    assert_eq!(
        one(engine, "SELECT f = 16777216 AS a, d = 0 AS b, tiny, e FROM ods.t WHERE id = 2").await,
        "1|1|NULL|NULL"
    );
    // Again, changed: the new rows stand where the old ones were.
    server.exec("DELETE FROM shop.t WHERE id = 2").await.unwrap();
    server.exec("UPDATE shop.t SET name = 'b' WHERE id = 1").await.unwrap();
    collected(&flow, &source, engine).await.unwrap();
    assert_eq!(rows(engine, "SELECT id, name FROM ods.t").await, [["1", "b"]]);
    let tables: Vec<String> =
        engine.tables().await.unwrap().into_iter().filter(|it| !it.starts_with("test.")).collect();
    assert_eq!(tables, ["ods.t"]);

    // The same by key: one row is new, one changed, one gone.
    server
        .exec("CREATE TABLE shop.k (a VARCHAR(20), n INT, v FLOAT, t TEXT, PRIMARY KEY (a, n))")
        .await
        .unwrap();
    server
        .exec("INSERT INTO shop.k VALUES ('x', 1, 0.1, 'A'), ('x', 2, 2, 'B'), ('y', 1, 3, NULL)")
        .await
        .unwrap();
    let flow = config("{from: shop, tables: [shop.k], mode: key_diff, to: ods.k}");
    let first = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((first.tables[0].inserted, first.tables[0].deleted), (3, 0));
    let again = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((again.tables[0].written, again.tables[0].deleted), (0, 0), "{again:?}");
    server.exec("DELETE FROM shop.k WHERE a = 'y'").await.unwrap();
    server.exec("UPDATE shop.k SET t = 'a' WHERE n = 1").await.unwrap();
    server.exec("INSERT INTO shop.k VALUES ('z', 9, NULL, 'Z')").await.unwrap();
    let third = collected(&flow, &source, engine).await.unwrap();
    let done = &third.tables[0];
    assert_eq!((done.inserted, done.updated, done.deleted), (1, 1, 1), "{third:?}");
    let expected = [["x", "1", "a"], ["x", "2", "B"], ["z", "9", "Z"]];
    assert_eq!(rows(engine, "SELECT a, n, t FROM ods.k").await, expected);

    // From a cursor on, with equal values on both sides of the bookmark; without a key nothing comes twice.
    server.exec("CREATE TABLE shop.log (at DATETIME NOT NULL, what VARCHAR(20))").await.unwrap();
    server.exec("INSERT INTO shop.log VALUES ('2024-01-01 00:00:00', 'a'), ('2024-01-02 00:00:00', 'b'), ('2024-01-02 00:00:00', 'b')").await.unwrap();
    let flow = config("{from: shop, tables: [shop.log], mode: cursor, cursor: at, to: ods.log}");
    let report = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].written), (3, 3));
    server.exec("INSERT INTO shop.log VALUES ('2024-01-02 00:00:00', 'b'), ('2024-01-02 00:00:00', 'c'), ('2024-01-03 00:00:00', 'd')").await.unwrap();
    let report = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].written), (5, 3), "{report:?}");
    assert!(report.tables[0].reconciled.as_ref().unwrap().matched);
    let report = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].written), (1, 0));
    // The row at the bookmark was read.
    assert_eq!(report.warnings, Vec::<String>::new());
    let counts = rows(engine, "SELECT what, COUNT(*) AS n FROM ods.log GROUP BY what").await;
    assert_eq!(counts, [["a", "1"], ["b", "3"], ["c", "1"], ["d", "1"]]);

    // With a key a changed row replaces what was there.
    server.exec("CREATE TABLE shop.c (id INT PRIMARY KEY, v INT, at TIMESTAMP(3) NOT NULL)").await.unwrap();
    server
        .exec("INSERT INTO shop.c VALUES (1, 1, '2024-01-01 00:00:00.5'), (2, 2, '2024-01-01 00:00:00.5')")
        .await
        .unwrap();
    let flow = config("{from: shop, tables: [shop.c], mode: cursor, cursor: at, to: ods.c}");
    collected(&flow, &source, engine).await.unwrap();
    server.exec("UPDATE shop.c SET v = 3, at = '2024-01-01 00:00:00.501' WHERE id = 1").await.unwrap();
    let report = collected(&flow, &source, engine).await.unwrap();
    assert_eq!((report.tables[0].read, report.tables[0].written), (2, 1), "{report:?}");
    assert_eq!(rows(engine, "SELECT id, v FROM ods.c").await, [["1", "3"], ["2", "2"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_whole_into_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    all_types(&warehouse(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_whole_into_mysql() {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("CREATE DATABASE dw").await.unwrap();
    all_types(&MySql::open(&format!("{}/dw", server.url()), Options::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_comes_whole_into_tidb() {
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("CREATE DATABASE dw").await.unwrap();
    all_types(&MySql::open(&format!("{}/dw", server.url()), Options::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_and_tidb_are_sources_too() {
    let folder = tempfile::tempdir().unwrap();
    let engine = warehouse(folder.path()).await;
    let maria = testkit::MariaDb::start(testkit::MariaDbOptions::default()).await.unwrap();
    let tidb = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    for (server, name) in [(&*maria as &testkit::SqlServer, "maria"), (&*tidb, "tidb")] {
        server.exec("CREATE DATABASE shop").await.unwrap();
        server.exec("CREATE TABLE shop.t (id BIGINT PRIMARY KEY, j JSON, at DATETIME(2), p DECIMAL(20,5), e ENUM('x','y'))").await.unwrap();
        server.exec("INSERT INTO shop.t VALUES (1, '{\"a\":1}', '2024-01-01 01:02:03.45', 5, 'y'), (2, NULL, NULL, NULL, NULL)").await.unwrap();
        let flow = config(&format!("{{from: shop, tables: [\"shop.*\"], mode: full, to: \"{name}.*\"}}"));
        let report = collected(&flow, &mysql(&server.url(), "shop.*"), &engine).await.unwrap();
        assert_eq!(report.tables[0].written, 2);
        let found = rows(&engine, &format!("SELECT id, at, p, e FROM {name}.t")).await;
        assert_eq!(found, [["1", "2024-01-01 01:02:03.45", "5.00000", "y"], ["2", "NULL", "NULL", "NULL"]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_dies_in_the_midst_leaves_the_old_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let engine = warehouse(folder.path()).await;
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(2000))",
        "INSERT INTO shop.t (v) VALUES (REPEAT('x', 2000)), (REPEAT('y', 2000))",
    ] {
        server.exec(sql).await.unwrap();
    }
    for _ in 0..14 {
        server.exec("INSERT INTO shop.t (v) SELECT v FROM shop.t").await.unwrap();
    }
    let source = mysql(&server.url(), "shop.*");
    let first = config("{from: shop, tables: [shop.t], mode: full, to: ods.t}");
    collected(&first, &source, &engine).await.unwrap();
    let old = one(&engine, "SELECT COUNT(*) AS n, SUM(id) AS s FROM ods.t").await;
    // Slow enough that it is in its midst when the server goes.
    let slow = config(
        "{from: shop, tables: [shop.t], mode: full, to: ods.t, rows_per_second: 5000, zero_rows: fail}",
    );
    let mut reader = collect::open_reader(&source).await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let progress = collect::Progress::default();
    let killed = async {
        while progress.counts().read == 0 {
            tokio::task::yield_now().await;
        }
        server.kill9();
    };
    let run = collect::run("flow", &slow, reader.as_mut(), &engine, 8, &progress, stopped);
    let (ended, ()) = tokio::join!(run, killed);
    let error = ended.unwrap_err();
    assert!(matches!(error, CollectError::Read(collect::reader::ReadError::Unavailable(_))), "{error:?}");
    assert_eq!(one(&engine, "SELECT COUNT(*) AS n, SUM(id) AS s FROM ods.t").await, old);
    server.restart().await.unwrap();
    server.exec("DELETE FROM shop.t WHERE id > 100").await.unwrap();
    collected(&first, &source, &engine).await.unwrap();
    let left: Vec<u64> = server.query("SELECT COUNT(*) FROM shop.t").await.unwrap();
    assert_eq!(one(&engine, "SELECT COUNT(*) AS n FROM ods.t").await, left[0].to_string());
}
