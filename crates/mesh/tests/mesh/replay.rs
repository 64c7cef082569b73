//! Replay: what was captured before one server, asked again of another.

use crate::capture::ended;
use crate::support::Front;
use anyhow::Result;
use base::Secret;
use mesh::BackendTls;
use mesh::replay::{Options, Report, Speed, Target, run};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use testkit::mysql_async::prelude::*;
use testkit::mysql_async::{Conn, Opts};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const TABLES: &str = "create database shop; create table shop.goods (id int primary key, name text); \
                      insert into shop.goods values (1, 'tea'), (2, 'salt'), (3, 'rice')";

async fn replay(from: &Path, to: &SqlServer, read_only: bool, sessions_max: usize) -> Result<Report> {
    let target =
        Target::new(&format!("127.0.0.1:{}", to.port()), "root", Secret::default(), BackendTls::Off)?;
    let options = Options { speed: Speed::Max, sessions_max, read_only, literals: false };
    Ok(run(from, target, options, Arc::default()).await?)
}

/// Two sessions with text and prepared statements, transactions, an error and a change of the database.
async fn talk(front: &Front) -> Result<()> {
    let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
    let (mut one, mut other) = (Conn::new(opts).await?, front.root().await?);
    one.query_drop("insert into goods values (4, 'oil')").await?;
    one.query_drop("begin").await?;
    one.query_drop("update goods set name = 'tea!' where id = 1").await?;
    one.query_drop("rollback").await?;
    let select = one.prep("select name from goods where id >= ? and name <> ? order by id").await?;
    for (id, name) in [(1, "salt"), (3, "")] {
        let _: Vec<String> = one.exec(&select, (id, name)).await?;
    }
    one.close(select).await?;
    assert!(one.query_drop("select * from missing").await.is_err());
    other.query_drop("use shop").await?;
    let _: Vec<(i32, String)> = other.query("select * from goods where id < 4").await?;
    other.query_drop("select * from goods where name = 'password'").await?;
    let id = other.id();
    assert!(one.query_drop(format!("kill query {}", id + 1000)).await.is_err());
    one.disconnect().await?;
    other.disconnect().await?;
    ended(front).await?;
    front.mesh.stop_capture();
    Ok(())
}

async fn capture(mysql: &SqlServer, dir: &Path) -> Result<()> {
    let capture = json!({"enabled": true, "dir": dir, "answers": true});
    let front = Front::start_all(&[mysql.port()], json!({}), json!({}), json!({"capture": capture})).await?;
    talk(&front).await
}

#[tokio::test]
async fn the_same_data_answers_the_same_and_other_data_does_not() -> Result<()> {
    let (first, same, other) = tokio::try_join!(
        MySql::start(MySqlOptions::default()),
        MySql::start(MySqlOptions::default()),
        MariaDb::start(MariaDbOptions::default())
    )?;
    for server in [&*first, &*same, &*other] {
        server.exec(TABLES).await?;
    }
    let dir = tempfile::tempdir()?;
    capture(&first, dir.path()).await?;
    // Reads alone first, so that nothing is there that was not.
    let report = replay(dir.path(), &same, true, 10).await?;
    assert!(report.skipped.writes >= 3, "{report:#?}");
    assert_eq!(same.query_one::<u64>("select count(*) from shop.goods").await?, 3);
    let report = replay(dir.path(), &same, false, 10).await?;
    assert_eq!((report.sessions, report.differences, report.lost), (2, 0, 0), "{report:#?}");
    assert_eq!((report.skipped.administers, report.skipped.unprepared), (1, 0), "{report:#?}");
    assert_eq!(same.query_one::<String>("select name from shop.goods where id = 4").await?, "oil");
    assert_eq!(same.query_one::<String>("select name from shop.goods where id = 1").await?, "tea");
    let executed = report.statements.iter().find(|one| one.text.contains("`id` >= ?") && one.calls == 2);
    assert!(executed.is_some_and(|one| one.after.max_us > 0), "{:#?}", report.statements);
    // MariaDB answers the same but for what differs.
    other
        .exec("delete from shop.goods where id = 3; update shop.goods set name = 'tee' where id = 1")
        .await?;
    let report = replay(dir.path(), &other, false, 10).await?;
    let of = |part: &str| report.statements.iter().find(|one| one.text.contains(part)).expect(part);
    assert!(of("`id` < ?").rows == 1, "{report:#?}");
    assert_eq!((of("`missing`").errors, of("INSERT").differences()), (0, 0), "{report:#?}");
    // What was written is there already: the second time it is another error.
    let again = replay(dir.path(), &other, false, 10).await?;
    let insert = again.statements.iter().find(|one| one.text.contains("INSERT")).expect("the insert");
    let example = insert.example.as_ref().expect("an example");
    assert_eq!((insert.errors, example.before.error, example.after.error), (1, 0, 1062));
    assert!(example.text.is_none() && again.differences > 0);
    Ok(())
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_told_at_once() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec(TABLES).await?;
    let dir = tempfile::tempdir()?;
    capture(&mysql, dir.path()).await?;
    let address = format!("127.0.0.1:{}", mysql.port());
    let target = Target::new(&address, "nobody", Secret::new("wrong"), BackendTls::Off)?;
    let options = Options { speed: Speed::Max, sessions_max: 9, read_only: false, literals: false };
    let error = run(dir.path(), target.clone(), options.clone(), Arc::default()).await.unwrap_err();
    assert!(matches!(error, mesh::replay::ReplayError::Server(_)), "{error}");
    let error = run(Path::new("/nowhere"), target, options, Arc::default()).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere"));
    Ok(())
}

#[tokio::test]
async fn a_session_that_finds_no_connection_free_is_passed_over_and_said_to_be() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let dir = tempfile::tempdir()?;
    let capture = json!({"enabled": true, "dir": dir.path()});
    let front = Front::start_all(&[mysql.port()], json!({}), json!({}), json!({"capture": capture})).await?;
    let (mut one, mut other) = (front.root().await?, front.root().await?);
    one.query_drop("select 'one'").await?;
    other.query_drop("select 'other'").await?;
    // Neither ends within the capture.
    front.mesh.stop_capture();
    for (sessions_max, expected) in [(1, 1), (2, 2)] {
        let report = replay(dir.path(), &mysql, false, sessions_max).await?;
        assert_eq!(report.sessions, expected, "{report:#?}");
        assert_eq!(report.skipped.too_many_sessions > 0, expected == 1, "{report:#?}");
        assert_eq!((report.differences, report.lost), (0, 0), "{report:#?}");
    }
    Ok(())
}
