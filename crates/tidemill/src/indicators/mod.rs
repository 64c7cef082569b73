//! Indicators of a project: `indicators/*.yaml`, what answers them in a node, and `tidemill indicator`.

pub mod command;
pub mod http;

use crate::files::{self, Folder, read_folder};
use crate::project::{NodeConfig, Problem, Project, References, place, resolve};
use crate::warehouse::Warehouse;
use ::warehouse::indicator::answer::{CheckState, Health, NoHealth, TableHealth};
use ::warehouse::indicator::{IndicatorError, IndicatorFile, Indicators, Mistake, Service, rollup};
use base::{Code, Fault};
use catalog::{Catalog, RunState};
use engine::{Engine, EngineError, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};

/// The folder of the project.
pub const FOLDER: &str = "indicators";
/// Longest time of one query: a screen waits no longer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Screens that wait for events at once.
const SCREENS_MAX: usize = 256;

/// Reads what the project declares; every mistake of all files.
pub fn load(dir: &Path, has_engine: bool, problems: &mut Vec<Problem>) -> Arc<Indicators> {
    let before = problems.len();
    let Folder { good, .. }: Folder<IndicatorFile> = read_folder(dir, FOLDER, problems);
    let mut add = |path: String, message: String, hint: String| {
        let (line, column) = place(dir, &path, &message);
        problems.push(Problem { path, line, column, message, hint });
    };
    if !has_engine && let Some(file) = files::names(dir, FOLDER).first() {
        let message = "indicators need an `engine`, which keeps their rollups".to_owned();
        add(
            format!("{FOLDER}/{file}"),
            message,
            "in tidemill.yaml: engine: sqlite:./data/warehouse.db".into(),
        );
    }
    let files: Vec<(String, IndicatorFile)> =
        good.into_iter().map(|(name, file)| (format!("{FOLDER}/{name}.yaml"), file)).collect();
    match Indicators::new(&files) {
        Ok(indicators) => return Arc::new(indicators),
        // A file that cannot be read lacks what others name.
        Err(_) if files.len() < files::names(dir, FOLDER).len() => {}
        Err(mistakes) => mistakes.into_iter().for_each(|it| add(it.path, it.message, it.hint)),
    }
    debug_assert!(problems.len() > before, "what is wrong was told");
    Arc::default()
}

/// The project's engine, to be read.
async fn open_engine(dir: &Path, node: &NodeConfig) -> Result<Box<dyn Engine>, EngineError> {
    let mut url = node.engine.clone();
    resolve(&mut url, &["sqlite:", "mysql://"], References::Resolve).map_err(|(message, hint)| {
        let message = format!("tidemill.yaml: {}", message.replace("`url`", "`engine`"));
        EngineError::refused(message, hint.unwrap_or_default())
    })?;
    let url = url.as_ref().map_or("", |it| it.expose());
    engine::open(url, dir, Options { read_only: true, timeout: QUERY_TIMEOUT }).await
}

/// What the engine says of the project's indicators; nothing where it is not there yet.
pub async fn reach(project: &Project) -> Vec<Mistake> {
    if project.indicators.metrics.is_empty() {
        return Vec::new();
    }
    match open_engine(&project.dir, &project.node).await {
        Ok(engine) => rollup::check(&*engine, &project.indicators).await,
        Err(_) => Vec::new(),
    }
}

/// Where a node answers questions about indicators.
pub struct Desk {
    dir: PathBuf,
    node: NodeConfig,
    indicators: Arc<Indicators>,
    /// Opened by the first question: the engine's file may come later than the node.
    service: OnceCell<Service>,
    screens: Arc<Semaphore>,
    health: Arc<dyn Health>,
}

impl Desk {
    /// In a node: with what its runs say of tables. The engine is opened once more, to read: a question takes no connection from a run.
    pub fn new(project: &Project, warehouse: Option<&Warehouse>) -> Self {
        let desk = Self::beside(&project.dir, &project.node, project.indicators.clone());
        let Some(warehouse) = warehouse else { return desk };
        Self { health: Arc::new(Runs(warehouse.catalog().clone())), ..desk }
    }

    /// Without a node.
    pub fn beside(dir: &Path, node: &NodeConfig, indicators: Arc<Indicators>) -> Self {
        Self {
            dir: dir.to_owned(),
            node: node.clone(),
            indicators,
            service: OnceCell::new(),
            screens: Arc::new(Semaphore::new(SCREENS_MAX)),
            health: Arc::new(NoHealth),
        }
    }

    pub fn indicators(&self) -> &Indicators {
        &self.indicators
    }

    pub async fn service(&self) -> Result<&Service, IndicatorError> {
        let opened = self.service.get_or_try_init(|| async {
            let engine: Arc<dyn Engine> = open_engine(&self.dir, &self.node).await?.into();
            Ok(Service::new(engine, self.indicators.clone(), self.health.clone()))
        });
        opened.await.map_err(|error: EngineError| match error.code() {
            // No run has made the file yet.
            Code::Unavailable
                if self.node.engine.as_ref().is_some_and(|it| it.expose().starts_with("sqlite:")) =>
            {
                IndicatorError::NotBuilt { message: format!("the engine cannot be opened yet: {error}") }
            }
            _ => IndicatorError::Engine(error),
        })
    }
}

/// What the runs of models say of their tables.
struct Runs(Catalog);

impl Health for Runs {
    fn of(&self, table: &str) -> TableHealth {
        let last = |states: &[RunState]| self.0.last_run("model", table, states).ok().flatten();
        let good = last(&[RunState::Ok, RunState::Warned]);
        let ended = last(&[RunState::Ok, RunState::Warned, RunState::Failed, RunState::Interrupted]);
        let checks = match ended.as_ref().map(|it| it.state) {
            Some(RunState::Ok) => CheckState::Passed,
            Some(RunState::Warned) => CheckState::Warned,
            Some(RunState::Failed) => CheckState::Failed,
            _ => CheckState::Unknown,
        };
        // The rows are those of the run before.
        let stale = ended.is_some_and(|it| matches!(it.state, RunState::Failed | RunState::Interrupted));
        TableHealth { checks, as_of_ms: good.and_then(|it| it.ended_ms), stale }
    }
}
