//! Compressed frames that lie: from clients, and from servers.

use crate::client::{Client, ORDINARY};
use crate::liar::{Liar, Trick};
use crate::yard::{Yard, until};
use anyhow::{Context, Result};
use mysql::protocol::{
    Capabilities, Compression, FRAME_HEADER_BYTES, FrameReader, Packer, ServerError, packet, payload_bytes,
};
use serde_json::json;
use tokio::io::AsyncReadExt;

const COMPRESSED: Capabilities = Capabilities(ORDINARY.0 | Capabilities::COMPRESS.0);

fn frame(sequence: u8, payload: &[u8], plain: usize) -> Vec<u8> {
    let (length, plain) = (payload.len().to_le_bytes(), plain.to_le_bytes());
    [&length[..3], &[sequence], &plain[..3], payload].concat()
}

/// What `bytes` are as frames, beginning with this number.
fn frames(mut sequence: u8, mut bytes: &[u8]) -> Vec<u8> {
    let (mut all, mut packer, mut room) = (Vec::new(), Packer::default(), vec![0; 60_000]);
    while !bytes.is_empty() {
        let (held, length) = packer.pack((Compression::Zlib, 0), sequence, bytes, &mut room);
        all.extend_from_slice(&room[..length]);
        (sequence, bytes) = (sequence.wrapping_add(1), &bytes[held..]);
    }
    all
}

fn query(sql: &str) -> Vec<u8> {
    packet(0, &[&[3], sql.as_bytes()].concat())
}

/// The next packets of an answer, in however many frames.
async fn hear(client: &mut Client, count: usize) -> Result<Vec<Vec<u8>>> {
    let (mut plain, mut packets) = (Vec::new(), Vec::new());
    while packets.len() < count {
        let mut header = [0; FRAME_HEADER_BYTES];
        client.0.read_exact(&mut header).await.context("a frame comes")?;
        let mut whole = header.to_vec();
        whole.resize(FRAME_HEADER_BYTES + payload_bytes(&header), 0);
        client.0.read_exact(&mut whole[FRAME_HEADER_BYTES..]).await?;
        let (mut reader, mut room) = (FrameReader::new(Compression::Zlib, header[3]), vec![0; 1 << 20]);
        let (_, length) = reader.advance(&whole, &mut room)?;
        plain.extend_from_slice(&room[..length]);
        while plain.len() >= 4 && plain.len() >= 4 + payload_bytes(&plain) {
            let end = 4 + payload_bytes(&plain);
            packets.push(plain.drain(..end).skip(4).collect());
        }
    }
    Ok(packets)
}

#[tokio::test]
async fn frames_that_break_the_rules_end_their_own_session_only() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    let good = frames(0, &query(&format!("select {} 1", " ".repeat(200))));
    let mut flipped = good.clone();
    *flipped.last_mut().context("a byte")? ^= 1;
    let empty = frame(0, b"", 0);
    for (what, bytes) in [
        ("a packet without a frame", query("select 1")),
        ("zeros", vec![0; 5000]),
        ("ones", vec![0xff; 5000]),
        ("letters", b"a".repeat(100_000)),
        ("a number out of order", frame(9, &query("select 1"), 0)),
        ("garbage as zlib", frame(0, &[0xa5; 3000], 3000)),
        ("another checksum", flipped),
        ("less than it says", frame(0, &good[FRAME_HEADER_BYTES..], 0xff_ffff)),
        ("more than it says", frame(0, &good[FRAME_HEADER_BYTES..], 20)),
        ("nothing that holds something", frame(0, b"", 100)),
        ("half a frame", good[..good.len() / 2].to_vec()),
        ("half a header", good[..3].to_vec()),
        ("many empty frames", empty.repeat(10_000)),
        ("an empty command", frame(0, &[0, 0, 0, 0], 0)),
    ] {
        let mut client = Client::connect(yard.trap).await?;
        client.login(COMPRESSED).await?;
        client.say(&bytes).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.ok();
        let mut heard = Vec::new();
        let read = client.0.read_to_end(&mut heard);
        // A reset is as good an end.
        let _ = tokio::time::timeout(crate::yard::PATIENCE, read).await.context(what)?;
        yard.quiet().await.context(what)?;
    }
    // One that is as it should be is answered, and so is the next.
    let mut client = Client::connect(yard.trap).await?;
    client.login(COMPRESSED).await?;
    for _ in 0..3 {
        client.say(&good).await;
        // A count, its definition and its end, a row and its end.
        assert_eq!(hear(&mut client, 5).await?.first(), Some(&vec![1]));
    }
    until("an idle session holds nothing", async || (yard.status().buffer_bytes == 0).then_some(())).await?;
    drop(client);
    yard.quiet().await
}

#[tokio::test]
async fn a_bomb_passes_in_a_few_buffers() -> Result<()> {
    let mut yard = Yard::start(None, json!({})).await?;
    let mut client = Client::connect(yard.trap).await?;
    client.login(COMPRESSED).await?;
    // Sixteen million bytes in as many thousand, in one frame and one packet: a statement that is refused for a name.
    let sql = format!("select{}nonsense", " ".repeat(0xff_ff00));
    let plain = query(&sql);
    let mut room = vec![0; 1 << 20];
    let (held, length) = Packer::default().pack((Compression::Zlib, 0), 0, &plain, &mut room);
    assert!(held == plain.len() && length < 200_000, "{held} in {length}");
    for piece in room[..length].chunks(1000) {
        client.say(piece).await;
        let bytes = yard.status().buffer_bytes;
        assert!(bytes <= 5 * 16 * 1024 + 64 * 1024, "{bytes} bytes are held");
    }
    let packets = hear(&mut client, 1).await?;
    let error = ServerError::read(&packets[0])?;
    assert!(matches!(error.number, 1054 | 1153), "{error:?}");
    drop(client);
    yard.quiet().await
}

#[tokio::test]
async fn a_server_whose_frames_lie_is_not_believed() -> Result<()> {
    let liar = Liar::start(Capabilities::default()).await?;
    let ok = packet(1, &[0, 0, 0, 2, 0, 0, 0]);
    for auth in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let relayed = auth.get("auth").is_none();
        let mut group = auth;
        group["compression"] = "zlib".into();
        let mut yard = Yard::start(Some(liar.port), group).await?;
        for (what, bytes, believed) in [
            ("an answer as it should be", frame(1, &ok, 0), true),
            ("closes", vec![], false),
            ("no frame", ok.clone(), false),
            ("another number", frame(7, &ok, 0), true),
            ("garbage as zlib", frame(1, &[0xa5; 300], 1000), false),
            ("a frame that never ends", frame(1, &[0xa5; 300], 0)[..100].to_vec(), false),
            ("most that can be said", [&[0xff; 7][..], &[0; 1000]].concat(), false),
        ] {
            liar.does(Trick::Honest);
            until("the server is up and known", async || {
                yard.trapped()
                    .filter(|backend| backend.state == "up" && backend.version.is_some())
                    .map(|_| ())
            })
            .await?;
            liar.does(Trick::Answers(bytes));
            let mut client = Client::connect(yard.trap).await?;
            client.login(ORDINARY).await?;
            client.query("do 1").await;
            let heard = client.hear().await.context(what)?;
            let first = heard.as_ref().and_then(|(_, payload)| payload.first().copied());
            if believed {
                assert_eq!(first, Some(0), "{what}");
            } else if relayed {
                assert!(matches!(first, None | Some(0xff)), "{what}: {heard:?}");
            } else {
                assert_eq!(first, Some(0xff), "{what}: {heard:?}");
            }
            drop(client);
            yard.quiet().await.context(what)?;
        }
        assert!(liar.logins().last().is_some_and(|login| login.capabilities.has(Capabilities::COMPRESS)));
    }
    Ok(())
}
