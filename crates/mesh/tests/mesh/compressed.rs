//! Compression on either leg, whatever the other does: the same conversation, to the letter.

use crate::cut::cutter;
use crate::door::{anyone, certificate};
use crate::support::{Front, until};
use crate::traffic::conversation;
use anyhow::{Context, Result};
use futures_util::StreamExt;
use serde_json::json;
use testkit::mysql_async::prelude::*;
use testkit::mysql_async::{ChangeUserOpts, Compression, Conn, Opts, OptsBuilder};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

/// Whether the server compresses this session.
async fn compressed_behind(conn: &mut Conn) -> Result<String> {
    let status: Option<(String, String)> = conn.query_first("show status like 'Compression'").await?;
    Ok(status.map(|(_, on)| on).unwrap_or_default())
}

/// All combinations of the legs, and each in pieces where `pieces` says so.
async fn alike(server: &SqlServer, kind: &str, ways: &[&str], pieces: &[usize]) -> Result<()> {
    server.exec("create database if not exists shop").await?;
    let direct: Opts = OptsBuilder::from_opts(server.opts()).db_name(Some("shop")).into();
    let direct = conversation(&mut Conn::new(direct).await?).await?;
    let (_folder, tls) = certificate()?;
    for way in ways {
        for auth in [json!({}), json!({"auth": "vault", "users": [{"name": "root"}]})] {
            let (behind, one) =
                cutter(([127, 0, 0, 1], server.port()).into(), pieces.first().copied().unwrap_or(1 << 20))
                    .await?;
            let mut group = auth.clone();
            group["kind"] = kind.into();
            group["compression"] = (*way).into();
            let front = Front::start_with(&[behind.port()], group, tls.clone()).await?;
            for (client, piece) in [(false, None), (true, None)]
                .into_iter()
                .chain(pieces.iter().map(|piece| (true, Some(*piece))))
            {
                for secure in [false, true] {
                    let (before, other) = cutter(front.address, piece.unwrap_or(1 << 20)).await?;
                    let mut opts = front.opts("root", "").tcp_port(before.port()).db_name(Some("shop"));
                    if client {
                        opts = opts.compression(Some(Compression::default()));
                    }
                    if secure {
                        opts = opts.ssl_opts(anyone());
                    }
                    let what = format!("{way}, {auth}, client {client}, TLS {secure}, pieces {piece:?}");
                    let passed = front.mesh.status().uncompressed_bytes;
                    let mut conn = Conn::new(Opts::from(opts)).await?;
                    let through = conversation(&mut conn).await.with_context(|| what.clone())?;
                    assert_eq!(direct, through, "{what}");
                    let passed = front.mesh.status().uncompressed_bytes - passed;
                    // It has three megabytes in either direction. Other tests count too.
                    let legs = u64::from(client) + u64::from(*way != "off");
                    assert!(passed >= legs * 6_000_000, "{what}: {passed}");
                    if kind == "mysql" {
                        let on = if *way == "off" { "OFF" } else { "ON" };
                        assert_eq!(compressed_behind(&mut conn).await?, on, "{what}");
                    }
                    conn.disconnect().await?;
                    other.abort();
                }
            }
            until("idle sessions hold nothing", async || {
                (front.mesh.status().buffer_bytes == 0).then_some(())
            })
            .await?;
            one.abort();
            front.mesh.stop();
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mysql_is_the_same_compressed() -> Result<()> {
    alike(&*MySql::start(MySqlOptions::default()).await?, "mysql", &["off", "zlib", "zstd"], &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_mariadb_is_the_same_compressed() -> Result<()> {
    alike(&*MariaDb::start(MariaDbOptions::default()).await?, "mysql", &["zlib"], &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_tidb_is_the_same_compressed() -> Result<()> {
    alike(&*TiDb::start(TiDbOptions::default()).await?, "tidb", &["zlib", "zstd"], &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_in_pieces_of_any_length_are_the_same_conversation() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    alike(&mysql, "mysql", &["zlib"], &[3]).await?;
    alike(&mysql, "mysql", &["zstd"], &[1]).await
}

/// What `mysql` prints, by its own connection to a port.
async fn printed(program: &str, port: u16, way: &[&str], sql: &str) -> Result<String> {
    let server = if program == "mariadb" { "mariadb" } else { "mysql" };
    let mut client = tokio::process::Command::new(testkit::installed(server)?.join("bin").join(program));
    client.args(["--host=127.0.0.1", "--user=root", "--batch", "--max-allowed-packet=64M"]);
    client.args([format!("--port={port}"), format!("--execute={sql}")]).args(way);
    let told = client.output().await?;
    let errors = String::from_utf8_lossy(&told.stderr).into_owned();
    anyhow::ensure!(told.status.success(), "{program} {way:?}: {errors}");
    Ok(String::from_utf8(told.stdout)?)
}

#[tokio::test]
async fn the_servers_own_clients_see_the_same_by_every_way() -> Result<()> {
    let args = vec!["--local-infile=ON".into(), "--max-allowed-packet=64M".into()];
    let mysql = MySql::start(MySqlOptions { args: args.clone(), ..MySqlOptions::default() }).await?;
    let mariadb = MariaDb::start(MariaDbOptions { args, ..MariaDbOptions::default() }).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rows");
    let rows: String = (0..60_000).map(|id| format!("{id}\tname of {id}\n")).collect();
    std::fs::write(&file, &rows)?;
    let sql = format!(
        "create database if not exists shop; use shop; drop table if exists t; \
         create table t (id int primary key, name varchar(40)); \
         load data local infile '{}' into table t; select count(*), sum(id), sha2(group_concat(name), 256) from t; \
         select * from t order by id; select repeat('0123456789abcdef', 1100000); \
         select sha2('{}', 256); select 1; select 'end'",
        file.display(),
        "long ".repeat(20_000),
    );
    let of_mysql: [&[&str]; 4] = [
        &["--compression-algorithms=uncompressed"],
        &["--compression-algorithms=zlib"],
        &["--compression-algorithms=zstd", "--zstd-compression-level=19"],
        &["--compression-algorithms=zlib,zstd", "--ssl-mode=DISABLED"],
    ];
    let of_mariadb: [&[&str]; 2] = [&["--skip-ssl"], &["--skip-ssl", "--compress"]];
    // With MariaDB's server zstd is not offered, and its connections are as they were.
    for (program, server, behind, legs, ways) in [
        ("mysql", mysql.port(), "off", 0, &of_mysql[..]),
        ("mysql", mysql.port(), "zstd", 1, &of_mysql[..2]),
        ("mariadb", mariadb.port(), "zlib", 1, &of_mariadb[..]),
        ("mariadb", mariadb.port(), "zstd", 0, &of_mariadb[1..]),
    ] {
        let front = Front::start(&[server], json!({"compression": behind})).await?;
        for way in ways {
            let way = [*way, &["--local-infile=1"]].concat();
            let direct = printed(program, server, &way, &sql).await?;
            assert!(direct.len() > 18_000_000, "{} bytes", direct.len());
            let passed = front.mesh.status().uncompressed_bytes;
            let through = printed(program, front.address.port(), &way, &sql).await?;
            assert!(direct == through, "{program} {way:?} with {behind} behind");
            let passed = front.mesh.status().uncompressed_bytes - passed;
            let client = way.iter().any(|flag| flag.contains("compress") && !flag.ends_with("uncompressed"));
            let legs = legs + u64::from(client);
            assert!(passed >= legs * 18_000_000, "{program} {way:?} with {behind} behind: {passed}");
        }
        assert!(front.mesh.status().buffer_bytes <= 16 * 16 * 1024);
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test]
async fn everything_that_begins_a_command_is_numbered_as_one() -> Result<()> {
    let args = vec!["--local-infile=ON".into(), "--max-allowed-packet=64M".into()];
    let mysql = MySql::start(MySqlOptions { args, ..MySqlOptions::default() }).await?;
    mysql.exec("create user shop@'%' identified by 'secret'; create database shop").await?;
    mysql
        .exec("grant all on *.* to shop@'%'; create table shop.t (id int primary key, data longblob)")
        .await?;
    let users = json!([{"name": "shop", "password": "secret"}, {"name": "root"}]);
    let backends = json!([
        {"addr": format!("127.0.0.1:{}", mysql.port()), "role": "writer"},
        {"addr": format!("localhost:{}", mysql.port()), "role": "replica"},
    ]);
    for way in ["zlib", "zstd"] {
        for split in [false, true] {
            let mut group = json!({"compression": way});
            if split {
                group = json!({"compression": way, "auth": "vault", "users": users, "read_write_split": true,
                    "topology": "static", "backends": backends, "consistency": "off"});
            }
            let front = Front::start(&[mysql.port()], group).await?;
            let opts = front.opts("root", "").compression(Some(Compression::fast()));
            let opts: Opts = opts.max_allowed_packet(Some(64 << 20)).db_name(Some("shop")).into();
            let mut conn = Conn::new(opts.clone()).await?;
            conn.query_drop("truncate table t").await?;
            // Statements that are closed without an answer, and long data, between others.
            for round in 0..20 {
                let select = conn.prep("select ? + id from t where id = ?").await?;
                let none: Vec<u64> = conn.exec(&select, (round, round)).await?;
                assert!(none.is_empty());
                conn.close(select).await?;
                conn.query_drop(format!("set @round = {round}")).await?;
                conn.ping().await?;
            }
            // A parameter of more than one packet, sent in parts; an answer as long.
            let data: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
            conn.exec_drop("insert into t values (?, ?)", (1, &data)).await?;
            let back: Option<Vec<u8>> = conn.exec_first("select data from t where id = ?", (1,)).await?;
            assert!(back.is_some_and(|back| back == data));
            // A file, with more packets than numbers.
            let text: Vec<_> = (2..2002).map(|id| format!("{id}\tx\n").into_bytes()).collect();
            conn.set_infile_handler(async move {
                Ok(futures_util::stream::iter(text.into_iter().map(|line| Ok(line.into()))).boxed())
            });
            conn.query_drop("load data local infile 'rows' into table t").await?;
            assert_eq!(conn.query_first::<u64, _>("select count(*) from t").await?, Some(2001));
            // Another statement is killed by the number of its session.
            let mut slow = Conn::new(opts).await?;
            let id = slow.id();
            let waiting = tokio::spawn(async move { slow.query_first::<u32, _>("select sleep(30)").await });
            until("the server sleeps", async || {
                let asked =
                    "select count(*) from information_schema.processlist where info = 'select sleep(30)'";
                (mysql.query_one::<u64>(asked).await.ok()? == 1).then_some(())
            })
            .await?;
            conn.query_drop(format!("kill query {id}")).await?;
            assert_eq!(waiting.await??, Some(1));
            // Another user, and a reset; and on.
            let shop = ChangeUserOpts::new().with_user(Some("shop".into())).with_pass(Some("secret".into()));
            conn.change_user(shop).await?;
            let user: Option<String> = conn.query_first("select user()").await?;
            assert!(user.is_some_and(|user| user.starts_with("shop@")));
            conn.reset().await?;
            assert_eq!(conn.query_first::<Option<i32>, _>("select @round").await?, Some(None));
            assert!(conn.query_drop("select nonsense").await.is_err());
            assert_eq!(conn.query_first::<u8, _>("select 7").await?, Some(7));
            front.mesh.stop();
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_port_offers_what_it_is_told_to() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    for (offers, zlib, zstd) in
        [(json!([]), false, false), (json!(["zlib"]), true, false), (json!(["zstd"]), false, true)]
    {
        let front = Front::start_with(&[mysql.port()], json!({}), json!({"compression": offers})).await?;
        for (way, offered) in [("zlib", zlib), ("zstd", zstd)] {
            let way = format!("--compression-algorithms={way}");
            let told = printed("mysql", front.address.port(), &[&way], "select 1").await;
            assert_eq!(told.is_ok(), offered, "{offers}: {way}: {told:?}");
        }
        // Who can do without does without.
        let way = "--compression-algorithms=zlib,zstd,uncompressed";
        assert_eq!(printed("mysql", front.address.port(), &[way], "select 1").await?, "1\n1\n");
        front.mesh.stop();
    }
    Ok(())
}

#[tokio::test]
async fn a_binlog_streams_the_same_through_both_legs() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create database shop; create table shop.t (id int primary key, data longtext)").await?;
    for id in 0..300 {
        let row = format!("insert into shop.t values ({id}, repeat('abcdefgh', {}))", id * 40);
        mysql.exec(&row).await?;
    }
    let program = testkit::installed("mysql")?.join("bin/mysqlbinlog");
    let read = async |port: u16, way: &str| {
        let mut client = tokio::process::Command::new(&program);
        client.args([
            "--read-from-remote-server",
            "--host=127.0.0.1",
            "--user=root",
            "--get-server-public-key",
        ]);
        client.args([format!("--port={port}"), format!("--compression-algorithms={way}")]);
        let told = client.arg("mysql-bin.000001").output().await?;
        anyhow::ensure!(told.status.success(), "{way}: {}", String::from_utf8_lossy(&told.stderr));
        Ok::<_, anyhow::Error>(told.stdout)
    };
    let direct = read(mysql.port(), "uncompressed").await?;
    assert!(direct.len() > 10_000_000, "{} bytes", direct.len());
    for (client, server) in [("uncompressed", "zstd"), ("zstd", "off"), ("zlib", "zstd"), ("zstd", "zlib")] {
        let front = Front::start(&[mysql.port()], json!({"compression": server})).await?;
        let through = read(front.address.port(), client).await?;
        assert!(direct == through, "{client} and {server}: {} and {} bytes", direct.len(), through.len());
        front.mesh.stop();
    }
    Ok(())
}
