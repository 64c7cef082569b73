//! `tidemill plan` of a project with models: what is new, what changed, what a run would compute, and who stands on it.

use super::load;
use crate::commands::{many, print_table};
use crate::failure::Failure;
use crate::project::Project;
use ::warehouse::WarehouseError;
use ::warehouse::build::{LOOKBACK, count};
use ::warehouse::graph::Node;
use ::warehouse::interval;
use ::warehouse::model::{Model, ModelKind};
use ::warehouse::state::{self, Built};
use engine::{Engine, EngineError, Options};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time of one look at the engine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a run would do with a model.
struct Line {
    name: String,
    change: &'static str,
    what: String,
    rows: Option<u64>,
    downstream: Vec<String>,
}

/// Prints the plan. `impact`: only what changes, with all that stands on it.
pub async fn plan(project: &Project, impact: bool, json: bool) -> Result<(), Failure> {
    let url = project.node.engine.as_ref().map_or("", |it| it.expose());
    let options = Options { read_only: true, timeout: TIMEOUT };
    // A file that is not there yet has nothing in it.
    let absent = url.strip_prefix("sqlite:").is_some_and(|path| !project.dir.join(path).exists());
    let engine = match absent {
        true => None,
        false => Some(
            engine::open(url, &project.dir, options).await.map_err(|e| Failure::of("open the engine", &e))?,
        ),
    };
    let known = match &engine {
        // No run has made the tables of its memory yet.
        Some(engine) => match state::all(&**engine).await {
            Err(WarehouseError::Engine { source: EngineError::Sql { number: 1146 | 1049, .. }, .. }) => {
                Vec::new()
            }
            known => known.map_err(|e| Failure::of("read what is known of models", &e))?,
        },
        None => Vec::new(),
    };
    let graph = load::graph(project);
    let mut lines = Vec::new();
    for model in &project.models {
        let built = known.iter().find(|(name, built)| *name == model.name && !built.fingerprint.is_empty());
        let built = built.map(|(_, built)| built);
        let (change, what) = judged(project, model, built, engine.as_deref()).await?;
        let downstream = graph.downstream(&Node::Model(model.name.clone()));
        let downstream = downstream.iter().map(|it| it.name().to_owned()).collect();
        let rows = match (&engine, built) {
            (Some(engine), Some(_)) => count(&**engine, &model.name).await.ok(),
            _ => None,
        };
        lines.push(Line { name: model.name.clone(), change, what, rows, downstream });
    }
    let gone: Vec<&String> = known
        .iter()
        .map(|(name, _)| name)
        .filter(|it| !project.models.iter().any(|m| m.name == **it))
        .collect();
    if impact {
        lines.retain(|line| line.change != "same");
    }
    if json {
        let list: Vec<Value> = lines
            .iter()
            .map(|it| {
                json!({"model": it.name, "change": it.change, "what": it.what, "rows": it.rows,
                       "downstream": it.downstream})
            })
            .collect();
        println!("{}", json!({"models": list, "gone": gone}));
        return Ok(());
    }
    let mut rows =
        vec![["MODEL", "CHANGE", "NEXT RUN", "ROWS NOW", "STANDS ON IT"].map(str::to_owned).to_vec()];
    for line in &lines {
        let rows_now = line.rows.map(|rows| rows.to_string()).unwrap_or_default();
        let below = line.downstream.join(", ");
        rows.push(vec![line.name.clone(), line.change.to_owned(), line.what.clone(), rows_now, below]);
    }
    print_table(&rows);
    for name in gone {
        println!("{name}: no model makes it any more; its table stays until someone drops it");
    }
    Ok(())
}

async fn judged(
    project: &Project,
    model: &Model,
    built: Option<&Built>,
    engine: Option<&dyn Engine>,
) -> Result<(&'static str, String), Failure> {
    let config = &model.config;
    let whole = match config.kind {
        ModelKind::View => "the view is made".to_owned(),
        ModelKind::Snapshot => "versions that changed".to_owned(),
        ModelKind::IncrementalByKey => "its rows, by their key".to_owned(),
        _ => "the whole table".to_owned(),
    };
    let change = match built {
        None => "new",
        Some(built) if built.fingerprint != model.fingerprint => "changed",
        Some(_) => "same",
    };
    let (ModelKind::IncrementalByTime, Some(first)) = (config.kind, config.start) else {
        let anew = change == "changed" && config.kind == ModelKind::IncrementalByKey;
        return Ok((change, if anew { "the whole table".to_owned() } else { whole }));
    };
    let zone = project.node.timezone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
    let now = Timestamp::now().to_zoned(zone.unwrap_or(TimeZone::UTC)).datetime();
    let all = interval::whole(config.grain, first, now);
    let (Some(engine), "same") = (engine, change) else {
        return Ok((change, format!("all {}", many(all.len(), "interval"))));
    };
    let done = state::intervals(engine, &model.name, &model.fingerprint).await;
    let done = done.map_err(|e| Failure::of("read the intervals", &e))?;
    let due = interval::due(&all, &done, config.lookback.unwrap_or(LOOKBACK));
    Ok((
        change,
        match (due.first(), due.last()) {
            (Some(first), Some(last)) => {
                format!("{} from {} to {}", many(due.len(), "interval"), first.start, last.end)
            }
            _ => "nothing is due".to_owned(),
        },
    ))
}
