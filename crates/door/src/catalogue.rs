//! Where a query goes: to the engine, with `information_schema` and other computed tables along, or to memory alone.

use crate::columns::text_column;
use crate::error::SqlError;
use crate::metadata::{self, Known};
use crate::show::Filter;
use crate::state::State;
use crate::text::{Text, literal};
use crate::{Door, VirtualDataset};
use base::Value;
use engine::{ColumnDef, Engine as _, Given, Lookup, Rows, Shape, TableDef, cell_text, parts};
use mysql::sql::TokenKind;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows of SHOW, and of what it is made of.
const SHOWN_ROWS_MAX: usize = 200_000;

/// What there is, where the engine has no `information_schema` of its own.
async fn known(door: &Door) -> Result<Option<Known>, SqlError> {
    let Some(mut tables) = door.engine().await?.definitions().await? else { return Ok(None) };
    tables.retain(|table| !engine::is_own(&table.name));
    for dataset in &door.datasets {
        tables.extend(dataset.tables().into_iter().map(|(name, columns)| {
            TableDef {
                name: format!("{}.{name}", dataset.name()),
                columns: columns
                    .into_iter()
                    .map(|column| ColumnDef { column, default: None, auto_increment: false })
                    .collect(),
                primary_key: Vec::new(),
                indexes: Vec::new(),
                view: None,
            }
        }));
    }
    let others = door.datasets.iter().map(|it| it.name().to_owned()).collect();
    let clients = door.present().iter().map(|(id, it)| (*id, it.user.clone())).collect();
    Ok(Some(Known { tables, others, clients }))
}

/// The databases that a client may enter.
pub async fn databases(door: &Door) -> Result<Vec<String>, SqlError> {
    if let Some(known) = known(door).await? {
        return Ok(known.databases());
    }
    let engine = door.engine().await?;
    let rows = engine.query("SELECT schema_name FROM information_schema.schemata").await?;
    let rows = rows.all(SHOWN_ROWS_MAX).await?;
    let own = door.datasets.iter().map(|it| it.name().to_owned());
    let of_server = rows.into_iter().filter_map(|row| match row.into_iter().next() {
        Some(Value::Text(name)) if !engine.system_datasets().contains(&folded(&name).as_str()) => Some(name),
        _ => None,
    });
    Ok(of_server.chain(own).collect())
}

/// The names that a statement holds, in lower case: of tables among others.
fn names(text: &Text<'_>) -> BTreeSet<String> {
    let is_name = |at: &usize| matches!(text.kind(*at), Some(TokenKind::Word | TokenKind::QuotedName));
    (0..text.tokens.len())
        .filter(is_name)
        .filter_map(|at| text.name(at))
        .map(|it| it.to_lowercase())
        .collect()
}

/// Whether a statement may mean `information_schema`.
pub fn reads_schema(session: &State<'_>, text: &Text<'_>) -> bool {
    let current = session.database.as_deref();
    current.is_some_and(|it| it.eq_ignore_ascii_case(metadata::NAME)) || names(text).contains(metadata::NAME)
}

/// How names are understood, and whether the engine is asked at all.
async fn lookup(session: &State<'_>, text: &Text<'_>) -> Result<(Lookup, bool), SqlError> {
    let door = session.door;
    let names = names(text);
    let current = session.database.as_deref();
    let meant = |dataset: &str| {
        names.contains(&dataset.to_lowercase()) || current.is_some_and(|it| it.eq_ignore_ascii_case(dataset))
    };
    let mut given = Vec::new();
    for dataset in door.datasets.iter().filter(|it| meant(it.name())) {
        for (table, _) in dataset.tables().iter().filter(|(table, _)| names.contains(&table.to_lowercase())) {
            given.push(Arc::new(rows_of(&**dataset, table).await?));
        }
    }
    let of_engine = given.is_empty();
    let mut serverless = true;
    if meant(metadata::NAME) {
        match known(door).await? {
            Some(known) => {
                let wanted = metadata::table_names().filter(|table| names.contains(*table));
                given.extend(wanted.filter_map(|table| metadata::given(table, &known)).map(Arc::new));
            }
            None => serverless = false,
        }
    } else if !of_engine {
        serverless = door.engine().await?.definitions().await?.is_some();
    }
    // A server cannot read along what it has not: then memory answers, and names of the server are unknown there.
    let memory = !of_engine && !serverless;
    Ok((Lookup { dataset: session.database.clone(), given }, memory))
}

async fn rows_of(dataset: &dyn VirtualDataset, table: &str) -> Result<Given, SqlError> {
    let mut given = dataset.rows(table).await?;
    given.name = format!("{}.{table}", dataset.name());
    Ok(given)
}

/// A name as servers compare them that tell no cases apart: to some of them a Turkish capital I is an i.
fn folded(name: &str) -> String {
    name.replace('İ', "i").to_lowercase()
}

/// Fails where a query names what is not for clients: tables of the platform's own, and databases of a server's own.
async fn must_be_open(session: &State<'_>, sql: &str) -> Result<(), SqlError> {
    let system = session.door.engine().await?.system_datasets();
    // A name stands in the text as it is, so that most queries need no second look.
    let text = folded(sql);
    if !text.contains("tidemill_") && !system.iter().any(|name| text.contains(name)) {
        return Ok(());
    }
    for name in engine::named(sql).await? {
        let name = folded(&name);
        let (dataset, table) = parts(&name);
        if engine::is_own(&name) || system.contains(&dataset) {
            let user = session.user.replace('@', "'@'");
            let message = format!("SELECT command denied to user '{user}' for table '{table}'");
            return Err(SqlError::new(1142, message));
        }
    }
    Ok(())
}

/// How the engine would run a query that is rewritten already.
pub async fn explain(session: &State<'_>, text: &Text<'_>, sql: &str) -> Result<String, SqlError> {
    let (lookup, memory) = lookup(session, text).await?;
    if memory {
        return Ok(session.door.memory.explain_in(sql, &lookup).await?);
    }
    must_be_open(session, sql).await?;
    match session.door.engine().await?.explain_in(sql, &lookup).await {
        Ok(plan) => Ok(plan),
        Err(error) => Err(explained(session, error.into()).await),
    }
}

/// Runs a query that is rewritten already; `text` is as it was.
pub async fn query(session: &State<'_>, text: &Text<'_>, sql: &str) -> Result<Rows, SqlError> {
    let (lookup, memory) = lookup(session, text).await?;
    if memory {
        return Ok(session.door.memory.query_in(sql, &lookup).await?);
    }
    must_be_open(session, sql).await?;
    let rows = session.door.engine().await?.query_in(sql, &lookup).await;
    match rows {
        Ok(rows) => Ok(rows),
        Err(error) => Err(explained(session, error.into()).await),
    }
}

/// The columns that it would give.
pub async fn check(session: &State<'_>, text: &Text<'_>, sql: &str) -> Result<Shape, SqlError> {
    let (lookup, memory) = lookup(session, text).await?;
    if memory {
        return Ok(session.door.memory.check_in(sql, &lookup).await?);
    }
    must_be_open(session, sql).await?;
    let shape = session.door.engine().await?.check_in(sql, &lookup).await;
    match shape {
        Ok(shape) => Ok(shape),
        Err(error) => Err(explained(session, error.into()).await),
    }
}

/// A table that is not there, for want of a database.
async fn explained(session: &State<'_>, error: SqlError) -> SqlError {
    if error.number != 1146 {
        return error;
    }
    let named = error.message.split_once('.').and_then(|(front, _)| front.split_once('\''));
    match named {
        None if session.database.is_none() => {
            SqlError::new(1046, format!("No database selected: {}", error.message))
        }
        Some((_, database)) => match databases(session.door).await {
            Ok(all) if !all.iter().any(|it| it.eq_ignore_ascii_case(database)) => {
                SqlError::new(1049, format!("Unknown database '{database}'"))
            }
            _ => error,
        },
        None => error,
    }
}

/// Rows of ours under a filter.
pub async fn filtered(
    door: &Door,
    columns: &[&str],
    rows: Vec<Vec<Value>>,
    filter: &Filter,
) -> Result<Rows, SqlError> {
    let columns_of = columns.iter().map(|name| text_column(name)).collect();
    let given = Given { name: "tidemill.shown".into(), columns: columns_of, rows };
    let lookup = Lookup { dataset: None, given: vec![Arc::new(given)] };
    Ok(door.memory.query_in(&filter.select(columns, "tidemill.shown"), &lookup).await?)
}

/// The rows of a query as texts.
pub async fn texts(session: &State<'_>, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let text = Text::read(sql).ok_or_else(|| SqlError::syntax(sql))?;
    let rows = query(session, &text, sql).await?;
    let columns = rows.columns.clone();
    let all = rows.all(SHOWN_ROWS_MAX).await?;
    let cells =
        |row: Vec<Value>| row.iter().zip(&columns).map(|(value, column)| cell_text(value, column)).collect();
    Ok(all.into_iter().map(cells).collect())
}

/// Fails where a database is not there, or has no such table.
pub async fn must_be(
    session: &State<'_>,
    database: Option<&str>,
    table: Option<&str>,
) -> Result<(), SqlError> {
    let Some(database) = database else { return Ok(()) };
    if !databases(session.door).await?.iter().any(|it| it.eq_ignore_ascii_case(database)) {
        return Err(SqlError::new(1049, format!("Unknown database '{database}'")));
    }
    let Some(table) = table else { return Ok(()) };
    let missing = || SqlError::new(1146, format!("Table '{database}.{table}' doesn't exist"));
    if let Some(known) = known(session.door).await? {
        let is_it = |it: &TableDef| {
            let (db, name) = parts(&it.name);
            db.eq_ignore_ascii_case(database) && name.eq_ignore_ascii_case(table)
        };
        let of_schema = database.eq_ignore_ascii_case(metadata::NAME)
            && metadata::table_names().any(|name| name.eq_ignore_ascii_case(table));
        return if of_schema || known.tables.iter().any(is_it) { Ok(()) } else { Err(missing()) };
    }
    let sql = format!(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
        literal(database),
        literal(table)
    );
    if texts(session, &sql).await?.is_empty() { Err(missing()) } else { Ok(()) }
}
