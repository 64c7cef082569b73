//! Topics: the rows that their messages leave, by the last message of each key, read as capture reads them.
//!
//! The topics are read from their beginning once, and on from there at each look; their rows are in a file of the node's data
//! folder. What topics cannot prove is a doubt and no difference: which of two partitions came last, and what became of rows
//! whose messages are not there any more.

use super::store::{Entry, Found, Store, key_of, key_of_row};
use super::{Choice, Doubt, Known, Origin};
use crate::capture::kafka::consumer::{Consumer, Fetched, Live};
use crate::capture::kafka::plan::{self, Plan};
use crate::capture::kafka::unpack::{NotUnpacked, Unpacker};
use crate::capture::kafka::{consumer, explain, unpacker, wanted};
use crate::capture::tables::{Prepared, Tables};
use crate::config::{KafkaStart, SourceConfig};
use crate::formats::decode::cells::Raw;
use crate::formats::decode::value::{Wire, decode as decode_value};
use crate::formats::decode::{Incoming, MessageFormat, decode};
use crate::kafka::wire::WireError;
use crate::patterns::Patterns;
use crate::verify::{Mark, SILENCE_MAX, VerifyError, Watch, decisive};
use async_trait::async_trait;
use base::{Op, RowBuf, Table, TableName, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

pub struct Topics {
    source: String,
    config: SourceConfig,
    captured: Patterns,
    carried: Box<dyn Fn(&TableName) -> bool + Send + Sync>,
    consumer: Consumer,
    tables: Tables,
    /// Every definition that a row of the store is in.
    definitions: HashMap<(TableName, u32), Arc<Table>>,
    position: plan::Topics,
    /// Topics whose first messages are gone, and those of them that have no message at all.
    beheaded: BTreeSet<String>,
    empty: BTreeSet<String>,
    /// The topics that messages of a table are in.
    places: HashMap<TableName, BTreeSet<Arc<str>>>,
    parts: HashMap<(Arc<str>, u32), i64>,
    numbers: HashMap<TableName, i64>,
    /// For messages that are no text.
    unpacker: Option<Unpacker>,
    /// Tables whose messages tell different keys.
    mixed: BTreeSet<TableName>,
    unreadable: u64,
    store: Store,
}

fn failed(error: WireError) -> VerifyError {
    VerifyError::Source(explain(error))
}

impl Topics {
    pub async fn read(
        source: &str,
        config: &SourceConfig,
        known: Known,
        carried: Box<dyn Fn(&TableName) -> bool + Send + Sync>,
        watch: &dyn Watch,
    ) -> Result<Self, VerifyError> {
        let captured = Patterns::new(&config.tables, &config.exclude).map_err(|error| VerifyError::Plan {
            message: error.to_string(),
            hint: "run `tidemill check`".into(),
        })?;
        let mut topics = Self {
            source: source.to_owned(),
            captured,
            carried,
            consumer: consumer(config).map_err(VerifyError::Source)?,
            tables: Tables::new(config.options.format, config.declare.clone(), known.tables),
            config: config.clone(),
            definitions: HashMap::new(),
            position: plan::Topics::new(),
            beheaded: BTreeSet::new(),
            empty: BTreeSet::new(),
            places: HashMap::new(),
            parts: HashMap::new(),
            numbers: HashMap::new(),
            unpacker: unpacker(config).map_err(VerifyError::Source)?,
            mixed: BTreeSet::new(),
            unreadable: 0,
            store: Store::new(&known.scratch)?,
        };
        topics.catch_up(Some(watch)).await?;
        Ok(topics)
    }

    /// Reads what the topics have now.
    async fn catch_up(&mut self, watch: Option<&dyn Watch>) -> Result<(), VerifyError> {
        let config = &self.config;
        let names = self.consumer.discover(|topic| wanted(config, topic)).await.map_err(failed)?;
        let live = self.consumer.live(&names).await.map_err(failed)?;
        match plan::plan(Some(&self.position), &live, KafkaStart::Earliest) {
            Plan::Stay => {}
            Plan::Extend(topics) => self.position = topics,
            Plan::Gap(reason) => return Err(lost(&reason)),
        }
        for (name, now) in &live {
            let lacks = now.earliest.iter().any(|first| *first > 0);
            if lacks {
                self.beheaded.insert(name.clone());
            }
            if lacks && now.earliest == now.latest {
                self.empty.insert(name.clone());
            }
        }
        let of: u64 = live
            .values()
            .flat_map(|now| now.latest.iter().zip(&now.earliest))
            .map(|(a, b)| (a - b).unsigned_abs())
            .sum();
        let mut moved = Instant::now();
        loop {
            let left = self.left(&live);
            if left.is_empty() {
                return Ok(());
            }
            if let Some(watch) = watch {
                let open: u64 = left.values().sum();
                watch.progress("reading the topics", of.saturating_sub(open), of);
            }
            let position: plan::Topics = self
                .position
                .iter()
                .filter(|(name, _)| left.contains_key(*name))
                .map(|(name, at)| (name.clone(), at.clone()))
                .collect();
            let round = self.consumer.round(&position).await.map_err(failed)?;
            if round.lost {
                return Err(lost("messages were deleted, or their topic was"));
            }
            if round.stale.is_some() {
                let config = &self.config;
                self.consumer.discover(|topic| wanted(config, topic)).await.map_err(failed)?;
            }
            self.store.begin()?;
            for part in &round.parts {
                self.take(part).await?;
                let next = self
                    .position
                    .get_mut(&*part.topic)
                    .and_then(|topic| topic.next.get_mut(part.partition as usize));
                if let Some(next) = next.filter(|next| part.next > **next) {
                    (*next, moved) = (part.next, Instant::now());
                }
            }
            self.store.end()?;
            if moved.elapsed() > SILENCE_MAX {
                let name = left.keys().next().map_or("", String::as_str);
                return Err(VerifyError::Stalled {
                    message: format!(
                        "the topic `{name}` cannot be read to its end: a transaction is open, or it has no leader"
                    ),
                });
            }
        }
    }

    /// Topics that have more than we read, and how much.
    fn left(&self, live: &BTreeMap<String, Live>) -> BTreeMap<String, u64> {
        let of = |(name, now): (&String, &Live)| {
            let own = self.position.get(name)?;
            let ends = own.next.iter().zip(&now.latest);
            let left: u64 = ends.map(|(next, end)| u64::try_from(end - next).unwrap_or(0)).sum();
            (left > 0).then(|| (name.clone(), left))
        };
        live.iter().filter_map(of).collect()
    }

    async fn take(&mut self, part: &Fetched) -> Result<(), VerifyError> {
        let count = self.parts.len() as i64;
        let number = *self.parts.entry((Arc::clone(&part.topic), part.partition)).or_insert(count);
        // A row that gets another key is a delete and an insert in Debezium's shape.
        let keyed = self.config.declare.values().all(|declared| declared.key.is_empty());
        let format = self.config.options.format;
        let alone = matches!(format, MessageFormat::Debezium | MessageFormat::Avro) && keyed;
        for record in decisive(&part.records, alone) {
            let unpacked;
            let (key, value) = match &mut self.unpacker {
                None => (record.key.as_deref(), record.value.as_deref()),
                Some(unpacker) => match unpacker.unpack(record).await {
                    Ok(told) => {
                        unpacked = told;
                        (unpacked.key.as_deref(), unpacked.value.as_deref())
                    }
                    Err(NotUnpacked::Bad(_)) => {
                        self.unreadable += 1;
                        continue;
                    }
                    Err(NotUnpacked::Unasked(error)) => return Err(VerifyError::Source(error)),
                },
            };
            match self.prepare(&part.topic, key, value) {
                Ok(changes) => {
                    self.tables.keep();
                    for change in &changes {
                        self.put(part, number, record.timestamp, change)?;
                    }
                }
                // Capture passes it over, too, or stands before it, and then the flow does not come as far.
                Err(_) => {
                    self.tables.revert();
                    self.unreadable += 1;
                }
            }
        }
        Ok(())
    }

    /// The changes of a message that are of interest.
    fn prepare(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Vec<Prepared>, String> {
        let source = &self.source;
        let changes = decode(self.config.options.format, Incoming { source, topic, key, value })?;
        let mut out = Vec::with_capacity(changes.len());
        for change in changes {
            if self.captured.matches(&change.name)
                && (self.carried)(&change.name)
                && let Some(prepared) = self.tables.prepare(&change)?
            {
                out.push(prepared);
            }
        }
        Ok(out)
    }

    fn put(&mut self, part: &Fetched, number: i64, at_ms: i64, change: &Prepared) -> Result<(), VerifyError> {
        let table = &change.table;
        let places = self.places.entry(table.name.clone()).or_default();
        if !places.contains(&part.topic) {
            places.insert(Arc::clone(&part.topic));
        }
        self.definitions.entry((table.name.clone(), table.version)).or_insert_with(|| Arc::clone(table));
        if let Some(Some(before)) = &change.evolved
            && names_of_key(before) != names_of_key(table)
        {
            self.mixed.insert(table.name.clone());
        }
        let count = self.numbers.len() as i64;
        let own = *self.numbers.entry(table.name.clone()).or_insert(count);
        if change.op == Op::Truncate {
            return self.store.empty(own, number, at_ms);
        }
        let key = |row: &Option<RowBuf>| row.as_ref().and_then(|row| key_of_row(table, row));
        let (before, after) = (key(&change.before), key(&change.after));
        if let Some(before) = before.filter(|before| Some(before) != after.as_ref()) {
            self.store.put(own, &before, &Entry { part: number, at_ms, row: None })?;
        }
        if let (Some(key), Some(row)) = (after, &change.after) {
            let row = Some((table.version, row.clone()));
            self.store.put(own, &key, &Entry { part: number, at_ms, row })?;
        }
        Ok(())
    }

    fn number(&self, table: &Table) -> i64 {
        self.numbers.get(&table.name).copied().unwrap_or(-1)
    }

    fn find(&self, table: &Table, key: &[Value]) -> Result<Found, VerifyError> {
        let columns = table.key.iter().map(|index| &table.columns[*index]);
        self.store.find(self.number(table), &key_of(key.iter().zip(columns)))
    }

    /// A row in the definition that is compared.
    fn fit(&self, table: &Table, (version, row): (u32, RowBuf)) -> Result<RowBuf, VerifyError> {
        if version == table.version {
            return Ok(row);
        }
        let changed = || VerifyError::Plan {
            message: format!("the definition of table `{}` changed while it was compared", table.name),
            hint: "compare it again".into(),
        };
        let old = self.definitions.get(&(table.name.clone(), version)).ok_or_else(changed)?;
        let values = row.view().values().map_err(|_| changed())?;
        let mut out = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let found = old.column_index(&column.name).map(|index| (&old.columns[index], &values[index]));
            out.push(match found {
                None => Value::Null,
                Some((own, value)) if own.ty == column.ty || value.is_null() => value.clone(),
                // As capture does: by its text, which every wider type reads.
                Some((own, value)) => Raw::of(&base::json::value_text(value, own))
                    .and_then(|text| decode_value(text, column, Wire::Json))
                    .ok_or_else(changed)?,
            });
        }
        Ok(RowBuf::from_values(out.iter().map(Value::as_ref)))
    }

    /// Whether messages of a table may have been there that are not any more.
    fn has_lost(&self, table: &Table) -> bool {
        let Some(places) = self.places.get(&table.name) else { return true };
        !self.empty.is_empty() || places.iter().any(|topic| self.beheaded.contains(&**topic))
    }
}

fn names_of_key(table: &Table) -> Vec<&str> {
    table.key.iter().map(|index| table.columns[*index].name.as_str()).collect()
}

fn lost(reason: &str) -> VerifyError {
    VerifyError::Plan {
        message: format!("the topics changed while they were read: {reason}"),
        hint: "compare again".into(),
    }
}

#[async_trait]
impl Origin for Topics {
    async fn tables(&mut self, wanted: Choice<'_>, _needed: Choice<'_>) -> Result<Vec<Table>, VerifyError> {
        let all = self.tables.all().into_iter().filter(|table| wanted(&table.name));
        Ok(all.map(|table| Table::clone(&table)).collect())
    }

    async fn estimate(&mut self, table: &Table) -> Result<u64, VerifyError> {
        self.store.count(self.number(table))
    }

    async fn renew(&mut self) -> Result<(), VerifyError> {
        self.catch_up(None).await
    }

    async fn mark(&mut self) -> Result<Mark, VerifyError> {
        Ok(Mark::Offsets(
            self.position.iter().map(|(name, topic)| (name.clone(), topic.next.clone())).collect(),
        ))
    }

    async fn chunk(
        &mut self,
        table: &Table,
        after: Option<&RowBuf>,
        limit: u64,
    ) -> Result<Vec<RowBuf>, VerifyError> {
        let after = after.and_then(|row| key_of_row(table, row)).unwrap_or_default();
        let rows = self.store.page(self.number(table), &after, limit as usize)?;
        rows.into_iter().map(|row| self.fit(table, row)).collect()
    }

    async fn rows(&mut self, table: &Table, keys: &[&[Value]]) -> Result<Vec<RowBuf>, VerifyError> {
        let mut out = Vec::new();
        for key in keys {
            if let Some(row) = self.find(table, key)?.row {
                out.push(self.fit(table, row)?);
            }
        }
        Ok(out)
    }

    async fn each(
        &mut self,
        table: &Table,
        _take: &mut (dyn FnMut(RowBuf) + Send),
    ) -> Result<(), VerifyError> {
        Err(super::super::unsupported(format!("the messages of `{}` cannot be told apart", table.name)))
    }

    fn unfit(&self, table: &Table) -> Option<String> {
        if table.key.is_empty() {
            let why = "its messages have no key: which of them are of one row cannot be told; `declare` its key in the source";
            return Some(why.to_owned());
        }
        let why = "its messages tell different keys: `declare` its key in the source";
        self.mixed.contains(&table.name).then(|| why.to_owned())
    }

    fn doubt(
        &mut self,
        table: &Table,
        key: &[Value],
        missing: bool,
        extra: bool,
    ) -> Result<Option<Doubt>, VerifyError> {
        let found = if key.is_empty() { Found::default() } else { self.find(table, key)? };
        Ok(if found.is_loose {
            Some(Doubt::Order)
        } else if missing && self.config.start == KafkaStart::Latest {
            Some(Doubt::Late)
        } else if extra && !found.is_told && self.has_lost(table) {
            Some(Doubt::Gone)
        } else {
            None
        })
    }

    fn unchecked(&self) -> Option<String> {
        let count = self.unreadable;
        (count > 0).then(|| format!("{count} messages of the topics cannot be read, and were passed over"))
    }
}
