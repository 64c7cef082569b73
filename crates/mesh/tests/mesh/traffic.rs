//! What passes: every form of question and answer, whole and in order.

use crate::support::Front;
use anyhow::Result;
use futures_util::StreamExt;
use serde_json::json;
use testkit::mysql_async::prelude::*;
use testkit::mysql_async::{Conn, Opts};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

/// The same conversation direct and through the mesh must be the same to the letter.
pub async fn conversation(conn: &mut Conn) -> Result<Vec<String>> {
    let mut heard = Vec::new();
    let mut note = |text: String| heard.push(text);
    conn.query_drop(
        "create table if not exists t (id int primary key, name text, data longblob) charset utf8mb4",
    )
    .await?;
    conn.query_drop("delete from t").await?;
    conn.query_drop("insert into t values (1, 'one', null), (2, '二', 'x')").await?;
    note(format!("affected {}", conn.affected_rows()));
    let rows: Vec<(i32, Option<String>)> = conn.query("select id, name from t order by id").await?;
    note(format!("{rows:?}"));
    // No rows; an error; several results of one text.
    let none: Vec<i32> = conn.query("select id from t where id = 99").await?;
    note(format!("{none:?}"));
    note(format!("{:?}", conn.query_drop("select nonsense from t").await.map_err(|error| error.to_string())));
    let mut results = conn.query_iter("select 1; select 'a', 'b'; do 0; select 2").await?;
    loop {
        let rows: Vec<testkit::mysql_async::Row> = results.collect().await?;
        note(format!("{rows:?}"));
        if results.is_empty() {
            break;
        }
    }
    drop(results);
    // Prepared statements: parameters, no rows, many rows, again, closed.
    let select = conn.prep("select id, name from t where id >= ? order by id").await?;
    for low in [1, 2, 3] {
        let rows: Vec<(i32, String)> = conn.exec(&select, (low,)).await?;
        note(format!("{rows:?}"));
    }
    conn.close(select).await?;
    note(format!(
        "{:?}",
        conn.prep("select * from missing").await.map(|_| ()).map_err(|error| error.to_string())
    ));
    // A transaction that is rolled back, and one that stays.
    conn.query_drop("begin").await?;
    conn.query_drop("update t set name = 'gone' where id = 1").await?;
    conn.query_drop("rollback").await?;
    let mut transaction = conn.start_transaction(Default::default()).await?;
    transaction.query_drop("update t set name = 'kept' where id = 2").await?;
    transaction.commit().await?;
    let names: Vec<String> = conn.query("select name from t order by id").await?;
    note(format!("{names:?}"));
    // Long answers and long questions.
    conn.query_drop(format!("insert into t values (3, 'long', '{}')", "z".repeat(3_000_000))).await?;
    let long: Option<Vec<u8>> = conn.query_first("select data from t where id = 3").await?;
    note(format!("{} bytes", long.map_or(0, |data| data.iter().filter(|byte| **byte == b'z').count())));
    conn.ping().await?;
    let database: Option<String> = conn.query_first("select database()").await?;
    note(format!("{database:?}"));
    Ok(heard)
}

async fn alike(server: &SqlServer, kind: &str) -> Result<()> {
    server.exec("create database shop").await?;
    let direct: Opts =
        testkit::mysql_async::OptsBuilder::from_opts(server.opts()).db_name(Some("shop")).into();
    let direct = conversation(&mut Conn::new(direct).await?).await?;
    assert!(direct.len() > 10);
    let vault = json!({"kind": kind, "auth": "vault", "users": [{"name": "root"}]});
    let mut shared = vault.clone();
    shared["pool"] = json!({"max": 1, "idle": 1});
    for group in [json!({"kind": kind}), vault, shared] {
        let front = Front::start(&[server.port()], group).await?;
        let opts: Opts = front.opts("root", "").db_name(Some("shop")).into();
        let through = conversation(&mut Conn::new(opts).await?).await?;
        assert_eq!(direct, through);
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_with_mysql_is_the_same_through_the_mesh() -> Result<()> {
    alike(&*MySql::start(MySqlOptions::default()).await?, "mysql").await
}

#[tokio::test]
async fn a_conversation_with_mariadb_is_the_same_through_the_mesh() -> Result<()> {
    alike(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql").await
}

#[tokio::test]
async fn a_conversation_with_tidb_is_the_same_through_the_mesh() -> Result<()> {
    alike(&*TiDb::start(TiDbOptions::default()).await?, "tidb").await
}

#[tokio::test]
async fn a_statement_is_cancelled_by_the_number_that_its_client_knows() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    for (group, relayed) in
        [(json!({}), true), (json!({"auth": "vault", "users": [{"name": "root"}]}), false)]
    {
        let front = Front::start(&[mysql.port()], group).await?;
        let (mut slow, mut killer) = (front.root().await?, front.root().await?);
        let id = slow.id();
        assert!(i32::try_from(id).is_ok(), "{id}: Java's drivers would kill a number below zero");
        let waiting = tokio::spawn(async move {
            let answer: Option<u32> = slow.query_first("select sleep(30)").await?;
            Ok::<_, anyhow::Error>((answer, slow))
        });
        let asked = "select id from information_schema.processlist where info = 'select sleep(30)'";
        let server_id =
            crate::support::until("the server sleeps", async || mysql.query_one::<u64>(asked).await.ok())
                .await?;
        killer.query_drop(format!("KILL QUERY {id}")).await?;
        // SLEEP says that it was woken by its answer.
        let (answer, mut slow) = waiting.await??;
        assert_eq!(answer, Some(1));
        // The number of nobody is the server's to refuse.
        assert!(killer.query_drop("kill 4000000000").await.is_err());
        killer.query_drop(format!("kill {id}")).await?;
        // KILL is answered before the connection is gone; a statement that came in between would be lost with it.
        let left = format!("select count(*) from information_schema.processlist where id = {server_id}");
        crate::support::until("the server has let go of it", async || {
            (mysql.query_one::<u64>(&left).await.ok()? == 0).then_some(())
        })
        .await?;
        // A session that can log in again does not notice.
        let noticed = slow.query_drop("select 1").await.is_err();
        assert_eq!(noticed, relayed);
    }
    Ok(())
}

#[tokio::test]
async fn statements_are_counted_with_their_literals_left_out() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key)").await?;
    let front = Front::start(&[mysql.port()], json!({})).await?;
    let mut conn = front.root().await?;
    for id in 0..10 {
        conn.query_drop(format!("insert into shop.t values ({id})")).await?;
        let _: Vec<u32> = conn.exec("select id from shop.t where id < ?", (id + 1,)).await?;
    }
    assert!(conn.query_drop("insert into shop.t values (0)").await.is_err());
    // An answer is counted once it has been sent: a moment after its client has it.
    let list = crate::support::until("the error is counted", async || {
        let list = front.mesh.digests();
        list.iter().any(|digest| digest.errors == 1).then_some(list)
    })
    .await?;
    let of = |text: &str| {
        list.iter().find(|digest| digest.text == text).unwrap_or_else(|| panic!("{text} in {list:?}"))
    };
    let insert = of("INSERT INTO `shop` . `t` VALUES (?)");
    assert_eq!((insert.calls, insert.errors, insert.rows), (11, 1, 0));
    let select = of("SELECT `id` FROM `shop` . `t` WHERE `id` < ?");
    assert_eq!((select.calls, select.errors, select.rows), (10, 0, 55));
    conn.query_drop("select sleep(1.1), 'secret'").await?;
    let sleep = "SELECT `sleep` (?) , ?";
    let slow = crate::support::until("the slow one is there", async || {
        front.mesh.slow().into_iter().find(|slow| slow.text == sleep)
    })
    .await?;
    assert!(
        slow.elapsed_us >= 1_100_000
            && slow.user == "root"
            && slow.server.ends_with(&mysql.port().to_string()),
        "{slow:?}"
    );
    assert!(!format!("{:?}", front.mesh.slow()).contains("secret"));
    assert!(select.p50_us > 0 && select.p99_us >= select.p50_us && select.max_us >= select.p99_us);
    Ok(())
}

#[tokio::test]
async fn packets_over_16_mib_pass_in_both_directions() -> Result<()> {
    let options = MySqlOptions {
        args: vec!["--max-allowed-packet=64M".into(), "--innodb-redo-log-capacity=256M".into()],
        ..MySqlOptions::default()
    };
    let mysql = MySql::start(options).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key, data longblob)").await?;
    let front = Front::start(&[mysql.port()], json!({})).await?;
    let opts: Opts = front.opts("root", "").db_name(Some("shop")).max_allowed_packet(Some(64 << 20)).into();
    let mut conn = Conn::new(opts).await?;
    // Just below, at and above what one packet holds, and more than two.
    for (id, bytes) in [(1, 0xff_ffff - 40), (2, 0xff_ffff), (3, 0x100_0000), (4, 0x210_0000_usize)] {
        let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        conn.exec_drop("insert into t values (?, ?)", (id, &data)).await?;
        let back: Option<Vec<u8>> = conn.exec_first("select data from t where id = ?", (id,)).await?;
        assert!(back.is_some_and(|back| back == data), "{bytes} bytes come back");
    }
    assert!(front.mesh.status().buffer_bytes <= 4 * 16 * 1024, "{}", front.mesh.status().buffer_bytes);
    Ok(())
}

#[tokio::test]
async fn a_file_of_the_client_is_loaded_and_one_that_the_server_refuses_ends_in_its_error() -> Result<()> {
    let mysql =
        MySql::start(MySqlOptions { args: vec!["--local-infile=ON".into()], ..MySqlOptions::default() })
            .await?;
    mysql.exec("create database shop; create table shop.t (id int primary key, name varchar(20))").await?;
    let front = Front::start(&[mysql.port()], json!({})).await?;
    let mut text = String::new();
    for id in 0..200_000 {
        text.push_str(&format!("{id}\tname {id}\n"));
    }
    let bytes = text.into_bytes();
    let mut conn = front.root().await?;
    for expected in [true, false] {
        let data = bytes.clone();
        conn.set_infile_handler(async move {
            Ok(futures_util::stream::once(async move { Ok(data.into()) }).boxed())
        });
        let sql = if expected {
            "load data local infile 'rows' into table shop.t"
        } else {
            // A server in strict mode refuses the second load at its first row, and still reads the rest.
            "load data local infile 'rows' into table shop.missing"
        };
        assert_eq!(conn.query_drop(sql).await.is_ok(), expected);
    }
    let count: Option<u64> = conn.query_first("select count(*) from shop.t").await?;
    assert_eq!(count, Some(200_000));
    Ok(())
}
