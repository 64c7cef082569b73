//! Reads on replicas: what goes there, what must not, and that a session reads its own writes.

use crate::support::{Front, until};
use anyhow::Result;
use serde_json::json;
use testkit::mysql_async::Conn;
use testkit::mysql_async::prelude::Queryable;
use testkit::{Fault, FaultProxy, MySql, MySqlOptions};

/// A writer and a replica that follows it; a table on each says which of the two is asked.
pub struct Pair {
    pub writer: MySql,
    pub replica: MySql,
}

impl Pair {
    pub async fn start() -> Result<Pair> {
        let writer = MySql::start(MySqlOptions::default()).await?;
        let replica = MySql::start(MySqlOptions { server_id: 2, ..MySqlOptions::default() }).await?;
        replica.replica_of(&writer).await?;
        writer
            .exec(
                "create database shop; create table shop.place (name varchar(10) primary key); insert into shop.place values ('writer'); \
                 create table shop.t (id int primary key, name varchar(50)); create user monitor@'%'; grant replication client on *.* to monitor@'%'",
            )
            .await?;
        replica.caught_up_with(&writer).await?;
        replica.exec("set sql_log_bin = 0; update shop.place set name = 'replica'; set global super_read_only = on").await?;
        Ok(Pair { writer, replica })
    }

    pub async fn front(&self, consistency: &str) -> Result<Front> {
        self.front_by(consistency, self.replica.port()).await
    }

    /// The same with the replica reached by another port.
    pub async fn front_by(&self, consistency: &str, replica: u16) -> Result<Front> {
        let group = json!({
            "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"},
            "read_write_split": true, "consistency": consistency,
        });
        let front = Front::start(&[replica, self.writer.port()], group).await?;
        until("both servers are known", async || {
            let status = front.mesh.status();
            let backends = &status.groups[0].backends;
            let writers = backends.iter().filter(|b| b.role == mesh::Role::Writer).count();
            (writers == 1 && backends.iter().all(|b| b.state == "up" && b.version.is_some())).then_some(())
        })
        .await?;
        Ok(front)
    }
}

pub async fn place(conn: &mut Conn) -> Result<String> {
    Ok(conn.query_first::<String, _>("select name from shop.place").await?.unwrap_or_default())
}

#[tokio::test]
async fn reads_go_to_the_replica_until_something_ties_the_session_to_its_writer() -> Result<()> {
    let pair = Pair::start().await?;
    let front = pair.front("session").await?;
    let mut conn = front.root().await?;
    assert_eq!(place(&mut conn).await?, "replica");
    conn.query_drop("begin").await?;
    assert_eq!(place(&mut conn).await?, "writer");
    conn.query_drop("commit").await?;
    assert_eq!(place(&mut conn).await?, "replica");
    assert_eq!(
        conn.query_first::<String, _>("select name from shop.place for update").await?.as_deref(),
        Some("writer")
    );
    conn.query_drop("set autocommit = 0").await?;
    assert_eq!(place(&mut conn).await?, "writer");
    conn.query_drop("commit").await?;
    conn.query_drop("set autocommit = 1").await?;
    // Settings are the same on both.
    for (zone, hour) in [("+00:00", "00"), ("+08:00", "08"), ("-03:00", "21")] {
        conn.query_drop(format!("set time_zone = '{zone}'")).await?;
        let seen: Option<(String, String)> =
            conn.query_first("select name, date_format(from_unixtime(0), '%H') from shop.place").await?;
        assert_eq!(seen, Some(("replica".into(), hour.into())));
    }
    // The database follows too.
    conn.query_drop("use shop").await?;
    assert_eq!(conn.query_first::<String, _>("select name from place").await?.as_deref(), Some("replica"));
    // A temporary table is on one connection alone.
    conn.query_drop("create temporary table shop.mine (a int)").await?;
    conn.query_drop("insert into shop.mine values (7)").await?;
    assert_eq!(conn.query_first::<i32, _>("select a from shop.mine").await?, Some(7));
    assert_eq!(place(&mut conn).await?, "writer");
    conn.reset().await?;
    assert_eq!(place(&mut conn).await?, "replica");
    Ok(())
}

#[tokio::test]
async fn prepared_reads_go_to_the_replica_with_the_types_of_their_parameters() -> Result<()> {
    let pair = Pair::start().await?;
    pair.writer.exec("insert into shop.t values (1, 'one'), (2, 'two'), (3, 'three')").await?;
    pair.replica.caught_up_with(&pair.writer).await?;
    let front = pair.front("session").await?;
    let mut conn = front.root().await?;
    let read = conn
        .prep("select p.name, t.name from shop.place p, shop.t t where t.id = ? and t.name like ?")
        .await?;
    let write = conn.prep("update shop.t set name = concat(name, ?) where id = ?").await?;
    let ask = async |conn: &mut Conn, id: u32| -> Result<Option<(String, String)>> {
        Ok(conn.exec_first(&read, (id, "t%")).await?)
    };
    for _ in 0..3 {
        assert_eq!(ask(&mut conn, 1).await?, None);
        assert_eq!(ask(&mut conn, 2).await?, Some(("replica".into(), "two".into())));
        conn.query_drop("begin").await?;
        assert_eq!(ask(&mut conn, 3).await?, Some(("writer".into(), "three".into())));
        conn.query_drop("commit").await?;
    }
    conn.exec_drop("select 1", ()).await?;
    for round in 1..=20 {
        conn.exec_drop(&write, ("!", 2)).await?;
        let (at, name) = ask(&mut conn, 2).await?.unwrap_or_default();
        assert_eq!(name, format!("two{}", "!".repeat(round)), "read at the {at}");
    }
    // The replica goes away and comes back: the statement is prepared there once more.
    pair.replica.kill9();
    assert_eq!(ask(&mut conn, 3).await?, Some(("writer".into(), "three".into())));
    pair.replica.restart().await?;
    pair.replica.exec("set global super_read_only = on").await?;
    until("the replica is asked again", async || {
        let place = ask(&mut conn, 3).await.ok()??.0;
        (place == "replica").then_some(())
    })
    .await?;
    conn.close(write).await?;
    assert_eq!(place(&mut conn).await?, "replica");
    Ok(())
}

#[tokio::test]
async fn a_read_whose_replica_dies_before_it_answers_is_answered_by_the_writer() -> Result<()> {
    let pair = Pair::start().await?;
    let proxy = FaultProxy::start(pair.replica.addr()).await?;
    let front = pair.front_by("session", proxy.port()).await?;
    let (mut text, mut prepared) = (front.root().await?, front.root().await?);
    let statement = prepared.prep("select name from shop.place where name <> ?").await?;
    assert_eq!(place(&mut text).await?, "replica");
    assert_eq!(prepared.exec_first::<String, _, _>(&statement, ("x",)).await?.as_deref(), Some("replica"));
    proxy.set(Fault::Unanswered).await;
    let asked = tokio::spawn(async move {
        let at = place(&mut text).await?;
        Ok::<_, anyhow::Error>((at, place(&mut text).await?))
    });
    let executed = tokio::spawn(async move {
        Ok::<_, anyhow::Error>(prepared.exec_first::<String, _, _>(&statement, ("y",)).await?)
    });
    until("the questions are on their way", async || {
        // The monitor's goes unanswered too, by then.
        let status = front.mesh.status();
        status.groups[0].backends.iter().any(|b| b.error.is_some()).then_some(())
    })
    .await?;
    proxy.set(Fault::Cut).await;
    assert_eq!(asked.await??, ("writer".to_owned(), "writer".to_owned()));
    assert_eq!(executed.await??.as_deref(), Some("writer"));
    Ok(())
}

#[tokio::test]
async fn a_replica_that_stands_still_gets_no_reads_under_a_limit_and_comments_choose() -> Result<()> {
    let pair = Pair::start().await?;
    let group = json!({
        "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"},
        "read_write_split": true, "lag_max": "5s",
    });
    let front = Front::start(&[pair.replica.port(), pair.writer.port()], group).await?;
    let mut conn = front.root().await?;
    until("the replica has told its lag", async || (place(&mut conn).await.ok()? == "replica").then_some(()))
        .await?;
    let asked = conn.query_first::<String, _>("/* tidemill: writer */ select name from shop.place").await?;
    assert_eq!(asked.as_deref(), Some("writer"));
    pair.replica.exec("stop replica sql_thread").await?;
    until("reads leave it", async || (place(&mut conn).await.ok()? == "writer").then_some(())).await?;
    pair.replica.exec("start replica sql_thread").await?;
    until("reads come back", async || (place(&mut conn).await.ok()? == "replica").then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn a_session_reads_its_own_writes_also_while_the_replica_stands_still() -> Result<()> {
    let pair = Pair::start().await?;
    let front = pair.front("session").await?;
    let mut conn = front.root().await?;
    let mut on_replica = 0;
    for id in 0..60 {
        if id == 30 {
            pair.replica.exec("stop replica sql_thread").await?;
        }
        conn.query_drop(format!("insert into shop.t values ({id}, 'x')")).await?;
        let (count, at): (u64, String) = conn
            .query_first("select (select count(*) from shop.t), (select name from shop.place)")
            .await?
            .unwrap_or_default();
        assert_eq!(count, id + 1, "read at the {at}");
        on_replica += u64::from(at == "replica");
    }
    assert!((20..=30).contains(&on_replica), "{on_replica} reads on the replica");
    // Whoever has not written reads there all the while; with `service` nobody reads what is older than any write.
    assert_eq!(place(&mut front.root().await?).await?, "replica");
    let service = pair.front("service").await?;
    let (mut one, mut other) = (service.root().await?, service.root().await?);
    one.query_drop("insert into shop.t values (1000, 'x')").await?;
    let seen: Option<u64> = other.query_first("select count(*) from shop.t where id = 1000").await?;
    assert_eq!(seen, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_promoted_replica_gets_the_writes_and_idle_sessions_do_not_notice() -> Result<()> {
    let pair = Pair::start().await?;
    let front = pair.front("session").await?;
    let (mut idle, mut busy) = (front.root().await?, front.root().await?);
    idle.query_drop("set time_zone = '+08:00'").await?;
    idle.query_drop("insert into shop.t values (1, 'before')").await?;
    pair.replica.caught_up_with(&pair.writer).await?;
    busy.query_drop("begin").await?;
    busy.query_drop("insert into shop.t values (2, 'lost')").await?;
    pair.writer.kill9();
    pair.replica.exec("stop replica; set global super_read_only = off; set global read_only = off").await?;
    until("the replica is the writer", async || {
        let status = front.mesh.status();
        status.groups[0]
            .backends
            .iter()
            .any(|b| b.role == mesh::Role::Writer && b.state == "up")
            .then_some(())
    })
    .await?;
    idle.query_drop("insert into shop.t values (3, 'after')").await?;
    let hour: Option<String> =
        idle.query_first("select date_format(from_unixtime(0), '%H') from shop.t limit 1").await?;
    assert_eq!(hour.as_deref(), Some("08"));
    // The transaction is told once that it is gone, and then the session is as good as new.
    let lost = busy.query_drop("insert into shop.t values (4, 'lost')").await.unwrap_err().to_string();
    assert!(lost.contains("08S01") || lost.contains("1158"), "{lost}");
    busy.query_drop("insert into shop.t values (5, 'after')").await?;
    let ids: Vec<u32> = busy.query("select id from shop.t order by id").await?;
    assert_eq!(ids, [1, 3, 5]);
    assert!(front.mesh.status().moved >= 1);
    Ok(())
}
