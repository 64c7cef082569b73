//! `tidemill mesh capture …`: statements that pass the SQL proxy, in files.

use crate::client::NodeClient;
use crate::commands::{load_node, many};
use crate::failure::Failure;
use crate::http::{App, problem};
use crate::mesh::{NONE, NONE_HINT};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base::Code;
use clap::Subcommand;
use mesh::capture::{Reader, Shown};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum CaptureVerb {
    /// Begin to capture, as `capture` of `mesh.yaml` says.
    Start,
    /// End it; what is held has been written then.
    Stop,
    /// Whether it runs, and how much has been captured and shed.
    Status,
    /// Print the records of a file or a folder, without a running node; with `--json` one object a line.
    Show {
        /// A file, or the folder of a capture.
        path: PathBuf,
        /// Only those whose text, user or database has this in it.
        #[arg(long)]
        grep: Option<String>,
        /// Stop after this many.
        #[arg(long)]
        limit: Option<usize>,
    },
}

pub async fn run(dir: &Path, verb: CaptureVerb, json: bool) -> Result<(), Failure> {
    let (path, post) = match verb {
        CaptureVerb::Show { path, grep, limit } => {
            return show(&path, grep.as_deref(), limit.unwrap_or(usize::MAX), json);
        }
        CaptureVerb::Start => ("/api/v1/mesh/capture:start", true),
        CaptureVerb::Stop => ("/api/v1/mesh/capture:stop", true),
        CaptureVerb::Status => ("/api/v1/mesh/capture", false),
    };
    let node = NodeClient::new(&load_node(dir)?)?;
    let status = if post { node.post(path, &json!({})).await? } else { node.get(path).await? };
    if json {
        println!("{status}");
    } else {
        print_status(&status);
    }
    Ok(())
}

fn print_status(status: &Value) {
    let count = |key: &str| status[key].as_u64().unwrap_or_default();
    let text = |key: &str| status[key].as_str().unwrap_or("-").to_owned();
    let state = if status["running"] == true { "running" } else { "not running" };
    println!("capture    {state}");
    println!("folder     {}", text("dir"));
    println!(
        "written    {}, {:.1} MB",
        many(usize::try_from(count("captured")).unwrap_or(usize::MAX), "record"),
        count("bytes") as f64 / 1e6
    );
    println!("shed       {}", count("shed"));
    if status["error"].is_string() {
        println!("ended by   {}", text("error"));
    }
}

fn show(path: &Path, grep: Option<&str>, limit: usize, json: bool) -> Result<(), Failure> {
    let mut reader = Reader::open(path).map_err(|error| {
        Failure::new(2, format!("failed to read the capture {}: {error}", path.display()))
            .hint("name a file `sql-….capture`, or the folder that has them")
    })?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = limit;
    while left > 0
        && let Some(record) = reader.read()
    {
        let shown = record.shown();
        let has =
            |word: &str| [&shown.text, &shown.user, &shown.database].iter().any(|text| text.contains(word));
        if grep.is_some_and(|word| !has(word)) {
            continue;
        }
        left -= 1;
        let line = if json { serde_json::to_string(&shown).unwrap_or_default() } else { line_of(&shown) };
        writeln!(out, "{line}").map_err(|error| Failure::io("print", &error))?;
    }
    out.flush().map_err(|error| Failure::io("print", &error))?;
    for note in reader.notes {
        eprintln!("note: {note}");
    }
    Ok(())
}

/// A record for a person. What a client wrote never moves the terminal's cursor.
fn line_of(shown: &Shown) -> String {
    let at = i64::try_from(shown.at_us).ok().and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    let at = at.map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string());
    let kind = serde_json::to_value(shown.kind).ok();
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("-").to_owned();
    let error = if shown.error == 0 { String::new() } else { format!(" error {}", shown.error) };
    let mut notes = String::new();
    for (is, note) in [(shown.left_out, " (literals left out)"), (shown.cut, " (cut)")] {
        notes.push_str(if is { note } else { "" });
    }
    let statement = if shown.statement == 0 { String::new() } else { format!(" #{}", shown.statement) };
    let text = match shown.text.is_empty() {
        true => shown.parameters.clone(),
        false => shown.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
    };
    format!(
        "{at} {:08x} {}@{} {:.3} ms {} rows{error} {kind}{statement}{notes} {text}",
        shown.session,
        shown.user,
        shown.database,
        f64::from(shown.elapsed_us) / 1e3,
        shown.rows,
    )
}

/// `GET /api/v1/mesh/capture`
pub async fn status(State(app): State<App>) -> Response {
    match &app.node.mesh {
        Some(mesh) => axum::Json(mesh.capture()).into_response(),
        None => problem(Code::NotFound, NONE, NONE_HINT),
    }
}

/// `POST /api/v1/mesh/capture:start`
pub async fn start(State(app): State<App>) -> Response {
    let Some(mesh) = app.node.mesh.clone() else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let starting = mesh.clone();
    match tokio::task::spawn_blocking(move || starting.start_capture()).await {
        Ok(Ok(_)) => axum::Json(mesh.capture()).into_response(),
        Ok(Err(error)) => {
            let hint = "make `capture.dir` of mesh.yaml a folder that this node may write to";
            problem(Code::FailedPrecondition, format!("failed to begin the capture: {error}"), hint)
        }
        Err(_) => problem(Code::Internal, "the capture did not begin", "see the node's log"),
    }
}

/// `POST /api/v1/mesh/capture:stop`
pub async fn stop(State(app): State<App>) -> Response {
    let Some(mesh) = app.node.mesh.clone() else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let stopping = mesh.clone();
    match tokio::task::spawn_blocking(move || stopping.stop_capture()).await {
        Ok(_) => axum::Json(mesh.capture()).into_response(),
        Err(_) => problem(Code::Internal, "the capture did not end", "see the node's log"),
    }
}
