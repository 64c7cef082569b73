//! Aggregates and windows.

use super::lift::function_name;
use super::scope::Env;
use super::{Translator, Typed, direction};
use crate::aggregates::concat_name;
use crate::error::EngineError;
use expr::kind::{BIGINT, Class, DOUBLE, Kind, LITERAL, unify};
use expr::node::{Node, Op, Reader, Slot};
use expr::parse::CastTo;
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, NamedWindowExpr, OrderByExpr, Query, Value, Visit, Visitor, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use std::ops::ControlFlow;

const AGGREGATES: [&str; 19] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "group_concat",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "bit_and",
    "bit_or",
    "bit_xor",
    "any_value",
    "json_arrayagg",
    "json_objectagg",
];

pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name)
}

/// Whether an expression has an aggregate of its own query.
pub fn has_aggregate(expr: &Expr) -> bool {
    struct Finder(usize);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function)
                    if self.0 == 0
                        && function.over.is_none()
                        && is_aggregate(&function_name(&function.name)) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Finder(0)).is_break()
}

/// The arguments of a call, without `*`.
pub fn arguments(function: &Function) -> Result<Vec<&Expr>, EngineError> {
    let FunctionArguments::List(list) = &function.args else { return Ok(Vec::new()) };
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            _ => Err(EngineError::sql(1064, format!("`{argument}` is no argument of {}", function.name))),
        })
        .collect()
}

fn is_star(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
}

impl Translator<'_> {
    pub fn aggregate(
        &mut self,
        name: &str,
        function: &Function,
        env: &Env<'_>,
    ) -> Result<Typed, EngineError> {
        // What an aggregate reads are rows, not groups.
        let rows = Env { grouping: None, names: None, ..*env };
        self.aggregate_over(name, function, &rows, "")
    }

    /// `over`: the SQL of a window behind it, or nothing.
    fn aggregate_over(
        &mut self,
        name: &str,
        function: &Function,
        env: &Env<'_>,
        over: &str,
    ) -> Result<Typed, EngineError> {
        let FunctionArguments::List(list) = &function.args else {
            return Err(EngineError::sql(1064, format!("{name} wants arguments")));
        };
        let distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
        if distinct && !over.is_empty() {
            return Err(EngineError::refused("DISTINCT in a window", "MySQL has none either"));
        }
        let word = if distinct { "DISTINCT " } else { "" };
        if name == "count" && is_star(function) {
            return Ok(Typed { sql: format!("count(*){over}"), kind: BIGINT });
        }
        let arguments = arguments(function)?;
        if name == "group_concat" {
            if !over.is_empty() {
                return Err(EngineError::sql(1235, "GROUP_CONCAT is no window function"));
            }
            return self.group_concat(&arguments, &list.clauses, word, env);
        }
        if name == "count" && distinct && arguments.len() > 1 {
            return Err(EngineError::refused(
                "COUNT(DISTINCT a, b) is not supported",
                "count the rows of SELECT DISTINCT a, b",
            ));
        }
        let [argument] = arguments.as_slice() else {
            return Err(EngineError::sql(1064, format!("{name} wants one argument")));
        };
        let typed = self.scalar(argument, env)?;
        let of = |function: &str, sql: &str, kind| {
            Ok(Typed { sql: format!("{function}({word}{sql}){over}"), kind })
        };
        match name {
            "count" if distinct => of("count", &typed.ordered(), BIGINT),
            "count" => of("count", &typed.sql, BIGINT),
            "min" | "max" | "any_value" => {
                if typed.kind.class() == Class::Json {
                    return Err(EngineError::refused(
                        "JSON has no least value",
                        "take a text or number of it",
                    ));
                }
                of(if name == "max" { "max" } else { "min" }, &typed.ordered(), typed.kind)
            }
            "sum" | "avg" => {
                let number = self.number(typed)?;
                match (name, number.kind.decimal_size()) {
                    ("sum", Some((precision, scale))) => {
                        of("tm_sum", &number.sql, wide_decimal(u32::from(precision) + 22, scale.into()))
                    }
                    ("avg", Some((precision, scale))) => {
                        let more = (30 - scale).min(4);
                        let kind = wide_decimal(u32::from(precision) + 4, u32::from(scale + more));
                        of(&format!("tm_avg_{more}"), &number.sql, kind)
                    }
                    ("sum", None) => of("tm_sum_real", &number.sql, DOUBLE),
                    _ => of("tm_avg_real", &number.sql, DOUBLE),
                }
            }
            _ if !over.is_empty() => {
                Err(EngineError::refused(format!("{name} over a window is not supported"), "group, and join"))
            }
            "bit_and" | "bit_or" | "bit_xor" => {
                if !matches!(typed.kind.class(), Class::Int | Class::Null) {
                    return Err(EngineError::refused("bits of something else than an integer", "CAST it"));
                }
                of(&format!("tm_{name}"), &typed.sql, Kind::Int { unsigned: true, digits: 20 })
            }
            "json_arrayagg" | "json_objectagg" => Err(EngineError::refused(
                format!("{} is not supported", name.to_uppercase()),
                "use GROUP_CONCAT",
            )),
            _ => {
                let double = self.double(typed)?;
                let sql = match name {
                    "std" | "stddev" | "stddev_pop" => "tm_stddev_pop",
                    "stddev_samp" => "tm_stddev_samp",
                    "var_samp" => "tm_var_samp",
                    _ => "tm_var_pop",
                };
                of(sql, &double.sql, DOUBLE)
            }
        }
    }

    /// As an exact number where it is one, else as a double.
    fn number(&mut self, typed: Typed) -> Result<Typed, EngineError> {
        match typed.kind.class() {
            Class::Int | Class::Decimal | Class::Double | Class::Null => Ok(typed),
            Class::Text => self.double(typed),
            _ => Err(EngineError::refused("a sum of dates, JSON or bytes", "CAST it to a number")),
        }
    }

    fn double(&mut self, typed: Typed) -> Result<Typed, EngineError> {
        if typed.kind == DOUBLE || typed.kind == Kind::Null {
            return Ok(typed);
        }
        self.cast(typed, CastTo::Double, DOUBLE)
    }

    /// `CAST(typed AS to)`, whose kind is given.
    pub fn cast(&mut self, typed: Typed, to: CastTo, kind: Kind) -> Result<Typed, EngineError> {
        let fsp = match typed.kind {
            Kind::Time { fsp } | Kind::DateTime { fsp } => fsp,
            _ => 0,
        };
        let column = Node {
            kind: typed.kind,
            op: Op::Column(Reader { slot: Slot::Computed(0), fsp, labels: [].into() }),
        };
        self.emitted(&Node { kind, op: Op::Cast(to, Box::new(column)) }, &[typed])
    }

    fn group_concat(
        &mut self,
        arguments: &[&Expr],
        clauses: &[FunctionArgumentClause],
        word: &str,
        env: &Env<'_>,
    ) -> Result<Typed, EngineError> {
        let mut separator = ",".to_owned();
        let mut order = String::new();
        for clause in clauses {
            match clause {
                FunctionArgumentClause::Separator(value) => match &value.value {
                    Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
                        separator.clone_from(text)
                    }
                    other => return Err(EngineError::sql(1064, format!("`{other}` is no separator"))),
                },
                FunctionArgumentClause::OrderBy(terms) => {
                    order = format!(" ORDER BY {}", self.terms(terms, env)?);
                }
                other => {
                    return Err(EngineError::refused(format!("`{other}` in GROUP_CONCAT"), "leave it out"));
                }
            }
        }
        let [argument] = arguments else {
            return Err(EngineError::refused(
                "GROUP_CONCAT of several values",
                "join them with CONCAT first",
            ));
        };
        let typed = self.scalar(argument, env)?;
        let kind = match typed.kind {
            Kind::Text(_) => typed.kind,
            other => Kind::Text(expr::kind::TextKind { ..other.as_text()? }),
        };
        let text = match typed.kind {
            Kind::Text(_) => typed,
            _ => self.cast(typed, CastTo::Char(None), Kind::Text(LITERAL))?,
        };
        if !word.is_empty() && !order.is_empty() && !order.contains(&text.sql) {
            return Err(EngineError::refused(
                "GROUP_CONCAT(DISTINCT …) in the order of something else",
                "order by the same value",
            ));
        }
        let sql = format!("{}({word}{}{order})", concat_name(&separator), text.ordered());
        self.separators.insert(separator);
        Ok(Typed { sql, kind })
    }

    fn terms(&mut self, terms: &[OrderByExpr], env: &Env<'_>) -> Result<String, EngineError> {
        let mut all = Vec::with_capacity(terms.len());
        for term in terms {
            all.push(direction(self.scalar(&term.expr, env)?.ordered(), term)?);
        }
        Ok(all.join(", "))
    }

    /// `GROUPING(a)`: whether a is rolled up in this row.
    pub fn grouping_of(&mut self, function: &Function, env: &Env<'_>) -> Result<Typed, EngineError> {
        let wrong = || EngineError::sql(1111, "GROUPING wants a term of GROUP BY … WITH ROLLUP");
        let grouping = env.grouping.filter(|it| it.rollup).ok_or_else(wrong)?;
        let mut number = 0;
        for argument in arguments(function)? {
            let text = super::lift::canonical(argument, env);
            let at = grouping.terms.iter().position(|it| it.text == text).ok_or_else(wrong)?;
            number = number * 2 + i64::from(at >= grouping.kept);
        }
        Ok(Typed { sql: number.to_string(), kind: BIGINT })
    }

    /// A call with OVER.
    pub fn window(&mut self, name: &str, function: &Function, env: &Env<'_>) -> Result<Typed, EngineError> {
        let over = format!(" OVER ({})", self.window_spec(function.over.as_ref(), env)?);
        if is_aggregate(name) {
            return self.aggregate_over(name, function, env, &over);
        }
        let arguments = arguments(function)?;
        let of = |sql: String, kind| Ok(Typed { sql: format!("{sql}{over}"), kind });
        match (name, arguments.as_slice()) {
            ("row_number" | "rank" | "dense_rank", []) => of(format!("{name}()"), BIGINT),
            ("percent_rank" | "cume_dist", []) => of(format!("{name}()"), DOUBLE),
            ("ntile", [count]) => of(format!("ntile({})", whole(count)?), BIGINT),
            ("first_value" | "last_value", [value]) => {
                let value = self.scalar(value, env)?;
                of(format!("{name}({})", value.sql), value.kind)
            }
            ("nth_value", [value, count]) => {
                let value = self.scalar(value, env)?;
                of(format!("nth_value({}, {})", value.sql, whole(count)?), value.kind)
            }
            ("lag" | "lead", [value, rest @ ..]) if rest.len() < 3 => {
                let mut value = self.scalar(value, env)?;
                let count = rest.first().map_or(Ok(1), |it| whole(it))?;
                let Some(default) = rest.get(1) else {
                    return of(format!("{name}({}, {count})", value.sql), value.kind);
                };
                let default = self.scalar(default, env)?;
                let kind = unify(&[value.kind, default.kind])?;
                value = self.converted(value, kind)?;
                let default = self.converted(default, kind)?;
                of(format!("{name}({}, {count}, {})", value.sql, default.sql), kind)
            }
            _ => Err(EngineError::refused(
                format!(
                    "there is no window function {} of {} arguments",
                    name.to_uppercase(),
                    arguments.len()
                ),
                "ROW_NUMBER, RANK, DENSE_RANK, NTILE, LAG, LEAD, FIRST_VALUE, LAST_VALUE, NTH_VALUE and aggregates are",
            )),
        }
    }

    fn window_spec(&mut self, over: Option<&WindowType>, env: &Env<'_>) -> Result<String, EngineError> {
        let unknown = |name: &str| EngineError::sql(3579, format!("Window name '{name}' is not defined"));
        let spec: &WindowSpec = match over {
            Some(WindowType::WindowSpec(spec)) => spec,
            Some(WindowType::NamedWindow(name)) => {
                let windows = env.windows.unwrap_or_default();
                let found = windows.iter().find(|it| it.0.value.eq_ignore_ascii_case(&name.value));
                match found.map(|it| &it.1) {
                    Some(NamedWindowExpr::WindowSpec(spec)) => spec,
                    _ => return Err(unknown(&name.value)),
                }
            }
            None => return Err(unknown("")),
        };
        if spec.window_name.is_some() {
            return Err(EngineError::refused("a window that extends another", "write its parts out"));
        }
        let mut parts = Vec::new();
        if !spec.partition_by.is_empty() {
            let mut terms = Vec::new();
            for term in &spec.partition_by {
                terms.push(self.scalar(term, env)?.ordered());
            }
            parts.push(format!("PARTITION BY {}", terms.join(", ")));
        }
        if !spec.order_by.is_empty() {
            parts.push(format!("ORDER BY {}", self.terms(&spec.order_by, env)?));
        }
        if let Some(frame) = &spec.window_frame {
            parts.push(frame_sql(frame)?);
        }
        Ok(parts.join(" "))
    }
}

/// Results are kept in the wide form, whatever their size.
fn wide_decimal(precision: u32, scale: u32) -> Kind {
    Kind::decimal(precision.max(u32::from(crate::types::NARROW_DIGITS) + 1), scale)
}

fn whole(expr: &Expr) -> Result<u64, EngineError> {
    let number = match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        _ => None,
    };
    number.ok_or_else(|| EngineError::refused(format!("`{expr}` is not a whole number"), "write a literal"))
}

fn frame_sql(frame: &WindowFrame) -> Result<String, EngineError> {
    let units = match frame.units {
        WindowFrameUnits::Rows => "ROWS",
        WindowFrameUnits::Range => "RANGE",
        WindowFrameUnits::Groups => return Err(EngineError::sql(1235, "MySQL has no GROUPS")),
    };
    let bound = |bound: &WindowFrameBound| {
        Ok(match bound {
            WindowFrameBound::CurrentRow => "CURRENT ROW".to_owned(),
            WindowFrameBound::Preceding(None) => "UNBOUNDED PRECEDING".to_owned(),
            WindowFrameBound::Following(None) => "UNBOUNDED FOLLOWING".to_owned(),
            _ if units == "RANGE" => {
                return Err(EngineError::refused("a RANGE of values", "use ROWS, or join by the range"));
            }
            WindowFrameBound::Preceding(Some(count)) => format!("{} PRECEDING", whole(count)?),
            WindowFrameBound::Following(Some(count)) => format!("{} FOLLOWING", whole(count)?),
        })
    };
    let start = bound(&frame.start_bound)?;
    Ok(match &frame.end_bound {
        Some(end) => format!("{units} BETWEEN {start} AND {}", bound(end)?),
        None => format!("{units} {start}"),
    })
}
