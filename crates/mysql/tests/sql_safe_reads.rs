//! What the scanner calls a safe read, run on a real MySQL: nothing of it may want to write, lock, or leave anything in the
//! session.

use mysql::sql::{Kind, Modes, scan};
use testkit::mysql_async::Error;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

/// `ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION`.
const REFUSED_AS_WRITE: u16 = 1792;

const TABLES: &[&str] =
    &["t", "u", "v", "w", "t1", "t2", "t3", "t4", "db.t", "`order`", "status", "user", "T"];

/// The statements of the corpus, without the lines that tell of servers.
fn corpus() -> impl Iterator<Item = String> {
    include_str!("sql/corpus.sql").split("\n\n").map(|paragraph| {
        let lines = paragraph.trim_matches('\n').split('\n').filter(|line| !line.starts_with("--: "));
        lines.collect::<Vec<_>>().join("\n")
    })
}

#[tokio::test]
async fn a_read_only_transaction_runs_every_safe_read_and_holds_nothing_after() {
    let options =
        MySqlOptions { args: vec!["--performance-schema=ON".to_owned()], ..MySqlOptions::default() };
    let server = MySql::start(options).await.unwrap();
    server.exec("create database shop; create database db").await.unwrap();
    let mut conn = server.conn().await.unwrap();
    conn.query_drop("use shop").await.unwrap();
    for table in TABLES {
        let columns = "(id int primary key, a int, b int, c int, d int, e int, f int, y int, n int, key a (a), \
                       name varchar(9), value int, type int, data int, fulltext (name))";
        conn.query_drop(format!("create table if not exists {table} {columns}")).await.unwrap();
        conn.query_drop(format!("insert ignore into {table} (id, a) values (1, 1)")).await.unwrap();
    }
    conn.query_drop("start transaction read only").await.unwrap();
    let (mut safe, mut run) = (0, 0);
    for sql in corpus() {
        if !scan(sql.as_bytes(), Modes::default()).is_safe_read() {
            continue;
        }
        safe += 1;
        match conn.query_drop(&sql).await {
            Ok(()) => run += 1,
            // Many name tables and columns that are not there.
            Err(Error::Server(error)) => assert_ne!(error.code, REFUSED_AS_WRITE, "{sql}"),
            Err(other) => panic!("{sql}: {other}"),
        }
    }
    println!("{run} of {safe} safe reads ran");
    assert!(run > 150, "{run} of {safe}");
    for (held, sql) in [
        ("row locks", "select count(*) from performance_schema.data_locks where lock_type = 'RECORD'"),
        (
            "user locks",
            "select count(*) from performance_schema.metadata_locks where object_type = 'USER LEVEL LOCK'",
        ),
        ("user variables", "select count(*) from performance_schema.user_variables_by_thread"),
        ("temporary tables", "select count(*) from information_schema.innodb_temp_table_info"),
    ] {
        assert_eq!(conn.query_first::<u64, _>(sql).await.unwrap(), Some(0), "{held}");
    }
}

#[tokio::test]
async fn what_a_read_only_transaction_refuses_is_never_called_a_read() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    server.exec("create database shop; create table shop.t (a int, b int, c int)").await.unwrap();
    let mut refused = 0;
    for sql in corpus() {
        let scan = scan(sql.as_bytes(), Modes::default());
        // The others end the transaction or the server, or take the memory from under it.
        let is_tried = matches!(
            scan.kind,
            Kind::Select
                | Kind::Insert
                | Kind::Update
                | Kind::Delete
                | Kind::Replace
                | Kind::Load
                | Kind::Do
                | Kind::Call
                | Kind::Ddl
                | Kind::Explain
                | Kind::Show
                | Kind::Describe
                | Kind::Unknown
        );
        if !is_tried {
            continue;
        }
        let mut conn = server.conn().await.unwrap();
        conn.query_drop("use shop").await.unwrap();
        conn.query_drop("start transaction read only").await.unwrap();
        if let Err(Error::Server(error)) = conn.query_drop(&sql).await
            && error.code == REFUSED_AS_WRITE
        {
            refused += 1;
            assert!(!scan.is_safe_read(), "{sql}");
        }
    }
    assert!(refused > 30, "{refused}");
}
