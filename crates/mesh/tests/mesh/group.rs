//! Servers of a Group Replication: who writes, who reads, and who comes and goes, as the group says.

use crate::support::{Front, until};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeSet;
use testkit::mysql_async::Conn;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlGroup, MySqlGroupOptions};

async fn start(servers: usize, members: usize, multi_primary: bool) -> Result<MySqlGroup> {
    let group = MySqlGroup::start(MySqlGroupOptions { servers, members, multi_primary }).await?;
    group.servers()[0]
        .exec(
            "create database shop; create table shop.t (id int primary key, name varchar(50)); \
             create table shop.place (port int primary key); create user monitor@'%'; \
             grant select on performance_schema.* to monitor@'%'",
        )
        .await?;
    Ok(group)
}

/// A mesh that knows one server only.
async fn front(seed: &MySql, rest: serde_json::Value) -> Result<Front> {
    let mut group = json!({
        "topology": "group_replication", "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"},
        "read_write_split": true, "consistency": "session",
    });
    for (key, value) in rest.as_object().cloned().unwrap_or_default() {
        group[key] = value;
    }
    Front::start(&[seed.port()], group).await
}

/// Waits until so many servers take writes and reads, whoever they are.
async fn until_known(front: &Front, writers: usize, replicas: usize) -> Result<()> {
    let status = || {
        let status = front.mesh.status();
        let up: Vec<_> =
            status.groups[0].backends.iter().filter(|b| b.state == "up").map(|b| b.role).collect();
        let count = |role| up.iter().filter(|up| **up == role).count();
        (count(mesh::Role::Writer), count(mesh::Role::Replica))
    };
    let waited =
        until("the servers are known", async || (status() == (writers, replicas)).then_some(())).await;
    waited.with_context(|| format!("{:?}", front.mesh.status().groups[0].backends))
}

/// What is in no binlog says who answers.
async fn sign(server: &MySql) -> Result<()> {
    let port = server.port();
    server
        .exec(&format!(
            "set @only = @@global.super_read_only; set global super_read_only = off; set sql_log_bin = 0; \
             insert into shop.place values ({port}) on duplicate key update port = {port}; set global super_read_only = @only"
        ))
        .await
}

/// The port of the server that answers a read.
async fn reader(conn: &mut Conn) -> Result<u16> {
    conn.query_first("select port from shop.place").await?.context("a row")
}

async fn readers(front: &Front) -> Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for _ in 0..20 {
        ports.insert(reader(&mut front.root().await?).await?);
    }
    Ok(ports)
}

fn error_of(front: &Front, server: &MySql) -> Option<String> {
    let address = format!("127.0.0.1:{}", server.port());
    let status = front.mesh.status();
    status.groups[0].backends.iter().find(|b| b.address == address)?.error.clone()
}

#[tokio::test]
async fn members_that_come_get_reads_and_those_that_leave_get_none() -> Result<()> {
    let group = start(3, 2, false).await?;
    let [first, second, third] = group.servers() else { unreachable!() };
    let front = front(first, json!({"balance": "round_robin"})).await?;
    sign(second).await?;
    until_known(&front, 1, 1).await?;
    assert_eq!(readers(&front).await?, BTreeSet::from([second.port()]));
    let mut conn = front.root().await?;
    conn.query_drop("insert into shop.t values (1, 'x')").await?;
    group.join(third).await?;
    sign(third).await?;
    until_known(&front, 1, 2).await?;
    assert_eq!(readers(&front).await?, BTreeSet::from([second.port(), third.port()]));
    // It answers, and is out of the group: what it has is old.
    third.exec("stop group_replication").await?;
    until("the third is out", async || error_of(&front, third).filter(|error| error.contains("OFFLINE")))
        .await?;
    until_known(&front, 1, 1).await?;
    assert_eq!(readers(&front).await?, BTreeSet::from([second.port()]));
    // The session that was there before goes on.
    assert_eq!(conn.query_first("select count(*) from shop.t").await?, Some(1));
    until("it is forgotten", async || (front.mesh.status().groups[0].backends.len() == 2).then_some(()))
        .await?;
    group.join(third).await?;
    until_known(&front, 1, 2).await
}

#[tokio::test]
async fn the_next_primary_gets_the_writes_and_idle_sessions_do_not_notice() -> Result<()> {
    let group = start(3, 3, false).await?;
    let [first, second, third] = group.servers() else { unreachable!() };
    // The only server of the configuration is the one that dies.
    let front = front(first, json!({"pool": {}})).await?;
    until_known(&front, 1, 2).await?;
    let (mut idle, mut busy) = (front.root().await?, front.root().await?);
    idle.query_drop("set time_zone = '+08:00'").await?;
    idle.query_drop("insert into shop.t values (1, 'before')").await?;
    busy.query_drop("begin").await?;
    busy.query_drop("insert into shop.t values (2, 'lost')").await?;
    first.kill9();
    // It waits until the others have elected one.
    idle.query_drop("insert into shop.t values (3, 'after')").await?;
    let hour: Option<String> =
        idle.query_first("select date_format(from_unixtime(0), '%H') from shop.t limit 1").await?;
    assert_eq!(hour.as_deref(), Some("08"));
    let lost = busy.query_drop("insert into shop.t values (4, 'lost')").await.unwrap_err().to_string();
    assert!(lost.contains("08S01") || lost.contains("1158"), "{lost}");
    busy.query_drop("insert into shop.t values (5, 'after')").await?;
    let ids: Vec<u32> = busy.query("select id from shop.t order by id").await?;
    assert_eq!(ids, [1, 3, 5]);
    until_known(&front, 1, 1).await?;
    // It comes back as a secondary.
    first.restart().await?;
    group.join(first).await?;
    until_known(&front, 1, 2).await?;
    // A primary that hands over is followed too, and the session's next write goes to the other.
    let uuid: String = first.query_one("select @@server_uuid").await?;
    first.exec(&format!("select group_replication_set_as_primary('{uuid}')")).await?;
    until("the first writes again", async || {
        let status = front.mesh.status();
        let mut up =
            status.groups[0].backends.iter().filter(|b| b.state == "up" && b.role == mesh::Role::Writer);
        let writer = up.next()?.address == format!("127.0.0.1:{}", first.port());
        (writer && up.next().is_none()).then_some(())
    })
    .await?;
    idle.query_drop("insert into shop.t values (6, 'handed over')").await?;
    // Without a majority nobody takes anything, however alive it is.
    second.pause();
    third.pause();
    until("the first is out", async || error_of(&front, first).filter(|error| error.contains("no majority")))
        .await?;
    second.resume();
    third.resume();
    until_known(&front, 1, 2).await?;
    assert_eq!(idle.query_first("select count(*) from shop.t").await?, Some(4));
    Ok(())
}

#[tokio::test]
async fn of_several_primaries_one_gets_the_writes_and_its_place_is_taken() -> Result<()> {
    let group = start(2, 2, true).await?;
    let front = front(&group.servers()[0], json!({})).await?;
    until_known(&front, 1, 1).await?;
    for server in group.servers() {
        sign(server).await?;
    }
    let mut conn = front.root().await?;
    conn.query_drop("insert into shop.t values (1, 'x')").await?;
    let writes = "select port from shop.place for update";
    let writer: u16 = conn.query_first(writes).await?.context("a row")?;
    assert_ne!(reader(&mut front.root().await?).await?, writer);
    let gone = group.servers().iter().find(|server| server.port() == writer).context("the writer")?;
    gone.exec("stop group_replication").await?;
    // Until its next probe it would refuse the write itself.
    until("the writer is out", async || error_of(&front, gone)).await?;
    conn.query_drop("insert into shop.t values (2, 'y')").await?;
    let next: u16 = conn.query_first(writes).await?.context("a row")?;
    assert_ne!(next, writer);
    Ok(())
}
