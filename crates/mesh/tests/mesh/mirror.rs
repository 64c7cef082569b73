//! Mirrors: reads asked again of another server, which no client notices.

use crate::support::{Front, until};
use anyhow::Result;
use mesh::MirrorStatus;
use serde_json::json;
use testkit::mysql_async::prelude::*;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, TiDb, TiDbOptions};

const TABLES: &str = "create database shop; create table shop.goods (id int primary key, name text); \
                      insert into shop.goods values (1, 'tea'), (2, 'salt')";

fn mirror(front: &Front) -> MirrorStatus {
    front.mesh.mirrors().remove(0)
}

fn of<'a>(status: &'a MirrorStatus, part: &str) -> Option<&'a mesh::compare::Compared> {
    status.statements.iter().find(|one| one.text.contains(part))
}

#[tokio::test]
async fn reads_are_asked_again_and_what_differs_is_told() -> Result<()> {
    let (own, other) =
        tokio::try_join!(MySql::start(MySqlOptions::default()), MySql::start(MySqlOptions::default()))?;
    own.exec(TABLES).await?;
    other.exec(TABLES).await?;
    other.exec("update shop.goods set name = 'tee' where id = 1; create user m identified by 'm'").await?;
    other.exec("grant select on *.* to m").await?;
    let to = format!("127.0.0.1:{}", other.port());
    let account = json!({"name": "m", "password": "m"});
    for auth in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let mut group = auth;
        group["mirror"] = json!({"to": to, "account": account, "share": 100, "timeout": "20s"});
        let front = Front::start(&[own.port()], group).await?;
        let mut conn = front.root().await?;
        conn.query_drop("use shop").await?;
        let same: Vec<i32> = conn.query("select id from goods order by id").await?;
        assert_eq!(same, [1, 2]);
        let name: Option<String> = conn.query_first("select name from goods where id = 1").await?;
        assert_eq!(name.as_deref(), Some("tea"));
        let _: Vec<i32> = conn.query("select id from goods where name = 'tea'").await?;
        // What is no read, or reads in a transaction, is nobody else's.
        conn.query_drop("insert into goods values (9, 'x')").await?;
        conn.query_drop("delete from goods where id = 9").await?;
        conn.query_drop("begin").await?;
        conn.query_drop("select count(*) from goods").await?;
        conn.query_drop("commit").await?;
        let status = until("three reads are compared", async || {
            Some(mirror(&front)).filter(|status| status.compared + status.lost + status.unreachable == 3)
        })
        .await?;
        assert_eq!((status.compared, status.differences, status.shed), (3, 2, 0), "{status:#?}");
        assert!(of(&status, "COUNT").is_none() && of(&status, "INSERT").is_none());
        assert_eq!(of(&status, "ORDER BY").map(|one| one.differences()), Some(0));
        assert_eq!(
            of(&status, "SELECT NAME").map(|one| (one.rows, one.contents)),
            Some((0, 1)),
            "{status:#?}"
        );
        assert_eq!(of(&status, "NAME = ?").map(|one| (one.rows, one.contents)), Some((1, 0)));
        assert!(!serde_json::to_string(&status)?.contains("tea"));
    }
    assert_eq!(other.query_one::<u64>("select count(*) from shop.goods").await?, 2);
    Ok(())
}

/// Executions of prepared reads through a mesh whose mirror is this server, which has `tee` where the first has `tea`.
async fn compare_executions(own: &MySql, other: u16, account: serde_json::Value) -> Result<()> {
    let to = format!("127.0.0.1:{other}");
    for auth in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let mut group = auth;
        group["mirror"] =
            json!({"to": to, "account": account, "share": 100, "timeout": "20s", "connections": 1});
        // With `vault` the session keeps to its connection once it has another database under its statements.
        let again = u64::from(group.get("auth").is_none());
        let front = Front::start(&[own.port()], group).await?;
        let mut conn = front.root().await?;
        conn.query_drop("use shop").await?;
        let by_id = conn.prep("select name from goods where id = ?").await?;
        // The types are told with the first execution alone, by drivers that are thrifty.
        for (id, name) in [(1, "tea"), (2, "salt"), (2, "salt"), (3, "")] {
            let found: Option<String> = conn.exec_first(&by_id, (id,)).await?;
            assert_eq!(found.as_deref(), (!name.is_empty()).then_some(name));
        }
        let by_name = conn.prep("select id from goods where name = ? and id < ?").await?;
        let _: Vec<i32> = conn.exec(&by_name, ("tea", 9)).await?;
        let _: Vec<i32> = conn.exec(&by_name, (Some("salt"), 9.5)).await?;
        let _: Vec<i32> = conn.exec(&by_name, (None::<String>, -1)).await?;
        // No reads, or of a transaction.
        conn.exec_drop("insert into goods values (?, ?)", (9, "x")).await?;
        conn.exec_drop("delete from goods where id = ?", (9,)).await?;
        conn.query_drop("begin").await?;
        conn.exec_drop(&by_id, (1,)).await?;
        conn.query_drop("commit").await?;
        // The same text in another database is another statement, and what was prepared before stays where it was.
        let mut elsewhere = front.root().await?;
        elsewhere.query_drop("use other").await?;
        let wine: Option<String> = elsewhere.exec_first("select name from goods where id = ?", (1,)).await?;
        assert_eq!(wine.as_deref(), Some("wine"));
        conn.query_drop("use other").await?;
        let tea: Option<String> = conn.exec_first(&by_id, (1,)).await?;
        assert_eq!(tea.as_deref(), Some("tea"));
        let mut conn = elsewhere;
        // What the other server has not got is an error there, and the next one is asked all the same.
        let _: Option<i32> = conn.exec_first("select a from here where a > ?", (0,)).await?;
        let _: Option<i32> = conn.exec_first("select 7 + ?", (1,)).await?;
        let status = until("all executions are compared", async || {
            let status = mirror(&front);
            let met = status.compared + status.lost + status.unreachable + status.unprepared;
            (met >= 10 + again).then_some(status)
        })
        .await?;
        assert_eq!((status.compared, status.shed, status.unprepared), (10 + again, 0, 0), "{status:#?}");
        let by_id = of(&status, "SELECT NAME");
        assert_eq!(by_id.map(|one| (one.calls, one.contents)), Some((5 + again, 1 + again)), "{status:#?}");
        let by_name = of(&status, "NAME = ?");
        assert_eq!(by_name.map(|one| (one.calls, one.rows)), Some((3, 1)), "{status:#?}");
        let missing = of(&status, "`here`");
        assert_eq!(missing.map(|one| (one.calls, one.errors)), Some((1, 1)), "{status:#?}");
        assert_eq!(status.differences, 3 + again, "{status:#?}");
    }
    Ok(())
}

const OTHERS: &str = "create database other; create table other.goods (id int primary key, name varchar(20)); \
                      insert into other.goods values (1, 'wine')";
const GOODS: &str = "create database shop; create table shop.goods (id int primary key, name varchar(20)); \
                     insert into shop.goods values (1, 'tea'), (2, 'salt')";

async fn with_goods() -> Result<MySql> {
    let own = MySql::start(MySqlOptions::default()).await?;
    own.exec(GOODS).await?;
    own.exec(OTHERS).await?;
    own.exec("create table other.here (a int); insert into other.here values (1)").await?;
    Ok(own)
}

#[tokio::test]
async fn executions_are_asked_again_of_mysql_and_of_mariadb() -> Result<()> {
    let own = with_goods().await?;
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let mariadb = MariaDb::start(MariaDbOptions::default()).await?;
    for sql in [GOODS, OTHERS, "update shop.goods set name = 'tee' where id = 1"] {
        mysql.exec(sql).await?;
        mariadb.exec(sql).await?;
    }
    for server in [mysql.port(), mariadb.port()] {
        compare_executions(&own, server, json!({"name": "root"})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn executions_are_asked_again_of_tidb() -> Result<()> {
    let own = with_goods().await?;
    let tidb = TiDb::start(TiDbOptions::default()).await?;
    for sql in [GOODS, OTHERS, "update shop.goods set name = 'tee' where id = 1"] {
        tidb.exec(sql).await?;
    }
    compare_executions(&own, tidb.port(), json!({"name": "root"})).await
}

#[tokio::test]
async fn a_mirror_that_is_away_or_deaf_costs_its_clients_nothing() -> Result<()> {
    let own = MySql::start(MySqlOptions::default()).await?;
    own.exec(TABLES).await?;
    let deaf = std::net::TcpListener::bind("127.0.0.1:0")?;
    let deaf_port = deaf.local_addr()?.port();
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for port in [gone, deaf_port] {
        let to = format!("127.0.0.1:{port}");
        let group = json!({"mirror": {"to": to, "account": {"name": "m"}, "share": 100}});
        let front = Front::start(&[own.port()], group).await?;
        let mut conn = front.root().await?;
        for id in 0..600 {
            let found: Option<i32> =
                conn.query_first(format!("select id from shop.goods where id = {id}")).await?;
            assert_eq!(found, (1..=2).contains(&id).then_some(id));
        }
        let status = until("what was given away is counted", async || {
            let status = mirror(&front);
            (status.shed + status.unreachable > 0).then_some(status)
        })
        .await?;
        assert_eq!((status.compared, status.differences), (0, 0), "{status:#?}");
    }
    Ok(())
}
