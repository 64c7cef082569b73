//! Servers that close, say nonsense, or lie about what comes: their session ends with an error or a close.

use crate::client::{Client, ORDINARY};
use crate::liar::{Liar, Trick, columns};
use crate::yard::{Yard, until};
use anyhow::{Context, Result};
use mysql::protocol::{Capabilities, error_packet, packet};
use serde_json::{Value, json};

/// A command waits five seconds for a server whose connection is lost in these ways; one of each kind shows that with a
/// vault, so these are for relayed logins only, which do not wait.
const WAITS: [&str; 5] = [
    "half a header",
    "more than any greeting",
    "a greeting that is cut",
    "a cut OK",
    "a step as long as a packet can be",
];

fn vault() -> Value {
    json!({"auth": "vault", "users": [{"name": "root"}]})
}

async fn known(yard: &Yard) -> Result<()> {
    until("the server is up and known", async || {
        let backend = yard.trapped()?;
        (backend.state == "up" && backend.version.is_some()).then_some(())
    })
    .await
}

/// A header that promises `length`, and less behind it.
fn promise(sequence: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let length = length.to_le_bytes();
    [&[length[0], length[1], length[2], sequence], payload].concat()
}

#[tokio::test]
async fn a_server_that_does_not_greet_as_servers_do_is_told_of_and_comes_back() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    for group in [json!({}), vault()] {
        let mut yard = Yard::start(Some(liar.port), group.clone()).await?;
        let relayed = group.get("auth").is_none();
        for (what, bytes) in [
            ("closes after accept", vec![]),
            ("half a header", vec![9, 0]),
            ("garbage", b"SSH-2.0-OpenSSH_9.2\r\n".repeat(10)),
            ("zeros", vec![0; 1000]),
            ("an empty packet", packet(0, b"")),
            ("another protocol's number", packet(0, b"\x09old\0")),
            ("a greeting that is cut", promise(0, 100, b"\x0a9.7.0\0")),
            ("more than any greeting", promise(0, 0xff_fffe, &[10; 5000])),
            ("too many connections", error_packet(0, 1040, b"08004", "Too many connections")),
        ] {
            if !relayed && WAITS.contains(&what) {
                continue;
            }
            liar.does(Trick::Honest);
            known(&yard).await?;
            liar.does(Trick::Greets(bytes));
            let mut client = Client::connect(yard.trap).await?;
            let greeted = client.greeting().await.is_ok();
            assert!(greeted, "{what}: the mesh knows what it greeted with before");
            client.say(&packet(1, &crate::client::request(ORDINARY).write())).await;
            let mut answer = client.hear().await.context(what)?.context(what)?;
            if !relayed {
                assert_eq!(answer.1.first(), Some(&0), "{what}: the mesh itself lets it in");
                client.query("select 1").await;
                answer = client.hear().await.context(what)?.context(what)?;
            }
            let error = mysql::protocol::ServerError::read(&answer.1)?;
            let expected: &[u16] = if what == "too many connections" { &[1040, 1158] } else { &[1158] };
            assert!(answer.1[0] == 0xff && expected.contains(&error.number), "{what}: {error:?}");
            if !relayed {
                // It stays, and is served once there is a server again.
                liar.does(Trick::Honest);
                known(&yard).await?;
                client.query("select 1").await;
                assert_eq!(client.hear().await?.map(|(_, payload)| payload), Some(vec![1]), "{what}");
            }
            drop(client);
            yard.quiet().await.context(what)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_lies_in_a_login_is_not_believed() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    for group in [json!({}), vault()] {
        let relayed = group.get("auth").is_none();
        let mut yard = Yard::start(Some(liar.port), group).await?;
        for (what, bytes) in [
            ("closes", vec![]),
            ("a cut OK", promise(2, 7, &[0, 0])),
            ("a cut error", packet(2, &[0xff, 1])),
            ("a switch without an end", packet(2, b"\xfecaching_sha2")),
            ("a switch to nothing", packet(2, b"\xfe")),
            ("an unknown step", packet(2, &[77, 1, 2, 3])),
            ("an empty step", packet(2, b"")),
            ("a step as long as a packet can be", promise(2, 0xff_ffff, &[0; 100_000])),
            ("a key that is none", packet(2, b"\x01-----BEGIN X-----\nAAAA\n-----END X-----")),
        ] {
            if !relayed && WAITS.contains(&what) {
                continue;
            }
            liar.does(Trick::Honest);
            known(&yard).await?;
            liar.does(Trick::LetsIn(bytes));
            let mut client = Client::connect(yard.trap).await?;
            client.greeting().await?;
            client.say(&packet(1, &crate::client::request(ORDINARY).write())).await;
            if !relayed {
                let answer = client.hear().await?.context(what)?;
                assert_eq!(answer.1.first(), Some(&0), "{what}");
                client.query("select 1").await;
                let (_, payload) = client.hear().await.context(what)?.context(what)?;
                assert_eq!(payload.first(), Some(&0xff), "{what}");
            } else if let Some((number, payload)) = client.hear().await.context(what)?
                && payload.first() != Some(&0xff)
            {
                // A step that was passed on: the client answers it, and then the end comes.
                client.say(&packet(number.wrapping_add(1), b"")).await;
                client.last_words().await.context(what)?;
            }
            drop(client);
            yard.quiet().await.context(what)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_lies_about_its_lengths_ends_its_own_session_only() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let eof: &[u8] = &packet(3, &[0xfe, 0, 0, 2, 0]);
    let long_error = [&[0xff, 0x28, 0x04, b'#'][..], &b"4".repeat(20_000)].concat();
    for group in [json!({}), vault()] {
        let relayed = group.get("auth").is_none();
        let mut yard = Yard::start(Some(liar.port), group).await?;
        for (what, bytes) in [
            ("closes", vec![]),
            ("half a header", vec![1, 0]),
            ("an empty packet", packet(1, b"")),
            ("more than comes", promise(1, 5000, &[0, 0, 0])),
            ("as much as a packet can be", promise(1, 0xff_ffff, &[1; 3000])),
            (
                "a row that is longer than it comes",
                [&columns(), eof, &promise(4, 90_000, &[1; 70_000])].concat(),
            ),
            ("an error that is longer than any", packet(1, &long_error)),
            ("half of such an error", promise(1, 20_000, &long_error[..9_000])),
            ("more columns than come", packet(1, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
            ("a number of columns that is none", packet(1, &[0xfc])),
            ("a file of nobody", packet(1, b"\xfb")),
            ("an OK of nothing", packet(1, &[0])),
            (
                "a second answer",
                [packet(1, &[0, 0, 0, 2, 0, 0, 0]), packet(1, &[0, 0, 0, 2, 0, 0, 0])].concat(),
            ),
            ("garbage", b"Lorem ipsum dolor sit amet".repeat(100)),
        ] {
            liar.does(Trick::Honest);
            known(&yard).await?;
            let mut client = Client::connect(yard.trap).await?;
            client.login(ORDINARY).await?;
            client.query("select 1").await;
            for _ in 0..5 {
                client.hear().await?.context("an honest answer")?;
            }
            let lies = liar.answered();
            liar.does(Trick::Answers(bytes));
            client.query("select 1").await;
            until("it has lied", async || (liar.answered() > lies).then_some(())).await?;
            if what == "a file of nobody" {
                client.hear().await?.context(what)?;
                client.say(&packet(2, b"")).await;
            }
            liar.does(Trick::Honest);
            if relayed {
                client.last_words().await.context(what)?;
            } else if matches!(what, "closes" | "half a header") {
                // Nothing of the answer has come: it is told once, and the session goes on.
                let (number, payload) = client.hear().await?.context(what)?;
                assert_eq!((number, payload.first()), (1, Some(&0xff)), "{what}");
                client.query("select 1").await;
                assert_eq!(client.hear().await?.map(|(_, payload)| payload), Some(vec![1]), "{what}");
            }
            drop(client);
            yard.quiet().await.context(what)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_endless_row_takes_two_buffers_and_ends_with_its_client() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let eof = packet(3, &[0xfe, 0, 0, 2, 0]);
    for group in [json!({}), vault()] {
        let mut yard = Yard::start(Some(liar.port), group).await?;
        known(&yard).await?;
        for again in [promise(4, 0xff_ffff, &vec![1; 0xff_ffff]), packet(4, b"\x011"), packet(4, b"")] {
            liar.does(Trick::Endless(
                [columns(), eof.clone()].concat(),
                again.repeat((100_000 / again.len()).max(1)),
            ));
            let mut client = Client::connect(yard.trap).await?;
            client.login(ORDINARY).await?;
            client.query("select 1").await;
            let mut piece = vec![0; 65536];
            for _ in 0..500 {
                tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut piece).await?;
                let bytes = yard.status().buffer_bytes;
                assert!(bytes <= 3 * 16 * 1024, "{bytes} bytes are held");
            }
            // A client that reads no more holds up nobody but itself, and then is gone.
            liar.does(Trick::Honest);
            drop(client);
            yard.quiet().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_lie_to_the_mesh_itself_is_survived_by_its_monitor_and_by_its_sessions() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let long = [&[0xff, 0x28, 0x04, b'#'][..], &b"4".repeat(20_000)].concat();
    let mut group = vault();
    group["monitor"] = json!({"user": "root"});
    let mut yard = Yard::start(Some(liar.port), group).await?;
    for bytes in [
        packet(1, &long),
        packet(1, &[0xff]),
        packet(1, b"\xfbfile"),
        [columns(), packet(3, &[0xff; 30])].concat(),
        [columns(), packet(3, &[200; 30])].concat(),
        packet(1, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ] {
        liar.does(Trick::Honest);
        known(&yard).await?;
        liar.does(Trick::Answers(bytes));
        until("the monitor has met the lie", async || yard.trapped()?.error).await?;
    }
    liar.does(Trick::Honest);
    known(&yard).await?;
    until("the monitor is content", async || {
        yard.trapped().filter(|backend| backend.error.is_none()).map(|_| ())
    })
    .await?;
    yard.quiet().await
}

#[tokio::test]
async fn a_lie_while_a_session_is_set_up_again_ends_nothing_but_the_command() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let long = [&[0xff, 0x28, 0x04, b'#'][..], &b"4".repeat(20_000)].concat();
    let mut group = vault();
    group["read_write_split"] = true.into();
    let mut yard = Yard::start(Some(liar.port), group).await?;
    known(&yard).await?;
    let mut client = Client::connect(yard.trap).await?;
    client.login(ORDINARY).await?;
    client.query("set time_zone = '+08:00'").await;
    client.hear().await?.context("the setting is taken")?;
    // The connection is lost with the next command; the one after logs in again and says what was set.
    liar.does(Trick::Answers(vec![]));
    client.query("insert into t values (1)").await;
    assert_eq!(client.hear().await?.and_then(|(_, payload)| payload.first().copied()), Some(0xff));
    for bytes in [packet(1, &long), packet(1, &[0xff]), packet(1, &[0xfb]), packet(1, &[1])] {
        liar.does(Trick::Answers(bytes));
        client.query("insert into t values (2)").await;
        assert_eq!(client.hear().await?.and_then(|(_, payload)| payload.first().copied()), Some(0xff));
    }
    liar.does(Trick::Honest);
    known(&yard).await?;
    client.query("insert into t values (3)").await;
    assert!(client.hear().await?.is_some_and(|(_, payload)| payload.first() != Some(&0xff)));
    drop(client);
    yard.quiet().await
}
