//! Mirrors: reads asked again of another server, which no client notices.

use crate::support::{Front, until};
use anyhow::Result;
use mesh::MirrorStatus;
use serde_json::json;
use testkit::mysql_async::prelude::*;
use testkit::{MySql, MySqlOptions};

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
