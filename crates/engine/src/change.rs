//! INSERT, REPLACE, UPDATE and DELETE → SQLite's SQL. Every value goes through the column's own rules (`store`).

use crate::catalogue::{ColumnDef, DefaultValue, TableDef};
use crate::error::EngineError;
use crate::program::Program;
use crate::query::{Env, Scope, Source, Translator, Typed, quoted, table_name};
use crate::store::Target;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Insert, ObjectName, OnInsert, OrderByExpr,
    SetExpr, Spanned, TableFactor, TableObject, TableWithJoins, Update,
};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The name of the row that an INSERT would have made.
pub const NEW_ROW: &str = "\u{4}new";

impl Translator<'_> {
    fn known(&self, name: &ObjectName) -> Result<Arc<TableDef>, EngineError> {
        let full = table_name(name);
        let table = self.tables.table(&full)?.ok_or_else(|| {
            EngineError::sql(1146, format!("Table '{full}' doesn't exist")).at(name.span().start)
        })?;
        if table.view.is_some() {
            let text = format!("The target table {full} is a view, which is not updatable");
            return Err(EngineError::sql(1288, text).at(name.span().start));
        }
        Ok(table)
    }

    /// A value on its way into a column.
    fn stored(&mut self, typed: &Typed, column: &ColumnDef) -> String {
        let target = Target { column: column.column.clone(), auto_increment: column.auto_increment };
        let index = self.program(Program::Store(typed.kind, target));
        format!("tm({index}, {})", typed.sql)
    }

    fn default_of(&mut self, column: &ColumnDef, env: &Env<'_>) -> Result<String, EngineError> {
        match &column.default {
            Some(DefaultValue::Text(text)) => {
                let value = sqlparser::ast::Value::SingleQuotedString(text.clone());
                let typed = self.scalar(&Expr::Value(value.into()), env)?;
                Ok(self.stored(&typed, column))
            }
            Some(DefaultValue::Literal(text)) => {
                let expr = Parser::new(&MySqlDialect {})
                    .try_with_sql(text)
                    .and_then(|mut parser| parser.parse_expr())
                    .map_err(|error| EngineError::Internal(format!("a default is damaged: {error}")))?;
                let typed = self.scalar(&expr, env)?;
                Ok(self.stored(&typed, column))
            }
            Some(DefaultValue::Now) | None if column.column.nullable || column.auto_increment => {
                Ok("NULL".into())
            }
            _ => Err(EngineError::sql(
                1364,
                format!("Field '{}' doesn't have a default value", column.column.name),
            )),
        }
    }

    pub fn insert(&mut self, insert: &Insert) -> Result<String, EngineError> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(EngineError::sql(1064, "INSERT wants the name of a table"));
        };
        let table = self.known(name).map_err(|error| match error {
            EngineError::Sql { number: 1288, line, column, .. } => {
                let message = format!("The target table {name} of the INSERT is not insertable-into");
                EngineError::Sql { number: 1471, message, line, column }
            }
            other => other,
        })?;
        if insert.ignore {
            return Err(EngineError::refused(
                "INSERT IGNORE stores near values silently",
                "write ON DUPLICATE KEY UPDATE id = id",
            )
            .at(name.span().start));
        }
        if !insert.assignments.is_empty() || insert.returning.is_some() || insert.or.is_some() {
            return Err(EngineError::refused("this form of INSERT", "write INSERT INTO t (a, b) VALUES (…)"));
        }
        let columns = listed(&table, &insert.columns)?;
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let columns = if columns.is_empty() { all.clone() } else { columns };
        let missing: Vec<usize> = all.into_iter().filter(|at| !columns.contains(at)).collect();
        let scope = Scope::new(None);
        let env = Env::rows(&scope, &[]);
        let mut defaults = Vec::new();
        for at in &missing {
            defaults.push(self.default_of(&table.columns[*at], &env)?);
        }
        let source =
            insert.source.as_deref().ok_or_else(|| EngineError::sql(1064, "INSERT without values"))?;
        let rows = match &*source.body {
            SetExpr::Values(values) => {
                let mut rows = Vec::with_capacity(values.rows.len());
                for (number, row) in values.rows.iter().enumerate() {
                    let row: &[Expr] = row;
                    if row.len() != columns.len() && !(row.is_empty() && insert.columns.is_empty()) {
                        let text = format!("Column count doesn't match value count at row {}", number + 1);
                        return Err(EngineError::sql(1136, text));
                    }
                    let mut parts = Vec::with_capacity(columns.len() + missing.len());
                    if row.is_empty() {
                        for at in &columns {
                            parts.push(self.default_of(&table.columns[*at], &env)?);
                        }
                    }
                    for (at, value) in columns.iter().zip(row) {
                        let column = &table.columns[*at];
                        parts.push(if is_default(value) {
                            self.default_of(column, &env)?
                        } else {
                            let typed = self.scalar(value, &env)?;
                            self.stored(&typed, column)
                        });
                    }
                    parts.extend(defaults.iter().cloned());
                    rows.push(format!("({})", parts.join(", ")));
                }
                format!("VALUES {}", rows.join(", "))
            }
            _ => {
                let inner = self.query(source, None, &[])?;
                if inner.columns.len() != columns.len() {
                    return Err(EngineError::sql(1136, "Column count doesn't match value count at row 1"));
                }
                let alias = self.alias('q');
                let mut parts = Vec::with_capacity(columns.len() + missing.len());
                for (place, (at, column)) in columns.iter().zip(&inner.columns).enumerate() {
                    let typed = Typed { sql: format!("{alias}.c{place}"), kind: column.kind };
                    parts.push(self.stored(&typed, &table.columns[*at]));
                }
                parts.extend(defaults);
                // The condition tells SQLite that ON is not a join's.
                format!("SELECT {} FROM ({}) AS {alias} WHERE 1", parts.join(", "), inner.sql)
            }
        };
        let names: Vec<String> =
            columns.iter().chain(&missing).map(|at| quoted(&table.columns[*at].column.name)).collect();
        let word = if insert.replace_into { "INSERT OR REPLACE" } else { "INSERT" };
        let mut sql = format!("{word} INTO {} ({}) {rows}", quoted(&table.name), names.join(", "));
        match &insert.on {
            None => {}
            Some(OnInsert::DuplicateKeyUpdate(assignments)) => {
                let new = insert.insert_alias.as_ref().map(|it| table_name(&it.row_alias));
                sql.push_str(&self.on_duplicate(assignments, &table, new.as_deref())?);
            }
            Some(_) => {
                return Err(EngineError::sql(1064, "MySQL has ON DUPLICATE KEY UPDATE"));
            }
        }
        Ok(sql)
    }

    fn on_duplicate(
        &mut self,
        assignments: &[Assignment],
        table: &TableDef,
        new: Option<&str>,
    ) -> Result<String, EngineError> {
        let mut scope = Scope::new(None);
        scope.add(Source::table(&table.name, &quoted(&table.name), table))?;
        let mut row = Source::table(new.unwrap_or(NEW_ROW), "excluded", table);
        // A bare name is the row that is there.
        row.columns.iter_mut().for_each(|column| column.merged = true);
        scope.add(row)?;
        let env = Env::rows(&scope, &[]);
        let mut parts: Vec<String> = Vec::new();
        let mut set: Vec<String> = Vec::new();
        for assignment in assignments {
            let at = assigned(assignment, table)?;
            let typed = self.scalar(&assignment.value, &env)?;
            refuse_read(&set, &typed.sql, assignment)?;
            let name = quoted(&table.columns[at].column.name);
            set.push(format!("{}.{name}", quoted(&table.name)));
            parts.push(format!("{name} = {}", self.stored(&typed, &table.columns[at])));
        }
        Ok(format!(" ON CONFLICT DO UPDATE SET {}", parts.join(", ")))
    }

    pub fn update(&mut self, update: &Update) -> Result<String, EngineError> {
        if update.from.is_some() || update.returning.is_some() || update.or.is_some() {
            return Err(EngineError::sql(1064, "MySQL has no UPDATE … FROM"));
        }
        let tables = std::slice::from_ref(&update.table);
        let (scope, from) = self.from(tables, None, &[])?;
        let env = Env::rows(&scope, &[]);
        let filter = self.filter(update.selection.as_ref(), &env)?;
        let mut target: Option<(usize, Arc<TableDef>)> = None;
        let mut sets: Vec<(usize, String)> = Vec::new();
        let mut set: Vec<String> = Vec::new();
        for assignment in &update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                return Err(EngineError::sql(1064, "MySQL assigns column by column"));
            };
            let parts: Vec<String> =
                name.0.iter().filter_map(|it| it.as_ident()).map(|it| it.value.clone()).collect();
            let (table, column) = match parts.as_slice() {
                [.., table, column] => (Some(table.as_str()), column.as_str()),
                [column] => (None, column.as_str()),
                [] => (None, ""),
            };
            let (source, at) = scope.find(table, column)?.ok_or_else(|| {
                EngineError::sql(1054, format!("Unknown column '{column}'")).at(name.span().start)
            })?;
            let known = match &target {
                Some((known, table)) if *known == source => table.clone(),
                Some(_) => {
                    return Err(EngineError::refused(
                        "an UPDATE of several tables",
                        "write one UPDATE a table, in one transaction",
                    )
                    .at(name.span().start));
                }
                None => {
                    let table = self.source_table(tables, source)?;
                    target = Some((source, table.clone()));
                    table
                }
            };
            if is_default(&assignment.value) {
                let value = self.default_of(&known.columns[at], &env)?;
                sets.push((at, value));
            } else {
                let typed = self.scalar(&assignment.value, &env)?;
                refuse_read(&set, &typed.sql, assignment)?;
                sets.push((at, self.stored(&typed, &known.columns[at])));
            }
            set.push(scope.sources[source].columns[at].typed.sql.clone());
        }
        let Some((source, table)) = target else { return Err(EngineError::sql(1064, "UPDATE sets nothing")) };
        let mut parts: Vec<&Expr> = update.assignments.iter().map(|it| &it.value).collect();
        parts.extend(update.selection.iter());
        refuse_own(&table, &parts)?;
        let alias = &scope.sources[source].alias;
        let tail = self.tail_of(&update.order_by, update.limit.as_ref(), &env)?;
        let values: String =
            sets.iter().enumerate().map(|(n, (_, sql))| format!(", {sql} AS v{n}")).collect();
        let (own, row) = (quoted(&table.name), row_number(&table)?);
        let assigned: Vec<String> = sets
            .iter()
            .enumerate()
            .map(|(n, (at, _))| format!("{} = u.v{n}", quoted(&table.columns[*at].column.name)))
            .collect();
        // Limited or joined: SQLite takes each row once, whatever it meets.
        Ok(format!(
            "UPDATE {own} SET {} FROM (SELECT {alias}.{row} AS r{values} FROM {from}{filter}{tail}) AS u WHERE {own}.{row} = u.r",
            assigned.join(", ")
        ))
    }

    pub fn delete(&mut self, delete: &Delete) -> Result<String, EngineError> {
        if delete.returning.is_some() {
            return Err(EngineError::sql(1064, "MySQL has no RETURNING"));
        }
        let from = match &delete.from {
            FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables) => tables,
        };
        // DELETE t FROM a JOIN b: `tables` names what loses rows. DELETE FROM t USING a JOIN b: `from` does.
        let (targets, tables) = match (&delete.using, delete.tables.as_slice()) {
            (Some(using), _) => (from.iter().map(|it| factor_name(&it.relation)).collect(), using),
            (None, []) => (vec![factor_name(&from.first().ok_or_else(no_table)?.relation)], from),
            (None, names) => (names.iter().map(table_name).collect::<Vec<_>>(), from),
        };
        let [target] = targets.as_slice() else {
            return Err(EngineError::refused(
                "a DELETE from several tables",
                "write one DELETE a table, in one transaction",
            ));
        };
        let (scope, sql) = self.from(tables, None, &[])?;
        let env = Env::rows(&scope, &[]);
        let short = target.rsplit('.').next().unwrap_or(target).to_owned();
        let source = scope.sources.iter().position(|it| it.name.eq_ignore_ascii_case(&short));
        let source = source.ok_or_else(|| EngineError::sql(1109, format!("Unknown table '{target}'")))?;
        let table = self.source_table(tables, source)?;
        refuse_own(&table, &delete.selection.iter().collect::<Vec<_>>())?;
        let filter = self.filter(delete.selection.as_ref(), &env)?;
        let tail = self.tail_of(&delete.order_by, delete.limit.as_ref(), &env)?;
        let alias = &scope.sources[source].alias;
        let row = row_number(&table)?;
        Ok(format!(
            "DELETE FROM {} WHERE {row} IN (SELECT {alias}.{row} FROM {sql}{filter}{tail})",
            quoted(&table.name)
        ))
    }

    fn filter(&mut self, selection: Option<&Expr>, env: &Env<'_>) -> Result<String, EngineError> {
        selection.map_or(Ok(String::new()), |filter| Ok(format!(" WHERE {}", self.condition(filter, env)?)))
    }

    fn tail_of(
        &mut self,
        order: &[OrderByExpr],
        limit: Option<&Expr>,
        env: &Env<'_>,
    ) -> Result<String, EngineError> {
        let mut terms = Vec::new();
        for term in order {
            terms.push(crate::query::direction(self.scalar(&term.expr, env)?.ordered(), term)?);
        }
        let order = if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", terms.join(", ")) };
        let limit = match limit.map(ToString::to_string) {
            None => String::new(),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => format!(" LIMIT {text}"),
            Some(text) => return Err(EngineError::refused(format!("LIMIT {text}"), "write a whole number")),
        };
        Ok(order + &limit)
    }

    /// The table behind a source of FROM; an error where it is a query.
    fn source_table(&self, tables: &[TableWithJoins], source: usize) -> Result<Arc<TableDef>, EngineError> {
        let factors = tables
            .iter()
            .flat_map(|it| std::iter::once(&it.relation).chain(it.joins.iter().map(|join| &join.relation)));
        match factors.into_iter().nth(source) {
            Some(TableFactor::Table { name, .. }) => self.known(name),
            _ => Err(EngineError::sql(1288, "The target table is not updatable")),
        }
    }
}

/// SQLite's name for the number of a row: one that no column has taken.
fn row_number(table: &TableDef) -> Result<&'static str, EngineError> {
    ["_rowid_", "oid", "rowid"].into_iter().find(|name| table.column(name).is_none()).ok_or_else(|| {
        EngineError::refused(
            "a table with columns `_rowid_`, `oid` and `rowid` cannot be changed row by row",
            "call one of them otherwise",
        )
    })
}

/// MySQL does not read the table that it changes.
fn refuse_own(table: &TableDef, parts: &[&Expr]) -> Result<(), EngineError> {
    let reads = |part: &&&Expr| {
        sqlparser::ast::visit_relations(**part, |name| {
            if table_name(name).eq_ignore_ascii_case(&table.name) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .is_break()
    };
    match parts.iter().find(reads) {
        None => Ok(()),
        Some(part) => {
            let text = format!("You can't specify target table '{}' for update in FROM clause", table.name);
            Err(EngineError::refused(text, "write the rows to another table first").at(part.span().start))
        }
    }
}

fn no_table() -> EngineError {
    EngineError::sql(1064, "DELETE without a table")
}

/// What a statement calls a table.
fn factor_name(factor: &TableFactor) -> String {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } => alias.name.value.clone(),
        TableFactor::Table { name, .. } => table_name(name),
        _ => String::new(),
    }
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

fn listed(table: &TableDef, columns: &[ObjectName]) -> Result<Vec<usize>, EngineError> {
    let mut places = Vec::with_capacity(columns.len());
    for name in columns {
        let short = name.0.last().and_then(|it| it.as_ident()).map(|it| it.value.clone()).unwrap_or_default();
        let at = table.column(&short).ok_or_else(|| {
            EngineError::sql(1054, format!("Unknown column '{short}'")).at(name.span().start)
        })?;
        if places.contains(&at) {
            return Err(EngineError::sql(1110, format!("Column '{short}' specified twice")));
        }
        places.push(at);
    }
    Ok(places)
}

fn assigned(assignment: &Assignment, table: &TableDef) -> Result<usize, EngineError> {
    let AssignmentTarget::ColumnName(name) = &assignment.target else {
        return Err(EngineError::sql(1064, "MySQL assigns column by column"));
    };
    Ok(listed(table, std::slice::from_ref(name))?[0])
}

/// MySQL reads what it has just set; SQLite what was there before.
fn refuse_read(set: &[String], sql: &str, assignment: &Assignment) -> Result<(), EngineError> {
    if set.iter().any(|column| sql.contains(column.as_str())) {
        return Err(EngineError::refused(
            "an assignment reads a column that an earlier one sets",
            "order the assignments so that a column is read before it is set",
        )
        .at(assignment.value.span().start));
    }
    Ok(())
}
