//! Primary keys of every type that can be one: paged through in a snapshot of two rows a chunk, then found by updates,
//! changes of the key itself and deletes, in sinks that compare text by rules of their own.

use super::columns::{Kind, Spec};
use super::{Node, Wide, delivered, project, run, session};
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer, TiDb, TiDbOptions};

/// A key's type, values that are all different to the source, and one more for the first of them to become.
struct Key {
    ty: String,
    kind: Kind,
    values: Vec<String>,
    becomes: String,
}

fn key(ty: &str, kind: Kind, values: &[&str], becomes: &str) -> Key {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Key { ty: ty.to_owned(), kind, values, becomes: becomes.to_owned() }
}

fn keys(mariadb: bool) -> Vec<Key> {
    let labels: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
    let accents = ["'a'", "'b '", "'ß'", "'s'", "'😀'", "'中'"];
    let mut out = vec![
        key(
            "BIGINT UNSIGNED",
            Kind::Number,
            &[
                "0",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551614",
                "18446744073709551615",
            ],
            "7",
        ),
        key("TINYINT", Kind::Number, &["-128", "-1", "0", "1", "127"], "5"),
        key(
            "BIT(64)",
            Kind::Number,
            &["b'0'", "9223372036854775808", "18446744073709551614", "18446744073709551615", "1"],
            "b'11'",
        ),
        key(
            "DECIMAL(65,30)",
            Kind::Decimal,
            &[
                "12345678901234567890.100000000000000000000000000001",
                "12345678901234567890.100000000000000000000000000002",
                "12345678901234567890.100000000000000000000000000003",
                "12345678901234567890.100000000000000000000000000004",
                "-12345678901234567890.1",
                "0",
                "-0.000000000000000000000000000001",
            ],
            "1.5",
        ),
        key("FLOAT", Kind::Float, &["0.1", "-3.4e38", "1e-45", "16777216", "0"], "0.2"),
        key(
            "DOUBLE",
            Kind::Float,
            &["0.1", "0.10000000000000002", "5e-324", "-1.7976931348623157e308", "1e300"],
            "0.2",
        ),
        key(
            "DATE",
            Kind::Printed,
            &["'0000-00-00'", "'2026-00-00'", "'9999-12-31'", "'1000-01-01'", "'2026-02-01'"],
            "'2026-01-01'",
        ),
        key(
            "DATETIME(6)",
            Kind::Printed,
            &[
                "'0000-00-00 00:00:00'",
                "'2026-01-02 03:04:05.000001'",
                "'2026-01-02 03:04:05.000002'",
                "'9999-12-31 23:59:59.999999'",
                "'2026-01-02 03:04:05'",
            ],
            "'2026-01-01'",
        ),
        key(
            "TIMESTAMP(6)",
            Kind::Timestamp,
            &[
                "0",
                "'1970-01-01 00:00:01'",
                "'1970-01-01 00:00:01.000001'",
                "'2038-01-19 03:14:07.999999'",
                "'2026-01-02 03:04:05'",
            ],
            "'2026-01-01'",
        ),
        key(
            "TIME(3)",
            Kind::Printed,
            &["'-838:59:59'", "'-00:00:00.001'", "'00:00:00'", "'00:00:00.001'", "'838:59:59'"],
            "'10:00:00'",
        ),
        key("YEAR", Kind::Printed, &["0", "1901", "1970", "2000", "2155"], "2026"),
        key("ENUM('z','y','a''b','x\\\\y','绿')", Kind::Enum, &["1", "2", "3", "4"], "5"),
        key(
            &format!("SET({})", labels.join(",")),
            Kind::Set,
            &["'m63'", "'m0,m63'", "'m0,m1,m63'", "'m1,m63'", "''"],
            "'m5'",
        ),
        key("BINARY(4)", Kind::Bytes, &["X'00'", "X'01'", "X'0100FF'", "X'FFFFFFFF'", "'A'"], "'a'"),
        key("VARBINARY(40)", Kind::Bytes, &["X''", "X'00'", "X'0000'", "'A'", "'A '"], "'a'"),
        key("VARCHAR(20) CHARACTER SET gbk", Kind::Text, &["'a'", "'中'", "'文'", "'b '", "''"], "'A '"),
        key("VARCHAR(20) CHARACTER SET latin1", Kind::Text, &["'a'", "'b'", "'ß'", "'ÿ'", "''"], "'A'"),
        key("VARCHAR(20) CHARACTER SET sjis", Kind::Text, &["'日'", "'本'", "'ｱ'", "'\\\\'", "''"], "'表'"),
        key("VARCHAR(20) CHARACTER SET utf16", Kind::Text, &["'😀'", "'中'", "'a'", "'b'", "''"], "'z'"),
        key("VARCHAR(20) CHARACTER SET tis620", Kind::Text, &["'ก'", "'ข'", "'a'", "'b'", "''"], "'z'"),
        key("VARCHAR(20) CHARACTER SET cp850", Kind::Text, &["'é'", "'╔'", "'a'", "'b'", "''"], "'z'"),
        key("CHAR(20) CHARACTER SET utf8mb3", Kind::Text, &["'a'", "'b'", "'q'", "'s'", "''"], "'z'"),
        key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            Kind::Text,
            &["'a'", "'b '", "'c'", "'d'", "'中'"],
            "'A '",
        ),
        key("VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", Kind::Text, &accents[..4], "'A'"),
        key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            Kind::Text,
            &["'a'", "'A'", "'é'", "'e'", "'😀'", "'😁'"],
            "'b'",
        ),
    ];
    if mariadb {
        out.push(key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            Kind::Text,
            &["'a'", "'a '", "'A'", "'é'", "'e'", "'😀'"],
            "'a  '",
        ));
        out.push(key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_ai_ci",
            Kind::Text,
            &accents,
            "'A'",
        ));
        out.push(key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_nopad_as_cs",
            Kind::Text,
            &["'a'", "'a '", "'A'", "'é'", "'e'"],
            "'É'",
        ));
        out.push(key(
            "UUID",
            Kind::Text,
            &[
                "'00112233-4455-6677-8899-aabbccddeeff'",
                "'6ccd780c-baba-1026-9564-5b8c656024db'",
                "'ffffffff-ffff-4fff-bfff-ffffffffffff'",
            ],
            "'00000000-0000-0000-0000-000000000000'",
        ));
        out.push(key(
            "INET6",
            Kind::Text,
            &["'::'", "'::1'", "'::ffff:1.2.3.4'", "'fe80::'"],
            "'2001:db8::1'",
        ));
    } else {
        out.push(key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci",
            Kind::Text,
            &["'a'", "'b'", "'b '", "'ß'", "'s'", "'😀'", "'😁'"],
            "'A'",
        ));
        out.push(key(
            "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_as_cs",
            Kind::Text,
            &["'a'", "'A'", "'é'", "'e'", "'a '"],
            "'É'",
        ));
        out.push(key(
            "VARCHAR(20) CHARACTER SET gb18030",
            Kind::Text,
            &["'a'", "'中'", "'文'", "'㐀'", "'b'"],
            "'A'",
        ));
    }
    out
}

/// The tables, as rows of `(id, key)` in the form that comparison knows.
fn tables(keys: &[Key]) -> Vec<Wide> {
    let names: Vec<&'static str> =
        (0..keys.len()).map(|n| &*Box::leak(format!("k{n}").into_boxed_str())).collect();
    keys.iter()
        .zip(names)
        .map(|(key, name)| {
            let spec = Spec { ty: key.ty.clone(), kind: key.kind, values: key.values.clone() };
            Wide { name, specs: vec![spec], keyed: true }
        })
        .collect()
}

async fn fill(server: &SqlServer, keys: &[Key]) -> u64 {
    let mut conn = session(server).await;
    run(&mut conn, "CREATE DATABASE shop").await;
    let mut rows = 0;
    for (n, key) in keys.iter().enumerate() {
        let sql = format!(
            "CREATE TABLE shop.k{n} (id INT NOT NULL, c0 {} NOT NULL, PRIMARY KEY (c0)) CHARACTER SET utf8mb4",
            key.ty
        );
        run(&mut conn, &sql).await;
        run(&mut conn, "START TRANSACTION").await;
        for (id, value) in key.values.iter().enumerate() {
            run(&mut conn, &format!("INSERT INTO shop.k{n} VALUES ({id}, {value})")).await;
        }
        run(&mut conn, "COMMIT").await;
        rows += key.values.len() as u64;
    }
    rows
}

/// Updates every row by its key, gives the first another key, deletes the second, and makes it again.
async fn change(server: &SqlServer, keys: &[Key]) -> u64 {
    let mut conn = session(server).await;
    let mut changes = 0;
    for (n, key) in keys.iter().enumerate() {
        run(&mut conn, "START TRANSACTION").await;
        run(&mut conn, &format!("UPDATE shop.k{n} SET id = id + 100")).await;
        run(&mut conn, &format!("UPDATE shop.k{n} SET c0 = {} WHERE id = 100", key.becomes)).await;
        run(&mut conn, &format!("DELETE FROM shop.k{n} WHERE id IN (101, 102)")).await;
        run(&mut conn, &format!("INSERT INTO shop.k{n} VALUES (200, {})", key.values[1])).await;
        run(&mut conn, "COMMIT").await;
        changes += key.values.len() as u64 + 4;
    }
    changes
}

/// The keys whose snapshot has not as many rows as the table.
fn missing(node: &Node, sources: &[(&str, &Vec<Key>)]) -> String {
    let mut out = String::new();
    for (source, keys) in sources {
        let changes = node.changes(source);
        for (n, key) in keys.iter().enumerate() {
            let reads = changes.iter().filter(|change| change["table"] == format!("k{n}")).count();
            if reads != key.values.len() {
                out.push_str(&format!("{source} {}: {} rows but {reads} reads\n", key.ty, key.values.len()));
            }
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_found_by_a_key_of_any_type_in_every_sink() {
    let (my, ma, ti) = tokio::join!(
        MySql::start(MySqlOptions::default()),
        MariaDb::start(MariaDbOptions::default()),
        TiDb::start(TiDbOptions::default()),
    );
    let (my, ma, ti) = (my.unwrap(), ma.unwrap(), ti.unwrap());
    let (of_my, of_ma) = (keys(false), keys(true));
    let mut lsn = [fill(&my, &of_my).await, fill(&ma, &of_ma).await];
    let sinks: [(&str, &str, &SqlServer); 3] =
        [("my", "mysql", &my), ("ma", "mysql", &ma), ("ti", "tidb", &ti)];
    let options = "options: {snapshot_chunk_rows: 2}\n";
    let mut node = project(&[("my", &my), ("ma", &ma)], &sinks, options);
    node.start();
    // Not the count of rows: a row that the snapshot skipped shall be named.
    delivered(&node, &[]).await;
    let read = |source| node.changes(source).len() as u64;
    assert_eq!([read("my"), read("ma")], lsn, "{}", missing(&node, &[("my", &of_my), ("ma", &of_ma)]));
    let mut differences = Vec::new();
    for changed in [false, true] {
        if changed {
            lsn = [lsn[0] + change(&my, &of_my).await, lsn[1] + change(&ma, &of_ma).await];
        }
        delivered(&node, &[("my", lsn[0]), ("ma", lsn[1])]).await;
        for (source, server, keys) in [("my", &*my as &SqlServer, &of_my), ("ma", &ma, &of_ma)] {
            differences.extend(super::sinks_agree(&node, (source, server), &tables(keys), &sinks).await);
        }
    }
    super::settle(differences);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_of_a_column_is_no_key() {
    let my = MySql::start(MySqlOptions::default()).await.unwrap();
    let mut conn = session(&my).await;
    for sql in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.parts (a INT NOT NULL, b VARCHAR(300) NOT NULL, c INT, PRIMARY KEY (a, b(2)))",
        "INSERT INTO shop.parts VALUES (1, 'abc', 1), (1, 'xyz', 2)",
    ] {
        run(&mut conn, sql).await;
    }
    let mut node = project(&[("my", &my)], &[("copy", "mysql", &my)], "");
    node.start();
    delivered(&node, &[("my", 2)]).await;
    run(&mut conn, "UPDATE shop.parts SET c = 5, b = 'abd' WHERE b = 'abc'").await;
    run(&mut conn, "DELETE FROM shop.parts WHERE c = 2").await;
    delivered(&node, &[("my", 4)]).await;
    assert!(node.changes("my").iter().all(|change| change["key"].is_null()));
    let rows: Vec<(i32, String, i32)> = my.query("SELECT a, b, c FROM from_my.parts").await.unwrap();
    assert_eq!(rows, [(1, "abd".to_owned(), 5)]);
}
