//! Snapshot image = stream image = what the server itself prints, for every type and its edges.

use crate::node::{Node, mysql_source};
use serde_json::Value;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const COLUMNS: &str = "
    id INT PRIMARY KEY,
    t1 TINYINT, t2 TINYINT UNSIGNED, s SMALLINT, m MEDIUMINT, mu MEDIUMINT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
    f FLOAT, d DOUBLE, n DECIMAL(20,5), nu DECIMAL(65,30), bits BIT(17), y YEAR, dt DATE, ti TIME, ti6 TIME(6),
    dtm DATETIME, dtm3 DATETIME(3), ts TIMESTAMP NULL, ts6 TIMESTAMP(6) NULL,
    c CHAR(10), v VARCHAR(40), vl VARCHAR(40) CHARACTER SET latin1, g VARCHAR(20) CHARACTER SET gbk, tx TEXT,
    bin BINARY(6), vb VARBINARY(20), bl BLOB, e ENUM('red','it''s','绿'), st SET('a','b','c','d'), j JSON, p POINT";

const EDGES: [&str; 4] = [
    "1, -128, 255, -32768, -8388608, 16777215, -9223372036854775808, 18446744073709551615, 1.5e-10, -1.7976931348623157e308,
     -12345.67890, 0.000000000000000000000000000001, b'10000000000000001', 2155, '9999-12-31', '-838:59:59',
     '838:59:58.999999', '9999-12-31 23:59:59', '2026-01-02 03:04:05.120', '2038-01-19 03:14:07', '2026-01-02 03:04:05.123456',
     'padded   ', '绿 \"q\" \\\\', 'caf\u{e9}', '中文', REPEAT('x', 3000), X'0102', X'00FF00', X'FFFE', 'it''s', 'a,d',
     '{\"b\": [1, 2.5, -0.0, null, true, \"\u{7eff}\"], \"a\": {\"deep\": 1e20}}', ST_GeomFromText('POINT(1 2)')",
    "2, 127, 0, 32767, 8388607, 0, 9223372036854775807, 0, -3.4028235e38, 2.2250738585072014e-308, 0, -1, b'0', 1901,
     '1000-01-01', '00:00:00', '-00:00:00.000001', '1000-01-01 00:00:00', '1970-01-01 00:00:00.001',
     '1970-01-01 00:00:01', '1970-01-01 00:00:01.000001', '', '', '', '', '', X'', X'', X'', 'red', '', '[]', NULL",
    "3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    "4, -1, 1, -1, -1, 1, -1, 1, 0.1, 0.1, 99999.99999, 1.5, b'1', 0, '0000-00-00', '-00:00:01', '12:34:56.000001',
     '0000-00-00 00:00:00', '2026-00-00 00:00:00.000', 0, 0, 'x', 'x', 'x', 'x', 'x', X'000000000000', X'00', X'00', 0, 'a,b,c,d',
     '\"text\"', NULL",
];

/// What the server itself prints for columns whose print is our print.
const PRINTED: &str = "id, t1, t2, s, m, mu, b, bu, n, nu, bits+0, y, dt, ti, ti6, dtm, dtm3, c, v, vl, g, e, HEX(bin), \
                       HEX(vb), HEX(p)";

async fn images_agree(server: &SqlServer) {
    server.exec("CREATE DATABASE shop").await.unwrap();
    server.exec(&format!("CREATE TABLE shop.edges ({COLUMNS})")).await.unwrap();
    let insert = async |ids: bool| {
        let mut conn = server.conn().await.unwrap();
        use mysql_async::prelude::Queryable;
        conn.query_drop("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', NAMES utf8mb4")
            .await
            .unwrap();
        for row in EDGES {
            let row = if ids {
                row.replacen(|c: char| c.is_ascii_digit(), &format!("1{}", &row[..1]), 1)
            } else {
                row.into()
            };
            conn.query_drop(format!("INSERT INTO shop.edges VALUES ({row})")).await.unwrap();
        }
    };
    insert(false).await;
    let mut node = Node::new(&[("sources/shop.yaml", mysql_source(&server.url(), "shop.*"))]);
    node.start();
    node.wait("the snapshot is done", |s| {
        s["sources"][0]["snapshot"]["state"] == "done" && s["sources"][0]["lsn"] == 4
    })
    .await;
    insert(true).await;
    node.wait("the stream has the same rows", |s| s["sources"][0]["lsn"] == 8).await;
    let changes = node.changes("shop");
    assert_eq!(changes.len(), 8);
    for (read, insert) in changes[..4].iter().zip(&changes[4..]) {
        assert_eq!((&read["op"], &insert["op"]), (&"read".into(), &"insert".into()));
        let (mut a, mut b) = (read["after"].clone(), insert["after"].clone());
        a["id"].take();
        b["id"].take();
        assert_eq!(a, b, "snapshot and stream of one row");
    }
    compare_with_print(server, &changes[..4]).await;
}

async fn compare_with_print(server: &SqlServer, reads: &[Value]) {
    use base64::Engine;
    let mut conn = server.conn().await.unwrap();
    use mysql_async::prelude::Queryable;
    conn.query_drop("SET time_zone = '+00:00'").await.unwrap();
    let rows: Vec<mysql_async::Row> =
        conn.query(format!("SELECT {PRINTED} FROM shop.edges WHERE id < 10 ORDER BY id")).await.unwrap();
    let names: Vec<&str> = PRINTED.split(", ").map(str::trim).collect();
    for (row, read) in rows.iter().zip(reads) {
        for (index, name) in names.iter().enumerate() {
            let printed: Option<String> =
                row.get::<Option<Vec<u8>>, _>(index).unwrap().map(|b| String::from_utf8(b).unwrap());
            let column = name.trim_end_matches("+0").trim_start_matches("HEX(").trim_end_matches(')');
            let ours = &read["after"][column];
            let text = match ours {
                Value::Null => None,
                Value::String(text) if name.starts_with("HEX(") => {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                    Some(bytes.iter().map(|b| format!("{b:02X}")).collect())
                }
                Value::Object(point) => {
                    let wkb = point["wkb"].as_str().unwrap();
                    let bytes = base64::engine::general_purpose::STANDARD.decode(wkb).unwrap();
                    let srid = point["srid"].as_u64().unwrap() as u32;
                    let whole: Vec<u8> = srid.to_le_bytes().into_iter().chain(bytes).collect();
                    Some(whole.iter().map(|b| format!("{b:02X}")).collect::<String>())
                }
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            let printed = printed.map(|p| if *name == "y" && p == "0000" { "0".into() } else { p });
            assert_eq!(text, printed, "column {column} of row {}", read["after"]["id"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_mysql_has_one_image() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    images_agree(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_mariadb_has_one_image() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    images_agree(&server).await;
}
