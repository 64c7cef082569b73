//! `tidemill doctor`: a report that can be sent to anyone. It never holds a secret: no URL is printed.

use crate::client::NodeClient;
use crate::commands::{many, print_status};
use crate::project::{NodeConfig, Project};
use base::Secret;
use flow::config::{FlowConfig, SinkConfig, SourceConfig};
use journal::RealDisk;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;

pub async fn run(dir: &Path, json: bool) {
    let node = NodeConfig::load(dir);
    let status = match &node {
        Ok(node) => match NodeClient::new(node) {
            Ok(client) => client.get("/api/v1/status").await.map_err(|failure| failure.message),
            Err(failure) => Err(failure.message),
        },
        Err(_) => Err("tidemill.yaml cannot be read".to_owned()),
    };
    let sections = sections(dir);
    if json {
        let facts: serde_json::Map<String, Value> = sections
            .into_iter()
            .map(|(title, lines)| {
                (title, lines.into_iter().map(|(key, value)| (key, json!(value))).collect())
            })
            .collect();
        println!(
            "{}",
            json!({"facts": facts, "status": status.unwrap_or_else(|message| json!({"error": message}))})
        );
        return;
    }
    for (title, lines) in sections {
        println!("{title}");
        for (key, value) in lines {
            println!("  {key}: {value}");
        }
        println!();
    }
    match status {
        Ok(status) => print_status(&status),
        Err(message) => println!("status: {message}"),
    }
}

/// A thing, and what is known of it.
type Section = (String, Vec<(String, String)>);

fn sections(dir: &Path) -> Vec<Section> {
    let fact = |key: &str, value: String| (key.to_owned(), value);
    let system = vec![
        fact("version", env!("CARGO_PKG_VERSION").to_owned()),
        fact("system", format!("{} {}, kernel {}", std::env::consts::OS, std::env::consts::ARCH, kernel())),
        fact("project", fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).display().to_string()),
    ];
    let mut out = vec![("tidemill".to_owned(), system)];
    let project = match Project::load_without_secrets(dir) {
        Ok(project) => project,
        Err(problems) => {
            let mistakes = problems.iter().map(|problem| {
                fact(
                    &format!("{}:{}:{}", problem.path, problem.line, problem.column),
                    problem.message.clone(),
                )
            });
            out.push(("mistakes".to_owned(), mistakes.collect()));
            return out;
        }
    };
    for (name, source) in &project.sources {
        let mut facts = source_facts(source);
        facts.push(fact("journal", journal_size(&project, name)));
        out.push((format!("source {name}"), facts));
    }
    for (name, sink) in &project.sinks {
        out.push((format!("sink {name}"), sink_facts(sink)));
    }
    for (name, flow) in &project.flows {
        out.push((format!("flow {name}"), flow_facts(flow)));
    }
    out
}

fn source_facts(source: &SourceConfig) -> Vec<(String, String)> {
    let mut out = vec![("kind".to_owned(), format!("{:?}", source.kind).to_lowercase())];
    out.extend(place(source.url.as_ref(), source.path.as_deref()));
    out.push(("tables".to_owned(), source.tables.join(", ")));
    if !source.exclude.is_empty() {
        out.push(("exclude".to_owned(), source.exclude.join(", ")));
    }
    out.push(("snapshot".to_owned(), word(source.snapshot)));
    out.push(("on_gap".to_owned(), word(source.on_gap)));
    out
}

fn sink_facts(sink: &SinkConfig) -> Vec<(String, String)> {
    let mut out = vec![("kind".to_owned(), format!("{:?}", sink.kind).to_lowercase())];
    out.extend(place(sink.url.as_ref(), sink.path.as_deref()));
    out
}

fn flow_facts(flow: &FlowConfig) -> Vec<(String, String)> {
    let tables = if flow.tables.is_empty() { "all".to_owned() } else { flow.tables.join(", ") };
    vec![
        ("from".to_owned(), flow.from.clone()),
        ("to".to_owned(), flow.to.clone()),
        ("tables".to_owned(), tables),
        ("transform".to_owned(), many(flow.transform.len(), "step")),
        ("route".to_owned(), many(flow.route.len(), "rule")),
        ("format".to_owned(), flow.options.format.name().to_owned()),
    ]
}

/// A URL names hosts and passwords: it prints as `[redacted]`.
fn place(url: Option<&Secret>, path: Option<&Path>) -> Vec<(String, String)> {
    let url = url.map(|url| ("url".to_owned(), url.to_string()));
    let path = path.map(|path| ("path".to_owned(), path.display().to_string()));
    url.into_iter().chain(path).collect()
}

/// A choice as the configuration spells it.
fn word(choice: impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

fn journal_size(project: &Project, source: &str) -> String {
    match journal::open_read_only(Arc::new(RealDisk), &project.journal_dir(source)) {
        Ok(journal) => {
            let sealed = journal.sealed();
            format!(
                "{} bytes, lsn {} to {}, epoch {}",
                journal.bytes_on_disk(),
                journal.first_lsn(),
                sealed.lsn,
                sealed.epoch
            )
        }
        Err(error) => base::error::chain(&error),
    }
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
