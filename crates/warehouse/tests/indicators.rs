//! Indicators over generated facts: answers are held against plain SQL over the facts, and must be the same on SQLite, MySQL and TiDB.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use anyhow::Result;
use base::{Column, ColumnType, Generated, Value};
use engine::{Engine, MySql, Options, Sqlite, Write, cell_text, create_sql};
use std::sync::Arc;
use warehouse::indicator::answer::NoHealth;
use warehouse::indicator::config::Light;
use warehouse::indicator::period::Grain;
use warehouse::indicator::{
    Answer, IndicatorError, IndicatorFile, Indicators, Period, Question, Service, rollup,
};

const DECLARED: &str = "
semantic_models:
  - name: sales
    table: dws.sales
    entities: [{name: sale, type: primary, expr: id}]
    dimensions:
      - {name: day, type: time, type_params: {time_granularity: day}}
      - {name: dept, type: categorical}
      - {name: channel, type: categorical, expr: \"lower(channel)\"}
      - {name: big, type: categorical, expr: \"qty > 5\"}
    measures:
      - {name: amount, agg: sum}
      - {name: sales_count, agg: count}
      - {name: price, agg: average, expr: amount}
      - {name: qty_least, agg: min, expr: qty}
      - {name: qty_most, agg: max, expr: qty}
      - {name: customers, agg: count_distinct, expr: customer}
      - {name: weight, agg: sum}
metrics:
  - {name: revenue, type: simple, label: 销售额, unit: CNY, status: certified, type_params: {measure: amount}, dimensions: [dept, channel],
     targets: [{value: 1000, grain: day}, {value: 900.5, grain: day, dimensions: {dept: north}}, {value: 5, period: 2024-02-29}],
     thresholds: [{status: red, when: value < target * 0.8}, {status: yellow, when: value < target}, {status: green, when: value >= target}]}
  - {name: sales, type: simple, type_params: {measure: sales_count}, dimensions: [dept, channel]}
  - {name: shop_revenue, type: simple, type_params: {measure: amount}, filter: \"{{ Dimension('sale__channel') }} = 'shop'\", dimensions: [dept]}
  - {name: shop_share, type: ratio, type_params: {numerator: shop_revenue, denominator: revenue}, decimals: 4, dimensions: [dept]}
  - {name: average_price, type: simple, type_params: {measure: price}, dimensions: [dept]}
  - {name: least, type: simple, type_params: {measure: qty_least}, dimensions: [dept], direction: down}
  - {name: most, type: simple, type_params: {measure: qty_most}, dimensions: [dept]}
  - {name: buyers, type: simple, type_params: {measure: customers}, dimensions: [dept, channel], grains: [day, week, month, quarter]}
  - {name: revenue_growth, type: derived, dimensions: [dept],
     type_params: {expr: \"(now - was) / was\", metrics: [{name: revenue, alias: now}, {name: revenue, alias: was, offset_window: 1 month}]}}
  - {name: revenue_month_to_date, type: cumulative, type_params: {measure: amount, grain_to_date: month}, dimensions: [dept]}
  - {name: revenue_week, type: cumulative, type_params: {measure: amount, window: 7 days}, dimensions: [dept]}
  - {name: revenue_ever, type: cumulative, type_params: {measure: amount}, dimensions: [dept]}
  - {name: heavy, type: simple, type_params: {measure: weight, fill_nulls_with: 0}, dimensions: []}
  - {name: raw_revenue, type: simple, type_params: {measure: amount}, dimensions: [dept], grains: [month], allow_raw: true}
  - {name: by_size, type: simple, type_params: {measure: sales_count}, dimensions: [big], grains: [month]}
  - {name: given_up, type: simple, type_params: {measure: amount}, status: retired}
";

fn declared(text: &str) -> Indicators {
    let file: IndicatorFile = serde_saphyr::from_str(text).unwrap();
    match Indicators::new(&[("indicators/sales.yaml".into(), file)]) {
        Ok(indicators) => indicators,
        Err(mistakes) => panic!("{mistakes:#?}"),
    }
}

fn column(name: &str, ty: ColumnType, sql_type: &str) -> Column {
    let text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable: true,
        charset: text.then(|| "utf8mb4".into()),
        collation: text.then(|| "utf8mb4_0900_ai_ci".into()),
        generated: Generated::No,
        invisible: false,
    }
}

fn columns() -> Vec<Column> {
    let text = |chars| ColumnType::Text { chars_max: chars };
    vec![
        column("id", ColumnType::BigInt { unsigned: false }, "bigint"),
        column("day", ColumnType::Date, "date"),
        column("dept", text(40), "varchar(40)"),
        column("channel", text(20), "varchar(20)"),
        column("amount", ColumnType::Decimal { precision: 12, scale: 2 }, "decimal(12,2)"),
        column("qty", ColumnType::Int { unsigned: false }, "int"),
        column("customer", ColumnType::BigInt { unsigned: false }, "bigint"),
        column("weight", ColumnType::Double, "double"),
    ]
}

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Sales from 2023-11-20 on, with days without any, NULLs, empty texts, and members that want escapes.
fn sales(rows: usize, days: u64, seed: u64) -> Vec<Vec<Value>> {
    let first = Period::named("2023-11-20").unwrap().start();
    let mut dice = Dice(seed);
    let text = |text: &str| Value::Text(text.into());
    let mut all = Vec::with_capacity(rows);
    for id in 0..rows {
        let day = dice.roll(days);
        // Each 11th day has none, and so has all of July 2024.
        let date = base::value::date_of_days(first + day as i64);
        let day = if day % 11 == 3 || (date.year == 2024 && date.month == 7) { 0 } else { day };
        let dept = match dice.roll(6) {
            0 => Value::Null,
            1 => text(""),
            2 => text("north"),
            3 => text("south"),
            4 => text("O'Neil\\"),
            _ => text("北%区_"),
        };
        let channel = ["shop", "WEB", "web", "Shop", "agent"][dice.roll(5) as usize];
        let cents = dice.roll(2_000_000) as i64 - 100_000;
        let sign = if cents < 0 { "-" } else { "" };
        let amount = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
        all.push(vec![
            Value::Int(id as i64),
            Value::Date(base::value::date_of_days(first + day as i64)),
            dept,
            text(channel),
            if dice.roll(9) == 0 { Value::Null } else { Value::Decimal(amount) },
            Value::Int(dice.roll(10) as i64),
            Value::Int(dice.roll(50) as i64),
            Value::Double(dice.roll(8) as f64 / 4.0),
        ]);
    }
    all
}

async fn filled(engine: &dyn Engine, rows: Vec<Vec<Value>>) -> Result<()> {
    engine.prepare_dataset("dws").await?;
    engine.execute(&create_sql("dws.sales", &columns(), &[])).await?;
    put(engine, rows).await
}

async fn put(engine: &dyn Engine, rows: Vec<Vec<Value>>) -> Result<()> {
    let write = Write::Put { table: "dws.sales".into(), columns: columns(), rows, replace: false };
    engine.write(vec![write]).await?;
    Ok(())
}

fn question(code: &str, date: &str, grain: Grain, dims: &[(&str, Option<&str>)]) -> Question {
    let dims = dims.iter().map(|(dim, member)| ((*dim).to_owned(), member.map(str::to_owned))).collect();
    Question { code: code.into(), date: Some(date.into()), grain: Some(grain), dims, ..Question::default() }
}

async fn one(service: &Service, question: Question) -> Result<Answer, IndicatorError> {
    service.answer(&[question]).await.remove(0)
}

/// One number by plain SQL.
async fn number(engine: &dyn Engine, sql: &str) -> Option<String> {
    let rows = engine.query(sql).await.unwrap();
    let columns = rows.columns.clone();
    let rows = rows.all(1).await.unwrap();
    cell_text(&rows[0][0], &columns[0])
}

fn value_of(answer: &Answer) -> Option<String> {
    answer.value.as_ref().map(|it| it.0.to_string())
}

fn same(left: Option<String>, right: Option<String>) -> bool {
    let plain = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    left.map(plain) == right.map(plain)
}

/// Grain, a date in it, first day, day behind the last: written out, not computed.
const PERIODS: [(Grain, &str, &str, &str); 12] = [
    (Grain::Day, "2024-02-29", "2024-02-29", "2024-03-01"),
    (Grain::Day, "2024-12-31", "2024-12-31", "2025-01-01"),
    (Grain::Day, "2025-02-28", "2025-02-28", "2025-03-01"),
    (Grain::Week, "2024-W01", "2024-01-01", "2024-01-08"),
    (Grain::Week, "2024-12-30", "2024-12-30", "2025-01-06"),
    (Grain::Week, "2023-W52", "2023-12-25", "2024-01-01"),
    (Grain::Month, "2024-02", "2024-02-01", "2024-03-01"),
    (Grain::Month, "2024-07", "2024-07-01", "2024-08-01"),
    (Grain::Month, "2024-12-15", "2024-12-01", "2025-01-01"),
    (Grain::Quarter, "2024-Q1", "2024-01-01", "2024-04-01"),
    (Grain::Quarter, "2024-11-30", "2024-10-01", "2025-01-01"),
    (Grain::Year, "2024", "2024-01-01", "2025-01-01"),
];

/// Members by their dimension.
type Dims = &'static [(&'static str, Option<&'static str>)];

/// Holds answers against the facts; tells all of them as JSON.
async fn judged(engine: &Arc<dyn Engine>) -> Result<Vec<String>> {
    let indicators = Arc::new(declared(DECLARED));
    let mistakes = rollup::check(&**engine, &indicators).await;
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let built = rollup::build(&**engine, &indicators, None, None).await?;
    assert!(built.iter().all(|it| it.whole && it.rows > 0), "{built:?}");
    let service = Service::new(engine.clone(), indicators, Arc::new(NoHealth));
    let mut told = Vec::new();
    let of_members: [(&str, Dims); 7] = [
        ("1 = 1", &[]),
        ("dept = 'north'", &[("dept", Some("north"))]),
        ("dept is null", &[("dept", None)]),
        ("dept = ''", &[("dept", Some(""))]),
        (r"dept = 'O''Neil\\'", &[("dept", Some("O'Neil\\"))]),
        ("dept = '北%区_'", &[("dept", Some("北%区_"))]),
        ("dept = 'nobody'", &[("dept", Some("nobody"))]),
    ];
    let of_codes = [
        ("revenue", "sum(amount)"),
        ("sales", "count(*)"),
        ("shop_revenue", "sum(case when lower(channel) = 'shop' then amount end)"),
        ("shop_share", "round(sum(case when lower(channel) = 'shop' then amount end) / sum(amount), 4)"),
        ("average_price", "avg(amount)"),
        ("least", "min(qty)"),
        ("most", "max(qty)"),
        ("buyers", "count(distinct customer)"),
    ];
    for (code, sql) in of_codes {
        for (grain, date, from, to) in PERIODS {
            if code == "buyers" && grain == Grain::Year {
                continue;
            }
            for (condition, dims) in of_members {
                let answer = one(&service, question(code, date, grain, dims)).await?;
                let facts = format!("from dws.sales where day >= '{from}' and day < '{to}' and {condition}");
                let count = number(&**engine, &format!("select count(*) {facts}")).await;
                let there = count.as_deref() != Some("0");
                let wanted =
                    if there { number(&**engine, &format!("select {sql} {facts}")).await } else { None };
                let value = value_of(&answer);
                assert!(
                    same(value.clone(), wanted.clone()),
                    "{code} {date} {condition}: {value:?}, not {wanted:?}"
                );
                assert_eq!(answer.missing, !there, "{code} {date} {condition}");
                assert_eq!((answer.from.as_str(), answer.version_of()), (from, 1));
                told.push(json(&answer));
            }
        }
    }
    let before = [
        ("2024-02-29", Grain::Day, "2024-02-28", "2023-02-28"),
        ("2025-02-28", Grain::Day, "2025-02-27", "2024-02-28"),
        ("2024-03-01", Grain::Day, "2024-02-29", "2023-03-01"),
        ("2025-W01", Grain::Week, "2024-W52", "2024-W01"),
        ("2024-01", Grain::Month, "2023-12", "2023-01"),
        ("2025-Q1", Grain::Quarter, "2024-Q4", "2024-Q1"),
    ];
    for (date, grain, previous, last_year) in before {
        let answer = one(&service, question("revenue", date, grain, &[])).await?;
        for (then, comparison) in [(previous, &answer.mom), (last_year, &answer.yoy)] {
            assert_eq!(comparison.period.to_string(), then);
            let alone = one(&service, question("revenue", then, grain, &[])).await?;
            assert_eq!((&comparison.value, comparison.missing), (&alone.value, alone.missing));
            if let (Some(change), Some(value), Some(was)) = (&comparison.change, &answer.value, &alone.value)
            {
                assert_eq!(change.0, value.0.minus(&was.0));
            }
        }
        told.push(json(&answer));
    }
    for (code, date, grain, from, to) in [
        ("revenue_month_to_date", "2024-02-29", Grain::Day, "2024-02-01", "2024-03-01"),
        ("revenue_month_to_date", "2024-W09", Grain::Week, "2024-03-01", "2024-03-04"),
        ("revenue_week", "2024-03-03", Grain::Day, "2024-02-26", "2024-03-04"),
        ("revenue_week", "2024-02", Grain::Month, "2024-02-23", "2024-03-01"),
        ("revenue_ever", "2024-05-05", Grain::Day, "1900-01-01", "2024-05-06"),
        ("revenue_ever", "2030", Grain::Year, "1900-01-01", "2031-01-01"),
        ("raw_revenue", "2024-05-05", Grain::Day, "2024-05-05", "2024-05-06"),
        ("raw_revenue", "2024-Q2", Grain::Quarter, "2024-04-01", "2024-07-01"),
    ] {
        for (condition, dims) in &of_members[..3] {
            let answer = one(&service, question(code, date, grain, dims)).await?;
            let facts = format!("from dws.sales where day >= '{from}' and day < '{to}' and {condition}");
            let wanted = number(&**engine, &format!("select sum(amount) {facts}")).await;
            assert!(
                same(value_of(&answer), wanted.clone()),
                "{code} {date} {condition}: {answer:?}, not {wanted:?}"
            );
            told.push(json(&answer));
        }
    }
    // The table itself has what rollups have not.
    let raw = one(&service, question("raw_revenue", "2024-05-05", Grain::Day, &[("channel", Some("shop"))]))
        .await?;
    let wanted = "select sum(amount) from dws.sales where day = '2024-05-05' and channel = 'shop'";
    assert!(same(value_of(&raw), number(&**engine, wanted).await), "{raw:?}");
    let growth = one(&service, question("revenue_growth", "2024-05", Grain::Month, &[])).await?;
    let wanted = "select round((a - b) / b, 6) from (select sum(case when day >= '2024-05-01' and day < '2024-06-01' then amount end) \
                  as a, sum(case when day >= '2024-04-01' and day < '2024-05-01' then amount end) as b from dws.sales) as t";
    assert!(same(value_of(&growth), number(&**engine, wanted).await), "{growth:?}");
    // Nothing was sold in July 2024: the growth into August has no base, and an empty sum of `heavy` is filled.
    let growth = one(&service, question("revenue_growth", "2024-08", Grain::Month, &[])).await?;
    assert_eq!((value_of(&growth), growth.missing), (None, false));
    let heavy = one(&service, question("heavy", "2024-07", Grain::Month, &[])).await?;
    assert_eq!((value_of(&heavy).as_deref(), heavy.missing), (Some("0"), true));
    // Ranks, shares and lists.
    let mut asked = question("revenue", "2024-05", Grain::Month, &[("dept", Some("north"))]);
    (asked.rank, asked.by, asked.series) = (Some("dept".into()), Some("channel".into()), 4);
    let answer = one(&service, asked).await?;
    let facts = "from dws.sales where day >= '2024-05-01' and day < '2024-06-01'";
    let better = format!(
        "select count(*) + 1 from (select dept, sum(amount) as s {facts} group by dept) as t where s > (select sum(amount) {facts} and dept = 'north')"
    );
    let rank = answer.rank.clone().unwrap();
    assert_eq!((rank.of, rank.rank.map(|it| it.to_string())), (6, number(&**engine, &better).await));
    let share =
        format!("select round(sum(case when dept = 'north' then amount end) / sum(amount), 6) {facts}");
    assert!(same(rank.share.map(|it| it.0.to_string()), number(&**engine, &share).await));
    let members = answer.members.clone().unwrap();
    let names: Vec<_> = members.iter().map(|it| it.member.clone().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        members.windows(2).all(|two| two[0].value.as_ref().unwrap().0 >= two[1].value.as_ref().unwrap().0)
    );
    let series: Vec<String> = answer.series.iter().map(|it| it.period.to_string()).collect();
    assert_eq!(series, ["2024-02", "2024-03", "2024-04", "2024-05"]);
    assert_eq!(answer.series[3].value, answer.value);
    told.push(json(&answer));
    for by in ["dept", "channel"] {
        for code in ["buyers", "revenue", "sales"] {
            let mut asked = question(code, "2024-05", Grain::Month, &[]);
            asked.by = Some(by.into());
            told.push(json(&one(&service, asked).await?));
        }
    }
    let mut asked = question("by_size", "2024-05", Grain::Month, &[]);
    asked.by = Some("big".into());
    let answer = one(&service, asked).await?;
    let mut sizes: Vec<_> =
        answer.members.clone().unwrap().into_iter().map(|it| it.member.unwrap()).collect();
    sizes.sort();
    assert_eq!(sizes, ["0", "1"]);
    told.push(json(&answer));
    // Targets and lights.
    let answer = one(&service, question("revenue", "2024-02-29", Grain::Day, &[])).await?;
    assert_eq!(answer.target.as_ref().map(|it| it.0.to_string()).as_deref(), Some("5"));
    let answer =
        one(&service, question("revenue", "2024-03-01", Grain::Day, &[("dept", Some("north"))])).await?;
    assert_eq!(answer.target.as_ref().map(|it| it.0.to_string()).as_deref(), Some("900.5"));
    assert_eq!(answer.status.is_some(), answer.value.is_some());
    let mut lit = 0;
    for day in 2..10 {
        let answer = one(&service, question("revenue", &format!("2024-03-0{day}"), Grain::Day, &[])).await?;
        let part = answer.completion.clone().map(|it| it.0.to_f64());
        let wanted = part.map(|it| match it {
            ..0.8 => Light::Red,
            ..1.0 => Light::Yellow,
            _ => Light::Green,
        });
        assert_eq!(answer.status, wanted, "{answer:?}");
        lit += usize::from(wanted.is_some());
    }
    assert!(lit > 4, "{lit}");
    let answer = one(&service, question("revenue", "2024-03", Grain::Month, &[])).await?;
    assert_eq!((answer.target, answer.status), (None, None));
    Ok(told)
}

trait VersionOf {
    fn version_of(&self) -> u32;
}

impl VersionOf for Answer {
    fn version_of(&self) -> u32 {
        self.indicator.version
    }
}

/// Without what is of the clock.
fn json(answer: &Answer) -> String {
    let mut answer = answer.clone();
    answer.as_of = String::new();
    serde_json::to_string(&answer).unwrap()
}

async fn sqlite(folder: &std::path::Path) -> Arc<dyn Engine> {
    Arc::new(Sqlite::open(&folder.join("w.db"), Options::default()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_plain_sql_over_the_facts_and_alike_on_every_engine() -> Result<()> {
    let (mysql, tidb) = tokio::try_join!(
        testkit::MySql::start(testkit::MySqlOptions::default()),
        testkit::TiDb::start(testkit::TiDbOptions::default())
    )?;
    let folder = tempfile::tempdir()?;
    let mut told = Vec::new();
    for url in ["", &mysql.url(), &tidb.url()] {
        let engine: Arc<dyn Engine> = match url {
            "" => sqlite(folder.path()).await,
            url => {
                MySql::open(url, Options::default()).await?.prepare_dataset("dw").await?;
                Arc::new(MySql::open(&format!("{url}/dw"), Options::default()).await?)
            }
        };
        filled(&*engine, sales(3000, 500, 7)).await?;
        told.push(judged(&engine).await?);
        // A part that is built anew leaves what a whole build does.
        let indicators = declared(DECLARED);
        let more: Vec<Vec<Value>> = sales(40, 500, 99);
        let changed: Vec<Period> = more
            .iter()
            .filter_map(|row| match &row[1] {
                Value::Date(date) => Period::named(&date.to_string()),
                _ => None,
            })
            .collect();
        put(&*engine, more).await?;
        let built = rollup::build(&*engine, &indicators, None, Some(&changed)).await?;
        assert!(built.iter().all(|it| !it.whole && it.rows > 0), "{built:?}");
        let parts = contents(&*engine).await?;
        let whole = rollup::build(&*engine, &indicators, Some(&["sales"]), None).await?;
        assert!(whole[0].whole && whole[0].version > built[0].version);
        assert_eq!(contents(&*engine).await?, parts);
        let tables = engine.tables().await?;
        assert!(!tables.iter().any(|it| it.ends_with("__new") || it.ends_with("__old")), "{tables:?}");
    }
    for (other, of) in told[1..].iter().zip(["mysql", "tidb"]) {
        assert_eq!(told[0].len(), other.len());
        for (left, right) in told[0].iter().zip(other) {
            assert_eq!(left, right, "{of}");
        }
    }
    Ok(())
}

/// All rows of all rollups, sorted.
async fn contents(engine: &dyn Engine) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for table in engine.tables().await? {
        if !table.starts_with("rollup.") || table.ends_with("__meta") {
            continue;
        }
        let rows = engine.query(&format!("select * from {}", engine::name_sql(&table))).await?;
        let columns = rows.columns.clone();
        for row in rows.all(100_000).await? {
            let cells: Vec<_> =
                row.iter().zip(&columns).map(|(value, column)| cell_text(value, column)).collect();
            all.push(format!("{table} {cells:?}"));
        }
    }
    all.sort();
    Ok(all)
}

#[tokio::test]
async fn no_parameter_is_a_way_into_the_statement() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    filled(&*engine, sales(200, 60, 3)).await?;
    let indicators = Arc::new(declared(DECLARED));
    rollup::build(&*engine, &indicators, None, None).await?;
    let service = Service::new(engine.clone(), indicators, Arc::new(NoHealth));
    let attacks = [
        "' or '1'='1",
        "\\' or 1=1 -- ",
        "'; drop table rollup.sales__day; -- ",
        "\"",
        "`",
        "` or 1=1 -- ",
        "north' union select 1 -- ",
        "%",
        "_",
        "\\",
        "/*",
        "a\0b",
        "\u{2}0:0",
        "${x}",
        "{{ x }}",
        "select sleep(5)",
    ];
    let whole = one(&service, question("revenue", "2023-12", Grain::Month, &[])).await?;
    assert!(whole.value.is_some());
    for attack in attacks {
        let answer =
            one(&service, question("revenue", "2023-12", Grain::Month, &[("dept", Some(attack))])).await;
        match answer {
            Ok(answer) => assert!(answer.missing && answer.value.is_none(), "{attack}: {answer:?}"),
            Err(error) => assert!(matches!(error, IndicatorError::Invalid { .. }), "{attack}: {error}"),
        }
        let plain = || question("revenue", "2023-12", Grain::Month, &[]);
        let as_dim = question("revenue", "2023-12", Grain::Month, &[(attack, Some("x"))]);
        for wrong in [
            Question { code: attack.into(), ..plain() },
            Question { date: Some(attack.into()), ..plain() },
            Question { by: Some(attack.into()), ..plain() },
            Question { rank: Some(attack.into()), ..plain() },
            as_dim.clone(),
            Question { code: "raw_revenue".into(), ..as_dim },
            Question { code: "raw_revenue".into(), by: Some(attack.into()), ..plain() },
        ] {
            let error = one(&service, wrong.clone()).await.unwrap_err();
            assert!(!matches!(error, IndicatorError::Engine(_)), "{wrong:?}: {error}");
        }
    }
    assert_eq!(json(&one(&service, question("revenue", "2023-12", Grain::Month, &[])).await?), json(&whole));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    let indicators = Arc::new(declared(DECLARED));
    let service = Service::new(engine.clone(), indicators.clone(), Arc::new(NoHealth));
    let plain = || Question { code: "revenue".into(), ..Question::default() };
    let error = one(&service, plain()).await.unwrap_err();
    assert!(matches!(error, IndicatorError::NotBuilt { .. }), "{error}");
    // Empty data are answered: nothing is there.
    filled(&*engine, Vec::new()).await?;
    rollup::build(&*engine, &indicators, None, None).await?;
    let service = Service::new(engine.clone(), indicators, Arc::new(NoHealth));
    for code in
        ["revenue", "shop_share", "buyers", "revenue_growth", "revenue_ever", "average_price", "least"]
    {
        let mut asked =
            Question { code: code.into(), by: Some("dept".into()), series: 3, ..Question::default() };
        let answer = one(&service, asked.clone()).await?;
        assert!(answer.missing && answer.value.is_none() && answer.status.is_none(), "{answer:?}");
        assert_eq!((answer.members.map(|it| it.len()), answer.series.len()), (Some(0), 3));
        asked.dims.insert("dept".into(), None);
        assert!(one(&service, asked).await?.missing);
    }
    for (wrong, status, told) in [
        (Question { code: "revenu".into(), ..plain() }, 404, "did you mean `revenue`?"),
        (Question { code: "given_up".into(), ..plain() }, 410, "retired"),
        (
            Question { code: "buyers".into(), grain: Some(Grain::Year), ..plain() },
            422,
            "day, week, month, quarter",
        ),
        (Question { by: Some("big".into()), ..plain() }, 422, "dept, channel"),
        (Question { date: Some("2024-02-30".into()), ..plain() }, 400, "2026-11-28"),
        (Question { date: Some("2024-W09".into()), ..plain() }, 400, "2026-W48"),
        (Question { rank: Some("dept".into()), ..plain() }, 400, "dim.dept"),
        (Question { series: 401, ..plain() }, 400, "fewer"),
        (Question { limit: Some(1001), ..plain() }, 400, "fewer"),
    ] {
        let error = one(&service, wrong).await.unwrap_err();
        let hint = base::Fault::hint(&error).unwrap_or_default();
        assert_eq!(error.http_status(), status, "{error}");
        assert!(format!("{error} {hint}").contains(told), "{error} {hint}");
    }
    // One wrong question of many leaves the others answered.
    let many = service.answer(&[plain(), Question { code: "nobody".into(), ..plain() }, plain()]).await;
    assert_eq!(many.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    Ok(())
}

#[tokio::test]
async fn what_is_built_by_another_definition_is_not_answered_from() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    filled(&*engine, sales(50, 30, 1)).await?;
    rollup::build(&*engine, &declared(DECLARED), None, None).await?;
    let changed = DECLARED.replace("expr: \"lower(channel)\"", "expr: \"upper(channel)\"");
    let indicators = Arc::new(declared(&changed));
    let service = Service::new(engine.clone(), indicators.clone(), Arc::new(NoHealth));
    let asked = Question { code: "revenue".into(), ..Question::default() };
    let error = one(&service, asked).await.unwrap_err();
    assert!(error.to_string().contains("another definition"), "{error}");
    // Then a build of a few periods is one of all.
    let built = rollup::build(&*engine, &indicators, None, Some(&[])).await?;
    assert!(built[0].whole);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_while_rollups_are_built_sees_the_old_or_the_new() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    filled(&*engine, sales(300, 60, 5)).await?;
    let indicators = Arc::new(declared(DECLARED));
    rollup::build(&*engine, &indicators, None, None).await?;
    let all = "select count(*) from dws.sales where day >= '2023-12-01' and day < '2024-01-01'";
    let mut counts = vec![number(&*engine, all).await.unwrap()];
    let (done, stopped) = tokio::sync::watch::channel(false);
    let asking = {
        let (engine, indicators) = (engine.clone(), indicators.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !*stopped.borrow() {
                // A service of its own each time: nothing is remembered.
                let service = Service::new(engine.clone(), indicators.clone(), Arc::new(NoHealth));
                let mut asked = question("sales", "2023-12", Grain::Month, &[]);
                asked.by = Some("dept".into());
                let answer = one(&service, asked).await.unwrap();
                seen.push((value_of(&answer).unwrap(), answer.members.unwrap().len()));
            }
            seen
        })
    };
    for seed in 10..16 {
        put(&*engine, sales(30, 60, seed)).await?;
        counts.push(number(&*engine, all).await.unwrap());
        let changed = [Period::named("2023-12").unwrap()];
        rollup::build(&*engine, &indicators, None, (seed % 2 == 0).then_some(&changed[..])).await?;
    }
    done.send(true)?;
    let seen = asking.await?;
    assert!(!seen.is_empty());
    for (value, members) in seen {
        assert!(counts.contains(&value), "{value} is of no build: {counts:?}");
        assert_eq!(members, 6);
    }
    Ok(())
}

#[tokio::test]
async fn a_build_that_was_killed_leaves_the_old_rollups_and_the_next_one_cleans_up() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    filled(&*engine, sales(100, 60, 5)).await?;
    let indicators = declared(DECLARED);
    rollup::build(&*engine, &indicators, None, None).await?;
    let before = contents(&*engine).await?;
    // What a kill leaves: shadows that are half made, and old tables that were not dropped.
    engine.execute("create table rollup.sales__day__new (v int)").await?;
    engine.execute("create table rollup.sales__meta__old (v int)").await?;
    engine.execute("create table rollup.sales__gone (v int)").await?;
    // The build fails in its midst: the facts are not what they were.
    let broken = declared(&DECLARED.replace("agg: min, expr: qty}", "agg: min, expr: quantity}"));
    rollup::build(&*engine, &broken, None, None).await.unwrap_err();
    engine.execute("drop table if exists rollup.sales__day__new").await?;
    engine.execute("drop table if exists rollup.sales__meta__old").await?;
    engine.execute("create table rollup.sales__day__new (v int)").await?;
    let service = Service::new(engine.clone(), Arc::new(declared(DECLARED)), Arc::new(NoHealth));
    assert!(one(&service, question("revenue", "2023-12", Grain::Month, &[])).await.is_ok());
    rollup::build(&*engine, &indicators, None, None).await?;
    assert_eq!(contents(&*engine).await?, before);
    assert!(!engine.tables().await?.contains(&"rollup.sales__gone".to_owned()));
    Ok(())
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = "
semantic_models:
  - {name: Sales, table: dws.sales, dimensions: [], measures: []}
  - {name: timeless, table: dws.sales, dimensions: [{name: dept, type: categorical}], measures: []}
  - name: monthly
    node_relation: {schema_name: dws, alias: months}
    dimensions: [{name: month, type: time, type_params: {time_granularity: month}}, {name: dept, type: categorical, expr: \"dept) from x; drop table y; --\"}]
    measures: [{name: total, agg: sum}, {name: people, agg: count_distinct}]
metrics:
  - {name: daily, type: simple, type_params: {measure: total}, grains: [day]}
  - {name: unknown, type: simple, type_params: {measure: totl}}
  - {name: bare, type: ratio, type_params: {numerator: total}}
  - {name: a, type: derived, type_params: {expr: b + 1, metrics: [{name: b}]}}
  - {name: b, type: derived, type_params: {expr: a + 1, metrics: [{name: a}]}}
  - {name: other, type: simple, type_params: {measure: total}, dimensions: [dep]}
  - {name: people_to_date, type: cumulative, type_params: {measure: people, grain_to_date: year}}
  - {name: window, type: cumulative, type_params: {measure: total, window: 7 hours}}
  - {name: days, type: cumulative, type_params: {measure: total, window: 7 days}, grains: [month]}
  - {name: light, type: simple, type_params: {measure: total}, thresholds: [{status: red, when: valu < 1}]}
  - {name: wrong_expr, type: derived, type_params: {expr: total_of + 1, metrics: [{name: light, alias: x}]}}
  - {name: filtered, type: simple, type_params: {measure: total}, filter: \"1) or (1=1\"}
  - {name: filtered_too, type: simple, type_params: {measure: total}, filter: \"{{ Dimension('nobody') }} = 1\"}
  - {name: daily, type: simple, type_params: {measure: total}}
  - {name: coded, type: simple, type_params: {measure: total}, code: \"a b\"}
  - {name: timed, type: simple, type_params: {measure: total}, targets: [{value: 1, period: 2026-13}]}
";
    let file: IndicatorFile = serde_saphyr::from_str(text).unwrap();
    let mistakes = Indicators::new(&[("indicators/x.yaml".into(), file)]).unwrap_err();
    let told: Vec<String> = mistakes.iter().map(|it| format!("{} | {}", it.message, it.hint)).collect();
    for wanted in [
        "`Sales` is not a name",
        "`timeless` has no dimension of type time",
        "`dept`: the expression",
        "knows each month only | it can have: month, quarter, year",
        "there is no measure `totl` | did you mean `total`?",
        "`bare` is of type ratio and needs `numerator` and `denominator`",
        "derived from itself",
        "there is no dimension `dep` | did you mean `dept`?",
        "`people` counts distinct values",
        "`7 hours` is not a span",
        "`days` needs each day",
        "the condition `valu < 1`",
        "the expression `total_of + 1`",
        "the expression `1) or (1=1` is not understood",
        "names no dimension of `monthly`",
        "there are two metrics `daily`",
        "`a b` cannot be a code",
        "`2026-13` is not a period",
    ] {
        assert!(told.iter().any(|it| it.contains(wanted)), "{wanted}\n{told:#?}");
    }
    assert!(
        serde_saphyr::from_str::<IndicatorFile>(
            "metrics: [{name: a, type: simple, type_params: {}, unitt: x}]"
        )
        .is_err()
    );
}

#[tokio::test]
async fn a_query_of_cubes_shape_is_answered_as_plain_sql_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engine = sqlite(folder.path()).await;
    filled(&*engine, sales(2000, 300, 11)).await?;
    let indicators = Arc::new(declared(DECLARED));
    rollup::build(&*engine, &indicators, None, None).await?;
    let service = Service::new(engine.clone(), indicators, Arc::new(NoHealth));
    let load = async |query: serde_json::Value| {
        let query = serde_json::from_value(query).unwrap();
        service.load(&query).await
    };
    let month = "date_format(day, '%Y-%m-01')";
    let months = format!(
        "select concat({month}, 'T00:00:00.000') as m, lower(channel) as c, sum(amount) as s, count(*) as n from dws.sales \
         where day >= '2024-01-15' and day < '2024-04-11' and dept in ('north', '北%区_') and lower(channel) like '%e%' \
         group by {month}, lower(channel) having count(*) >= 3 order by m, n desc, c"
    );
    for (query, sql, members) in [
        (
            serde_json::json!({
                "measures": ["sales.revenue", "sales.sales"], "dimensions": ["sales.channel"],
                "timeDimensions": [{"dimension": "sales.day", "granularity": "month", "dateRange": ["2024-01-15", "2024-04-10"]}],
                "filters": [{"member": "sales.dept", "operator": "equals", "values": ["north", "北%区_"]},
                            {"member": "sales.channel", "operator": "contains", "values": ["e"]},
                            {"member": "sales.sales", "operator": "gte", "values": ["3"]}],
                "order": [["sales.day", "asc"], ["sales.sales", "desc"], ["sales.channel", "asc"]],
            }),
            months.as_str(),
            ["sales.day.month", "sales.channel", "sales.revenue", "sales.sales"].as_slice(),
        ),
        (
            serde_json::json!({"measures": ["sales.revenue"], "dimensions": ["sales.dept"], "order": {"sales.revenue": "asc"}, "limit": 3, "offset": 1,
                "filters": [{"member": "sales.dept", "operator": "set"}]}),
            "select dept, sum(amount) as s from dws.sales where dept is not null group by dept order by s limit 3 offset 1",
            &["sales.dept", "sales.revenue"],
        ),
        (
            serde_json::json!({"measures": ["sales.sales"], "filters": [{"member": "sales.dept", "operator": "notEquals", "values": ["north"]}]}),
            "select count(*) from dws.sales where dept is null or dept <> 'north'",
            &["sales.sales"],
        ),
        (
            serde_json::json!({"measures": ["sales.buyers"], "dimensions": ["sales.dept"], "order": {"sales.dept": "asc"},
                "timeDimensions": [{"dimension": "sales.day", "granularity": "quarter", "dateRange": ["2024-01-01", "2024-03-31"]}],
                "filters": [{"member": "sales.dept", "operator": "startsWith", "values": ["北%", "n"]}]}),
            "select dept, count(distinct customer) as n from dws.sales where day >= '2024-01-01' and day < '2024-04-01' and dept in ('north', '北%区_') \
             group by dept order by dept",
            &["sales.dept", "sales.buyers"],
        ),
    ] {
        let loaded = load(query.clone()).await?;
        let rows = engine.query(sql).await?;
        let columns = rows.columns.clone();
        let wanted: Vec<Vec<Option<String>>> = rows
            .all(1000)
            .await?
            .iter()
            .map(|row| row.iter().zip(&columns).map(|(value, column)| cell_text(value, column)).collect())
            .collect();
        let told: Vec<Vec<Option<String>>> = loaded
            .data
            .iter()
            .map(|row| members.iter().map(|it| row[*it].as_str().map(str::to_owned)).collect())
            .collect();
        assert!(!wanted.is_empty());
        assert_eq!(told, wanted, "{query}");
    }
    let attack = "' or 1=1 -- ";
    for (query, status) in [
        (serde_json::json!({"measures": []}), 400),
        (serde_json::json!({"measures": [attack]}), 400),
        (serde_json::json!({"measures": ["sales.revenue"], "dimensions": [attack]}), 400),
        (serde_json::json!({"measures": ["sales.revenue"], "dimensions": ["sales.big"]}), 422),
        (serde_json::json!({"measures": ["sales.revenue"], "order": {attack: "asc"}}), 400),
        (
            serde_json::json!({"measures": ["sales.revenue"], "filters": [{"member": "sales.dept", "operator": attack, "values": ["x"]}]}),
            400,
        ),
        (
            serde_json::json!({"measures": ["sales.revenue"], "filters": [{"member": "sales.revenue", "operator": "gt", "values": [attack]}]}),
            400,
        ),
        (
            serde_json::json!({"measures": ["sales.revenue"], "timeDimensions": [{"dimension": "sales.day", "granularity": attack}]}),
            400,
        ),
        (
            serde_json::json!({"measures": ["sales.revenue"], "timeDimensions": [{"dimension": "sales.day", "dateRange": [attack, attack]}]}),
            400,
        ),
        (serde_json::json!({"measures": ["sales.given_up"]}), 410),
        (
            serde_json::json!({"measures": ["sales.buyers"], "filters": [{"member": "sales.dept", "operator": "equals", "values": ["a", "b"]}],
            "timeDimensions": [{"dimension": "sales.day", "granularity": "month"}]}),
            422,
        ),
        (
            serde_json::json!({"measures": ["sales.buyers"], "timeDimensions": [{"dimension": "sales.day", "dateRange": ["2024-01-01", "2024-02-10"]}]}),
            422,
        ),
    ] {
        let error = load(query.clone()).await.unwrap_err();
        assert_eq!(error.http_status(), status, "{query}: {error}");
    }
    let answer = load(serde_json::json!({"measures": ["sales.sales"], "filters": [{"member": "sales.dept", "operator": "contains", "values": [attack, "%", "_"]}]})).await?;
    let wanted = number(&*engine, "select count(*) from dws.sales where dept = '北%区_'").await;
    assert_eq!(answer.data[0]["sales.sales"].as_str(), wanted.as_deref());
    let cubes = service.indicators().cubes();
    assert_eq!(cubes["cubes"][0]["name"], "sales");
    assert_eq!(cubes["cubes"][0]["measures"].as_array().unwrap().len(), 15);
    Ok(())
}
