//! Connections that are there before a client is, and a server that is left alone by order.

use crate::support::{Front, until};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

fn group(pool: serde_json::Value) -> serde_json::Value {
    json!({"auth": "vault", "users": [{"name": "shop", "password": "secret"}], "pool": pool,
           "init": ["set @greeted = 1"]})
}

async fn server() -> Result<MySql> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    Ok(mysql)
}

fn pool(front: &Front) -> mesh::PoolStatus {
    front.mesh.status().groups[0].backends[0].pool.unwrap_or_default()
}

async fn until_free(front: &Front, wanted: usize) -> Result<()> {
    until(&format!("{wanted} are free"), async || (pool(front).idle == wanted).then_some(())).await
}

async fn numbers(mysql: &MySql) -> Result<Vec<u64>> {
    let mut conn = mysql.conn().await?;
    Ok(conn.query("select id from information_schema.processlist where user = 'shop' order by id").await?)
}

#[tokio::test]
async fn connections_are_there_before_a_client_and_come_back_after_each_loss() -> Result<()> {
    let mysql = server().await?;
    let front = Front::start(&[mysql.port()], group(json!({"max": 6, "idle": 4, "min_idle": 4}))).await?;
    until_free(&front, 4).await?;
    let before = numbers(&mysql).await?;
    assert_eq!(before.len(), 4);
    // The first client's driver may log in otherwise; what is made for the next is as it was.
    let mut first = front.login("shop", "secret").await?;
    first.query_drop("select 1").await?;
    let warm = until("all are as the first client's", async || {
        let now = numbers(&mysql).await.ok()?;
        let new = now.len() == 4 && !now.iter().any(|one| before.contains(one));
        (new && pool(&front).idle == 4).then_some(now)
    })
    .await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut conn = front.login("shop", "secret").await?;
        conn.query_drop("begin").await?;
        let number: Option<u64> = conn.query_first("select @@pseudo_thread_id").await?;
        assert!(number.is_some_and(|number| warm.contains(&number)), "{number:?} of {warm:?}");
        assert_eq!(conn.query_first::<u64, _>("select @greeted").await?, Some(1));
        others.push(conn);
    }
    // Those in use are beside, up to the bound.
    until("both are replaced", async || (pool(&front).idle == 4 && pool(&front).open == 6).then_some(()))
        .await?;
    let mut third = front.login("shop", "secret").await?;
    third.query_drop("begin").await?;
    until("no more than all", async || (pool(&front).idle == 3).then_some(())).await?;
    assert_eq!(pool(&front).open, 6);
    drop(others);
    drop(third);
    until_free(&front, 4).await?;
    for number in numbers(&mysql).await? {
        let _ = mysql.exec(&format!("kill {number}")).await;
    }
    let killed = numbers(&mysql).await?;
    until("others are there", async || {
        let now = numbers(&mysql).await.ok()?;
        (pool(&front).idle == 4 && now.len() == 4 && now.iter().all(|one| !killed.contains(one)))
            .then_some(())
    })
    .await?;
    assert!(pool(&front).warmed >= 8 && pool(&front).open <= 6);
    Ok(())
}

#[tokio::test]
async fn a_drained_server_is_left_at_once_and_filled_again_when_it_is_taken_back() -> Result<()> {
    let mysql = server().await?;
    let front = Front::start(&[mysql.port()], group(json!({"max": 4, "idle": 3, "min_idle": 3}))).await?;
    let mut conn = front.login("shop", "secret").await?;
    conn.query_drop("select 1").await?;
    until_free(&front, 3).await?;
    let address = format!("127.0.0.1:{}", mysql.port());
    assert!(front.mesh.drain("shop", &address, true));
    until("nothing is open", async || (pool(&front).open == 0).then_some(())).await?;
    let warmed = pool(&front).warmed;
    let error = conn.query_drop("select 1").await.unwrap_err().to_string();
    assert!(error.contains("is drained") && error.contains(&format!("undrain shop {address}")), "{error}");
    assert!(front.login("shop", "secret").await.is_err());
    assert_eq!((pool(&front).open, pool(&front).warmed), (0, warmed));
    assert!(front.mesh.drain("shop", &address, false));
    until_free(&front, 3).await?;
    conn.query_drop("select 1").await?;
    Ok(())
}

#[tokio::test]
async fn a_password_that_is_refused_is_not_tried_all_the_time() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create user shop@'%' identified by 'other' failed_login_attempts 30 password_lock_time 1")
        .await?;
    let front = Front::start(&[mysql.port()], group(json!({"max": 8, "idle": 8, "min_idle": 8}))).await?;
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    for _ in 0..8 {
        tick.tick().await;
    }
    assert_eq!((pool(&front).open, pool(&front).warmed), (0, 0));
    // The account is not locked: the right password opens it.
    mysql.exec("alter user shop@'%' identified by 'secret'").await?;
    until_free(&front, 8).await?;
    Ok(())
}
