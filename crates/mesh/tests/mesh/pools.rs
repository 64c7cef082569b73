//! Connections that sessions share: nobody sees anything of anybody else, and nobody has more than there are.

use crate::split::{Pair, place};
use crate::support::{Front, until};
use crate::topics::TOPICS;
use crate::traffic::conversation;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::mysql_async::prelude::*;
use testkit::mysql_async::{ChangeUserOpts, Conn, Opts, OptsBuilder, Row};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

fn group(kind: &str, max: u32) -> serde_json::Value {
    json!({"kind": kind, "auth": "vault", "users": [{"name": "root"}], "pool": {"max": max, "idle": max}})
}

fn pool(front: &Front) -> mesh::PoolStatus {
    front.mesh.status().groups[0].backends[0].pool.unwrap_or_default()
}

/// How often a reason kept a connection, and how many it keeps now.
fn pins(front: &Front, reason: &str) -> (u64, u64) {
    let pins = front.mesh.status().groups[0].pins.get(reason).copied().unwrap_or_default();
    (pins.total, pins.now)
}

/// Waits until a reason has kept a connection so often, and keeps so many now: a client has its answer a moment before.
async fn until_pinned(front: &Front, reason: &str, expected: (u64, u64)) -> Result<()> {
    until(&format!("{reason} keeps {expected:?}"), async || (pins(front, reason) == expected).then_some(()))
        .await
        .with_context(|| format!("{:?}", front.mesh.status().groups[0].pins))
}

/// What one statement led to, as its client sees it.
async fn said(conn: &mut Conn, sql: &str) -> String {
    match conn.query::<Row, _>(sql).await {
        Ok(rows) => {
            let rows: Vec<_> = rows
                .into_iter()
                .map(|row| {
                    let names: Vec<_> =
                        row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
                    format!("{names:?} {:?}", row.unwrap())
                })
                .collect();
            let (affected, id) = (conn.affected_rows(), conn.last_insert_id());
            format!("{sql}: {rows:?} affected {affected} id {id:?} warnings {}", conn.get_warnings())
        }
        Err(error) => format!("{sql}: {error}"),
    }
}

async fn topics(opts: Opts) -> Result<Vec<String>> {
    let mut heard = Vec::new();
    for topic in TOPICS {
        let mut conn = Conn::new(opts.clone()).await?;
        for sql in *topic {
            heard.push(said(&mut conn, sql).await);
        }
        conn.disconnect().await?;
    }
    // What is prepared is what it was prepared as, whatever becomes of its session's connections.
    let opts: Opts = OptsBuilder::from_opts(opts).stmt_cache_size(Some(0)).into();
    let mut conn = Conn::new(opts).await?;
    let one = conn.prep("select name, ? from topics where id = ?").await?;
    let same = conn.prep("select name, ? from topics where id = ?").await?;
    let write = conn.prep("insert into numbers (name) values (?)").await?;
    for round in 0..4_i64 {
        let rows: Vec<Row> = conn.exec(&one, (round, 1)).await?;
        heard.push(format!("{rows:?}"));
        let rows: Vec<Row> = conn.exec(&same, ("text", 2)).await?;
        heard.push(format!("{rows:?}"));
        let rows: Vec<Row> = conn.exec(&one, (None::<f64>, 2)).await?;
        heard.push(format!("{rows:?}"));
        conn.exec_drop(&write, ("prepared",)).await?;
        let same: Option<bool> =
            conn.query_first("select last_insert_id() = (select max(id) from numbers)").await?;
        heard.push(format!("{same:?} {}", conn.affected_rows()));
    }
    for (set, value, seen) in [
        ("set time_zone = ?", "+06:00", "select @@time_zone"),
        ("set session sql_mode = concat(?, ',ANSI')", "NO_ZERO_DATE", "select @@sql_mode"),
        ("set time_zone = ?, sql_mode = ''", "nonsense", "select @@time_zone, @@sql_mode"),
        ("set character_set_results = ?", "utf8mb4", "select @@character_set_results"),
    ] {
        let mut other = Conn::new(conn.opts().clone()).await?;
        let failed = other.exec_drop(set, (value,)).await.err().map(|error| error.to_string());
        heard.push(format!("{failed:?} {} {}", said(&mut other, "do 0").await, said(&mut other, seen).await));
        other.disconnect().await?;
    }
    conn.close(one).await?;
    conn.query_drop("set sql_mode = 'ANSI_QUOTES'").await?;
    let rows: Vec<Row> = conn.exec(&same, ("text", 1)).await?;
    heard.push(format!("{rows:?}"));
    // After a reset nothing is left, and after another user neither.
    conn.query_drop("set @a = 1, time_zone = '+05:00'").await?;
    let asked =
        "select @a, @@time_zone, @@sql_mode, @@character_set_client, @@collation_connection, database()";
    heard.push(said(&mut conn, asked).await);
    conn.reset().await?;
    heard.push(said(&mut conn, asked).await);
    heard.push(said(&mut conn, "select 'é', @@collation_connection").await);
    conn.query_drop("set @a = 2").await?;
    conn.change_user(ChangeUserOpts::new().with_user(Some("root".into())).with_db_name(Some("shop".into())))
        .await?;
    heard.push(said(&mut conn, asked).await);
    Ok(heard)
}

async fn prepare_topics(server: &SqlServer) -> Result<()> {
    server
        .exec(
            "create database shop; create database other; create table other.place (name varchar(10)); insert into other.place values ('other'); \
             create table shop.topics (id int primary key, name varchar(50)) charset utf8mb4; \
             insert into shop.topics values (1, 'one'), (2, 'two'), (3, 'three'); \
             create table shop.numbers (id int primary key auto_increment, name varchar(50))",
        )
        .await
}

/// The same direct and through connections that are taken away after every command that leaves them free.
async fn alike_in_chaos(server: &SqlServer, kind: &str) -> Result<()> {
    prepare_topics(server).await?;
    if kind == "tidb" {
        server.exec("set global tidb_enable_noop_functions = on").await?;
    }
    let anew = "truncate shop.numbers; delete from shop.topics where id > 3; drop table if exists shop.t";
    let direct: Opts = OptsBuilder::from_opts(server.opts()).db_name(Some("shop")).into();
    let expected = topics(direct.clone()).await?;
    let talked = conversation(&mut Conn::new(direct).await?).await?;
    for mapped in [false, true] {
        server.exec(anew).await?;
        let mut group = group(kind, 4);
        if mapped {
            group["auth"] = "mapped".into();
            group["account"] = json!({"name": "root"});
        }
        let front = Front::start_chaos(&[server.port()], group).await?;
        let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
        let heard = topics(opts.clone()).await?;
        for (expected, heard) in expected.iter().zip(&heard) {
            assert_eq!(expected, heard);
        }
        assert_eq!(expected.len(), heard.len());
        assert_eq!(talked, conversation(&mut Conn::new(opts).await?).await?);
        // It was the chaos that they went through: a session of two statements needs two connections already.
        assert!(pool(&front).open >= 2, "{:?}", pool(&front));
        for reason in ["transaction", "temporary table", "user variable", "prepared by text", "named lock"] {
            assert!(pins(&front, reason).0 > 0, "{reason}: {:?}", front.mesh.status().groups[0].pins);
        }
        until("nothing keeps anything", async || {
            let pins = front.mesh.status().groups[0].pins.clone();
            (pool(&front).in_use == 0 && pins.values().all(|pin| pin.now == 0)).then_some(())
        })
        .await?;
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_answers_the_same_when_every_command_gets_another_connection() -> Result<()> {
    alike_in_chaos(&*MySql::start(MySqlOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_answers_the_same_when_every_command_gets_another_connection() -> Result<()> {
    alike_in_chaos(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidb_answers_the_same_when_every_command_gets_another_connection() -> Result<()> {
    alike_in_chaos(&*TiDb::start(TiDbOptions::default()).await?, "tidb").await
}

/// One of many clients: what it sees is its own, whatever the others do.
async fn client(opts: Opts, number: u64, rounds: u64) -> Result<()> {
    let mut conn = Conn::new(opts).await?;
    let zone = format!("+{:02}:00", number % 13);
    conn.query_drop(format!("set time_zone = '{zone}'")).await?;
    if number.is_multiple_of(3) {
        conn.query_drop(format!("set @me = {number}")).await?;
    }
    if number.is_multiple_of(2) {
        conn.query_drop("use other").await?;
    }
    let own = conn.prep(format!("select ?, {number}, @@time_zone, @me, database()")).await?;
    let shared = conn.prep("insert into shop.numbers (name) values (?)").await?;
    let me = number.is_multiple_of(3).then_some(number);
    let database = if number.is_multiple_of(2) { "other" } else { "shop" };
    for round in 0..rounds {
        let row: Option<(u64, u64, String, Option<u64>, String)> = conn.exec_first(&own, (round,)).await?;
        ensure!(row == Some((round, number, zone.clone(), me, database.into())), "{number}: {row:?}");
        let name = format!("{number} {round}");
        conn.exec_drop(&shared, (&name,)).await?;
        let id = conn.last_insert_id();
        let told: Option<u64> = conn.query_first("select last_insert_id()").await?;
        ensure!(told == id && id.is_some(), "{number}: {told:?} and {id:?}");
        let back: Option<String> =
            conn.query_first(format!("select name from shop.numbers where id = {}", id.unwrap_or(0))).await?;
        ensure!(back.as_ref() == Some(&name), "{number}: {back:?}");
        match (number + round) % 4 {
            0 => {
                let mut inside = conn.start_transaction(Default::default()).await?;
                inside.exec_drop(&shared, (&name,)).await?;
                inside.query_drop("update shop.topics set name = 'gone' where id = 1").await?;
                inside.rollback().await?;
                let count: Option<u64> =
                    conn.exec_first("select count(*) from shop.numbers where name = ?", (&name,)).await?;
                ensure!(count == Some(1), "{number}: {count:?}");
            }
            1 if round >= 4 => {
                conn.query_drop("create temporary table shop.mine (a int)").await?;
                conn.query_drop(format!("insert into shop.mine values ({number})")).await?;
                let mine: Option<u64> = conn.query_first("select a from shop.mine").await?;
                ensure!(mine == Some(number), "{number}: {mine:?}");
                return Ok(());
            }
            2 => {
                let Err(failed) = conn.query_drop(format!("select nonsense_{number}")).await else {
                    bail!("{number}: there is no such column");
                };
                let failed = failed.to_string();
                ensure!(failed.contains(&format!("nonsense_{number}")), "{failed}");
                let shown: Option<(String, u32, String)> = conn.query_first("show warnings").await?;
                ensure!(
                    shown.as_ref().is_some_and(|shown| shown.2.contains(&format!("nonsense_{number}"))),
                    "{number}: {shown:?}"
                );
            }
            _ => {
                let shown: Option<(String, u32, String)> = conn.query_first("show warnings").await?;
                ensure!(shown.is_none(), "{number}: {shown:?}");
            }
        }
    }
    conn.disconnect().await?;
    Ok(())
}

async fn many_over_few(server: &SqlServer, kind: &str) -> Result<()> {
    const MAX: usize = 4;
    prepare_topics(server).await?;
    let front = Arc::new(Front::start(&[server.port()], group(kind, MAX as u32)).await?);
    let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
    let running = Arc::new(AtomicUsize::new(64));
    let clients: Vec<_> = (0..64)
        .map(|number| {
            let (opts, running) = (opts.clone(), running.clone());
            tokio::spawn(async move {
                let result = client(opts, number, 6).await.with_context(|| format!("client {number}"));
                running.fetch_sub(1, Ordering::Relaxed);
                result
            })
        })
        .collect();
    let mut most = 0;
    until("all have ended", async || {
        let status = pool(&front);
        assert!(status.open <= MAX, "{status:?}");
        most = most.max(status.waiting);
        (running.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await?;
    for client in clients {
        client.await??;
    }
    assert!(most > 0, "nobody ever waited");
    until("all are free", async || (pool(&front).in_use == 0).then_some(())).await?;
    assert_eq!(pool(&front).timeouts, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_over_few_connections_of_mysql_see_only_their_own() -> Result<()> {
    many_over_few(&*MySql::start(MySqlOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_over_few_connections_of_mariadb_see_only_their_own() -> Result<()> {
    many_over_few(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_over_few_connections_of_tidb_see_only_their_own() -> Result<()> {
    many_over_few(&*TiDb::start(TiDbOptions::default()).await?, "tidb").await
}

#[tokio::test]
async fn who_finds_none_free_waits_in_order_and_then_is_told() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create database shop; create table shop.t (id int primary key auto_increment, name int)")
        .await?;
    let front = Front::start(&[mysql.port()], group("mysql", 1)).await?;
    let mut holder = front.root().await?;
    let mut other = front.root().await?;
    let mut conns = Vec::new();
    for _ in 0..6 {
        conns.push(front.root().await?);
    }
    holder.query_drop("begin").await?;
    until_pinned(&front, "transaction", (1, 1)).await?;
    let mut waiting = Vec::new();
    for (number, mut conn) in conns.into_iter().enumerate() {
        waiting.push(tokio::spawn(async move {
            conn.query_drop(format!("insert into shop.t (name) values ({number})")).await?;
            Ok::<_, anyhow::Error>(conn)
        }));
        until("it waits", async || (pool(&front).waiting == number + 1).then_some(())).await?;
    }
    // One that leaves gives up its turn.
    let left = waiting.remove(2);
    left.abort();
    until("it has left", async || (pool(&front).waiting == 5).then_some(())).await?;
    holder.query_drop("commit").await?;
    for conn in waiting {
        conn.await??;
    }
    let order: Vec<i32> = mysql.query("select name from shop.t order by id").await?;
    // Of two threads each keeps its order; nobody is passed for long.
    assert_eq!(order.len(), 5, "{order:?}");
    // The place is taken for longer than anybody waits.
    holder.query_drop("begin").await?;
    let began = Instant::now();
    let told = other.query_drop("select 1").await.unwrap_err().to_string();
    assert!(told.contains("1040") && told.contains("all 1 of `pool.max`"), "{told}");
    assert!(began.elapsed() >= Duration::from_secs(10));
    assert_eq!((pool(&front).timeouts, pool(&front).waiting), (1, 0));
    holder.query_drop("rollback").await?;
    other.query_drop("select 1").await?;
    assert!(pool(&front).open == 1);
    Ok(())
}

#[tokio::test]
async fn a_thread_without_connections_gets_those_that_another_does_not_use() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let front = Front::start(&[mysql.port()], group("mysql", 2)).await?;
    // Sessions are spread over two threads: each takes all there are in its turn.
    let mut conns = Vec::new();
    for _ in 0..4 {
        conns.push(front.root().await?);
    }
    for _ in 0..3 {
        for pair in [[0, 2], [1, 3]] {
            for at in pair {
                conns[at].query_drop("begin").await?;
            }
            assert_eq!((pool(&front).open, pool(&front).in_use), (2, 2));
            for at in pair {
                conns[at].query_drop("commit").await?;
            }
        }
    }
    let here =
        "select count(*) from information_schema.processlist where user = 'root' and command = 'Sleep'";
    until("the server has no more", async || (mysql.query_one::<u64>(here).await.ok()? <= 2).then_some(()))
        .await?;
    Ok(())
}

#[tokio::test]
async fn another_account_gets_the_place_and_not_the_connection() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    let mut group = group("mysql", 1);
    group["users"] = json!([{"name": "root"}, {"name": "shop", "password": "secret"}]);
    let front = Front::start(&[mysql.port()], group).await?;
    let (mut root, mut shop) = (front.root().await?, front.login("shop", "secret").await?);
    for _ in 0..3 {
        for (conn, name) in [(&mut root, "root@"), (&mut shop, "shop@")] {
            let who: Option<String> = conn.query_first("select user()").await?;
            assert!(who.as_ref().is_some_and(|who| who.starts_with(name)), "{who:?}");
        }
    }
    // Who has no database gets none that somebody else has used.
    let mut with: Conn = Conn::new(Opts::from(front.opts("root", "").db_name(Some("mysql")))).await?;
    for _ in 0..2 {
        assert_eq!(
            with.query_first::<Option<String>, _>("select database()").await?,
            Some(Some("mysql".into()))
        );
        assert_eq!(root.query_first::<Option<String>, _>("select database()").await?, Some(None));
    }
    assert_eq!(pool(&front).open, 1);
    Ok(())
}

#[tokio::test]
async fn connections_of_a_server_that_dies_are_forgotten_and_nobody_notices() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key)").await?;
    let front = Front::start(&[mysql.port()], group("mysql", 4)).await?;
    let mut conn = front.root().await?;
    conn.query_drop("set time_zone = '+08:00'").await?;
    let statement = conn.prep("select date_format(from_unixtime(?), '%H')").await?;
    let mut busy = front.root().await?;
    busy.query_drop("begin").await?;
    busy.query_drop("insert into shop.t values (1)").await?;
    until("one is free", async || (pool(&front).idle == 1 && pool(&front).in_use == 1).then_some(())).await?;
    mysql.kill9();
    until("its connections are gone", async || (pool(&front).open == 0).then_some(())).await?;
    mysql.restart().await?;
    let hour: Option<String> = conn.exec_first(&statement, (0,)).await?;
    assert_eq!(hour.as_deref(), Some("08"));
    let lost = busy.query_drop("insert into shop.t values (2)").await.unwrap_err().to_string();
    assert!(lost.contains("1158"), "{lost}");
    busy.query_drop("insert into shop.t values (3)").await?;
    assert_eq!(mysql.query::<u32>("select id from shop.t").await?, [3]);
    Ok(())
}

#[tokio::test]
async fn a_write_whose_connection_is_cut_is_told_once_and_never_done_twice() -> Result<()> {
    use testkit::{Fault, FaultProxy};
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create database shop; create table shop.t (id int primary key auto_increment, name int)")
        .await?;
    let proxy = FaultProxy::start(mysql.addr()).await?;
    let front = Front::start(&[proxy.port()], group("mysql", 2)).await?;
    let mut conn = front.root().await?;
    conn.query_drop("insert into shop.t (name) values (1)").await?;
    until("its connection is free", async || (pool(&front).idle == 1).then_some(())).await?;
    proxy.set(Fault::Unanswered).await;
    let asked = tokio::spawn(async move {
        let told = conn.query_drop("insert into shop.t (name) values (2)").await;
        (conn, told)
    });
    until("the server has done it", async || {
        (mysql.query_one::<u64>("select count(*) from shop.t").await.ok()? == 2).then_some(())
    })
    .await?;
    proxy.set(Fault::Cut).await;
    let (mut conn, told) = asked.await?;
    let told = told.unwrap_err().to_string();
    assert!(told.contains("1158"), "{told}");
    proxy.set(Fault::Pass).await;
    conn.query_drop("insert into shop.t (name) values (3)").await?;
    assert_eq!(mysql.query::<u32>("select name from shop.t order by id").await?, [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn a_kill_finds_the_session_whatever_connection_it_has() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    let mut group = group("mysql", 3);
    group["users"] = json!([{"name": "root"}, {"name": "shop", "password": "secret"}]);
    let front = Front::start(&[mysql.port()], group).await?;
    let (mut slow, mut killer, mut beside) = (front.root().await?, front.root().await?, front.root().await?);
    let id = slow.id();
    for _ in 0..3 {
        let waiting = tokio::spawn(async move {
            let answer: Option<u32> = slow.query_first("select sleep(30)").await?;
            Ok::<_, anyhow::Error>((answer, slow))
        });
        until("the server sleeps", async || {
            let asked = "select count(*) from information_schema.processlist where info = 'select sleep(30)'";
            (mysql.query_one::<u64>(asked).await.ok()? == 1).then_some(())
        })
        .await?;
        beside.query_drop("select 1").await?;
        killer.query_drop(format!("kill query {id}")).await?;
        let (answer, back) = waiting.await??;
        assert_eq!(answer, Some(1));
        slow = back;
        slow.query_drop("select 1").await?;
    }
    // It has none now: of a statement there is nothing to kill, and the session can be.
    killer.query_drop(format!("kill query {id}")).await?;
    slow.query_drop("select 1").await?;
    let denied = front.login("shop", "secret").await?.query_drop(format!("kill {id}")).await.unwrap_err();
    assert!(denied.to_string().contains("1095"), "{denied}");
    slow.query_drop("select 1").await?;
    let sessions = front.mesh.status().sessions;
    killer.query_drop(format!("kill {id}")).await?;
    until("the session has ended", async || (front.mesh.status().sessions < sessions).then_some(())).await?;
    assert!(slow.query_drop("select 1").await.is_err());
    beside.query_drop("select 1").await?;
    // One in a transaction ends with it.
    let mut held = front.root().await?;
    held.query_drop("begin").await?;
    killer.query_drop(format!("kill {}", held.id())).await?;
    assert!(held.query_drop("select 1").await.is_err() && held.query_drop("select 1").await.is_err());
    // Who knows its server's number keeps the connection that has it.
    let number: Option<u64> = beside.query_first("select connection_id()").await?;
    killer.query_drop("select 1").await?;
    assert_eq!(beside.query_first::<u64, _>("select connection_id()").await?, number);
    Ok(())
}

#[tokio::test]
async fn a_new_configuration_takes_old_connections_out_of_use() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'one'; create database shop").await?;
    let config = |password: &str, max: u32| {
        let group = json!({"auth": "vault", "users": [{"name": "shop", "password": password}],
                           "pool": {"max": max, "idle": max}});
        Front::config(&[mysql.port()], group, json!({}), json!({}))
    };
    let front = Front::start(
        &[mysql.port()],
        json!({"auth": "vault", "users": [{"name": "shop", "password": "one"}],
                                                     "pool": {"max": 4, "idle": 4}}),
    )
    .await?;
    let mut conn = front.login("shop", "one").await?;
    let asked = "select group_concat(id order by id) from information_schema.processlist where user = 'shop'";
    conn.query_drop("select 1").await?;
    let before: Option<String> = mysql.query_one(asked).await?;
    assert!(before.is_some());
    // The same accounts: what is there serves on, and the new bound holds.
    front.mesh.reload(&config("one", 1)?)?;
    conn.query_drop("select 1").await?;
    assert_eq!(mysql.query_one::<Option<String>>(asked).await?, before);
    let mut holder = front.login("shop", "one").await?;
    until("both are at rest", async || (pool(&front).in_use == 0).then_some(())).await?;
    holder.query_drop("begin").await?;
    let waiting = tokio::spawn(async move {
        conn.query_drop("select 1").await?;
        Ok::<_, anyhow::Error>(conn)
    });
    until("it waits", async || (pool(&front).waiting == 1).then_some(())).await?;
    front.mesh.reload(&config("one", 2)?)?;
    let mut conn = waiting.await??;
    // Another password: nobody gets in by what the old one has opened.
    mysql.exec("alter user shop@'%' identified by 'two'").await?;
    front.mesh.reload(&config("two", 4)?)?;
    assert!(conn.query_drop("select 1").await.unwrap_err().to_string().contains("Access denied"));
    holder.query_drop("commit").await?;
    until("the old ones are closed", async || {
        let now: Option<String> = mysql.query_one(asked).await.ok()?;
        now.is_none().then_some(())
    })
    .await?;
    let mut anew = front.login("shop", "two").await?;
    anew.query_drop("select 1").await?;
    // Drained: nothing of it stays open.
    until("it is free", async || (pool(&front).idle == 1).then_some(())).await?;
    assert!(front.mesh.drain("shop", &format!("127.0.0.1:{}", mysql.port()), true));
    until("it is closed", async || (pool(&front).open == 0).then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn both_roles_are_shared_and_a_session_still_reads_its_own_writes() -> Result<()> {
    let pair = Pair::start().await?;
    let group = json!({
        "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"},
        "read_write_split": true, "consistency": "session", "pool": {"max": 3, "idle": 3},
    });
    let front = Arc::new(Front::start(&[pair.replica.port(), pair.writer.port()], group).await?);
    let mut first = front.root().await?;
    until("reads go to the replica", async || (place(&mut first).await.ok()? == "replica").then_some(()))
        .await?;
    let clients: Vec<_> = (0..12_u64)
        .map(|number| {
            let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
            tokio::spawn(async move {
                let mut conn = Conn::new(opts).await?;
                let read =
                    conn.prep("select count(*), (select name from place) from t where name = ?").await?;
                let mut on_replica = 0;
                for round in 0..10 {
                    let id = number * 100 + round;
                    conn.query_drop(format!("insert into t values ({id}, 'client {number}')")).await?;
                    let (count, at): (u64, String) =
                        conn.exec_first(&read, (format!("client {number}"),)).await?.context("a row")?;
                    ensure!(count == round + 1, "{number}: {count} after {round} at the {at}");
                    on_replica += u64::from(at == "replica");
                }
                Ok::<_, anyhow::Error>(on_replica)
            })
        })
        .collect();
    let mut on_replica = 0;
    for client in clients {
        on_replica += client.await??;
    }
    assert!(on_replica > 0, "no read went to the replica");
    let status = front.mesh.status();
    for backend in &status.groups[0].backends {
        assert!(backend.pool.is_some_and(|pool| pool.open <= 3 && pool.open > 0), "{backend:?}");
    }
    // The replica is promoted; who was idle goes on there.
    pair.replica.caught_up_with(&pair.writer).await?;
    pair.writer.kill9();
    pair.replica.exec("stop replica; set global super_read_only = off; set global read_only = off").await?;
    first.query_drop("insert into shop.t values (5000, 'after')").await?;
    assert_eq!(first.query_first::<u64, _>("select count(*) from shop.t").await?, Some(121));
    Ok(())
}

#[tokio::test]
async fn a_question_that_comes_too_late_is_told_and_then_answered() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key); insert into shop.t values (1), (2)").await?;
    let front = Front::start(&[mysql.port()], group("mysql", 4)).await?;
    let mut conn = front.root().await?;
    let update = "update shop.t set id = id + 10";
    conn.query_drop(update).await?;
    let late = conn.query_drop("select row_count()").await.unwrap_err().to_string();
    assert!(late.contains("asks about the statement before"), "{late}");
    conn.query_drop(update).await?;
    assert_eq!(conn.query_first::<i64, _>("select row_count()").await?, Some(2));
    // What an error left is kept for a while, and not for ever.
    let mut other = front.root().await?;
    assert!(other.query_drop("select nonsense").await.is_err());
    until_pinned(&front, "warnings or error of the last statement", (1, 1)).await?;
    until("it is free again", async || (pool(&front).in_use == 0).then_some(())).await?;
    let late = other.query_drop("show warnings").await.unwrap_err().to_string();
    assert!(late.contains("asks about the statement before"), "{late}");
    other.query_drop("select 1").await?;
    assert_eq!(other.query::<Row, _>("show warnings").await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_long_parameter_and_a_long_statement_stay_whole() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create database shop; create table shop.t (id int primary key auto_increment, data longblob)")
        .await?;
    let front = Front::start_chaos(&[mysql.port()], group("mysql", 4)).await?;
    let mut conn = front.root().await?;
    let insert = conn.prep("insert into shop.t (data) values (?)").await?;
    for bytes in [10, 20_000, 3_000_000, 17_000_000_usize] {
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        conn.exec_drop(&insert, (&data,)).await?;
        let back: Option<Vec<u8>> =
            conn.query_first("select data from shop.t order by id desc limit 1").await?;
        assert!(back.is_some_and(|back| back == data), "{bytes} bytes come back");
    }
    // A text that is too long to be prepared twice keeps its connection; one that is too long to be seen too.
    let long = format!("select '{}', ?", "x".repeat(20_000));
    let statement = conn.prep(&long).await?;
    until_pinned(&front, "prepared statement that cannot be repeated", (1, 1)).await?;
    let row: Option<(String, u32)> = conn.exec_first(&statement, (7,)).await?;
    assert_eq!(row.map(|(text, number)| (text.len(), number)), Some((20_000, 7)));
    conn.close(statement).await?;
    until_pinned(&front, "prepared statement that cannot be repeated", (1, 0)).await?;
    conn.query_drop(format!("select '{}'", "x".repeat(20_000))).await?;
    until_pinned(&front, "statement that cannot be read", (1, 1)).await?;
    conn.reset().await?;
    until_pinned(&front, "statement that cannot be read", (1, 0)).await?;
    Ok(())
}

#[tokio::test]
async fn an_error_that_leaves_a_transaction_open_keeps_its_connection() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create database shop; create table shop.t (id int primary key); insert into shop.t values (1)")
        .await?;
    let front = Front::start(&[mysql.port()], group("mysql", 1)).await?;
    let mut conn = front.root().await?;
    conn.query_drop("set autocommit = 0").await?;
    assert!(conn.query_drop("insert into shop.t values (1)").await.is_err());
    // What a duplicate has locked stays locked, longer than what the error left to ask for is kept.
    until_pinned(&front, "transaction", (1, 1)).await?;
    conn.query_drop("rollback").await?;
    until_pinned(&front, "transaction", (1, 0)).await?;
    assert!(conn.query_drop("begin; select nonsense").await.is_err());
    until_pinned(&front, "transaction", (2, 1)).await?;
    conn.query_drop("insert into shop.t values (2)").await?;
    conn.disconnect().await?;
    // Who leaves in the midst of it leaves nothing behind.
    let mut other = front.root().await?;
    assert_eq!(other.query::<u32, _>("select id from shop.t for update").await?, [1]);
    Ok(())
}

#[tokio::test]
async fn what_a_trigger_has_set_for_one_client_is_nothing_to_another() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec(
            "create database shop; create table shop.t (id int primary key); \
             create trigger shop.spy before insert on shop.t for each row set @secret = 'of somebody'",
        )
        .await?;
    mysql.exec("create function shop.whisper() returns int no sql begin set @secret = 'whispered'; return 1; end").await?;
    let front = Front::start(&[mysql.port()], group("mysql", 2)).await?;
    let (mut one, mut other) = (front.root().await?, front.root().await?);
    for id in 0..3 {
        one.query_drop(format!("insert into shop.t values ({id})")).await?;
        assert_eq!(other.query_first::<Option<String>, _>("select @secret").await?, Some(None));
        let own: Option<String> = one.query_first("select @secret").await?;
        assert_eq!(own.as_deref(), Some("of somebody"));
    }
    until_pinned(&front, "set by a trigger or routine", (1, 1)).await?;
    one.reset().await?;
    until_pinned(&front, "set by a trigger or routine", (1, 0)).await?;
    let whispered: Option<String> = {
        one.query_drop("select shop.whisper()").await?;
        one.query_first("select @secret").await?
    };
    assert_eq!(whispered.as_deref(), Some("whispered"));
    until_pinned(&front, "called function that may set something", (1, 1)).await?;
    one.reset().await?;
    until_pinned(&front, "called function that may set something", (1, 0)).await?;
    assert_eq!(other.query_first::<Option<String>, _>("select @secret").await?, Some(None));
    Ok(())
}

#[tokio::test]
async fn what_a_server_runs_for_each_new_client_is_there_for_each() -> Result<()> {
    let options = MySqlOptions {
        args: vec!["--init-connect=set @welcome = 'new', sql_mode = 'ANSI'".into()],
        ..MySqlOptions::default()
    };
    let mysql = MySql::start(options).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    let group = json!({"auth": "vault", "users": [{"name": "shop", "password": "secret"}], "pool": {"max": 2, "idle": 2}});
    let front = Front::start(&[mysql.port()], group).await?;
    let (mut one, mut other) = (front.login("shop", "secret").await?, front.login("shop", "secret").await?);
    let asked = "select @welcome, @@sql_mode like '%ANSI%', @@time_zone";
    for _ in 0..3 {
        one.query_drop("set @welcome = 'known', sql_mode = '', time_zone = '+01:00'").await?;
        let seen: Option<(String, bool, String)> = other.query_first(asked).await?;
        assert_eq!(seen, Some(("new".into(), true, "SYSTEM".into())));
        let seen: Option<(String, bool, String)> = one.query_first(asked).await?;
        assert_eq!(seen, Some(("known".into(), false, "+01:00".into())));
    }
    assert!(pool(&front).open <= 2);
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_or_works_leaves_nothing_behind() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key)").await?;
    let front = Front::start(&[mysql.port()], group("mysql", 2)).await?;
    let mut stays = front.root().await?;
    for round in 0..3 {
        let mut held = front.root().await?;
        let mut works = front.root().await?;
        let mut waits = front.root().await?;
        until("all are at rest", async || (pool(&front).in_use == 0).then_some(())).await?;
        held.query_drop("begin").await?;
        held.query_drop(format!("insert into shop.t values ({round})")).await?;
        let works = tokio::spawn(async move { works.query_drop("select sleep(30)").await });
        until("both places are taken", async || (pool(&front).in_use == 2).then_some(())).await?;
        let waits = tokio::spawn(async move { waits.query_drop("select 1").await });
        until("one waits", async || (pool(&front).waiting == 1).then_some(())).await?;
        waits.abort();
        works.abort();
        drop(held);
        stays.query_drop("select 1").await?;
        until("nothing is held", async || {
            let pool = pool(&front);
            (pool.in_use == 0 && pool.waiting == 0).then_some(())
        })
        .await?;
        let asked = "select count(*) from information_schema.innodb_trx";
        until("its transaction is over", async || {
            (mysql.query_one::<u64>(asked).await.ok()? == 0).then_some(())
        })
        .await?;
    }
    assert_eq!(mysql.query_one::<u64>("select count(*) from shop.t").await?, 0);
    Ok(())
}
