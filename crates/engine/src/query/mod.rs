//! A statement of the dialect → SQLite's SQL, and the programs it calls.
//!
//! SQLite keeps what it is good at: joins, grouping, sorting, windows, indexes. Every expression is MySQL's: its tree is
//! read and bound by `expr`, with columns, aggregates, windows and subqueries as its leaves, and becomes SQLite's SQL where
//! both answer alike for the types at hand, otherwise a call of `tm`. What `expr` refuses is refused.

mod aggregate;
mod emit;
mod from;
mod lift;
mod scope;
mod select;
mod set;

pub use aggregate::arguments;
pub use emit::literal;
pub use from::table_name;
pub use scope::{Env, Scope, Source, quoted};

use crate::catalogue::TableDef;
use crate::error::EngineError;
use crate::lookup::Origin;
use crate::program::Program;
use crate::types::collation_name;
use expr::kind::{Class, Kind};
use sqlparser::ast::{
    Cte as AstCte, Expr, LimitClause, OrderByExpr, OrderByKind, Query, SetExpr, Spanned, TableAlias, Value,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Queries inside each other; deeper would want a deeper stack.
const DEPTH_MAX: usize = 32;

/// SQL of SQLite with the kind of its values.
#[derive(Clone, Debug)]
pub struct Typed {
    pub sql: String,
    pub kind: Kind,
}

impl Typed {
    /// With MySQL's collation, where SQLite orders or groups by it.
    pub fn ordered(&self) -> String {
        match self.kind {
            Kind::Text(text) | Kind::Label(text) => {
                format!("({}) COLLATE {}", self.sql, collation_name(text.collation))
            }
            // A number alone would name a column by its place.
            _ if self.sql.bytes().all(|byte| byte.is_ascii_digit()) => format!("({}+0)", self.sql),
            _ => self.sql.clone(),
        }
    }
}

/// A column of a result.
#[derive(Clone, Debug)]
pub struct OutColumn {
    pub name: String,
    pub kind: Kind,
    /// The column of a table that it is, unchanged.
    pub origin: Option<Origin>,
}

/// A query of SQLite; its columns are `c0`, `c1`, …
#[derive(Clone, Debug)]
pub struct Translated {
    pub sql: String,
    pub columns: Vec<OutColumn>,
}

/// A name that WITH gives to a query.
#[derive(Clone, Debug)]
pub struct Cte {
    name: String,
    alias: String,
    columns: Vec<OutColumn>,
}

/// Where definitions of tables come from.
pub trait Tables {
    fn table(&self, name: &str) -> Result<Option<Arc<TableDef>>, EngineError>;

    /// By its whole name, whatever dataset bare names belong to.
    fn whole(&self, name: &str) -> Result<Option<Arc<TableDef>>, EngineError> {
        self.table(name)
    }
}

/// Translates one statement.
pub struct Translator<'a> {
    pub tables: &'a dyn Tables,
    pub programs: Vec<Program>,
    /// Numbers of programs by how they look.
    numbers: HashMap<String, usize>,
    /// Separators of GROUP_CONCAT, each a function of its own.
    pub separators: BTreeSet<String>,
    /// The moment of the statement, microseconds since the epoch.
    pub now_micros: i64,
    aliases: usize,
    depth: usize,
    /// Views around what is translated, whose names are whole.
    views: usize,
}

impl<'a> Translator<'a> {
    pub fn new(tables: &'a dyn Tables, now_micros: i64) -> Self {
        Self {
            tables,
            programs: Vec::new(),
            numbers: HashMap::new(),
            separators: BTreeSet::new(),
            now_micros,
            aliases: 0,
            depth: 0,
            views: 0,
        }
    }

    /// The number of a program; an equal one is kept once.
    pub fn program(&mut self, program: Program) -> usize {
        let next = self.programs.len();
        let number = *self.numbers.entry(format!("{program:?}")).or_insert(next);
        if number == next {
            self.programs.push(program);
        }
        number
    }

    pub fn alias(&mut self, letter: char) -> String {
        self.aliases += 1;
        format!("{letter}{}", self.aliases)
    }

    pub fn query(
        &mut self,
        query: &Query,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<Translated, EngineError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(EngineError::refused("queries are nested too deeply", "name some of them in WITH"));
        }
        let result = self.query_inner(query, outer, ctes);
        self.depth -= 1;
        result
    }

    fn query_inner(
        &mut self,
        query: &Query,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<Translated, EngineError> {
        if query.fetch.is_some() || query.for_clause.is_some() || !query.pipe_operators.is_empty() {
            return Err(EngineError::refused("this clause is not MySQL's", "use LIMIT"));
        }
        if !query.locks.is_empty() {
            return Err(EngineError::refused("row locks are not kept here", "leave FOR UPDATE out"));
        }
        let mut ctes = ctes.to_vec();
        let mut with = String::new();
        if let Some(clause) = &query.with {
            for cte in &clause.cte_tables {
                let (sql, cte) = self.cte(cte, clause.recursive, outer, &ctes)?;
                with.push_str(if with.is_empty() { "WITH RECURSIVE " } else { ", " });
                with.push_str(&sql);
                ctes.push(cte);
            }
            with.push(' ');
        }
        let order = order_of(query)?;
        let limit = limit_of(query)?;
        let body = match &*query.body {
            SetExpr::Select(select) => self.select(select, order, &limit, outer, &ctes, None)?,
            SetExpr::Query(inner) if order.is_empty() && limit.is_empty() => {
                self.query(inner, outer, &ctes)?
            }
            other => {
                let inner = self.set_expr(other, outer, &ctes)?;
                self.wrapped(inner, order, &limit, outer, &ctes)?
            }
        };
        Ok(Translated { sql: with + &body.sql, columns: body.columns })
    }

    /// ORDER BY and LIMIT over a whole result.
    fn wrapped(
        &mut self,
        inner: Translated,
        order: &[OrderByExpr],
        limit: &str,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<Translated, EngineError> {
        if order.is_empty() && limit.is_empty() {
            return Ok(inner);
        }
        let alias = self.alias('q');
        let source = Source::derived("", &alias, &inner.columns);
        let mut scope = Scope::new(outer);
        scope.add(source)?;
        let mut terms = Vec::new();
        for term in order {
            let typed = match position(&term.expr, inner.columns.len())? {
                Some(at) => Typed { sql: format!("{alias}.c{at}"), kind: inner.columns[at].kind },
                None => self.scalar(&term.expr, &Env::rows(&scope, ctes))?,
            };
            terms.push(direction(typed.ordered(), term)?);
        }
        let order = if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", terms.join(", ")) };
        let sql = format!("SELECT * FROM ({}) AS {alias}{order}{limit}", inner.sql);
        Ok(Translated { sql, columns: inner.columns })
    }

    /// The SQL behind WITH, and what the name stands for.
    fn cte(
        &mut self,
        cte: &AstCte,
        recursive: bool,
        outer: Option<&Scope<'_>>,
        ctes: &[Cte],
    ) -> Result<(String, Cte), EngineError> {
        let alias = self.alias('w');
        let name = cte.alias.name.value.clone();
        if recursive && let Some(parts) = set::recursion(&cte.query, &name) {
            return self.recursive_cte(&cte.alias, alias, parts, outer, ctes);
        }
        let inner = self.query(&cte.query, outer, ctes)?;
        let columns = renamed(inner.columns, &cte.alias)?;
        let names = column_names(columns.len());
        Ok((format!("{alias}({names}) AS ({})", inner.sql), Cte { name, alias, columns }))
    }
}

/// `c0,c1,…`
pub fn column_names(count: usize) -> String {
    (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(",")
}

/// Columns by the names behind an alias, where there are some.
fn renamed(mut columns: Vec<OutColumn>, alias: &TableAlias) -> Result<Vec<OutColumn>, EngineError> {
    if alias.columns.is_empty() {
        return Ok(columns);
    }
    if alias.columns.len() != columns.len() {
        return Err(EngineError::sql(
            1353,
            format!("`{}` names {} columns for {}", alias.name.value, alias.columns.len(), columns.len()),
        )
        .at(alias.name.span.start));
    }
    for (column, name) in columns.iter_mut().zip(&alias.columns) {
        column.name.clone_from(&name.name.value);
    }
    Ok(columns)
}

fn order_of(query: &Query) -> Result<&[OrderByExpr], EngineError> {
    match &query.order_by {
        None => Ok(&[]),
        Some(order) => match &order.kind {
            OrderByKind::Expressions(all) => Ok(all),
            OrderByKind::All(_) => {
                Err(EngineError::refused("ORDER BY ALL is not MySQL's", "name the columns"))
            }
        },
    }
}

/// ` LIMIT n OFFSET m`, or nothing.
fn limit_of(query: &Query) -> Result<String, EngineError> {
    let number = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse::<i64>().ok(),
            _ => None,
        },
        _ => None,
    };
    let wrong = |expr: &Expr| {
        EngineError::refused("LIMIT wants whole numbers", "write LIMIT 10 OFFSET 20").at(expr.span().start)
    };
    let read = |expr: &Expr| number(expr).ok_or_else(|| wrong(expr));
    Ok(match &query.limit_clause {
        None => String::new(),
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            format!(" LIMIT {} OFFSET {}", read(limit)?, read(offset)?)
        }
        Some(LimitClause::LimitOffset { limit: Some(limit), offset, limit_by }) if limit_by.is_empty() => {
            let offset = offset.as_ref().map(|it| read(&it.value)).transpose()?.unwrap_or(0);
            format!(" LIMIT {} OFFSET {offset}", read(limit)?)
        }
        Some(_) => return Err(EngineError::sql(1064, "OFFSET stands behind LIMIT")),
    })
}

/// The place that a whole number in ORDER BY or GROUP BY names, from 0.
pub fn position(expr: &Expr, count: usize) -> Result<Option<usize>, EngineError> {
    let Expr::Value(value) = expr else { return Ok(None) };
    let Value::Number(text, _) = &value.value else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(at) if (1..=count).contains(&at) => Ok(Some(at - 1)),
        _ => Err(EngineError::sql(1054, format!("Unknown column '{text}'")).at(expr.span().start)),
    }
}

/// ASC or DESC; MySQL has no NULLS FIRST.
pub fn direction(sql: String, term: &OrderByExpr) -> Result<String, EngineError> {
    if term.options.nulls_first.is_some() || term.with_fill.is_some() {
        return Err(EngineError::sql(1064, "MySQL has no NULLS FIRST").at(term.expr.span().start));
    }
    Ok(if term.options.asc == Some(false) { sql + " DESC" } else { sql })
}

/// Whether two kinds are told apart by what a value of each is in SQLite.
pub fn same_form(left: Kind, right: Kind) -> bool {
    left == right
        || match (left.class(), right.class()) {
            (Class::Int, Class::Int) => left != Kind::Year && right != Kind::Year || left == right,
            (Class::Text, Class::Text) => true,
            _ => false,
        }
}

/// The place of an expression that is a column alone.
fn lift_place(expr: &Expr, scope: &Scope<'_>) -> Option<(usize, usize)> {
    match expr {
        Expr::Identifier(name) => scope.find(None, &name.value).ok().flatten(),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [.., table, name] => scope.find(Some(&table.value), &name.value).ok().flatten(),
            _ => None,
        },
        Expr::Nested(inner) => lift_place(inner, scope),
        _ => None,
    }
}
