//! Sessions of TiDB leave a server that is drained or says that it shuts down, with all that they have.
//!
//! Two servers with stores of their own stand for two of one cluster: what moves is the session.

use crate::support::{Front, until};
use anyhow::{Context, Result};
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts};
use testkit::{TiDb, TiDbOptions};

/// Two servers that trust each other's tokens.
struct Two {
    _folder: tempfile::TempDir,
    servers: [TiDb; 2],
}

impl Two {
    async fn start() -> Result<Two> {
        let folder = tempfile::tempdir()?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let cert = rcgen::CertificateParams::new(vec!["tidb".to_owned()])?.self_signed(&key)?;
        let (cert_path, key_path) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert_path, cert.pem())?;
        std::fs::write(&key_path, key.serialize_pem())?;
        let config = folder.path().join("tidb.toml");
        std::fs::write(
            &config,
            format!(
                "graceful-wait-before-shutdown = 8\n[security]\nsession-token-signing-cert = {:?}\nsession-token-signing-key = {:?}\n",
                cert_path.display().to_string(),
                key_path.display().to_string()
            ),
        )?;
        let options = TiDbOptions { args: vec!["-config".into(), config.display().to_string()] };
        let servers = [TiDb::start(options.clone()).await?, TiDb::start(options).await?];
        for (server, name) in servers.iter().zip(["one", "other"]) {
            server
                .exec(&format!(
                    "create database shop; create table shop.place (name varchar(10)); insert into shop.place values ('{name}'); \
                     create user shop@'%' identified by 'secret'; grant all on shop.* to shop@'%'"
                ))
                .await?;
        }
        Ok(Two { _folder: folder, servers })
    }

    fn group(&self, rest: serde_json::Value) -> serde_json::Value {
        let backends = self.servers.iter().map(|server| {
            json!({"addr": format!("127.0.0.1:{}", server.port()), "status": format!("127.0.0.1:{}", server.status_port())})
        });
        let mut group = json!({"kind": "tidb", "backends": backends.collect::<Vec<_>>(), "monitor": {"user": "root"},
                   "compression": "zstd", "init": ["set time_zone = '+05:00'"]});
        for (key, value) in rest.as_object().cloned().unwrap_or_default() {
            group[key] = value;
        }
        group
    }

    async fn front(&self, rest: serde_json::Value) -> Result<Front> {
        let front = Front::start(&[], self.group(rest)).await?;
        until("both servers are known", async || {
            front.mesh.status().groups[0].backends.iter().all(|b| b.state == "up").then_some(())
        })
        .await?;
        Ok(front)
    }

    /// The address of the server that a session is on, and of the other.
    fn at(&self, name: &str) -> [String; 2] {
        let mut addresses = [0, 1].map(|index| format!("127.0.0.1:{}", self.servers[index].port()));
        if name == "other" {
            addresses.swap(0, 1);
        }
        addresses
    }
}

async fn place(conn: &mut Conn) -> Result<String> {
    conn.query_first("select name from shop.place").await?.context("a place")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_server_is_left_with_variables_statements_and_settings() -> Result<()> {
    let two = Two::start().await?;
    let vault =
        json!({"auth": "vault", "users": [{"name": "shop", "password": "secret"}], "read_write_split": true});
    for group in [json!({}), vault] {
        let front = two.front(group).await?;
        let mut conn = Conn::new(Opts::from(front.opts("shop", "secret").db_name(Some("shop")))).await?;
        let [from, to] = two.at(&place(&mut conn).await?);
        conn.query_drop("set @mine = 'it''s \\\\ \"二\"', @other = 5 + 1").await?;
        conn.query_drop("set names latin1").await?;
        conn.query_drop("set names utf8mb4").await?;
        conn.query_drop("set sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'").await?;
        let select = conn.prep("select ?, name, @other from place").await?;
        let before: Option<(String, String, i64)> = conn.exec_first(&select, ("x\\y",)).await?;
        let before = before.context("a row")?;
        // In a transaction nothing moves; behind it all does.
        conn.query_drop("begin").await?;
        assert!(front.mesh.drain("shop", &from, true));
        assert_eq!(place(&mut conn).await?, before.1);
        conn.query_drop("commit").await?;
        until("the session has moved", async || {
            let status = front.mesh.status();
            (status.groups[0].backends.iter().find(|b| b.address == from)?.connections == 0).then_some(())
        })
        .await?;
        let after: Option<(String, String, i64)> = conn.exec_first(&select, ("x\\y",)).await?;
        let after = after.context("a row")?;
        assert_eq!((&after.0, after.2), (&before.0, before.2));
        assert_ne!(after.1, before.1, "it is another server's place");
        let mine: Option<(String, String, String)> =
            conn.query_first("select @mine, @@sql_mode, database()").await?;
        let mine = mine.context("a row")?;
        assert_eq!((mine.0.as_str(), mine.2.as_str()), ("it's \\ \"二\"", "shop"));
        assert!(mine.1.contains("ANSI_QUOTES") && mine.1.contains("NO_BACKSLASH_ESCAPES"), "{}", mine.1);
        // And back, without a word of the client's.
        front.mesh.drain("shop", &from, false);
        front.mesh.drain("shop", &to, true);
        until("the session has moved back", async || {
            let status = front.mesh.status();
            (status.groups[0].backends.iter().find(|b| b.address == to)?.connections == 0).then_some(())
        })
        .await?;
        assert_eq!(place(&mut conn).await?, before.1);
        assert!(front.mesh.status().moved >= 2 && front.mesh.status().broken == 0);
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tidb_cannot_write_down_stays_until_it_can() -> Result<()> {
    let two = Two::start().await?;
    let front = two.front(json!({})).await?;
    let mut conn = Conn::new(Opts::from(front.opts("shop", "secret").db_name(Some("shop")))).await?;
    let first = place(&mut conn).await?;
    let [from, _] = two.at(&first);
    conn.query_drop("create temporary table own (n int)").await?;
    conn.query_drop("insert into own values (7)").await?;
    front.mesh.drain("shop", &from, true);
    assert_eq!(conn.query_first("select n from own").await?, Some(7));
    assert_eq!(place(&mut conn).await?, first);
    conn.query_drop("drop temporary table own").await?;
    until("the session has moved", async || (place(&mut conn).await.ok()? != first).then_some(())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restarted_is_left_before_it_goes() -> Result<()> {
    const CLIENTS: usize = 6;
    let two = Two::start().await?;
    let front = two.front(json!({"balance": "round_robin"})).await?;
    let mut conns = Vec::new();
    for number in 0..CLIENTS {
        let mut conn = Conn::new(Opts::from(front.opts("shop", "secret").db_name(Some("shop")))).await?;
        conn.query_drop(format!("set @mine = {number}")).await?;
        conns.push(conn);
    }
    let (stopped, used) = tokio::join!(two.servers[0].stop(), async {
        // Half of the clients work all the while; the others say nothing.
        let mut rounds = 0;
        while two.servers[0].exec("select 1").await.is_ok() {
            for (number, conn) in conns.iter_mut().enumerate().take(CLIENTS / 2) {
                assert_eq!(conn.query_first::<usize, _>("select @mine").await?, Some(number));
            }
            rounds += 1;
        }
        anyhow::Ok(rounds)
    });
    stopped?;
    assert!(used? > 3);
    for (number, conn) in conns.iter_mut().enumerate() {
        assert_eq!(conn.query_first::<usize, _>("select @mine").await?, Some(number));
        assert_eq!(place(conn).await?, "other");
    }
    assert_eq!(front.mesh.status().broken, 0);
    Ok(())
}
