//! Random histories of a table, of devices that follow it, and of everything that can happen to both: statements that change the table's
//! columns, tables that are read anew, a history that is cut off or not proven, nodes and devices that are killed, mirrors that are lost.
//! At the end each device has what the table has, as far as it may see it; on the way every checksum that it is sent is its own.
//!
//! `TIDEMILL_HISTORIES` says how many (120), `TIDEMILL_SEED` which one comes first.

#![expect(clippy::unwrap_used, reason = "a panic here is the failure report")]

use base::{
    Column, ColumnType, Ddl, Generated, Op, Position, RowBuf, SnapshotProgress, Step, Table, TableName,
    TableSnapshot, Value,
};
use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::v1::{Change, Op as Said, SubscribeResponse};
use flow::capture::mysql::{Anew, Control};
use flow::config::SourceConfig;
use flow::mirror::{self, Mirror, MirrorConfig, MirrorParts};
use flow::subscribe::hub::{Hub, Limits};
use flow::subscribe::mark::Marker;
use flow::subscribe::order::WindowSpec;
use flow::subscribe::shape::ShapeSpec;
use flow::subscribe::{Request, Stream, Subscriptions};
use journal::sim::{Rng, SimDisk};
use journal::{Batch, Journal, Options, Retention, Writer};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A wait that is longer than this is a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// What devices ask for, with what they may see, and whether a row is of it.
struct Asked {
    filter: &'static str,
    enforced: Option<&'static str>,
    columns: &'static [&'static str],
    is: fn(&Row) -> bool,
}

type Row = BTreeMap<String, Value>;

fn number(row: &Row, name: &str) -> Option<i64> {
    match row.get(name) {
        Some(Value::Int(v)) => Some(*v),
        _ => None,
    }
}

fn text<'a>(row: &'a Row, name: &str) -> Option<&'a str> {
    match row.get(name) {
        Some(Value::Text(v)) => Some(v),
        _ => None,
    }
}

const ASKED: [Asked; 6] = [
    Asked { filter: "", enforced: None, columns: &[], is: |_| true },
    Asked {
        filter: "n < 5",
        enforced: None,
        columns: &[],
        is: |row| number(row, "n").is_some_and(|n| n < 5),
    },
    Asked {
        filter: "owner = 'ANN'",
        enforced: None,
        columns: &["n"],
        is: |row| text(row, "owner").is_some_and(|owner| owner.eq_ignore_ascii_case("ann")),
    },
    Asked { filter: "n = 3", enforced: None, columns: &[], is: |row| number(row, "n") == Some(3) },
    Asked {
        filter: "n > 1",
        enforced: Some("owner = 'bob'"),
        columns: &[],
        is: |row| {
            number(row, "n").is_some_and(|n| n > 1)
                && text(row, "owner").is_some_and(|owner| owner.eq_ignore_ascii_case("bob"))
        },
    },
    Asked {
        filter: "owner IS NULL OR id % 2 = 0",
        enforced: None,
        columns: &["owner"],
        is: |row| text(row, "owner").is_none() || number(row, "id").is_some_and(|id| id % 2 == 0),
    },
];

const OWNERS: [Option<&str>; 5] = [Some("ann"), Some("Ann"), Some("bob"), Some("Zoë"), None];

/// The table, and the journal that tells of it.
struct World {
    rng: Rng,
    writer: Writer,
    journal: Journal,
    table: Arc<Table>,
    rows: BTreeMap<i64, Row>,
    transactions: u64,
    extra: u32,
    directory: tempfile::TempDir,
    config: SourceConfig,
    requests: mpsc::Receiver<Control>,
    control: mpsc::Sender<Control>,
    node: Option<Running>,
    log: VecDeque<String>,
}

/// What ends with a node.
struct Running {
    hub: Arc<Hub>,
    subscriptions: Arc<Subscriptions>,
    mirror: Mirror,
    end: watch::Sender<bool>,
    follower: JoinHandle<()>,
}

fn column(name: &str, ty: ColumnType, sql_type: &str) -> Column {
    let is_text = matches!(ty, ColumnType::Text { .. });
    Column {
        name: name.into(),
        ty,
        sql_type: sql_type.into(),
        nullable: name != "id",
        charset: is_text.then(|| "utf8mb4".into()),
        collation: is_text.then(|| "utf8mb4_0900_ai_ci".into()),
        generated: Generated::No,
        invisible: false,
    }
}

fn int(name: &str) -> Column {
    column(name, ColumnType::Int { unsigned: false }, "int")
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let options = Options { segment_bytes: 4096, identity: Some(seed + 1) };
        let (writer, journal) = journal::open(Arc::new(disk), Path::new("/journal"), options).unwrap();
        let table = Arc::new(Table {
            id: 1,
            version: 1,
            name: TableName::new("shop", "orders"),
            columns: vec![
                int("id"),
                column("owner", ColumnType::Text { chars_max: 20 }, "varchar(20)"),
                int("n"),
            ],
            key: vec![0],
            unique_keys: Vec::new(),
        });
        let config = "kind: http\ntables: [\"*.*\"]\nmirror: [\"*.*\"]\n";
        let (control, requests) = mpsc::channel(4);
        let mut own = Self {
            rng: Rng::new(seed),
            writer,
            journal,
            table,
            rows: BTreeMap::new(),
            transactions: 0,
            extra: 0,
            directory: tempfile::tempdir().unwrap(),
            config: serde_saphyr::from_str(config).unwrap(),
            requests,
            control,
            node: None,
            log: VecDeque::new(),
        };
        let table = Arc::clone(&own.table);
        own.write(|batch| {
            batch.schema(&table);
            batch.commit(&Step::Full(Box::new(Position::Push { requests: 0, recent: VecDeque::new() })));
        });
        own
    }

    fn note(&mut self, what: impl Into<String>) {
        let what = format!("{} {}", self.journal.sealed().lsn, what.into());
        if std::env::var_os("TIDEMILL_TALK").is_some() {
            println!("{what}");
        }
        self.log.push_back(what);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn write(&mut self, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new(self.writer.next_lsn());
        fill(&mut batch);
        self.writer.append(batch).unwrap();
        self.writer.seal().unwrap();
    }

    fn image(&self, row: &Row) -> RowBuf {
        let null = Value::Null;
        RowBuf::from_values(self.table.columns.iter().map(|c| row.get(&c.name).unwrap_or(&null).as_ref()))
    }

    fn draw_row(&mut self, id: i64) -> Row {
        let owner = OWNERS[self.rng.below(5) as usize].map_or(Value::Null, |name| Value::Text(name.into()));
        let mut row = Row::from([("id".to_owned(), Value::Int(id)), ("owner".to_owned(), owner)]);
        for column in &self.table.columns[2..] {
            row.insert(column.name.clone(), Value::Int(self.rng.below(8) as i64));
        }
        row
    }

    /// A transaction of a few statements.
    fn transaction(&mut self) {
        let mut changes: Vec<(Op, Option<RowBuf>, Option<RowBuf>)> = Vec::new();
        for _ in 0..=self.rng.below(6) {
            let id = self.rng.below(12) as i64;
            let held = self.rows.get(&id).cloned();
            match (held, self.rng.below(6)) {
                (None, _) => {
                    let row = self.draw_row(id);
                    changes.push((Op::Insert, None, Some(self.image(&row))));
                    self.rows.insert(id, row);
                }
                (Some(old), 0 | 1) => {
                    changes.push((Op::Delete, Some(self.image(&old)), None));
                    self.rows.remove(&id);
                }
                (Some(old), 2) => {
                    let to = self.rng.below(12) as i64;
                    if !self.rows.contains_key(&to) {
                        let mut new = old.clone();
                        new.insert("id".into(), Value::Int(to));
                        changes.push((Op::Update, Some(self.image(&old)), Some(self.image(&new))));
                        self.rows.remove(&id);
                        self.rows.insert(to, new);
                    }
                }
                (Some(old), _) => {
                    let new = self.draw_row(id);
                    changes.push((Op::Update, Some(self.image(&old)), Some(self.image(&new))));
                    self.rows.insert(id, new);
                }
            }
        }
        self.transactions += 1;
        let (table, number) = (Arc::clone(&self.table), self.transactions);
        self.note(format!("transaction of {}", changes.len()));
        self.write(|batch| {
            batch.begin(&format!("t:{number}"), number as i64);
            for (op, before, after) in &changes {
                let bytes = |row: &Option<RowBuf>| row.as_ref().map(|row| row.0.clone());
                batch.change(*op, &table, bytes(before).as_deref(), bytes(after).as_deref());
            }
            batch.commit(&Step::Stay);
        });
    }

    fn truncate(&mut self) {
        self.note("truncate");
        self.rows.clear();
        self.transactions += 1;
        let (table, number) = (Arc::clone(&self.table), self.transactions);
        self.write(|batch| {
            batch.begin(&format!("t:{number}"), 1);
            batch.truncate(&table);
            batch.commit(&Step::Stay);
        });
    }

    /// A statement that changes the columns: rows keep what they have.
    fn alter(&mut self) {
        let mut table = Table::clone(&self.table);
        table.version += 1;
        let mut renames = Vec::new();
        let extra = table.columns.len() > 3;
        match self.rng.below(3) {
            0 => {
                self.extra += 1;
                table.columns.push(int(&format!("x{}", self.extra)));
            }
            1 if extra => {
                let gone = table.columns.pop().unwrap().name;
                self.rows.values_mut().for_each(|row| drop(row.remove(&gone)));
            }
            _ if extra => {
                self.extra += 1;
                let new = format!("x{}", self.extra);
                let old = std::mem::replace(&mut table.columns[3].name, new.clone());
                for row in self.rows.values_mut() {
                    let value = row.remove(&old).unwrap_or(Value::Null);
                    row.insert(new.clone(), value);
                }
                renames.push((old, new));
            }
            _ => table.unique_keys.push(vec![1]),
        }
        let after = Arc::new(table);
        let before = std::mem::replace(&mut self.table, Arc::clone(&after));
        self.note(format!("alter to {:?}", after.columns.iter().map(|c| &c.name).collect::<Vec<_>>()));
        self.transactions += 1;
        let number = self.transactions;
        let ddl = Ddl {
            sql: "ALTER TABLE orders".into(),
            before: Some(before),
            after: Some(Arc::clone(&after)),
            column_renames: renames,
        };
        self.write(|batch| {
            batch.begin(&format!("t:{number}"), 1);
            batch.schema(&after);
            batch.ddl(&ddl);
            batch.commit(&Step::Stay);
        });
    }

    /// The table is read anew; what changed unseen is found by it. Answers where it begins.
    fn read_anew(&mut self, unseen: bool) -> u64 {
        if unseen {
            for id in 0..12 {
                if self.rng.below(4) == 0 {
                    self.rows.remove(&id);
                }
            }
        }
        self.note("read anew");
        let table = Arc::clone(&self.table);
        let name = table.name.to_string();
        let progress = |done: bool| SnapshotProgress {
            tables: [(name.clone(), TableSnapshot { done, ..TableSnapshot::default() })].into(),
        };
        let begun = self.writer.next_lsn();
        self.write(|batch| {
            batch.begin("", 1);
            batch.truncate(&table);
            batch.snapshot(&progress(false));
            batch.commit(&Step::Stay);
        });
        let images: Vec<RowBuf> = self.rows.values().map(|row| self.image(row)).collect();
        let half = images.len() / 2;
        for (part, done) in [(&images[..half], false), (&images[half..], true)] {
            self.write(|batch| {
                batch.begin("", 1);
                for image in part {
                    batch.change(Op::Read, &table, None, Some(&image.0));
                }
                batch.snapshot(&progress(done));
                batch.commit(&Step::Stay);
            });
        }
        begun
    }

    fn new_epoch(&mut self) {
        let epoch = self.journal.sealed().epoch + 1;
        self.note(format!("epoch {epoch}"));
        self.write(|batch| {
            batch.epoch(epoch, "a test");
            batch.commit(&Step::Stay);
        });
        self.read_anew(true);
    }

    /// Retention removes what it may.
    fn prune(&mut self) {
        let keep = self.journal.sealed().lsn.saturating_sub(self.rng.below(40));
        let _ = self.journal.prune(keep, Retention { bytes_max: Some(0), since_ts_ms: None }).unwrap();
        let first = self.journal.first_lsn();
        self.note(format!("the journal begins at {first}"));
    }

    fn start(&mut self) {
        self.note("start");
        let (end, shutdown) = watch::channel(false);
        let sources = MirrorConfig::of("shop", &self.config, &BTreeMap::new()).unwrap().unwrap();
        let parts = MirrorParts {
            source: "shop".into(),
            path: self.directory.path().join("shop.db"),
            journal: self.journal.clone(),
            control: self.control.clone(),
            config: sources,
        };
        let (mirror, follower) = mirror::prepare(parts, shutdown.clone());
        let follower = tokio::task::spawn_blocking(move || follower.run());
        let marker = Marker::new("shop".into(), self.config.clone());
        // So few that windows run dry.
        let limits = Limits { spare_rows: Some(1 + self.rng.below(3) as usize), ..Limits::default() };
        let (journal, of) = (self.journal.clone(), Some(mirror.clone()));
        let hub = Hub::within("shop".into(), journal, of, marker, shutdown, limits);
        self.node = Some(Running { hub, subscriptions: Arc::default(), mirror, end, follower });
    }

    /// As by a kill: what devices have is what they stored.
    async fn stop(&mut self, lose_mirror: bool) {
        let Some(node) = self.node.take() else { return };
        self.note(if lose_mirror { "stop, and the mirror is lost" } else { "stop" });
        node.end.send(true).unwrap();
        node.follower.await.unwrap();
        if lose_mirror {
            for ending in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(self.directory.path().join(format!("shop.db{ending}")));
            }
        }
    }

    /// What the mirror asked the source for.
    fn serve(&mut self) {
        while let Ok(Control::Resnapshot { tables, reply }) = self.requests.try_recv() {
            let from_lsn = self.read_anew(false);
            let _ = reply.send(Ok(Anew { tables, from_lsn }));
        }
    }

    fn wanted(&self, device: &Device) -> BTreeMap<i64, Row> {
        let asked = &ASKED[device.asked];
        let visible = |name: &str| asked.columns.is_empty() || name == "id" || asked.columns.contains(&name);
        let names: Vec<&str> =
            self.table.columns.iter().map(|c| c.name.as_str()).filter(|n| visible(n)).collect();
        let seen = |row: &Row| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), row.get(*name).cloned().unwrap_or(Value::Null)))
                .collect()
        };
        let mut rows: Vec<(&i64, &Row)> = self.rows.iter().filter(|(_, row)| (asked.is)(row)).collect();
        if let Some(window) = &device.window {
            rows.sort_by(|(_, a), (_, b)| sorted(window, a, b));
            rows.truncate(window.limit as usize);
        }
        rows.into_iter().map(|(id, row)| (*id, seen(row))).collect()
    }

    fn draw_window(&mut self) -> Option<WindowSpec> {
        if self.rng.below(2) == 0 {
            return None;
        }
        let mut order = Vec::new();
        for name in ["n", "owner", "id"] {
            if self.rng.below(2) == 0 {
                order.push((name.to_owned(), self.rng.below(2) == 0));
            }
        }
        Some(WindowSpec { order, limit: 1 + self.rng.below(6) as u32 })
    }
}

/// As MySQL sorts: NULL first, texts by `utf8mb4_0900_ai_ci`, the key between those that are equal.
fn sorted(window: &WindowSpec, a: &Row, b: &Row) -> Ordering {
    let folded = |row: &Row| text(row, "owner").map(|text| text.to_lowercase().replace('ë', "e"));
    for (name, descends) in &window.order {
        let by = match name.as_str() {
            "owner" => folded(a).cmp(&folded(b)),
            name => number(a, name).cmp(&number(b, name)),
        };
        let by = if *descends { by.reverse() } else { by };
        if by.is_ne() {
            return by;
        }
    }
    number(a, "id").cmp(&number(b, "id"))
}

/// A device: what it stored, and the stream that is open.
#[derive(Default)]
struct Device {
    asked: usize,
    window: Option<WindowSpec>,
    /// The stream that is open has said that it is up to date.
    up_to_date: bool,
    stored: Stored,
    stream: Option<Stream>,
    id: Option<u64>,
}

#[derive(Clone, Default)]
struct Stored {
    token: Vec<u8>,
    columns: Vec<String>,
    key: usize,
    /// By id: lsn, generation, values.
    rows: BTreeMap<i64, (u64, u32, Vec<client::v1::Value>)>,
    generation: u32,
    stale: bool,
}

fn id_of(value: &client::v1::Value) -> i64 {
    match value.kind {
        Some(Kind::Int(id)) => id,
        ref other => panic!("a key of {other:?}"),
    }
}

impl Stored {
    /// The four rules of the interface, and nothing else.
    fn apply(&mut self, response: &SubscribeResponse) {
        match response.event.as_ref().unwrap() {
            Event::Schema(schema) => {
                let from: Vec<Option<usize>> = schema
                    .columns
                    .iter()
                    .map(|column| {
                        let was = column.was.as_ref().unwrap_or(&column.name);
                        self.columns.iter().position(|name| name == was)
                    })
                    .collect();
                for (_, _, values) in self.rows.values_mut() {
                    let null = client::v1::Value { kind: Some(Kind::Null(true)) };
                    *values = from
                        .iter()
                        .map(|at| at.map_or_else(|| null.clone(), |at| values[at].clone()))
                        .collect();
                }
                self.columns = schema.columns.iter().map(|column| column.name.clone()).collect();
                self.key = schema.columns.iter().position(|column| column.key == 1).unwrap();
            }
            Event::Batch(batch) => batch.changes.iter().for_each(|change| self.take(change)),
            Event::Reset(_) => {
                (self.generation, self.stale) = (self.generation + 1, true);
                self.token.clear();
            }
            Event::SnapshotEnd(_) if self.stale => {
                self.rows.retain(|_, (_, generation, _)| *generation == self.generation);
                self.stale = false;
            }
            Event::Checkpoint(point) if !self.stale => {
                let sum = self
                    .rows
                    .values()
                    .fold(0u64, |sum, (_, _, values)| sum.wrapping_add(client::row_hash(values)));
                assert_eq!(
                    (point.rows, point.checksum),
                    (self.rows.len() as u64, sum),
                    "at {}",
                    response.lsn
                );
            }
            _ => {}
        }
        if !response.token.is_empty() {
            self.token.clone_from(&response.token);
        }
    }

    fn take(&mut self, change: &Change) {
        let id = |at: usize| id_of(&change.values[at]);
        match change.op() {
            Said::Put => {
                assert_eq!(change.values.len(), self.columns.len());
                let id = id(self.key);
                if self.rows.get(&id).is_none_or(|(lsn, ..)| *lsn <= change.lsn) {
                    self.rows.insert(id, (change.lsn, self.generation, change.values.clone()));
                }
            }
            Said::Delete | Said::Leave => {
                let id = id(0);
                if self.rows.get(&id).is_some_and(|(lsn, ..)| *lsn <= change.lsn) {
                    self.rows.remove(&id);
                }
            }
            Said::Truncate => self.rows.retain(|_, (lsn, ..)| *lsn > change.lsn),
            Said::Unspecified => panic!("a change without an op"),
        }
    }

    fn shown(&self) -> BTreeMap<i64, Row> {
        let value = |value: &client::v1::Value| match value.kind.as_ref().unwrap() {
            Kind::Null(_) => Value::Null,
            Kind::Int(v) => Value::Int(*v),
            Kind::Text(v) => Value::Text(v.clone()),
            other => panic!("a value {other:?}"),
        };
        let row = |values: &Vec<client::v1::Value>| {
            self.columns.iter().cloned().zip(values.iter().map(value)).collect()
        };
        self.rows.iter().map(|(id, (_, _, values))| (*id, row(values))).collect()
    }
}

impl Device {
    fn connect(&mut self, world: &World) {
        let Some(node) = &world.node else { return };
        let asked = &ASKED[self.asked];
        let spec = ShapeSpec {
            table: TableName::new("shop", "orders"),
            columns: asked.columns.iter().map(|name| (*name).to_owned()).collect(),
            filter: Some(asked.filter.to_owned()).filter(|text| !text.is_empty()),
            enforced: asked.enforced.map(str::to_owned),
            visible: None,
            window: self.window.clone(),
        };
        self.up_to_date = false;
        let token = self.stored.token.clone();
        let request = Request { spec, token, credits: 0, caller: String::new(), keep: None };
        self.id = None;
        self.stream = node.subscriptions.subscribe(&node.hub, request).ok();
    }

    /// Takes what comes within a moment; answers the event.
    async fn step(&mut self, wait: Duration) -> Option<Event> {
        let stream = self.stream.as_mut()?;
        let Ok(next) = tokio::time::timeout(wait, stream.next()).await else { return None };
        let Some(Ok(bytes)) = next else {
            self.stream = None;
            return None;
        };
        let response: SubscribeResponse = proto::decode(&bytes).unwrap();
        if let Some(Event::Ready(ready)) = &response.event {
            self.id = Some(ready.subscription);
        }
        if std::env::var_os("TIDEMILL_TALK").is_some() {
            println!("  device of `{}` {:?} hears {response:?}", ASKED[self.asked].filter, self.window);
        }
        self.stored.apply(&response);
        match &response.event {
            Some(Event::UpToDate(_)) => self.up_to_date = true,
            Some(Event::Reset(_)) => self.up_to_date = false,
            _ => {}
        }
        if let Some(window) = self.window.as_ref().filter(|_| self.up_to_date) {
            assert!(self.stored.rows.len() <= window.limit as usize, "a window of more rows than its limit");
        }
        response.event
    }
}

/// Says which history it was when an assertion fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "it is history {}: TIDEMILL_SEED={} TIDEMILL_HISTORIES=1 TIDEMILL_TALK=1",
                self.0, self.0
            );
        }
    }
}

async fn history(seed: u64) -> (u64, u64, u64) {
    let _seed = Seed(seed);
    let mut world = World::new(seed);
    world.start();
    let mut devices: Vec<Device> = Vec::new();
    for _ in 0..5 {
        let (asked, window) = (world.rng.below(ASKED.len() as u64) as usize, world.draw_window());
        devices.push(Device { asked, window, ..Device::default() });
    }
    for _ in 0..40 {
        match world.rng.below(24) {
            0..=8 => world.transaction(),
            9 => world.truncate(),
            10 | 11 => world.alter(),
            12 => drop(world.read_anew(true)),
            13 if world.rng.below(3) == 0 => world.new_epoch(),
            14 => world.prune(),
            15 => {
                let lose = world.rng.below(3) == 0;
                world.stop(lose).await;
                devices.iter_mut().for_each(|device| device.stream = None);
                world.start();
            }
            16..=18 => {
                let at = world.rng.below(5) as usize;
                devices[at].connect(&world);
            }
            19 => {
                let at = world.rng.below(5) as usize;
                devices[at].stream = None;
            }
            _ => {
                let at = world.rng.below(5) as usize;
                for _ in 0..=world.rng.below(10) {
                    devices[at].step(Duration::from_millis(2)).await;
                    world.serve();
                }
            }
        }
        world.serve();
    }
    world.transaction();
    let end = world.journal.sealed().lsn;
    let mut steps = 0;
    for (number, device) in devices.iter_mut().enumerate() {
        let reached = async {
            let mut marked = false;
            loop {
                world.serve();
                if device.stream.is_none() {
                    device.connect(&world);
                    marked = false;
                }
                let subscription = device.id.and_then(|id| world.node.as_ref()?.subscriptions.find(id));
                if let (false, Some(subscription)) = (marked, subscription) {
                    let end = world.journal.sealed().lsn.max(end);
                    marked = subscription.mark(end).is_some();
                }
                steps += 1;
                if let Some(Event::Reached(_)) = device.step(Duration::from_millis(20)).await {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("seed {seed}: device {number} never came to {end}; {:#?}", world.log);
        }
        let (wanted, shown) = (world.wanted(device), device.stored.shown());
        assert_eq!(
            shown, wanted,
            "seed {seed}: device {number}, which asks for `{}` {:?}, differs; {:#?}",
            ASKED[device.asked].filter, device.window, world.log
        );
    }
    let mirrored = world.node.as_ref().map_or(0, |node| node.mirror.reached().lsn);
    let refills = world.node.as_ref().map_or(0, |node| node.hub.stats.refills.load(Relaxed));
    world.stop(false).await;
    (end, mirrored.max(steps), refills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_end_with_what_the_table_has_whatever_happens() {
    let read = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (count, first) = (read("TIDEMILL_HISTORIES", 120), read("TIDEMILL_SEED", 1));
    let (mut changes, mut steps, mut refills) = (0, 0, 0);
    for seed in first..first + count {
        let (more, took, filled) = history(seed).await;
        (changes, steps, refills) = (changes + more, steps + took, refills + filled);
    }
    println!("{count} histories, {changes} changes, {steps} steps, {refills} windows filled again");
    assert!(changes > count * 20);
    assert!(count < 100 || refills > 0, "no window ran low");
}
