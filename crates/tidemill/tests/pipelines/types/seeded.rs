//! Random values, random statements, both servers: every sink is equal to its source at the end. The seed is printed by
//! a failure.

use super::columns::{Kind, Spec};
use super::{Wide, delivered, hex, project, run, session, settle, sinks_agree};
use crate::random::Rng;
use testkit::{MariaDb, MariaDbOptions, MySql, MySqlOptions, SqlServer};

const SEED: u64 = 0x7469_6465;
const STATEMENTS: usize = 400;
const KEYS: u64 = 60;

/// Columns whose values `value` makes; a table's first column but the id is the text that keys `named`.
fn specs() -> Vec<Spec> {
    let members: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
    let spec = |ty: &str, kind| Spec { ty: ty.to_owned(), kind, values: vec!["NULL".to_owned()] };
    vec![
        spec("BIGINT", Kind::Number),
        spec("BIGINT UNSIGNED", Kind::Number),
        spec("BIT(64)", Kind::Number),
        spec("DECIMAL(40,12)", Kind::Decimal),
        spec("DOUBLE", Kind::Float),
        spec("FLOAT", Kind::Float),
        spec("DATETIME(6)", Kind::Printed),
        spec("TIME(3)", Kind::Printed),
        spec("TIMESTAMP(2)", Kind::Timestamp),
        spec("VARCHAR(60)", Kind::Text),
        spec("VARCHAR(60) CHARACTER SET utf16", Kind::Text),
        spec("VARCHAR(60) CHARACTER SET gbk", Kind::Text),
        spec("VARBINARY(60)", Kind::Bytes),
        spec("LONGTEXT", Kind::Text),
        spec("ENUM('a','b\\\\','绿')", Kind::Enum),
        spec(&format!("SET({})", members.join(",")), Kind::Set),
        spec("JSON", Kind::Json),
    ]
}

fn word(rng: &mut Rng) -> u64 {
    rng.below(1 << 32) << 32 | rng.below(1 << 32)
}

/// Text of every width of UTF-8, quotes and backslashes among it, as SQL.
fn text(rng: &mut Rng, letters: &[char], length: u64) -> String {
    let letter = |rng: &mut Rng| letters[rng.below(letters.len() as u64) as usize];
    let text: String = (0..rng.below(length)).map(|_| letter(rng)).collect();
    format!("CONVERT(X'{}' USING utf8mb4)", hex(text.as_bytes()))
}

const LETTERS: [char; 16] =
    ['a', 'A', ' ', '\'', '\\', '"', '%', '\n', '\0', 'é', 'ß', '绿', '中', '😀', '\u{301}', '\u{ffff}'];

fn double(rng: &mut Rng) -> f64 {
    let number = f64::from_bits(word(rng));
    // The servers' own reading of denormals is theirs; these are tested as edges.
    if number.is_normal() { number } else { 0.25 }
}

/// A value of a column, as SQL.
fn value(rng: &mut Rng, spec: &Spec) -> String {
    if rng.below(8) == 0 {
        return "NULL".to_owned();
    }
    let kind = spec.ty.split([' ', '(']).next().unwrap();
    match kind {
        "BIGINT" if spec.ty.ends_with("UNSIGNED") => word(rng).to_string(),
        "BIGINT" => (word(rng) as i64).to_string(),
        "BIT" => word(rng).to_string(),
        "DECIMAL" => {
            format!("{}{}.{:012}", ["", "-"][rng.below(2) as usize], word(rng), rng.below(1_000_000_000_000))
        }
        "DOUBLE" => format!("{:e}", double(rng)),
        "FLOAT" => format!("{:e}", (word(rng) % 1_000_000) as f32 / 777.0),
        "DATETIME" => format!(
            "'{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}'",
            rng.below(9999) + 1,
            rng.below(13),
            rng.below(29),
            rng.below(24),
            rng.below(60),
            rng.below(60),
            rng.below(1_000_000)
        ),
        "TIME" => format!(
            "'{}{}:{:02}:{:02}.{:03}'",
            ["", "-"][rng.below(2) as usize],
            rng.below(839),
            rng.below(60),
            rng.below(59),
            rng.below(1000)
        ),
        "TIMESTAMP" => format!("FROM_UNIXTIME({}.{:02})", rng.below(2_147_483_647) + 1, rng.below(100)),
        "VARCHAR" if spec.ty.ends_with("gbk") => text(rng, &['a', '中', '文', '镕', '\'', '\\', ' '], 50),
        "VARCHAR" => text(rng, &LETTERS, 50),
        "LONGTEXT" => text(rng, &LETTERS, 3000),
        "VARBINARY" => {
            format!("X'{}'", hex(&(0..rng.below(60)).map(|_| rng.below(256) as u8).collect::<Vec<_>>()))
        }
        "ENUM" => rng.below(4).to_string(),
        "SET" => word(rng).to_string(),
        _ => format!(
            "JSON_OBJECT('n', {}, 'd', {}.{:03}, 'f', {:e}, 's', {}, 'l', JSON_ARRAY({}, NULL, TRUE))",
            word(rng),
            word(rng),
            rng.below(1000),
            double(rng),
            text(rng, &LETTERS, 40),
            word(rng) as i64,
        ),
    }
}

/// Fills, changes and empties the three tables by chance: keyed by number, keyed by text, and without a key. The count of
/// statements is fixed, and that of changes is not.
async fn work(server: &SqlServer, rng: &mut Rng, statements: usize, next: &mut u64) {
    let specs = specs();
    let mut conn = session(server).await;
    for _ in 0..statements {
        let table = ["numbered", "named", "loose"][rng.below(3) as usize];
        let all = |rng: &mut Rng| specs.iter().map(|spec| value(rng, spec)).collect::<Vec<_>>();
        let key = rng.below(KEYS);
        let sql = match rng.below(10) {
            0..=4 => {
                *next += 1;
                format!(
                    "INSERT IGNORE INTO shop.{table} VALUES ({next}, CONCAT('Key ', {key}), {})",
                    all(rng).join(",")
                )
            }
            5..=7 => {
                let values = all(rng);
                let sets = values.iter().enumerate().map(|(n, value)| format!("c{} = {value}", n + 1));
                format!(
                    "UPDATE shop.{table} SET {} WHERE c0 = 'kEy {key}'",
                    sets.collect::<Vec<_>>().join(",")
                )
            }
            8 => format!(
                "UPDATE IGNORE shop.{table} SET c0 = CONCAT(UPPER(c0), ' '), id = id + 100000 WHERE c0 = 'key {key}'"
            ),
            _ => format!("DELETE FROM shop.{table} WHERE c0 = 'key {key}'"),
        };
        run(&mut conn, &sql).await;
    }
}

fn tables() -> [Wide; 3] {
    let named = Spec { ty: "VARCHAR(40)".into(), kind: Kind::Text, values: vec!["''".into()] };
    let all: Vec<Spec> = std::iter::once(named).chain(specs()).collect();
    ["numbered", "named", "loose"].map(|name| Wide { name, specs: all.clone(), keyed: true })
}

async fn make(server: &SqlServer) {
    let mut conn = session(server).await;
    run(&mut conn, "CREATE DATABASE shop").await;
    let columns: Vec<String> =
        specs().iter().enumerate().map(|(n, spec)| format!("c{} {} NULL", n + 1, spec.ty)).collect();
    for (table, key) in [("numbered", ", PRIMARY KEY (id)"), ("named", ", PRIMARY KEY (c0)"), ("loose", "")] {
        let sql = format!(
            "CREATE TABLE shop.{table} (id INT NOT NULL, c0 VARCHAR(40) NOT NULL, {}{key}) CHARACTER SET utf8mb4",
            columns.join(", ")
        );
        run(&mut conn, &sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_rows_are_the_same_in_every_sink() {
    let (my, ma) =
        tokio::join!(MySql::start(MySqlOptions::default()), MariaDb::start(MariaDbOptions::default()));
    let (my, ma) = (my.unwrap(), ma.unwrap());
    let servers: [(&str, &SqlServer); 2] = [("my", &my), ("ma", &ma)];
    let (mut rng, mut next) = (Rng::new(SEED), 0);
    for (_, server) in servers {
        make(server).await;
        work(server, &mut rng, STATEMENTS / 4, &mut next).await;
    }
    let sinks: [(&str, &str, &SqlServer); 2] = [("my", "mysql", &my), ("ma", "mysql", &ma)];
    let mut node = project(&servers, &sinks, "options: {snapshot_chunk_rows: 7}\n");
    node.start();
    for (_, server) in servers {
        work(server, &mut rng, STATEMENTS, &mut next).await;
    }
    // The last change of each source is one that only the end makes.
    for (_, server) in servers {
        server
            .exec("CREATE TABLE shop.done (id INT PRIMARY KEY); INSERT INTO shop.done VALUES (1)")
            .await
            .unwrap();
    }
    for (name, _) in servers {
        node.until("the last row is captured", || async {
            let file = node.path(&format!("{name}.db"));
            !crate::node::sqlite_rows(&file, "SELECT id FROM done").is_empty()
        })
        .await;
    }
    delivered(&node, &[]).await;
    let mut differences = Vec::new();
    for (name, server) in servers {
        differences.extend(sinks_agree(&node, (name, server), &tables(), &sinks).await);
    }
    eprintln!("seed {SEED:#x}");
    settle(differences);
}
