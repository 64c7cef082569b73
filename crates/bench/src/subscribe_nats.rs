//! The peer of `subscribe`: as many push consumers of JetStream as there are clients, on ten subjects, at the same rate, in the same run.
//!
//! Twice. "JetStream behind us": the same way from a commit of MySQL on, through the NATS sink; a table for each subject, since a
//! subject is made of names. "JetStream alone": rows of the same members are published at the rate by this process, with no
//! database before them: the least that the peer can take. Messages are JSON there and protobuf here, each as its users get it;
//! consumers find the writer's time in them. Streams are files, as they are by default; consumers are in memory and acknowledge nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use testkit::mysql_async::prelude::Queryable;
use testkit::{MySql, Nats, NatsOptions};
use tokio::task::JoinSet;

use crate::report::Run;
use crate::subscribe::{Count, STREAMS, now_micros, of, until};
use crate::tidemill::Tidemill;
use crate::usage::{self, Usage};

/// Subjects, and tables.
pub const SUBJECTS: usize = 10;
const PAD: &str = "a row of sixty characters, more or less";
/// Publishes that wait for their acknowledgement at once.
const OUTSTANDING_MAX: usize = 256;

pub struct Options {
    pub clients: usize,
    /// Rows a second.
    pub rate: u64,
    pub seconds: u64,
}

/// Who writes the rows.
#[derive(Clone, Copy)]
enum Writer<'a> {
    Published,
    Committed(&'a Tidemill, &'a MySql),
}

/// The tables, the sink and the flow; before the project starts.
pub async fn prepare(mysql: &MySql, project: &Tidemill, nats: &Nats) -> Result<()> {
    for subject in 0..SUBJECTS {
        mysql
            .exec(&format!(
                "create table bench.fan{subject} (id bigint not null auto_increment primary key, k int not null, \
                 at bigint not null, pad char(60) not null)"
            ))
            .await?;
    }
    project.write("sinks/bus.yaml", &format!("kind: nats\nurl: {}\n", nats.url()))?;
    project.write(
        "flows/fan.yaml",
        "from: bench\ntables: [\"bench.fan*\"]\nto: bus\noptions: {stream: FAN, subject: \"fan.{table}\"}\n",
    )
}

pub async fn server() -> Result<Nats> {
    Nats::start(NatsOptions::default()).await
}

pub async fn run(project: &Tidemill, mysql: &MySql, nats: &Nats, options: &Options) -> Result<Vec<Run>> {
    let behind =
        measure("JetStream behind us", nats, "FAN", "fan.fan", Writer::Committed(project, mysql), options);
    let behind = behind.await?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    let config = stream::Config {
        name: "ALONE".into(),
        subjects: vec!["alone.*".into()],
        ..stream::Config::default()
    };
    context.create_stream(config).await?;
    let alone = measure("JetStream alone", nats, "ALONE", "alone.", Writer::Published, options).await?;
    Ok(vec![behind, alone])
}

async fn measure(
    name: &str,
    nats: &Nats,
    stream: &str,
    subject: &str,
    writer: Writer<'_>,
    options: &Options,
) -> Result<Run> {
    let Options { clients, rate, seconds } = *options;
    eprintln!("{name}: {clients} consumers on {SUBJECTS} subjects");
    let count = Count::new();
    let mut all = JoinSet::new();
    let mut client = async_nats::connect(nats.url()).await?;
    for number in 0..clients {
        if number % STREAMS == 0 {
            client = async_nats::connect(nats.url()).await?;
        }
        let config = push::Config {
            deliver_subject: client.new_inbox(),
            filter_subject: format!("{subject}{}", number % SUBJECTS),
            deliver_policy: DeliverPolicy::New,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..push::Config::default()
        };
        let stream =
            jetstream::new(client.clone()).get_stream(stream).await.context("the stream is not there")?;
        let messages = stream.create_consumer(config).await?.messages().await?;
        all.spawn(consume(messages, Arc::clone(&count)));
    }
    let context = jetstream::new(client);
    let before = used(nats, writer)?;
    let each = rate / 100;
    let (begun, mut written, mut wanted, mut late) = (Instant::now(), 0u64, 0u64, Duration::ZERO);
    let mut conn = match writer {
        Writer::Committed(_, mysql) => Some(mysql.conn().await?),
        Writer::Published => None,
    };
    for turn in 0..seconds * 100 {
        let due = begun + Duration::from_millis(10) * turn as u32;
        late = late.max(Instant::now().saturating_duration_since(due));
        tokio::time::sleep_until(due.into()).await;
        let at = now_micros();
        let subjects: Vec<usize> = (0..each).map(|row| (written + row) as usize % SUBJECTS).collect();
        wanted +=
            subjects.iter().map(|own| (clients + SUBJECTS - 1 - own) as u64 / SUBJECTS as u64).sum::<u64>();
        match &mut conn {
            Some(conn) => {
                let inserts = (0..SUBJECTS).filter_map(|table| {
                    let rows = subjects.iter().filter(|own| **own == table).count();
                    let rows: Vec<String> = (0..rows).map(|_| format!("({table},{at},'{PAD}')")).collect();
                    (!rows.is_empty()).then(|| {
                        format!("insert into bench.fan{table} (k, at, pad) values {}", rows.join(","))
                    })
                });
                let statements: Vec<String> = inserts.collect();
                conn.query_drop(format!("begin; {}; commit", statements.join("; "))).await?;
            }
            None => {
                for part in subjects.chunks(OUTSTANDING_MAX) {
                    let mut acks = Vec::with_capacity(part.len());
                    for own in part {
                        let payload = format!(r#"{{"id":{written},"k":{own},"at":{at},"pad":"{PAD}"}}"#);
                        acks.push(context.publish(format!("{subject}{own}"), payload.into()).await?);
                    }
                    for ack in acks {
                        ack.await?;
                    }
                }
            }
        }
        written += each;
    }
    until("all messages came", || count.changes.load(Ordering::Relaxed) >= wanted).await?;
    let (wall, after) = (begun.elapsed(), used(nats, writer)?);
    let came = count.changes.load(Ordering::Relaxed);
    if came != wanted {
        bail!("{name}: {came} messages came instead of {wanted}");
    }
    all.shutdown().await;
    let note = format!(
        "{written} rows written at {rate}/s, behind by {} ms at most; p50 {:.1} ms, p99 {:.1} ms",
        late.as_millis(),
        count.share(0.5),
        count.share(0.99)
    );
    Ok(of(name, &format!("{clients} on {SUBJECTS}"), came, wall, before, after, note))
}

/// What the server has used, and Tidemill where it is on the way.
fn used(nats: &Nats, writer: Writer<'_>) -> Result<Usage> {
    let own = usage::of_process(nats.pid().context("NATS does not run")?)?;
    let Writer::Committed(project, _) = writer else { return Ok(own) };
    let ours = project.usage()?;
    Ok(Usage {
        cpu: own.cpu + ours.cpu,
        rss_bytes: own.rss_bytes + ours.rss_bytes,
        peak_rss_bytes: own.peak_rss_bytes + ours.peak_rss_bytes,
    })
}

async fn consume(mut messages: push::Messages, count: Arc<Count>) -> Result<()> {
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(sent) = sent_at(&message.payload) {
            count.note(now_micros().saturating_sub(sent));
        }
        count.changes.fetch_add(1, Ordering::Relaxed);
    }
    bail!("a consumer ended")
}

/// The writer's time in a message.
fn sent_at(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once(r#""at":"#)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}
