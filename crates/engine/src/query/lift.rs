//! Takes the leaves out of an expression (columns, aggregates, windows, subqueries, functions of the engine alone), so that
//! what remains is an expression over numbered columns, which `expr` reads by MySQL's own grammar and binds.
//!
//! The parser that reads statements binds some operators as standard SQL does; the text of a tree is the same whichever way
//! it binds, so it is written out again and read by MySQL's rules.

use super::scope::{Env, null};
use super::{Translator, Typed};
use crate::error::EngineError;
use crate::extra;
use crate::types::column_of;
use base::Column;
use expr::kind::BOOL;
use expr::node::{Node, Slot};
use expr::parse::Ast;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, Ident, NullTreatment, ObjectName, Query, Spanned,
    UnaryOperator, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// An expression that is bound, and its leaves.
pub struct Lifted {
    pub node: Node,
    pub leaves: Vec<Typed>,
}

impl Translator<'_> {
    /// An expression as SQL.
    pub fn scalar(&mut self, expr: &Expr, env: &Env<'_>) -> Result<Typed, EngineError> {
        let lifted = self.lift(expr, env)?;
        self.emitted(&lifted.node, &lifted.leaves)
    }

    /// A condition as SQL: 0, 1 or NULL.
    pub fn condition(&mut self, expr: &Expr, env: &Env<'_>) -> Result<String, EngineError> {
        let lifted = self.lift(expr, env)?;
        expr::bind::truth_of(&lifted.node)
            .map_err(|refusal| EngineError::from(refusal).at(expr.span().start))?;
        self.truth(&lifted.node, &lifted.leaves)
    }

    pub fn lift(&mut self, expr: &Expr, env: &Env<'_>) -> Result<Lifted, EngineError> {
        let place = expr.span().start;
        let mut tree = expr.clone();
        let mut lifter = Lifter { translator: self, env, leaves: Vec::new(), texts: Vec::new() };
        if let ControlFlow::Break(error) = tree.visit(&mut lifter) {
            return Err(error.at(place));
        }
        let Lifter { leaves, texts, .. } = lifter;
        let refused = |refusal| EngineError::from(refusal).at(place);
        let mut ast = expr::parse::parse(&tree.to_string()).map_err(refused)?;
        restore(&mut ast, &texts);
        let columns: Vec<Column> =
            leaves.iter().enumerate().map(|(at, leaf)| column_of(&format!("~{at}"), leaf.kind)).collect();
        let columns = columns.iter().enumerate().map(|(at, column)| (Slot::Computed(at), column)).collect();
        let scope = expr::Scope { table: "the statement".into(), columns };
        let node = expr::bind::bind(&ast, &scope).map_err(|refusal| {
            if refusal.message.contains("out of range") {
                return EngineError::sql(1690, refusal.message).at(place);
            }
            refused(refusal)
        })?;
        Ok(Lifted { node, leaves })
    }
}

struct Lifter<'t, 'a, 'e> {
    translator: &'t mut Translator<'a>,
    env: &'e Env<'e>,
    leaves: Vec<Typed>,
    texts: Vec<String>,
}

/// Marks a text that stands in [`Lifter::texts`]: one with signs that are written otherwise inside quotes.
const TEXT: char = '\u{3}';

impl VisitorMut for Lifter<'_, '_, '_> {
    type Break = EngineError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        let place = expr.span().start;
        match self.leaf(expr) {
            Ok(Some(leaf)) => {
                self.leaves.push(leaf);
                let name = format!("~{}", self.leaves.len() - 1);
                *expr = Expr::Identifier(Ident::with_quote('`', name));
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error.at(place)),
        }
    }
}

impl Lifter<'_, '_, '_> {
    /// What stands for an expression as a whole; `None` when its parts are looked at.
    fn leaf(&mut self, expr: &mut Expr) -> Result<Option<Typed>, EngineError> {
        if let Some(typed) = self.group(expr) {
            return Ok(Some(typed));
        }
        match expr {
            Expr::Identifier(name) if name.value.starts_with('~') => Ok(None),
            Expr::Identifier(name) => self.named(&name.value.clone()),
            Expr::CompoundIdentifier(parts) => {
                let (table, name) = match parts.as_slice() {
                    [.., table, name] => (table.value.as_str(), name.value.as_str()),
                    _ => return Ok(None),
                };
                self.column(Some(table), name).map(Some)
            }
            Expr::Value(value) => {
                if let Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) = &mut value.value
                    && text.contains(['\'', '"', '\\', TEXT])
                {
                    self.texts.push(std::mem::replace(text, format!("{TEXT}{}", self.texts.len())));
                }
                Ok(None)
            }
            Expr::Subquery(query) => self.subquery(query).map(Some),
            Expr::Exists { subquery, negated } => {
                let inner = self.inner(subquery)?;
                let not = if *negated { "NOT " } else { "" };
                Ok(Some(Typed { sql: format!("({not}EXISTS ({}))", inner.sql), kind: BOOL }))
            }
            Expr::InSubquery { expr: value, subquery, negated } => {
                self.in_subquery(value, subquery, *negated).map(Some)
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => match &mut **right {
                Expr::Subquery(query) => self.in_subquery(left, query, false).map(Some),
                _ => Ok(None),
            },
            Expr::AllOp { .. } | Expr::AnyOp { .. } => Err(EngineError::refused(
                "ALL and ANY are not supported",
                "compare with MIN or MAX of the query",
            )),
            Expr::Function(function) => self.function(function),
            _ => Ok(None),
        }
    }

    /// A term of GROUP BY.
    fn group(&self, expr: &Expr) -> Option<Typed> {
        let grouping = self.env.grouping?;
        if matches!(expr, Expr::Value(_)) {
            return None;
        }
        let text = canonical(expr, self.env);
        let at = grouping.terms.iter().position(|group| group.text == text)?;
        let group = &grouping.terms[at];
        Some(if at < grouping.kept { group.typed.clone() } else { null(group.typed.kind) })
    }

    /// A bare name: a column, or a name that SELECT gives.
    fn named(&mut self, name: &str) -> Result<Option<Typed>, EngineError> {
        let given = self.env.names.and_then(|(names, first)| {
            let given = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            given.map(|(_, expr)| (expr.clone(), first))
        });
        let here = self.env.scope.find(None, name);
        if let Some((expr, first)) = given
            && (first || !matches!(here, Ok(Some(_))))
        {
            let env = Env { names: None, ..*self.env };
            return self.translator.scalar(&expr, &env).map(Some);
        }
        self.column(None, name).map(Some)
    }

    fn column(&mut self, table: Option<&str>, name: &str) -> Result<Typed, EngineError> {
        let (typed, place) = self.env.scope.resolve(table, name)?;
        if let (Some(grouping), Some(place)) = (self.env.grouping, place)
            && !grouping.decides(self.env.scope, place)
        {
            return Err(not_grouped(name));
        }
        Ok(typed)
    }

    /// A query inside, which may use only columns that the groups decide.
    fn inner(&mut self, query: &Query) -> Result<super::Translated, EngineError> {
        let scope = self.env.scope;
        let before = scope.take_used();
        let inner = self.translator.query(query, Some(scope), self.env.ctes)?;
        for place in scope.take_used() {
            if let Some(grouping) = self.env.grouping
                && !grouping.decides(scope, place)
            {
                return Err(not_grouped(&scope.column(place).name));
            }
        }
        drop(before);
        Ok(inner)
    }

    fn subquery(&mut self, query: &Query) -> Result<Typed, EngineError> {
        let inner = self.inner(query)?;
        let [column] = inner.columns.as_slice() else {
            return Err(EngineError::sql(1241, "Operand should contain 1 column(s)"));
        };
        let alias = self.translator.alias('q');
        let sql = format!("(SELECT tm_one({alias}.c0) FROM ({}) AS {alias})", inner.sql);
        Ok(Typed { sql, kind: column.kind })
    }

    fn in_subquery(&mut self, value: &Expr, query: &Query, negated: bool) -> Result<Typed, EngineError> {
        if query.limit_clause.is_some() {
            return Err(EngineError::refused(
                "LIMIT in a query of IN: MySQL has none",
                "name the query in FROM",
            ));
        }
        if let Expr::Tuple(_) = value {
            return Err(EngineError::refused("row values are not supported", "use EXISTS, or join"));
        }
        if !is_operand(value) {
            return Err(EngineError::refused(
                "an operator before IN or = ANY that binds as the server does not everywhere",
                "put parentheses: (a = b) IN (…), or a = (b IN (…))",
            ));
        }
        let left = self.translator.scalar(value, self.env)?;
        let inner = self.inner(query)?;
        let [column] = inner.columns.as_slice() else {
            return Err(EngineError::sql(1241, "Operand should contain 1 column(s)"));
        };
        let alias = self.translator.alias('q');
        let right = Typed { sql: format!("{alias}.c0"), kind: column.kind };
        let (left, right) = self.translator.aligned(left, right)?;
        let not = if negated { "NOT " } else { "" };
        let sql =
            format!("({} {not}IN (SELECT {} FROM ({}) AS {alias}))", left.ordered(), right.sql, inner.sql);
        Ok(Typed { sql, kind: BOOL })
    }

    fn function(&mut self, function: &Function) -> Result<Option<Typed>, EngineError> {
        let name = function_name(&function.name);
        refuse_clauses(&name, function)?;
        if function.over.is_some() {
            if self.env.windows.is_none() {
                let text = format!("You cannot use the window function '{name}' in this context.");
                return Err(EngineError::sql(3593, text));
            }
            return self.translator.window(&name, function, self.env).map(Some);
        }
        if super::aggregate::is_aggregate(&name) {
            if self.env.grouping.is_none() {
                return Err(EngineError::sql(1111, "Invalid use of group function"));
            }
            return self.translator.aggregate(&name, function, self.env).map(Some);
        }
        if name == "values" {
            return self.new_row(function).map(Some);
        }
        if name == "grouping" {
            return self.translator.grouping_of(function, self.env).map(Some);
        }
        extra::call(self.translator, &name, function, self.env)
    }
}

impl Lifter<'_, '_, '_> {
    /// `VALUES(a)` of ON DUPLICATE KEY UPDATE: what the row would have had.
    fn new_row(&self, function: &Function) -> Result<Typed, EngineError> {
        let wrong = || EngineError::sql(1064, "VALUES(a) stands in ON DUPLICATE KEY UPDATE");
        let arguments = super::arguments(function)?;
        let [Expr::Identifier(name)] = arguments.as_slice() else { return Err(wrong()) };
        let source = self.env.scope.sources.iter().find(|it| it.alias == "excluded").ok_or_else(wrong)?;
        let column = source.columns.iter().find(|it| it.name.eq_ignore_ascii_case(&name.value));
        let unknown = || EngineError::sql(1054, format!("Unknown column '{}'", name.value));
        column.map(|it| it.typed.clone()).ok_or_else(unknown)
    }
}

/// What binds closer than IN by every grammar: names, values, calls, what is in parentheses, and arithmetic over these.
fn is_operand(expr: &Expr) -> bool {
    use BinaryOperator as B;
    match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Value(_)
        | Expr::TypedString(_)
        | Expr::Nested(_)
        | Expr::Function(_)
        | Expr::Cast { .. }
        | Expr::Case { .. }
        | Expr::Interval(_)
        | Expr::Subquery(_)
        | Expr::Substring { .. }
        | Expr::Trim { .. }
        | Expr::Extract { .. }
        | Expr::Position { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. } => true,
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_operand(expr),
        Expr::BinaryOp {
            left,
            op: B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo | B::MyIntegerDivide,
            right,
        } => is_operand(left) && is_operand(right),
        _ => false,
    }
}

/// Clauses that MySQL's functions do not have.
fn refuse_clauses(name: &str, function: &Function) -> Result<(), EngineError> {
    let refused =
        |what: &str| Err(EngineError::sql(1064, format!("MySQL has no {what} in {}", name.to_uppercase())));
    if function.filter.is_some() {
        return refused("FILTER");
    }
    if !function.within_group.is_empty() {
        return refused("WITHIN GROUP");
    }
    if function.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return Err(EngineError::sql(1235, "MySQL and TiDB do not yet support IGNORE NULLS"));
    }
    if !matches!(function.parameters, FunctionArguments::None) {
        return refused("a second list of arguments");
    }
    if let FunctionArguments::List(list) = &function.args
        && name != "group_concat"
        && let Some(clause) = list.clauses.first()
    {
        return refused(&format!("`{clause}`"));
    }
    Ok(())
}

pub fn not_grouped(name: &str) -> EngineError {
    EngineError::sql(
        1055,
        format!("'{name}' is not in GROUP BY, and no column there decides it (only_full_group_by)"),
    )
}

/// The last part of a function's name, in lower case.
pub fn function_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|it| it.value.to_lowercase()).unwrap_or_default()
}

/// An expression with columns by their places and functions in lower case, so that equal ones look the same.
pub fn canonical(expr: &Expr, env: &Env<'_>) -> String {
    struct Places<'e>(&'e Env<'e>);
    impl VisitorMut for Places<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let found = match expr {
                Expr::Identifier(name) => self.0.scope.find(None, &name.value),
                Expr::CompoundIdentifier(parts) if parts.len() > 1 => {
                    let [.., table, name] = parts.as_slice() else { return ControlFlow::Continue(()) };
                    self.0.scope.find(Some(&table.value), &name.value)
                }
                Expr::Function(function) => {
                    let name = function_name(&function.name);
                    function.name = ObjectName::from(vec![Ident::new(name)]);
                    return ControlFlow::Continue(());
                }
                _ => return ControlFlow::Continue(()),
            };
            if let Ok(Some(place)) = found {
                *expr = super::scope::place(place);
            }
            ControlFlow::Continue(())
        }
    }
    let mut tree = expr.clone();
    while let Expr::Nested(inner) = tree {
        tree = *inner;
    }
    let _ = tree.visit(&mut Places(env));
    tree.to_string()
}

/// Puts texts back that were taken out.
fn restore(ast: &mut Ast, texts: &[String]) {
    let each = |ast: &mut Ast| restore(ast, texts);
    match ast {
        Ast::Text(text) => {
            if let Some(original) =
                text.strip_prefix(TEXT).and_then(|at| at.parse::<usize>().ok()).and_then(|at| texts.get(at))
            {
                text.clone_from(original);
            }
        }
        Ast::Neg(a) | Ast::Not(a) | Ast::BitNot(a) | Ast::Cast(a, _) | Ast::Collate(a, _) => each(a),
        Ast::Is { value, .. } | Ast::JsonPath { value, .. } => each(value),
        Ast::Logic(_, all) | Ast::Call(_, all) => all.iter_mut().for_each(each),
        Ast::Arithmetic(_, a, b) | Ast::Bits(_, a, b) | Ast::Compare(_, a, b) => {
            each(a);
            each(b);
        }
        Ast::In { value, list, .. } => {
            each(value);
            list.iter_mut().for_each(each);
        }
        Ast::Between { value, low, high, .. } => {
            each(value);
            each(low);
            each(high);
        }
        Ast::Like { value, pattern, .. } => {
            each(value);
            each(pattern);
        }
        Ast::Case { operand, arms, otherwise } => {
            if let Some(operand) = operand {
                each(operand);
            }
            for (when, then) in arms {
                each(when);
                each(then);
            }
            if let Some(otherwise) = otherwise {
                each(otherwise);
            }
        }
        Ast::AddInterval { value, amount, .. } => {
            each(value);
            each(amount);
        }
        Ast::Trim { value, what, .. } => {
            each(value);
            if let Some(what) = what {
                each(what);
            }
        }
        _ => {}
    }
}
