//! `tidemill import`: a project out of another tool's configuration, and a list of all that was not taken over.
//!
//! Planning is pure: text in, files and notes out. Passwords never come along, only references to them.

mod canal;
mod datax;
mod debezium;
mod regex;

use crate::failure::Failure;
use clap::Subcommand;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A connector's configuration is some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Two writers to one topic would tell its readers everything twice.
const SAME_TOPICS: &str = "the flow writes to the topics of the old tool: while both run, give it others (`options: {topic: \"new.{db}.{table}\"}`)";

#[derive(Subcommand)]
pub enum Import {
    /// A Debezium connector for MySQL or MariaDB: the JSON that Kafka Connect takes, with or without `name` and `config`
    /// around it.
    Debezium {
        /// The JSON file.
        file: PathBuf,
        /// The folder to write to; the project folder by default. Files that are there are never overwritten.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// A DataX job that reads MySQL, or text files: its JSON. Each table becomes a flow that collects it into the project's engine.
    Datax {
        /// The JSON file.
        file: PathBuf,
        /// The folder to write to; the project folder by default. Files that are there are never overwritten.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// A Canal instance: its `instance.properties`.
    Canal {
        /// The properties file.
        file: PathBuf,
        /// The folder to write to; the project folder by default. Files that are there are never overwritten.
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

/// A project that does what the other tool did, as far as it can.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What its source, its sink and its flow are called.
    name: String,
    source: Yaml,
    sink: Yaml,
    /// The flow without its tables and steps.
    flow: Yaml,
    /// Flows that collect, by name: they write into the engine, and there is neither a sink nor another flow.
    collections: BTreeMap<String, Yaml>,
    /// The tables of the source.
    include: Vec<String>,
    /// Tables whose columns are not all shown as they are, and the steps that hide them: each gets a flow of its own.
    hidden: BTreeMap<String, Vec<String>>,
    /// Whether columns would be shown that the other tool hides: then the flow must not run before someone has looked at it.
    shows_too_much: bool,
    /// What was not taken over, or not quite, by the other tool's name, and why.
    notes: Vec<(String, String)>,
}

/// Lines of a YAML file.
#[derive(Debug, Default, PartialEq)]
struct Yaml(String);

impl Yaml {
    fn put(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key}: {value}");
    }

    /// A text as YAML reads it in any case: JSON's strings are YAML's.
    fn put_text(&mut self, key: &str, value: &str) {
        self.put(key, &quoted(value));
    }

    fn put_list(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
            self.put(key, &format!("[{}]", values.join(", ")));
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub fn run(import: Import, project: &Path, quiet: bool) -> Result<(), Failure> {
    let (into, plan) = match import {
        Import::Debezium { file, into } => (into, debezium::plan(&read(&file)?)?),
        Import::Canal { file, into } => (into, canal::plan(&read(&file)?)?),
        Import::Datax { file, into } => {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            (into, datax::plan(&read(&file)?, &name)?)
        }
    };
    let dir = into.unwrap_or_else(|| project.to_owned());
    write(&plan, &dir)?;
    for (what, why) in &plan.notes {
        eprintln!("note: {what}: {why}");
    }
    if !quiet {
        let (dir, notes) = (dir.display(), plan.notes.len());
        let written = match plan.collections.len() {
            0 => format!("source, sink and flow `{}`", plan.name),
            1 => format!("source `{}` and a flow", plan.name),
            flows => format!("source `{}` and {flows} flows", plan.name),
        };
        println!("wrote {written} to {dir}; notes on {notes} settings are beside the flow");
        if plan.shows_too_much {
            println!("the flow does not run yet: it would show columns that were hidden");
            println!("it is in drafts/: mend it, then move it to flows/");
        }
        println!("next: tidemill -C {dir} check");
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    let fail = |e: &std::io::Error| Failure::new(2, format!("failed to read {}: {e}", file.display()));
    let size = fs::metadata(file).map_err(|e| fail(&e))?.len();
    if size > FILE_BYTES_MAX {
        return Err(Failure::new(2, format!("failed to read {}: it has {size} bytes", file.display()))
            .hint("name the connector's own configuration file"));
    }
    fs::read_to_string(file).map_err(|e| fail(&e))
}

/// All files or none: nothing is written over.
fn write(plan: &Plan, dir: &Path) -> Result<(), Failure> {
    let files = plan.files();
    let taken: Vec<&str> = files.keys().map(String::as_str).filter(|name| dir.join(name).exists()).collect();
    if !taken.is_empty() {
        return Err(Failure::new(
            2,
            format!("failed to import: {} has {} already", dir.display(), taken.join(", ")),
        )
        .hint("name another folder: --into DIR"));
    }
    let engine = if plan.collections.is_empty() { "" } else { "engine: sqlite:./data/warehouse.db\n" };
    let node = ("tidemill.yaml".to_owned(), format!("name: {}\n{engine}", plan.name));
    let node = Some(node).filter(|(name, _)| !dir.join(name).exists());
    for (name, text) in node.into_iter().chain(files) {
        let path = dir.join(name);
        let folder = path.parent().expect("a file has a folder");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, text))
            .map_err(|e| Failure::io(&format!("write {}", path.display()), &e))?;
    }
    Ok(())
}

impl Plan {
    fn note(&mut self, what: &str, why: impl Into<String>) {
        self.notes.push((what.to_owned(), why.into()));
    }

    /// Path and text of each file.
    fn files(&self) -> BTreeMap<String, String> {
        let name = &self.name;
        let mut files = BTreeMap::new();
        files.insert(format!("sources/{name}.yaml"), self.source.0.clone());
        if !self.collections.is_empty() {
            for (flow, text) in &self.collections {
                files.insert(format!("flows/{flow}.yaml"), text.0.clone());
            }
            if let Some(first) = self.collections.keys().next() {
                self.put_notes(files.entry(format!("flows/{first}.yaml")).or_default());
            }
            return files;
        }
        files.insert(format!("sinks/{name}.yaml"), self.sink.0.clone());
        let folder = if self.shows_too_much { "drafts" } else { "flows" };
        let rest: Vec<String> =
            self.include.iter().filter(|table| !self.hidden.contains_key(*table)).cloned().collect();
        // Where every table has a flow of its own, the last one has the notes.
        let mut main = format!("{folder}/{name}.yaml");
        for (table, steps) in &self.hidden {
            let mut text = self.head(std::slice::from_ref(table));
            let _ = writeln!(text, "transform:\n  - {}", steps.join("\n  - "));
            // `a.b_c` and `a_b.c` have one slug.
            let mut path = format!("{folder}/{name}_{}.yaml", slug(table));
            for number in 2.. {
                if !files.contains_key(&path) {
                    break;
                }
                path = format!("{folder}/{name}_{}_{number}.yaml", slug(table));
            }
            if rest.is_empty() {
                main.clone_from(&path);
            }
            files.insert(path, text + &self.flow.0);
        }
        // A flow without a list carries every table of its source.
        let shown = if self.hidden.is_empty() { &[][..] } else { &rest[..] };
        let flow = files.entry(main).or_insert_with(|| self.head(shown) + &self.flow.0);
        self.put_notes(flow);
        files
    }

    fn put_notes(&self, flow: &mut String) {
        if !self.notes.is_empty() {
            flow.push_str("\n# Not taken over, or not quite:\n");
        }
        for (what, why) in &self.notes {
            // A note is one line, whatever the other tool's file had in it.
            let line = format!("{what}: {why}").replace(char::is_control, " ");
            let _ = writeln!(flow, "# - {line}");
        }
    }

    fn head(&self, tables: &[String]) -> String {
        let mut head = Yaml::default();
        head.put_text("from", &self.name);
        head.put_text("to", &self.name);
        head.put_list("tables", tables);
        head.0
    }
}

/// A name for files and for the environment: letters, digits and `_`.
fn slug(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let slug: String = text.chars().map(plain).collect();
    let slug = slug.trim_matches('_');
    match slug.chars().next() {
        None => "imported".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("s{slug}"),
        Some(_) => slug.to_owned(),
    }
}

/// The part of a URL before `@`, escaped.
fn user_part(user: &str) -> String {
    let mut out = String::new();
    for byte in user.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The source's URL, with the password as a reference to the environment.
fn mysql_url(name: &str, user: &str, host: &str, port: &str) -> String {
    format!("mysql://{}:${{env:{}_PASSWORD}}@{host}:{port}", user_part(user), name.to_uppercase())
}

/// A list of regular expressions as table patterns; what is not quite translated is noted.
fn tables(plan: &mut Plan, what: &str, list: &str, takes_more: bool) -> Vec<String> {
    let mut out = Vec::new();
    for expression in regex::split_list(list) {
        match regex::to_patterns(&expression) {
            Ok(patterns) => out.extend(patterns),
            Err(wider) if takes_more => {
                plan.note(
                    what,
                    format!("`{expression}` cannot be said with * and ?: `{wider}` takes the same and may take more"),
                );
                out.push(wider);
            }
            Err(_) => plan.note(
                what,
                format!("`{expression}` cannot be said with * and ?: nothing is left out for it"),
            ),
        }
    }
    out.dedup();
    out
}
