//! Random changes of a source between runs, and runs that die at random places: the dataset is what the source is. The seed is
//! printed when it is not.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod support;

use engine::Engine;
use rusqlite::Connection;
use std::collections::BTreeMap;
use support::failing::Failing;
use support::{collected, config, rows, sqlite, warehouse};

const ROUNDS: usize = 8;
const SEEDS: std::ops::Range<u64> = 1..6;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

async fn tried(seed: u64, mode: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    let path = folder.path().join("shop.db");
    let shop = Connection::open(&path).unwrap();
    let key = if mode == "append" { "k INT" } else { "k INTEGER PRIMARY KEY" };
    shop.execute_batch(&format!("CREATE TABLE t ({key}, v TEXT, at INT NOT NULL)")).unwrap();
    let text = match mode {
        "key_diff" => "{from: shop, tables: [shop.t], to: ods.t, mode: key_diff, batch_rows: 4}",
        _ => "{from: shop, tables: [shop.t], to: ods.t, mode: cursor, cursor: at, batch_rows: 4}",
    };
    let (flow, source) = (config(text), sqlite(&path));
    let engine = warehouse(folder.path()).await;
    let mut tick = 1;
    for round in 0..ROUNDS {
        for _ in 0..random.next(30) {
            // Many rows share a tick, also with those of the round before.
            tick += random.next(3) as i64 / 2;
            let (k, v) = (random.next(40) as i64, random.next(5) as i64);
            let put = if mode == "append" { "INSERT" } else { "INSERT OR REPLACE" };
            match (random.next(4), mode) {
                (0, "key_diff") => shop.execute("DELETE FROM t WHERE k = ?1", [k]).unwrap(),
                _ => shop.execute(&format!("{put} INTO t VALUES (?1, 'v' || ?2, ?3)"), [k, v, tick]).unwrap(),
            };
        }
        for _ in 0..random.next(3) {
            let failing = Failing::new(&engine, random.next(12) as i64, random.next(2) == 0, false);
            let _ = collected(&flow, &source, &failing).await;
        }
        collected(&flow, &source, &engine).await.unwrap();
        let mut statement = shop.prepare("SELECT k, v, at FROM t").unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let (k, at): (i64, i64) = (row.get(0)?, row.get(2)?);
            Ok(vec![k.to_string(), row.get(1)?, at.to_string()])
        };
        let mut expected: Vec<Vec<String>> =
            statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
        expected.sort();
        let found = rows(&engine as &dyn Engine, "SELECT k, v, at FROM ods.t").await;
        let counted = |rows: &[Vec<String>]| {
            let mut counts: BTreeMap<Vec<String>, usize> = BTreeMap::new();
            rows.iter().for_each(|row| *counts.entry(row.clone()).or_default() += 1);
            counts
        };
        assert_eq!(counted(&found), counted(&expected), "{mode}, seed {seed}, round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_by_key_follows_random_changes() {
    for seed in SEEDS {
        tried(seed, "key_diff").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_by_cursor_follows_random_changes() {
    for seed in SEEDS {
        tried(seed, "cursor").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_without_a_key_has_each_row_as_often_as_its_source() {
    for seed in SEEDS {
        tried(seed, "append").await;
    }
}
