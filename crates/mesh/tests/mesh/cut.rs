//! Every packet arrives in pieces, at every byte's boundary, and the conversation is the same to the letter.

use crate::door::{anyone, certificate};
use crate::support::Front;
use crate::traffic::conversation;
use anyhow::Result;
use serde_json::json;
use std::net::SocketAddr;
use testkit::mysql_async::{Conn, Opts, OptsBuilder};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Of each read, as much is cut; the rest of a long row goes on at once, or the megabytes would take minutes.
const CUT_BYTES: usize = 600;

/// A port whose connections go to `target` in pieces of `piece` bytes.
pub async fn cutter(target: SocketAddr, piece: usize) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(target).await else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(cut(from_client, to_server, piece));
            tokio::spawn(cut(from_server, to_client, piece));
        }
    });
    Ok((address, accepting))
}

async fn cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, piece: usize) -> Option<()> {
    let mut buffer = vec![0; 65536];
    loop {
        let bytes = from.read(&mut buffer).await.ok().filter(|bytes| *bytes > 0)?;
        let (cut, rest) = buffer[..bytes].split_at(bytes.min(CUT_BYTES));
        for part in cut.chunks(piece) {
            to.write_all(part).await.ok()?;
            // The other side has its turn to read this much alone.
            tokio::task::yield_now().await;
        }
        to.write_all(rest).await.ok()?;
    }
}

async fn alike(server: &SqlServer, kind: &str) -> Result<()> {
    server.exec("create database shop").await?;
    let direct: Opts = OptsBuilder::from_opts(server.opts()).db_name(Some("shop")).into();
    let direct = conversation(&mut Conn::new(direct).await?).await?;
    let (_folder, tls) = certificate()?;
    for auth in
        [json!({}), json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 2, "idle": 2}})]
    {
        for piece in [1, 2, 3, 7] {
            let (behind, one) = cutter(([127, 0, 0, 1], server.port()).into(), piece).await?;
            let mut group = auth.clone();
            group["kind"] = kind.into();
            let front = Front::start_with(&[behind.port()], group, tls.clone()).await?;
            let (before, other) = cutter(front.address, piece).await?;
            for secure in [false, true] {
                let mut opts = front.opts("root", "").tcp_port(before.port()).db_name(Some("shop"));
                if secure {
                    opts = opts.ssl_opts(anyone());
                }
                let through = conversation(&mut Conn::new(Opts::from(opts)).await?).await?;
                assert_eq!(direct, through, "in pieces of {piece}, {auth}, TLS {secure}");
            }
            one.abort();
            other.abort();
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mysql_is_the_same_in_pieces_of_any_length() -> Result<()> {
    alike(&*MySql::start(MySqlOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mariadb_is_the_same_in_pieces_of_any_length() -> Result<()> {
    alike(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_tidb_is_the_same_in_pieces_of_any_length() -> Result<()> {
    alike(&*TiDb::start(TiDbOptions::default()).await?, "tidb").await
}
