//! UNION, EXCEPT and INTERSECT, and queries that call themselves.

use super::scope::Scope;
use super::{Cte, OutColumn, Translated, Translator, Typed, column_names, renamed};
use crate::error::EngineError;
use expr::kind::{Kind, unify};
use sqlparser::ast::{
    Query, Select, SetExpr, SetOperator, SetQuantifier, TableAlias, TableFactor, TableWithJoins,
};

/// The parts of a recursive query: what it begins with, what it repeats, and whether equal rows are kept.
pub struct Recursion<'q> {
    anchor: &'q SetExpr,
    step: &'q Select,
    all: bool,
}

/// The parts, where a query calls itself by `name`.
pub fn recursion<'q>(query: &'q Query, name: &str) -> Option<Recursion<'q>> {
    let SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right } = &*query.body else {
        return None;
    };
    let SetExpr::Select(step) = &**right else { return None };
    let calls = |factor: &TableFactor| match factor {
        TableFactor::Table { name: table, .. } => super::from::table_name(table).eq_ignore_ascii_case(name),
        _ => false,
    };
    let joined =
        |it: &TableWithJoins| calls(&it.relation) || it.joins.iter().any(|join| calls(&join.relation));
    let plain = query.order_by.is_none() && query.limit_clause.is_none() && query.with.is_none();
    (plain && step.from.iter().any(joined)).then(|| Recursion {
        anchor: left,
        step,
        all: *set_quantifier == SetQuantifier::All,
    })
}

impl Translator<'_> {
    pub fn set_expr(
        &mut self,
        body: &SetExpr,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<Translated, EngineError> {
        match body {
            SetExpr::Select(select) => self.select(select, &[], "", outer, ctes, None),
            SetExpr::Query(query) => self.query(query, outer, ctes),
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::None | SetQuantifier::Distinct => false,
                    _ => return Err(EngineError::sql(1064, "MySQL has no UNION BY NAME")),
                };
                let left = self.set_expr(left, outer, ctes)?;
                let right = self.set_expr(right, outer, ctes)?;
                let word = match (op, all) {
                    (SetOperator::Union, true) => "UNION ALL",
                    (SetOperator::Union, false) => "UNION",
                    (SetOperator::Except, false) => "EXCEPT",
                    (SetOperator::Intersect, false) => "INTERSECT",
                    _ => {
                        return Err(EngineError::refused(
                            format!("{op} ALL is not supported"),
                            "leave ALL out, or count the rows",
                        ));
                    }
                };
                self.combined(left, right, word)
            }
            _ => Err(EngineError::refused("VALUES and TABLE are no queries here", "write SELECT")),
        }
    }

    fn combined(
        &mut self,
        left: Translated,
        right: Translated,
        word: &str,
    ) -> Result<Translated, EngineError> {
        if left.columns.len() != right.columns.len() {
            return Err(EngineError::sql(
                1222,
                "The used SELECT statements have a different number of columns",
            ));
        }
        let mut columns = Vec::with_capacity(left.columns.len());
        for (one, other) in left.columns.iter().zip(&right.columns) {
            let kind = unify(&[one.kind, other.kind]).map_err(|refusal| {
                EngineError::refused(
                    format!("column `{}` of the two queries: {}", one.name, refusal.message),
                    refusal.hint,
                )
            })?;
            columns.push(OutColumn { name: one.name.clone(), kind, origin: None });
        }
        let left = self.branch(left, &columns)?;
        let right = self.branch(right, &columns)?;
        if word == "UNION" {
            // DISTINCT keeps the first of equal rows, as MySQL does; SQLite's UNION the last.
            let alias = self.alias('q');
            let parts: Vec<String> =
                (0..columns.len()).map(|at| self.distinct_part(&alias, at, &columns)).collect();
            let sql = format!(
                "SELECT DISTINCT {} FROM ({}) AS {alias}",
                parts.join(", "),
                format_args!("{left} UNION ALL {right}")
            );
            return Ok(Translated { sql, columns });
        }
        Ok(Translated { sql: format!("{left} {word} {right}"), columns })
    }

    fn distinct_part(&self, alias: &str, at: usize, columns: &[OutColumn]) -> String {
        let typed = Typed { sql: format!("{alias}.c{at}"), kind: columns[at].kind };
        format!("{} AS c{at}", typed.ordered())
    }

    /// A query as one side of a set operation, its columns of the common kinds.
    fn branch(&mut self, inner: Translated, columns: &[OutColumn]) -> Result<String, EngineError> {
        let alias = self.alias('q');
        let mut parts = Vec::with_capacity(columns.len());
        for (at, (own, common)) in inner.columns.iter().zip(columns).enumerate() {
            let typed = Typed { sql: format!("{alias}.c{at}"), kind: own.kind };
            let typed = self.converted(typed, common.kind)?;
            let sql = if matches!(typed.kind, Kind::Text(_) | Kind::Label(_)) {
                typed.ordered()
            } else {
                typed.sql
            };
            parts.push(format!("{sql} AS c{at}"));
        }
        Ok(format!("SELECT {} FROM ({}) AS {alias}", parts.join(", "), inner.sql))
    }

    pub fn recursive_cte(
        &mut self,
        named: &TableAlias,
        alias: String,
        parts: Recursion<'_>,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<(String, Cte), EngineError> {
        let anchor = self.set_expr(parts.anchor, outer, ctes)?;
        let columns = renamed(anchor.columns.clone(), named)?;
        let kinds: Vec<Kind> = columns.iter().map(|it| it.kind).collect();
        let cte = Cte { name: named.name.value.clone(), alias: alias.clone(), columns };
        let mut around = ctes.to_vec();
        around.push(cte.clone());
        let step = self.select(parts.step, &[], "", outer, &around, Some(&kinds))?;
        if step.columns.len() != kinds.len() {
            return Err(EngineError::sql(
                1222,
                "The used SELECT statements have a different number of columns",
            ));
        }
        let word = if parts.all { "UNION ALL" } else { "UNION" };
        let inner = self.alias('q');
        let sql = format!(
            "{alias}({}) AS (SELECT * FROM ({}) AS {inner} {word} {})",
            column_names(kinds.len()),
            anchor.sql,
            step.sql
        );
        Ok((sql, cte))
    }
}
