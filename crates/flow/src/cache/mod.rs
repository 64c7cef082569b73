//! Reads through the cache: a row of a flow to Redis by its key, and from the source when Redis has none.
//!
//! A row is never read from the source twice at once: who asks for it meanwhile waits for the same answer. Why a fill is
//! never older than a change is told in `sinks::redis::aside`; what this adds is *when* a fill is allowed:
//!
//! - Redis' progress of the flow is one of this node's journal.
//! - No table is being read anew: capture then leaves changes out that the reading will bring.
//! - The source has one host: another could be behind the one that is captured. Else rows are answered, not kept.
//!
//! Who waits for the answer of another may have asked later than a change was delivered. Such an answer counts only if the
//! lease was still there at its end, or if it began after the question.

mod key;

use crate::config::{FlowConfig, RedisType, SinkConfig, SinkKind, SourceConfig, SourceKind};
use crate::deliver::sink::SinkError;
use crate::patterns::Patterns;
use crate::sinks::redis::aside::{self, Found, Lease, Outcome, Place};
use crate::sinks::redis::plan::{Image, Options, Plan, VERSION_FIELD};
use crate::sinks::redis::value;
use crate::transform::{TablePlan, Transform};
use crate::verify::VerifyError;
use crate::verify::origin::Origin;
use crate::verify::origin::database::Database;
use base::{Secret, TableName};
use journal::Journal;
use redis::aio::MultiplexedConnection;
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

/// Bytes of a key: the longest index entry of InnoDB, as text.
const KEY_BYTES_MAX: usize = 3072;
/// Sessions of the source that read at once.
const READS_MAX: usize = 8;
/// Rows that are being read or wait to be; more are refused.
const FLIGHTS_MAX: usize = 1024;
/// From the wait for a session to the row; shorter than a lease.
const READ_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The question is wrong.
    Invalid { message: String, hint: String },
    /// The flow cannot answer such questions, or not this one.
    Unfit { message: String, hint: String },
    /// Redis or the source is away, or too much waits.
    Away { message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredFrom {
    Cache,
    Source,
    /// It is remembered that there is no row.
    Negative,
}

impl AnsweredFrom {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Source => "source",
            Self::Negative => "negative",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// `None` when there is no row that the flow would write.
    pub row: Option<Json>,
    pub from: AnsweredFrom,
    /// The row is not older than this; `None` where Redis knows no progress of the flow.
    pub version: Option<String>,
}

/// An answer, and whether it holds for who asked while it was on its way.
type Flown = Result<(Answer, bool), CacheError>;

pub struct Cache {
    flow: String,
    source: String,
    config: SourceConfig,
    url: Secret,
    options: Options,
    transform: Transform,
    captured: Patterns,
    carried: Patterns,
    /// The flow's only table, if it names one.
    only: Option<String>,
    journal: Journal,
    redis: Mutex<Option<MultiplexedConnection>>,
    idle: Mutex<Vec<Database>>,
    reads: Semaphore,
    flights: Mutex<HashMap<Vec<u8>, Arc<OnceCell<Flown>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a flight off the list when nobody else waits for it.
struct Seat<'a> {
    cache: &'a Cache,
    row: &'a [u8],
    cell: Arc<OnceCell<Flown>>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.cache.flights);
        let ours = flights.get(self.row).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        if ours && (self.cell.initialized() || Arc::strong_count(&self.cell) <= 2) {
            flights.remove(self.row);
        }
    }
}

/// A flow, its ends, and the journal between them.
pub struct CacheParts<'a> {
    pub flow: &'a str,
    pub config: &'a FlowConfig,
    pub source: &'a SourceConfig,
    pub sink: &'a SinkConfig,
    pub journal: Journal,
}

impl Cache {
    /// For a flow of which it can be: rows that become hashes or JSON strings. Those that Redis lacks are read from MySQL and
    /// MariaDB only; other sources cannot be asked.
    pub fn of(parts: CacheParts<'_>) -> Result<Self, CacheError> {
        let CacheParts { flow, config, source, sink, journal } = parts;
        let unfit = |message: String, hint: &str| CacheError::Unfit { message, hint: hint.to_owned() };
        let kind = config.options.r#type.unwrap_or_default();
        let rows = matches!(kind, RedisType::Hash | RedisType::Json);
        let (SinkKind::Redis, Some(url), true) = (sink.kind, &sink.url, rows) else {
            let message = format!("flow `{flow}` does not write rows to Redis");
            return Err(unfit(message, "name a flow to a sink of kind redis, of type hash or json"));
        };
        let wrong = |message: String| unfit(message, "run `tidemill check`");
        let options = Options::compile(&config.options).map_err(|(message, _)| wrong(message))?;
        if options.key.text().matches("{key}").count() != 1 {
            let message = format!("the flow's `key` is `{}`", options.key.text());
            return Err(unfit(message, "a row can be asked for by its key where `key` has `{key}` once"));
        }
        let transform = Transform::compile(config)
            .map_err(|errors| wrong(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        if transform.reads_mirror() {
            let message = "`lookup` in a table answers by the mirror at the time of delivery".to_owned();
            return Err(unfit(message, "name a flow without it"));
        }
        if transform.dedup().is_some() {
            let message = "`dedup` leaves rows out by what came before them".to_owned();
            return Err(unfit(message, "name a flow without `dedup`"));
        }
        if transform.splits() {
            return Err(unfit("`split` makes several rows of one".into(), "name a flow without `split`"));
        }
        let all = ["*.*".to_owned()];
        let or_all = |tables: &[String]| if tables.is_empty() { all.to_vec() } else { tables.to_vec() };
        let tables = &or_all(&config.tables)[..];
        let patterns = |tables, exclude| Patterns::new(tables, exclude).map_err(|e| wrong(e.to_string()));
        Ok(Self {
            flow: flow.to_owned(),
            source: config.from.clone(),
            config: source.clone(),
            url: url.clone(),
            options,
            transform,
            captured: patterns(&or_all(&source.tables)[..], &source.exclude)?,
            carried: patterns(tables, &[])?,
            only: match tables {
                [only] if !only.contains(['*', '!']) => Some(only.clone()),
                _ => None,
            },
            journal,
            redis: Mutex::new(None),
            idle: Mutex::new(Vec::new()),
            reads: Semaphore::new(READS_MAX),
            flights: Mutex::new(HashMap::new()),
        })
    }

    /// The row of `key`, the table's key columns as Redis' key has them. `table` is the source's name.
    pub async fn get(&self, table: Option<&str>, key: &str) -> Result<Answer, CacheError> {
        let invalid = |message: String, hint: &str| CacheError::Invalid { message, hint: hint.to_owned() };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let message = format!("a key has 1 to {KEY_BYTES_MAX} bytes");
            return Err(invalid(message, "for example: /api/v1/cache/FLOW/42"));
        }
        let named = table.or(self.only.as_deref()).and_then(|table| table.split_once('.'));
        let name = match named {
            Some((db, table)) => TableName::new(db, table),
            None => {
                let message = format!("flow `{}` has several tables", self.flow);
                return Err(invalid(message, "say which: ?table=shop.orders"));
            }
        };
        if !self.captured.matches(&name) || !self.carried.matches(&name) {
            let message = format!("flow `{}` does not carry `{name}`", self.flow);
            return Err(invalid(message, "see `tables` of the flow and of its source"));
        }
        let target = self.transform.routed(&name);
        let row = key::place(&self.options.key, &self.source, &target, key)
            .map_err(|message| invalid(message, "see `key` of the flow"))?;
        let place = Place {
            row,
            list: self.options.list_key(&self.flow, &target),
            progress: self.options.progress_key(&self.flow).into_bytes(),
            is_hash: self.options.kind == RedisType::Hash,
            ttl_seconds: self.options.ttl_seconds,
        };
        // What began before we asked may be too old for us; what begins after it is not.
        if let Some(answer) = self.fly(&name, &place, key, false).await? {
            return Ok(answer);
        }
        let again = self.fly(&name, &place, key, true).await?;
        again.ok_or_else(|| CacheError::Away { message: "the row changes too fast".into() })
    }

    /// Looks, or waits for who does. `None` when the answer of another came too early for us.
    async fn fly(
        &self,
        name: &TableName,
        place: &Place,
        key: &str,
        any: bool,
    ) -> Result<Option<Answer>, CacheError> {
        let cell = {
            let mut flights = lock(&self.flights);
            if flights.len() >= FLIGHTS_MAX && !flights.contains_key(&place.row) {
                return Err(CacheError::Away {
                    message: format!("{FLIGHTS_MAX} rows are asked for already"),
                });
            }
            Arc::clone(flights.entry(place.row.clone()).or_default())
        };
        let seat = Seat { cache: self, row: &place.row, cell };
        let mut own = false;
        let flown = seat
            .cell
            .get_or_init(|| {
                own = true;
                self.answer(name, place, key)
            })
            .await;
        let (answer, holds) = flown.clone()?;
        Ok((own || any || holds).then_some(answer))
    }

    async fn answer(&self, name: &TableName, place: &Place, key: &str) -> Flown {
        let mut redis = self.redis().await?;
        let token = token();
        let found = aside::look(&mut redis, place, token).await.map_err(|error| self.redis_gone(error))?;
        let lease = match found {
            Found::Row(image, version) => {
                let (row, version) = shown(&image, version)?;
                return Ok((Answer { row: Some(row), from: AnsweredFrom::Cache, version }, false));
            }
            Found::Absent(version) => {
                return Ok((
                    Answer { row: None, from: AnsweredFrom::Negative, version: Some(version) },
                    false,
                ));
            }
            Found::Leased => None,
            Found::Lease(lease) => Some(lease),
        };
        if self.config.kind != SourceKind::Mysql {
            if let Some(lease) = &lease {
                let ended = aside::end(&mut redis, place, lease, Outcome::Nothing).await;
                ended.map_err(|error| self.redis_gone(error))?;
            }
            return Err(CacheError::Unfit {
                message: format!(
                    "Redis has no row `{key}`, and the source `{}` cannot be asked for one",
                    self.source
                ),
                hint: "ask where the rows are kept: misses are read through from MySQL and MariaDB only"
                    .into(),
            });
        }
        // A reading that begins later empties the table first, and so ends the lease.
        let calm = self.is_calm();
        let read = match timeout(READ_WAIT, self.read(name, place, key)).await {
            Ok(read) => read,
            Err(_) => Err(CacheError::Away { message: format!("the source `{}` is too slow", self.source) }),
        };
        let version = lease.as_ref().and_then(|lease| self.version(lease));
        let fills = version.is_some() && calm && !self.has_hosts();
        let holds = match &lease {
            None => false,
            Some(lease) => {
                let outcome = match &read {
                    Ok(Some(image)) if fills => Outcome::Row(image),
                    Ok(None) if fills => Outcome::Absent,
                    _ => Outcome::Nothing,
                };
                aside::end(&mut redis, place, lease, outcome).await.map_err(|error| self.redis_gone(error))?
            }
        };
        let row = read?.map(|image| shown(&image, None)).transpose()?.map(|(row, _)| row);
        Ok((Answer { row, from: AnsweredFrom::Source, version }, holds))
    }

    /// The row as the flow would write it to this place.
    async fn read(&self, name: &TableName, place: &Place, key: &str) -> Result<Option<Image>, CacheError> {
        let away = |error: &VerifyError| CacheError::Away { message: base::error::chain(error) };
        let _permit = self.reads.acquire().await.map_err(|e| CacheError::Away { message: e.to_string() })?;
        let idle = lock(&self.idle).pop();
        // One that stood idle may have been closed by the server meanwhile.
        let (mut origin, used) = match idle {
            Some(origin) => (origin, true),
            None => (Database::connect(&self.config).await.map_err(|e| away(&e))?, false),
        };
        let mut found = origin.tables(&|other| other == name, &|_| true).await;
        if found.is_err() && used {
            lock(&self.idle).clear();
            origin = Database::connect(&self.config).await.map_err(|e| away(&e))?;
            found = origin.tables(&|other| other == name, &|_| true).await;
        }
        let Some(table) = found.map_err(|e| away(&e))?.pop().map(Arc::new) else {
            return Ok(None);
        };
        let unfit = |message: String, hint: String| CacheError::Unfit { message, hint };
        let plan: TablePlan =
            self.transform.plan(&table).map_err(|e| unfit(e.to_string(), "run `tidemill check`".into()))?;
        let target = Arc::clone(plan.table());
        let places = Plan::new(&self.options, &self.flow, &self.source, &target).map_err(of_sink)?;
        let values = key::values(&target, key);
        let asked = values.as_ref().map(|values| key::row(&target, values));
        let known = asked.and_then(|row| places.key.render(&target, &row, value::text));
        let (Some(values), true) = (values, known.as_ref() == Some(&place.row)) else {
            let columns: Vec<_> = target.key.iter().map(|i| target.columns[*i].name.as_str()).collect();
            return Err(CacheError::Invalid {
                message: format!("`{key}` is no key of `{name}`"),
                hint: format!("write `{}` as the keys in Redis have it", columns.join(":")),
            });
        };
        let row = origin.settled_row(&table, &values).await.map_err(|e| away(&e))?;
        lock(&self.idle).push(origin);
        let Some(row) = row else { return Ok(None) };
        let carried = plan.apply(row.view()).map_err(|error| {
            unfit(format!("the flow parks this row: {error}"), "see `transform` of the flow".into())
        })?;
        let image = carried.and_then(|row| places.image(self.options.kind, &target, &row));
        // A key that the source takes for another's, in capitals for example, is not the key that the flow writes.
        Ok(image.filter(|(key, _)| *key == place.row).map(|(_, image)| image))
    }

    /// The version of a fill: all that Redis has is delivered by this node's journal.
    fn version(&self, lease: &Lease) -> Option<String> {
        let (journal, version) = lease.progress.as_ref()?;
        (*journal == self.journal.identity()).then(|| version.clone())
    }

    /// Whether no table is being read anew.
    fn is_calm(&self) -> bool {
        let state = self.journal.state();
        state.position.is_some() && state.snapshot.is_done()
    }

    /// Whether another server could answer than the one that is captured.
    fn has_hosts(&self) -> bool {
        self.config.url.as_ref().is_some_and(|url| {
            let authority = url.expose().split("://").last().unwrap_or_default();
            let hosts = authority.rsplit('@').next().unwrap_or_default();
            hosts.split(['/', '?']).next().unwrap_or_default().contains(',')
        })
    }

    async fn redis(&self) -> Result<MultiplexedConnection, CacheError> {
        let open = lock(&self.redis).clone();
        if let Some(open) = open {
            return Ok(open);
        }
        let progress_key = self.options.progress_key(&self.flow);
        let fresh = aside::connect(&self.url, progress_key.as_bytes()).await.map_err(of_sink)?;
        *lock(&self.redis) = Some(fresh.clone());
        Ok(fresh)
    }

    fn redis_gone(&self, error: SinkError) -> CacheError {
        *lock(&self.redis) = None;
        of_sink(error)
    }
}

fn of_sink(error: SinkError) -> CacheError {
    match error {
        SinkError::Blocked { message, hint } => CacheError::Unfit { message, hint },
        error => CacheError::Away { message: error.to_string() },
    }
}

/// Tells our lease from those of others, and of earlier runs.
fn token() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// A row as JSON, without its version.
fn shown(image: &Image, version: Option<String>) -> Result<(Json, Option<String>), CacheError> {
    match image {
        Image::Json(text) => {
            let broken = |_| CacheError::Unfit {
                message: "what Redis has there is no JSON object".into(),
                hint: "another program wrote it: remove the key".into(),
            };
            let mut object: Map<String, Json> = serde_json::from_slice(text).map_err(broken)?;
            let held = object.remove(VERSION_FIELD).and_then(|held| held.as_str().map(str::to_owned));
            Ok((Json::Object(object), version.or(held)))
        }
        Image::Hash(fields) => {
            let text = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
                Ok(text) => Json::from(text),
                Err(_) => {
                    use base64::Engine as _;
                    serde_json::json!({"base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
                }
            };
            let object = fields.iter().map(|(name, bytes)| (name.clone(), text(bytes))).collect();
            Ok((Json::Object(object), version))
        }
    }
}
