//! Real clients ask the door and a real MySQL the same.

use crate::house::{House, TABLES, output};
use anyhow::Result;
use std::process::Command;

pub fn mysql(port: u16, sql: &str, typed: bool) -> Result<Command> {
    let mut command = Command::new(testkit::MySql::client_program()?);
    command.args([
        "-h127.0.0.1",
        "-uroot",
        "--default-character-set=utf8mb4",
        &format!("-P{port}"),
        "-e",
        sql,
    ]);
    command.args(if typed { &["--table", "--column-type-info"][..] } else { &["--batch"] });
    Ok(command)
}

/// A MySQL with the same tables.
pub async fn twin() -> Result<testkit::MySql> {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await?;
    server.exec("CREATE DATABASE ods").await?;
    for sql in TABLES {
        server.exec(&sql.replace("DB.", "ods.")).await?;
    }
    Ok(server)
}

/// What both must answer alike, as the client of MySQL prints it.
const ALIKE: &[&str] = &[
    "SELECT id, customer, price, quantity, ratio, paid, day, made, took, note, photo, small, kind FROM ods.orders ORDER BY id",
    "USE ods; SELECT o.id, c.city FROM orders o LEFT JOIN customers c ON c.name = o.customer ORDER BY o.id",
    "USE ods; SELECT * FROM (SELECT id, customer, price FROM orders) AS inside WHERE id > 1 ORDER BY id",
];

/// What both must answer alike, but for the types of columns that no table of the project has.
const ALIKE_IN_VALUES: &[&str] = &[
    "USE ods; SELECT count(*), sum(price), avg(quantity), max(day), 1+1, 'x', NULL FROM orders",
    "USE ods; SHOW TABLES",
    "USE ods; SHOW FULL TABLES LIKE 'ord%'",
    "USE ods; SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'",
    "USE ods; DESCRIBE orders",
    "USE ods; DESC orders price",
    "SHOW COLUMNS FROM customers FROM ods LIKE 'c%'",
    "SELECT DATABASE()",
    "USE ods; SELECT DATABASE(), SCHEMA()",
    "SELECT TABLE_NAME FROM information_schema.tables WHERE table_schema = 'ods' ORDER BY 1",
    "SELECT COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, CHARACTER_OCTET_LENGTH, \
     NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_TYPE, COLUMN_KEY, EXTRA \
     FROM information_schema.columns WHERE table_schema = 'ods' AND table_name = 'orders' ORDER BY ORDINAL_POSITION",
    "SELECT INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NON_UNIQUE FROM information_schema.statistics \
     WHERE table_schema = 'ods' ORDER BY table_name, INDEX_NAME, SEQ_IN_INDEX",
    "SELECT CONSTRAINT_NAME, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, REFERENCED_TABLE_NAME FROM \
     information_schema.key_column_usage WHERE table_schema = 'ods' ORDER BY 2, 1, 4",
    "USE ods; BEGIN; SELECT 1; COMMIT",
    "USE ods; SELECT @@autocommit, @@session.auto_increment_increment AS a",
];

/// Flags that MySQL tells of a column only where it reads no other table beside it.
const FLAGS_OF_KEYS: [&str; 5] =
    ["PRI_KEY", "AUTO_INCREMENT", "MULTIPLE_KEY", "PART_KEY", "NO_DEFAULT_VALUE"];

fn told(text: &str) -> Vec<String> {
    let line = |line: &str| match line.strip_prefix("Flags:") {
        Some(flags) => {
            let kept: Vec<_> = flags.split_whitespace().filter(|it| !FLAGS_OF_KEYS.contains(it)).collect();
            format!("Flags: {}", kept.join(" "))
        }
        None => line.to_owned(),
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn the_client_of_mysql_sees_what_a_mysql_shows() -> Result<()> {
    let (house, server) = (House::open().await?, twin().await?);
    let mut different = Vec::new();
    let all = ALIKE.iter().map(|sql| (sql, true)).chain(ALIKE_IN_VALUES.iter().map(|sql| (sql, false)));
    for (sql, typed) in all {
        let ours = output(mysql(house.port, sql, typed)?).await?;
        let its = output(mysql(server.port(), sql, typed)?).await?;
        let (ours, its) = (told(&ours), told(&its));
        let lines = ours.iter().zip(&its).filter(|(a, b)| a != b).map(|(a, b)| format!("{a}  |  {b}"));
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() || ours.len() != its.len() {
            different.push(format!("{sql}\n{}\n({} and {} lines)", lines.join("\n"), ours.len(), its.len()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    house.close().await
}
