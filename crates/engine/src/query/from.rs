//! FROM: tables, queries and how they are joined.

use super::scope::{Env, Scope, Source, place, quoted};
use super::{Cte, Translator, renamed};
use crate::error::EngineError;
use crate::parse::parsed_query;
use sqlparser::ast::{
    BinaryOperator, Expr, JoinConstraint, JoinOperator, ObjectName, Spanned, TableFactor, TableWithJoins,
};

/// The name of a table as it is kept: `db.table`, or `table` of the project's own.
pub fn table_name(name: &ObjectName) -> String {
    let parts: Vec<&str> =
        name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
    parts.join(".")
}

/// The last part, by which a statement calls a table that has no alias.
fn short_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|it| it.value.clone()).unwrap_or_default()
}

impl Translator<'_> {
    /// The tables of FROM with what joins them; empty without FROM.
    pub fn from<'o>(
        &mut self,
        tables: &[TableWithJoins],
        outer: Option<&'o Scope<'o>>,
        ctes: &[Cte],
    ) -> Result<(Scope<'o>, String), EngineError> {
        let mut scope = Scope::new(outer);
        let mut sql = String::new();
        for (index, table) in tables.iter().enumerate() {
            let right =
                |it: &JoinOperator| matches!(it, JoinOperator::Right(_) | JoinOperator::RightOuter(_));
            if index > 0 && table.joins.iter().any(|join| right(&join.join_operator)) {
                return Err(EngineError::refused(
                    "RIGHT JOIN behind a comma",
                    "write CROSS JOIN or LEFT JOIN",
                ));
            }
            if index > 0 {
                sql.push_str(" CROSS JOIN ");
            }
            self.joined(table, &mut scope, &mut sql, ctes)?;
        }
        Ok((scope, sql))
    }

    fn joined(
        &mut self,
        table: &TableWithJoins,
        scope: &mut Scope<'_>,
        sql: &mut String,
        ctes: &[Cte],
    ) -> Result<(), EngineError> {
        let first = (scope.sources.len(), scope.star.len());
        self.factor(&table.relation, scope, sql, ctes)?;
        for join in &table.joins {
            use JoinOperator as J;
            let (word, constraint) = match &join.join_operator {
                J::Join(on) | J::Inner(on) | J::CrossJoin(on) | J::StraightJoin(on) => ("JOIN", on),
                J::Left(on) | J::LeftOuter(on) => ("LEFT JOIN", on),
                J::Right(on) | J::RightOuter(on) => ("RIGHT JOIN", on),
                _ => {
                    return Err(EngineError::refused(
                        "this join is not MySQL's",
                        "use JOIN, LEFT JOIN, RIGHT JOIN or CROSS JOIN",
                    ));
                }
            };
            let star = scope.star.len();
            sql.push_str(&format!(" {word} "));
            self.factor(&join.relation, scope, sql, ctes)?;
            let outer = word != "JOIN";
            scope.first = first.0;
            let on = self.join_condition(constraint, scope, first.1, star, word == "RIGHT JOIN", ctes)?;
            scope.first = 0;
            match on {
                Some(on) => sql.push_str(&format!(" ON {on}")),
                None if outer => return Err(EngineError::sql(1064, "an outer join wants ON or USING")),
                None => {}
            }
        }
        Ok(())
    }

    /// The condition of a join whose left side begins at place `first` of `*`, and its right side at `star`.
    fn join_condition(
        &mut self,
        constraint: &JoinConstraint,
        scope: &mut Scope<'_>,
        first: usize,
        star: usize,
        right: bool,
        ctes: &[Cte],
    ) -> Result<Option<String>, EngineError> {
        let names = match constraint {
            JoinConstraint::None => return Ok(None),
            JoinConstraint::On(on) => {
                return self.condition(on, &Env::rows(scope, ctes)).map(Some);
            }
            JoinConstraint::Using(names) => names.iter().map(short_name).collect(),
            JoinConstraint::Natural => common_names(scope, first, star),
        };
        let mut conditions = Vec::new();
        let mut merged = Vec::new();
        for name in &names {
            let find = |range: &[(usize, usize)]| {
                let named = |at: &(usize, usize)| scope.column(*at).name.eq_ignore_ascii_case(name);
                let mut found = range.iter().copied().filter(named);
                match (found.next(), found.next()) {
                    (Some(at), None) => Ok(at),
                    (None, _) => Err(EngineError::sql(1054, format!("Unknown column '{name}' in USING"))),
                    _ => Err(EngineError::sql(1052, format!("Column '{name}' in USING is ambiguous"))),
                }
            };
            let (left, twin) = (find(&scope.star[first..star])?, find(&scope.star[star..])?);
            let equal = Expr::BinaryOp {
                left: Box::new(place(left)),
                op: BinaryOperator::Eq,
                right: Box::new(place(twin)),
            };
            conditions.push(self.condition(&equal, &Env::rows(scope, ctes))?);
            merged.push(if right { (twin, left) } else { (left, twin) });
        }
        for (_, hidden) in &merged {
            scope.sources[hidden.0].columns[hidden.1].merged = true;
        }
        let is_merged = |at: &(usize, usize)| merged.iter().any(|(kept, hidden)| at == kept || at == hidden);
        let (mut one, mut other): (Vec<_>, Vec<_>) =
            (scope.star[first..star].to_vec(), scope.star[star..].to_vec());
        if right {
            std::mem::swap(&mut one, &mut other);
        }
        scope.star.truncate(first);
        scope.star.extend(merged.iter().map(|(kept, _)| *kept));
        scope.star.extend(one.into_iter().chain(other).filter(|at| !is_merged(at)));
        Ok((!conditions.is_empty()).then(|| conditions.join(" AND ")))
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        scope: &mut Scope<'_>,
        sql: &mut String,
        ctes: &[Cte],
    ) -> Result<(), EngineError> {
        match factor {
            TableFactor::Table {
                name, alias, args: None, version: None, partitions, sample: None, ..
            } if partitions.is_empty() => {
                let full = table_name(name);
                let called = alias.as_ref().map_or_else(|| short_name(name), |it| it.name.value.clone());
                let cte = ctes.iter().rev().find(|cte| cte.name.eq_ignore_ascii_case(&full));
                let alias = self.alias('t');
                let source = match cte {
                    Some(cte) => {
                        sql.push_str(&format!("{} AS {alias}", cte.alias));
                        Source::derived(&called, &alias, &cte.columns)
                    }
                    None => {
                        let found = if self.views > 0 {
                            self.tables.whole(&full)?
                        } else {
                            self.tables.table(&full)?
                        };
                        let table = found.ok_or_else(|| {
                            EngineError::sql(1146, format!("Table '{full}' doesn't exist"))
                                .at(name.span().start)
                        })?;
                        match &table.view {
                            None => {
                                sql.push_str(&format!("{} AS {alias}", quoted(&table.name)));
                                Source::table(&called, &alias, &table)
                            }
                            Some(text) => {
                                self.views += 1;
                                let inner = self.query(&*parsed_query(text)?, None, &[])?;
                                self.views -= 1;
                                sql.push_str(&format!("({}) AS {alias}", inner.sql));
                                Source::derived(&called, &alias, &inner.columns)
                            }
                        }
                    }
                };
                scope.add(source).map_err(|error| error.at(name.span().start))
            }
            TableFactor::Derived { lateral: false, subquery, alias, .. } => {
                let Some(alias) = alias else {
                    return Err(EngineError::sql(1248, "Every derived table must have its own alias"));
                };
                let inner = self.query(subquery, None, ctes)?;
                let columns = renamed(inner.columns, alias)?;
                let own = self.alias('t');
                sql.push_str(&format!("({}) AS {own}", inner.sql));
                scope.add(Source::derived(&alias.name.value, &own, &columns))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let plain = table_with_joins.joins.iter().all(|join| {
                    matches!(
                        join.join_operator,
                        JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
                    )
                });
                if !plain || !sql.is_empty() {
                    return Err(EngineError::refused(
                        "a join in parentheses",
                        "write the joins one behind the other, or name a query in WITH",
                    ));
                }
                self.joined(table_with_joins, scope, sql, ctes)
            }
            other => Err(EngineError::refused(
                "this kind of table is not supported",
                "use tables, queries in parentheses and names of WITH",
            )
            .at(other.span().start)),
        }
    }
}

/// Names that both sides of a join have, in the order of the left.
fn common_names(scope: &Scope<'_>, first: usize, star: usize) -> Vec<String> {
    let name = |at: &(usize, usize)| scope.column(*at).name.clone();
    let right: Vec<String> = scope.star[star..].iter().map(name).collect();
    let common = |left: &String| right.iter().any(|it| it.eq_ignore_ascii_case(left));
    scope.star[first..star].iter().map(name).filter(common).collect()
}
