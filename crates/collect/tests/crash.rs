//! A run that dies at any of its changes, on SQLite, MySQL and TiDB: what a reader sees is old or new, and the next run makes the
//! dataset what the source is, with nothing lost and nothing twice. On SQLite the process itself is killed too.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod support;

use collect::{CollectConfig, Source};
use engine::{Engine, MySql, Options};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::failing::Failing;
use support::{collected, config, rows, sqlite, warehouse};

const MODES: [&str; 4] = ["full", "key_diff", "cursor", "append"];
/// More changes than any run here has.
const STEPS_MAX: i64 = 100;

fn flow(mode: &str, table: &str) -> CollectConfig {
    let source = if mode == "append" { "log" } else { "t" };
    let from = format!("from: shop, tables: [shop.{source}], to: ods.{table}, batch_rows: 3");
    config(&match mode {
        "append" => format!("{{{from}, mode: cursor, cursor: at, rename: {{id: n}}}}"),
        "cursor" => format!("{{{from}, mode: cursor, cursor: at}}"),
        mode => format!("{{{from}, mode: {mode}}}"),
    })
}

/// Rows as they were, and as they are at the second run: two are changed, three new, and one gone where the mode can know.
struct Shop {
    path: PathBuf,
    connection: Connection,
}

impl Shop {
    fn new(folder: &Path) -> Self {
        let path = folder.join("shop.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (k INTEGER PRIMARY KEY, id INT NOT NULL, v TEXT, at INT NOT NULL); \
                 CREATE VIEW log AS SELECT id, v, at FROM t;",
            )
            .unwrap();
        Self { path, connection }
    }

    fn set_old(&self) {
        self.connection.execute_batch("DELETE FROM t").unwrap();
        for id in 1..=8 {
            self.connection.execute("INSERT INTO t VALUES (?1, ?1, 'old', ?2)", [id, 1 + id / 3]).unwrap();
        }
    }

    fn set_new(&self, mode: &str) {
        self.set_old();
        let mut sql =
            "INSERT INTO t VALUES (9, 9, 'new', 3), (10, 9, 'new', 3), (11, 11, 'new', 4);".to_owned();
        if mode != "append" {
            sql.push_str("UPDATE t SET v = 'changed', at = 4 WHERE k IN (2, 7);");
        }
        if mode != "append" && mode != "cursor" {
            sql.push_str("DELETE FROM t WHERE k = 5;");
        }
        self.connection.execute_batch(&sql).unwrap();
    }

    fn source(&self) -> Source {
        sqlite(&self.path)
    }

    fn rows(&self, mode: &str) -> Vec<Vec<String>> {
        let columns = if mode == "append" { "id, v" } else { "k, v" };
        let mut statement = self.connection.prepare(&format!("SELECT {columns} FROM t")).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok(vec![row.get::<_, i64>(0)?.to_string(), row.get(1)?]);
        let mut rows: Vec<Vec<String>> =
            statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
        rows.sort();
        rows
    }
}

async fn seen(engine: &dyn Engine, mode: &str, table: &str) -> Option<Vec<Vec<String>>> {
    let columns = if mode == "append" { "n, v" } else { "k, v" };
    let name = format!("ods.{table}");
    engine.columns(&name).await.ok()?;
    Some(rows(engine, &format!("SELECT {columns} FROM {name}")).await)
}

/// What stands there after a run that died.
fn check_between(mode: &str, seen: Option<&Vec<Vec<String>>>, old: &[Vec<String>], new: &[Vec<String>]) {
    let Some(seen) = seen else { panic!("{mode}: the dataset is gone") };
    match mode {
        "full" => assert!(seen == old || seen == new, "{seen:?}"),
        // Row by row old or new.
        "append" => {
            let mut left = new.to_vec();
            for row in seen {
                let at = left
                    .iter()
                    .position(|it| it == row)
                    .unwrap_or_else(|| panic!("{row:?} twice in {seen:?}"));
                left.remove(at);
            }
            assert!(seen.len() >= old.len());
        }
        _ => {
            let keys: BTreeSet<&String> = seen.iter().map(|row| &row[0]).collect();
            assert_eq!(keys.len(), seen.len(), "{seen:?}");
            assert!(seen.iter().all(|row| old.contains(row) || new.contains(row)), "{seen:?}");
            assert!(old.iter().filter(|row| new.contains(row)).all(|row| seen.contains(row)), "{seen:?}");
        }
    }
}

/// Dies at every change of the first run and of the second, one table of the dataset a step. `both`: before each change and
/// behind it, else in turn.
async fn dies_everywhere(engine: &dyn Engine, both: bool) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::new(folder.path());
    for mode in MODES {
        for side in [false, true].into_iter().take(if both { 2 } else { 1 }) {
            let mut ended = false;
            for step in 0..STEPS_MAX {
                let after = if both { side } else { step % 2 == 0 };
                let table = format!("{mode}_{after}_{step}");
                let flow = flow(mode, &table);
                shop.set_old();
                let (source, old) = (shop.source(), shop.rows(mode));
                let failing = Failing::new(engine, step, after, false);
                let first = collected(&flow, &source, &failing).await;
                assert_eq!(first.is_err(), failing.died(), "{mode} {step} {after}");
                let report = collected(&flow, &source, engine).await.unwrap();
                assert_eq!(
                    seen(engine, mode, &table).await.as_ref(),
                    Some(&old),
                    "{mode} {step} {after}: {report:?}"
                );
                shop.set_new(mode);
                let new = shop.rows(mode);
                let failing = Failing::new(engine, step, after, false);
                let second = collected(&flow, &source, &failing).await;
                assert_eq!(second.is_err(), failing.died(), "{mode} {step} {after}");
                check_between(mode, seen(engine, mode, &table).await.as_ref(), &old, &new);
                let report = collected(&flow, &source, engine).await.unwrap();
                assert_eq!(seen(engine, mode, &table).await, Some(new), "{mode} {step} {after}: {report:?}");
                if !failing.died() {
                    assert!(step > 5, "{mode}: only {step} changes");
                    ended = true;
                    break;
                }
            }
            assert!(ended, "{mode}: more than {STEPS_MAX} changes");
        }
    }
    let left: Vec<String> = engine.tables().await.unwrap();
    assert!(left.iter().all(|name| !name.contains("tidemill")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_dies_at_any_change_is_mended_by_the_next_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    dies_everywhere(&warehouse(folder.path()).await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_dies_at_any_change_is_mended_by_the_next_on_mysql() {
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("CREATE DATABASE dw").await.unwrap();
    dies_everywhere(&MySql::open(&format!("{}/dw", server.url()), Options::default()).await.unwrap(), true)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_dies_at_any_change_is_mended_by_the_next_on_tidb() {
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("CREATE DATABASE dw").await.unwrap();
    dies_everywhere(&MySql::open(&format!("{}/dw", server.url()), Options::default()).await.unwrap(), false)
        .await;
}

const CHILD: &str = "TIDEMILL_TEST_COLLECT";

/// What the killed process does; a test that does nothing when it is not asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let [folder, mode, step, after] = asked.split('|').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let folder = Path::new(folder);
    let engine = warehouse(folder).await;
    let failing = Failing::new(&engine, step.parse().unwrap(), after == "true", true);
    collected(&flow(mode, "t"), &sqlite(&folder.join("shop.db")), &failing).await.unwrap();
}

fn killed(folder: &Path, mode: &str, step: i64, after: bool) -> bool {
    let asked = format!("{}|{mode}|{step}|{after}", folder.display());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_process_that_is_killed", "--nocapture"]).env(CHILD, asked);
    !child.output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_at_any_change_is_followed_by_one_that_mends_it() {
    for mode in MODES {
        for step in 0..STEPS_MAX {
            let after = step % 2 == 0;
            let folder = tempfile::tempdir().unwrap();
            let shop = Shop::new(folder.path());
            shop.set_old();
            let (flow, source, old) = (flow(mode, "t"), shop.source(), shop.rows(mode));
            let first = killed(folder.path(), mode, step, after);
            {
                let engine = warehouse(folder.path()).await;
                collected(&flow, &source, &engine).await.unwrap();
                assert_eq!(seen(&engine, mode, "t").await.as_ref(), Some(&old), "{mode} {step}");
            }
            shop.set_new(mode);
            let new = shop.rows(mode);
            let second = killed(folder.path(), mode, step, after);
            let engine = warehouse(folder.path()).await;
            check_between(mode, seen(&engine, mode, "t").await.as_ref(), &old, &new);
            collected(&flow, &source, &engine).await.unwrap();
            assert_eq!(seen(&engine, mode, "t").await, Some(new), "{mode} {step}");
            if !first && !second {
                break;
            }
            assert!(step < STEPS_MAX - 1);
        }
    }
}
