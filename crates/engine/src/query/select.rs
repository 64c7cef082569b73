//! One SELECT: its rows, groups, roll-up, order.

use super::aggregate::has_aggregate;
use super::lift::canonical;
use super::scope::{Env, Group, Grouping, Scope, place};
use super::{Cte, OutColumn, Translated, Translator, Typed, direction, position};
use crate::error::EngineError;
use crate::parse::ROLLUP;
use expr::kind::Kind;
use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, OrderByExpr, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    Spanned, TableFactor, TableWithJoins, Visit, Visitor,
};
use std::ops::ControlFlow;

/// Expressions of GROUP BY … WITH ROLLUP: each is one more pass over the rows.
const ROLLUP_TERMS_MAX: usize = 8;

impl Translator<'_> {
    /// `targets`: the kinds that the columns are to have, where something else decides them.
    pub fn select(
        &mut self,
        select: &Select,
        order: &[OrderByExpr],
        limit: &str,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
        targets: Option<&[Kind]>,
    ) -> Result<Translated, EngineError> {
        refuse_foreign(select)?;
        // A table of one row without columns is no table.
        let tables = if is_dual(&select.from) { &[][..] } else { &select.from };
        let (scope, from) = self.from(tables, outer, ctes)?;
        let items = items(select, &scope)?;
        let names: Vec<(String, Expr)> =
            items.iter().filter(|it| it.given).map(|it| (it.name.clone(), it.expr.clone())).collect();
        let (terms, rollup) = group_terms(select)?;
        let rows = Env { windows: Some(&select.named_window), ..Env::rows(&scope, ctes) };
        let mut grouping = Grouping { rollup, ..Grouping::default() };
        for term in terms {
            let term = match position(term, items.len())? {
                Some(at) => items[at].expr.clone(),
                None => term.clone(),
            };
            let env = Env { names: Some((&names, false)), ..rows };
            // A name that SELECT gives stands for its expression.
            let given = given(&term, &names, &scope);
            let typed = self.scalar(&given, &env)?;
            let text = canonical(&given, &rows);
            let place = super::lift_place(&given, &scope);
            grouping.terms.push(Group { text, typed, place });
        }
        let having = select.having.as_ref();
        let grouped = !grouping.terms.is_empty()
            || items.iter().any(|it| has_aggregate(&it.expr))
            || having.is_some_and(has_aggregate)
            || order.iter().any(|it| has_aggregate(&it.expr));
        let filter = match &select.selection {
            Some(filter) => format!(" WHERE {}", self.condition(filter, &Env { windows: None, ..rows })?),
            None => String::new(),
        };
        let (filter, having) = match having {
            Some(having) if !grouped && !rollup => {
                (self.having_of_rows(having, filter, &items, &names, &rows)?, None)
            }
            having => (filter, having),
        };
        let distinct = match &select.distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(Distinct::On(_)) => return Err(EngineError::sql(1064, "MySQL has no DISTINCT ON")),
        };
        if rollup {
            if grouping.terms.len() > ROLLUP_TERMS_MAX || distinct {
                return Err(EngineError::refused(
                    "WITH ROLLUP of DISTINCT or of many terms",
                    "write UNION ALL",
                ));
            }
            return self
                .rolled(select, &items, order, limit, grouping, &scope, &rows, &from, &filter, &names);
        }
        grouping.kept = grouping.terms.len();
        let groups = if grouped { Some(&grouping) } else { None };
        let env = Env { grouping: groups, ..rows };
        let mut out = self.outputs(&items, &env, targets)?;
        let tail = self.tail(having, groups, &env, &names)?;
        let mut terms = Vec::new();
        for term in order {
            let typed = match position(&term.expr, items.len())? {
                Some(at) => out[at].clone(),
                None => {
                    // Alone, a name is first what SELECT gives; inside an expression it is first a column.
                    let alone = matches!(term.expr, Expr::Identifier(_));
                    let env = Env { names: Some((&names, alone)), ..env };
                    self.scalar(&term.expr, &env)?
                }
            };
            if distinct && !out.iter().any(|it| it.sql == typed.sql) {
                return Err(EngineError::sql(
                    3065,
                    "ORDER BY has an expression that SELECT DISTINCT has not".to_owned(),
                )
                .at(term.expr.span().start));
            }
            terms.push(direction(typed.ordered(), term)?);
        }
        let order = if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", terms.join(", ")) };
        let columns = columns(&items, &out, Some((&scope, select)));
        let word = if distinct { "SELECT DISTINCT" } else { "SELECT" };
        if distinct {
            out.iter_mut().for_each(|it| it.sql = it.ordered_plain());
        }
        let from = if from.is_empty() { String::new() } else { format!(" FROM {from}") };
        let sql = format!("{word} {}{from}{filter}{tail}{order}{limit}", listed(&out));
        Ok(Translated { sql, columns })
    }

    /// HAVING where nothing is grouped: a condition over what SELECT gives, names of which go before columns.
    fn having_of_rows(
        &mut self,
        having: &Expr,
        filter: String,
        items: &[Item],
        names: &[(String, Expr)],
        rows: &Env<'_>,
    ) -> Result<String, EngineError> {
        if let ControlFlow::Break(error) = having.visit(&mut GivenOnly(items)) {
            return Err(error);
        }
        let env = Env { names: Some((names, true)), windows: None, ..*rows };
        let condition = self.condition(having, &env)?;
        Ok(if filter.is_empty() {
            format!(" WHERE {condition}")
        } else {
            let asked = filter.trim_start_matches(" WHERE ");
            format!(" WHERE ({asked}) AND ({condition})")
        })
    }

    fn outputs(
        &mut self,
        items: &[Item],
        env: &Env<'_>,
        targets: Option<&[Kind]>,
    ) -> Result<Vec<Typed>, EngineError> {
        let mut out = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let typed = self.scalar(&item.expr, env)?;
            out.push(match targets.and_then(|kinds| kinds.get(at)) {
                Some(kind) => self.converted(typed, *kind)?,
                None => typed,
            });
        }
        Ok(out)
    }

    /// GROUP BY and HAVING.
    fn tail(
        &mut self,
        having: Option<&Expr>,
        groups: Option<&Grouping>,
        env: &Env<'_>,
        names: &[(String, Expr)],
    ) -> Result<String, EngineError> {
        let mut sql = String::new();
        if let Some(groups) = groups {
            let terms: Vec<String> =
                groups.terms[..groups.kept].iter().map(|it| it.typed.ordered()).collect();
            if !terms.is_empty() {
                sql = format!(" GROUP BY {}", terms.join(", "));
            }
        }
        let Some(having) = having else { return Ok(sql) };
        let condition =
            self.condition(having, &Env { names: Some((names, false)), windows: None, ..*env })?;
        if groups.is_none() {
            return Err(EngineError::refused("HAVING without groups", "use WHERE").at(having.span().start));
        }
        Ok(format!("{sql} HAVING {condition}"))
    }

    /// GROUP BY … WITH ROLLUP: the groups, then those of one term less, down to one row of all.
    #[expect(clippy::too_many_arguments, reason = "the parts of one SELECT, read already")]
    fn rolled(
        &mut self,
        select: &Select,
        items: &[Item],
        order: &[OrderByExpr],
        limit: &str,
        mut grouping: Grouping,
        scope: &Scope<'_>,
        rows: &Env<'_>,
        from: &str,
        filter: &str,
        names: &[(String, Expr)],
    ) -> Result<Translated, EngineError> {
        let count = grouping.terms.len();
        let mut parts = Vec::new();
        let mut columns_of_all = Vec::new();
        let mut order_kinds = Vec::new();
        for kept in (0..=count).rev() {
            grouping.kept = kept;
            let env = Env { grouping: Some(&grouping), scope, ..*rows };
            let mut out = self.outputs(items, &env, None)?;
            // What is rolled up is NULL, and no table's own.
            columns_of_all = columns(items, &out, None);
            order_kinds.clear();
            for term in order {
                let typed = match position(&term.expr, items.len())? {
                    Some(at) => out[at].clone(),
                    None => {
                        let alone = matches!(term.expr, Expr::Identifier(_));
                        self.scalar(&term.expr, &Env { names: Some((names, alone)), ..env })?
                    }
                };
                order_kinds.push(typed.kind);
                out.push(typed);
            }
            let mut tail = self.tail(select.having.as_ref(), Some(&grouping), &env, names)?;
            if kept == 0 {
                // A total of no rows is no row.
                tail = match tail.strip_prefix(" HAVING ") {
                    Some(having) => format!(" HAVING count(*) > 0 AND ({having})"),
                    None => " HAVING count(*) > 0".to_owned(),
                };
            }
            parts.push(format!("SELECT {} FROM {from}{filter}{tail}", listed(&out)));
        }
        let alias = self.alias('q');
        let shown: Vec<String> = (0..items.len()).map(|at| format!("{alias}.c{at} AS c{at}")).collect();
        let mut terms = Vec::new();
        for (at, (term, kind)) in order.iter().zip(&order_kinds).enumerate() {
            let typed = Typed { sql: format!("{alias}.c{}", items.len() + at), kind: *kind };
            terms.push(direction(typed.ordered(), term)?);
        }
        let order = if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", terms.join(", ")) };
        let sql = format!(
            "SELECT {} FROM ({}) AS {alias}{order}{limit}",
            shown.join(", "),
            parts.join(" UNION ALL ")
        );
        Ok(Translated { sql, columns: columns_of_all })
    }
}

impl Typed {
    /// With its collation, as a column of a result that is made distinct.
    fn ordered_plain(&self) -> String {
        if matches!(self.kind, Kind::Text(_) | Kind::Label(_)) { self.ordered() } else { self.sql.clone() }
    }
}

/// What SELECT gives, in order.
struct Item {
    name: String,
    expr: Expr,
    /// By an alias, so that other clauses may name it.
    given: bool,
}

fn items(select: &Select, scope: &Scope<'_>) -> Result<Vec<Item>, EngineError> {
    let star =
        |at: &(usize, usize)| Item { name: scope.column(*at).name.clone(), expr: place(*at), given: false };
    let mut all = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = match expr {
                    Expr::Identifier(name) => name.value.clone(),
                    Expr::CompoundIdentifier(parts) => {
                        parts.last().map(|it| it.value.clone()).unwrap_or_default()
                    }
                    other => other.to_string(),
                };
                all.push(Item { name, expr: expr.clone(), given: false });
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                all.push(Item { name: alias.value.clone(), expr: expr.clone(), given: true });
            }
            SelectItem::Wildcard(_) if scope.sources.is_empty() => {
                return Err(EngineError::sql(1096, "No tables used"));
            }
            SelectItem::Wildcard(_) => all.extend(scope.star.iter().map(star)),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let table = name.0.last().and_then(|it| it.as_ident()).map(|it| it.value.clone());
                let table = table.unwrap_or_default();
                let source = scope.sources.iter().position(|it| it.name.eq_ignore_ascii_case(&table));
                let Some(source) = source else {
                    return Err(EngineError::sql(1051, format!("Unknown table '{table}'")));
                };
                let count = scope.sources[source].columns.len();
                all.extend((0..count).map(|at| star(&(source, at))));
            }
            other => {
                return Err(
                    EngineError::sql(1064, format!("`{other}` is not MySQL's")).at(other.span().start)
                );
            }
        }
    }
    Ok(all)
}

/// What a SELECT gives; with its tables, also which of their columns that is.
fn columns(items: &[Item], out: &[Typed], tables: Option<(&Scope<'_>, &Select)>) -> Vec<OutColumn> {
    let optional = tables.map_or_else(Vec::new, |(scope, select)| optional(select, scope.sources.len()));
    let origin = |expr: &Expr| {
        let (scope, _) = tables?;
        let place = super::lift_place(expr, scope)?;
        let mut origin = scope.column(place).origin.clone()?;
        origin.column.nullable |= optional.get(place.0).is_none_or(|it| *it);
        Some(origin)
    };
    let column = |(item, typed): (&Item, &Typed)| OutColumn {
        name: item.name.clone(),
        kind: typed.kind,
        origin: origin(&item.expr),
    };
    items.iter().zip(out).map(column).collect()
}

/// Lets names pass that SELECT gives, and no queries.
struct GivenOnly<'i>(&'i [Item]);

impl Visitor for GivenOnly<'_> {
    type Break = EngineError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<EngineError> {
        let error = EngineError::refused("a query in HAVING without groups", "use WHERE");
        ControlFlow::Break(error.at(query.span().start))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<EngineError> {
        let name = match expr {
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(name) => name,
                None => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        if self.0.iter().any(|item| item.name.eq_ignore_ascii_case(&name.value)) {
            return ControlFlow::Continue(());
        }
        let error = EngineError::sql(1054, format!("Unknown column '{}' in 'having clause'", name.value));
        ControlFlow::Break(error.at(name.span.start))
    }
}

/// Of each source of a SELECT, whether an outer join may leave it out.
fn optional(select: &Select, sources: usize) -> Vec<bool> {
    use sqlparser::ast::JoinOperator as J;
    let mut all = Vec::with_capacity(sources);
    for table in &select.from {
        all.push(false);
        for join in &table.joins {
            all.push(matches!(join.join_operator, J::Left(_) | J::LeftOuter(_)));
            if matches!(join.join_operator, J::Right(_) | J::RightOuter(_)) {
                let last = all.len() - 1;
                all[..last].fill(true);
            }
        }
    }
    // Joins in parentheses have more sources than are seen here.
    if all.len() == sources { all } else { vec![true; sources] }
}

/// `e0 AS c0, e1 AS c1`
fn listed(out: &[Typed]) -> String {
    out.iter().enumerate().map(|(at, it)| format!("{} AS c{at}", it.sql)).collect::<Vec<_>>().join(", ")
}

/// A name that SELECT gives and no column has, as the expression it stands for.
fn given(term: &Expr, names: &[(String, Expr)], scope: &Scope<'_>) -> Expr {
    let Expr::Identifier(name) = term else { return term.clone() };
    if matches!(scope.find(None, &name.value), Ok(Some(_))) {
        return term.clone();
    }
    let found = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name.value));
    found.map_or_else(|| term.clone(), |(_, expr)| expr.clone())
}

fn group_terms(select: &Select) -> Result<(&[Expr], bool), EngineError> {
    match &select.group_by {
        GroupByExpr::All(_) => Err(EngineError::sql(1064, "MySQL has no GROUP BY ALL")),
        GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
            Err(EngineError::sql(1064, "MySQL has WITH ROLLUP only"))
        }
        GroupByExpr::Expressions(terms, _) => Ok(match terms.split_last() {
            Some((Expr::Identifier(last), terms)) if last.value == ROLLUP => (terms, true),
            _ => (terms, false),
        }),
    }
}

fn is_dual(tables: &[TableWithJoins]) -> bool {
    let [TableWithJoins { relation: TableFactor::Table { name, alias: None, .. }, joins }] = tables else {
        return false;
    };
    joins.is_empty() && super::table_name(name).eq_ignore_ascii_case("dual")
}

fn refuse_foreign(select: &Select) -> Result<(), EngineError> {
    if select.into.is_some() {
        return Err(EngineError::refused("SELECT … INTO is not supported", "use INSERT … SELECT"));
    }
    let foreign = select.top.is_some()
        || select.prewhere.is_some()
        || select.qualify.is_some()
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty();
    if foreign { Err(EngineError::sql(1064, "a clause of this SELECT is not MySQL's")) } else { Ok(()) }
}
