//! Steps that read foreign texts, with texts that nobody wrote: no panic, whatever comes, and time that grows with the
//! text and no faster.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{Column, ColumnType, Generated, Op, RowBuf, Table, TableName, ValueRef};
use flow::config::FlowConfig;
use flow::transform::process::{GROK_PATTERNS, TEXT_BYTES_MAX};
use flow::transform::{TablePlan, Transform};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Far more than the largest text takes where time is linear, in a build without optimisation on a busy machine; nothing of
/// what it takes where time is quadratic.
const PATIENCE: Duration = Duration::from_secs(10);

fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.into(),
        ty,
        sql_type: "longtext".into(),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    }
}

fn plan(step: &str) -> Result<TablePlan, String> {
    let step: serde_json::Value = serde_saphyr::from_str(step).map_err(|e| e.to_string())?;
    let flow: FlowConfig =
        serde_json::from_value(serde_json::json!({"from": "a", "to": "b", "transform": [step]}))
            .map_err(|e| e.to_string())?;
    let text = || ColumnType::Text { chars_max: 1 << 24 };
    let table = Table {
        id: 1,
        version: 1,
        name: TableName::new("web", "log"),
        columns: vec![column("id", ColumnType::BigInt { unsigned: false }), column("t", text())],
        key: vec![0],
        unique_keys: vec![],
    };
    let compiled = Transform::compile(&flow).map_err(|errors| errors[0].to_string())?;
    compiled.plan(&Arc::new(table)).map_err(|error| error.to_string())
}

/// Whether the step has an answer; it must not panic.
fn answers(plan: &TablePlan, text: &str) -> bool {
    let row = RowBuf::from_values([ValueRef::Int(1), ValueRef::Text(text)]);
    if plan.splits() {
        return plan.apply_split(None, Some(row.view()), Op::Insert).is_ok();
    }
    plan.apply(row.view()).is_ok()
}

const STEPS: [&str; 11] = [
    r#"grok: {column: t, match: ["%{COMBINEDAPACHELOG}", "%{SYSLOGBASE} %{GREEDYDATA:message}", "%{IP:ip}", "%{URI:uri}"]}"#,
    r#"grok: {column: t, match: ["%{TIMESTAMP_ISO8601:at:datetime} %{NUMBER:n:decimal(9,3)} %{INT:i:int}"]}"#,
    r#"dissect: {column: t, pattern: "%{a->} [%{b}] %{c:int}: %{d}"}"#,
    r#"date: {column: t, formats: [ISO8601, UNIX, UNIX_MS]}"#,
    r#"date: {column: t, formats: ["EEE, dd MMM yyyy HH:mm:ss.SSS Z", "d/M/yy h:m a z"], timezone: Asia/Shanghai}"#,
    r#"json: {column: t, columns: {a: {path: "$.a", type: int}, b: {path: "$.b[1].c", type: json}, c: {path: "$.c"}}}"#,
    r#"split: {column: t, separator: ","}"#,
    r#"split: {column: t}"#,
    r#"geo_point: {lat: t, lon: t, into: p}"#,
    r#"user_agent: {column: t}"#,
    r#"date: {column: t, formats: ["yyyy-MM-dd'T'HH:mm:ssZ"], timezone: Europe/Vienna, type: "datetime(6)"}"#,
];

static PLANS: LazyLock<Vec<TablePlan>> =
    LazyLock::new(|| STEPS.iter().map(|step| plan(step).unwrap()).collect());

/// Texts of the pieces that the steps look for, and of anything.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "2026",
        "-",
        "02",
        "30",
        "T",
        ":",
        "24",
        "+",
        "Z",
        "99999999999999999999",
        ".",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        ",",
        " ",
        "\n",
        "ä",
        "𝄞",
        "\0",
        "26/Nov/2026",
        "+0100",
        "GET",
        "HTTP/1.1",
        "203.0.113.7",
        "::",
        "null",
        "\"a\"",
        "-0",
        "1e9",
        "PM",
        "Thu",
        "Firefox/",
        "Android",
        "%",
        "://",
        "<",
    ]);
    let made = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    prop_oneof![3 => made, 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_step_panic(text in texts()) {
        for plan in PLANS.iter() {
            answers(plan, &text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pattern_makes_the_compiler_panic(pattern in texts(), known in prop::sample::select(GROK_PATTERNS.to_vec())) {
        let pattern = format!("{pattern}%{{{}:x:int}}{pattern}", known.0);
        for (step, key) in [("grok", "match"), ("dissect", "pattern"), ("date", "formats")] {
            let value = if step == "dissect" { serde_json::json!(pattern) } else { serde_json::json!([pattern]) };
            let step = serde_json::json!({ step: {"column": "t", key: value} });
            if let Ok(plan) = plan(&step.to_string()) {
                answers(&plan, &pattern);
            }
        }
    }
}

#[test]
fn every_pattern_of_grok_compiles_and_texts_are_bounded() {
    for (name, _) in GROK_PATTERNS {
        let step = serde_json::json!({"grok": {"column": "t", "match": [format!("%{{{name}:x}}")]}});
        assert!(plan(&step.to_string()).is_ok(), "{name}");
    }
    let any = plan(r#"grok: {column: t, match: ["%{GREEDYDATA:x}"]}"#).unwrap();
    assert!(answers(&any, &"x".repeat(TEXT_BYTES_MAX)));
    assert!(!answers(&any, &"x".repeat(TEXT_BYTES_MAX + 1)));
}

#[test]
fn the_largest_text_takes_no_longer_where_engines_that_go_back_would_never_end() {
    let patterns = [
        (r#"grok: {column: t, match: ["^(?:%{WORD}? ?)*!%{WORD:x}$"]}"#, "a"),
        (r#"grok: {column: t, match: ["%{DATA:a}%{DATA:b}%{DATA:c}!%{DATA:d}$"]}"#, "a "),
        (r#"grok: {column: t, match: ["%{COMBINEDAPACHELOG}"]}"#, "1.1.1.1 - - "),
        (r#"grok: {column: t, match: ["^(?:%{GREEDYDATA}x)*%{UNIXPATH:p}!$"]}"#, "/x"),
        (r#"dissect: {column: t, pattern: "%{a->}  %{b->}  !%{c}"}"#, " "),
        (r#"split: {column: t, separator: "!"}"#, "a"),
        (r#"json: {column: t, columns: {a: {path: "$.a"}}}"#, "["),
    ];
    for (step, piece) in patterns {
        let plan = plan(step).unwrap();
        let text = piece.repeat(TEXT_BYTES_MAX / piece.len());
        let began = Instant::now();
        answers(&plan, &text);
        assert!(began.elapsed() < PATIENCE, "{step}: {:?}", began.elapsed());
    }
}
