//! An engine that was opened to read changes nothing on a real MySQL and TiDB, whatever text it is given.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::Value;
use engine::{Engine, MySql, Options};
use std::time::Duration;

/// Texts that would write, lock or change a setting; as queries, as questions for columns and behind EXPLAIN.
const ATTEMPTS: [&str; 35] = [
    "delete from t",
    "insert into t values (3)",
    "drop table t",
    "select 1; delete from t",
    "select 1;;delete from t",
    "set session transaction read write; delete from t",
    "set session transaction read write",
    "set global max_connections = 77",
    "begin",
    "commit",
    "analyze delete from t",
    "analyze format = 'tree' delete from t",
    "explain analyze delete from t",
    "analyze table t",
    "with q as (select 1 as a) delete from t",
    "with q as (select 1 as a) update t set id = 9",
    "select id from t into outfile 'stolen.txt'",
    "select id into outfile 'stolen.txt' from t",
    "select id into dumpfile 'stolen.txt' from t limit 1",
    "select id from t limit 1 into @a",
    "select * from (select id from t for update) as q",
    "select id from t for update",
    "select id from t lock in share mode",
    "select 1 /*! into outfile 'stolen.txt' */",
    "select 1 /*T! into outfile 'stolen.txt' */",
    "/*!50000 delete from t */",
    "/* a */ delete from t # select 1",
    "call p()",
    "select sleep(1000)",
    "select `sleep` (1000) from t",
    "select benchmark(1000000000, sha2(id, 512)) from t",
    "select get_lock('a', 0)",
    "select load_file('/etc/hostname')",
    "select id from t order by nextval(s)",
    "select 1 --\u{a0}1 into outfile 'stolen.txt'",
];

async fn tried(url: &str) {
    let admin = MySql::open(url, Options::default()).await.unwrap();
    admin.execute("create table t (id int primary key)").await.unwrap();
    admin.execute("insert into t values (1), (2)").await.unwrap();
    let options = Options { read_only: true, timeout: Duration::from_secs(60) };
    let engine = MySql::open(url, options).await.unwrap();
    for sql in ATTEMPTS {
        let error = engine.query(sql).await.err().unwrap_or_else(|| panic!("query took {sql}"));
        assert!(!error.to_string().contains("unavailable"), "{sql}: {error}");
        engine.check(sql).await.expect_err(sql);
        engine.explain(sql).await.expect_err(sql);
        engine.execute(sql).await.expect_err(sql);
        engine.execute_all(&[sql.to_owned()]).await.expect_err(sql);
    }
    let sql = "select count(*) as n, min(id) as a, max(id) as b from t";
    let expected = vec![vec![Value::Int(2), Value::Int(1), Value::Int(2)]];
    assert_eq!(engine.query(sql).await.unwrap().all(10).await.unwrap(), expected);
    assert_eq!(admin.query(sql).await.unwrap().all(10).await.unwrap(), expected);
    let settings = "select @@global.max_connections <> 77 as a";
    assert_eq!(admin.query(settings).await.unwrap().all(1).await.unwrap(), vec![vec![Value::Int(1)]]);

    // What only looks like it is a text.
    let text = "select 'a; delete from t' as a, \"into outfile\" as b -- ; delete from t";
    assert_eq!(engine.query(text).await.unwrap().all(1).await.unwrap().len(), 1);
    assert_eq!(engine.check("select id from t").await.unwrap()[0].name, "id");
    assert!(engine.explain("select id from t where id = 1").await.unwrap().contains('t'));
    assert_eq!(engine.tables().await.unwrap(), ["t"]);
    assert_eq!(engine.columns("t").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_is_only_read() {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("create database ro").await.unwrap();
    tried(&format!("{}/ro", server.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidb_is_only_read() {
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("create database ro").await.unwrap();
    tried(&format!("{}/ro", server.url())).await;
}
