//! What runs in a node, in the order it starts and, backwards, ends.

use crate::failure::Failure;
use crate::http;
use crate::project::Project;
use crate::retention::{self, Limits, Reader};
use catalog::Catalog;
use flow::capture::mysql::{self, Control, MySqlSource};
use flow::capture::sqlite::{self, SqliteSource};
use flow::capture::status::StatusCell;
use flow::capture::writer::JournalHandle;
use flow::config::SourceKind;
use flow::deliver::status::FlowStatusCell;
use flow::deliver::{self, Flow, FlowControl};
use flow::patterns::Patterns;
use journal::{Journal, RealDisk};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long a stopping node waits for batches in flight.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A source that runs.
#[derive(Clone)]
pub struct RunningSource {
    pub status: StatusCell,
    pub journal: Journal,
    pub control: mpsc::Sender<Control>,
}

/// A flow that runs.
#[derive(Clone)]
pub struct RunningFlow {
    pub status: FlowStatusCell,
    pub from: String,
    pub tables: Vec<String>,
    pub control: mpsc::Sender<FlowControl>,
}

/// What the HTTP surface sees of the node.
#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub sources: Arc<BTreeMap<String, RunningSource>>,
    pub flows: Arc<BTreeMap<String, RunningFlow>>,
    pub catalog: Catalog,
}

/// Runs the project until `shutdown` turns true.
pub async fn run(
    project: &Project,
    mut shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(std::net::SocketAddr),
) -> Result<(), Failure> {
    std::fs::create_dir_all(&project.node.data_dir)
        .map_err(|e| Failure::io(&format!("make {}", project.node.data_dir.display()), &e))?;
    let catalog = Catalog::open(&project.catalog_path()).map_err(|e| Failure::of("open the catalog", &e))?;
    let listener = bind(project).await?;
    let metrics = http::metrics_handle();
    let mut tasks = JoinSet::new();
    let mut sources = BTreeMap::new();
    for (name, config) in &project.sources {
        let journal_dir = project.journal_dir(name);
        let (writer, journal) = open_journal(project, &journal_dir)?;
        let status = StatusCell::new(name);
        let handle = JournalHandle::spawn(name, writer);
        let patterns =
            Arc::new(Patterns::new(&config.tables, &config.exclude).expect("checked with the project"));
        let (control, commands) = mpsc::channel(4);
        let name_shared: Arc<str> = name.as_str().into();
        let stop = shutdown.clone();
        match config.kind {
            SourceKind::Mysql => {
                let source = MySqlSource {
                    name: name_shared,
                    config: config.clone(),
                    patterns,
                    handle,
                    status: status.clone(),
                };
                tasks.spawn(async move {
                    if let Err(error) = mysql::run(source, commands, stop).await {
                        tracing::error!(error = base::error::chain(&error), "capture ended");
                    }
                });
            }
            SourceKind::Sqlite => {
                let path = config.path.clone().expect("checked with the project");
                let source = SqliteSource {
                    name: name_shared,
                    path,
                    config: config.clone(),
                    patterns,
                    handle,
                    status: status.clone(),
                };
                tasks.spawn(async move { sqlite::run(source, commands, stop).await });
            }
        }
        sources.insert(name.clone(), RunningSource { status, journal, control });
    }
    let mut flows = BTreeMap::new();
    for (name, config) in &project.flows {
        let source = &sources[&config.from];
        let status = FlowStatusCell::new(name, &config.from, &config.to);
        let flow = Flow {
            name: name.as_str().into(),
            config: config.clone(),
            sink_config: project.sinks[&config.to].clone(),
            journal: source.journal.clone(),
            catalog: catalog.clone(),
            status: status.clone(),
        };
        let (control, commands) = mpsc::channel(4);
        tasks.spawn(deliver::run(flow, commands, shutdown.clone()));
        let running =
            RunningFlow { status, from: config.from.clone(), tables: config.tables.clone(), control };
        flows.insert(name.clone(), running);
    }
    for (name, source) in &sources {
        let limits = Limits::new(&project.node.journal);
        let readers = flows.iter().filter(|(_, flow): &(&String, &RunningFlow)| flow.from == *name);
        let readers = readers.map(|(name, flow)| Reader {
            flow: name.clone(),
            status: flow.status.clone(),
            catalog: catalog.clone(),
        });
        let readers = readers.collect();
        tasks.spawn(retention::run(name.clone(), source.journal.clone(), readers, limits, shutdown.clone()));
    }
    let node =
        Node { name: project.node.name.clone(), sources: Arc::new(sources), flows: Arc::new(flows), catalog };
    ready(listener.local_addr().map_err(|e| Failure::io("read the listening address", &e))?);
    let mut stop = shutdown.clone();
    let server = axum::serve(listener, http::router(node, metrics, shutdown.clone())).with_graceful_shutdown(
        async move {
            let _ = stop.wait_for(|stop| *stop).await;
        },
    );
    let server = tokio::spawn(async move { server.await });
    let _ = shutdown.wait_for(|stop| *stop).await;
    tracing::info!("stopping: batches in flight are finished first");
    let drained = tokio::time::timeout(DRAIN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            "gave up waiting after {} s; nothing is lost, the next start goes on from there",
            DRAIN_MAX.as_secs()
        );
    }
    server.abort();
    Ok(())
}

fn open_journal(project: &Project, dir: &Path) -> Result<(journal::Writer, Journal), Failure> {
    let mut options = journal::Options::default();
    if let Some(size) = project.node.journal.segment_bytes {
        options.segment_bytes =
            size.0.clamp(journal::limits::SEGMENT_BYTES_MIN, journal::limits::SEGMENT_BYTES_MAX);
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::io(&format!("make {}", dir.display()), &e))?;
    let what = format!("open the journal {}", dir.display());
    journal::open(Arc::new(RealDisk), dir, options).map_err(|e| Failure::of(&what, &e))
}

async fn bind(project: &Project) -> Result<tokio::net::TcpListener, Failure> {
    let address = project.node.listen.http;
    tokio::net::TcpListener::bind(address).await.map_err(|e| {
        Failure::io(&format!("listen on {address}"), &e)
            .hint("another tidemill may be running; change listen.http in tidemill.yaml")
    })
}
