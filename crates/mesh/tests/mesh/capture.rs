//! Capture: every statement is in the files, and no secret is.

use crate::support::{Front, until};
use anyhow::Result;
use mesh::capture::{Kind, Reader, Shown};
use serde_json::json;
use std::path::Path;
use testkit::mysql_async::prelude::*;
use testkit::mysql_async::{Conn, Opts};
use testkit::{MySql, MySqlOptions};

pub fn read(dir: &Path) -> Result<Vec<Shown>> {
    let mut reader = Reader::open(dir)?;
    let mut all = Vec::new();
    while let Some(record) = reader.read() {
        all.push(record.shown());
    }
    assert!(reader.notes.is_empty(), "{:?}", reader.notes);
    Ok(all)
}

pub async fn ended(front: &Front) -> Result<()> {
    until("every session has ended", async || (front.mesh.status().sessions == 0).then_some(())).await
}

#[tokio::test]
async fn a_conversation_is_in_the_files_command_by_command() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create database other").await?;
    for group in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let dir = tempfile::tempdir()?;
        let capture = json!({"enabled": true, "dir": dir.path(), "answers": true, "statement_bytes": "200B"});
        let front = Front::start_all(&[mysql.port()], group, json!({}), json!({"capture": capture})).await?;
        let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
        let mut conn = Conn::new(opts).await?;
        conn.query_drop("create table if not exists t (id int primary key, name text)").await?;
        conn.query_drop("delete from t").await?;
        conn.query_drop("insert into t values (1, 'one'), (2, 'two')").await?;
        let _: Vec<(i32, String)> = conn.query("select id, name from t").await?;
        assert!(conn.query_drop("select nonsense from t").await.is_err());
        conn.query_drop("use other").await?;
        let statement = conn.prep("select name from shop.t where id = ?").await?;
        let _: Option<String> = conn.exec_first(&statement, (2,)).await?;
        conn.query_drop(format!("select '{}'", "x".repeat(500))).await?;
        // Longer than any buffer: it passes without being seen whole.
        conn.query_drop(format!("select '{}'", "x".repeat(40_000))).await?;
        conn.disconnect().await?;
        ended(&front).await?;
        assert!(front.mesh.stop_capture());
        let all = read(dir.path())?;
        let id = all[0].session;
        assert!(all.iter().all(|record| record.session == id && record.user == "root"));
        assert_eq!((all[0].kind, all[all.len() - 1].kind), (Kind::Begin, Kind::End));
        let find = |text: &str| all.iter().find(|record| record.text.contains(text)).expect(text);
        let insert = find("insert into t values (1, 'one')");
        assert_eq!((insert.rows, insert.error, insert.database.as_str()), (2, 0, "shop"));
        let select = find("select id, name");
        assert!(select.rows == 2 && select.bytes > 0 && select.hash.as_deref() != Some("0000000000000000"));
        assert_eq!(select.server, format!("127.0.0.1:{}", mysql.port()));
        assert_eq!(find("nonsense").error, 1054);
        let prepared = find("select name from shop.t");
        assert_eq!(prepared.kind, Kind::Prepare);
        let executed = all.iter().find(|record| record.kind == Kind::Execute).unwrap();
        assert_eq!((executed.statement, executed.rows), (prepared.statement, 1));
        assert!(!executed.parameters.is_empty() && !executed.left_out);
        let cut: Vec<_> = all.iter().filter(|record| record.cut).map(|record| record.text.len()).collect();
        assert_eq!(cut, [200, 0]);
    }
    Ok(())
}

#[tokio::test]
async fn no_secret_comes_into_the_files_and_a_filter_keeps_others_out() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user quiet identified by 'shh'; create database shop").await?;
    mysql.exec("create table shop.users (id int, password varchar(99))").await?;
    let dir = tempfile::tempdir()?;
    let capture = json!({"enabled": true, "dir": dir.path(), "users": ["root"]});
    let front = Front::start_all(&[mysql.port()], json!({}), json!({}), json!({"capture": capture})).await?;
    let mut conn = front.root().await?;
    for sql in [
        "create user a identified by 'geheim'",
        "alter user a identified by \"geheim\"",
        "alter user a identified by 'geheim",
        "set password for a = 'geheim'",
        "/* geheim password */ select 1",
        "select 1 # the secret is geheim",
        "change replication source to source_host='h', source_password='geheim'",
        "start replica user='u' password='geheim'",
        "prepare s from 'create user b identified by ''geheim'''",
        "set @q = 'alter user a identified by ''geheim'''",
        "insert into shop.users (id, password) values (1, 'geheim')",
        "select * from shop.users where `password` = 'geheim'",
        "select aes_encrypt('a', 'geheim')",
        "create server s foreign data wrapper mysql options (user 'u', password 'geheim')",
        "set sql_mode = 'ANSI_QUOTES'",
        "select * from shop.users where password = \"geheim\"",
        "update shop.users set password = x'67656865696d' where id = 1",
    ] {
        let _ = conn.query_drop(sql).await;
    }
    let statement = conn.prep("update shop.users set password = ? where id = ?").await?;
    conn.exec_drop(&statement, ("geheim", 1)).await?;
    let again = testkit::mysql_async::ChangeUserOpts::new().with_user(Some("root".into()));
    conn.change_user(again).await?;
    conn.query_drop("select 'kept'").await?;
    let mut other = front.login("quiet", "shh").await?;
    other.query_drop("select 'not wanted'").await?;
    drop(other);
    conn.disconnect().await?;
    ended(&front).await?;
    front.mesh.stop_capture();
    let all = read(dir.path())?;
    assert!(all.iter().any(|record| record.kind == Kind::ChangeUser));
    assert!(all.iter().any(|record| record.text == "select 'kept'"));
    assert!(all.iter().filter(|record| record.left_out).count() >= 15, "{all:#?}");
    for file in std::fs::read_dir(dir.path())? {
        let bytes = std::fs::read(file?.path())?;
        for secret in [&b"geheim"[..], b"67656865696d", b"shh", b"not wanted"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
    Ok(())
}

#[tokio::test]
async fn it_begins_and_ends_while_sessions_run() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let dir = tempfile::tempdir()?;
    let capture = json!({"dir": dir.path().join("of/its/own")});
    let front = Front::start_all(&[mysql.port()], json!({}), json!({}), json!({"capture": capture})).await?;
    let mut conn = front.root().await?;
    let old = conn.prep("select ? as before_it").await?;
    conn.query_drop("select 'before'").await?;
    assert!(!front.mesh.capture().running && !front.mesh.stop_capture());
    for (round, captured) in [("first", 3), ("second", 6)] {
        assert!(front.mesh.start_capture()?);
        conn.query_drop(format!("select '{round}'")).await?;
        // What it was prepared as is not known, so nobody knows what its parameters are.
        conn.exec_drop(&old, ("parameter of old",)).await?;
        // The client has its answer a moment before the capture has it.
        let taken = async || (front.mesh.capture().captured == captured).then_some(());
        until("the round is captured", taken).await?;
        assert!(front.mesh.stop_capture());
        conn.query_drop("select 'between'").await?;
    }
    conn.disconnect().await?;
    ended(&front).await?;
    let all = read(&dir.path().join("of/its/own"))?;
    let kinds: Vec<_> = all.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Begin, Kind::Query, Kind::Execute, Kind::Begin, Kind::Query, Kind::Execute]);
    assert!(all[1].text == "select 'first'" && all[4].text == "select 'second'");
    assert!(all[2].left_out && all[2].parameters.is_empty());
    assert_eq!(front.mesh.capture().captured, 6);
    Ok(())
}

#[tokio::test]
async fn where_memory_is_short_captures_give_way_first_and_newcomers_are_turned_away_next() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let dir = tempfile::tempdir()?;
    let group = json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 8}});
    let rest = json!({"capture": {"enabled": true, "dir": dir.path()}, "limits": {"memory": "4MiB"}});
    let front = Front::start_all(&[mysql.port()], group, json!({}), rest).await?;
    let mut first = front.root().await?;
    // A session counts with 16 KiB, so that there is room for 256.
    let mut others = Vec::new();
    let refused = loop {
        assert!(others.len() < 256, "more sessions than there is memory for");
        match front.login("root", "").await {
            Ok(conn) => others.push(conn),
            Err(error) => break format!("{error:#}"),
        }
    };
    assert!(refused.contains("ERROR 1040"), "{refused}");
    until("it is noticed", async || (front.mesh.status().pressure != "low").then_some(())).await?;
    let before = front.mesh.capture().shed;
    assert_eq!(first.query_first::<u32, _>("select 40 + 2").await?, Some(42));
    until("the statement was shed", async || (front.mesh.capture().shed > before).then_some(())).await?;
    drop(others);
    until("there is room again", async || (front.mesh.status().pressure == "low").then_some(())).await?;
    let captured = front.mesh.capture().captured;
    until("what comes is kept", async || {
        first.query_drop("select 'kept'").await.unwrap();
        (front.mesh.capture().captured > captured).then_some(())
    })
    .await?;
    front.root().await?.disconnect().await?;
    Ok(())
}
