//! The PROXY protocol: balancers in front that say who their client is, and servers behind that are told.

use crate::door::{anyone, certificate};
use crate::support::Front;
use anyhow::{Context, Result};
use mysql::protocol::{Ends, Greeting, ProxyVersion, ServerError, payload_bytes};
use serde_json::json;
use std::net::SocketAddr;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, TiDb, TiDbOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A port that says `header` in pieces of `piece` bytes at each connection to `target`, and then is a wire.
pub async fn balancer(target: SocketAddr, header: Vec<u8>, piece: usize) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let header = header.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await?;
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                for part in header.chunks(piece) {
                    server.write_all(part).await?;
                    tokio::task::yield_now().await;
                }
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(address)
}

fn told(client: &str) -> Result<Option<Ends>> {
    Ok(Some(Ends { client: client.parse()?, server: "127.0.0.1:3306".parse()? }))
}

/// What comes before the connection ends, as packets.
async fn all_packets(stream: &mut TcpStream) -> Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    // A reset behind the last words is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    let mut packets = Vec::new();
    while bytes.len() >= 4 {
        let end = 4 + payload_bytes(&bytes);
        packets.push(bytes.get(4..end).context("a whole packet")?.to_vec());
        bytes.drain(..end);
    }
    Ok(packets)
}

#[tokio::test]
async fn a_balancer_tells_whose_connection_it_is() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let (_folder, tls) = certificate()?;
    for secure in [false, true] {
        for (version, piece) in [(ProxyVersion::V1, 1), (ProxyVersion::V2, 1), (ProxyVersion::V2, 100)] {
            let mut listener = if secure { tls.clone() } else { json!({}) };
            listener["proxy_protocol"] = json!(["127.0.0.0/8"]);
            let front =
                Front::start_all(&[mysql.port()], json!({}), listener, json!({"slow": "1ms"})).await?;
            for (ends, client) in [
                (told("192.0.2.7:51000")?, "192.0.2.7"),
                // One that speaks for itself, as a health check does, is its own client.
                (None, "127.0.0.1"),
            ] {
                let before = balancer(front.address, version.write(ends), piece).await?;
                let mut opts = front.opts("root", "").tcp_port(before.port());
                if secure {
                    opts = opts.ssl_opts(anyone());
                }
                let mut conn = Conn::new(Opts::from(opts)).await?;
                conn.query_drop("select sleep(0.01)").await?;
                crate::support::until("the slow one is there", async || {
                    front.mesh.slow().iter().any(|slow| slow.client == client).then_some(())
                })
                .await?;
            }
            front.mesh.stop();
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_header_is_asked_for_from_balancers_and_believed_from_nobody_else() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let asks =
        Front::start_with(&[mysql.port()], json!({}), json!({"proxy_protocol": ["127.0.0.2"]})).await?;
    // From elsewhere a client is greeted at once, and a header is an error.
    let mut conn = asks.root().await?;
    assert_eq!(conn.query_first::<u8, _>("select 1").await?, Some(1));
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut client = TcpStream::connect(asks.address).await?;
        client.write_all(&version.write(told("192.0.2.7:51000")?)).await?;
        let packets = all_packets(&mut client).await?;
        assert!(Greeting::read(&packets[0]).is_ok(), "it is greeted before it is heard");
        let error = ServerError::read(&packets[1])?;
        assert_eq!(error.number, 1043);
        assert!(error.message.contains("a PROXY header from 127.0.0.1"), "{error:?}");
    }
    // From a balancer without one there is no greeting, but an error: at once, or when it has had its time.
    let from_balancer = async || {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse()?)?;
        Ok::<_, anyhow::Error>(socket.connect(asks.address).await?)
    };
    for (said, heard) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "it begins otherwise"),
        (b"PROXY TCP4 192.0.2.7\r\n", "lacks a word"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "longer than any"),
        (b"", "the balancer's PROXY header"),
        (b"PROXY TCP4 192.0.2.7 ", "the balancer's PROXY header"),
    ] {
        let mut client = from_balancer().await?;
        client.write_all(said).await?;
        let packets = all_packets(&mut client).await?;
        assert_eq!(packets.len(), 1, "{packets:?}");
        let error = ServerError::read(&packets[0])?;
        assert!(error.message.contains(heard), "{error:?}");
    }
    // One that ends within it is let go at once.
    let before = asks.mesh.status().refused;
    let mut client = from_balancer().await?;
    client.write_all(b"PROXY ").await?;
    drop(client);
    crate::support::until("it is let go", async || {
        (asks.mesh.status().refused > before && asks.mesh.status().sessions == 1).then_some(())
    })
    .await?;
    let mut client = from_balancer().await?;
    client.write_all(&ProxyVersion::V2.write(told("[2001:db8::7]:51000")?)).await?;
    let mut header = [0; 4];
    client.read_exact(&mut header).await?;
    let mut greeting = vec![0; payload_bytes(&header)];
    client.read_exact(&mut greeting).await?;
    assert!(Greeting::read(&greeting).is_ok());
    Ok(())
}

/// The address that the server sees.
async fn seen(conn: &mut Conn) -> Result<String> {
    let sql = "select host from information_schema.processlist where id = connection_id()";
    let host: String = conn.query_first(sql).await?.context("a session is in its own list")?;
    Ok(host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned()))
}

#[tokio::test]
async fn servers_that_take_the_header_see_the_clients_address() -> Result<()> {
    let args = vec!["--proxy-protocol-networks=127.0.0.1".into()];
    let mariadb = MariaDb::start(MariaDbOptions { args, ..MariaDbOptions::default() }).await?;
    mariadb.exec("create user shop@'127.0.0.2' identified by 'secret'").await?;
    let args = ["-proxy-protocol-networks", "127.0.0.1", "-proxy-protocol-fallbackable"];
    let tidb = TiDb::start(TiDbOptions { args: args.map(str::to_owned).to_vec() }).await?;
    tidb.exec("create user shop@'127.0.0.2' identified by 'secret'").await?;
    let vault = json!({"auth": "vault", "users": [{"name": "shop", "password": "secret"}]});
    for (port, kind) in [(mariadb.port(), "mysql"), (tidb.port(), "tidb")] {
        for version in ["v1", "v2"] {
            for mut group in [json!({}), vault.clone()] {
                group["kind"] = kind.into();
                group["proxy_protocol"] = version.into();
                // The monitor speaks for itself.
                group["monitor"] = json!({"user": "root"});
                let listener = json!({"proxy_protocol": ["127.0.0.0/8"]});
                let front = Front::start_with(&[port], group, listener).await?;
                let header = ProxyVersion::V2.write(told("127.0.0.2:51000")?);
                let before = balancer(front.address, header, 100).await?;
                let opts: Opts = front.opts("shop", "secret").tcp_port(before.port()).into();
                let mut conn = Conn::new(opts).await.with_context(|| format!("{kind} {version}"))?;
                assert_eq!(seen(&mut conn).await?, "127.0.0.2", "{kind} {version}");
                let header = ProxyVersion::V2.write(told("127.0.0.3:51000")?);
                let elsewhere = balancer(front.address, header, 100).await?;
                let opts: Opts = front.opts("shop", "secret").tcp_port(elsewhere.port()).into();
                // The account is of one address, and so nobody comes in from another.
                let refused = match Conn::new(opts).await {
                    Err(error) => error.to_string(),
                    Ok(mut conn) => conn.query_drop("select 1").await.unwrap_err().to_string(),
                };
                let told =
                    ["127.0.0.3' is not allowed", "Access denied"].iter().any(|told| refused.contains(told));
                assert!(told, "{kind} {version}: {refused}");
                front.mesh.stop();
            }
        }
    }
    Ok(())
}
