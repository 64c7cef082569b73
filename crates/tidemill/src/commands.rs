//! What each command does, between its arguments and its answer.

use crate::FlowVerb;
use crate::client::NodeClient;
use crate::daemon::PidFile;
use crate::failure::Failure;
use crate::http::{ChangeLister, ChangesQuery, PreviewQuery};
use crate::project::{NodeConfig, Problem, Project};
use crate::verify;
use crate::{files, preview, reachable, start, upgrade};
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

/// What commands need that speak to the running node: they work where the project's secrets are not at hand.
pub fn load_node(dir: &Path) -> Result<NodeConfig, Failure> {
    NodeConfig::load(dir).map_err(|problems| report(&problems))
}

/// A project with its secrets, or every mistake in it on standard error.
pub fn load(dir: &Path) -> Result<Project, Failure> {
    Project::load(dir).map_err(|problems| report(&problems))
}

/// Every mistake on standard error.
pub fn report(problems: &[Problem]) -> Failure {
    for problem in problems {
        eprintln!("{problem}");
    }
    Failure::new(2, format!("the project has {}", many(problems.len(), "mistake")))
}

pub async fn up(
    dir: &Path,
    roles: &[String],
    quiet: bool,
    take_over: bool,
    pid_file: Option<&Path>,
) -> Result<(), Failure> {
    let program = std::env::current_exe().ok();
    let mut successor = take_over.then(upgrade::meet).transpose()?;
    let mut project = Project::load(dir).map_err(|problems| {
        if let (Some(successor), Some(first)) = (&successor, problems.first()) {
            successor.fail(&first.to_string());
        }
        let mut failure = report(&problems);
        failure.message.push_str("; nothing was started");
        failure
    })?;
    let has = |role: &str| roles.iter().any(|wanted| wanted == role);
    if !has("flow") {
        project.sources.clear();
        project.flows.clear();
        project.collections.clear();
        project.node.listen.mysql = None;
    }
    if !has("mesh") {
        project.mesh = None;
    }
    let (stop, shutdown) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::io("listen for signals", &e))?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let _ = stop.send(true);
    });
    let taken = match successor.take() {
        Some(successor) => Some(start::take_over(&project, successor).await?),
        None => None,
    };
    let mut pid_file = match pid_file {
        Some(path) if taken.is_some() => Some(PidFile::replace(path)?),
        Some(path) => Some(PidFile::take(path)?),
        None => None,
    };
    let shows = !quiet && std::io::stderr().is_terminal();
    let scheme = if project.node.tls.is_some() { "https" } else { "http" };
    let name = project.node.name.clone();
    for note in project.notes() {
        tracing::info!("{note}");
    }
    start::run(&project, shutdown, start::Origin { program, taken }, |address, client| {
        if let Some(file) = &mut pid_file {
            file.tell();
        }
        tracing::info!(project = name, address = %address, "up: status at {scheme}://{address}/api/v1/status");
        if shows {
            tokio::spawn(show_snapshot(client));
        }
    })
    .await
}

/// A bar while the first snapshot runs.
async fn show_snapshot(client: NodeClient) {
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
    let mut notes = project.notes();
    let reachable::Report { lines, notes: found, findings } =
        if connect { reachable::reach(&project).await } else { reachable::Report::default() };
    notes.extend(found);
    if json {
        let list: Vec<Value> = findings
            .iter()
            .map(|f| json!({"where": f.place, "message": f.message, "hint": f.hint, "unreachable": f.unreachable}))
            .collect();
        println!("{}", json!({"problems": list, "notes": notes}));
    } else {
        for line in lines.iter().filter(|_| !quiet) {
            println!("{line}");
        }
        for note in notes.iter().filter(|_| !quiet) {
            eprintln!("note: {note}");
        }
        for finding in &findings {
            eprintln!("{}: {}\n  hint: {}", finding.place, finding.message, finding.hint);
        }
    }
    if findings.is_empty() {
        if !quiet && !json {
            let collected =
                project.collected.keys().filter(|name| !project.sources.contains_key(*name)).count();
            let sources = project.sources.len() + collected;
            let (sinks, flows) = (project.sinks.len(), project.flows.len() + project.collections.len());
            let groups = project.mesh.as_ref().map_or(0, |mesh| mesh.groups.len());
            let mesh =
                if groups == 0 { String::new() } else { format!(", {} of servers", many(groups, "group")) };
            let (sources, sinks, flows) = (many(sources, "source"), many(sinks, "sink"), many(flows, "flow"));
            println!("ok: {sources}, {sinks}, {flows}{mesh}");
        }
        return Ok(());
    }
    let status = if findings.iter().any(|f| f.unreachable) { 3 } else { 2 };
    Err(Failure::new(
        status,
        if json {
            String::new()
        } else {
            let hints = if findings.len() == 1 { "its hint says" } else { "their hints say" };
            format!("{} found; {hints} what to do", many(findings.len(), "problem"))
        },
    ))
}

/// `1 flow`, `2 flows`.
pub fn many(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `tidemill plan`: of the placement, of the models, or of both where a project has both.
pub async fn plan(dir: &Path, impact: bool, json: bool) -> Result<(), Failure> {
    let placed = dir.join(crate::placement::FILE).exists();
    let project = Project::load(dir);
    let models = project.as_ref().is_ok_and(|project| !project.models.is_empty());
    if let Ok(project) = &project
        && models
    {
        crate::warehouse::plan(project, impact, json).await?;
    }
    if placed {
        return crate::placement::plan(dir, json).await;
    }
    match project {
        Ok(_) if models => Ok(()),
        Ok(_) => {
            Err(Failure::new(2, format!("the project has neither models nor a {}", crate::placement::FILE))
                .hint("docs/guides/models.md and docs/guides/placement.md each begin with one"))
        }
        Err(problems) => Err(report(&problems)),
    }
}

pub async fn status(dir: &Path, json: bool) -> Result<(), Failure> {
    let status = NodeClient::new(&load_node(dir)?)?.get("/api/v1/status").await?;
    if json {
        println!("{status}");
    } else {
        print_status(&status);
    }
    Ok(())
}

/// Topics that a line names; more are only counted.
const TOPICS_MAX: usize = 3;

/// Of a Kafka source: the offset of the next record of each partition.
fn topic_offsets(topics: &Value) -> String {
    let Some(topics) = topics.as_object() else { return String::new() };
    let one = |(name, offsets): (&String, &Value)| {
        let offsets = offsets.as_array().into_iter().flatten().map(Value::to_string);
        format!("{name} {}", offsets.collect::<Vec<_>>().join(","))
    };
    let mut out: Vec<String> = topics.iter().take(TOPICS_MAX).map(one).collect();
    if topics.len() > TOPICS_MAX {
        out.push(format!("and {} more", many(topics.len() - TOPICS_MAX, "topic")));
    }
    if out.is_empty() { "no topic".to_owned() } else { out.join("; ") }
}

/// The object of `status --json` as tables, and what is wrong below them.
pub fn print_status(status: &Value) {
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
            _ if p["commit_ts"].is_string() => format!("{} of TiDB", text(&p["commit_ts"])),
            _ if p["offsets"].is_object() => topic_offsets(&p["offsets"]),
            (Value::String(gtid), _) => gtid.clone(),
            (_, Value::String(file)) => format!("{file}:{}", text(&p["pos"])),
            // A SQLite source has a number of a change, and no file.
            _ => text(&p["pos"]),
        };
        let lag = match s["lag_messages"].as_u64() {
            Some(messages) => many(usize::try_from(messages).unwrap_or(usize::MAX), "message"),
            None => format!("{} ms", text(&s["lag_ms"])),
        };
        rows.push(vec![text(&s["name"]), text(&s["state"]), text(&s["lsn"]), lag, rows_text, position]);
    }
    print_table(&rows);
    println!();
    let mut rows = vec![["MIRROR OF", "STATE", "LSN", "LAG", "ROWS", "TABLES"].map(str::to_owned).to_vec()];
    for s in status["sources"].as_array().into_iter().flatten().filter(|s| s["mirror"].is_object()) {
        let mirror = &s["mirror"];
        let tables = mirror["tables"].as_array().map_or(&[][..], Vec::as_slice);
        let whole = tables.iter().filter(|table| table["whole"] == true).count();
        rows.push(vec![
            text(&s["name"]),
            text(&mirror["state"]),
            text(&mirror["lsn"]),
            changes(&mirror["lag_changes"]),
            text(&mirror["rows"]),
            format!("{whole} of {} whole", tables.len()),
        ]);
    }
    if rows.len() > 1 {
        print_table(&rows);
        println!();
    }
    let mut rows = vec![["FLOW", "STATE", "FROM", "TO", "LSN", "LAG", "PARKED"].map(str::to_owned).to_vec()];
    for f in status["flows"].as_array().into_iter().flatten() {
        let lag = changes(&f["lag_changes"]);
        rows.push(
            [&f["name"], &f["state"], &f["from"], &f["to"], &f["lsn"]]
                .map(&text)
                .into_iter()
                .chain([lag, text(&f["dead_letters"])])
                .collect(),
        );
    }
    print_table(&rows);
    crate::mesh::print_backends(&status["mesh"]);
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
            if item["watermark"]["stalled"] == true {
                println!(
                    "\n{}: no watermark comes by {}: nothing is captured until one does",
                    text(&item["name"]),
                    text(&item["watermark"]["slowest"])
                );
                println!(
                    "  hint: is the changefeed paused, or has it failed? `cdc cli changefeed query` says"
                );
            }
            if let Some(table) = item["watermark"]["waits_for"].as_str() {
                println!(
                    "\n{}: rows of `{table}` wait for its definition, which TiCDC sends every two minutes",
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
            if item["dead_letters"].as_u64().is_some_and(|parked| parked > 0) {
                let (name, parked) = (text(&item["name"]), &item["dead_letters"]);
                println!("\n{name}: {parked} parked: `tidemill flow dead-letters {name}` shows them and why");
            }
        }
    }
}

/// `1 change`, of a number in an answer.
fn changes(count: &Value) -> String {
    many(count.as_u64().unwrap_or_default() as usize, "change")
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
    let node = load_node(dir)?;
    let sources = files::names(dir, "sources");
    let names: Vec<&str> = sources.iter().filter_map(|file| file.strip_suffix(".yaml")).collect();
    if !names.contains(&source) {
        return Err(Failure::new(2, format!("there is no source `{source}`"))
            .hint(format!("there are: {}", names.join(", "))));
    }
    if !matches!(query.from.as_str(), "start" | "now") && query.from.parse::<u64>().is_err() {
        return Err(Failure::new(2, format!("`{}` is not start, now or an lsn", query.from))
            .hint("for example: --from 1"));
    }
    if let Some(table) = &query.table
        && let Err(error) = Patterns::new(std::slice::from_ref(table), &[])
    {
        return Err(Failure::new(2, error.to_string()).hint("--table shop.orders"));
    }
    if offline {
        let journal = journal::open_read_only(Arc::new(RealDisk), &node.journal_dir(source))
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
    let response = NodeClient::new(&node)?.stream(&path).await?;
    let mut parts = response.into_data_stream();
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

pub async fn flow(dir: &Path, verb: FlowVerb, json: bool, quiet: bool) -> Result<(), Failure> {
    if let FlowVerb::Preview { flow, limit, offline } = &verb {
        let query = PreviewQuery { limit: *limit, follow: true };
        return preview::run(dir, flow, query, *offline, json).await;
    }
    // It reads both ends itself; every other verb is asked of the node.
    if let FlowVerb::Verify { flow, tables, repair } = &verb {
        return verify::run(dir, flow, tables, *repair, json, quiet).await;
    }
    let client = NodeClient::new(&load_node(dir)?)?;
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
                let [name, state, lsn] = [&f["name"], &f["state"], &f["lsn"]].map(&text);
                rows.push(vec![name, state, lsn, changes(&f["lag_changes"]), text(&f["dead_letters"])]);
            }
            print_table(&rows);
            return Ok(());
        }
        FlowVerb::Pause { flow } => client.post(&act(flow, "pause"), &json!({})).await?,
        FlowVerb::Resume { flow } => client.post(&act(flow, "resume"), &json!({})).await?,
        FlowVerb::Retry { flow } => client.post(&act(flow, "retry"), &json!({})).await?,
        FlowVerb::Rewind { flow, to } => client.post(&act(flow, "rewind"), &json!({ "to": to })).await?,
        FlowVerb::Resnapshot { flow, tables } => {
            client.post(&act(flow, "resnapshot"), &json!({ "tables": tables })).await?
        }
        FlowVerb::Verify { .. } | FlowVerb::Preview { .. } => return Ok(()),
        FlowVerb::DeadLetters { flow } => {
            let letters = client.get(&format!("/api/v1/flows/{flow}/dead-letters")).await?;
            if json {
                println!("{letters}");
                return Ok(());
            }
            if letters.as_array().is_none_or(Vec::is_empty) {
                println!("no parked changes");
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
            FlowVerb::Resnapshot { .. } => {
                let tables = answer["tables"].as_array().into_iter().flatten().filter_map(Value::as_str);
                println!("reading anew: {}", tables.collect::<Vec<_>>().join(", "));
            }
            FlowVerb::Rewind { flow, .. } => {
                println!("rewound: {flow} delivers again from change {}", answer["from"]);
                println!("readers of the sink may see older states until it has caught up");
            }
            FlowVerb::Pause { flow } => println!("paused: {flow}"),
            FlowVerb::Resume { flow } => println!("resumed: {flow}"),
            FlowVerb::List
            | FlowVerb::Verify { .. }
            | FlowVerb::Preview { .. }
            | FlowVerb::DeadLetters { .. } => {}
        }
    }
    Ok(())
}
