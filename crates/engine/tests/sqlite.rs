//! The engine on a file: what a statement that goes wrong leaves behind, and its bounds.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::Value;
use engine::{BYTES_OF_BATCH_MAX, Engine, EngineError, Options, Sqlite};
use std::path::Path;
use std::time::Duration;

async fn opened(path: &Path, timeout: Duration) -> Sqlite {
    Sqlite::open(path, Options { read_only: false, timeout }).await.unwrap()
}

async fn count(engine: &Sqlite) -> Value {
    let rows = engine.query("select count(*) as n from t").await.unwrap().all(1).await.unwrap();
    rows[0][0].clone()
}

#[tokio::test]
async fn what_is_out_of_time_is_stopped_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.db");
    let other = opened(&path, Duration::from_secs(60)).await;
    other.execute("create table t (v int)").await.unwrap();
    let engine = opened(&path, Duration::from_millis(100)).await;
    let endless = "insert into t with recursive q (n) as (select 1 union all select n + 1 from q where n < 1000000000) \
                   select n % 7 from q";
    let statements = ["insert into t values (1)".to_owned(), endless.to_owned()];
    let error = engine.execute_all(&statements).await.unwrap_err();
    assert!(matches!(error, EngineError::Stopped(_)), "{error}");
    assert_eq!(count(&other).await, Value::Int(0));
    // Nothing is locked, neither for others nor for the one that was stopped.
    other.execute("insert into t values (2)").await.unwrap();
    engine.execute("insert into t values (3)").await.unwrap();
    assert_eq!(count(&other).await, Value::Int(2));
}

#[tokio::test]
async fn a_time_that_no_clock_holds_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(u64::MAX)).await;
    engine.execute("create table t (v int)").await.unwrap();
    assert_eq!(count(&engine).await, Value::Int(0));
}

#[tokio::test]
async fn names_that_look_like_the_engines_own_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(60)).await;
    engine.execute("create table t (v int)").await.unwrap();
    for sql in
        ["create table u (`~0` int)", "create table u (`\u{2}0:0` int)", "create table `\u{4}new` (v int)"]
    {
        let error = engine.execute(sql).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{sql}: {error}");
    }
    for sql in ["select v + 1 as `~0` from t", "select `\u{2}0:0` from t", "select `\u{2}9:9` from t"] {
        let error = engine.check(sql).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{sql}: {error}");
    }
}

#[tokio::test]
async fn long_expressions_are_answered_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(60)).await;
    engine.execute("create table t (v int)").await.unwrap();
    for count in [20, 100, 400, 1_000, 10_000, 100_000] {
        for (one, sign) in [
            ("1", " + "),
            ("v = 1", " or "),
            ("1", " union select "),
            ("1", ", "),
            ("v", " ^ "),
            ("v", " in (1) or "),
        ] {
            let all = vec![one; count].join(sign);
            let sql = if sign == ", " {
                format!("select v from t where v in ({all})")
            } else {
                format!("select {all} as a from t")
            };
            let answer = match engine.query(&sql).await {
                Ok(rows) => rows.all(10).await,
                Err(error) => Err(error),
            };
            let refused = matches!(answer, Err(EngineError::Refused { .. }));
            assert!(answer.is_ok() || refused && count > 20, "{count} {sign}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn wide_rows_are_handed_over_by_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(60)).await;
    let counted = "with recursive q (n) as (select 1 union all select n + 1 from q where n < 300) ";
    let wide = format!("{counted} select repeat('x', 100000) as a from q");
    let (mut rows, mut seen) = (engine.query(&wide).await.unwrap(), 0);
    while let Some(batch) = rows.next().await.unwrap() {
        assert!((batch.len() - 1) * 100_000 < BYTES_OF_BATCH_MAX, "{} rows", batch.len());
        seen += batch.len();
    }
    assert_eq!(seen, 300);
    let sql = "select repeat('x', 40000000) as a, repeat('y', 40000000) as b";
    let error = engine.query(sql).await.unwrap().all(1).await.unwrap_err();
    assert!(error.to_string().contains("more than 64 MiB"), "{error}");
}

#[tokio::test]
async fn a_view_names_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(60)).await;
    engine.execute("create table t (v int)").await.unwrap();
    for sql in ["create view w as select * from t", "create view w as select 1 as a union select t.* from t"]
    {
        let error = engine.execute(sql).await.unwrap_err();
        assert!(error.to_string().contains("`*` in a view"), "{sql}: {error}");
    }
    // What is behind AS is kept, wherever it begins.
    engine.execute("create view w as\n  -- 日报\n  (select v + 1 as u from t)").await.unwrap();
    engine.execute("insert into t values (1)").await.unwrap();
    let rows = engine.query("select u from w").await.unwrap().all(10).await.unwrap();
    assert_eq!(rows, [[Value::Int(2)]]);
    assert_eq!(engine.tables().await.unwrap(), ["t", "w"]);
    assert_eq!(engine.columns("w").await.unwrap()[0].name, "u");
}

#[tokio::test]
async fn tables_of_the_platform_are_made_by_it_alone_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let engine = opened(&folder.path().join("w.db"), Duration::from_secs(60)).await;
    let own = "create table if not exists tidemill_models (name varchar(64) primary key)";
    engine.execute(own).await.unwrap_err();
    engine.execute("create table pattern (name varchar(64) primary key)").await.unwrap();
    let columns = engine.columns("pattern").await.unwrap();
    engine.execute("drop table pattern").await.unwrap();
    for _ in 0..2 {
        engine.prepare_own("tidemill_models", &columns, &["name".into()]).await.unwrap();
    }
    engine.execute("create table `ods.t__tidemill_new` (v int)").await.unwrap();
    assert!(engine.tables().await.unwrap().is_empty());
    engine.execute("insert into tidemill_models values ('a')").await.unwrap();
}

#[test]
fn the_tables_of_a_query_are_not_the_names_of_its_with() {
    let sql = "with d as (select * from ods.a), e as (select * from d) \
               select (select max(x) from ods.b) from e join `ods`.`c` on e.x = c.x where exists (select 1 from ods.A)";
    assert_eq!(engine::relations(sql).unwrap(), ["ods.a", "ods.b", "ods.c"]);
    engine::relations("delete from ods.a").unwrap_err();
}
