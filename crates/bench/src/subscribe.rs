//! Subscriptions of a real table: filling a copy from nothing, a tail of changes, many clients on few shapes, many shapes with one client each,
//! idle clients; beside, JetStream with as many consumers. Clients are this process, on the same two cores; they read whole messages and count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use client::v1::Shape;
use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::{Heard, Node, Subscription};
use serde_json::{Value, json};
use testkit::MySql;
use testkit::mysql_async::prelude::Queryable;
use tokio::task::JoinSet;

use crate::backlog::{self, SEED_ROWS};
use crate::report::{self, Run};
use crate::subscribe_nats;
use crate::tidemill::Tidemill;

/// Longest that clients may take to come to where they are waited for.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Streams on one connection.
pub const STREAMS: usize = 50;

pub struct Options {
    pub rows: u64,
    pub clients: usize,
    pub shapes: usize,
    pub idle: usize,
    pub seconds: u64,
    /// Whether NATS is measured beside.
    pub peers: bool,
    pub save: bool,
}

fn shape(filter: &str) -> Shape {
    Shape { source: "bench".into(), table: "bench.rows".into(), r#where: filter.into(), ..Shape::default() }
}

/// What one client counts.
#[derive(Default)]
pub struct Count {
    pub changes: AtomicU64,
    up_to_date: AtomicU64,
    stop: AtomicBool,
    /// Micros from the writer's clock to the client's, in buckets of 2^(1/8).
    waits: Vec<AtomicU64>,
}

const BUCKETS: usize = 256;

impl Count {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { waits: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), ..Self::default() })
    }

    pub fn note(&self, micros: u64) {
        let bucket = ((micros.max(1) as f64).log2() * 8.0) as usize;
        self.waits[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// The wait below which this share of changes came, in milliseconds: the upper end of its bucket.
    pub fn share(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.waits.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return 2f64.powf((bucket + 1) as f64 / 8.0) / 1000.0;
            }
        }
        0.0
    }
}

pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Follows until it is told to stop; `at` is the column that has the writer's time.
async fn follow(mut subscription: Subscription, count: Arc<Count>, at: Option<usize>) -> Result<Vec<u8>> {
    // Rows of the copy that is filled first are as old as they are.
    let mut live = false;
    loop {
        match subscription.next().await {
            Ok(Heard::Response(response)) => match response.event {
                Some(Event::Batch(batch)) => {
                    count.changes.fetch_add(batch.changes.len() as u64, Ordering::Relaxed);
                    let Some(at) = at.filter(|_| live) else { continue };
                    let now = now_micros();
                    for change in &batch.changes {
                        if let Some(Some(Kind::Int(sent))) = change.values.get(at).map(|value| &value.kind) {
                            count.note(now.saturating_sub(*sent as u64));
                        }
                    }
                }
                Some(Event::UpToDate(_)) => {
                    live = true;
                    count.up_to_date.fetch_add(1, Ordering::Relaxed);
                    if count.stop.load(Ordering::Relaxed) {
                        return Ok(response.token);
                    }
                }
                _ => {}
            },
            Ok(Heard::Broken { reason, .. }) => {
                if count.stop.load(Ordering::Relaxed) {
                    return Ok(Vec::new());
                }
                eprintln!("a client was cut off: {reason}");
            }
            Err(status) => bail!("refused: {status}"),
        }
    }
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > WAIT_MAX {
            bail!("{what} did not come");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

pub async fn run(options: &Options) -> Result<()> {
    let mysql = backlog::server().await?;
    let mut conn = mysql.conn().await?;
    conn.query_drop("create table bench.live (id bigint not null auto_increment primary key, k int not null, at bigint not null, pad char(60) not null)")
        .await?;
    let mut project = Tidemill::new(&[(
        "sources/bench.yaml",
        format!("kind: mysql\nurl: {}\ntables: [\"bench.*\"]\nmirror: [\"bench.*\"]\n", mysql.url()),
    )])?;
    let nats = if options.peers { Some(subscribe_nats::server().await?) } else { None };
    if let Some(nats) = &nats {
        subscribe_nats::prepare(&mysql, &project, nats).await?;
    }
    project.start()?;
    project.wait("it streams", |status| status["sources"][0]["state"] == "stream").await?;
    let url = format!("http://127.0.0.1:{}", project.port());
    let mut runs = Vec::new();

    // From an empty table on, so that the rows come as changes.
    let node = Node::new(&url, None, None)?;
    let count = Count::new();
    count.stop.store(true, Ordering::Relaxed);
    let token = follow(Subscription::new(node.clone(), shape(""), Vec::new()), count, None).await?;
    eprintln!("writing {} rows", options.rows);
    let rows = options.rows / SEED_ROWS * SEED_ROWS;
    backlog::write(&mysql, rows, backlog::Shape::Large(SEED_ROWS)).await?;
    project.wait("the mirror has all", |status| mirrored(status, rows)).await?;
    for (name, token) in [("a tail of changes", token), ("a copy from nothing", Vec::new())] {
        let count = Count::new();
        count.stop.store(true, Ordering::Relaxed);
        let (before, begun) = (project.usage()?, Instant::now());
        follow(Subscription::new(node.clone(), shape(""), token), Arc::clone(&count), None).await?;
        let (wall, after) = (begun.elapsed(), project.usage()?);
        let came = count.changes.load(Ordering::Relaxed);
        if came != rows {
            bail!("{name}: {came} changes came instead of {rows}");
        }
        runs.push(of(name, "one client", came, wall, before, after, String::new()));
    }
    // Some clients on few shapes.
    let (clients, rate) = (options.clients, 2_000);
    runs.push(
        live(
            &project,
            &mysql,
            &url,
            "few shapes",
            (clients, subscribe_nats::SUBJECTS),
            rate,
            options.seconds,
        )
        .await?,
    );
    if let Some(nats) = &nats {
        let same = subscribe_nats::Options { clients, rate, seconds: options.seconds };
        runs.extend(subscribe_nats::run(&project, &mysql, nats, &same).await?);
    }
    // Each client with a shape of its own.
    runs.push(live(&project, &mysql, &url, "own shapes", (100, 100), 10_000, options.seconds).await?);
    if options.shapes > 0 {
        runs.push(
            live(
                &project,
                &mysql,
                &url,
                "very many shapes",
                (options.shapes, options.shapes),
                10_000,
                options.seconds,
            )
            .await?,
        );
    }
    let idle = match options.idle {
        0 => Value::Null,
        clients => idle(&project, &url, clients).await?,
    };
    project.stop().await?;
    println!("\n{}\nidle: {idle}", report::table(&runs));
    if options.save {
        let command = format!(
            "cargo xtask bench subscribe --rows {} --clients {} --shapes {} --idle {}",
            options.rows, options.clients, options.shapes, options.idle
        );
        println!("saved {}", report::save("subscribe", &command, &runs, json!({"idle": idle}))?.display());
    }
    Ok(())
}

fn mirrored(status: &Value, rows: u64) -> bool {
    let mirror = &status["sources"][0]["mirror"];
    mirror["lag_changes"] == 0 && mirror["rows"].as_u64() >= Some(rows) && mirror["state"] == "following"
}

pub fn of(
    scenario: &str,
    program: &str,
    rows: u64,
    wall: Duration,
    before: crate::usage::Usage,
    after: crate::usage::Usage,
    note: String,
) -> Run {
    Run {
        scenario: scenario.to_owned(),
        program: program.to_owned(),
        rows,
        wall,
        cpu: after.cpu.saturating_sub(before.cpu),
        peak_rss_bytes: Some(after.peak_rss_bytes),
        note,
    }
}

/// Rows are inserted at a rate while clients follow the shapes `k = 0 …`; what is counted is what all clients get.
async fn live(
    project: &Tidemill,
    mysql: &MySql,
    url: &str,
    name: &str,
    (clients, shapes): (usize, usize),
    rate: u64,
    seconds: u64,
) -> Result<Run> {
    eprintln!("{name}: {clients} clients on {shapes} shapes");
    let count = Count::new();
    let mut all = JoinSet::new();
    let mut node = Node::new(url, None, None)?;
    for client in 0..clients {
        if client % STREAMS == 0 {
            node = Node::new(url, None, None)?;
        }
        let mut shape = shape(&format!("k = {}", client % shapes));
        shape.table = "bench.live".into();
        all.spawn(follow(Subscription::new(node.clone(), shape, Vec::new()), Arc::clone(&count), Some(2)));
    }
    until("all clients are up to date", || count.up_to_date.load(Ordering::Relaxed) >= clients as u64)
        .await?;
    let mut conn = mysql.conn().await?;
    // In a hundred transactions a second.
    let each = rate / 100;
    let (before, begun) = (project.usage()?, Instant::now());
    let came_before = count.changes.load(Ordering::Relaxed);
    let (mut written, mut wanted, mut late) = (0u64, 0u64, Duration::ZERO);
    for turn in 0..seconds * 100 {
        let due = begun + Duration::from_millis(10) * turn as u32;
        late = late.max(Instant::now().saturating_duration_since(due));
        tokio::time::sleep_until(due.into()).await;
        let at = now_micros();
        let values: Vec<String> = (0..each)
            .map(|row| {
                let k = (written + row) % shapes as u64;
                wanted += (clients as u64)
                    .div_ceil(shapes as u64)
                    .min((clients as u64 - k).div_ceil(shapes as u64));
                format!("({k},{at},'a row of sixty characters, more or less')")
            })
            .collect();
        written += each;
        conn.query_drop(format!("insert into bench.live (k, at, pad) values {}", values.join(","))).await?;
    }
    until("all changes came", || count.changes.load(Ordering::Relaxed) >= came_before + wanted).await?;
    let (wall, after) = (begun.elapsed(), project.usage()?);
    let came = count.changes.load(Ordering::Relaxed) - came_before;
    if came != wanted {
        bail!("{name}: {came} changes came instead of {wanted}");
    }
    count.stop.store(true, Ordering::Relaxed);
    all.shutdown().await;
    conn.query_drop("truncate table bench.live").await?;
    let note = format!(
        "{written} rows written at {rate}/s, behind by {} ms at most; p50 {:.1} ms, p99 {:.1} ms",
        late.as_millis(),
        count.share(0.5),
        count.share(0.99)
    );
    let program = format!("{clients} on {shapes}");
    Ok(of(name, &program, came, wall, before, after, note))
}

/// Clients have a socket each, here and at the node, which takes all that the hard limit lets it.
fn raise_files(clients: usize) -> Result<()> {
    let wanted = clients as u64 * 3 / 2 + 1000;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a value that outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 && limit.rlim_cur >= wanted
    };
    if !raised {
        bail!("{clients} clients need {wanted} files: raise `ulimit -Hn`, which is {}", limit.rlim_max);
    }
    Ok(())
}

/// What an idle client takes, each with a connection of its own.
async fn idle(project: &Tidemill, url: &str, clients: usize) -> Result<Value> {
    eprintln!("{clients} idle clients");
    raise_files(clients)?;
    let count = Count::new();
    let before = project.usage()?.rss_bytes;
    let mut all = JoinSet::new();
    for client in 0..clients {
        let mut shape = shape(&format!("k = {}", client % 10));
        shape.table = "bench.live".into();
        let node = Node::new(url, None, None)?;
        all.spawn(follow(Subscription::new(node, shape, Vec::new()), Arc::clone(&count), None));
        if client % 100 == 99 {
            until("clients are up to date", || count.up_to_date.load(Ordering::Relaxed) > client as u64)
                .await?;
        }
    }
    until("all clients are up to date", || count.up_to_date.load(Ordering::Relaxed) >= clients as u64)
        .await?;
    // Freed memory is given back every two seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = project.usage()?.cpu;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = project.usage()?;
    count.stop.store(true, Ordering::Relaxed);
    all.shutdown().await;
    let each = after.rss_bytes.saturating_sub(before) / clients as u64;
    let cpu = after.cpu.saturating_sub(cpu).as_secs_f64() * 100.0;
    Ok(json!({"clients": clients, "bytes_each": each, "rss_mb": after.rss_bytes / 1_000_000,
        "cpu_ms_per_second": cpu.round()}))
}
