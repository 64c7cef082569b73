//! Several groups behind one port, what their connections begin with, and how many sessions they take.

use crate::door::{anyone, certificate};
use crate::proxy::balancer;
use crate::support::{Front, until};
use anyhow::{Context, Result, bail};
use mesh::{Mesh, MeshConfig};
use mysql::protocol::{Ends, ProxyVersion};
use serde_json::{Value, json};
use std::net::SocketAddr;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{ChangeUserOpts, Conn, Opts, OptsBuilder};
use testkit::{MySql, MySqlOptions, TiDb, TiDbOptions};

/// Groups before the same server, each of which begins its connections by its name.
fn front(server: u16, listener: Value, groups: Value) -> Result<(Mesh, SocketAddr)> {
    let mut all = groups;
    for (name, group) in all.as_object_mut().context("groups by name")? {
        group["backends"] = json!([{"addr": format!("127.0.0.1:{server}")}]);
        group["init"] = json!([format!("set @tenant = '{name}'")]);
    }
    let mut door = json!({"name": "door", "bind": "127.0.0.1:0"});
    for (key, value) in listener.as_object().cloned().unwrap_or_default() {
        door[key] = value;
    }
    let config: MeshConfig =
        serde_json::from_value(json!({"listeners": [door], "groups": all, "threads": 1}))?;
    let problems = config.problems();
    if !problems.is_empty() {
        bail!("{problems:?}");
    }
    let mesh = Mesh::start(&config)?;
    let address = mesh.addresses()["door"];
    Ok((mesh, address))
}

fn opts(address: SocketAddr, user: &str) -> OptsBuilder {
    OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(address.port())
        .user(Some(user))
        .prefer_socket(false)
}

async fn tenant(opts: OptsBuilder) -> Result<String> {
    let mut conn = Conn::new(Opts::from(opts)).await?;
    let tenant: Option<String> = conn.query_first("select @tenant").await?;
    conn.disconnect().await?;
    tenant.context("a connection begins with its group's name")
}

#[tokio::test]
async fn a_login_goes_to_the_group_that_it_fits() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user red, blue, green; create database one; create database two").await?;
    mysql.exec("grant all on *.* to red, blue, green").await?;
    let (_folder, tls) = certificate()?;
    let mut listener = tls;
    listener["tenants"] = json!(["user", "host", "balancer", "attribute", "database", "rest"]);
    listener["proxy_protocol"] = json!(["127.0.0.1"]);
    let groups = json!({
        "user": {"match": {"users": ["red"], "databases": ["one"]}},
        "host": {"match": {"sni": ["localhost"]}},
        "balancer": {"match": {"tlv": {"0xE4": "blue"}}},
        "attribute": {"match": {"attributes": {"program_name": "mysql"}}},
        "database": {"databases": ["two"]},
        "rest": {},
    });
    let (mesh, address) = front(mysql.port(), listener, groups)?;
    let ends = Ends { client: "192.0.2.7:1".parse()?, server: "192.0.2.1:2".parse()? };
    let plain = balancer(address, ProxyVersion::V2.write(Some(ends)), 100).await?;
    let mut header = ProxyVersion::V2.write(Some(ends));
    header.extend_from_slice(b"\xe4\x00\x04blue");
    header[15] += 7;
    let blue = balancer(address, header, 100).await?;
    assert_eq!(tenant(opts(plain, "red").db_name(Some("one"))).await?, "user");
    assert_eq!(tenant(opts(plain, "red").db_name(Some("two"))).await?, "database");
    assert_eq!(tenant(opts(plain, "green")).await?, "database");
    assert_eq!(tenant(opts(blue, "green").db_name(Some("two"))).await?, "balancer");
    // The name that TLS asks for; one by its number is none.
    let named = opts(plain, "green").ip_or_hostname("localhost").ssl_opts(anyone());
    assert_eq!(tenant(named).await?, "host");
    assert_eq!(tenant(opts(plain, "green").ssl_opts(anyone())).await?, "database");
    // The server's own client says what it is.
    let program = testkit::installed("mysql")?.join("bin/mysql");
    let mut client = tokio::process::Command::new(program);
    client.args(["--host=127.0.0.1", "--user=green", "--ssl-mode=DISABLED", "--skip-column-names"]);
    client.args([format!("--port={}", plain.port()), "--execute=select @tenant".into()]);
    let told = client.output().await?;
    assert_eq!(String::from_utf8_lossy(&told.stdout), "attribute\n");
    let status = mesh.status();
    let user = status.groups.iter().find(|group| group.name == "user").context("it is there")?;
    assert!(user.matches.as_ref().is_some_and(|wanted| wanted.users.contains("red")));
    mesh.stop();
    Ok(())
}

#[tokio::test]
async fn a_login_that_is_nobodys_is_told() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user red, blue").await?;
    let listener = json!({"tenants": ["red"], "fallback": "none"});
    let (mesh, address) = front(mysql.port(), listener, json!({"red": {"match": {"users": ["red"]}}}))?;
    assert_eq!(tenant(opts(address, "red")).await?, "red");
    let refused = tenant(opts(address, "blue")).await.unwrap_err().to_string();
    assert!(refused.contains("no group of this port takes user 'blue'"), "{refused}");
    // Nor does it become one of the group's by another way.
    let mut conn = Conn::new(Opts::from(opts(address, "red"))).await?;
    let blue = ChangeUserOpts::new().with_user(Some("blue".into())).with_pass(None);
    let refused = conn.change_user(blue).await.unwrap_err().to_string();
    assert!(refused.contains("Access denied for user 'blue'"), "{refused}");
    mesh.stop();
    Ok(())
}

#[tokio::test]
async fn connections_begin_with_what_the_group_says_and_do_so_again() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop; create resource group rg type = user").await?;
    let init = json!(["set session max_execution_time = 5000", "set @tenant = 'red', time_zone = '+05:00'"]);
    let asked = "select concat_ws(' ', @@max_execution_time, @tenant, @@time_zone)";
    let begun = Some("5000 red +05:00".to_owned());
    let users = json!([{"name": "root"}, {"name": "shop"}]);
    let mysql_port = mysql.port();
    let backends = json!([
        {"addr": format!("127.0.0.1:{mysql_port}"), "role": "writer"},
        {"addr": format!("localhost:{mysql_port}"), "role": "replica"},
    ]);
    for group in [
        json!({"init": init}),
        json!({"init": init, "auth": "vault", "users": users}),
        json!({"init": init, "auth": "vault", "users": users, "read_write_split": true,
            "topology": "static", "backends": backends, "consistency": "off"}),
    ] {
        let front = Front::start(&[mysql.port()], group.clone()).await?;
        let mut conn = front.root().await?;
        assert_eq!(conn.query_first::<String, _>(asked).await?, begun, "{group}");
        assert_eq!(conn.query_first::<String, _>(format!("{asked} for update")).await?, begun);
        // What the client says later wins, until it resets its session or becomes another.
        conn.query_drop("set time_zone = '+01:00', @tenant = 'mine'").await?;
        let own: Option<String> = conn.query_first(asked).await?;
        assert_eq!(own.as_deref(), Some("5000 mine +01:00"), "{group}");
        conn.reset().await?;
        assert_eq!(conn.query_first::<String, _>(asked).await?, begun, "{group}");
        conn.query_drop("set time_zone = '+02:00'").await?;
        conn.change_user(ChangeUserOpts::new().with_user(Some("shop".into())).with_pass(None)).await?;
        assert_eq!(conn.query_first::<String, _>(asked).await?, begun, "{group}");
        front.mesh.stop();
    }
    // One that the server refuses: with a relay the login is, with a vault each command, and nothing of it is done.
    for auth in [json!({}), json!({"auth": "vault", "users": users})] {
        for (statement, told) in [
            ("set session max_execution_time = 'nonsense'", "max_execution_time"),
            ("start transaction", "leaves a transaction open"),
            ("set resource group missing", "missing"),
        ] {
            let mut group = auth.clone();
            group["init"] = json!(["set @a = 1", statement]);
            let front = Front::start(&[mysql.port()], group).await?;
            let refused = format!("{:#}", front.root().await.unwrap_err());
            assert!(refused.contains(told) && refused.contains("`init` of group `shop`"), "{refused}");
            until("nothing is left behind", async || {
                (front.mesh.status().groups[0].backends[0].connections == 0).then_some(())
            })
            .await?;
            front.mesh.stop();
        }
    }
    Ok(())
}

#[tokio::test]
async fn tidb_takes_a_resource_group_for_each_connection() -> Result<()> {
    let tidb = TiDb::start(TiDbOptions::default()).await?;
    tidb.exec("create resource group rg_a ru_per_sec = 100000").await?;
    let init = json!(["SET RESOURCE GROUP rg_a"]);
    for auth in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
        let mut group = auth.clone();
        group["kind"] = "tidb".into();
        group["init"] = init.clone();
        let front = Front::start(&[tidb.port()], group).await?;
        let mut conn = front.root().await?;
        for _ in 0..2 {
            let now: Option<String> = conn.query_first("select current_resource_group()").await?;
            assert_eq!(now.as_deref(), Some("rg_a"), "{auth}");
            conn.reset().await?;
        }
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test]
async fn a_group_and_its_users_take_so_many_sessions_and_no_more() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user few, many").await?;
    let users = json!([{"name": "few"}, {"name": "many", "sessions_max": 3}, {"name": "root"}]);
    for auth in [json!({}), json!({"auth": "vault", "users": users})] {
        let vault = auth.get("users").is_some();
        let mut group = auth;
        group["sessions_max"] = 4.into();
        group["user_sessions_max"] = 2.into();
        let front = Front::start(&[mysql.port()], group).await?;
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(front.login("few", "").await?);
        }
        let full = format!("{:#}", front.login("few", "").await.unwrap_err());
        assert!(full.contains("ERROR 42000 (1226)") || full.contains("1226"), "{full}");
        assert!(full.contains("User 'few' has exceeded"), "{full}");
        // Who has not proven its name takes nobody's room.
        for _ in 0..10 {
            assert!(front.login("many", "wrong").await.is_err());
        }
        held.push(front.login("many", "").await?);
        held.push(front.login("many", "").await?);
        let full = format!("{:#}", front.login("many", "").await.unwrap_err());
        assert!(full.contains("1040") && full.contains("sessions_max: 4"), "{full}");
        let status = front.mesh.status();
        assert_eq!((status.groups[0].sessions, status.groups[0].limited), (4, 2));
        // A place is free once its session has ended; another user's name is not a way around the limit.
        held.remove(0).disconnect().await?;
        until("it has gone", async || (front.mesh.status().groups[0].sessions == 3).then_some(())).await?;
        let mut other = front.root().await?;
        held.remove(0).disconnect().await?;
        let many = || ChangeUserOpts::new().with_user(Some("many".into())).with_pass(None);
        if vault {
            other.change_user(many()).await?;
            until("there is room", async || (front.mesh.status().groups[0].sessions == 3).then_some(()))
                .await?;
            held.push(std::mem::replace(&mut other, front.root().await?));
        }
        let refused = other.change_user(many()).await.unwrap_err().to_string();
        assert!(refused.contains("User 'many' has exceeded"), "{refused}");
        front.mesh.stop();
    }
    Ok(())
}
