//! Models on a file, on MySQL and on TiDB: the same tables, and the old or the new one wherever a run dies.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use async_trait::async_trait;
use base::Column;
use engine::{Engine, EngineError, Lookup, Options, Rows, Shape, TableDef, Write, cell_text};
use jiff::civil::{DateTime, date};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use warehouse::WarehouseError;
use warehouse::build::{Job, Outcome, Want, build, rollback};
use warehouse::interval::Grain;
use warehouse::model::{Model, parse};

type Texts = Vec<Vec<Option<String>>>;

async fn texts(engine: &dyn Engine, sql: &str) -> Texts {
    let rows = engine.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = rows.columns.clone();
    let all = rows.all(10_000).await.unwrap();
    all.iter().map(|row| row.iter().zip(&columns).map(|(v, c)| cell_text(v, c)).collect()).collect()
}

/// Three in the morning of a day.
fn day(day: i8) -> DateTime {
    date(2026, 1, day).at(3, 0, 0, 0)
}

async fn run(
    engine: &dyn Engine,
    model: &Model,
    run: i64,
    now: DateTime,
    want: &Want,
) -> Result<Outcome, WarehouseError> {
    build(engine, Job { model, run, now, want, progress: &|_, _| {} }).await
}

async fn ran(engine: &dyn Engine, model: &Model, number: i64, now: DateTime) -> Outcome {
    let outcome = run(engine, model, number, now, &Want::Due).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error:?}", model.name));
    assert_eq!(outcome.blocked, Vec::<String>::new());
    outcome
}

async fn orders(engine: &dyn Engine) {
    engine.prepare_dataset("ods").await.unwrap();
    for sql in [
        "create table ods.orders (id int primary key, day date, dept varchar(20), amount decimal(10,2))",
        "insert into ods.orders values (1, '2026-01-01', 'a', 1.10), (2, '2026-01-01', 'b', 2.20), \
         (3, '2026-01-02', 'a', 3.30), (4, '2026-01-03', 'b', 4.40)",
    ] {
        engine.execute(sql).await.unwrap();
    }
}

const DAILY: &str = "/* @model
kind: incremental_by_time
time_column: day
start: 2026-01-01
lookback: 1
key: [day, dept]
checks:
  - not_null: [dept]
  - range: {column: amount, max: 1000}
*/
select day, dept, sum(amount) as amount, count(*) as n
from ods.orders where day between @start_ds and @end_ds group by day, dept";

const FULL: &str = "/* @model
key: [dept]
indexes: [[total]]
checks:
  - row_count: {min: 1}
  - unique: [dept]
  - accepted_values: {column: dept, values: [a, b]}
    severity: warn
*/
select dept, sum(amount) as total, avg(amount) as mean from ods.orders group by dept";

fn model(path: &str, text: &str) -> Model {
    parse(path, text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

const TABLES: [&str; 5] = [
    "select * from dws.by_dept order by dept",
    "select * from ads.top order by dept",
    "select * from dws.daily order by day, dept",
    "select * from dws.big order by id",
    "select * from dws.history order by id, valid_from",
];

/// Every kind through its life; what readers see after each step.
async fn life(engine: &dyn Engine) -> Vec<Texts> {
    orders(engine).await;
    let mut seen = Vec::new();
    let full = model("models/dws/by_dept.sql", FULL);
    let daily = model("models/dws/daily.sql", DAILY);
    let view = "/* @model\nkind: view\n*/ select dept, total * 2 as twice from dws.by_dept";
    let view = model("models/ads/top.sql", view);
    let keyed = "/* @model\nkind: incremental_by_key\nkey: [id]\n*/ select id, dept, amount from ods.orders where amount > 2";
    let keyed = model("models/dws/big.sql", keyed);
    let versions =
        "/* @model\nkind: snapshot\nkey: [id]\ncompare: [dept]\n*/ select id, dept, amount from ods.orders";
    let versions = model("models/dws/history.sql", versions);

    let outcome = ran(engine, &full, 1, day(4)).await;
    assert!(outcome.rebuilt && outcome.written == 2, "{outcome:?}");
    ran(engine, &view, 2, day(4)).await;
    let outcome = ran(engine, &daily, 3, day(4)).await;
    assert_eq!((outcome.written, outcome.intervals, outcome.rebuilt), (4, 3, true));
    let outcome = ran(engine, &keyed, 4, day(4)).await;
    assert_eq!(outcome.written, 3);
    ran(engine, &versions, 5, day(4)).await;
    for sql in TABLES {
        seen.push(texts(engine, sql).await);
    }

    // A day later: a row came late, one of the days before changed, one went, one came.
    for sql in [
        "insert into ods.orders values (5, '2026-01-03', 'a', 5.50), (6, '2026-01-04', 'a', 6.60)",
        "update ods.orders set dept = 'c', amount = 9.99 where id = 2",
        "delete from ods.orders where id = 4",
    ] {
        engine.execute(sql).await.unwrap();
    }
    let outcome = ran(engine, &full, 6, day(5)).await;
    let broken: Vec<u64> = outcome.findings.iter().map(|it| it.broken).collect();
    assert_eq!(broken, [0, 0, 1]);
    let outcome = ran(engine, &daily, 7, day(5)).await;
    // The day that is new, and the one before, whose row came late and whose other row went.
    assert_eq!((outcome.intervals, outcome.written, outcome.deleted), (2, 2, 1));
    // Once more: the same days, and the same rows.
    let again = ran(engine, &daily, 8, day(5)).await;
    assert_eq!((again.intervals, again.written, again.deleted), (2, 2, 2));
    let outcome = ran(engine, &keyed, 9, day(5)).await;
    assert_eq!((outcome.written, outcome.deleted), (4, 2));
    let outcome = ran(engine, &versions, 10, day(5)).await;
    assert_eq!((outcome.written, outcome.deleted), (3, 2));
    for sql in TABLES {
        seen.push(texts(engine, sql).await);
    }

    // What a check blocks is not seen.
    engine.execute("insert into ods.orders values (7, '2026-01-05', 'a', 5000)").await.unwrap();
    let outcome = run(engine, &daily, 11, day(6), &Want::Due).await.unwrap();
    assert_eq!(outcome.blocked.len(), 1, "{outcome:?}");
    assert!(outcome.blocked[0].contains("`range(amount)` is broken: 1 rows"), "{outcome:?}");
    engine.execute("delete from ods.orders where id = 7").await.unwrap();
    let strict = model("models/dws/by_dept.sql", &FULL.replace("min: 1", "min: 10"));
    let outcome = run(engine, &strict, 12, day(6), &Want::Due).await.unwrap();
    assert_eq!(outcome.blocked, ["the check `row_count` is broken: there are 2 rows"]);
    for (at, sql) in TABLES.into_iter().enumerate() {
        assert_eq!(texts(engine, sql).await, seen[5 + at], "{sql}");
    }

    // Another query is another table; what it replaced comes back.
    let other = model("models/dws/daily.sql", &DAILY.replace("count(*) as n", "count(*) * 10 as ten"));
    let outcome = ran(engine, &other, 13, day(6)).await;
    assert!(outcome.rebuilt && outcome.intervals == 5, "{outcome:?}");
    seen.push(texts(engine, TABLES[2]).await);
    rollback(engine, &other, 12).await.unwrap_err();
    rollback(engine, &other, 13).await.unwrap();
    assert_eq!(texts(engine, TABLES[2]).await, seen[7]);
    for (model, run, at) in [(&keyed, 9, 3), (&versions, 10, 4)] {
        rollback(engine, model, run).await.unwrap();
        assert_eq!(texts(engine, TABLES[at]).await, seen[at], "{}", model.name);
        rollback(engine, model, run).await.unwrap_err();
        ran(engine, model, 20 + run, day(5)).await;
        assert_eq!(texts(engine, TABLES[at]).await, seen[5 + at], "{}", model.name);
    }

    // A day of the past, again.
    engine.execute("update ods.orders set amount = 100 where id = 1").await.unwrap();
    ran(engine, &daily, 40, day(6)).await;
    let first = Grain::Day.around(day(1));
    engine.execute("update ods.orders set amount = 200 where id = 1").await.unwrap();
    let outcome = run(engine, &daily, 41, day(6), &Want::Intervals(first)).await.unwrap();
    assert_eq!(outcome.intervals, 1);
    seen.push(texts(engine, TABLES[2]).await);
    rollback(engine, &daily, 41).await.unwrap();
    assert!(texts(engine, TABLES[2]).await.iter().any(|row| row[2].as_deref() == Some("100.00")));

    // A kind that changes, there and back.
    let as_table = model("models/ads/top.sql", "select dept, total * 2 as twice from dws.by_dept");
    ran(engine, &as_table, 50, day(6)).await;
    seen.push(texts(engine, TABLES[1]).await);
    ran(engine, &view, 51, day(6)).await;
    seen.push(texts(engine, TABLES[1]).await);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_make_the_same_tables_on_a_file_mysql_and_tidb() {
    let folder = tempfile::tempdir().unwrap();
    let file = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    let ours = life(&*file).await;
    assert_eq!(ours[2].len(), 4);
    let shown = file.tables().await.unwrap();
    assert_eq!(shown, ["ads.top", "dws.big", "dws.by_dept", "dws.daily", "dws.history", "ods.orders"]);
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let url = format!("{}/dw", server.url());
    let mysql = engine::open(&url, Path::new("."), Options::default()).await.unwrap();
    assert_eq!(life(&*mysql).await, ours);
    let server = testkit::TiDb::start(testkit::TiDbOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let url = format!("{}/dw", server.url());
    let tidb = engine::open(&url, Path::new("."), Options::default()).await.unwrap();
    assert_eq!(life(&*tidb).await, ours);
}

#[tokio::test]
async fn a_table_that_no_model_made_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    orders(&*engine).await;
    let greedy = model("models/ods/orders.sql", "select 1 as id");
    let error = run(&*engine, &greedy, 1, day(4), &Want::Due).await.unwrap_err();
    assert!(error.to_string().contains("which no model made"), "{error}");
    assert_eq!(texts(&*engine, "select count(*) from ods.orders").await, [[Some("4".to_owned())]]);
    // A mistake in the query has its line of the file.
    let wrong = "/* @model\nkind: full\n*/\nselect id,\n  nothing\nfrom ods.orders";
    let wrong = model("models/dws/x.sql", wrong);
    let error = run(&*engine, &wrong, 1, day(4), &Want::Due).await.unwrap_err();
    assert!(error.to_string().contains("models/dws/x.sql:5:3: error 1054"), "{error}");
    let wrong = model("models/dws/y.sql", "/* @model\nkey: [ident]\n*/ select id from ods.orders");
    let error = run(&*engine, &wrong, 1, day(4), &Want::Due).await.unwrap_err();
    assert!(error.to_string().contains("gives no column `ident`"), "{error}");
}

/// An engine that dies in its n-th call that writes. `torn`: what a server did of several parts before it died stays done,
/// where one of them changes a definition.
struct Dying<'e> {
    inner: &'e dyn Engine,
    left: AtomicI64,
    torn: bool,
}

impl Dying<'_> {
    fn step(&self) -> Result<(), EngineError> {
        let dead = self.left.fetch_sub(1, Ordering::SeqCst) <= 0;
        if dead { Err(EngineError::Unavailable("killed".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Engine for Dying<'_> {
    async fn execute(&self, sql: &str) -> Result<u64, EngineError> {
        self.step()?;
        self.inner.execute(sql).await
    }

    async fn execute_all(&self, statements: &[String]) -> Result<u64, EngineError> {
        self.step()?;
        self.inner.execute_all(statements).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<u64, EngineError> {
        let words = ["DROP ", "RENAME ", "CREATE "];
        let defines =
            |it: &Write| matches!(it, Write::Sql(sql) if words.iter().any(|word| sql.starts_with(word)));
        if !self.torn || !writes.iter().any(defines) {
            self.step()?;
            return self.inner.write(writes).await;
        }
        let mut done = 0;
        for write in writes {
            self.step()?;
            done += self.inner.write(vec![write]).await?;
        }
        Ok(done)
    }

    async fn prepare_dataset(&self, dataset: &str) -> Result<(), EngineError> {
        self.step()?;
        self.inner.prepare_dataset(dataset).await
    }

    async fn prepare_own(&self, table: &str, columns: &[Column], key: &[String]) -> Result<(), EngineError> {
        self.step()?;
        self.inner.prepare_own(table, columns, key).await
    }

    async fn query(&self, sql: &str) -> Result<Rows, EngineError> {
        self.inner.query(sql).await
    }

    async fn query_in(&self, sql: &str, lookup: &Lookup) -> Result<Rows, EngineError> {
        self.inner.query_in(sql, lookup).await
    }

    async fn check_in(&self, sql: &str, lookup: &Lookup) -> Result<Shape, EngineError> {
        self.inner.check_in(sql, lookup).await
    }

    async fn definitions(&self) -> Result<Option<Vec<TableDef>>, EngineError> {
        self.inner.definitions().await
    }

    async fn check(&self, sql: &str) -> Result<Vec<Column>, EngineError> {
        self.inner.check(sql).await
    }

    async fn explain(&self, sql: &str) -> Result<String, EngineError> {
        self.inner.explain(sql).await
    }

    async fn tables(&self) -> Result<Vec<String>, EngineError> {
        self.inner.tables().await
    }

    async fn columns(&self, table: &str) -> Result<Vec<Column>, EngineError> {
        self.inner.columns(table).await
    }
}

/// Runs a model that dies in each of its steps, one run a step, until one gets through; how many died. After each, readers see
/// rows as one of `states` has them, and never an earlier one than before.
async fn killed(
    engine: &dyn Engine,
    model: &Model,
    now: DateTime,
    torn: bool,
    look: &str,
    states: &[Texts],
) -> i64 {
    let mut at = 0;
    for step in 0..200 {
        let dying = Dying { inner: engine, left: AtomicI64::new(step), torn };
        let ended = run(&dying, model, 100 + step, now, &Want::Due).await;
        let seen = match warehouse::build::exists(engine, &model.name).await.unwrap() {
            true => texts(engine, look).await,
            false => Vec::new(),
        };
        let found = states[at..].iter().position(|state| *state == seen);
        at += found
            .unwrap_or_else(|| panic!("{} after step {step}: {seen:?} is none of {states:?}", model.name));
        if ended.is_ok() {
            assert_eq!(at, states.len() - 1, "{} ended early", model.name);
            run(engine, model, 999, now, &Want::Due).await.unwrap();
            assert_eq!(texts(engine, look).await, seen, "{} after one more run", model.name);
            return step;
        }
    }
    panic!("{} never ends", model.name);
}

async fn dies_everywhere(engine: &dyn Engine, torn: bool) {
    orders(engine).await;
    let daily = model("models/dws/daily.sql", &DAILY.replace("lookback: 1", "lookback: 2\nbatch: 1"));
    let look = "select day, dept, amount from dws.daily order by day, dept";
    let computed = async |condition: &str| {
        let sql = "select day, dept, sum(amount) from ods.orders where";
        texts(engine, &format!("{sql} {condition} group by day, dept order by day, dept")).await
    };
    // From nothing: a table without rows is never seen.
    let first = computed("day < '2026-01-03'").await;
    let steps = killed(engine, &daily, day(3), torn, look, &[Vec::new(), first.clone()]).await;
    assert!(steps > 5, "{steps}");
    // Interval by interval.
    let new = "insert into ods.orders values (5, '2026-01-02', 'z', 7.00), (6, '2026-01-04', 'a', 6.60)";
    engine.execute(new).await.unwrap();
    let second = computed("day < '2026-01-03'").await;
    let third = computed("day < '2026-01-04'").await;
    let fourth = computed("day < '2026-01-05'").await;
    killed(engine, &daily, day(5), torn, look, &[first, second, third, fourth.clone()]).await;
    // By another query.
    let other = model("models/dws/daily.sql", &DAILY.replace("sum(amount) as", "sum(amount) * 2 as"));
    let twice = "select day, dept, sum(amount) * 2 from ods.orders where day < '2026-01-05' group by day, dept order by day, dept";
    let twice = texts(engine, twice).await;
    killed(engine, &other, day(5), torn, look, &[fourth, twice]).await;
    // Whole, by key and by versions.
    let full = model("models/dws/by_dept.sql", FULL);
    let look = "select dept, total from dws.by_dept order by dept";
    let truth = "select dept, sum(amount) from ods.orders group by dept order by dept";
    let before = texts(engine, truth).await;
    killed(engine, &full, day(5), torn, look, &[Vec::new(), before.clone()]).await;
    let keyed = "/* @model\nkind: incremental_by_key\nkey: [id]\n*/ select id, dept from ods.orders";
    let keyed = model("models/dws/big.sql", keyed);
    let look_keyed = "select id, dept from dws.big order by id";
    let truth_keyed = "select id, dept from ods.orders order by id";
    let before_keyed = texts(engine, truth_keyed).await;
    killed(engine, &keyed, day(5), torn, look_keyed, &[Vec::new(), before_keyed.clone()]).await;
    let versions = "/* @model\nkind: snapshot\nkey: [id]\n*/ select id, dept from ods.orders";
    let versions = model("models/dws/history.sql", versions);
    let look_versions = "select id, dept from dws.history where valid_to is null order by id";
    killed(engine, &versions, day(5), torn, look_versions, &[Vec::new(), before_keyed.clone()]).await;
    engine.execute("update ods.orders set dept = 'new' where id < 3").await.unwrap();
    killed(engine, &full, day(6), torn, look, &[before, texts(engine, truth).await]).await;
    let after_keyed = texts(engine, truth_keyed).await;
    killed(engine, &keyed, day(6), torn, look_keyed, &[before_keyed.clone(), after_keyed.clone()]).await;
    killed(engine, &versions, day(6), torn, look_versions, &[before_keyed, after_keyed]).await;
    let ended = texts(engine, "select count(*) from dws.history where valid_to is not null").await;
    assert_eq!(ended, [[Some("2".to_owned())]]);
    let shown = engine.tables().await.unwrap();
    assert_eq!(shown, ["dws.big", "dws.by_dept", "dws.daily", "dws.history", "ods.orders"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_dies_at_any_step_leaves_the_old_table_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    dies_everywhere(&*file, false).await;
    let server = testkit::MySql::start(testkit::MySqlOptions::default()).await.unwrap();
    server.exec("create database dw").await.unwrap();
    let url = format!("{}/dw", server.url());
    let mysql = engine::open(&url, Path::new("."), Options::default()).await.unwrap();
    dies_everywhere(&*mysql, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_a_whole_table_while_it_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    engine.prepare_dataset("ods").await.unwrap();
    engine.execute("create table ods.n (v int)").await.unwrap();
    let many = "insert into ods.n with recursive q (n) as (select 1 union all select n + 1 from q where n < 500) select n from q";
    engine.execute(many).await.unwrap();
    let full = model("models/dws/n.sql", "select v from ods.n");
    ran(&*engine, &full, 1, day(4)).await;
    let sql = "select count(*), sum(v) from dws.n";
    let wanted = texts(&*engine, sql).await;
    let mut looked = 0;
    let runs = async {
        for number in 2..12 {
            ran(&*engine, &full, number, day(4)).await;
        }
    };
    tokio::pin!(runs);
    loop {
        tokio::select! {
            () = &mut runs => break,
            seen = texts(&*engine, sql) => {
                assert_eq!(seen, wanted);
                looked += 1;
            }
        }
    }
    assert!(looked > 5, "{looked}");
}

async fn on_a_file() -> (tempfile::TempDir, Box<dyn Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine::open("sqlite:w.db", folder.path(), Options::default()).await.unwrap();
    orders(&*engine).await;
    (folder, engine)
}

#[tokio::test]
async fn nothing_is_taken_back_that_is_not_kept_any_more() {
    let (_folder, engine) = on_a_file().await;
    let engine = &*engine;
    let look = "select day, dept, amount from dws.daily order by day, dept";
    let daily = model("models/dws/daily.sql", DAILY);
    ran(engine, &daily, 1, day(3)).await;
    let other = model("models/dws/daily.sql", &DAILY.replace("sum(amount) as", "sum(amount) * 2 as"));
    ran(engine, &other, 2, day(3)).await;
    let whole = texts(engine, look).await;
    // A run that a check stops has begun to make room: what run 2 replaced is gone.
    engine.execute("insert into ods.orders values (9, '2026-01-03', 'a', 5000)").await.unwrap();
    let outcome = run(engine, &other, 3, day(4), &Want::Due).await.unwrap();
    assert!(!outcome.blocked.is_empty());
    let error = rollback(engine, &other, 2).await.unwrap_err();
    assert!(error.to_string().contains("nothing is kept any more"), "{error}");
    let seen = texts(engine, look).await;
    assert_eq!(seen[..whole.len()], whole[..]);

    let keyed =
        "/* @model\nkind: incremental_by_key\nkey: [id]\n*/ select id, dept from ods.orders where id < 3";
    let keyed = model("models/dws/big.sql", keyed);
    ran(engine, &keyed, 10, day(3)).await;
    ran(engine, &keyed, 11, day(3)).await;
    let look = "select * from dws.big order by id";
    let whole = texts(engine, look).await;
    let dying = Dying { inner: engine, left: AtomicI64::new(9), torn: false };
    run(&dying, &keyed, 12, day(3), &Want::Due).await.unwrap_err();
    rollback(engine, &keyed, 11).await.unwrap_err();
    assert_eq!(texts(engine, look).await, whole);
}

#[tokio::test]
async fn one_bad_day_does_not_hold_up_the_others() {
    let (_folder, engine) = on_a_file().await;
    let engine = &*engine;
    let text = DAILY
        .replace("lookback: 1", "lookback: 0\nbatch: 1")
        .replace("max: 1000}", "max: 1000}\n  - row_count: {min: 3}");
    let daily = model("models/dws/daily.sql", &text);
    ran(engine, &daily, 1, day(4)).await;
    engine
        .execute("insert into ods.orders values (8, '2026-01-04', 'a', 5000), (9, '2026-01-05', 'a', 1)")
        .await
        .unwrap();
    let outcome = run(engine, &daily, 2, day(6), &Want::Due).await.unwrap();
    assert_eq!((outcome.intervals, outcome.blocked.len()), (1, 1), "{outcome:?}");
    assert!(outcome.blocked[0].contains("from 2026-01-04"), "{outcome:?}");
    let days = texts(engine, "select distinct day from dws.daily order by day").await;
    assert_eq!(days.last().unwrap()[0].as_deref(), Some("2026-01-05"));
    // The bad day is due until it is mended.
    engine.execute("update ods.orders set amount = 5 where id = 8").await.unwrap();
    let outcome = ran(engine, &daily, 3, day(6)).await;
    assert_eq!(outcome.intervals, 1);
    let nothing = Want::Intervals(Grain::Day.around(day(20)));
    let error = run(engine, &daily, 4, day(6), &nothing).await.unwrap_err();
    assert!(error.to_string().contains("has no interval in these days"), "{error}");
}

#[tokio::test]
async fn columns_that_changed_under_a_model_are_told() {
    let (_folder, engine) = on_a_file().await;
    let engine = &*engine;
    let keyed = "/* @model\nkind: incremental_by_key\nkey: [id]\n*/ select * from ods.orders";
    let keyed = model("models/dws/all.sql", keyed);
    ran(engine, &keyed, 1, day(3)).await;
    engine.execute("drop table ods.orders").await.unwrap();
    engine
        .execute("create table ods.orders (id int primary key, day date, amount decimal(12,4))")
        .await
        .unwrap();
    engine.execute("insert into ods.orders values (1, '2026-01-01', 1.2345)").await.unwrap();
    let error = run(engine, &keyed, 2, day(3), &Want::Due).await.unwrap_err();
    assert!(error.to_string().contains("gives other columns than its table has"), "{error}");
    assert_eq!(texts(engine, "select count(*) from dws.all").await, [[Some("4".to_owned())]]);
    run(engine, &keyed, 3, day(3), &Want::Everything).await.unwrap();
    assert_eq!(texts(engine, "select amount from dws.all").await, [[Some("1.2345".to_owned())]]);
    // What a run left beside the table may be of another kind, and the query may end with a comment.
    let view = model(
        "models/dws/all.sql",
        "/* @model\nkind: view\n*/ select id, amount from ods.orders -- as it is",
    );
    ran(engine, &keyed, 4, day(3)).await;
    ran(engine, &view, 5, day(3)).await;
    let timed = "/* @model\nkind: incremental_by_time\ntime_column: day\nstart: 2026-01-01\n*/ \
                 select day, amount from ods.orders where day between @start_ds and @end_ds -- the end";
    ran(engine, &model("models/dws/all.sql", timed), 6, day(3)).await;
    assert_eq!(texts(engine, "select count(*) from dws.all").await, [[Some("1".to_owned())]]);
}
