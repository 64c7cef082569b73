//! Statements that nobody waits for any more: they end, leave nothing behind, and hold nobody up.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::Value;
use engine::{Engine, MySql, Options, Sqlite, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine, and shorter than what is dropped.
const PATIENCE: Duration = Duration::from_secs(60);
/// Hours of work.
const ENDLESS: &str = "insert into t with recursive q (n) as (select 1 union all select n + 1 from q where n < 1000000000000) \
                       select n from q";

async fn one(engine: &dyn Engine, sql: &str) -> Value {
    let rows = engine.query(sql).await.unwrap().all(1).await.unwrap();
    rows[0][0].clone()
}

/// Waits until somebody else writes to the file.
async fn written(path: &Path) {
    let other = rusqlite::Connection::open(path).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let until = Instant::now() + PATIENCE;
    while other.execute_batch("begin immediate; rollback").is_ok() {
        assert!(Instant::now() < until, "nobody writes");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_free_again_and_holds_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    let engine = Arc::new(Sqlite::open(&path, Options::default()).await.unwrap());
    engine.execute("create table t (v bigint)").await.unwrap();
    for round in 0..3 {
        let engine_of_task = engine.clone();
        let running = tokio::spawn(async move {
            let first = "insert into t values (-1)".to_owned();
            match round {
                0 => engine_of_task.execute(ENDLESS).await,
                1 => engine_of_task.execute_all(&[first, ENDLESS.to_owned()]).await,
                _ => engine_of_task.write(vec![Write::Sql(first), Write::Sql(ENDLESS.to_owned())]).await,
            }
        });
        written(&path).await;
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        let next = tokio::time::timeout(PATIENCE, engine.execute("insert into t values (1)")).await;
        next.expect("the writer is held").unwrap();
        assert_eq!(one(&*engine, "select count(*) as n from t where v = 1").await, Value::Int(round + 1));
        assert_eq!(one(&*engine, "select count(*) as n from t").await, Value::Int(round + 1));
    }
}

/// Waits until so many sessions of the server sleep in a statement.
async fn sleeping(admin: &dyn Engine, wanted: i64) {
    let sql =
        "select count(*) as n from information_schema.processlist where info like 'select sleep(1000)%'";
    let until = Instant::now() + PATIENCE;
    while one(admin, sql).await != Value::Int(wanted) {
        assert!(Instant::now() < until, "not {wanted} statements");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_ends_it_whatever_the_pool_holds() {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("create database dropped").await.unwrap();
    let url = format!("{}/dropped", server.url());
    let admin = MySql::open(&url, Options::default()).await.unwrap();
    admin.execute("create table t (v bigint primary key)").await.unwrap();
    let engine = Arc::new(MySql::open(&url, Options::default()).await.unwrap());

    // It holds the lock of a row.
    let statements = ["insert into t values (1)".to_owned(), "select sleep(1000)".to_owned()];
    let other = engine.clone();
    let running = tokio::spawn(async move { other.execute_all(&statements).await });
    sleeping(&admin, 1).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let next = tokio::time::timeout(PATIENCE, engine.execute("insert into t values (1)")).await;
    next.expect("the row is locked").unwrap();
    assert_eq!(one(&admin, "select count(*) as n from t").await, Value::Int(1));

    // As many as there are connections.
    let all: Vec<_> = (0..8)
        .map(|_| {
            let other = engine.clone();
            tokio::spawn(async move { other.query("select sleep(1000) as a").await.map(drop) })
        })
        .collect();
    sleeping(&admin, 8).await;
    for running in all {
        running.abort();
        let _ = running.await;
    }
    let next = tokio::time::timeout(PATIENCE, one(&*engine, "select 7 as a")).await;
    assert_eq!(next.expect("the pool is empty"), Value::Int(7));
    sleeping(&admin, 0).await;

    // Out of time, with every connection taken: they come back.
    let options = Options { timeout: Duration::from_secs(3), ..Options::default() };
    let hasty = Arc::new(MySql::open(&url, options).await.unwrap());
    let all: Vec<_> = (0..8)
        .map(|_| {
            let other = hasty.clone();
            tokio::spawn(async move { other.query("select sleep(1000) as a").await.map(drop) })
        })
        .collect();
    for running in all {
        running.await.unwrap().unwrap_err();
    }
    sleeping(&admin, 0).await;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = hasty.execute("replace into t values (2)").await {
        assert!(Instant::now() < until, "{error}");
    }
}
