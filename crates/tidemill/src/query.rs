//! `tidemill query`: one question to the project's engine, for a person or a script. It only reads.

use crate::commands::{load_node, print_table};
use crate::failure::Failure;
use crate::project::{References, resolve};
use base::{Column, Value};
use clap::Args;
use engine::{Options, cell_text};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Rows of the table that a person gets; `--json` has no such bound.
const ROWS_SHOWN_MAX: usize = 1000;
/// Characters of a cell of that table.
const CELL_CHARS_MAX: usize = 80;

#[derive(Args)]
pub struct QueryArgs {
    /// One SELECT, in the dialect of the project: what MySQL 8 and TiDB answer alike.
    #[arg(required_unless_present = "tables")]
    sql: Option<String>,
    /// List the tables instead.
    #[arg(long, conflicts_with_all = ["sql", "explain"])]
    tables: bool,
    /// Say how the engine would run it.
    #[arg(long)]
    explain: bool,
    /// Stop it after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub async fn run(dir: &Path, args: QueryArgs, json: bool) -> Result<(), Failure> {
    let mut node = load_node(dir)?;
    if node.engine.is_none() {
        return Err(Failure::new(2, "the project has no engine")
            .hint("write `engine: sqlite:./data/warehouse.db` in tidemill.yaml"));
    }
    resolve(&mut node.engine, &["sqlite:", "mysql://"], References::Resolve).map_err(|(message, hint)| {
        let message = message.replace("`url`", "`engine`");
        Failure { hint, ..Failure::new(2, format!("tidemill.yaml: {message}")) }
    })?;
    let url = node.engine.as_ref().map_or("", |it| it.expose());
    let options = Options { read_only: true, timeout: Duration::from_secs(args.timeout) };
    let engine =
        engine::open(url, dir, options).await.map_err(|error| Failure::of("open the engine", &error))?;
    let failed = |error| Failure::of("run the query", &error);
    let Some(sql) = &args.sql else {
        for table in engine.tables().await.map_err(failed)? {
            if json { println!("{}", serde_json::json!({ "table": table })) } else { println!("{table}") }
        }
        return Ok(());
    };
    if args.explain {
        println!("{}", engine.explain(sql).await.map_err(failed)?);
        return Ok(());
    }
    let mut rows = engine.query(sql).await.map_err(failed)?;
    let columns = rows.columns.clone();
    let mut shown = vec![columns.iter().map(|it| it.name.clone()).collect::<Vec<_>>()];
    let mut more = false;
    'read: while let Some(batch) = rows.next().await.map_err(failed)? {
        for row in batch {
            if json {
                print_json(&row, &columns).map_err(|error| Failure::io("write the rows", &error))?;
            } else if shown.len() <= ROWS_SHOWN_MAX {
                shown.push(row.iter().zip(&columns).map(|(value, column)| cell(value, column)).collect());
            } else {
                more = true;
                break 'read;
            }
        }
    }
    if !json {
        print_table(&shown);
        if more {
            eprintln!("only the first {ROWS_SHOWN_MAX} rows are shown; --json prints all");
        }
    }
    Ok(())
}

fn cell(value: &Value, column: &Column) -> String {
    let Some(text) = cell_text(value, column) else { return "NULL".into() };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(CELL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// One object a row, its values as the change format `json` prints them.
fn print_json(row: &[Value], columns: &[Column]) -> std::io::Result<()> {
    let mut out = vec![b'{'];
    for (at, (value, column)) in row.iter().zip(columns).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        base::json::put_string(&mut out, &column.name);
        out.push(b':');
        base::json::put_value(&mut out, value.as_ref(), column);
    }
    out.extend_from_slice(b"}\n");
    std::io::stdout().write_all(&out)
}
