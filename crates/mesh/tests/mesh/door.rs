//! Who comes in, and how: every authentication that a server asks for, with and without TLS on either side.

use crate::raw::Raw;
use crate::support::Front;
use anyhow::Result;
use mysql::protocol::{Capabilities, ServerError};
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts, SslOpts};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, TiDb, TiDbOptions};

/// A certificate for 127.0.0.1 and its key, in files of a folder.
pub fn certificate() -> Result<(tempfile::TempDir, serde_json::Value)> {
    let folder = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((folder, json!({"tls": {"cert": cert, "key": key}})))
}

pub fn anyone() -> SslOpts {
    SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
}

async fn who(conn: &mut Conn) -> Result<String> {
    Ok(conn.query_first::<String, _>("select user()").await?.unwrap_or_default())
}

#[tokio::test]
async fn a_relayed_login_is_the_servers_own_with_and_without_tls() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'pass word'; create database orders; grant all on orders.* to shop@'%'").await?;
    let (_folder, tls) = certificate()?;
    for (group, listener, secure) in [
        (json!({}), json!({}), false),
        (json!({}), tls.clone(), true),
        (json!({"tls": "require"}), tls.clone(), true),
    ] {
        let front = Front::start_with(&[mysql.port()], group.clone(), listener).await?;
        // With nothing in the server's cache the whole password passes; then its proof is enough.
        mysql.exec("flush privileges").await?;
        for _ in 0..2 {
            let mut opts = front.opts("shop", "pass word").db_name(Some("orders"));
            if secure {
                opts = opts.ssl_opts(anyone());
            }
            let mut conn = Conn::new(Opts::from(opts)).await?;
            assert!(who(&mut conn).await?.starts_with("shop@"));
            let database: Option<String> = conn.query_first("select database()").await?;
            assert_eq!(database.as_deref(), Some("orders"));
            let cipher: Option<(String, String)> = conn.query_first("show status like 'Ssl_cipher'").await?;
            assert_eq!(cipher.is_some_and(|(_, cipher)| !cipher.is_empty()), group.get("tls").is_some());
            conn.disconnect().await?;
        }
        assert!(who(&mut front.root().await?).await?.starts_with("root@"));
        let mut opts = front.opts("shop", "wrong");
        if secure {
            opts = opts.ssl_opts(anyone());
        }
        let wrong = Conn::new(Opts::from(opts)).await.unwrap_err();
        assert!(format!("{wrong:#}").contains("Access denied for user 'shop'"), "{wrong:#}");
        front.mesh.stop();
    }
    // The server wants the whole password within TLS, and the client's leg has none: it is said, not hung on.
    mysql.exec("flush privileges").await?;
    let front = Front::start(&[mysql.port()], json!({"tls": "require"})).await?;
    let cold = front.login("shop", "pass word").await.unwrap_err();
    assert!(format!("{cold:#}").contains("log in with TLS once"), "{cold:#}");
    Ok(())
}

#[tokio::test]
async fn mariadb_and_tidb_let_their_accounts_in_too() -> Result<()> {
    let mariadb = MariaDb::start(MariaDbOptions::default()).await?;
    mariadb.exec("create user shop@'%' identified by 'secret'").await?;
    let front = Front::start(&[mariadb.port()], json!({})).await?;
    let mut conn = front.login("shop", "secret").await?;
    assert!(who(&mut conn).await?.starts_with("shop@"));
    assert!(front.login("shop", "wrong").await.is_err());
    assert!(who(&mut front.root().await?).await?.starts_with("root@"));

    let tidb = TiDb::start(TiDbOptions::default()).await?;
    tidb.exec("create user one identified with mysql_native_password by 'secret'").await?;
    tidb.exec("create user two identified with caching_sha2_password by 'secret'").await?;
    let front = Front::start(&[tidb.port()], json!({"kind": "tidb"})).await?;
    let mut conn = front.login("one", "secret").await?;
    assert!(who(&mut conn).await?.starts_with("one@"));
    assert!(front.login("one", "wrong").await.is_err());
    assert!(who(&mut front.root().await?).await?.starts_with("root@"));
    Ok(())
}

#[tokio::test]
async fn a_vault_checks_the_client_and_logs_in_as_it_or_as_its_account() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql
        .exec("create user shop@'%' identified by 'secret'; create user mesh@'%' identified by 'other'")
        .await?;
    let users = json!([{"name": "shop", "password": "secret"}, {"name": "root"}]);
    let (_folder, tls) = certificate()?;
    for listener in [json!({}), tls] {
        let front =
            Front::start_with(&[mysql.port()], json!({"auth": "vault", "users": users}), listener.clone())
                .await?;
        let mut opts = front.opts("shop", "secret");
        if listener.get("tls").is_some() {
            opts = opts.ssl_opts(anyone());
        }
        let mut conn = Conn::new(Opts::from(opts)).await?;
        assert!(who(&mut conn).await?.starts_with("shop@"));
        assert!(who(&mut front.root().await?).await?.starts_with("root@"));
        for (user, password) in [("shop", "wrong"), ("shop", ""), ("nobody", ""), ("root", "guess")] {
            let denied = format!("{:#}", front.login(user, password).await.unwrap_err());
            assert!(denied.contains(&format!("Access denied for user '{user}'")), "{denied}");
        }
    }
    let mapped = json!({"auth": "mapped", "users": users, "account": {"name": "mesh", "password": "other"}});
    let front = Front::start(&[mysql.port()], mapped).await?;
    assert!(who(&mut front.login("shop", "secret").await?).await?.starts_with("mesh@"));
    Ok(())
}

#[tokio::test]
async fn a_client_becomes_another_user_and_keeps_nothing_of_the_first() -> Result<()> {
    use testkit::mysql_async::ChangeUserOpts;
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    let users = json!([{"name": "shop", "password": "secret"}, {"name": "root"}]);
    for group in [json!({}), json!({"auth": "vault", "users": users, "read_write_split": true})] {
        let front = Front::start(&[mysql.port()], group).await?;
        let mut conn = front.root().await?;
        conn.query_drop("set @mine = 1").await?;
        let shop = ChangeUserOpts::new().with_user(Some("shop".into())).with_pass(Some("secret".into()));
        conn.change_user(shop).await?;
        assert!(who(&mut conn).await?.starts_with("shop@"));
        assert_eq!(conn.query_first::<Option<i32>, _>("select @mine").await?, Some(None));
        let wrong = ChangeUserOpts::new().with_user(Some("shop".into())).with_pass(Some("wrong".into()));
        let denied = conn.change_user(wrong).await.unwrap_err().to_string();
        assert!(denied.contains("Access denied for user 'shop'"), "{denied}");
    }
    Ok(())
}

#[tokio::test]
async fn a_port_that_requires_tls_lets_nobody_in_without() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let (_folder, mut listener) = certificate()?;
    listener["tls_required"] = true.into();
    let front = Front::start_with(&[mysql.port()], json!({}), listener).await?;
    let plain = format!("{:#}", front.root().await.unwrap_err());
    assert!(plain.contains("without TLS are not let in"), "{plain}");
    let secure: Opts = front.opts("root", "").ssl_opts(anyone()).into();
    assert!(who(&mut Conn::new(secure).await?).await?.starts_with("root@"));
    Ok(())
}

#[tokio::test]
async fn a_client_with_another_way_than_the_greetings_is_asked_again() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user shop@'%' identified by 'secret'").await?;
    let users = json!([{"name": "shop", "password": "secret"}]);
    let front = Front::start(&[mysql.port()], json!({"auth": "vault", "users": users})).await?;
    // MariaDB's client says the way that it is told, and proves nothing before it is asked.
    let program = testkit::installed("mariadb")?.join("bin/mariadb");
    let ask = async |password: &str| {
        let mut client = tokio::process::Command::new(&program);
        client.args([
            "--host=127.0.0.1",
            "--user=shop",
            "--default-auth=mysql_native_password",
            "--skip-ssl",
        ]);
        client.args([format!("--port={}", front.address.port()), format!("--password={password}")]);
        client.args(["--skip-column-names", "--execute=select current_user()"]).output().await
    };
    let told = ask("secret").await?;
    assert_eq!(
        String::from_utf8_lossy(&told.stdout),
        "shop@%\n",
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    for password in ["wrong", ""] {
        let told = ask(password).await?;
        let error = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success() && error.contains("Access denied for user 'shop'"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_password_is_not_asked_for_it_again() -> Result<()> {
    let mysql = MySql::start(MySqlOptions::default()).await?;
    mysql.exec("create user nobody@'%'; create user shop@'%' identified by 'secret'").await?;
    let front = Front::start(&[mysql.port()], json!({})).await?;
    let knock = async |user: &str, plugin: &str| {
        Ok::<_, anyhow::Error>(Raw::knock(front.address, Capabilities(0), user, plugin).await?.1.1)
    };
    assert_eq!(knock("nobody", "caching_sha2_password").await?[0], 0);
    // The server has checked it: an empty proof lets nobody in who has a password.
    let refused = ServerError::read(&knock("shop", "caching_sha2_password").await?)?;
    assert_eq!(refused.number, 1045, "{}", refused.message);
    assert!(refused.message.contains("using password: NO"), "{}", refused.message);
    // Whose own way is not the greeting's may have a password, and has not been asked for it.
    for user in ["nobody", "shop"] {
        assert_eq!(knock(user, "mysql_native_password").await?[0], 0xfe);
    }
    Ok(())
}
