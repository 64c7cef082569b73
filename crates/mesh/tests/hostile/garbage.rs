//! Clients that speak something else, speak too slowly, or claim what was not agreed on.

use crate::client::{Client, ORDINARY, request};
use crate::liar::{Liar, one_row};
use crate::yard::{PATIENCE, Yard, until};
use anyhow::{Context, Result};
use mysql::protocol::{Capabilities, packet};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn garbage_on_the_port_ends_its_own_session_only() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    let random: Vec<u8> = (0..3000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("half a header", vec![5]),
        ("an empty packet", vec![0, 0, 0, 1]),
        ("many empty packets", [0, 0, 0, 1].repeat(1000)),
        ("another protocol", b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n".to_vec()),
        ("TLS at once", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)),
        ("zeros", vec![0; 5000]),
        ("ones", vec![0xff; 5000]),
        ("letters", b"a".repeat(100_000)),
        ("no order", random),
        ("a quit without a login", packet(1, &[1])),
        ("a question without a login", packet(1, b"\x03select 1")),
        (
            "a TLS request where there is none",
            packet(1, &request(ORDINARY | Capabilities::TLS).write_tls_request()),
        ),
    ];
    let before = yard.status();
    for (what, bytes) in &garbage {
        let mut client = Client::connect(yard.trap).await?;
        client.greeting().await?;
        client.say(bytes).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.ok();
        let error = client.last_words().await.context(*what)?;
        if let Some(error) = error {
            assert!(matches!(error.number, 1043 | 1251), "{what}: {error:?}");
        }
    }
    yard.quiet().await?;
    let after = yard.status();
    let count = garbage.len() as u64;
    assert_eq!((after.accepted - before.accepted, after.refused - before.refused), (count, count));
    Ok(())
}

#[tokio::test]
async fn a_login_that_is_cut_at_any_byte_ends_in_an_error_or_a_close() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    let mut whole = request(ORDINARY | Capabilities::CONNECT_ATTRIBUTES);
    whole.attributes = b"\x04_pid\x0242".to_vec();
    let payload = whole.write();
    let before = yard.status();
    // The account has no password: what is left of its login may be enough for the server.
    let mut entered = 0;
    for end in 0..payload.len() {
        // The connection ends there; or the packet does, and the client waits for an answer.
        for ends in [true, false] {
            let mut client = Client::connect(yard.trap).await?;
            client.greeting().await?;
            if ends {
                client.say(&packet(1, &payload)[..4 + end]).await;
                drop(client);
                continue;
            }
            client.say(&packet(1, &payload[..end])).await;
            let heard = client.hear().await.with_context(|| format!("cut at {end}"))?;
            // Without the last fields it is still a login, and the server asks for its proof, or does not need it.
            let name_end = 32 + b"root\0".len();
            let first = heard.and_then(|(_, payload)| payload.first().copied());
            if end > name_end {
                assert!(matches!(first, Some(0 | 0xfe | 0xff)), "cut at {end}: {first:?}");
                entered += u64::from(first == Some(0));
            } else {
                assert_eq!(first, Some(0xff), "cut at {end}");
            }
        }
    }
    yard.quiet().await?;
    let after = yard.status();
    let count = payload.len() as u64 * 2;
    assert_eq!((after.accepted - before.accepted, after.refused - before.refused), (count, count - entered));
    assert!(entered < 8, "{entered} of them are whole logins");
    Ok(())
}

#[tokio::test]
async fn clients_that_send_a_byte_a_second_are_sent_away_all_at_once() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    let before = yard.status();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let address = yard.trap;
        slow.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await?;
            client.greeting().await?;
            let login = packet(1, &request(ORDINARY).write());
            let (mut reader, mut writer) = client.0.into_split();
            let drip = tokio::spawn(async move {
                let mut second = tokio::time::interval(Duration::from_secs(1));
                for byte in login {
                    second.tick().await;
                    if tokio::io::AsyncWriteExt::write_all(&mut writer, &[byte]).await.is_err() {
                        return;
                    }
                }
            });
            let mut heard = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut heard);
            // A reset after the error is as good an end.
            let _ = tokio::time::timeout(PATIENCE, read).await.context("a slow client stays")?;
            drip.abort();
            Ok::<_, anyhow::Error>(heard)
        }));
    }
    until("they are in", async || (yard.status().sessions == 101).then_some(())).await?;
    assert_eq!(yard.status().buffer_bytes, 0, "a login that has not come holds no buffer");
    for task in slow {
        let heard = task.await??;
        let text = String::from_utf8_lossy(&heard);
        assert!(text.contains("the client's login"), "{text}");
    }
    yard.quiet().await?;
    assert_eq!(yard.status().refused - before.refused, 100);
    Ok(())
}

#[tokio::test]
async fn two_thousand_quick_connects_leave_nothing_behind() -> Result<()> {
    const CONNECTS: u64 = 2000;
    const AT_ONCE: u64 = 8;
    let mut yard = Yard::start(None, json!({})).await?;
    let before = yard.status();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..AT_ONCE {
        let address = yard.trap;
        tasks.spawn(async move {
            for index in 0..CONNECTS / AT_ONCE {
                let mut client = Client::connect(address).await?;
                match (worker + index) % 4 {
                    // Gone at once; gone with the greeting unread; in the midst of the login; after it, without a word.
                    0 => {}
                    1 => client.0.readable().await?,
                    2 => {
                        client.greeting().await?;
                        client.say(&packet(1, &request(ORDINARY).write())[..20]).await;
                    }
                    _ => client.login(ORDINARY).await?,
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    yard.quiet().await?;
    let after = yard.status();
    assert_eq!(after.accepted - before.accepted, CONNECTS);
    assert_eq!(after.refused - before.refused, CONNECTS / 4 * 3);
    until("the server's connections are let go", async || {
        yard.trapped().filter(|backend| backend.connections == 0).map(|_| ())
    })
    .await
}

#[tokio::test]
async fn packets_that_are_no_command_end_in_an_error_or_go_to_the_server() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    // Nothing at all: who waits for an answer to it is told.
    let mut client = Client::connect(yard.trap).await?;
    client.login(ORDINARY).await?;
    client.say(&[0, 0, 0, 0]).await;
    let error = client.last_words().await?.context("an empty command is refused")?;
    assert_eq!(error.number, 1047);
    // Commands that nobody knows are the server's to refuse, and the next one is served.
    for command in [0x00, 0x05, 0x0b, 0x0f, 0x10, 0x14, 0x1d] {
        let mut client = Client::connect(yard.trap).await?;
        client.login(ORDINARY).await?;
        client.say(&packet(0, &[command, 1, 2, 3])).await;
        let (_, payload) = client.hear().await?.context("the server refuses it")?;
        assert_eq!(payload.first(), Some(&0xff), "command {command}");
        client.query("select 1").await;
        assert_eq!(
            client.hear().await?.map(|(_, payload)| payload),
            Some(vec![1]),
            "after command {command}"
        );
    }
    // A login as long as a packet can be, and a little shorter.
    for bytes in [0xff_ffff, 0xff_fffe, 200_000] {
        let mut client = Client::connect(yard.trap).await?;
        client.greeting().await?;
        let length = u32::to_le_bytes(bytes);
        client.say(&[length[0], length[1], length[2], 1]).await;
        for _ in 0..256 {
            client.say(&[b'x'; 65536]).await;
            let bytes = yard.status().buffer_bytes;
            assert!(bytes <= 64 * 1024, "{bytes} bytes are held");
        }
        assert_eq!(client.last_words().await?, None);
    }
    yard.quiet().await
}

#[tokio::test]
async fn what_was_not_offered_is_not_agreed_on_whatever_the_client_claims() -> Result<()> {
    let liar = Liar::start(Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK).await?;
    for group in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let mut yard = Yard::start(Some(liar.port), group).await?;
        until("the server is known", async || yard.trapped()?.version).await?;
        for missing in [Capabilities::SECURE_CONNECTION, Capabilities::PROTOCOL_41] {
            let mut client = Client::connect(yard.trap).await?;
            client.greeting().await?;
            client.say(&packet(1, &request(ORDINARY.without(missing)).write())).await;
            let error = client.last_words().await?.context("an old client is told")?;
            assert!(matches!(error.number, 1251 | 1043), "{error:?}");
        }
        // One that says nothing of plug-ins is let in, and the server is asked for the account's own way.
        let mut client = Client::connect(yard.trap).await?;
        client.login(ORDINARY.without(Capabilities::PLUGIN_AUTH)).await?;
        client.query("select 1").await;
        client.hear().await?.context("an answer")?;
        let claimed = liar.logins().last().context("it logged in")?.capabilities;
        assert!(claimed.has(Capabilities::PLUGIN_AUTH));
        drop(client);
        // The new ends: the server does not know them, so the client gets the old ones, and the session goes on.
        let mut client = Client::connect(yard.trap).await?;
        client.login(ORDINARY | Capabilities::DEPRECATE_EOF | Capabilities::SESSION_TRACK).await?;
        for _ in 0..3 {
            client.query("select 1").await;
            let mut heard = Vec::new();
            for _ in 0..5 {
                let (number, payload) = client.hear().await?.context("five packets")?;
                heard.extend(packet(number, &payload));
            }
            assert_eq!(heard, one_row(ORDINARY));
        }
        let logins = liar.logins();
        let claimed = logins.last().context("it logged in")?.capabilities;
        assert!(!claimed.has(Capabilities::DEPRECATE_EOF) && !claimed.has(Capabilities::SESSION_TRACK));
        drop(client);
        yard.quiet().await?;
        // Compression: a client that takes it for granted would wait for ever, so it is told.
        for claimed in [Capabilities::ZSTD, Capabilities::ZSTD | Capabilities::COMPRESS] {
            let mut client = Client::connect(yard.trap).await?;
            client.greeting().await?;
            client.say(&packet(1, &request(ORDINARY | claimed).write())).await;
            let error = client.last_words().await?.context("it is told")?;
            assert!(error.message.contains("compression"), "{error:?}");
        }
        yard.quiet().await?;
    }
    Ok(())
}
