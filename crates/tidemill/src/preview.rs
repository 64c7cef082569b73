//! `flow preview`: rows before and after a flow's rules, for people and as JSON lines.

use crate::client::NodeClient;
use crate::commands::{load_node, many, print_table};
use crate::failure::Failure;
use crate::http::{ChangeLister, PreviewQuery};
use crate::project::Project;
use futures_util::StreamExt;
use journal::RealDisk;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Characters of a value in the table.
const CELL_CHARS_MAX: usize = 60;

pub async fn run(
    dir: &Path,
    flow: &str,
    query: PreviewQuery,
    offline: bool,
    json: bool,
) -> Result<(), Failure> {
    if offline { from_disk(dir, flow, query, json).await } else { from_node(dir, flow, query, json).await }
}

/// Reads the journal on disk to its end.
async fn from_disk(dir: &Path, flow: &str, query: PreviewQuery, json: bool) -> Result<(), Failure> {
    let project =
        Project::load_without_secrets(dir).map_err(|problems| crate::commands::report(&problems))?;
    let Some(config) = project.flows.get(flow) else {
        let names: Vec<_> = project.flows.keys().map(String::as_str).collect();
        return Err(Failure::new(2, format!("there is no flow `{flow}`"))
            .hint(format!("there are: {}", names.join(", "))));
    };
    let journal = journal::open_read_only(Arc::new(RealDisk), &project.journal_dir(&config.from))
        .map_err(|e| Failure::of("open the journal", &e))?;
    let query = PreviewQuery { follow: false, ..query };
    let lister = ChangeLister::preview(config, &journal, None, &query)
        .map_err(|message| Failure::new(1, format!("failed to preview: {message}")))?;
    tokio::task::spawn_blocking(move || lister.run(None, |lines| show(&lines, json)))
        .await
        .map_err(|e| Failure::new(1, e.to_string()))?
        .map_err(|message| Failure::new(1, format!("failed to read the journal on: {message}")))
}

/// Asks the running node, whose flow is not disturbed.
async fn from_node(dir: &Path, flow: &str, query: PreviewQuery, json: bool) -> Result<(), Failure> {
    let mut path = format!("/api/v1/flows/{flow}/preview?follow=true");
    if let Some(limit) = query.limit {
        path.push_str(&format!("&limit={limit}"));
    }
    let response = NodeClient::new(&load_node(dir)?)?.stream(&path).await?;
    let mut parts = response.into_data_stream();
    let mut held = Vec::new();
    loop {
        let part = tokio::select! {
            part = parts.next() => part,
            _ = tokio::signal::ctrl_c() => return Err(Failure::new(130, "")),
        };
        match part {
            None => return Ok(()),
            Some(Err(error)) => {
                return Err(Failure::new(3, format!("the node went away: {}", base::error::chain(&error)))
                    .hint("see its log, and start it with `tidemill up`"));
            }
            Some(Ok(bytes)) => {
                held.extend_from_slice(&bytes);
                // Whole lines only: a part may end anywhere.
                let whole = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let lines: Vec<u8> = held.drain(..whole).collect();
                if !show(&lines, json) {
                    return Ok(());
                }
            }
        }
    }
}

/// Prints lines; false when nobody reads.
fn show(lines: &[u8], json: bool) -> bool {
    let mut out = std::io::stdout();
    if json {
        return out.write_all(lines).and_then(|()| out.flush()).is_ok();
    }
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Ok(change) = serde_json::from_slice::<Value>(line) {
            print_change(&change);
        }
    }
    out.flush().is_ok()
}

/// A heading, and a table of the columns before and after.
fn print_change(change: &Value) {
    let text = |key: &str| change[key].as_str().unwrap_or_default();
    let rows = change["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let outcome = match text("outcome") {
        "parked" => format!("would be parked: {}", text("reason")),
        "left_out" => "left out".to_owned(),
        _ => {
            let ops: Vec<&str> = rows.iter().filter_map(|row| row["op"].as_str()).collect();
            format!("{} ({})", many(rows.len(), "row"), ops.join(", "))
        }
    };
    println!("change {}  {} {}.{} -> {outcome}", change["lsn"], text("op"), text("db"), text("table"));
    let source = image(change);
    let mut table: Vec<Vec<String>> = vec![vec![String::new(), "COLUMN".into(), "IN THE SOURCE".into()]];
    table[0].extend(rows.iter().map(|_| "FOR THE SINK".to_owned()));
    let mut names: Vec<&String> = Vec::new();
    for row in std::iter::once(source).chain(rows.iter().map(image)) {
        for name in row.as_object().into_iter().flat_map(|row| row.keys()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    for name in names {
        let mut line = vec![String::new(), name.clone(), cell(&source[name.as_str()])];
        line.extend(rows.iter().map(|row| cell(&image(row)[name.as_str()])));
        table.push(line);
    }
    if table.len() > 1 {
        print_table(&table);
    }
    println!();
}

/// The image that a change leaves; of a delete, the one that goes.
fn image(change: &Value) -> &Value {
    if change["after"].is_null() { &change["before"] } else { &change["after"] }
}

/// A value on one line, cut where it is long; empty where there is none.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.replace(['\n', '\r', '\t'], " "),
        other => other.to_string(),
    };
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
