//! The mesh's own port: who comes in, what it shows and does, and what it does with garbage.

use crate::support::until;
use anyhow::{Context, Result};
use mesh::{AdminPort, BackendConfig, BackendsChange, Keeper, Mesh, MeshConfig, Refusal};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts, OptsBuilder, Row};
use testkit::{MySql, MySqlOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keeps the configuration in memory, as a node keeps it in `mesh.yaml`.
#[derive(Debug)]
struct Memory {
    mesh: Arc<Mesh>,
    kept: Mutex<Value>,
}

impl Memory {
    fn take(&self, value: &Value) -> Result<(), Refusal> {
        let invalid = |message: String| Refusal::new(base::Code::Invalid, message, "mend it");
        let config: MeshConfig = serde_json::from_value(value.clone()).map_err(|e| invalid(e.to_string()))?;
        if let Some((message, hint)) = config.problems().into_iter().next() {
            return Err(Refusal::new(base::Code::Invalid, message, hint));
        }
        self.mesh.reload(&config).map_err(|error| invalid(error.to_string()))
    }
}

impl Keeper for Memory {
    fn reload(&self) -> Result<(), Refusal> {
        let kept = self.kept.lock().expect("nobody panics with it").clone();
        self.take(&kept)
    }

    fn change_backends(&self, group: &str, change: BackendsChange) -> Result<bool, Refusal> {
        let mut kept = self.kept.lock().expect("nobody panics with it");
        let mut value = kept.clone();
        let list: Vec<BackendConfig> = serde_json::from_value(value["groups"][group]["backends"].clone())
            .expect("it was taken into use");
        let (list, made) = change.apply(&list)?;
        value["groups"][group]["backends"] = serde_json::to_value(list).expect("it is text and numbers");
        self.take(&value)?;
        *kept = value;
        Ok(made)
    }
}

struct Office {
    mesh: Arc<Mesh>,
    memory: Arc<Memory>,
    port: AdminPort,
    door: SocketAddr,
}

const PASSWORD: &str = "a word that nobody guesses";

impl Office {
    /// `rest` is what the configuration has beside, or otherwise.
    fn start(servers: &[u16], group: Value, rest: Value) -> Result<Office> {
        let backends: Vec<_> =
            servers.iter().map(|port| json!({"addr": format!("127.0.0.1:{port}")})).collect();
        let mut shop = json!({"backends": backends, "topology": "static"});
        for (key, value) in group.as_object().cloned().unwrap_or_default() {
            shop[key] = value;
        }
        let mut config = json!({
            "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
            "groups": {"shop": shop}, "threads": 2, "slow": "1ms",
            "admin": {"listen": "127.0.0.1:0", "users": [
                {"name": "admin", "password": PASSWORD}, {"name": "viewer", "password": PASSWORD, "read_only": true}]},
        });
        for (key, value) in rest.as_object().cloned().unwrap_or_default() {
            config[key] = value;
        }
        let parsed: MeshConfig = serde_json::from_value(config.clone())?;
        assert_eq!(parsed.problems(), []);
        let mesh = Arc::new(Mesh::start(&parsed)?);
        let memory = Arc::new(Memory { mesh: mesh.clone(), kept: Mutex::new(config) });
        let port = AdminPort::open(&mesh, memory.clone(), None)?.context("there is an admin port")?;
        let door = mesh.addresses()["door"];
        Ok(Office { mesh, memory, port, door })
    }

    async fn login(&self, user: &str, password: &str) -> Result<Conn> {
        login(self.port.address(), user, password).await
    }

    async fn client(&self) -> Result<Conn> {
        login(self.door, "root", "").await
    }
}

async fn login(address: SocketAddr, user: &str, password: &str) -> Result<Conn> {
    let opts: Opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(address.port())
        .user(Some(user))
        .pass((!password.is_empty()).then_some(password))
        .prefer_socket(false)
        .into();
    Ok(Conn::new(opts).await?)
}

/// A column of a list.
async fn column(conn: &mut Conn, sql: &str, name: &str) -> Result<Vec<String>> {
    let rows: Vec<Row> = conn.query(sql).await?;
    let cell = |row: &Row| row.get::<Option<String>, _>(name).flatten().unwrap_or_else(|| "NULL".into());
    Ok(rows.iter().map(cell).collect())
}

/// The number and the words of the error that a statement gets.
async fn refused(conn: &mut Conn, sql: &str) -> (u16, String) {
    match conn.query_drop(sql).await {
        Err(testkit::mysql_async::Error::Server(error)) => (error.code, error.message),
        other => panic!("{sql}: {other:?}"),
    }
}

fn vault() -> Value {
    json!({"auth": "vault", "users": [{"name": "root"}], "pool": {"max": 4, "idle": 2}})
}

#[tokio::test]
async fn every_list_is_shown_and_statements_are_explained() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let rules = json!([{"name": "no_drop", "match": {"kinds": ["ddl"]}, "action": "deny"}]);
    let mut group = vault();
    group["rules"] = rules;
    let office = Office::start(&[server.port()], group, json!({}))?;
    let mut client = office.client().await?;
    client.query_drop("select sleep(0.01), 'a secret'").await?;
    assert!(client.query_drop("drop table nothing.nowhere").await.is_err());
    let mut admin = office.login("admin", PASSWORD).await?;
    let address = format!("127.0.0.1:{}", server.port());
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "backend").await?, std::slice::from_ref(&address));
    assert_eq!(column(&mut admin, "show backends", "state").await?, ["up"]);
    assert_eq!(column(&mut admin, "SHOW GROUPS;", "name").await?, ["shop"]);
    assert_eq!(column(&mut admin, "SHOW SESSIONS", "user").await?, ["root"]);
    assert_eq!(column(&mut admin, "SHOW FULL PROCESSLIST", "busy_ms").await?, ["NULL"]);
    let texts = column(&mut admin, "SHOW DIGESTS LIMIT 1000", "text").await?;
    assert!(texts.iter().any(|text| text.contains("sleep") || text.contains("SLEEP")), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("secret")));
    assert_eq!(column(&mut admin, "SHOW DIGESTS LIMIT 1", "calls").await?.len(), 1);
    let slow = column(&mut admin, "SHOW SLOW", "backend").await?;
    assert!(slow.contains(&address), "{slow:?}");
    assert_eq!(column(&mut admin, "SHOW POOLS", "open").await?, ["1"]);
    assert_eq!(column(&mut admin, "SHOW RULES", "hits").await?, ["1"]);
    assert_eq!(column(&mut admin, "SHOW LISTENERS", "address").await?, [office.door.to_string()]);
    assert_eq!(column(&mut admin, "SHOW STATUS LIKE 'sess%'", "Value").await?, ["1"]);
    assert!(column(&mut admin, "HELP", "Statement").await?.len() > 10);
    let told = column(&mut admin, "EXPLAIN ROUTE IN GROUP shop drop table t", "Value").await?;
    assert!(told.contains(&"writer".to_owned()) && told.contains(&"deny".to_owned()), "{told:?}");
    // What clients say by themselves.
    assert_eq!(column(&mut admin, "select @@version_comment limit 1", "@@version_comment").await?.len(), 1);
    assert_eq!(column(&mut admin, "SELECT DATABASE()", "DATABASE()").await?, ["tidemill"]);
    assert_eq!(column(&mut admin, "show variables like 'autocommit'", "Value").await?, ["1"]);
    for nothing in [
        "SET NAMES utf8mb4",
        "/*!40101 SET sql_mode='' */",
        "use tidemill",
        "begin",
        "rollback",
        "show warnings",
    ] {
        admin.query_drop(nothing).await.context(nothing)?;
    }
    admin.ping().await?;
    // What there is not is told with what there is.
    let (number, words) = refused(&mut admin, "update mysql.user set host = '%'").await;
    assert!(
        number == 1064 && words.contains("SHOW BACKENDS") && words.contains("RELOAD"),
        "{number} {words}"
    );
    assert_eq!(refused(&mut admin, "select @@nothing").await.0, 1193);
    assert_eq!(refused(&mut admin, "select 1; drop table t").await.0, 1064);
    assert!(admin.prep("show backends").await.is_err());
    admin.ping().await?;
    Ok(())
}

#[tokio::test]
async fn sessions_and_statements_are_killed_with_every_kind_of_login() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    server
        .exec("create user monitor@'%'; grant connection_admin, system_user, replication client on *.* to monitor@'%'")
        .await?;
    let groups = [
        vault(),
        json!({"auth": "mapped", "users": [{"name": "root"}], "account": {"name": "root"}}),
        json!({"auth": "relay", "monitor": {"user": "monitor"}}),
    ];
    for group in groups {
        let office = Office::start(&[server.port()], group.clone(), json!({}))?;
        until("the server is known", async || office.mesh.status().groups[0].backends[0].version.clone())
            .await?;
        let mut admin = office.login("admin", PASSWORD).await?;
        let mut client = office.client().await?;
        let id = column(&mut admin, "SHOW SESSIONS", "id").await?.remove(0);
        let sleeping = tokio::spawn(async move {
            let answer = client.query_first::<u8, _>("select sleep(60)").await;
            (client, answer)
        });
        until("it runs", async || {
            let running =
                "select count(*) from information_schema.processlist where info = 'select sleep(60)'";
            (server.conn().await.ok()?.query_first::<u8, _>(running).await.ok()? == Some(1)).then_some(())
        })
        .await?;
        assert_ne!(column(&mut admin, "SHOW SESSIONS", "busy_ms").await?, ["NULL"]);
        admin.query_drop(format!("KILL QUERY {id}")).await.with_context(|| group.to_string())?;
        let (mut client, answer) = sleeping.await?;
        // `sleep` answers 1 when it is stopped.
        assert!(matches!(answer, Ok(Some(1)) | Err(_)), "{answer:?}");
        client.query_drop("begin").await?;
        // The idle session ends at once, and its transaction with it.
        admin.query_drop(format!("KILL {id}")).await?;
        until("the session is gone", async || (office.mesh.status().sessions == 0).then_some(())).await?;
        assert!(client.query_drop("select 1").await.is_err());
        assert_eq!(refused(&mut admin, &format!("KILL {id}")).await.0, 1094);
    }
    Ok(())
}

#[tokio::test]
async fn servers_are_drained_added_and_removed_and_a_refused_change_changes_nothing() -> Result<()> {
    let (one, other) =
        (MySql::start(MySqlOptions::default()).await?, MySql::start(MySqlOptions::default()).await?);
    let office = Office::start(&[one.port()], vault(), json!({}))?;
    let mut admin = office.login("admin", PASSWORD).await?;
    let (first, second) = (format!("127.0.0.1:{}", one.port()), format!("127.0.0.1:{}", other.port()));
    let mut client = office.client().await?;
    client.query_drop("select 1").await?;
    admin.query_drop(format!("DRAIN BACKEND '{first}'")).await?;
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "state").await?, ["draining"]);
    admin.query_drop(format!("UNDRAIN BACKEND '{first}' IN GROUP shop")).await?;
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "state").await?, ["up"]);
    admin.query_drop(format!("ADD BACKEND '{second}' TO GROUP shop ROLE writer WEIGHT 3")).await?;
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "backend").await?, [first.clone(), second.clone()]);
    until("the new one answers", async || {
        (column(&mut admin, "SHOW BACKENDS", "state").await.ok()? == ["up", "up"]).then_some(())
    })
    .await?;
    let kept = office.memory.kept.lock().unwrap().clone();
    for (statement, told) in [
        (format!("ADD BACKEND '{second}'"), "there already"),
        ("ADD BACKEND 'no port' TO GROUP shop".into(), "not `host:port`"),
        ("ADD BACKEND 'a:1' TO GROUP shop WEIGHT 0".into(), "between 1 and 1000"),
        ("ADD BACKEND 'a:1' TO GROUP none".into(), "groups are: shop"),
        ("REMOVE BACKEND 'z:1'".into(), "no group has"),
        ("REMOVE BACKEND 'z:1' FROM GROUP shop".into(), "no server `z:1`"),
        ("DRAIN BACKEND 'z:1' IN GROUP shop".into(), "no server `z:1`"),
    ] {
        let (_, words) = refused(&mut admin, &statement).await;
        assert!(words.contains(told) && words.contains("hint"), "{statement}: {words}");
        assert_eq!(*office.memory.kept.lock().unwrap(), kept, "{statement}");
    }
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "backend").await?, [first.clone(), second.clone()]);
    admin.query_drop(format!("REMOVE BACKEND '{first}'")).await?;
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "backend").await?, std::slice::from_ref(&second));
    // The session goes on, at the other one.
    let port: Option<u16> = client.query_first("select @@port").await?;
    assert_eq!(port, Some(other.port()));
    let (_, words) = refused(&mut admin, &format!("REMOVE BACKEND '{second}'")).await;
    assert!(words.contains("`backends` is empty"), "{words}");
    assert_eq!(column(&mut admin, "SHOW BACKENDS", "backend").await?, [second]);
    // A viewer sees everything and changes nothing.
    let mut viewer = office.login("viewer", PASSWORD).await?;
    assert_eq!(column(&mut viewer, "SHOW GROUPS", "name").await?, ["shop"]);
    for statement in ["RELOAD", "KILL 1", "DRAIN BACKEND 'a:1'", "REMOVE BACKEND 'a:1'", "ADD BACKEND 'a:1'"]
    {
        assert_eq!(refused(&mut viewer, statement).await.0, 1227, "{statement}");
    }
    // Who is gone from the configuration is let out, and who has another password.
    office.memory.kept.lock().unwrap()["admin"]["users"] = json!([{"name": "admin", "password": "another"}]);
    admin.query_drop("RELOAD").await?;
    assert!(viewer.query_drop("SHOW GROUPS").await.is_err());
    assert!(admin.query_drop("SHOW GROUPS").await.is_err());
    office.login("admin", "another").await?.query_drop("SHOW GROUPS").await?;
    Ok(())
}

#[tokio::test]
async fn nobody_comes_in_without_the_password_and_a_full_mesh_still_answers() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let office = Office::start(&[server.port()], vault(), json!({"limits": {"sessions": 1}}))?;
    let _client = office.client().await?;
    assert!(office.client().await.unwrap_err().to_string().contains("Too many connections"));
    for (user, password) in
        [("admin", ""), ("admin", "guessed"), ("root", ""), ("", ""), ("viewer", "a word")]
    {
        let error = office.login(user, password).await.unwrap_err().to_string();
        assert!(error.contains("Access denied"), "{user}/{password}: {error}");
    }
    // An account of the servers is none of the mesh's, and the other way round.
    assert!(login(office.door, "admin", PASSWORD).await.is_err());
    let mut admin = office.login("admin", PASSWORD).await?;
    assert_eq!(column(&mut admin, "SHOW STATUS LIKE 'sessions'", "Value").await?, ["1"]);
    Ok(())
}

#[test]
fn a_port_that_other_machines_reach_needs_tls_and_a_login_needs_a_password() {
    let told = |admin: Value| -> Vec<String> {
        let config: MeshConfig = serde_json::from_value(json!({
            "listeners": [{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}],
            "groups": {"shop": {"backends": [{"addr": "127.0.0.1:3306"}]}}, "admin": admin,
        }))
        .unwrap();
        config.problems().into_iter().map(|(message, _)| message).collect()
    };
    let users = json!([{"name": "a", "password": "b"}]);
    assert_eq!(told(json!({"users": users})), Vec::<String>::new());
    assert_eq!(told(json!({"listen": "[::1]:1", "users": users})), Vec::<String>::new());
    let tls = json!({"cert": "a.pem", "key": "b.pem"});
    assert_eq!(told(json!({"listen": "0.0.0.0:6032", "users": users, "tls": tls})), Vec::<String>::new());
    for (admin, expected) in [
        (json!({"listen": "0.0.0.0:6032", "users": users}), "open to other machines"),
        (json!({"listen": "[::]:6032", "users": users}), "open to other machines"),
        (json!({"users": []}), "nobody may come in"),
        (json!({"users": [{"name": "a", "password": ""}]}), "empty password"),
        (json!({"users": [{"name": "a", "password": "b"}, {"name": "a", "password": "c"}]}), "named `a`"),
    ] {
        let told = told(admin);
        assert!(matches!(&told[..], [only] if only.contains(expected)), "{expected}: {told:?}");
    }
}

#[tokio::test]
async fn with_tls_nobody_comes_in_without_it() -> Result<()> {
    let (_folder, tls) = crate::door::certificate()?;
    let users = json!([{"name": "admin", "password": PASSWORD}]);
    let admin = json!({"listen": "127.0.0.1:0", "users": users, "tls": tls["tls"]});
    // Its group has no server that answers, which is when one wants to look.
    let office = Office::start(&[1], vault(), json!({"admin": admin}))?;
    let error = office.login("admin", PASSWORD).await.unwrap_err().to_string();
    assert!(error.contains("without TLS"), "{error}");
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(office.port.address().port())
        .user(Some("admin"))
        .prefer_socket(false)
        .ssl_opts(crate::door::anyone());
    let mut conn = Conn::new(Opts::from(opts.clone().pass(Some(PASSWORD)))).await?;
    until("the server is down", async || {
        (column(&mut conn, "SHOW BACKENDS", "state").await.ok()? == ["down"]).then_some(())
    })
    .await?;
    assert!(Conn::new(Opts::from(opts.pass(Some("guessed")))).await.is_err());
    Ok(())
}

/// Reads until the other side closes, which it does within a time.
async fn rest(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let read = tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut out)).await;
    match read.context("it is never closed")? {
        Ok(_) => Ok(out),
        // What was unread when it closed.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(out),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn garbage_half_logins_and_long_packets_are_bounded_and_disturb_nobody() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let office = Office::start(&[server.port()], vault(), json!({}))?;
    let address = office.port.address();
    let mut admin = office.login("admin", PASSWORD).await?;
    let mut garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        // A length that no login has, and one of the longest packet.
        [&[0xff, 0xff, 0xff, 1][..], &[0; 1000]].concat(),
        [&[0, 0, 3, 1][..], &[0; 1000]].concat(),
        // An empty login, and one that ends within its name.
        vec![0, 0, 0, 1],
        [&[40, 0, 0, 1][..], &[0xff; 40]].concat(),
        // TLS, which is not there.
        [&[32, 0, 0, 1, 0, 0x8a, 0, 0][..], &[0; 28]].concat(),
    ];
    for length in 1..60u8 {
        let bytes = (0..length).map(|at| at.wrapping_mul(37) ^ length);
        garbage.push([&[length, 0, 0, 1][..], &bytes.collect::<Vec<_>>()].concat());
    }
    for bytes in garbage {
        let mut stream = TcpStream::connect(address).await?;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        rest(&mut stream).await.with_context(|| format!("{bytes:?}"))?;
    }
    // A statement that is too long is refused, and its sender let out.
    let long = format!("SHOW STATUS LIKE '{}'", "x".repeat(200 * 1024));
    assert!(admin.query_drop(&long).await.is_err());
    // Many that say nothing: there is an end to them, which they are told, and room again when they have left.
    let mut silent = Vec::new();
    let mut turned_away = 0;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await?;
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        turned_away += u32::from(head[4] == 0xff);
        silent.push(stream);
    }
    assert!((30..=50).contains(&turned_away), "{turned_away} of 100");
    assert!(office.login("admin", PASSWORD).await.is_err());
    drop(silent);
    let mut admin = until("there is room again", async || office.login("admin", PASSWORD).await.ok()).await?;
    assert_eq!(column(&mut admin, "SHOW GROUPS", "name").await?, ["shop"]);
    // Who logs in and is silent in the midst of it is let out.
    let mut half = TcpStream::connect(address).await?;
    half.write_all(&[100, 0, 0, 1, 0]).await?;
    rest(&mut half).await?;
    Ok(())
}

#[tokio::test]
async fn the_client_that_comes_with_mysql_can_use_it() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let office = Office::start(&[server.port()], vault(), json!({}))?;
    let client = MySql::client_program()?;
    for more in ["--skip-auto-rehash", "--auto-rehash"] {
        let output = tokio::process::Command::new(&client)
            .args(["--protocol=tcp", "-h127.0.0.1", "-uadmin", more, "--batch", "--loose-commands"])
            .arg(format!("-P{}", office.port.address().port()))
            .env("MYSQL_PWD", PASSWORD)
            .args(["-e", "SHOW BACKENDS; SHOW STATUS; RELOAD; \n status\n"])
            .output()
            .await
            .with_context(|| format!("failed to run {}", client.display()))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        assert!(
            out.contains(&format!("127.0.0.1:{}", server.port()))
                && out.contains("sessions\t0")
                && out.contains("Tidemill mesh admin port"),
            "{out}"
        );
    }
    Ok(())
}
