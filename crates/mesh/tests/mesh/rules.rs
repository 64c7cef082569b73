//! Rules before real servers: what they refuse, note and let pass, and which ways around them there are not.

use crate::raw::Raw;
use crate::support::{Front, until};
use anyhow::{Result, bail};
use mesh::MeshConfig;
use mysql::protocol::Capabilities;
use serde_json::{Value, json};
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Error};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

/// The number and the words of a statement's error.
async fn error(conn: &mut Conn, sql: impl AsRef<[u8]>) -> Result<(u16, String)> {
    let sql = String::from_utf8_lossy(sql.as_ref()).into_owned();
    match conn.query_drop(sql.as_str()).await {
        Ok(()) => bail!("it passed: {sql}"),
        Err(Error::Server(error)) => Ok((error.code, error.message)),
        Err(other) => bail!("{sql}: {other}"),
    }
}

async fn refused(conn: &mut Conn, sql: &str, rule: &str) -> Result<()> {
    let (number, message) = error(conn, sql).await?;
    assert_eq!(number, 1148, "{sql}: {message}");
    assert!(message.contains(&format!("the rule `{rule}`")), "{sql}: {message}");
    Ok(())
}

async fn tables(server: &SqlServer) -> Result<()> {
    server
        .exec("create database shop; create table shop.t (id int primary key, name varchar(500)); create table shop.secret (id int)")
        .await?;
    server.exec("insert into shop.t values (1, 'one'), (2, 'two'), (3, 'three')").await
}

/// Rules that leave nothing of a table to be lost, nor anything of `secret` to be read.
fn strict() -> Value {
    json!([
        {"name": "no-unbounded", "match": {"kinds": ["update", "delete"], "without_where": true}, "action": "deny"},
        {"name": "no-ddl", "match": {"kinds": ["ddl"]}, "action": "deny", "message": "ask the owners"},
        {"name": "no-secret", "match": {"pattern": "`secret`"}, "action": "deny"},
    ])
}

fn groups(rules: &Value) -> [Value; 2] {
    [json!({"rules": rules}), json!({"auth": "vault", "users": [{"name": "root"}], "rules": rules})]
}

fn hits(front: &Front, name: &str) -> u64 {
    let status = front.mesh.status();
    let rules = status.groups[0].rules.clone().expect("the group has rules");
    let rule = rules.rules.iter().find(|rule| rule.name == name).map(|rule| rule.hits);
    rule.or_else(|| rules.limits.iter().find(|limit| limit.name == name).map(|limit| limit.hits))
        .expect("it is there")
}

fn config(servers: &[u16], group: Value) -> Result<MeshConfig> {
    let mut group = group;
    let backends: Vec<_> = servers.iter().map(|port| json!({"addr": format!("127.0.0.1:{port}")})).collect();
    group["backends"] = backends.into();
    let door = json!([{"name": "door", "bind": "127.0.0.1:0", "tenants": ["shop"]}]);
    let config: MeshConfig = serde_json::from_value(json!({"listeners": door, "groups": {"shop": group}}))?;
    assert_eq!(config.problems(), []);
    Ok(config)
}

#[tokio::test]
async fn no_spelling_is_a_way_around_a_rule() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    for group in groups(&strict()) {
        let front = Front::start(&[server.port()], group).await?;
        let mut conn = front.root().await?;
        for sql in [
            "delete from shop.t",
            "DELETE/**/FROM`shop`.`t`",
            "/* x */ dElEtE # where id = 1\n from shop.t -- where id = 1",
            "/*! delete from shop.t */",
            "/*!50000 delete */ from shop.t",
            "delete /*!50000 from shop.t */",
            "delete from shop.t where 1 = 1",
            "delete from shop.t where true",
            "delete from shop.t where 'id' = 'id'",
            "delete from shop.t limit 1000",
            "delete t from shop.t join (select 1 as id where 1) x",
            "with x as (select 1 where 1) delete from shop.t",
            "update shop.t set name = (select 'x' from dual where 1)",
            "update shop.t set name = 'where id = 1'",
            // Servers read these in more than one way, or the text is not all that would run.
            "delete from shop.t /*!99999 where id = 1 */",
            "delete from shop.t /*!80000 where id = 1 */",
            "select 1; delete from shop.t",
            "select 1 /*! ; delete from shop.t */",
            "prepare s from 'delete from shop.t'",
            "set @x = 'delete from shop.t'; prepare s from @x; execute s",
            "prepare s from @x",
            "execute s",
            "create procedure shop.p() delete from shop.t",
            "create event shop.e on schedule at now() do delete from shop.t",
            "grant_all nonsense",
            "delete from shop.t where name = 'abc",
            "select \0 1",
        ] {
            refused(&mut conn, sql, "no-unbounded").await?;
        }
        for sql in [
            "drop table shop.t",
            "/*!50000 drop table shop.t */",
            "truncate shop.t",
            "TRUNCATE TABLE /*! shop.t */",
            "rename table shop.t to shop.u",
            "alter table shop.t drop column name",
        ] {
            refused(&mut conn, sql, "no-ddl").await?;
        }
        assert!(error(&mut conn, "drop table shop.t").await?.1.ends_with("ask the owners"));
        for sql in [
            "select * from shop.secret",
            "select * from shop.SECRET",
            "select * from shop . /* x */ `secret`",
            "(select 1) union (table shop.secret)",
            "with x as (select * from shop.secret) select * from x",
            "insert into shop.t select id, '' from shop.secret",
            "handler shop.secret open",
            "explain select * from shop.secret",
            "load data local infile '/tmp/x' into table shop.secret",
            "show columns from shop.secret",
        ] {
            refused(&mut conn, sql, "no-secret").await?;
        }
        for sql in [
            "select 'delete from t; drop table secret' from shop.t",
            "delete from shop.t where id = 99",
            "update shop.t set name = concat(name, '') where id in (1, 2)",
            "/*!40101 set names utf8mb4 */",
            "select /*!40001 sql_no_cache */ 1",
            "/*+ no hint */ select 1 -- ; drop table t",
            "insert into shop.t values (9, 'it''s \"quoted\" \\'so\\'') on duplicate key update name = values(name)",
            "begin",
            "delete from shop.t where id = 9",
            "commit",
            "call mysql.nothing()",
            "select 1;",
        ] {
            if let Err(error) = conn.query_drop(sql).await {
                let Error::Server(error) = error else { bail!("{sql}: {error}") };
                assert_eq!(error.code, 1305, "{sql}: {}", error.message);
            }
        }
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
        // Another connection's statement is not held back by these.
        assert!(hits(&front, "no-unbounded") >= 27);
        let noted = front.mesh.noted();
        assert!(
            noted.iter().any(|noted| noted.text == "DELETE FROM `shop` . `t`" && noted.count >= 2),
            "{noted:?}"
        );
        assert!(!noted.iter().any(|noted| noted.text.contains("abc")), "a literal is in {noted:?}");
    }
    Ok(())
}

#[tokio::test]
async fn quotes_and_character_sets_are_read_as_the_server_reads_them() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    for group in groups(&strict()) {
        let front = Front::start(&[server.port()], group).await?;
        let mut conn = front.root().await?;
        // As a text it is a condition; as a name it is an alias of the table.
        let quoted = "delete from shop.t \"x where id = 1\"";
        refused(&mut conn, "update shop.t set name = \" where id = 1\"", "no-unbounded").await?;
        assert_eq!(error(&mut conn, "select * from shop.\"secret\"").await?.0, 1064, "a text is no name");
        for mode in ["'ansi_quotes'", "concat('ansi', '_quotes')", "0x616e73695f71756f746573", "'ANSI'"] {
            conn.query_drop(format!("set sql_mode = {mode}")).await?;
            refused(&mut conn, "select * from shop.\"secret\"", "no-secret").await?;
            refused(&mut conn, quoted, "no-unbounded").await?;
            conn.query_drop("select \"id\", 'drop \"table\"' from shop.t where \"id\" = 1").await?;
            conn.query_drop("set sql_mode = default").await?;
            conn.query_drop("select id from shop.t where name = \"`secret`\"").await?;
        }
        // Without escapes a backslash closes no text.
        conn.query_drop("set sql_mode = 'no_backslash_escapes'").await?;
        refused(&mut conn, "select '\\' from shop.secret -- '", "no-secret").await?;
        conn.query_drop("set sql_mode = default").await?;
        conn.query_drop("select '\\' from shop.secret -- '").await?;
        // In gbk 0xbf5c is one character, whose second byte escapes nothing.
        let hidden = b"select '\xbf\\' from shop.secret -- '".to_vec();
        assert!(conn.query_drop(hidden.clone()).await.is_ok_and(|()| true), "in utf8mb4 it is a text");
        for sql in ["set names gbk", "set character_set_client = concat('g', 'bk')"] {
            conn.query_drop(sql).await?;
            match conn.query_drop(hidden.clone()).await {
                Err(Error::Server(error)) => assert_eq!(error.code, 1148, "{sql}: {}", error.message),
                other => bail!("{sql}: {other:?}"),
            }
            conn.query_drop("set names utf8mb4").await?;
        }
        conn.query_drop("select '中文', '商店' from shop.t where name = '一'").await?;
        // A setting within a transaction is known too, and the answer about the statement before is not lost.
        conn.query_drop("begin").await?;
        conn.query_drop("set sql_mode = 'ansi_quotes'").await?;
        refused(&mut conn, "delete from \"shop\".\"t\"", "no-unbounded").await?;
        conn.query_drop("rollback").await?;
    }
    Ok(())
}

#[tokio::test]
async fn commands_that_are_no_text_are_judged_too() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    let rules = json!([
        {"name": "no-unbounded", "match": {"kinds": ["update", "delete"], "without_where": true}, "action": "deny"},
        {"name": "no-mysql", "match": {"pattern": "use `mysql`"}, "action": "deny"},
        {"name": "no-kill", "match": {"kinds": ["kill"]}, "action": "deny"},
        {"name": "no-columns", "match": {"pattern": "show fields from `secret`"}, "action": "deny"},
    ]);
    for group in groups(&rules) {
        let relays = group.get("auth").is_none();
        let front = Front::start(&[server.port()], group).await?;
        let mut conn = front.root().await?;
        // Prepared: refused when it is prepared.
        let Err(Error::Server(refusal)) = conn.prep("delete from shop.t").await.map(|_| ()) else {
            bail!("it passed")
        };
        assert_eq!(refusal.code, 1148);
        let good = conn.prep("delete from shop.t where id = ?").await?;
        conn.exec_drop(&good, (77,)).await?;
        let mut raw = Raw::login(front.address, Capabilities::default()).await?;
        let told = async |raw: &mut Raw, payload: &[u8]| raw.error(payload).await;
        for (payload, rule) in [
            (&b"\x02mysql"[..], "no-mysql"),
            (b"\x0c\x07\0\0\0", "no-kill"),
            (b"\x04secret\0%", "no-columns"),
            // Never prepared, the last that was prepared where none was, and cut short.
            (b"\x17\x63\0\0\0\0\x01\0\0\0", "no-unbounded"),
            (b"\x17\xff\xff\xff\xff\0\x01\0\0\0", "no-unbounded"),
            (b"\x17\x63", "no-unbounded"),
            (b"\xfa\x63\0\0\0\0\0", "no-unbounded"),
            // Streams, and what nobody knows: the bytes behind them would not be looked at.
            (b"\x12\x04\0\0\0\0\0\x09\0\0\0binlog.1", "no-unbounded"),
            (b"\x1e\0\0", "no-unbounded"),
            (b"\x22", "no-unbounded"),
            (b"\x7f", "no-unbounded"),
            (b"\x05shop2", "no-unbounded"),
            (b"\x06shop", "no-unbounded"),
            (b"\x08", "no-unbounded"),
            (b"\x03delete from shop.t", "no-unbounded"),
            (b"\x03delete from shop.t;", "no-unbounded"),
        ] {
            let (number, message) = told(&mut raw, payload).await?.unwrap_or_default();
            assert!(number == 1148 && message.contains(rule), "{payload:?}: {number} {message}");
        }
        for payload in [&b"\x02shop"[..], b"\x0e", b"\x03select 1 from t where id = 1"] {
            let (error, first) = (told(&mut raw, payload).await?, payload[0]);
            assert_eq!(error, None);
            if first == 3 {
                for _ in 0..4 {
                    raw.hear().await?;
                }
            }
        }
        if !relays {
            // Attributes are not offered.
            assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
            continue;
        }
        // Attributes stand before the text.
        let mut raw = Raw::login(front.address, Capabilities::QUERY_ATTRIBUTES).await?;
        let attributes = b"\x03\x01\x01\0\x01\xfd\0\x05trace\x02ab".to_vec();
        let (number, message) =
            told(&mut raw, &[&attributes[..], b"delete from shop.t"].concat()).await?.unwrap_or_default();
        assert!(number == 1148 && message.ends_with("it matches"), "{message}");
        let garbled = told(&mut raw, b"\x03\x01\x01\0\0delete from shop.t").await?.unwrap_or_default();
        assert!(garbled.0 == 1148 && garbled.1.contains("attributes"), "{garbled:?}");
        assert_eq!(
            told(&mut raw, &[&attributes[..], b"delete from shop.t where id = 99"].concat()).await?,
            None
        );
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn long_statements_are_read_whole_or_refused() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    let mut rules = strict();
    rules
        .as_array_mut()
        .expect("it is a list")
        .insert(0, json!({"name": "loader", "match": {"users": ["loader"]}, "action": "allow"}));
    server.exec("create user loader@'%'; grant all on *.* to loader@'%'; set global max_allowed_packet = 67108864").await?;
    for group in groups(&rules) {
        let mut group = group;
        if let Some(users) = group.get_mut("users").and_then(Value::as_array_mut) {
            users.push(json!({"name": "loader"}));
        }
        let front = Front::start(&[server.port()], group).await?;
        let opts = front.opts("root", "").max_allowed_packet(Some(64 << 20));
        let mut conn = Conn::new(opts).await?;
        for bytes in [15_000, 20_000, 200_000, 1_500_000] {
            let blanks = " ".repeat(bytes);
            let comment = format!("/*{}*/", "x".repeat(bytes));
            refused_long(&mut conn, &format!("{comment} delete from shop.t"), "it matches").await?;
            refused_long(&mut conn, &format!("delete from shop.t {blanks} -- where id = 1"), "it matches")
                .await?;
            conn.query_drop(format!("delete from shop.t {blanks} where id = 99")).await?;
            conn.query_drop(format!("select '{}' from shop.t where id = 1", "y".repeat(bytes))).await?;
            let good = conn.prep(format!("{comment} select id from shop.t where id = ?")).await?;
            assert_eq!(conn.exec_first::<u32, _, _>(&good, (2,)).await?, Some(2));
        }
        for bytes in [3 << 20, 20 << 20] {
            let long = format!("select '{}' from shop.t where id = 1", "y".repeat(bytes));
            refused_long(&mut conn, &long, "longer than 2 MiB").await?;
        }
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
        // Whom a rule without other conditions allows, no statement has to be read of.
        let mut loader = Conn::new(front.opts("loader", "").max_allowed_packet(Some(64 << 20))).await?;
        loader.query_drop(format!("select length('{}')", "y".repeat(20 << 20))).await?;
        loader.query_drop("select 1; select 2").await?;
    }
    Ok(())
}

async fn refused_long(conn: &mut Conn, sql: &str, reason: &str) -> Result<()> {
    match conn.query_drop(sql).await {
        Err(Error::Server(error)) => {
            assert!(error.code == 1148 && error.message.contains(reason), "{}", error.message);
            Ok(())
        }
        other => bail!("{} bytes: {other:?}", sql.len()),
    }
}

#[tokio::test]
async fn what_only_observes_refuses_nothing_and_notes_it() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    let mut rules = strict();
    for rule in rules.as_array_mut().expect("it is a list") {
        rule["action"] = "observe".into();
        rule.as_object_mut().expect("it is a map").remove("message");
    }
    let group = json!({"rules": rules, "limits": [
        {"name": "few", "match": {"kinds": ["select"]}, "rate": "1/h", "max_result_rows": 1, "action": "observe"},
    ]});
    let front = Front::start(&[server.port()], group).await?;
    let mut conn = front.root().await?;
    conn.query_drop("create table shop.new (id int)").await?;
    conn.query_drop("delete from shop.new").await?;
    conn.query_drop("select 1; select 2").await?;
    conn.query_drop("prepare s from 'delete from shop.new'").await?;
    conn.query_drop("execute s").await?;
    for _ in 0..2 {
        assert_eq!(conn.query::<u32, _>("select id from shop.t").await?, [1, 2, 3]);
    }
    let noted = front.mesh.noted();
    let of = |rule: &str| noted.iter().filter(|noted| noted.rule == rule).collect::<Vec<_>>();
    assert!(noted.iter().all(|noted| noted.action == "observe" && noted.user == "root"), "{noted:?}");
    assert!(of("no-unbounded").iter().any(|noted| noted.text == "DELETE FROM `shop` . `new`"), "{noted:?}");
    assert!(of("no-unbounded").iter().any(|noted| noted.reason.contains("several statements")), "{noted:?}");
    assert!(of("no-ddl").iter().any(|noted| noted.text.starts_with("CREATE TABLE")), "{noted:?}");
    let few: Vec<_> = of("few").iter().map(|noted| noted.text.as_str()).collect();
    assert!(few.contains(&"SELECT `id` FROM `shop` . `t`"), "{noted:?}");
    Ok(())
}

#[tokio::test]
async fn other_users_are_not_asked_and_a_change_of_the_user_is_noticed() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    server.exec("create user app@'%'; grant all on shop.* to app@'%'").await?;
    let rules = json!([{"name": "no-ddl", "match": {"kinds": ["ddl"], "users": ["app"]}, "action": "deny"}]);
    for group in [
        json!({"rules": rules}),
        json!({"auth": "vault", "users": [{"name": "root"}, {"name": "app"}], "rules": rules}),
    ] {
        let front = Front::start(&[server.port()], group).await?;
        let mut conn = front.root().await?;
        conn.query_drop("create table shop.made (id int); drop table shop.made").await?;
        refused(&mut front.login("app", "").await?, "create table shop.made (id int)", "no-ddl").await?;
        let opts = testkit::mysql_async::ChangeUserOpts::default().with_user(Some("app".into()));
        conn.change_user(opts).await?;
        refused(&mut conn, "create table shop.made (id int)", "no-ddl").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_list_is_learnt_and_then_enforced() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    server.exec("create user app@'%'; grant all on shop.* to app@'%'").await?;
    let front = Front::start(&[server.port()], json!({"allow_list": {"mode": "learn", "file": "x"}})).await?;
    let mut app = front.login("app", "").await?;
    app.query_drop("select name from shop.t where id = 1").await?;
    app.exec_drop("update shop.t set name = ? where id = ?", ("x", 99)).await?;
    app.query_drop("use shop").await?;
    app.query_drop("select 1; select 2").await?;
    drop(app);
    let learnt = front.mesh.learnt("shop").expect("the group has a list");
    let texts: Vec<_> = learnt.statements.iter().map(|statement| statement.text.as_str()).collect();
    assert!(texts.contains(&"SELECT NAME FROM `shop` . `t` WHERE `id` = ?"), "{texts:?}");
    assert!(texts.contains(&"USE `shop`"), "{texts:?}");
    assert!(learnt.statements.iter().all(|statement| statement.users.contains("app")));
    let mut next = config(
        &[server.port()],
        json!({"allow_list": {"mode": "enforce", "file": "x"}, "rules": [
            {"name": "pings", "match": {"pattern": "select \\?"}, "action": "allow"},
        ]}),
    )?;
    let group = next.groups.get_mut("shop").expect("it is there");
    group.allow_list.as_mut().expect("it is there").statements = learnt.statements.clone();
    front.mesh.reload(&next)?;
    // What the driver says when it logs in was learnt too.
    let mut app = front.login("app", "").await?;
    app.query_drop("select /* any */ NAME from `shop`.t where id = 7").await?;
    app.exec_drop("update shop.t set name = ? where id = ?", ("y", 98)).await?;
    app.query_drop("select 5").await?;
    for sql in [
        "select name from shop.t where id = 1 or 1 = 1",
        "select name from shop.t where id = 1 union select name from shop.t",
        "select 5; select 6",
        "select 5 from shop.t",
        "delete from shop.t where id = 99",
        "use mysql",
    ] {
        refused(&mut app, sql, "allow_list").await?;
    }
    let list = front.mesh.status().groups[0]
        .rules
        .as_ref()
        .and_then(|rules| rules.allow_list.clone())
        .expect("it is there");
    assert_eq!((list.statements, list.hits), (learnt.statements.len(), 6));
    // It is the list of that user: another's driver is not even let ask for its settings.
    match front.root().await {
        Ok(mut root) => refused(&mut root, "select name from shop.t where id = 1", "allow_list").await?,
        Err(error) => assert!(format!("{error:#}").contains("`allow_list`"), "{error:#}"),
    }
    Ok(())
}

#[tokio::test]
async fn so_many_run_at_once_and_come_in_a_time() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    let group = json!({"limits": [
        {"name": "sleepers", "match": {"seen": ["waits"]}, "concurrency": 2, "queue": "100ms"},
        {"name": "patient", "match": {"pattern": "from `shop` . `secret`"}, "concurrency": 1, "queue": "20s"},
        {"name": "pace", "match": {"kinds": ["delete"]}, "per": "digest", "rate": "3/h"},
    ]});
    let front = Front::start(&[server.port()], group).await?;
    let running = async |sql: &str| -> Result<Conn> {
        let mut conn = front.root().await?;
        let (number, sql) = (conn.id(), sql.to_owned());
        tokio::spawn(async move { conn.query_drop(sql).await });
        until("it runs", async || {
            let limits = front.mesh.status().groups[0].rules.clone()?.limits;
            (limits.iter().map(|limit| limit.running + limit.waiting).sum::<usize>() > 0).then_some(())
        })
        .await?;
        let mut killer = front.root().await?;
        killer.query_drop(format!("set @victim = {number}")).await?;
        Ok(killer)
    };
    let mut first = running("select sleep(100)").await?;
    let mut second = front.root().await?;
    let other = tokio::spawn({
        let mut conn = front.root().await?;
        async move { conn.query_drop("select sleep(100)").await }
    });
    until("two are running", async || {
        let limits = front.mesh.status().groups[0].rules.clone()?.limits;
        (limits[0].running == 2).then_some(())
    })
    .await?;
    let (number, message) = error(&mut second, "select sleep(0)").await?;
    assert!(
        number == 1226 && message.contains("`sleepers`") && message.contains("2 statements are running"),
        "{message}"
    );
    // The session goes on, and other statements are not held back.
    assert_eq!(second.query_first::<u32, _>("select 1").await?, Some(1));
    // A client that leaves makes room.
    other.abort();
    first.query_drop("select 1").await?;
    until("one has left", async || {
        let limits = front.mesh.status().groups[0].rules.clone()?.limits;
        (limits[0].running < 2).then_some(())
    })
    .await?;
    // One that waits for its turn gets it.
    let mut lock = front.root().await?;
    lock.query_drop("lock tables shop.secret write").await?;
    let waits =
        |mut conn: Conn| tokio::spawn(async move { conn.query_drop("select * from shop.secret").await });
    let (one, two) = (waits(front.root().await?), waits(front.root().await?));
    until("one runs, and one waits", async || {
        let limits = front.mesh.status().groups[0].rules.clone()?.limits;
        (limits[1].running == 1 && limits[1].waiting == 1).then_some(())
    })
    .await?;
    lock.query_drop("unlock tables").await?;
    one.await??;
    two.await??;
    for _ in 0..1 {
        second.query_drop("delete from shop.t where id = 99").await?;
    }
    let (number, message) = error(&mut second, "delete from shop.t where id = 98").await?;
    assert!(number == 1226 && message.contains("`pace`"), "{message}");
    second.query_drop("delete from shop.t where name = 'no'").await?;
    assert_eq!((hits(&front, "pace"), hits(&front, "sleepers")), (1, 1));
    Ok(())
}

#[tokio::test]
async fn answers_that_are_too_long_or_take_too_long_end_and_sessions_go_on() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    server.exec("create table shop.big (id int primary key auto_increment, a varchar(200))").await?;
    server.exec("insert into shop.big (a) values (repeat('x', 200)), (repeat('x', 200))").await?;
    for _ in 0..13 {
        server.exec("insert into shop.big (a) select a from shop.big").await?;
    }
    server.exec("create user watch@'%'; grant connection_admin, system_user on *.* to watch@'%'").await?;
    let limits = json!([
        {"name": "short", "max_execution_time": "300ms", "match": {"pattern": "from `shop` . `big` `a`"}},
        {"name": "small", "max_result_rows": 100},
    ]);
    let slow = "select count(*) from shop.big a, shop.big b, shop.big c where a.a < concat(b.a, c.a)";
    for group in [
        json!({"auth": "vault", "users": [{"name": "root"}], "limits": limits}),
        json!({"monitor": {"user": "watch"}, "limits": limits}),
    ] {
        let front = Front::start(&[server.port()], group).await?;
        let mut conn = front.root().await?;
        conn.query_drop("begin").await?;
        conn.query_drop("insert into shop.t values (50, 'x')").await?;
        let number: Option<u64> = conn.query_first("select connection_id()").await?;
        let (code, message) = error(&mut conn, slow).await?;
        assert!(code == 3024 && message.contains("`short`") && message.contains("300ms"), "{code} {message}");
        let (code, message) = error(&mut conn, "select * from shop.big where id > 0").await?;
        assert!(
            code == 1226 && message.contains("`small`") && message.contains("rows than 100"),
            "{code} {message}"
        );
        let statement = conn.prep("select * from shop.big where id > ?").await?;
        let executed = conn.exec::<(u32, String), _, _>(&statement, (0,)).await;
        assert!(matches!(&executed, Err(Error::Server(error)) if error.code == 1226), "{executed:?}");
        // The same connection, in the same transaction.
        assert_eq!(conn.query_first::<u64, _>("select connection_id()").await?, number);
        assert_eq!(conn.query::<u32, _>("select id from shop.big where id > 0 limit 100").await?.len(), 100);
        assert_eq!(conn.query_first::<u32, _>("select id from shop.t where id = 50").await?, Some(50));
        conn.query_drop("rollback").await?;
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
        assert_eq!((hits(&front, "short"), hits(&front, "small")), (1, 2));
        let killed = "select count(*) from information_schema.processlist where info like '%concat(b.a%' and id <> connection_id()";
        assert_eq!(conn.query_first::<u32, _>(killed).await?, Some(0));
    }
    // Where the mesh can kill nothing, what cannot be read to its end ends the connection.
    let front = Front::start(&[server.port()], json!({"limits": limits})).await?;
    let mut conn = front.root().await?;
    let (code, message) = error(&mut conn, slow).await?;
    assert!(code == 3024 && message.contains("`short`"), "{code} {message}");
    assert!(conn.query_drop("select 1").await.is_err());
    let front = Front::start(&[server.port()], json!({"limits": [limits[1]]})).await?;
    let mut conn = front.root().await?;
    assert_eq!(error(&mut conn, "select * from shop.big where id > 0").await?.0, 1226);
    assert_eq!(conn.query_first::<u32, _>("select 1").await?, Some(1));
    Ok(())
}

#[tokio::test]
async fn rules_are_changed_under_sessions_and_a_thousand_of_them_at_once() -> Result<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    tables(&server).await?;
    let front = Front::start(&[server.port()], json!({})).await?;
    let mut conn = front.root().await?;
    let delete = conn.prep("delete from shop.t").await?;
    let select = conn.prep("select id from shop.t where id = ?").await?;
    conn.query_drop("begin").await?;
    let rules: Vec<_> = (0..1000)
        .map(|number| {
            let matches = match number % 3 {
                0 => json!({"digest": format!("{number:016x}")}),
                1 => json!({"pattern": format!("from `table_{number}` where `a` = \\?")}),
                _ => json!({"kinds": ["update", "delete"], "users": [format!("user_{number}")]}),
            };
            json!({"name": format!("rule-{number}"), "match": matches, "action": "deny"})
        })
        .chain(strict().as_array().cloned().unwrap_or_default())
        .collect();
    let began = std::time::Instant::now();
    let next = config(&[server.port()], json!({"rules": rules}))?;
    let read = began.elapsed();
    let began = std::time::Instant::now();
    let next_again = config(&[server.port()], json!({"rules": rules}))?;
    let read_again = began.elapsed();
    assert_eq!(next_again.groups["shop"].rules, next.groups["shop"].rules);
    let began = std::time::Instant::now();
    front.mesh.reload(&next)?;
    println!(
        "1003 rules: read in {read:?}, again in {read_again:?}, taken into use in {:?}",
        began.elapsed()
    );
    // Within the transaction, and for what was prepared before.
    refused(&mut conn, "delete from shop.t", "no-unbounded").await?;
    let executed = conn.exec_drop(&delete, ()).await;
    assert!(matches!(&executed, Err(Error::Server(error)) if error.code == 1148), "{executed:?}");
    assert_eq!(conn.exec_first::<u32, _, _>(&select, (2,)).await?, Some(2));
    conn.query_drop("rollback").await?;
    let began = std::time::Instant::now();
    for _ in 0..200 {
        conn.query_drop("select id from shop.t where id = 1").await?;
    }
    println!("200 statements in {:?}", began.elapsed());
    assert_eq!(hits(&front, "no-unbounded"), 2);
    // Counts live on under their names; rules that are gone refuse no more.
    front.mesh.reload(&config(&[server.port()], json!({"rules": [strict()[0]]}))?)?;
    assert_eq!(hits(&front, "no-unbounded"), 2);
    conn.query_drop("create table shop.fresh (id int)").await?;
    front.mesh.reload(&config(&[server.port()], json!({}))?)?;
    conn.query_drop("delete from shop.fresh").await?;
    assert!(front.mesh.status().groups[0].rules.is_none());
    Ok(())
}

#[tokio::test]
async fn a_client_asks_where_its_statement_would_go() -> Result<()> {
    let pair = crate::split::Pair::start().await?;
    let group = json!({
        "auth": "vault", "users": [{"name": "root"}], "monitor": {"user": "monitor"}, "read_write_split": true,
        "rules": strict(),
    });
    let front = Front::start(&[pair.replica.port(), pair.writer.port()], group).await?;
    let mut conn = front.root().await?;
    until("the replica is asked", async || {
        (crate::split::place(&mut conn).await.ok()? == "replica").then_some(())
    })
    .await?;
    type Row = (String, String, Option<String>, String, Option<String>, String, Option<String>, String);
    let ask = async |conn: &mut Conn, sql: &str| -> Result<Row> {
        let row: Option<testkit::mysql_async::Row> = conn.query_first(format!("EXPLAIN ROUTE {sql}")).await?;
        let row = row.expect("one row");
        let names: Vec<_> = row.columns_ref().iter().map(|column| column.name_str().into_owned()).collect();
        assert_eq!(
            names,
            ["group", "role", "server", "reason", "pins", "digest", "rule", "action", "rule_reason"]
        );
        let cell = |index: usize| row.get::<Option<String>, _>(index).flatten();
        let text = |index: usize| cell(index).unwrap_or_default();
        Ok((text(0), text(1), cell(2), text(3), cell(4), text(5), cell(6), text(7)))
    };
    let told = ask(&mut conn, "select * from shop.t").await?;
    let replica = Some(format!("127.0.0.1:{}", pair.replica.port()));
    assert_eq!((told.0.as_str(), told.1.as_str(), &told.2), ("shop", "replica", &replica));
    assert_eq!((told.3.as_str(), told.4, told.6, told.7.as_str()), ("only reads", None, None, "pass"));
    let digest = front.mesh.explain("shop", "select * from shop.t", None).expect("the group is there").digest;
    assert_eq!(told.5, digest);
    let told = ask(&mut conn, "delete from shop.t").await?;
    assert_eq!(
        (told.1.as_str(), told.6.as_deref(), told.7.as_str()),
        ("writer", Some("no-unbounded"), "deny")
    );
    let told = ask(&mut conn, "create temporary table shop.x (id int)").await?;
    assert_eq!((told.4.as_deref(), told.6.as_deref()), (Some("temporary table"), Some("no-ddl")));
    // Nothing was done, and nothing remembered: the session still reads at the replica.
    assert_eq!(crate::split::place(&mut conn).await?, "replica");
    assert_eq!(hits(&front, "no-unbounded"), 0);
    let told = front
        .mesh
        .explain("shop", "select 1; delete from shop.t", Some("root"))
        .expect("it is there")
        .verdict
        .expect("it has rules");
    assert!(told.action == "deny" && told.rules[0].reason.contains("several statements"), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn other_dialects_have_ways_of_their_own_and_none_is_one_around() -> Result<()> {
    let maria = MariaDb::start(MariaDbOptions::default()).await?;
    tables(&maria).await?;
    for group in groups(&strict()) {
        let front = Front::start(&[maria.port()], group).await?;
        let mut conn = front.root().await?;
        for sql in [
            "execute immediate 'delete from shop.t'",
            "execute immediate concat('delete ', 'from shop.t')",
            "set statement max_statement_time = 10 for delete from shop.t",
            "analyze delete from shop.t",
            "begin not atomic delete from shop.t; end",
            "if 1 then delete from shop.t; end if",
            "/*M! delete from shop.t */",
            "/*M!100000 delete from shop.t */",
            "delete from shop.t /*!50701 where id = 1 */",
            "delete from shop.t returning id",
        ] {
            refused(&mut conn, sql, "no-unbounded").await?;
        }
        conn.query_drop("set statement max_statement_time = 10 for delete from shop.t where id = 99").await?;
        conn.query_drop("analyze delete from shop.t where id = 99").await?;
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn tidb_has_ways_of_its_own_too() -> Result<()> {
    let tidb = TiDb::start(TiDbOptions::default()).await?;
    tables(&tidb).await?;
    for group in groups(&strict()) {
        let mut group = group;
        let vault = group.get("auth").is_some();
        group["kind"] = "tidb".into();
        group["limits"] =
            json!([{"name": "short", "max_execution_time": "500ms", "match": {"seen": ["waits"]}}]);
        let front = Front::start(&[tidb.port()], group).await?;
        let mut conn = front.root().await?;
        for sql in [
            "explain analyze delete from shop.t",
            "trace delete from shop.t",
            "batch on id limit 10 delete from shop.t",
            "delete from shop.t /*T![ttl] where id = 1 */",
            "delete from shop.t /*T![no_such] where id = 1 */",
            "/*T! delete from shop.t */",
            "select 1; delete from shop.t",
        ] {
            refused(&mut conn, sql, "no-unbounded").await?;
        }
        conn.query_drop("explain analyze delete from shop.t where id = 99").await?;
        conn.query_drop("select \"`secret`\", '\\'' from shop.t").await?;
        conn.query_drop("set sql_mode = concat('ansi', '_quotes')").await?;
        refused(&mut conn, "select * from shop.\"secret\"", "no-unbounded").await?;
        conn.query_drop("set sql_mode = default").await?;
        assert_eq!(conn.query_first::<u32, _>("select count(*) from shop.t").await?, Some(3));
        // A sleep that is killed ends without an error. With `relay` nobody can tell the server to kill it, so the client
        // gets the limit's, and its connection ends.
        let slept = conn.query_drop("select sleep(20) from shop.t where id = 1").await;
        match &slept {
            Ok(()) => assert!(vault, "it was killed by nobody"),
            Err(Error::Server(error)) => assert!(!vault && error.code == 3024, "{}", error.message),
            Err(other) => bail!("{other}"),
        }
        // The client hears of it first.
        until("it is counted", async || (hits(&front, "short") == 1).then_some(())).await?;
        assert_eq!(conn.query_drop("select 1").await.is_ok(), vault);
    }
    Ok(())
}
