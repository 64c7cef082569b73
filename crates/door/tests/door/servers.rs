//! The door in front of a MySQL and a TiDB, and datasets that no engine has.

use crate::clients::{mysql, twin};
use crate::house::{House, Porter, TABLES, output};
use anyhow::{Result, bail};
use async_trait::async_trait;
use door::{Opener, Waits};
use engine::{Engine, EngineError, MySql, Options};
use std::sync::Arc;

struct Server(String);

#[async_trait]
impl Opener for Server {
    async fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let options = Options { read_only: true, ..Options::default() };
        Ok(Arc::new(MySql::open(&self.0, options).await?))
    }
}

async fn house(port: u16) -> Result<House> {
    let opener = Server(format!("mysql://root@127.0.0.1:{port}/ods"));
    House::over(tempfile::tempdir()?, Box::new(opener), Porter::new(None), None, Waits::default()).await
}

/// What is asked of the door over a server, and of the server itself.
const ALIKE: &[&str] = &[
    "SELECT id, customer, price, quantity, ratio, paid, day, made, took, note, photo, small, kind FROM ods.orders ORDER BY id",
    "USE ods; SELECT o.id, c.city FROM orders o LEFT JOIN customers c ON c.name = o.customer ORDER BY o.id",
];
const ALIKE_IN_VALUES: &[&str] = &[
    "USE ods; SELECT DATABASE(); SHOW TABLES; SHOW FULL TABLES LIKE 'c%'",
    "SHOW COLUMNS FROM ods.orders LIKE 'c%'",
    "USE information_schema; USE ods; SELECT count(*) FROM orders",
    "SELECT TABLE_NAME FROM information_schema.tables WHERE table_schema = 'ods' ORDER BY 1",
];

/// `judge`: a MySQL with the same tables; `typed`: the engine is it.
async fn alike(port: u16, judge: u16, typed: bool) -> Result<()> {
    let house = house(port).await?;
    let all = ALIKE.iter().map(|sql| (sql, typed)).chain(ALIKE_IN_VALUES.iter().map(|sql| (sql, false)));
    for (sql, typed) in all {
        let ours = output(mysql(house.port, sql, typed)?).await?;
        let its = output(mysql(judge, sql, typed)?).await?;
        // A computed number is told to be none of a table's.
        let told = |text: &str| {
            text.lines().filter(|it| !it.starts_with("Flags")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&ours), told(&its), "{sql}");
    }
    for (sql, words) in [
        ("DELETE FROM ods.orders", "ERROR 1290"),
        ("SELECT * FROM ods.orders FOR UPDATE", "ERROR 1235"),
        ("SELECT 1 /*! INTO OUTFILE '/tmp/x' */", "ERROR 1235"),
        ("USE nothing", "ERROR 1049"),
        ("USE mysql", "ERROR 1049"),
        ("SELECT user FROM mysql.user", "ERROR 1142"),
        ("SELECT user FROM `MySQL`.`user`", "ERROR 1142"),
        ("SELECT count(*) FROM performance_schema.global_status", "ERROR 1142"),
        ("SELECT id FROM ods.orders WHERE id IN (SELECT 1 FROM ods.tidemill_models)", "ERROR 1142"),
        ("SELECT sleep(5)", "ERROR 1235"),
        ("SELECT nothing FROM ods.orders", "ERROR 1054"),
        ("SHOW CREATE TABLE ods.nothing", "ERROR 1146"),
    ] {
        let Err(refused) = output(mysql(house.port, sql, false)?).await else { bail!("{sql} was done") };
        let refused = refused.to_string();
        assert!(refused.contains(words), "{sql}: {refused}");
    }
    for (sql, wanted) in [
        ("SHOW DATABASES LIKE 'o%'", "Database\nods\n"),
        (
            "SHOW DATABASES WHERE `Database` IN ('mysql', 'sys', 'performance_schema', 'metrics_schema', 'indicators')",
            "Database\nindicators\n",
        ),
    ] {
        assert_eq!(output(mysql(house.port, sql, false)?).await?, wanted, "{sql}");
    }
    let plan = output(mysql(house.port, "USE ods; EXPLAIN SELECT id FROM orders", false)?).await?;
    assert!(plan.starts_with("EXPLAIN\n"), "{plan}");
    let shown =
        output(mysql(house.port, "SELECT city, total FROM indicators.revenue ORDER BY total", false)?)
            .await?;
    assert_eq!(shown, "city\ttotal\nRiga\t5\nOslo\t7\n");
    house.close().await
}

#[tokio::test]
async fn over_a_mysql_the_door_tells_what_the_server_tells() -> Result<()> {
    let server = twin().await?;
    alike(server.port(), server.port(), true).await
}

#[tokio::test]
async fn over_a_tidb_the_door_tells_what_a_mysql_tells() -> Result<()> {
    let judge = twin().await?;
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await?;
    server.exec("CREATE DATABASE ods").await?;
    for sql in TABLES {
        server.exec(&sql.replace("DB.", "ods.")).await?;
    }
    alike(server.port(), judge.port(), false).await
}

#[tokio::test]
async fn datasets_of_no_engine_are_databases_beside_the_others() -> Result<()> {
    let house = House::open().await?;
    for (sql, wanted) in [
        ("SHOW DATABASES", "Database\nindicators\ninformation_schema\nmain\nods\n"),
        (
            "USE indicators; SHOW TABLES; SELECT total FROM revenue WHERE city = 'oslo'",
            "Tables_in_indicators\nrevenue\ntotal\n7\n",
        ),
        (
            "SELECT c.name, r.total FROM ods.customers c JOIN indicators.revenue r ON r.city = c.city",
            "name\ttotal\nAnn\t5\n",
        ),
        ("SELECT id FROM main.plain", "id\n7\n"),
        ("USE main; SHOW TABLES; SELECT id FROM plain", "Tables_in_main\nplain\nid\n7\n"),
        ("SELECT id FROM plain", "id\n7\n"),
        (
            "SELECT t.TABLE_NAME, count(*) AS n FROM information_schema.tables t JOIN information_schema.columns c \
             ON c.table_name = t.table_name AND c.table_schema = t.table_schema WHERE t.table_schema IN ('ods', 'indicators') \
             GROUP BY t.table_name ORDER BY n",
            "TABLE_NAME\tn\ncustomers\t2\nrevenue\t2\norders\t13\n",
        ),
    ] {
        let mut command = mysql(house.port, sql, false)?;
        command.arg("--database=");
        assert_eq!(output(command).await?, wanted, "{sql}");
    }
    for sql in ["USE ods; EXPLAIN SELECT id FROM orders", "USE indicators; EXPLAIN SELECT total FROM revenue"]
    {
        let mut command = mysql(house.port, sql, false)?;
        command.arg("--database=");
        let plan = output(command).await?;
        assert!(plan.contains("SCAN"), "{sql}: {plan}");
    }
    house.close().await
}
