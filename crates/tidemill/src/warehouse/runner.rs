//! What runs flows that collect and models, each behind what it stands on, and keeps what came of it.

use super::load;
use crate::failure::Failure;
use crate::project::Project;
use ::warehouse::WarehouseError;
use ::warehouse::build::{self, Job, Outcome, Want};
use ::warehouse::check::{Finding, Severity};
use ::warehouse::graph::{Graph, Node};
use ::warehouse::indicator::{Indicators, rollup};
use ::warehouse::interval::Interval;
use ::warehouse::model::Model;
use base::{Fault, Retry};
use catalog::{Catalog, RowCounts, Run, RunEnd, RunState};
use collect::{CollectConfig, CollectError, CollectReport, Progress, Source};
use engine::{Engine, Options};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Batches at once; one that comes on top waits.
const BATCHES_MAX: usize = 4;
/// Longest time of a model's run where it does not say.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// Runs of a model that are tried again where it does not say.
const RETRIES: u32 = 2;
/// The wait before a run is tried again, doubled each time up to the second.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What shall run.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// A flow, a model, `name+` with what stands on it, `+name` with what it stands on, or `all`.
    pub target: String,
    /// Of models with intervals: the first day, and the last.
    pub days: Option<(Date, Date)>,
    /// Of models: the whole table anew.
    pub full: bool,
}

/// The warehouse of a running project. Cheap to clone.
#[derive(Clone)]
pub struct Warehouse(Arc<Inner>);

struct Inner {
    engine: Arc<dyn Engine>,
    catalog: Catalog,
    models: BTreeMap<String, Model>,
    flows: BTreeMap<String, (CollectConfig, Source)>,
    graph: Graph,
    indicators: Arc<Indicators>,
    zone: TimeZone,
    /// What runs now, with how far it is.
    running: Mutex<BTreeMap<Node, Live>>,
    /// Told when something ends.
    freed: watch::Sender<u64>,
    batches: Semaphore,
    /// Who builds rollups: two at once would write into one shadow.
    rollups: Semaphore,
    stop: watch::Receiver<bool>,
    /// Held as long as this process may write.
    _lock: File,
}

/// How far a run is.
#[derive(Clone)]
struct Live {
    run: i64,
    collect: Arc<Progress>,
    intervals: Arc<Mutex<(usize, usize)>>,
}

/// The place of a node that runs; given back when it is dropped, after a panic too.
struct Place<'w> {
    warehouse: &'w Warehouse,
    node: Node,
    live: Live,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        locked(&self.warehouse.0.running).remove(&self.node);
        self.warehouse.0.freed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Warehouse {
    /// Opens the engine of a project that has one, and takes the right to write to it.
    pub async fn open(
        project: &Project,
        catalog: Catalog,
        stop: watch::Receiver<bool>,
    ) -> Result<Option<Self>, Failure> {
        let Some(url) = &project.node.engine else { return Ok(None) };
        let path = project.node.data_dir.join("warehouse.lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(|e| Failure::io(&format!("open {}", path.display()), &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(1, "another process runs this project's flows and models").hint(
                    "`tidemill run` reaches a node that is up by its HTTP port; wait for the other command",
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::io(&format!("lock {}", path.display()), &error));
            }
        }
        let interrupted = catalog.interrupt_runs(Timestamp::now().as_millisecond());
        let interrupted = interrupted.map_err(|e| Failure::of("read the runs", &e))?;
        if interrupted > 0 {
            tracing::warn!(runs = interrupted, "runs were interrupted when the last process ended");
        }
        let engine = engine::open(url.expose(), &project.dir, Options::default()).await;
        let engine = engine.map_err(|e| Failure::of("open the engine", &e))?;
        let zone = project.node.timezone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
        let flows = project.collections.iter().filter_map(|(name, config)| {
            let source = project.collected.get(&config.from)?;
            Some((name.clone(), (config.clone(), source.clone())))
        });
        let models = project.models.iter().map(|model| (model.name.clone(), model.clone()));
        Ok(Some(Self(Arc::new(Inner {
            engine: engine.into(),
            catalog,
            models: models.collect(),
            flows: flows.collect(),
            graph: load::graph(project),
            indicators: project.indicators.clone(),
            zone: zone.unwrap_or(TimeZone::UTC),
            running: Mutex::default(),
            freed: watch::Sender::new(0),
            batches: Semaphore::new(BATCHES_MAX),
            rollups: Semaphore::new(1),
            stop,
            _lock: lock,
        }))))
    }

    pub fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    pub fn zone(&self) -> &TimeZone {
        &self.0.zone
    }

    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// When a node runs by itself.
    pub fn schedule_of(&self, node: &Node) -> Option<base::schedule::Schedule> {
        match node {
            Node::Flow(name) => self.0.flows.get(name)?.0.schedule.clone(),
            Node::Model(name) => self.0.models.get(name)?.config.schedule.as_ref()?.parse().ok(),
        }
    }

    /// How far the runs are that go on.
    pub fn live(&self) -> Vec<Value> {
        let running = locked(&self.0.running);
        let shown = |(node, live): (&Node, &Live)| {
            let RowCounts { read, written, rejected, deleted } = live.collect.counts();
            let (done, of) = *locked(&live.intervals);
            json!({"run": live.run, "kind": node.kind(), "name": node.name(), "table": live.collect.table(),
                   "rows_read": read, "rows_written": written, "rows_rejected": rejected, "rows_deleted": deleted,
                   "intervals": if of == 0 { Value::Null } else { json!({"done": done, "of": of}) }})
        };
        running.iter().map(shown).collect()
    }

    /// The nodes that a target means, in the order they run.
    pub fn targets(&self, target: &str) -> Result<Vec<Node>, Failure> {
        let graph = &self.0.graph;
        if target == "all" {
            return Ok(graph.ordered(&graph.nodes().cloned().collect()));
        }
        let (up, rest) = match target.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, target),
        };
        let (down, name) = match rest.strip_suffix('+') {
            Some(name) => (true, name),
            None => (false, rest),
        };
        let node =
            graph.nodes().find(|it| it.name().eq_ignore_ascii_case(name)).cloned().ok_or_else(|| {
                let names: Vec<&str> = graph.nodes().map(Node::name).collect();
                let hint = match base::near::nearest(name, names.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`? there are: {}", names.join(", ")),
                    None => format!("there are: {}", names.join(", ")),
                };
                Failure::new(2, format!("there is no flow that collects and no model `{name}`")).hint(hint)
            })?;
        let mut all = BTreeSet::from([node.clone()]);
        if up {
            all.extend(graph.upstream(&node));
        }
        if down {
            all.extend(graph.downstream(&node));
        }
        Ok(graph.ordered(&all))
    }

    /// Notes a batch and starts it; its run's number comes at once.
    pub fn start(&self, ask: Ask, cause: &str) -> Result<i64, Failure> {
        let nodes = self.targets(&ask.target)?;
        self.start_nodes(nodes, ask, cause)
    }

    /// The same of nodes that are known.
    pub fn start_nodes(&self, nodes: Vec<Node>, ask: Ask, cause: &str) -> Result<i64, Failure> {
        let now = Timestamp::now().as_millisecond();
        let batch = self.0.catalog.start_run(None, "batch", &ask.target, cause, now);
        let batch = batch.map_err(|e| Failure::of("note the run", &e))?;
        let (own, cause) = (self.clone(), cause.to_owned());
        tokio::spawn(async move { own.batch(batch, nodes, ask, &cause).await });
        Ok(batch)
    }

    /// Runs nodes one behind the other. What stands on one that failed is left out, and all else goes on.
    async fn batch(&self, batch: i64, nodes: Vec<Node>, ask: Ask, cause: &str) {
        let permit = self.0.batches.acquire().await;
        let mut failed: BTreeMap<Node, String> = BTreeMap::new();
        let mut rows = RowCounts::default();
        let mut warned = false;
        let mut left_out = 0;
        let mut rollups = Vec::new();
        for node in &nodes {
            if *self.0.stop.borrow() {
                failed.insert(node.clone(), "the node stops".into());
                break;
            }
            if self.0.graph.behind(node).any(|it| failed.contains_key(it)) {
                let message = "what it stands on failed".to_owned();
                self.note_left_out(batch, node, cause, &message);
                failed.insert(node.clone(), message);
                left_out += 1;
                continue;
            }
            let end = self.node(batch, node, &ask, cause).await;
            let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
            add(&mut rows.read, end.rows.read);
            add(&mut rows.written, end.rows.written);
            add(&mut rows.rejected, end.rows.rejected);
            add(&mut rows.deleted, end.rows.deleted);
            warned |= end.state == RunState::Warned;
            if !matches!(end.state, RunState::Ok | RunState::Warned) {
                failed.insert(node.clone(), end.message);
            }
        }
        for (name, end) in self.rollups(batch, &nodes, &failed, &ask, cause).await {
            rows.written = rows.written.saturating_add(end.rows.written);
            if end.state != RunState::Ok {
                rollups.push(name);
            }
        }
        drop(permit);
        let state = match (failed.is_empty() && rollups.is_empty(), warned, *self.0.stop.borrow()) {
            (false, _, true) => RunState::Interrupted,
            (false, ..) => RunState::Failed,
            (true, true, _) => RunState::Warned,
            (true, false, _) => RunState::Ok,
        };
        let names: Vec<String> = failed.keys().map(|it| it.name().to_owned()).collect();
        let message = match failed.len() {
            0 if rollups.is_empty() => String::new(),
            0 => format!("indicators were not built: {}", rollups.join(", ")),
            count => format!("{count} of {} failed or were left out: {}", nodes.len(), names.join(", ")),
        };
        let detail = json!({"nodes": nodes.iter().map(Node::name).collect::<Vec<_>>(), "left_out": left_out});
        self.end(batch, &RunEnd { state, rows, message, hint: String::new(), detail: detail.to_string() });
    }

    /// Builds the rollups of indicators over what has run, a run each; those over what failed stay as they are. A table that no model makes
    /// may be one that a flow has filled.
    async fn rollups(
        &self,
        batch: i64,
        nodes: &[Node],
        failed: &BTreeMap<Node, String>,
        ask: &Ask,
        cause: &str,
    ) -> Vec<(String, RunEnd)> {
        let mut ends = Vec::new();
        let _alone = self.0.rollups.acquire().await;
        let ran = |table: &str| {
            let model = Node::Model(table.to_owned());
            match self.0.models.contains_key(table) {
                true => nodes.contains(&model) && !failed.contains_key(&model),
                false => {
                    ask.target == "all"
                        || nodes.iter().any(|it| matches!(it, Node::Flow(_)) && !failed.contains_key(it))
                }
            }
        };
        for model in self.0.indicators.models.iter().filter(|it| ran(&it.table)) {
            if *self.0.stop.borrow() {
                break;
            }
            let started = Timestamp::now().as_millisecond();
            let run = match self.0.catalog.start_run(Some(batch), "indicators", &model.name, cause, started) {
                Ok(run) => run,
                Err(error) => {
                    ends.push((model.name.clone(), self::failed(base::error::chain(&error), error.hint())));
                    continue;
                }
            };
            let built = rollup::build(&*self.0.engine, &self.0.indicators, Some(&[&model.name]), None).await;
            let end = match built {
                Ok(built) => RunEnd {
                    state: RunState::Ok,
                    rows: RowCounts { written: built.iter().map(|it| it.rows).sum(), ..RowCounts::default() },
                    message: String::new(),
                    hint: String::new(),
                    detail: "{}".into(),
                },
                Err(error) => self::failed(base::error::chain(&error), error.hint()),
            };
            self.end(run, &end);
            ends.push((model.name.clone(), end));
        }
        ends
    }

    fn end(&self, run: i64, end: &RunEnd) {
        let now = Timestamp::now().as_millisecond();
        if let Err(error) = self.0.catalog.end_run(run, now, end) {
            tracing::error!(run, error = base::error::chain(&error), "failed to note how a run ended");
        }
    }

    /// A run that did not come to be is one that failed: whoever asks for the table is told.
    fn note_left_out(&self, batch: i64, node: &Node, cause: &str, message: &str) {
        let now = Timestamp::now().as_millisecond();
        match self.0.catalog.start_run(Some(batch), node.kind(), node.name(), cause, now) {
            Ok(run) => self.end(run, &failed(message.to_owned(), None)),
            Err(error) => {
                tracing::error!(
                    name = node.name(),
                    error = base::error::chain(&error),
                    "failed to note a run"
                );
            }
        }
    }

    /// Waits until nothing runs of a node, and holds its place.
    async fn place(&self, node: &Node) -> Place<'_> {
        let mut freed = self.0.freed.subscribe();
        loop {
            freed.mark_unchanged();
            {
                let mut running = locked(&self.0.running);
                if !running.contains_key(node) {
                    let live = Live { run: 0, collect: Arc::default(), intervals: Arc::default() };
                    running.insert(node.clone(), live.clone());
                    return Place { warehouse: self, node: node.clone(), live };
                }
            }
            // The sender lives as long as we do.
            let _ = freed.changed().await;
        }
    }

    /// Runs one node once it is free, as often as it may be tried.
    async fn node(&self, batch: i64, node: &Node, ask: &Ask, cause: &str) -> RunEnd {
        let place = self.place(node).await;
        let started = Timestamp::now().as_millisecond();
        let run = match self.0.catalog.start_run(Some(batch), node.kind(), node.name(), cause, started) {
            Ok(run) => run,
            Err(error) => return failed(base::error::chain(&error), error.hint()),
        };
        let live = Live { run, ..place.live.clone() };
        locked(&self.0.running).insert(node.clone(), live.clone());
        let end = match node {
            Node::Flow(name) => self.flow(name, run, &live).await,
            Node::Model(name) => self.model(name, run, ask, &live).await,
        };
        self.end(run, &end);
        drop(place);
        self.tell(node, run, &end);
        end
    }

    fn tell(&self, node: &Node, run: i64, end: &RunEnd) {
        let (kind, name) = (node.kind(), node.name());
        let state = end.state.name();
        metrics::counter!(base::metrics::WAREHOUSE_RUNS, "kind" => kind, "state" => state).increment(1);
        let RowCounts { read, written, rejected, deleted } = end.rows;
        match end.state {
            RunState::Ok => tracing::info!(kind, name, run, read, written, deleted, "the run ended"),
            RunState::Warned => {
                tracing::warn!(
                    kind,
                    name,
                    run,
                    read,
                    written,
                    rejected,
                    deleted,
                    message = end.message,
                    "the run ended"
                );
            }
            _ => tracing::error!(kind, name, run, error = end.message, hint = end.hint, "the run failed"),
        }
    }

    /// Waits before another try; false when the node stops.
    async fn wait(&self, tried: u32) -> bool {
        let wait = RETRY_WAIT.0.saturating_mul(1 << tried.min(16)).min(RETRY_WAIT.1);
        let mut stop = self.0.stop.clone();
        tokio::time::timeout(wait, async { stop.wait_for(|stop| *stop).await.is_ok() }).await.is_err()
    }

    async fn flow(&self, name: &str, run: i64, live: &Live) -> RunEnd {
        let Some((config, source)) = self.0.flows.get(name) else {
            return failed(format!("there is no flow `{name}`"), None);
        };
        let retries = config.retries.unwrap_or(collect::config::RETRIES_DEFAULT);
        let mut tried = 0;
        loop {
            let error = match self.collected(name, config, source, run, live).await {
                Ok(report) => return collected_end(&report),
                Err(error) => error,
            };
            let again = error.retry() != Retry::Never && tried < retries;
            if !again || !self.wait(tried).await {
                let rows = live.collect.counts();
                let detail = match &error {
                    CollectError::Partly { report, .. } => report.to_json(),
                    _ => "{}".to_owned(),
                };
                let end = failed(base::error::chain(&error), error.hint());
                return RunEnd { rows, detail, ..end };
            }
            tracing::warn!(flow = name, error = base::error::chain(&error), "a run is tried again");
            tried += 1;
        }
    }

    async fn collected(
        &self,
        name: &str,
        config: &CollectConfig,
        source: &Source,
        run: i64,
        live: &Live,
    ) -> Result<CollectReport, CollectError> {
        let mut reader = collect::open_reader(source).await?;
        let stop = self.0.stop.clone();
        collect::run(name, config, &mut *reader, &*self.0.engine, run, &live.collect, stop).await
    }

    /// The clock on the wall of the project's time zone.
    fn now(&self) -> DateTime {
        Timestamp::now().to_zoned(self.0.zone.clone()).datetime()
    }

    async fn model(&self, name: &str, run: i64, ask: &Ask, live: &Live) -> RunEnd {
        let Some(model) = self.0.models.get(name) else {
            return failed(format!("there is no model `{name}`"), None);
        };
        let want = match (&ask.days, ask.full) {
            (Some((first, last)), _) => Want::Intervals(Interval {
                start: first.at(0, 0, 0, 0),
                end: last.tomorrow().unwrap_or(*last).at(0, 0, 0, 0),
            }),
            (None, true) => Want::Everything,
            (None, false) => Want::Due,
        };
        let intervals = live.intervals.clone();
        let progress = move |done: usize, of: usize| *locked(&intervals) = (done, of);
        let timeout = model.config.timeout.map_or(TIMEOUT, |it| it.0);
        let retries = model.config.retries.unwrap_or(RETRIES);
        let mut tried = 0;
        loop {
            let job = Job { model, run, now: self.now(), want: &want, progress: &progress };
            let mut stop = self.0.stop.clone();
            let ended = tokio::select! {
                ended = tokio::time::timeout(timeout, build::build(&*self.0.engine, job)) => ended,
                _ = stop.wait_for(|stop| *stop) => {
                    let end = failed("the node stopped in its midst".into(), None);
                    return RunEnd { state: RunState::Interrupted, ..end };
                }
            };
            let error = match ended {
                Err(_) => {
                    let hint = "a larger `timeout`, a smaller `batch`, or an index".to_owned();
                    return failed(format!("it took longer than {timeout:?}"), Some(hint));
                }
                Ok(Ok(outcome)) => {
                    self.note_checks(model, run, &outcome.findings);
                    return model_end(model, outcome);
                }
                Ok(Err(error)) => error,
            };
            if error.retry() == Retry::Never || tried >= retries || !self.wait(tried).await {
                return failed(base::error::chain(&error), error.hint());
            }
            tracing::warn!(model = name, error = base::error::chain(&error), "a run is tried again");
            tried += 1;
        }
    }

    /// Each check is a run of its own, so that it has a history.
    fn note_checks(&self, model: &Model, run: i64, findings: &[Finding]) {
        for finding in findings {
            let name = format!("{}/{}", model.name, finding.check);
            let state = match (finding.broken, finding.severity) {
                (0, _) => RunState::Ok,
                (_, Severity::Warn) => RunState::Warned,
                (_, Severity::Error) => RunState::Failed,
            };
            let now = Timestamp::now().as_millisecond();
            let noted = self.0.catalog.start_run(Some(run), "check", &name, "model", now).and_then(|id| {
                let rows = RowCounts { rejected: finding.broken, ..RowCounts::default() };
                let detail = serde_json::to_string(finding).unwrap_or_else(|_| "{}".into());
                let end =
                    RunEnd { state, rows, message: finding.message.clone(), hint: String::new(), detail };
                self.0.catalog.end_run(id, now, &end)
            });
            if let Err(error) = noted {
                tracing::error!(check = name, error = base::error::chain(&error), "failed to note a check");
            }
        }
    }

    /// Takes back the last run of a model.
    pub async fn rollback(&self, run: i64) -> Result<String, Failure> {
        let known = self.0.catalog.run(run).map_err(|e| Failure::of("read the run", &e))?;
        let known = known.filter(|it| it.kind == "model").ok_or_else(|| {
            Failure::new(2, format!("there is no run {run} of a model")).hint("`tidemill runs` lists them")
        })?;
        let model = self.0.models.get(&known.name).ok_or_else(|| {
            Failure::new(2, format!("`{}` is no model of this project any more", known.name))
        })?;
        let failed = |error: WarehouseError| Failure::of("take the run back", &error);
        let node = Node::Model(model.name.clone());
        let done = {
            let _place = self.place(&node).await;
            build::rollback(&*self.0.engine, model, run).await.map_err(failed)?
        };
        // What screens show is of the rows that are there again.
        let now = Timestamp::now().as_millisecond();
        let batch = self.0.catalog.start_run(None, "batch", &model.name, "rollback", now);
        let batch = batch.map_err(|e| Failure::of("note the run", &e))?;
        let ask = Ask { target: model.name.clone(), ..Ask::default() };
        let ends = self.rollups(batch, &[node], &BTreeMap::new(), &ask, "rollback").await;
        let bad = ends.iter().find(|(_, end)| end.state != RunState::Ok);
        let state = if bad.is_some() { RunState::Failed } else { RunState::Ok };
        let message = bad.map_or_else(String::new, |(name, end)| format!("{name}: {}", end.message));
        let rows = RowCounts::default();
        self.end(batch, &RunEnd { state, rows, message, hint: String::new(), detail: "{}".into() });
        Ok(done)
    }
}

fn failed(message: String, hint: Option<String>) -> RunEnd {
    RunEnd {
        state: RunState::Failed,
        rows: RowCounts::default(),
        message,
        hint: hint.unwrap_or_default(),
        detail: "{}".into(),
    }
}

fn collected_end(report: &CollectReport) -> RunEnd {
    let state = if report.warnings.is_empty() { RunState::Ok } else { RunState::Warned };
    RunEnd {
        state,
        rows: report.counts(),
        message: report.warnings.join("; "),
        hint: String::new(),
        detail: report.to_json(),
    }
}

fn model_end(model: &Model, outcome: Outcome) -> RunEnd {
    let Outcome { written, deleted, intervals, rebuilt, findings, blocked } = outcome;
    let rows = RowCounts { written, deleted, ..RowCounts::default() };
    let detail = json!({"intervals": intervals, "rebuilt": rebuilt, "checks": findings}).to_string();
    if !blocked.is_empty() {
        let error = WarehouseError::Blocked(blocked);
        let end = failed(error.to_string(), error.hint());
        return RunEnd { rows, detail, ..end };
    }
    let mut warnings: Vec<String> = findings
        .iter()
        .filter(|it| it.broken > 0)
        .map(|it| format!("the check `{}` is broken: {}", it.check, it.message))
        .collect();
    let whole = rebuilt && model.config.kind != ::warehouse::model::ModelKind::View;
    if whole && written == 0 {
        warnings.push("the table has no rows".into());
    } else if intervals > 0 && written == 0 {
        warnings.push(format!("{intervals} intervals have no rows"));
    }
    let state = if warnings.is_empty() { RunState::Ok } else { RunState::Warned };
    RunEnd { state, rows, message: warnings.join("; "), hint: String::new(), detail }
}

/// A run as machines read it.
pub fn run_json(run: &Run) -> Value {
    let RowCounts { read, written, rejected, deleted } = run.rows;
    let detail: Value = serde_json::from_str(&run.detail).unwrap_or(Value::Null);
    json!({
        "run": run.id, "parent": run.parent, "kind": run.kind, "name": run.name, "cause": run.cause,
        "state": run.state.name(), "started_ms": run.started_ms, "ended_ms": run.ended_ms,
        "rows_read": read, "rows_written": written, "rows_rejected": rejected, "rows_deleted": deleted,
        "message": run.message, "hint": run.hint, "detail": detail,
    })
}
