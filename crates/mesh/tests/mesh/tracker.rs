//! What servers say of themselves that a statement has set, where nobody could read it in its text.

use crate::raw::Raw;
use crate::support::{Front, until};
use anyhow::{Context, Result, bail};
use mysql::protocol::Capabilities;
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

/// The only value of the only row of an answer.
async fn value(raw: &mut Raw, sql: &str) -> Result<String> {
    raw.send(format!("\x03{sql}").as_bytes()).await?;
    let (mut ends, mut row) = (0, None);
    while ends < 2 {
        let (_, payload) = raw.hear().await?;
        match payload.first() {
            Some(0xfe) if payload.len() < 9 => ends += 1,
            Some(0xff) => bail!("{sql}: {}", String::from_utf8_lossy(&payload)),
            _ if ends == 1 => row = payload.get(1..).map(|text| String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
    }
    row.context("a row")
}

#[tokio::test]
async fn what_a_trigger_sets_stays_with_its_session() -> Result<()> {
    const HOUR: &str = "select date_format(from_unixtime(0), '%H')";
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec(
            "set global time_zone = '+00:00'; create database shop; create table shop.t (id int primary key); \
             create trigger shop.spy before insert on shop.t for each row set time_zone = '+05:00'",
        )
        .await?;
    let group = json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 2, "idle": 2}});
    let front = Front::start(&[mysql.port()], group).await?;
    let mut one = Raw::login(front.address, Capabilities::SESSION_TRACK).await?;
    let mut other = Raw::login(front.address, Capabilities::SESSION_TRACK).await?;
    // What is set by a text is said again elsewhere, and nothing is kept for it.
    assert_eq!(one.error(b"\x03set time_zone = '+02:00'").await?, None);
    assert_eq!(value(&mut other, HOUR).await?, "00");
    assert_eq!(value(&mut one, HOUR).await?, "02");
    let pinned = || front.mesh.status().groups[0].pins.values().map(|pin| pin.now).sum::<u64>();
    assert_eq!(pinned(), 0);
    assert_eq!(one.error(b"\x03insert into shop.t values (1)").await?, None);
    until("the session is pinned", async || (pinned() == 1).then_some(())).await?;
    assert_eq!(value(&mut other, HOUR).await?, "00");
    assert_eq!(value(&mut one, HOUR).await?, "05");
    // Its connection ends with it.
    drop(one);
    until("the session has ended", async || (front.mesh.status().sessions == 1).then_some(())).await?;
    for _ in 0..3 {
        assert_eq!(value(&mut other, HOUR).await?, "00");
    }
    Ok(())
}

/// Settings of what is tracked, and what a server tells of itself, in every way that a client could see it.
const TOLD: &[&[u8]] = &[
    b"\x03set names latin1",
    b"\x03set time_zone = '+02:00', autocommit = 1",
    b"\x03use shop",
    b"\x02mysql",
    b"\x02shop",
    b"\x03set @a = 1",
    b"\x03select @a",
    b"\x03begin",
    b"\x03insert into t values (1, 1)",
    b"\x03select count(*) from t",
    b"\x03commit",
    b"\x03update t set n = 2 where id = 1",
    b"\x03set sql_mode = concat(@@sql_mode, ',ANSI_QUOTES')",
    b"\x03select @@sql_mode",
    b"\x03select @@session_track_state_change, @@session_track_system_variables, @@session_track_schema",
    b"\x03select 1",
    b"\x03show variables like 'session_track%'",
    b"\x03insert into fired values (1)",
    b"\x03select @spied, @@time_zone",
    b"\x03do 0",
    b"\x03select * from spies",
    b"\x03call twice()",
    b"\x03update t set n = n + 1; select n from t; set @b = 7; select @b",
    b"\x0e",
    b"\x03selec",
    b"\x03select 1/0",
    b"\x1f",
    b"\x03select @a, @@sql_mode",
    b"\x03use shop",
    b"\x03delete from t; delete from fired",
    // The client decides for itself.
    b"\x03set session_track_state_change = 1",
    b"\x03set @b = 1",
    b"\x03select @@session_track_state_change, @b",
    b"\x03set session session_track_state_change = default",
    b"\x03set @b = 2",
    b"\x03set session_track_system_variables = 'sql_mode,time_zone', session_track_schema = 0",
    b"\x03set sql_mode = 'ANSI'",
    b"\x03set names utf8mb4",
    b"\x03use mysql",
    b"\x03show variables like '%track%'",
    b"\x1f",
    b"\x03use shop",
    b"\x03set sql_mode = 'ANSI'",
    b"\x03select @@session_track_state_change",
    b"\x03create database passing",
    b"\x03use passing",
    b"\x03drop database passing",
];

#[tokio::test]
async fn a_client_is_told_of_its_session_what_it_would_be_told_without_the_mesh() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec(
            "create database shop; create table shop.t (id int primary key, n int); create table shop.fired (id int); \
             create trigger shop.spy before insert on shop.fired for each row set @spied = new.id, time_zone = '-02:00'",
        )
        .await?;
    mysql.exec("create function shop.spied() returns int no sql begin set @mine = 2; return 1; end").await?;
    mysql.exec("create view shop.spies as select shop.spied()").await?;
    mysql.exec("create procedure shop.twice() begin select 1; set @c = 5; select @c; end").await?;
    let group = json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 4, "idle": 4}});
    let direct = std::net::SocketAddr::from(([127, 0, 0, 1], mysql.port()));
    let fronts = [
        Front::start(&[mysql.port()], group.clone()).await?,
        Front::start_chaos(&[mysql.port()], group).await?,
    ];
    let none = Capabilities::MULTI_STATEMENTS;
    for more in [
        none,
        none | Capabilities::SESSION_TRACK,
        none | Capabilities::DEPRECATE_EOF,
        none | Capabilities::SESSION_TRACK | Capabilities::DEPRECATE_EOF,
    ] {
        let mut raw = Raw::login(direct, more).await?;
        let mut expected = Vec::new();
        for command in TOLD {
            expected.push(raw.answer(command, more).await?);
        }
        for front in &fronts {
            let mut raw = Raw::login(front.address, more).await?;
            for (command, expected) in TOLD.iter().zip(&expected) {
                let heard = raw.answer(command, more).await?;
                assert_eq!(
                    String::from_utf8_lossy(&heard),
                    String::from_utf8_lossy(expected),
                    "{more:?} {}",
                    String::from_utf8_lossy(command)
                );
                assert_eq!(&heard, expected, "{}", String::from_utf8_lossy(command));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_runs_unseen_pins_whether_or_not_the_client_asks_for_tracking() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec(
            "create database shop; create table shop.t (id int primary key); \
             create trigger shop.spy before insert on shop.t for each row set @secret = 'of somebody'",
        )
        .await?;
    mysql.exec("create function shop.whisper() returns int no sql begin set @secret = 'whispered'; return 1; end").await?;
    mysql.exec("create view shop.whispers as select shop.whisper() as one").await?;
    let group = json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 2, "idle": 2}});
    let front = Front::start(&[mysql.port()], group).await?;
    let mut one = Raw::login(front.address, Capabilities::DEPRECATE_EOF).await?;
    let mut other = Raw::login(front.address, Capabilities(0)).await?;
    let pinned = |reason: &str| front.mesh.status().groups[0].pins.get(reason).map_or(0, |pin| pin.now);
    assert_eq!(one.error(b"\x03insert into shop.t values (1)").await?, None);
    until("it is pinned", async || (pinned("set by a trigger or routine") == 1).then_some(())).await?;
    let secret = async |raw: &mut Raw, more| {
        let answer = raw.answer(b"\x03select @secret", more).await?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    assert!(secret(&mut one, Capabilities::DEPRECATE_EOF).await?.contains("of somebody"));
    assert!(!secret(&mut other, Capabilities(0)).await?.contains("of somebody"));
    // A reset ends it, and the next reason is a view's.
    one.answer(b"\x1f", Capabilities::DEPRECATE_EOF).await?;
    until("it is free", async || (pinned("set by a trigger or routine") == 0).then_some(())).await?;
    one.answer(b"\x03select one from shop.whispers", Capabilities::DEPRECATE_EOF).await?;
    until("it is pinned again", async || (pinned("set by a trigger or routine") == 1).then_some(())).await?;
    assert!(secret(&mut one, Capabilities::DEPRECATE_EOF).await?.contains("whispered"));
    Ok(())
}

/// What drivers and frameworks say when they have connected, with values that are computed.
const HELLOS: &[&str] = &[
    // sqlx
    "SET sql_mode=(SELECT CONCAT(@@sql_mode, ',PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION')),time_zone='+00:00',NAMES utf8mb4 COLLATE utf8mb4_unicode_ci;",
    // Rails
    "SET @@SESSION.sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'), @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483",
    // mysqldump and others restore what was
    "SET SESSION group_concat_max_len = @@group_concat_max_len * 2",
];

#[tokio::test]
async fn drivers_that_compute_their_settings_share_connections() -> Result<()> {
    let asked =
        "select @@sql_mode, @@time_zone, @@collation_connection, @@wait_timeout, @@group_concat_max_len";
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let group = json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 1, "idle": 1}});
    let front = Front::start(&[mysql.port()], group).await?;
    type Seen = (String, String, String, u64, u64);
    let mut sessions = Vec::new();
    for hello in HELLOS {
        let mut direct = mysql.conn().await?;
        direct.query_drop(*hello).await?;
        let expected: Option<Seen> = direct.query_first(asked).await?;
        let mut conn = front.root().await?;
        conn.query_drop(*hello).await?;
        sessions.push((conn, expected));
    }
    let mut plain = front.root().await?;
    let untouched: Option<Seen> = mysql.conn().await?.query_first(asked).await?;
    for _ in 0..3 {
        for (conn, expected) in &mut sessions {
            assert_eq!(&conn.query_first::<Seen, _>(asked).await?, expected);
        }
        assert_eq!(plain.query_first::<Seen, _>(asked).await?, untouched);
    }
    // All of it on one connection, which nothing kept.
    assert_eq!(front.mesh.status().groups[0].pins, std::collections::BTreeMap::new());
    Ok(())
}
