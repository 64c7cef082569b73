//! Texts of expressions at random.

use flow::transform::function_names;
use proptest::prelude::*;

/// Something an expression is made of.
fn leaf(names: Vec<String>) -> BoxedStrategy<String> {
    let literals = [
        "0",
        "1",
        "-1",
        "2.5",
        "1e10",
        "1e-300",
        "18446744073709551615",
        "'12abc'",
        "''",
        "'%é_'",
        "'2026-01-31'",
        "'10:11:12'",
        "null",
        "true",
        "x'00ff'",
        "date '2026-01-31'",
        "0.000000000000000000000000000001",
        "timestamp '9999-12-31 23:59:59.999999'",
        "time '-838:59:59'",
        "99999999999999999999999999999999999999999999",
        "j->'$.a[1].b'",
        "j->>'$.n'",
    ];
    prop_oneof![
        proptest::sample::select(names),
        proptest::sample::select(literals.map(str::to_owned).to_vec()),
    ]
    .boxed()
}

/// An expression over columns of these names; most have types that go together only by chance.
pub fn expression(columns: Vec<String>) -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = function_names().collect();
    let operators = vec![
        "+", "-", "*", "/", "div", "%", "=", "<>", "<", "<=", ">", ">=", "<=>", "and", "or", "xor", "&", "|",
        "^", "<<", ">>", "like", "not like", "||", "&&",
    ];
    let units = vec!["microsecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"];
    let types = vec![
        "signed",
        "unsigned",
        "char",
        "char(3)",
        "binary",
        "decimal(65,30)",
        "decimal(5,2)",
        "double",
        "date",
        "datetime(6)",
    ];
    leaf(columns).prop_recursive(5, 40, 4, move |inner| {
        let select = |all: &Vec<&'static str>| proptest::sample::select(all.clone());
        prop_oneof![
            (inner.clone(), select(&operators), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (select(&names), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(name, args)| format!("{name}({})", args.join(", "))),
            (inner.clone(), select(&types)).prop_map(|(a, ty)| format!("cast({a} as {ty})")),
            (inner.clone(), inner.clone(), select(&units))
                .prop_map(|(a, n, u)| format!("({a} + interval {n} {u})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} between {b} and {c})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} in ({b}, {c}))")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("case {a} when {b} then {c} else {a} end")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("if({a}, {b}, {c})")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            inner.clone().prop_map(|a| format!("(- {a})")),
            inner.clone().prop_map(|a| format!("(~{a})")),
            inner.prop_map(|a| format!("({a} is not true)")),
        ]
    })
}
