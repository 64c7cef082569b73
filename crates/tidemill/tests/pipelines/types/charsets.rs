//! Every code of every character set: decoded as the server itself converts it, or carried as bytes where the server
//! has no character for it.

use base::{Column, ColumnType, Generated, RowView, RowWriter, Value};
use std::collections::BTreeMap;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

/// Sets whose codes are one byte, or one and two.
const SETS: &[&str] = &[
    "latin1", "latin2", "latin5", "latin7", "dec8", "cp850", "hp8", "koi8r", "koi8u", "swe7", "cp1250",
    "cp1251", "cp1256", "cp1257", "hebrew", "greek", "tis620", "armscii8", "geostd8", "cp866", "keybcs2",
    "macce", "macroman", "cp852", "gbk", "gb2312", "gb18030", "big5", "sjis", "cp932", "ujis", "eucjpms",
    "euckr",
];

fn column(charset: &str) -> Column {
    Column {
        name: "c".into(),
        ty: ColumnType::Text { chars_max: 8 },
        sql_type: "varchar(8)".into(),
        nullable: true,
        charset: Some(charset.into()),
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

/// What our reader makes of the bytes in a column of this character set.
fn ours(bytes: &[u8], column: &Column) -> Value {
    let mut row = Vec::new();
    let selected = mysql_async::Value::Bytes(bytes.to_vec());
    mysql::put_selected(&mut RowWriter::new(&mut row), &selected, column, mysql::Flavor::MySql).unwrap();
    RowView(&row).values().unwrap().remove(0)
}

async fn sets_agree(server: &SqlServer) {
    let known: Vec<String> =
        server.query("SELECT character_set_name FROM information_schema.character_sets").await.unwrap();
    let mut wrong = BTreeMap::new();
    for set in SETS.iter().filter(|set| known.iter().any(|name| name == *set)) {
        let wide = matches!(
            *set,
            "gbk" | "gb2312" | "gb18030" | "big5" | "sjis" | "cp932" | "ujis" | "eucjpms" | "euckr"
        );
        let codes = codes(set, wide);
        let column = column(set);
        let mut bad = Vec::new();
        for chunk in codes.chunks(20_000) {
            let rows: Vec<String> = chunk.iter().map(|code| format!("(X'{}')", hex(code))).collect();
            let mut conn = server.conn().await.unwrap();
            use mysql_async::prelude::Queryable;
            conn.query_drop("SET sql_mode = ''").await.unwrap();
            conn.query_drop("CREATE DATABASE IF NOT EXISTS codes").await.unwrap();
            conn.query_drop("DROP TEMPORARY TABLE IF EXISTS codes.raw").await.unwrap();
            conn.query_drop(format!(
                "CREATE TEMPORARY TABLE codes.raw (n INT AUTO_INCREMENT PRIMARY KEY, b VARBINARY(4), c VARCHAR(4) CHARACTER SET {set})"
            ))
            .await
            .unwrap();
            conn.query_drop(format!("INSERT INTO codes.raw (b) VALUES {}", rows.join(","))).await.unwrap();
            conn.query_drop("UPDATE IGNORE codes.raw SET c = b").await.unwrap();
            let rows: Vec<(Vec<u8>, Vec<u8>, bool)> = conn
                .query(format!(
                    "SELECT CAST(c AS BINARY), CAST(CONVERT(c USING utf8mb4) AS BINARY), \
                     CAST(CONVERT(CONVERT(c USING utf8mb4) USING {set}) AS BINARY) = CAST(c AS BINARY) \
                     FROM codes.raw WHERE CAST(c AS BINARY) = b"
                ))
                .await
                .unwrap();
            for (stored, printed, reads_back) in rows {
                let printed = String::from_utf8(printed).unwrap();
                // To sjis, 5Ch is a backslash too, though one that comes back as 815Fh.
                let own = reads_back && printed != "\u{fffd}" || *set == "sjis" && printed.contains('\\');
                match ours(&stored, &column) {
                    Value::Text(text) if own && text == printed => {}
                    Value::RawText(_) if !own => {}
                    other => bad.push(format!("{}: {reads_back} {printed:?} but {other:?}", hex(&stored))),
                }
            }
        }
        if !bad.is_empty() {
            wrong.insert(*set, bad);
        }
    }
    for (set, bad) in &wrong {
        eprintln!("{set}: {} codes differ: {:?}", bad.len(), &bad[..bad.len().min(5)]);
    }
    assert!(wrong.is_empty());
}

fn codes(set: &str, wide: bool) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = (1..=255u8).map(|byte| vec![byte]).collect();
    if wide {
        out.extend((0x8000..=0xffffu16).map(|code| code.to_be_bytes().to_vec()));
    }
    if set == "gb18030" {
        // The four-byte codes of the BMP, and some beyond it.
        let linear = (0..39_420u32).chain((189_000..1_237_576).step_by(499));
        out.extend(linear.map(|n| {
            let digit = |n: u32, base: u32, first: u32| (n % base + first) as u8;
            vec![
                digit(n / 12_600, 126, 0x81),
                digit(n / 1260, 10, 0x30),
                digit(n / 10, 126, 0x81),
                digit(n, 10, 0x30),
            ]
        }));
    }
    if matches!(set, "ujis" | "eucjpms") {
        out.extend((0xa1a1..=0xfefeu16).map(|code| [[0x8f].as_slice(), &code.to_be_bytes()].concat()));
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_character_of_mysql_reads_as_the_server_converts_it() {
    sets_agree(&MySql::start(MySqlOptions::default()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_character_of_mariadb_reads_as_the_server_converts_it() {
    sets_agree(&MariaDb::start(MariaDbOptions::default()).await.unwrap()).await;
}
