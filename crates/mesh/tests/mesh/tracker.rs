//! What servers say of themselves that a statement has set, where nobody could read it in its text.

use crate::raw::Raw;
use crate::support::{Front, until};
use anyhow::{Context, Result, bail};
use mysql::protocol::Capabilities;
use serde_json::json;
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
