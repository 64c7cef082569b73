//! Another process takes over under live sessions. Here both are in this one, each a mesh of its own: what passes between
//! them is the same.

use crate::door::{anyone, certificate};
use crate::split::{Pair, place};
use crate::support::{Front, until};
use crate::traffic::conversation;
use anyhow::{Context, Result, anyhow, bail};
use mesh::capture::Kind;
use mesh::{HandedOver, HandoverError, Mesh, MeshConfig, Successor};
use mysql::protocol::{Capabilities, LoginRequest, packet, payload_bytes};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Compression, Conn, Opts};
use testkit::{
    MariaDb, MariaDbOptions, MySql, MySqlGroup, MySqlGroupOptions, MySqlOptions, SqlServer, TiDb, TiDbOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a handover may take; a session in the midst of a command holds it up for as long as that takes.
const MOVE_MAX: Duration = Duration::from_secs(20);

fn config(port: u16, group: Value, rest: Value) -> Result<MeshConfig> {
    let mut group = group;
    group["backends"] = json!([{"addr": format!("127.0.0.1:{port}")}]);
    let mut config = json!({"listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
                            "groups": {"shop": group}, "threads": 2});
    for (key, value) in rest.as_object().cloned().unwrap_or_default() {
        config[key] = value;
    }
    let config: MeshConfig = serde_json::from_value(config)?;
    assert_eq!(config.problems(), []);
    Ok(config)
}

/// The mesh that serves now; another takes its place at each [`upgrade`](Line::upgrade).
struct Line {
    now: Arc<Mutex<Option<Mesh>>>,
    address: SocketAddr,
}

type Ended = (Result<HandedOver, HandoverError>, Result<usize>);

impl Line {
    fn start(config: &MeshConfig) -> Result<Line> {
        let mesh = Mesh::start(config)?;
        let address = mesh.addresses()["door"];
        Ok(Line { now: Arc::new(Mutex::new(Some(mesh))), address })
    }

    fn opts(&self, user: &str) -> testkit::mysql_async::OptsBuilder {
        testkit::mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.address.port())
            .user(Some(user))
            .prefer_socket(false)
    }

    async fn root(&self) -> Result<Conn> {
        Conn::new(Opts::from(self.opts("root"))).await.context("failed to log in")
    }

    /// A mesh of `config` takes over. How it ended on the old side and on the new; the old mesh stays where it did not let go.
    async fn upgrade(&self, config: &MeshConfig, watch: Duration) -> Result<Ended> {
        let (now, config) = (self.now.clone(), config.clone());
        tokio::task::spawn_blocking(move || {
            let (one, other) = UnixStream::pair()?;
            let old = now.lock().expect("nobody panics with it").take().context("a mesh")?;
            let new = std::thread::spawn(move || -> Result<(Mesh, Result<usize>)> {
                let mut successor = Successor::meet(other, "new")?;
                successor.watch = watch;
                let mesh = Mesh::start_as(&config, &mut successor)?;
                let came = mesh.succeed(&successor);
                Ok((mesh, came.map_err(Into::into)))
            });
            let port = std::net::TcpListener::bind("127.0.0.1:0")?;
            let others = [("http", port.local_addr()?, port.as_fd())];
            let gave = old.hand_over(one, &others, Instant::now() + MOVE_MAX, &|| {});
            let (mesh, came) = new.join().map_err(|_| anyhow!("the new side panicked"))??;
            let (stays, goes) = if gave.is_ok() && came.is_ok() { (mesh, old) } else { (old, mesh) };
            *now.lock().expect("nobody panics with it") = Some(stays);
            goes.stop();
            Ok((gave, came))
        })
        .await?
    }

    fn sessions(&self) -> usize {
        self.now.lock().expect("nobody panics with it").as_ref().map_or(0, |mesh| mesh.status().sessions)
    }
}

#[tokio::test]
async fn sessions_move_that_are_at_servers_which_were_found() -> Result<()> {
    let group = MySqlGroup::start(MySqlGroupOptions { servers: 2, members: 2, multi_primary: false }).await?;
    let [first, second] = group.servers() else { bail!("two servers") };
    first.exec("create user monitor@'%'; grant select on performance_schema.* to monitor@'%'").await?;
    // Only the secondary is named: the writer is found.
    let found = json!({"topology": "group_replication", "monitor": {"user": "monitor"},
                       "auth": "vault", "users": [{"name": "root"}]});
    let config = config(second.port(), found, json!({}))?;
    let line = Line::start(&config)?;
    let mut conn = until("the writer is found", async || line.root().await.ok()).await?;
    let port: Option<u16> = conn.query_first("select @@port").await?;
    assert_eq!(port, Some(first.port()));
    conn.query_drop("begin").await?;
    conn.query_drop("set @mine = 7").await?;
    let (gave, came) = line.upgrade(&config, Duration::ZERO).await?;
    assert_eq!((gave?.left, came?), (0, 1));
    let mine: Option<(i64, u16)> = conn.query_first("select @mine, @@port").await?;
    assert_eq!(mine, Some((7, first.port())));
    conn.query_drop("commit").await?;
    Ok(())
}

#[tokio::test]
async fn rules_know_what_was_prepared_before_another_process_came() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    server.exec("create database shop; create table shop.t (id int primary key)").await?;
    let rules = json!([{"name": "no-unbounded", "match": {"kinds": ["delete"], "without_where": true}, "action": "deny"}]);
    for rest in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let group = |rules: &Value| {
            let mut group = rest.clone();
            group["rules"] = rules.clone();
            group
        };
        let line = Line::start(&config(server.port(), group(&json!([])), json!({}))?)?;
        let mut conn = line.root().await?;
        let bounded = conn.prep("delete from shop.t where id = ?").await?;
        let unbounded = conn.prep("delete from shop.t").await?;
        for _ in 0..2 {
            let (gave, came) =
                line.upgrade(&config(server.port(), group(&rules), json!({}))?, Duration::ZERO).await?;
            assert!(gave.is_ok() && came? == 1);
            conn.exec_drop(&bounded, (1,)).await?;
            let refused = conn.exec_drop(&unbounded, ()).await.unwrap_err().to_string();
            assert!(refused.contains("no-unbounded"), "{refused}");
        }
    }
    Ok(())
}

/// One client with all that a session can have, for as long as it is wanted: rows of its own in a transaction, a user
/// variable, a temporary table, a prepared statement, a lock. How many rounds it has seen.
async fn client(
    address: SocketAddr,
    number: u32,
    wanted: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
) -> Result<()> {
    let opts = testkit::mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(address.port())
        .user(Some("root"))
        .db_name(Some("shop"))
        // Every other one compresses.
        .compression((number % 2 == 1).then(Compression::fast))
        .prefer_socket(false);
    let mut conn = Conn::new(Opts::from(opts)).await?;
    let id = conn.id();
    conn.query_drop(format!("set @mine = {number}")).await?;
    conn.query_drop("create temporary table own (n int)").await?;
    let insert = conn.prep("insert into t (owner, n) values (?, ?)").await?;
    let mut n = 0u32;
    while wanted.load(Ordering::Relaxed) {
        n += 1;
        conn.query_drop("begin").await?;
        conn.exec_drop(&insert, (number, n)).await?;
        conn.query_drop(format!("insert into own values ({n})")).await?;
        let seen: Option<u32> = conn.exec_first("select max(n) from t where owner = ?", (number,)).await?;
        if seen != Some(n) {
            bail!("client {number} saw {seen:?} in its own transaction {n}");
        }
        conn.query_drop(if n.is_multiple_of(3) { "rollback" } else { "commit" }).await?;
        if n.is_multiple_of(3) {
            conn.exec_drop(&insert, (number, n)).await?;
        }
        let (mine, own): (u32, u32) =
            conn.query_first("select @mine, (select count(*) from own)").await?.context("a row")?;
        let lost = n / 3;
        if (mine, own) != (number, n - lost) && (mine, own) != (number, n) {
            bail!("client {number} has {mine} and {own} of {n} rows");
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(conn.id(), id);
    let rows: Option<u32> = conn.exec_first("select count(*) from t where owner = ?", (number,)).await?;
    if rows != Some(n) {
        bail!("client {number} wrote {n} rows and {rows:?} are there");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_upgrades_under_load_and_no_client_notices() -> Result<()> {
    const CLIENTS: u32 = 8;
    let mysql = MySql::start(MySqlOptions::default()).await?;
    for (group, name) in [
        (json!({}), "relay"),
        (json!({"auth": "vault", "users": [{"name": "root"}], "compression": "zstd"}), "vault"),
    ] {
        mysql.exec("drop database if exists shop; create database shop; create table shop.t (id int auto_increment primary key, owner int, n int, key (owner))").await?;
        let config = config(mysql.port(), group, json!({}))?;
        let line = Line::start(&config)?;
        let (wanted, rounds) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(client(line.address, number, wanted.clone(), rounds.clone())))
            .collect();
        // One that says nothing all the while, and one that comes anew each time.
        let mut quiet = line.root().await?;
        quiet.query_drop("set @quiet = 7").await?;
        for _ in 0..25 {
            let (gave, came) = line.upgrade(&config, Duration::ZERO).await?;
            let gave = gave?;
            assert_eq!((gave.version.as_str(), gave.left), ("new", 0), "{name}");
            assert!(came? > CLIENTS as usize);
            line.root().await?.disconnect().await?;
        }
        assert_eq!(quiet.query_first("select @quiet").await?, Some(7));
        let seen = rounds.load(Ordering::Relaxed);
        until("clients go on", async || (rounds.load(Ordering::Relaxed) > seen + 8).then_some(())).await?;
        wanted.store(false, Ordering::Relaxed);
        for client in clients {
            client.await??;
        }
    }
    Ok(())
}

/// A conversation is the same to the letter while the session is moved as often as that can be done.
async fn alike(server: &SqlServer, kind: &str) -> Result<()> {
    server.exec("create database shop").await?;
    let direct = testkit::mysql_async::OptsBuilder::from_opts(server.opts()).db_name(Some("shop"));
    let direct = conversation(&mut Conn::new(Opts::from(direct)).await?).await?;
    for group in [json!({"kind": kind}), json!({"kind": kind, "auth": "vault", "users": [{"name": "root"}]})]
    {
        let config = config(server.port(), group, json!({}))?;
        let line = Arc::new(Line::start(&config)?);
        let wanted = Arc::new(AtomicBool::new(true));
        let moving = {
            let (line, wanted) = (line.clone(), wanted.clone());
            tokio::spawn(async move {
                let mut moved = 0;
                while wanted.load(Ordering::Relaxed) {
                    moved += line.upgrade(&config, Duration::ZERO).await?.0?.moved;
                }
                anyhow::Ok(moved)
            })
        };
        let mut conn = Conn::new(Opts::from(line.opts("root").db_name(Some("shop")))).await?;
        for _ in 0..8 {
            assert_eq!(direct, conversation(&mut conn).await?);
        }
        wanted.store(false, Ordering::Relaxed);
        let moved = moving.await??;
        assert!(moved > 3, "moved {moved} times");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mysql_is_the_same_while_it_moves() -> Result<()> {
    alike(&*MySql::start(MySqlOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mariadb_is_the_same_while_it_moves() -> Result<()> {
    alike(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_tidb_is_the_same_while_it_moves() -> Result<()> {
    alike(&*TiDb::start(TiDbOptions::default()).await?, "tidb").await
}

/// What the new side does instead of what it should.
type Misdeed = fn(UnixStream, &MeshConfig) -> Result<()>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_on_the_new_side_the_old_one_serves_on() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let config = config(mysql.port(), json!({}), json!({}))?;
    let line = Line::start(&config)?;
    let mut conn = line.root().await?;
    conn.query_drop("set @mine = 5").await?;
    let misdeeds: [(&str, Misdeed); 6] = [
        ("it ends before it says anything", |socket, _| {
            drop(socket);
            Ok(())
        }),
        ("it speaks nonsense", |mut socket, _| {
            use std::io::Write;
            socket.write_all(b"\x05\0\0\0hello")?;
            Ok(())
        }),
        ("it cannot read its configuration", |socket, _| {
            Successor::meet(socket, "new")?.fail("mesh.yaml: line 3");
            Ok(())
        }),
        ("it ends when it has the ports", |socket, _| {
            drop(Successor::meet(socket, "new")?);
            Ok(())
        }),
        ("no server answers it", |socket, config| {
            let mut successor = Successor::meet(socket, "new")?;
            let mut config = config.clone();
            let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            config.groups.get_mut("shop").context("a group")?.backends[0].addr = format!("127.0.0.1:{port}");
            let mesh = Mesh::start_as(&config, &mut successor)?;
            assert!(mesh.succeed(&successor).is_err());
            mesh.stop();
            Ok(())
        }),
        ("it knows no group of that name", |socket, config| {
            let mut successor = Successor::meet(socket, "new")?;
            let text = serde_json::to_string(&config.groups["shop"].backends[0].addr)?;
            let other: MeshConfig = serde_json::from_str(&format!(
                "{{\"listeners\": [{{\"name\": \"door\", \"bind\": \"127.0.0.1:0\", \"tenants\": [\"other\"]}}],
                  \"groups\": {{\"other\": {{\"backends\": [{{\"addr\": {text}}}]}}}}}}"
            ))?;
            successor.watch = Duration::ZERO;
            let mesh = Mesh::start_as(&other, &mut successor)?;
            // It took nothing, and is well: the session stays with the old one.
            assert_eq!(mesh.succeed(&successor)?, 0);
            mesh.stop();
            Ok(())
        }),
    ];
    for (what, misdeed) in misdeeds {
        let (now, config) = (line.now.clone(), config.clone());
        let asked_to_end = Arc::new(AtomicUsize::new(0));
        let asked = asked_to_end.clone();
        let (gave, did) = tokio::task::spawn_blocking(move || -> Result<_> {
            let (one, other) = UnixStream::pair()?;
            let old = now.lock().expect("nobody panics with it").take().context("a mesh")?;
            let new = std::thread::spawn(move || misdeed(other, &config));
            let until = Instant::now() + Duration::from_millis(500);
            let gave = old.hand_over(one, &[], until, &|| {
                asked.fetch_add(1, Ordering::Relaxed);
            });
            *now.lock().expect("nobody panics with it") = Some(old);
            Ok((gave, new.join()))
        })
        .await??;
        did.map_err(|_| anyhow!("{what}: panicked"))??;
        match gave {
            Ok(gave) => assert_eq!((what, gave.left), ("it knows no group of that name", 1)),
            Err(error) => {
                assert!(asked_to_end.load(Ordering::Relaxed) > 0, "{what}: {error}");
                // Who comes meanwhile is let in.
                line.root().await.context(what)?.disconnect().await?;
            }
        }
        assert_eq!(conn.query_first("select @mine").await.context(what)?, Some(5), "{what}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_side_that_turns_clients_away_gives_everything_back() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let good = config(mysql.port(), json!({}), json!({}))?;
    let bad = config(mysql.port(), json!({}), json!({"limits": {"sessions": 1}}))?;
    let line = Line::start(&good)?;
    let mut conns = Vec::new();
    for number in 0..3 {
        let mut conn = line.root().await?;
        conn.query_drop("begin").await?;
        conn.query_drop(format!("set @mine = {number}")).await?;
        conns.push(conn);
    }
    let wanted = AtomicBool::new(true);
    let coming = async {
        let mut turned_away = 0;
        while wanted.load(Ordering::Relaxed) {
            if let Err(error) = line.root().await {
                assert!(format!("{error:#}").contains("Too many connections"), "{error:#}");
                turned_away += 1;
            }
        }
        turned_away
    };
    let upgrade = async {
        let ended = line.upgrade(&bad, Duration::from_secs(10)).await;
        wanted.store(false, Ordering::Relaxed);
        ended
    };
    let (turned_away, ended) = tokio::join!(coming, upgrade);
    let (gave, came) = ended?;
    assert!(turned_away > 3);
    assert!(matches!(&gave, Err(HandoverError::Back { .. })), "{gave:?}");
    assert!(came.is_err());
    for (number, conn) in conns.iter_mut().enumerate() {
        assert_eq!(conn.query_first::<usize, _>("select @mine").await?, Some(number));
        conn.query_drop("commit").await?;
    }
    line.root().await?;
    // And the next upgrade is as good as the first would have been.
    let (gave, _) = line.upgrade(&good, Duration::ZERO).await?;
    assert!(gave?.moved >= 3);
    assert_eq!(conns[2].query_first::<usize, _>("select @mine").await?, Some(2));
    Ok(())
}

/// Logs in as `root`, byte by byte.
async fn log_in(stream: &mut tokio::net::TcpStream) -> Result<()> {
    let request = LoginRequest {
        capabilities: Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::PLUGIN_AUTH
            | Capabilities::AUTH_LENGTH_ENCODED,
        packet_bytes_max: 1 << 24,
        collation: 45,
        user: b"root".to_vec(),
        plugin: b"caching_sha2_password".to_vec(),
        ..LoginRequest::default()
    };
    let mut said = request.write();
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await?;
        let mut payload = vec![0; payload_bytes(&header)];
        stream.read_exact(&mut payload).await?;
        match payload.first() {
            Some(0) => return Ok(()),
            Some(10 | 0xfe) => stream.write_all(&packet(header[3] + 1, &std::mem::take(&mut said))).await?,
            _ => bail!("{payload:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_command_moves_with_its_session_and_tls_stays_to_its_end() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let (_folder, tls) = certificate()?;
    let mut config = config(mysql.port(), json!({}), json!({}))?;
    config.listeners[0].tls = serde_json::from_value(tls["tls"].clone())?;
    let line = Line::start(&config)?;
    // The new process knows nothing of what the old one has read.
    let mut half = tokio::net::TcpStream::connect(line.address).await?;
    log_in(&mut half).await?;
    let query = packet(0, b"\x03select 1");
    half.write_all(&query[..7]).await?;
    let (now, taken) = (line.now.clone(), config.clone());
    let mut secure = Conn::new(Opts::from(line.opts("root").ssl_opts(anyone()))).await?;
    secure.query_drop("set @mine = 5").await?;
    until("half of the command has come", async || (line.sessions() == 2).then_some(())).await?;
    let (old, gave, came) = tokio::task::spawn_blocking(move || -> Result<_> {
        let (one, other) = UnixStream::pair()?;
        let old = now.lock().expect("nobody panics with it").take().context("a mesh")?;
        let new = std::thread::spawn(move || -> Result<(Mesh, usize)> {
            let mut successor = Successor::meet(other, "new")?;
            successor.watch = Duration::ZERO;
            let mesh = Mesh::start_as(&taken, &mut successor)?;
            let came = mesh.succeed(&successor)?;
            Ok((mesh, came))
        });
        let gave = old.hand_over(one, &[], Instant::now() + Duration::from_secs(1), &|| {})?;
        let (mesh, came) = new.join().map_err(|_| anyhow!("the new side panicked"))??;
        *now.lock().expect("nobody panics with it") = Some(mesh);
        Ok((old, gave, came))
    })
    .await??;
    assert_eq!((gave.moved, gave.left, came), (1, 1, 1));
    half.write_all(&query[7..]).await?;
    let mut answer = [0; 5];
    half.read_exact(&mut answer).await?;
    assert_eq!(answer[4], 1, "one column");
    assert_eq!(secure.query_first("select @mine").await?, Some(5));
    assert_eq!(old.status().sessions, 1);
    secure.disconnect().await?;
    until("the old process has nobody left", async || (old.status().sessions == 0).then_some(())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_session_keeps_both_of_its_servers_and_sees_its_writes() -> Result<()> {
    let pair = Pair::start().await?;
    let front: Front = pair.front("service").await?;
    let config: MeshConfig = serde_json::from_value(json!({
        "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}], "threads": 2,
        "groups": {"shop": {
            "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"}, "read_write_split": true,
            "consistency": "service",
            "backends": [{"addr": format!("127.0.0.1:{}", pair.replica.port())}, {"addr": format!("127.0.0.1:{}", pair.writer.port())}]}}}))?;
    let line = Line { now: Arc::new(Mutex::new(Some(front.mesh))), address: front.address };
    let mut conn = line.root().await?;
    assert_eq!(place(&mut conn).await?, "replica");
    let read = conn.prep("select name from shop.place where name <> ?").await?;
    for round in 0..6 {
        conn.query_drop(format!("insert into shop.t values ({round}, 'x')")).await?;
        let (gave, _) = line.upgrade(&config, Duration::ZERO).await?;
        assert_eq!(gave?.moved, 1);
        assert_eq!(conn.query_first("select count(*) from shop.t").await?, Some(round + 1));
        let at: Option<String> = conn.exec_first(&read, ("",)).await?;
        assert!(matches!(at.as_deref(), Some("replica" | "writer")), "{at:?}");
    }
    until("reads go to the replica again", async || (place(&mut conn).await.ok()? == "replica").then_some(()))
        .await
}

#[tokio::test]
async fn a_capture_goes_on_in_the_new_process_in_a_file_of_its_own() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    for enabled in [true, false] {
        let dir = tempfile::tempdir()?;
        let rest = json!({"capture": {"dir": dir.path(), "enabled": enabled}});
        let config = config(mysql.port(), json!({}), rest)?;
        let line = Line::start(&config)?;
        if !enabled {
            assert!(line.now.lock().expect("a mesh").as_ref().context("a mesh")?.start_capture()?);
        }
        let mut conn = line.root().await?;
        let statement = conn.prep("select ? + 1").await?;
        let (gave, came) = line.upgrade(&config, Duration::ZERO).await?;
        gave?;
        came?;
        let three: Option<u32> = conn.exec_first(&statement, (2,)).await?;
        assert_eq!(three, Some(3));
        conn.disconnect().await?;
        until("the session has ended", async || (line.sessions() == 0).then_some(())).await?;
        assert!(line.now.lock().expect("a mesh").as_ref().context("a mesh")?.stop_capture());
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 2);
        let all = crate::capture::read(dir.path())?;
        let is = |kind| all.iter().filter(move |record| record.kind == kind);
        assert!(all.iter().all(|record| record.session == all[0].session));
        assert_eq!((is(Kind::Begin).count(), is(Kind::End).count()), (2, 1), "{all:#?}");
        // It knows still that the statement speaks of no secret.
        let executed = is(Kind::Execute).next().context("an execution")?;
        assert!(!executed.left_out && !executed.parameters.is_empty(), "{executed:?}");
    }
    Ok(())
}
