//! Connections that are shared: one client's nonsense, and a server's, reach nobody else.

use crate::client::{Client, ORDINARY};
use crate::liar::{Liar, Trick, columns};
use crate::yard::{Yard, until};
use anyhow::{Context, Result};
use mysql::protocol::{Capabilities, ServerError, packet};
use serde_json::{Value, json};

fn shared(max: u32) -> Value {
    json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": max, "idle": max}})
}

/// The packets of an answer of this many.
async fn hear(client: &mut Client, packets: usize) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for _ in 0..packets {
        all.push(client.hear().await?.context("an answer")?.1);
    }
    Ok(all)
}

fn about(command: u8, number: u32, rest: &[u8]) -> Vec<u8> {
    packet(0, &[&[command][..], &number.to_le_bytes(), rest].concat())
}

#[tokio::test]
async fn the_number_of_somebody_elses_statement_is_nobodys() -> Result<()> {
    let mut yard = Yard::start(None, shared(1)).await?;
    let (mut owner, mut thief) = (Client::connect(yard.trap).await?, Client::connect(yard.trap).await?);
    owner.login(ORDINARY).await?;
    thief.login(ORDINARY).await?;
    owner.say(&packet(0, b"\x16select 'secret'")).await;
    // The number, one definition, an end.
    let prepared = hear(&mut owner, 3).await?;
    let number = u32::from_le_bytes(prepared[0][1..5].try_into()?);
    // All numbers that the server may have given to it.
    for guess in (0..40).chain([number, u32::MAX]) {
        for (command, rest) in [(0x17, &[0, 1, 0, 0, 0][..]), (0x1c, &[1, 0, 0, 0]), (0x1a, &[])] {
            thief.say(&about(command, guess, rest)).await;
            let told = ServerError::read(&hear(&mut thief, 1).await?[0])?;
            assert_eq!(told.number, 1243, "{told:?}");
        }
        // Neither of them is answered.
        thief.say(&about(0x18, guess, b"\0\0data")).await;
        thief.say(&about(0x19, guess, b"")).await;
    }
    thief.say(&packet(0, b"\x0e")).await;
    assert_eq!(hear(&mut thief, 1).await?[0][0], 0);
    owner.say(&about(0x17, number, &[0, 1, 0, 0, 0])).await;
    let row = &hear(&mut owner, 5).await?[3];
    assert!(row.ends_with(b"secret"), "{row:?}");
    drop((owner, thief));
    yard.quiet().await
}

#[tokio::test]
async fn a_lie_on_a_shared_connection_ends_that_connection_and_its_place_is_free() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let mut yard = Yard::start(Some(liar.port), shared(2)).await?;
    let mut client = Client::connect(yard.trap).await?;
    client.login(ORDINARY).await?;
    let long = [&[0xff, 0x28, 0x04, b'#'][..], &b"4".repeat(20_000)].concat();
    for bytes in [
        Vec::new(),
        packet(1, &long),
        packet(1, &[0xff]),
        packet(7, &[0; 3]),
        [columns(), packet(3, &[0xff; 30])].concat(),
        // An answer, and something behind it that nobody asked for.
        [packet(1, &[0, 0, 5, 2, 0, 0, 0]), packet(0, &[0xff, 0x28, 0x04])].concat(),
        // A transaction that never ends, and a warning.
        packet(1, &[0, 0, 0, 3, 0, 1, 0]),
    ] {
        until("the server is up", async || (yard.trapped()?.state == "up").then_some(())).await?;
        liar.does(Trick::Answers(bytes));
        let mut other = Client::connect(yard.trap).await?;
        other.login(ORDINARY).await?;
        other.query("insert into t values (1)").await;
        let _ = other.hear().await?;
        drop(other);
        liar.does(Trick::Honest);
        until("the server is up", async || (yard.trapped()?.state == "up").then_some(())).await?;
        client.query("set @a = 1").await;
        assert_eq!(hear(&mut client, 1).await?[0][0], 0);
        until("nobody has a place", async || {
            let pool = yard.trapped()?.pool?;
            (pool.in_use == 0 && pool.waiting == 0 && pool.open <= 2).then_some(())
        })
        .await?;
    }
    drop(client);
    yard.quiet().await
}
