//! What names mean at a place of a statement.

use super::{Cte, OutColumn, Typed};
use crate::catalogue::TableDef;
use crate::error::EngineError;
use crate::lookup::{Origin, parts};
use expr::kind::Kind;
use sqlparser::ast::{Expr, Ident};
use std::cell::RefCell;

/// A table, view or query in FROM.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the statement calls it; empty for what has no name.
    pub name: String,
    pub alias: String,
    pub columns: Vec<SourceColumn>,
    /// Columns that decide all others.
    pub key: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct SourceColumn {
    pub name: String,
    pub typed: Typed,
    /// The column of a table that it is.
    pub origin: Option<Origin>,
    /// Taken by USING: its twin answers for the bare name.
    pub merged: bool,
}

impl Source {
    pub fn derived(name: &str, alias: &str, columns: &[OutColumn]) -> Self {
        let column = |(at, column): (usize, &OutColumn)| SourceColumn {
            name: column.name.clone(),
            typed: Typed { sql: format!("{alias}.c{at}"), kind: column.kind },
            origin: column.origin.clone().map(|it| Origin { alias: name.to_owned(), ..it }),
            merged: false,
        };
        Self {
            name: name.to_owned(),
            alias: alias.to_owned(),
            columns: columns.iter().enumerate().map(column).collect(),
            key: Vec::new(),
        }
    }

    pub fn table(name: &str, alias: &str, table: &TableDef) -> Self {
        let (dataset, own) = parts(&table.name);
        let column = |(at, column): (usize, &crate::catalogue::ColumnDef)| SourceColumn {
            name: column.column.name.clone(),
            origin: Some(Origin {
                dataset: dataset.to_owned(),
                table: own.to_owned(),
                alias: name.to_owned(),
                column: column.column.clone(),
                primary_key: table.primary_key.contains(&at),
                auto_increment: column.auto_increment,
            }),
            typed: Typed { sql: format!("{alias}.{}", quoted(&column.column.name)), kind: column.kind() },
            merged: false,
        };
        Self {
            name: name.to_owned(),
            alias: alias.to_owned(),
            columns: table.columns.iter().enumerate().map(column).collect(),
            key: table.primary_key.clone(),
        }
    }
}

/// A name as SQLite takes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables of a SELECT, and those around it.
#[derive(Debug)]
pub struct Scope<'o> {
    pub sources: Vec<Source>,
    /// What `*` is, in order.
    pub star: Vec<(usize, usize)>,
    /// Sources before this one are not seen: an ON does not see what stands before its comma.
    pub first: usize,
    outer: Option<&'o Scope<'o>>,
    /// Columns that a query inside used.
    used: RefCell<Vec<(usize, usize)>>,
}

/// The name that stands for a column that is known already.
const PLACE: char = '\u{2}';

/// The identifier of a column by its place.
pub fn place((source, column): (usize, usize)) -> Expr {
    Expr::Identifier(Ident::with_quote('`', format!("{PLACE}{source}:{column}")))
}

impl<'o> Scope<'o> {
    pub fn new(outer: Option<&'o Scope<'o>>) -> Self {
        Self { sources: Vec::new(), star: Vec::new(), first: 0, outer, used: RefCell::default() }
    }

    pub fn add(&mut self, source: Source) -> Result<(), EngineError> {
        let taken = |it: &Source| !it.name.is_empty() && it.name.eq_ignore_ascii_case(&source.name);
        if self.sources.iter().any(taken) {
            return Err(EngineError::sql(1066, format!("Not unique table/alias: '{}'", source.name)));
        }
        let index = self.sources.len();
        self.star.extend((0..source.columns.len()).map(|at| (index, at)));
        self.sources.push(source);
        Ok(())
    }

    pub fn column(&self, (source, column): (usize, usize)) -> &SourceColumn {
        &self.sources[source].columns[column]
    }

    /// The columns that queries inside used since the last call.
    pub fn take_used(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.used.borrow_mut())
    }

    /// Here only: the place of a column; `None` when there is none.
    pub fn find(&self, table: Option<&str>, name: &str) -> Result<Option<(usize, usize)>, EngineError> {
        if let Some((source, column)) = name.strip_prefix(PLACE).and_then(|rest| rest.split_once(':')) {
            return Ok(source.parse().ok().zip(column.parse().ok()));
        }
        let mut found = None;
        for (index, source) in self.sources.iter().enumerate().skip(self.first) {
            if table.is_some_and(|table| !source.name.eq_ignore_ascii_case(table)) {
                continue;
            }
            for (at, column) in source.columns.iter().enumerate() {
                if !column.name.eq_ignore_ascii_case(name) || table.is_none() && column.merged {
                    continue;
                }
                if found.is_some() {
                    return Err(EngineError::sql(1052, format!("Column '{name}' is ambiguous")));
                }
                found = Some((index, at));
            }
        }
        Ok(found)
    }

    /// A name here or around; the second is whether it is here.
    pub fn resolve(
        &self,
        table: Option<&str>,
        name: &str,
    ) -> Result<(Typed, Option<(usize, usize)>), EngineError> {
        if let Some(place) = self.find(table, name)? {
            return Ok((self.column(place).typed.clone(), Some(place)));
        }
        let mut around = self.outer;
        while let Some(scope) = around {
            if let Some(place) = scope.find(table, name)? {
                scope.used.borrow_mut().push(place);
                return Ok((scope.column(place).typed.clone(), None));
            }
            around = scope.outer;
        }
        let full = table.map_or(name.to_owned(), |table| format!("{table}.{name}"));
        Err(EngineError::sql(1054, format!("Unknown column '{full}'")))
    }
}

/// What GROUP BY left of the rows.
#[derive(Debug, Default)]
pub struct Grouping {
    pub terms: Vec<Group>,
    /// The first so many are there; the rest is rolled up.
    pub kept: usize,
    pub rollup: bool,
}

#[derive(Debug)]
pub struct Group {
    /// How an expression that means the same looks.
    pub text: String,
    pub typed: Typed,
    pub place: Option<(usize, usize)>,
}

impl Grouping {
    /// Whether the groups decide a column.
    pub fn decides(&self, scope: &Scope<'_>, (source, column): (usize, usize)) -> bool {
        let grouped =
            |place: (usize, usize)| self.terms[..self.kept].iter().any(|group| group.place == Some(place));
        let key = &scope.sources[source].key;
        grouped((source, column))
            || !key.is_empty() && !self.rollup && key.iter().all(|at| grouped((source, *at)))
    }
}

/// Everything an expression may name.
#[derive(Clone, Copy)]
pub struct Env<'e> {
    pub scope: &'e Scope<'e>,
    pub ctes: &'e [Cte],
    pub grouping: Option<&'e Grouping>,
    /// Names that SELECT gives, where they may be used; the second is whether they go before columns.
    pub names: Option<(&'e [(String, Expr)], bool)>,
    pub windows: Option<&'e [sqlparser::ast::NamedWindowDefinition]>,
}

impl<'e> Env<'e> {
    /// Of rows before they are grouped.
    pub fn rows(scope: &'e Scope<'e>, ctes: &'e [Cte]) -> Self {
        Self { scope, ctes, grouping: None, names: None, windows: None }
    }
}

/// A value that is NULL in every row.
pub fn null(kind: Kind) -> Typed {
    Typed { sql: "NULL".into(), kind }
}
