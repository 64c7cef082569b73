//! What runs in a node, in the order it starts and, backwards, ends.

use crate::auth::{Access, Origins};
use crate::client::NodeClient;
use crate::door;
use crate::durable::streams::Streams;
use crate::failure::Failure;
use crate::http;
use crate::indicators::Desk;
use crate::listener::{self, Tls};
use crate::mesh_file::MeshFile;
use crate::notify;
use crate::project::Project;
use crate::pushed::Reporter;
use crate::retention::{self, FlowReader, Limits, Reader};
use crate::scheduled;
use crate::upgrade::{self, HandOver};
use crate::warehouse::Warehouse;
use base::Fault;
use catalog::Catalog;
use flow::cache::{Cache, CacheError, CacheParts};
use flow::capture::http::{self as http_source, HttpSource, Inbox};
use flow::capture::kafka::{self, KafkaSource};
use flow::capture::mysql::repair::{self, Repair};
use flow::capture::mysql::{self, Control, MySqlSource};
use flow::capture::reach::Reach;
use flow::capture::sqlite::{self, SqliteSource};
use flow::capture::statements::{self, StatementsSource};
use flow::capture::status::{ErrorStatus, StatusCell};
use flow::capture::writer::JournalHandle;
use flow::config::{FlowConfig, SinkConfig, SnapshotMode, SourceKind};
use flow::deliver::status::FlowStatusCell;
use flow::deliver::{self, Flow, FlowControl};
use flow::mirror::{self, Mirror, MirrorConfig, MirrorParts};
use flow::patterns::Patterns;
use flow::subscribe::Subscriptions;
use flow::subscribe::hub::{self, Hub};
use flow::subscribe::mark::Marker;
use flow::webhook;
use journal::{Journal, JournalError, RealDisk};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long a stopping node waits for batches in flight.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long the last bytes of answers may take, once all else has ended.
const ANSWERS_WAIT: Duration = Duration::from_secs(2);

/// How often a stopping node looks whether transactions of the mesh's clients still run.
const TRANSACTIONS_LOOK: Duration = Duration::from_millis(20);

/// A source that runs, or that cannot.
#[derive(Clone)]
pub struct RunningSource {
    pub status: StatusCell,
    /// Absent when the journal is damaged: then nothing of this source runs, and the status says why.
    pub open: Option<OpenSource>,
}

#[derive(Clone)]
pub struct OpenSource {
    pub journal: Journal,
    pub control: mpsc::Sender<Control>,
    /// Where rows are asked for that are to be journaled again, of a source that can.
    pub repairs: Option<mpsc::Sender<Repair>>,
    /// Where changes are pushed to, of a source that takes them.
    pub push: Option<PushDoor>,
    /// The latest rows of its tables, where someone wants them.
    pub mirror: Option<Mirror>,
    /// Shapes of its tables that are followed.
    pub hub: Arc<Hub>,
}

/// Where changes are pushed to, and whose signatures are asked for.
#[derive(Clone)]
pub struct PushDoor {
    pub inbox: Inbox,
    pub keys: Arc<[webhook::Key]>,
}

/// A flow that runs, or waits for its source to be mended.
#[derive(Clone)]
pub struct RunningFlow {
    pub status: FlowStatusCell,
    pub from: String,
    pub tables: Vec<String>,
    pub sink: SinkConfig,
    /// For a preview of its rules.
    pub config: Arc<FlowConfig>,
    pub control: mpsc::Sender<FlowControl>,
    /// Rows by their key, or why they cannot be asked for.
    pub cache: Arc<Result<Cache, CacheError>>,
}

/// What the HTTP surface sees of the node.
#[derive(Clone)]
pub struct Node {
    pub name: String,
    pub sources: Arc<BTreeMap<String, RunningSource>>,
    pub flows: Arc<BTreeMap<String, RunningFlow>>,
    pub catalog: Catalog,
    pub data_dir: Arc<Path>,
    /// The SQL proxy, if the project has one.
    pub mesh: Option<Arc<mesh::Mesh>>,
    /// Keeps the configuration of the mesh.
    pub mesh_file: Option<Arc<MeshFile>>,
    /// The streams that are open.
    pub subscriptions: Arc<Subscriptions>,
    /// Those that clients make, if the project has any.
    pub streams: Option<Arc<Streams>>,
    /// What answers questions about indicators.
    pub indicators: Arc<Desk>,
    /// What runs flows that collect and models, if the project has an engine.
    pub warehouse: Option<Warehouse>,
}

/// Where a node comes from.
#[derive(Default)]
pub struct Origin {
    /// The program that runs, found out at the start: afterwards its file may be another. An upgrade starts it once more;
    /// without it, none is heard.
    pub program: Option<PathBuf>,
    /// What it has taken over.
    pub taken: Option<Taken>,
}

/// What a node has that takes another one's place.
pub struct Taken {
    mesh: Arc<mesh::Mesh>,
    http: Option<std::net::TcpListener>,
    /// The admin port of the mesh.
    admin: Option<std::net::TcpListener>,
}

/// Serves the mesh in another process's place, and waits until that has let go of the data.
pub async fn take_over(project: &Project, mut successor: mesh::Successor) -> Result<Taken, Failure> {
    let http = successor.socket(upgrade::HTTP);
    let admin = successor.socket(upgrade::ADMIN);
    let Some(config) = &project.mesh else {
        let reason = "the project has no mesh any more, or the role `mesh` is missing";
        successor.fail(reason);
        return Err(Failure::new(2, reason));
    };
    let mesh = mesh::Mesh::start_as(config, &mut successor).map_err(|error| {
        successor.fail(&base::error::chain(&error));
        Failure::of("start the mesh", &error)
    })?;
    let mesh = Arc::new(mesh);
    let serving = mesh.clone();
    let served =
        tokio::task::spawn_blocking(move || serving.succeed(&successor).map(|came| (came, successor)));
    let (came, successor) = served
        .await
        .map_err(|error| Failure::new(1, format!("failed to take over: {error}")))?
        .map_err(|error| Failure::new(1, format!("failed to take over: {}", base::error::chain(&error))))?;
    tracing::info!(sessions = came, "the mesh serves in the old process's place");
    upgrade::outlive(successor).await;
    Ok(Taken { mesh, http, admin })
}

/// Runs the project until `shutdown` turns true, or another process has taken over.
pub async fn run(
    project: &Project,
    mut asked: watch::Receiver<bool>,
    origin: Origin,
    ready: impl FnOnce(std::net::SocketAddr, NodeClient),
) -> Result<(), Failure> {
    // Journals and parked rows hold the business's data: only their owner reads them.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&project.node.data_dir)
        .map_err(|e| Failure::io(&format!("make {}", project.node.data_dir.display()), &e))?;
    let catalog = Catalog::open(&project.catalog_path()).map_err(|e| Failure::of("open the catalog", &e))?;
    let access = Access::open(catalog.clone()).map_err(|e| Failure::of("read the tokens", &e))?;
    let tls = project.node.tls.as_ref().map(Tls::read).transpose();
    let tls =
        tls.map_err(|message| Failure::new(2, format!("failed to read `tls`: {message}")))?.map(Arc::new);
    let streams = open_streams(project)?;
    let Origin { program, taken } = origin;
    let (taken_mesh, taken_http, taken_admin) =
        taken.map_or((None, None, None), |taken| (Some(taken.mesh), taken.http, taken.admin));
    let took_over = taken_mesh.is_some();
    let listener = match taken_http {
        Some(port) => adopt(port, project)?,
        None => None,
    };
    let listener = match listener {
        Some(listener) => listener,
        None => bind(project).await?,
    };
    // Sources, flows and the HTTP port end by this: when the node does, and when another process has taken over.
    let (end, shutdown) = watch::channel(false);
    let metrics = http::metrics_handle();
    let mut tasks = JoinSet::new();
    let mut sources = BTreeMap::new();
    for name in project.sources.keys() {
        sources.insert(name.clone(), start_source(project, name, &mut tasks, &shutdown)?);
    }
    let mut flows = BTreeMap::new();
    for name in project.flows.keys() {
        flows.insert(name.clone(), start_flow(project, name, &sources, &catalog, &mut tasks, &shutdown));
    }
    for (name, source) in &sources {
        let Some(open) = &source.open else { continue };
        let mut readers = readers_of(name, &flows, &catalog);
        readers.extend(open.mirror.clone().map(Reader::Mirror));
        let limits = Limits::new(&project.node.journal);
        tasks.spawn(retention::run(name.clone(), open.journal.clone(), readers, limits, shutdown.clone()));
    }
    let address = listener.local_addr().map_err(|e| Failure::io("read the listening address", &e))?;
    let mesh = match (taken_mesh, &project.mesh) {
        (Some(mesh), _) => Some(mesh),
        (None, Some(config)) => {
            let started = mesh::Mesh::start(config).map_err(|error| Failure::of("start the mesh", &error))?;
            Some(Arc::new(started))
        }
        (None, None) => None,
    };
    let mesh_file = mesh.as_ref().map(|mesh| Arc::new(MeshFile::new(&project.dir, mesh)));
    let admin = match (&mesh, &mesh_file) {
        (Some(mesh), Some(file)) => open_admin(mesh, file, taken_admin, took_over)?,
        _ => None,
    };
    let mut handed = match (&mesh, program) {
        (Some(mesh), Some(program)) => hear_upgrades(project, mesh, &listener, admin.as_ref(), program),
        _ => None,
    };
    for (listener, address) in mesh.iter().flat_map(|mesh| mesh.addresses()) {
        tracing::info!(listener, address = %address, "the mesh listens");
    }
    let warehouse = Warehouse::open(project, catalog.clone(), shutdown.clone()).await?;
    let node = Node {
        name: project.node.name.clone(),
        sources: Arc::new(sources),
        flows: Arc::new(flows),
        catalog,
        data_dir: project.node.data_dir.as_path().into(),
        mesh: mesh.clone(),
        mesh_file,
        subscriptions: Arc::default(),
        streams,
        indicators: Arc::new(Desk::new(project, warehouse.as_ref())),
        warehouse,
    };
    if let Some(report) = &project.node.report {
        let reporter =
            Reporter::read(report).map_err(|(message, hint)| Failure::new(2, message).hint(hint))?;
        tasks.spawn(reporter.run(node.clone(), metrics.clone(), shutdown.clone()));
    }
    let app = http::App::new(node, metrics, access.clone(), shutdown.clone());
    let client = NodeClient::inside(http::routes(app.clone()));
    scheduled::spawn(project, &app.node.flows, &client, &mut tasks, &shutdown);
    if let Some(warehouse) = &app.node.warehouse {
        crate::warehouse::spawn(warehouse, &mut tasks, &shutdown);
    }
    tasks.spawn(access.clone().follow_others(shutdown.clone()));
    door::open(project, &access, tls.as_ref(), took_over, &mut tasks, &shutdown).await?;
    ready(address, client);
    notify::ready();
    let router = http::router(app, Origins::new(&project.node.http.cors));
    let mut server = tokio::spawn(listener::serve(listener, tls, router, shutdown.clone()));
    let handed = tokio::select! {
        _ = asked.wait_for(|stop| *stop) => None,
        Some(handed) = next_upgrade(&mut handed) => Some(handed),
    };
    let _ = end.send(true);
    drop(admin);
    tracing::info!("stopping: batches in flight are finished first");
    if let (Some(mesh), None) = (&mesh, &handed) {
        mesh.close();
    }
    let until = tokio::time::Instant::now() + DRAIN_MAX;
    let drained = tokio::time::timeout_at(until, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            "gave up waiting for batches in flight after {} s; the next start goes on from there",
            DRAIN_MAX.as_secs()
        );
    }
    tasks.shutdown().await;
    // Answers at hand were told to end; a client that does not read them is not waited for.
    if tokio::time::timeout(ANSWERS_WAIT, &mut server).await.is_err() {
        server.abort();
        let _ = server.await;
    }
    let Some(mesh) = mesh else { return Ok(()) };
    match handed {
        Some(handed) => outlast(&mesh, handed, asked).await,
        None => finish_transactions(&mesh, until).await,
    }
    // What the capture holds is written.
    let _ = tokio::task::spawn_blocking(move || mesh.stop_capture()).await;
    Ok(())
}

/// Streams that clients make, where the project has them: in a file beside the catalog.
fn open_streams(project: &Project) -> Result<Option<Arc<Streams>>, Failure> {
    let Some(config) = &project.node.streams else { return Ok(None) };
    let path = project.node.data_dir.join("streams.db");
    let opened = Streams::open(&path, config, project.node.tls.is_some()).map_err(|message| {
        Failure::new(1, format!("failed to open {}: {message}", path.display()))
            .hint("check that the folder is writable and has space")
    });
    opened.map(|streams| Some(Arc::new(streams)))
}

/// Waits until no client of the mesh is in the midst of a transaction.
async fn finish_transactions(mesh: &mesh::Mesh, until: tokio::time::Instant) {
    while mesh.transactions() > 0 && tokio::time::Instant::now() < until {
        tokio::time::sleep(TRANSACTIONS_LOOK).await;
    }
    let cut = mesh.transactions();
    if cut > 0 {
        tracing::warn!(cut, "gave up waiting for transactions of clients: their servers roll them back");
    }
}

/// Another process serves. What was locked here is free: it may go on with it, while the sessions that could not move are
/// served to their end, or until their time is over.
async fn outlast(mesh: &mesh::Mesh, handed: HandOver, mut asked: watch::Receiver<bool>) {
    let HandOver { left, until, .. } = &handed;
    tracing::info!(left, "the new process takes over sources and flows");
    let until = tokio::time::Instant::from_std(*until);
    let handed = handed.release();
    while mesh.status().sessions > 0 && tokio::time::Instant::now() < until && !*asked.borrow() {
        let _ = tokio::time::timeout(TRANSACTIONS_LOOK, asked.wait_for(|stop| *stop)).await;
    }
    let ended = mesh.status().sessions;
    mesh.close();
    finish_transactions(mesh, tokio::time::Instant::now() + DRAIN_MAX).await;
    handed.end(ended).await;
}

/// The admin port of the mesh. One that serves another process's sessions already goes on without it.
fn open_admin(
    mesh: &Arc<mesh::Mesh>,
    file: &Arc<MeshFile>,
    taken: Option<std::net::TcpListener>,
    took_over: bool,
) -> Result<Option<mesh::AdminPort>, Failure> {
    match mesh::AdminPort::open(mesh, file.clone(), taken) {
        Ok(admin) => {
            if let Some(admin) = &admin {
                tracing::info!(address = %admin.address(), "the mesh's admin port listens");
            }
            Ok(admin)
        }
        Err(error) if took_over => {
            tracing::error!(error = base::error::chain(&error), "the mesh's admin port does not listen");
            Ok(None)
        }
        Err(error) => Err(Failure::of("open the mesh's admin port", &error)),
    }
}

/// Orders of upgrades; `None`, and a warning, where they cannot be heard.
fn hear_upgrades(
    project: &Project,
    mesh: &Arc<mesh::Mesh>,
    http: &tokio::net::TcpListener,
    admin: Option<&mesh::AdminPort>,
    program: PathBuf,
) -> Option<mpsc::Receiver<HandOver>> {
    let heard = http.as_fd().try_clone_to_owned().and_then(|port| {
        let admin = match admin {
            Some(admin) => Some((admin.configured(), admin.socket().try_clone_to_owned()?)),
            None => None,
        };
        let address = http.local_addr()?;
        let service = upgrade::Service { mesh: mesh.clone(), http: port, address, admin, program };
        service.listen(&project.node)
    });
    heard.inspect_err(|error| tracing::warn!(%error, "`tidemill mesh upgrade` will not reach this node")).ok()
}

async fn next_upgrade(handed: &mut Option<mpsc::Receiver<HandOver>>) -> Option<HandOver> {
    match handed {
        Some(handed) => handed.recv().await,
        None => std::future::pending().await,
    }
}

/// The old process's port, if it is still the one that is wanted.
fn adopt(port: std::net::TcpListener, project: &Project) -> Result<Option<tokio::net::TcpListener>, Failure> {
    let failed = |e: std::io::Error| Failure::io("take over the HTTP port", &e);
    let (wanted, is) = (project.node.listen.http, port.local_addr().map_err(failed)?);
    if wanted != is && (wanted.port() != 0 || wanted.ip() != is.ip()) {
        return Ok(None);
    }
    tokio::net::TcpListener::from_std(port).map(Some).map_err(failed)
}

fn start_source(
    project: &Project,
    name: &str,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) -> Result<RunningSource, Failure> {
    let config = project.sources[name].clone();
    let status = StatusCell::new(name);
    let (writer, journal) = match open_journal(project, &project.journal_dir(name)) {
        Ok(opened) => opened,
        // Damage stops this stream alone. Anything else, such as a second process, stops the node.
        Err(error @ (JournalError::Corrupt { .. } | JournalError::Format { .. })) => {
            let (message, hint) = (base::error::chain(&error), error.hint());
            tracing::error!(source = name, error = message, hint, "the source cannot start");
            status.update(|status| {
                status.state = "failed";
                status.error = Some(ErrorStatus { message, hint });
            });
            return Ok(RunningSource { status, open: None });
        }
        Err(error) => return Err(Failure::of(&format!("open the journal of source `{name}`"), &error)),
    };
    // Topics and requests have no snapshot before them, but for those of a TiDB that is named.
    let has_snapshot =
        matches!(config.kind, SourceKind::Mysql | SourceKind::Sqlite) || kafka::ticdc::snapshots(&config);
    let snapshot = if has_snapshot { config.snapshot } else { SnapshotMode::Never };
    status.recall(&journal.state(), snapshot);
    let handle = JournalHandle::spawn(name, writer);
    let patterns =
        Arc::new(Patterns::new(&config.tables, &config.exclude).expect("checked with the project"));
    let (control, commands) = mpsc::channel(4);
    let reach = Reach::new(name, &config, &project.flows);
    let mirror = start_mirror(project, name, &journal, &control, tasks, shutdown)?;
    let marker = Marker::new(name.to_owned(), config.clone());
    let limits = hub::Limits::of(&config.subscriptions);
    let hub = Hub::within(name.to_owned(), journal.clone(), mirror.clone(), marker, shutdown.clone(), limits);
    let name: Arc<str> = name.into();
    let (stop, cell) = (shutdown.clone(), status.clone());
    let (mut push, mut repairs) = (None, None);
    match config.kind {
        SourceKind::Mysql => {
            let flows = project.flows.values().filter(|flow| *flow.from == *name).map(|flow| {
                let all = ["*.*".to_owned()];
                let tables = if flow.tables.is_empty() { &all[..] } else { &flow.tables };
                Patterns::new(tables, &[]).expect("checked with the project")
            });
            let flows = flows.collect();
            let source = MySqlSource { name, config, patterns, handle, status: cell, flows, reach };
            let (sender, requests) = mpsc::channel(repair::REQUESTS_MAX);
            repairs = Some(sender);
            tasks.spawn(async move {
                if let Err(error) = mysql::run(source, commands, requests, stop).await {
                    tracing::error!(error = base::error::chain(&error), "capture ended");
                }
            });
        }
        SourceKind::Sqlite => {
            let path = config.path.clone().expect("checked with the project");
            let source = SqliteSource { name, path, config, patterns, handle, status: cell, reach };
            tasks.spawn(async move { sqlite::run(source, commands, stop).await });
        }
        SourceKind::Kafka => {
            let source = KafkaSource { name, config, patterns, handle, status: cell };
            tasks.spawn(async move { kafka::run(source, commands, stop).await });
        }
        SourceKind::Capture => {
            let path = config.path.clone().expect("checked with the project");
            let source = StatementsSource { name, path, patterns, handle, status: cell };
            tasks.spawn(async move { statements::run(source, commands, stop).await });
        }
        SourceKind::Http => {
            let keys = webhook::keys(&config.secrets).expect("checked with the project").into();
            let (inbox, outbox) = http_source::inbox();
            push = Some(PushDoor { inbox, keys });
            let source = HttpSource { name, config, patterns, handle, status: cell, inbox: outbox };
            tasks.spawn(async move { http_source::run(source, commands, stop).await });
        }
    }
    Ok(RunningSource { status, open: Some(OpenSource { journal, control, repairs, push, mirror, hub }) })
}

/// The mirror of a source, where the source or one of its flows asks for one.
fn start_mirror(
    project: &Project,
    name: &str,
    journal: &Journal,
    control: &mpsc::Sender<Control>,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) -> Result<Option<Mirror>, Failure> {
    let config = MirrorConfig::of(name, &project.sources[name], &project.flows);
    let Some(config) = config.expect("checked with the project") else { return Ok(None) };
    let folder = project.node.data_dir.join("mirror");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|e| Failure::io(&format!("make {}", folder.display()), &e))?;
    let parts = MirrorParts {
        source: name.to_owned(),
        path: folder.join(format!("{name}.db")),
        journal: journal.clone(),
        control: control.clone(),
        config,
    };
    let (mirror, follower) = mirror::prepare(parts, shutdown.clone());
    tasks.spawn(async move {
        if let Err(error) = tokio::task::spawn_blocking(move || follower.run()).await {
            tracing::error!(%error, "a mirror ended");
        }
    });
    Ok(Some(mirror))
}

fn start_flow(
    project: &Project,
    name: &str,
    sources: &BTreeMap<String, RunningSource>,
    catalog: &Catalog,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) -> RunningFlow {
    let config = project.flows[name].clone();
    let status = FlowStatusCell::new(name, &config.from, &config.to, project.sinks[&config.to].kind);
    let (control, commands) = mpsc::channel(4);
    let cache = match &sources[&config.from].open {
        None => Err(CacheError::Away { message: format!("the source `{}` cannot start", config.from) }),
        Some(open) => Cache::of(CacheParts {
            flow: name,
            config: &config,
            source: &project.sources[&config.from],
            sink: &project.sinks[&config.to],
            journal: open.journal.clone(),
        }),
    };
    let running = RunningFlow {
        cache: Arc::new(cache),
        status: status.clone(),
        from: config.from.clone(),
        tables: config.tables.clone(),
        sink: project.sinks[&config.to].clone(),
        config: Arc::new(config.clone()),
        control,
    };
    let Some(open) = &sources[&config.from].open else {
        status.update(|status| {
            status.state = "failed";
            let message = format!("source `{}` cannot start", config.from);
            let hint = Some("mend the source: see its error in `tidemill status`".to_owned());
            status.error = Some(ErrorStatus { message, hint });
        });
        return running;
    };
    let flow = Flow {
        name: name.into(),
        sink_config: project.sinks[&config.to].clone(),
        config,
        journal: open.journal.clone(),
        catalog: catalog.clone(),
        status,
        mirror: open.mirror.clone(),
    };
    tasks.spawn(deliver::run(flow, commands, shutdown.clone()));
    running
}

fn readers_of(source: &str, flows: &BTreeMap<String, RunningFlow>, catalog: &Catalog) -> Vec<Reader> {
    let own = flows.iter().filter(|(_, flow)| flow.from == source);
    own.map(|(name, flow)| {
        let (status, catalog) = (flow.status.clone(), catalog.clone());
        Reader::Flow(FlowReader { flow: name.clone(), status, catalog })
    })
    .collect()
}

fn open_journal(project: &Project, dir: &Path) -> Result<(journal::Writer, Journal), JournalError> {
    let mut options = journal::Options::default();
    if let Some(size) = project.node.journal.segment_bytes {
        options.segment_bytes =
            size.0.clamp(journal::limits::SEGMENT_BYTES_MIN, journal::limits::SEGMENT_BYTES_MAX);
    }
    std::fs::create_dir_all(dir).map_err(|source| JournalError::Io {
        action: "make the folder",
        path: dir.to_owned(),
        source,
    })?;
    journal::open(Arc::new(RealDisk), dir, options)
}

async fn bind(project: &Project) -> Result<tokio::net::TcpListener, Failure> {
    let address = project.node.listen.http;
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| Failure::io(&format!("listen on {address}"), &e).hint(port_hint(address)))
}

/// Another port for a second node.
fn port_hint(taken: std::net::SocketAddr) -> String {
    let other = std::net::SocketAddr::new(taken.ip(), taken.port().checked_add(1).unwrap_or(7070));
    format!("another tidemill may be running; else write into tidemill.yaml: listen: {{http: {other}}}")
}
