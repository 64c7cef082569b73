//! Where strings and names end in the character sets whose second byte may be a quote's or a backslash's: by our lexer, and
//! by a real MySQL.

use mysql::sql::{ClientCharset, Lexer, Modes, TokenKind};
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, MySqlOptions};

/// How many columns `select …` has, by our lexer; `None` when something is not closed.
fn columns(sql: &[u8], modes: Modes) -> Option<usize> {
    let mut lexer = Lexer::new(sql, modes);
    let mut commas = 0;
    loop {
        match lexer.next_code().kind {
            TokenKind::End => return Some(commas + 1),
            TokenKind::Comma => commas += 1,
            TokenKind::Bad => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn strings_end_where_mysql_says() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    let mut conn = server.conn().await.unwrap();
    // Lead bytes of some or all of the sets, and of none.
    let leads = [0x80u8, 0x81, 0x8e, 0x9f, 0xa0, 0xa1, 0xbf, 0xc8, 0xdf, 0xe0, 0xf9, 0xfb, 0xfc, 0xfe, 0xff];
    let (mut equal, mut closed) = (0, 0);
    for name in ["gbk", "big5", "sjis", "cp932", "gb18030", "utf8mb4", "latin1", "ujis", "euckr"] {
        let charset = ClientCharset::by_name(name);
        conn.query_drop(format!("set names {name}")).await.unwrap();
        for sql_mode in ["", "NO_BACKSLASH_ESCAPES"] {
            conn.query_drop(format!("set sql_mode = '{sql_mode}'")).await.unwrap();
            let no_backslash_escapes = !sql_mode.is_empty();
            let modes = Modes { charset, no_backslash_escapes, ..Modes::default() };
            for lead in leads {
                for (before, after) in [
                    (&b"select '"[..], &b"\\', 2, '3'"[..]),
                    (b"select '", b"\\\\', 2"),
                    (b"select '\\", b"\\', 2, '3'"),
                    (b"select '\\", b"', 2, '3'"),
                    (b"select 'a\\", b"\\\\', 2, '3'"),
                    (b"select 1 as `", b"`, 2 as `x`"),
                    (b"select 1 as `", b"\\`, 2"),
                    (b"select '", b"0\x81\x30', 2"),
                    (b"select '", b"|', 2"),
                ] {
                    let sql = [before, &[lead], after].concat();
                    let theirs = match conn.query_iter(sql.clone()).await {
                        Ok(result) => {
                            let columns = result.columns_ref().len();
                            result.drop_result().await.unwrap();
                            Some(columns)
                        }
                        Err(_) => None,
                    };
                    let ours = columns(&sql, modes);
                    // A refusal may be for another reason: a name that is no text.
                    if theirs.is_some() {
                        assert_eq!(ours, theirs, "{name} {sql_mode}: {}", sql.escape_ascii());
                        closed += 1;
                    }
                    equal += usize::from(ours == theirs);
                }
            }
        }
    }
    println!("{closed} closed, {equal} equal");
    assert!(closed > 1000, "{closed}");
}
