//! `tidemill run`, `backfill`, `runs`, `test` and `rollback --run`: asked of the node that is up, or done here where none is.

use super::load;
use super::routes::RunRequest;
use super::runner::{Warehouse, run_json};
use crate::client::NodeClient;
use crate::commands::{load_node, many, print_table, report};
use crate::failure::Failure;
use crate::project::Project;
use ::warehouse::unit;
use catalog::{Catalog, RunsAsked};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Runs that a person gets.
const SHOWN: usize = 30;

#[derive(Args)]
pub struct RunArgs {
    /// A flow that collects, or a model; `NAME+` with all that stands on it, `+NAME` with all that it stands on, or `all`.
    target: String,
    /// Of models with intervals: compute again from this day on.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day that is computed again; the first by default.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Make the tables of models anew.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    full: bool,
}

#[derive(Args)]
pub struct BackfillArgs {
    /// A model with intervals; `NAME+` with all that stands on it.
    target: String,
    /// The first day.
    #[arg(long, value_name = "DAY")]
    from: String,
    /// The last day.
    #[arg(long, value_name = "DAY")]
    to: String,
}

#[derive(Args)]
pub struct RunsArgs {
    /// Only runs of this flow, model or check.
    name: Option<String>,
    /// `flow`, `model`, `check` or `batch`.
    #[arg(long)]
    kind: Option<String>,
    /// How many.
    #[arg(long, default_value_t = SHOWN)]
    limit: usize,
}

impl From<BackfillArgs> for RunArgs {
    fn from(args: BackfillArgs) -> Self {
        Self { target: args.target, from: Some(args.from), to: Some(args.to), full: false }
    }
}

pub async fn run(dir: &Path, args: RunArgs, json: bool, quiet: bool) -> Result<(), Failure> {
    let request = RunRequest { target: args.target, from: args.from, to: args.to, full: args.full };
    request.ask()?;
    let node = NodeClient::new(&load_node(dir)?)?;
    let body = serde_json::to_value(&request).unwrap_or_default();
    match node.post("/api/v1/runs", &body).await {
        Ok(answer) => {
            let id = answer["run"].as_i64().unwrap_or_default();
            let ended = follow(quiet || json, async || node.get(&format!("/api/v1/runs/{id}")).await).await?;
            shown(&ended, json)
        }
        Err(failure) if failure.away => here(dir, &request, json, quiet).await,
        Err(failure) => Err(failure),
    }
}

/// Runs in this process, where no node is up.
async fn here(dir: &Path, request: &RunRequest, json: bool, quiet: bool) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    let warehouse = opened(dir, stopped).await?;
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
        // The runs look at it as long as this process is there.
        std::future::pending::<()>().await;
    });
    let id = warehouse.start(request.ask()?, "command")?;
    let catalog = warehouse.catalog();
    let look = async || {
        let failed = |e| Failure::of("read the run", &e);
        let run = catalog.run(id).map_err(failed)?;
        let asked = RunsAsked { parent: Some(id), ..RunsAsked::default() };
        let parts = catalog.runs(&asked, 1000).map_err(failed)?;
        let mut shown = run.as_ref().map(run_json).unwrap_or_default();
        shown["parts"] = parts.iter().rev().map(run_json).collect();
        shown["live"] = warehouse.live().into();
        Ok(shown)
    };
    let ended = follow(quiet || json, look).await?;
    shown(&ended, json)
}

async fn opened(dir: &Path, stop: watch::Receiver<bool>) -> Result<Warehouse, Failure> {
    let project = Project::load(dir).map_err(|problems| report(&problems))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&project.node.data_dir)
        .map_err(|e| Failure::io(&format!("make {}", project.node.data_dir.display()), &e))?;
    let catalog = Catalog::open(&project.catalog_path()).map_err(|e| Failure::of("open the catalog", &e))?;
    Warehouse::open(&project, catalog, stop).await?.ok_or_else(no_engine)
}

fn no_engine() -> Failure {
    Failure::new(2, "the project has no engine")
        .hint("write `engine: sqlite:./data/warehouse.db` in tidemill.yaml")
}

/// Looks at a run until it has ended, with a line about what goes on.
async fn follow(
    quiet: bool,
    mut look: impl AsyncFnMut() -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let bar = match !quiet && std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    loop {
        let run = look().await?;
        if run["state"] != "running" {
            bar.finish_and_clear();
            return Ok(run);
        }
        let line = |it: &Value| match it["intervals"].as_object() {
            Some(intervals) => {
                format!("{}: {} of {} intervals", text(&it["name"]), intervals["done"], intervals["of"])
            }
            None => format!(
                "{}: {} rows read, {} written",
                text(&it["name"]),
                it["rows_read"],
                it["rows_written"]
            ),
        };
        let lines: Vec<String> = run["live"].as_array().into_iter().flatten().map(line).collect();
        bar.set_message(lines.join(" · "));
        bar.tick();
        tokio::time::sleep(LOOK).await;
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

const HEAD: [&str; 10] =
    ["RUN", "KIND", "NAME", "STATE", "READ", "WRITTEN", "REJECTED", "DELETED", "TOOK", "BEGAN"];

fn row(run: &Value) -> Vec<String> {
    let took = match (run["started_ms"].as_i64(), run["ended_ms"].as_i64()) {
        (Some(start), Some(end)) => format!("{:.1} s", (end - start) as f64 / 1000.0),
        _ => String::new(),
    };
    let began = run["started_ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let began = began.map(|at| at.strftime("%F %T").to_string()).unwrap_or_default();
    let cells =
        ["run", "kind", "name", "state", "rows_read", "rows_written", "rows_rejected", "rows_deleted"];
    cells.iter().map(|key| text(&run[*key])).chain([took, began]).collect()
}

/// The parts of a batch, what someone should look at, and how it ended.
fn shown(run: &Value, json: bool) -> Result<(), Failure> {
    if json {
        println!("{run}");
    } else {
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        rows.extend(run["parts"].as_array().into_iter().flatten().map(row));
        print_table(&rows);
        for part in run["parts"].as_array().into_iter().flatten() {
            if !text(&part["message"]).is_empty() {
                eprintln!("{}: {}", text(&part["name"]), text(&part["message"]));
                if !text(&part["hint"]).is_empty() {
                    eprintln!("  hint: {}", text(&part["hint"]));
                }
            }
        }
    }
    match run["state"].as_str() {
        Some("ok" | "warned") => Ok(()),
        Some("interrupted") => Err(Failure::new(130, "the run was stopped")),
        _ => {
            let message = text(&run["message"]);
            let message = if message.is_empty() { "the run failed".to_owned() } else { message };
            Err(Failure::new(1, message).hint("`tidemill runs` keeps what each said"))
        }
    }
}

pub async fn runs(dir: &Path, args: RunsArgs, json: bool) -> Result<(), Failure> {
    let node = load_node(dir)?;
    let path = node.catalog_path(dir);
    if !path.exists() {
        return Err(Failure::new(2, "nothing has run yet").hint("`tidemill run all` does"));
    }
    let catalog = Catalog::open(&path).map_err(|e| Failure::of("open the catalog", &e))?;
    let asked = RunsAsked { kind: args.kind, name: args.name, ..RunsAsked::default() };
    let runs =
        catalog.runs(&asked, args.limit.clamp(1, 10_000)).map_err(|e| Failure::of("read the runs", &e))?;
    let runs: Vec<Value> = runs.iter().map(run_json).collect();
    if json {
        println!("{}", json!({ "runs": runs }));
        return Ok(());
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(row));
    print_table(&rows);
    Ok(())
}

/// `tidemill rollback --run N`
pub async fn rollback(dir: &Path, run: i64, quiet: bool) -> Result<(), Failure> {
    let node = NodeClient::new(&load_node(dir)?)?;
    let done = match node.post(&format!("/api/v1/runs/{run}:rollback"), &json!({})).await {
        Ok(answer) => text(&answer["done"]),
        Err(failure) if failure.away => {
            let (_stop, stopped) = watch::channel(false);
            opened(dir, stopped).await?.rollback(run).await?
        }
        Err(failure) => return Err(failure),
    };
    if !quiet {
        println!("{done}");
    }
    Ok(())
}

/// `tidemill test`: exit status 4 when a model gives other rows.
pub async fn test(dir: &Path, only: Option<String>, json: bool, quiet: bool) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let models = load::models(dir, &mut problems);
    let tests = load::tests(dir, &mut problems);
    if !problems.is_empty() {
        return Err(report(&problems));
    }
    let wanted =
        |name: &str, model: &str| only.as_ref().is_none_or(|it| name.contains(it) || model.contains(it));
    let tests: Vec<_> = tests.into_iter().filter(|(_, name, test)| wanted(name, &test.model)).collect();
    if tests.is_empty() {
        let hint = "a test is rows in, rows out: docs/guides/models.md has one";
        return Err(Failure::new(2, "there is no such test").hint(hint));
    }
    let (mut different, mut list) = (0, Vec::new());
    for (file, name, test) in &tests {
        let folder = tempfile::tempdir().map_err(|e| Failure::io("make a folder for a test", &e))?;
        let model = models.iter().find(|it| it.name.eq_ignore_ascii_case(&test.model));
        let ended = match model {
            None => vec![format!("there is no model `{}`", test.model)],
            Some(model) => match unit::run(model, test, folder.path()).await {
                Ok(difference) => difference,
                Err(error) => {
                    let hint = base::Fault::hint(&error).map(|hint| format!("hint: {hint}"));
                    std::iter::once(base::error::chain(&error)).chain(hint).collect()
                }
            },
        };
        different += usize::from(!ended.is_empty());
        if json {
            list.push(json!({"file": file, "test": name, "model": test.model, "ok": ended.is_empty(), "difference": ended}));
        } else if !ended.is_empty() || !quiet {
            let word = if ended.is_empty() { "ok" } else { "differs" };
            println!("{file} {name} ({}): {word}", test.model);
            for line in &ended {
                println!("    {line}");
            }
        }
    }
    if json {
        println!("{}", json!({ "tests": list }));
    }
    if different > 0 {
        let message = format!("{different} of {} differ", many(tests.len(), "test"));
        return Err(Failure::new(4, message).hint("+ is what the model gives, - is what the test wants"));
    }
    Ok(())
}
