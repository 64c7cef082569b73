//! Which executable comments are read: by our lexer, and by the three servers.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use mysql::sql::{Dialect, Lexer, Modes, TokenKind};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

const OPENINGS: &[&str] = &[
    "/*",
    "/*!",
    "/*! ",
    "/*!50000",
    "/*!50699",
    "/*!50700",
    "/*!50701",
    "/*!80000",
    "/*!080000",
    "/*!99998",
    "/*!99999",
    "/*!100000",
    "/*!100500",
    "/*!101100",
    "/*!120000",
    "/*!999999",
    "/*M!",
    "/*M!100000",
    "/*M!50800",
    "/*M!120000",
    "/*M",
    "/*T!",
    "/*T! ",
    "/*T![auto_rand]",
    "/*T![ttl,placement]",
    "/*T![no_such]",
    "/*T![ttl,no_such]",
    "/*T![]",
    "/*T",
    "/* !",
    "/*m!",
    "/*t!",
    "/**",
    "/***",
];

async fn judge(server: &SqlServer, dialect: Dialect) {
    let conn = server.conn().await.unwrap();
    let (major, minor, patch) = conn.server_version();
    let server_version = u32::from(major) * 10_000 + u32::from(minor) * 100 + u32::from(patch);
    let modes = Modes { dialect, server_version, ..Modes::default() };
    let mut read = 0;
    for opening in OPENINGS {
        // The other comment inside ends the outer one where that is a plain comment.
        for rest in [" + 1 */", " + 1 /* */ + 2 */", " + 1 /* */ + 4 /* */ */"] {
            let sql = format!("select 10{opening}{rest}");
            let Ok(theirs) = server.query_one::<i64>(&sql).await else { continue };
            let mut lexer = Lexer::new(sql.as_bytes(), modes);
            let mut sum = 0;
            loop {
                let token = lexer.next_code();
                match token.kind {
                    TokenKind::End => break,
                    TokenKind::Integer => {
                        sum += std::str::from_utf8(lexer.text(token)).unwrap().parse::<i64>().unwrap()
                    }
                    _ => {}
                }
            }
            assert_eq!(sum, theirs, "{dialect:?}: {sql}");
            read += usize::from(theirs > 10);
        }
    }
    assert!(read > 5, "{dialect:?}: {read}");
}

#[tokio::test]
async fn mysql_reads_the_same_comments() {
    judge(&MySql::start(MySqlOptions::default()).await.unwrap(), Dialect::MySql).await;
}

#[tokio::test]
async fn mariadb_reads_the_same_comments() {
    judge(&MariaDb::start(MariaDbOptions::default()).await.unwrap(), Dialect::MariaDb).await;
}

#[tokio::test]
async fn tidb_reads_the_same_comments() {
    judge(&TiDb::start(TiDbOptions::default()).await.unwrap(), Dialect::TiDb).await;
}
