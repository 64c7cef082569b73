//! What each command does, between its arguments and its answer.

use crate::FlowVerb;
use crate::client::NodeClient;
use crate::failure::Failure;
use crate::http::{ChangeLister, ChangesQuery};
use crate::project::{Problem, Project};
use crate::start;
use flow::capture::CaptureError;
use flow::capture::mysql::check::{inspect, inspect_tables};
use flow::capture::mysql::connect::Address;
use flow::capture::sqlite::{displaceable_tables, install_statements};
use flow::config::{SinkKind, SourceKind};
use flow::patterns::Patterns;
use futures_util::StreamExt;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use journal::RealDisk;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A project, or every mistake in it on standard error.
pub fn load(dir: &Path) -> Result<Project, Failure> {
    Project::load(dir).map_err(|problems| report(&problems))
}

fn report(problems: &[Problem]) -> Failure {
    for problem in problems {
        eprintln!("{problem}");
    }
    let mistakes = many(problems.len(), "mistake");
    Failure::new(2, format!("the project has {mistakes}; nothing was started"))
}

pub async fn up(dir: &Path, quiet: bool) -> Result<(), Failure> {
    let project = load(dir)?;
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::io("listen for signals", &e))?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let _ = stop.send(true);
    });
    let progress = (!quiet && std::io::stderr().is_terminal()).then(|| project.clone());
    let name = project.node.name.clone();
    for note in project.notes() {
        tracing::info!("{note}");
    }
    start::run(&project, shutdown, move |address| {
        tracing::info!(project = name, address = %address, "up: status at http://{address}/api/v1/status");
        if let Some(project) = progress {
            tokio::spawn(show_snapshot(project));
        }
    })
    .await
}

/// A bar while the first snapshot runs.
async fn show_snapshot(project: Project) {
    let client = NodeClient::new(&project);
    let style = ProgressStyle::with_template(
        "snapshot {bar:30} {human_pos}/{human_len} rows  {rate} rows/s  eta {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
    });
    let mut bar: Option<ProgressBar> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let Ok(status) = client.get("/api/v1/status").await else { continue };
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let running = sources.iter().any(|s| s["snapshot"]["state"] == "running");
        let sum = |key: &str| sources.iter().filter_map(|s| s["snapshot"][key].as_u64()).sum::<u64>();
        if !running {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            continue;
        }
        let bar = bar.get_or_insert_with(|| ProgressBar::new(0).with_style(style.clone()));
        bar.set_length(sum("rows_estimated"));
        bar.set_position(sum("rows"));
    }
}

pub async fn check(dir: &Path, connect: bool, json: bool, quiet: bool) -> Result<(), Failure> {
    let loaded = Project::load(dir);
    let project = match loaded {
        Ok(project) => project,
        Err(problems) if json => {
            let list: Vec<Value> = problems
                .iter()
                .map(|p| json!({"path": p.path, "line": p.line, "column": p.column, "message": p.message, "hint": p.hint}))
                .collect();
            println!("{}", json!({"problems": list}));
            return Err(Failure::new(2, ""));
        }
        Err(problems) => return Err(report(&problems)),
    };
    for note in project.notes().iter().filter(|_| !quiet && !json) {
        eprintln!("note: {note}");
    }
    let findings = if connect { check_live(&project, quiet || json).await } else { Vec::new() };
    if json {
        let list: Vec<Value> = findings
            .iter()
            .map(|f| json!({"where": f.0, "message": f.1, "hint": f.2, "unreachable": f.3}))
            .collect();
        println!("{}", json!({"problems": list}));
    } else {
        for (place, message, hint, _) in &findings {
            eprintln!("{place}: {message}\n  hint: {hint}");
        }
    }
    if findings.is_empty() {
        if !quiet && !json {
            let (sources, sinks, flows) = (project.sources.len(), project.sinks.len(), project.flows.len());
            println!("ok: {}, {}, {}", many(sources, "source"), many(sinks, "sink"), many(flows, "flow"));
        }
        return Ok(());
    }
    let status = if findings.iter().any(|f| f.3) { 3 } else { 2 };
    Err(Failure::new(
        status,
        if json {
            String::new()
        } else {
            format!("{} found, and the way out of each", many(findings.len(), "problem"))
        },
    ))
}

/// `1 flow`, `2 flows`.
fn many(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Place, message, hint, and whether it is that nobody answered.
type Finding = (String, String, String, bool);

async fn check_live(project: &Project, quiet: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    for (name, config) in &project.sources {
        let place = format!("sources/{name}.yaml");
        match config.kind {
            SourceKind::Mysql => {
                let result = async {
                    let mut conn = Address::new(config)?.connect().await?;
                    let (server, mut findings) = inspect(&mut conn).await?;
                    let patterns =
                        Patterns::new(&config.tables, &config.exclude).expect("checked with the project");
                    findings.extend(inspect_tables(&mut conn, &server, &patterns).await?);
                    Ok::<_, CaptureError>((server, findings))
                };
                match result.await {
                    Ok((server, findings)) => {
                        if !quiet {
                            println!("{place}: {} as {}", server.version, server.user);
                        }
                        out.extend(findings.into_iter().map(|f| (place.clone(), f.message, f.hint, false)));
                    }
                    Err(error) => {
                        let hint = error
                            .hint
                            .clone()
                            .unwrap_or_else(|| "is the server up, and the url right?".into());
                        out.push((place, base::error::chain(&error), hint, true));
                    }
                }
            }
            SourceKind::Sqlite => {
                let path = config.path.as_ref().expect("checked with the project");
                let patterns =
                    Patterns::new(&config.tables, &config.exclude).expect("checked with the project");
                match install_statements(path, &patterns) {
                    Ok(statements) if !quiet => {
                        println!("{place}: `up` makes the table tidemill_changes and keeps these triggers:");
                        for statement in statements {
                            println!("  {statement};");
                        }
                        for table in displaceable_tables(path, &patterns).unwrap_or_default() {
                            println!(
                                "  note: `{table}` has a UNIQUE constraint besides its key: a row that INSERT OR REPLACE \
                                 displaces by it is only seen with PRAGMA recursive_triggers = ON in the application"
                            );
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let hint = error.hint.clone().unwrap_or_default();
                        out.push((place, base::error::chain(&error), hint, true));
                    }
                }
            }
        }
    }
    for (name, config) in &project.sinks {
        if config.kind == SinkKind::Stdout {
            continue;
        }
        let place = format!("sinks/{name}.yaml");
        let probe = flow::config::FlowConfig::probe(name);
        let opened = match flow::sinks::build("tidemill_check", "check", name, config, &probe) {
            Ok(mut sink) => tokio::time::timeout(Duration::from_secs(10), sink.probe()).await.unwrap_or(Err(
                flow::deliver::sink::SinkError::Unavailable { message: "no answer within 10 s".into() },
            )),
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            let hint = match &error {
                flow::deliver::sink::SinkError::Blocked { hint, .. } => hint.clone(),
                _ => "is the server up, and the url right?".into(),
            };
            let away = matches!(error, flow::deliver::sink::SinkError::Unavailable { .. });
            out.push((place, base::error::chain(&error), hint, away));
        }
    }
    out
}

pub async fn status(dir: &Path, json: bool) -> Result<(), Failure> {
    let project = load(dir)?;
    let status = NodeClient::new(&project).get("/api/v1/status").await?;
    if json {
        println!("{status}");
        return Ok(());
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let mut rows =
        vec![["SOURCE", "STATE", "LSN", "LAG", "SNAPSHOT", "POSITION"].map(str::to_owned).to_vec()];
    for s in status["sources"].as_array().into_iter().flatten() {
        let snapshot = &s["snapshot"];
        let rows_text = format!("{} ({} rows)", text(&snapshot["state"]), text(&snapshot["rows"]));
        let p = &s["position"];
        let position = match (&p["gtid"], &p["file"]) {
            (Value::String(gtid), _) => gtid.clone(),
            (_, Value::String(file)) => format!("{file}:{}", text(&p["pos"])),
            // A SQLite source has a number of a change, and no file.
            _ => text(&p["pos"]),
        };
        let lag = format!("{} ms", text(&s["lag_ms"]));
        rows.push(vec![text(&s["name"]), text(&s["state"]), text(&s["lsn"]), lag, rows_text, position]);
    }
    print_table(&rows);
    println!();
    let mut rows = vec![["FLOW", "STATE", "FROM", "TO", "LSN", "LAG", "PARKED"].map(str::to_owned).to_vec()];
    for f in status["flows"].as_array().into_iter().flatten() {
        let lag = format!("{} changes", text(&f["lag_changes"]));
        rows.push(
            [&f["name"], &f["state"], &f["from"], &f["to"], &f["lsn"]]
                .map(&text)
                .into_iter()
                .chain([lag, text(&f["dead_letters"])])
                .collect(),
        );
    }
    print_table(&rows);
    for thing in ["sources", "flows"] {
        for item in status[thing].as_array().into_iter().flatten() {
            if let Some(message) = item["error"]["message"].as_str() {
                println!("\n{}: {message}", text(&item["name"]));
                if let Some(hint) = item["error"]["hint"].as_str() {
                    println!("  hint: {hint}");
                }
            }
            if let Some(table) = item["snapshot"]["holds_stream"].as_str() {
                println!(
                    "\n{}: table {table} has no key and is being read whole; other changes wait until it is done",
                    text(&item["name"])
                );
            }
            for table in item["quarantined"].as_array().into_iter().flatten() {
                println!(
                    "\n{}: table {} is quarantined: {}",
                    text(&item["name"]),
                    text(&table["table"]),
                    text(&table["reason"])
                );
                println!(
                    "  hint: mend the cause, then `tidemill flow resnapshot FLOW {}`",
                    text(&table["table"])
                );
            }
        }
    }
    Ok(())
}

pub fn print_table(rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell}{}", " ".repeat(width(i) - cell.chars().count())))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

pub async fn tail(dir: &Path, source: &str, query: ChangesQuery, offline: bool) -> Result<(), Failure> {
    let project = load(dir)?;
    if !project.sources.contains_key(source) {
        let names: Vec<_> = project.sources.keys().map(String::as_str).collect();
        return Err(Failure::new(2, format!("there is no source `{source}`"))
            .hint(format!("there are: {}", names.join(", "))));
    }
    if let Some(table) = &query.table
        && let Err(error) = Patterns::new(std::slice::from_ref(table), &[])
    {
        return Err(Failure::new(2, error.to_string()).hint("--table shop.orders"));
    }
    if offline {
        let journal = journal::open_read_only(Arc::new(RealDisk), &project.journal_dir(source))
            .map_err(|e| Failure::of("open the journal", &e))?;
        let lister = ChangeLister::new(source, &journal, &query).map_err(|m| Failure::new(2, m))?;
        tokio::task::spawn_blocking(move || {
            lister.run(None, |lines| std::io::stdout().write_all(&lines).is_ok())
        })
        .await
        .map_err(|e| Failure::new(1, e.to_string()))?
        .map_err(|message| Failure::new(1, format!("failed to read the journal on: {message}")))?;
        return Ok(());
    }
    let ChangesQuery { from, table, limit, format, schemas, .. } = query;
    let format = format.name();
    let mut path =
        format!("/api/v1/sources/{source}/changes?follow=true&from={from}&format={format}&schemas={schemas}");
    if let Some(limit) = limit {
        path.push_str(&format!("&limit={limit}"));
    }
    if let Some(table) = table {
        let escaped: String = table
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        path.push_str(&format!("&table={escaped}"));
    }
    let response = NodeClient::new(&project).stream(&path).await?;
    let mut parts = response.bytes_stream();
    let mut out = std::io::stdout();
    loop {
        let part = tokio::select! {
            part = parts.next() => part,
            _ = tokio::signal::ctrl_c() => return Err(Failure::new(130, "")),
        };
        match part {
            None => return Ok(()),
            Some(Err(error)) => {
                return Err(Failure::new(3, format!("the node went away: {}", base::error::chain(&error)))
                    .hint("repeat with --from LSN, one more than the last you saw"));
            }
            Some(Ok(bytes)) => {
                if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

pub async fn flow(dir: &Path, verb: FlowVerb, json: bool) -> Result<(), Failure> {
    let project = load(dir)?;
    let client = NodeClient::new(&project);
    let act = |flow: &str, verb: &str| format!("/api/v1/flows/{flow}:{verb}");
    let answer = match &verb {
        FlowVerb::List => {
            let flows = client.get("/api/v1/flows").await?;
            if json {
                println!("{flows}");
                return Ok(());
            }
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let mut rows = vec![["FLOW", "STATE", "LSN", "LAG", "PARKED"].map(str::to_owned).to_vec()];
            for f in flows.as_array().into_iter().flatten() {
                rows.push(
                    [&f["name"], &f["state"], &f["lsn"], &f["lag_changes"], &f["dead_letters"]]
                        .map(&text)
                        .to_vec(),
                );
            }
            print_table(&rows);
            return Ok(());
        }
        FlowVerb::Pause { flow } => client.post(&act(flow, "pause"), &json!({})).await?,
        FlowVerb::Resume { flow } => client.post(&act(flow, "resume"), &json!({})).await?,
        FlowVerb::Retry { flow } => client.post(&act(flow, "retry"), &json!({})).await?,
        FlowVerb::Resnapshot { flow, tables } => {
            client.post(&act(flow, "resnapshot"), &json!({ "tables": tables })).await?
        }
        FlowVerb::Verify { .. } => return Err(Failure::new(2, "verify is no act of the node")),
        FlowVerb::DeadLetters { flow } => {
            let letters = client.get(&format!("/api/v1/flows/{flow}/dead-letters")).await?;
            if json {
                println!("{letters}");
                return Ok(());
            }
            let mut rows = vec![["LSN", "OP", "TABLE", "KEY", "REASON"].map(str::to_owned).to_vec()];
            for l in letters.as_array().into_iter().flatten() {
                let text = |key: &str| l[key].as_str().map_or_else(|| l[key].to_string(), str::to_owned);
                rows.push(vec![
                    text("lsn"),
                    text("op"),
                    format!("{}.{}", text("db"), text("table")),
                    text("key"),
                    text("reason"),
                ]);
            }
            print_table(&rows);
            return Ok(());
        }
    };
    if json {
        println!("{answer}");
    } else {
        match verb {
            FlowVerb::Retry { .. } => {
                println!("{} delivered, {} still parked", answer["delivered"], answer["parked"])
            }
            FlowVerb::Resnapshot { .. } => println!("reading anew: {}", answer["tables"]),
            FlowVerb::Pause { flow } => println!("paused: {flow}"),
            FlowVerb::Resume { flow } => println!("resumed: {flow}"),
            FlowVerb::List | FlowVerb::Verify { .. } | FlowVerb::DeadLetters { .. } => {}
        }
    }
    Ok(())
}

/// A report that can be sent to anyone: configuration without secrets, versions, status, sizes.
pub async fn doctor(dir: &Path) -> Result<(), Failure> {
    let project = load(dir)?;
    println!("tidemill {}", env!("CARGO_PKG_VERSION"));
    println!("project {:?} in {}", project.node.name, project.dir.display());
    for (name, source) in &project.sources {
        println!("source {name}: {source:?}");
        match journal::open_read_only(Arc::new(RealDisk), &project.journal_dir(name)) {
            Ok(journal) => {
                let sealed = journal.sealed();
                println!(
                    "  journal: {} bytes, lsn {} to {}, epoch {}",
                    journal.bytes_on_disk(),
                    journal.first_lsn(),
                    sealed.lsn,
                    sealed.epoch
                );
            }
            Err(error) => println!("  journal: {}", base::error::chain(&error)),
        }
    }
    for (name, sink) in &project.sinks {
        println!("sink {name}: {sink:?}");
    }
    for (name, flow) in &project.flows {
        println!("flow {name}: {flow:?}");
    }
    match NodeClient::new(&project).get("/api/v1/status").await {
        Ok(status) => println!("status: {status}"),
        Err(failure) => println!("status: {}", failure.message),
    }
    Ok(())
}
