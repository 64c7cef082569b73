//! Expressions at random over rows at random: refused, without an answer, or answered, but never a panic.
#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

mod generator;

use base::value::{Date, DateTime};
use base::{Column, ColumnType, Generated, RowBuf, Table, TableName, Value};
use flow::config::FlowConfig;
use flow::transform::Transform;
use generator::expression;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::sync::Arc;

fn columns() -> Vec<(&'static str, ColumnType)> {
    let labels = || vec!["one".to_owned(), "Two".to_owned(), "3".to_owned()];
    vec![
        ("id", ColumnType::BigInt { unsigned: false }),
        ("u", ColumnType::BigInt { unsigned: true }),
        ("price", ColumnType::Decimal { precision: 65, scale: 30 }),
        ("d", ColumnType::Double),
        ("f", ColumnType::Float),
        ("b", ColumnType::Bit { bits: 64 }),
        ("y", ColumnType::Year),
        ("da", ColumnType::Date),
        ("ti", ColumnType::Time { fsp: 6 }),
        ("dt", ColumnType::DateTime { fsp: 6 }),
        ("ts", ColumnType::Timestamp { fsp: 0 }),
        ("c", ColumnType::Text { chars_max: 100 }),
        ("vb", ColumnType::VarBinary { bytes_max: 100 }),
        ("e", ColumnType::Enum { labels: labels() }),
        ("s", ColumnType::Set { labels: labels() }),
        ("j", ColumnType::Json),
        ("v", ColumnType::Vector { dimensions: 1 }),
    ]
}

fn table() -> Arc<Table> {
    let column = |(name, ty): (&str, ColumnType)| Column {
        name: name.into(),
        ty,
        sql_type: String::new(),
        nullable: true,
        charset: None,
        collation: None,
        generated: Generated::No,
        invisible: false,
    };
    Arc::new(Table {
        id: 1,
        version: 1,
        name: TableName::new("shop", "random"),
        columns: columns().into_iter().map(column).collect(),
        key: vec![0],
        unique_keys: vec![],
    })
}

/// Any value of a column, the impossible ones too.
fn value(ty: &ColumnType) -> BoxedStrategy<Value> {
    let date =
        || (0..10_000_u16, 0..13_u8, 0..32_u8).prop_map(|(year, month, day)| Date { year, month, day });
    let datetime = || {
        (date(), 0..24_u8, 0..60_u8, 0..60_u8, 0..1_000_000_u32)
            .prop_map(|(date, hour, minute, second, micro)| DateTime { date, hour, minute, second, micro })
    };
    let some: BoxedStrategy<Value> = match ty {
        ColumnType::BigInt { unsigned: false } => any::<i64>().prop_map(Value::Int).boxed(),
        ColumnType::BigInt { .. } => any::<u64>().prop_map(Value::UInt).boxed(),
        ColumnType::Decimal { .. } => "-?[0-9]{0,35}\\.?[0-9]{0,30}".prop_map(Value::Decimal).boxed(),
        ColumnType::Double => any::<f64>().prop_map(Value::Double).boxed(),
        ColumnType::Float => any::<f32>().prop_map(Value::Float).boxed(),
        ColumnType::Bit { .. } => any::<u64>().prop_map(Value::Bit).boxed(),
        ColumnType::Year => any::<u16>().prop_map(Value::Year).boxed(),
        ColumnType::Date => date().prop_map(Value::Date).boxed(),
        ColumnType::Time { .. } => any::<i64>().prop_map(Value::Time).boxed(),
        ColumnType::DateTime { .. } => datetime().prop_map(Value::DateTime).boxed(),
        ColumnType::Timestamp { .. } => (-1_i64 << 55..1 << 55).prop_map(Value::Timestamp).boxed(),
        ColumnType::Text { .. } => prop_oneof![
            any::<String>().prop_map(Value::Text),
            "[0-9:. T+-]{0,30}".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::RawText),
        ]
        .boxed(),
        ColumnType::Enum { .. } => any::<u16>().prop_map(Value::Enum).boxed(),
        ColumnType::Set { .. } => any::<u64>().prop_map(Value::Set).boxed(),
        ColumnType::Json => prop_oneof![
            "[\\[\\]{}\",:0-9a-c\\\\ ]{0,30}".prop_map(Value::Json),
            Just(Value::Json(r#"{"a": [1, {"b": "x"}], "n": 1.5}"#.into())),
        ]
        .boxed(),
        ColumnType::Vector { .. } => any::<Vec<u8>>().prop_map(Value::Vector).boxed(),
        _ => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 6 => some].boxed()
}

fn row() -> impl Strategy<Value = Vec<Value>> {
    columns().iter().map(|(_, ty)| value(ty)).collect::<Vec<_>>()
}

fn answer(text: &str, row: &[Value]) -> bool {
    let step =
        serde_json::json!({"from": "a", "to": "b", "transform": [{"set": {"x": text}}, {"filter": text}]});
    let flow: FlowConfig = serde_json::from_value(step).unwrap();
    let Ok(transform) = Transform::compile(&flow) else { return false };
    let Ok(plan) = transform.plan(&table()) else { return false };
    plan.apply(RowBuf::from_values(row.iter().map(Value::as_ref)).view()).is_ok()
}

fn names() -> Vec<String> {
    columns().iter().map(|(name, _)| (*name).to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_expression_panics(text in expression(names()), row in row()) {
        answer(&text, &row);
    }

    #[test]
    fn no_text_panics(text in "[-a-z0-9'\"`()+*/%<=>!&|^~@., \\\\éß]{0,40}", row in row()) {
        answer(&text, &row);
    }
}

#[test]
fn random_expressions_are_mostly_read_and_often_answered() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut answered = 0;
    for _ in 0..1000 {
        let text = expression(names()).new_tree(&mut runner).unwrap().current();
        let row = row().new_tree(&mut runner).unwrap().current();
        answered += usize::from(answer(&text, &row));
    }
    assert!(answered > 100, "only {answered} of 1000 have answers: the generator tests refusals only");
}
