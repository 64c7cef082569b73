//! Elasticsearch and OpenSearch: a document for each row, in an index for each table.
//!
//! Documents carry their change's lsn as an external version (`plan::version`), so that an older one never overwrites a
//! newer one, whatever is repeated, late, or written by a process that should be dead; a version that is refused as old
//! (409) is done. Progress is a document of its own (`server::Held`), written over the version that we know: a second process
//! that delivers the same flow is noticed. It is at most `PROGRESS_INTERVAL` behind; what came since is written again after a
//! crash, in order and from before its first change, so that each document ends as it was.
//!
//! Searchers ask an alias. TRUNCATE puts it on a new index. When a table is read anew, the new index is filled beside the old one,
//! and takes the alias over once all rows are there.

mod bulk;
mod failure;
mod mapping;
pub mod plan;
pub mod read;
pub mod search;
mod server;

use crate::config::FlowConfig;
use crate::deliver::sink::{Memory, OutChange, Progress, Sink, SinkBatch, SinkError, Standing};
use crate::http_client::Endpoint;
use async_trait::async_trait;
use base::{Op, Secret, Table, TableName};
use bulk::{Item, Refusals};
use failure::{away, blocked};
pub use plan::{ID_DEFAULT, INDEX_DEFAULT};
use plan::{Options, Plan};
use serde_json::{Value, json};
use server::{Filling, Found, Held, Make, Server, Token, writer};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of one write: the server's work for a request is shared by all of its documents.
pub const BATCH_ROWS_DEFAULT: u32 = 4096;
const PORT_DEFAULT: u16 = 9200;
/// How old the progress document may be while changes come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Tables whose plans are kept; more than that and they are made again.
const PLANS_MAX: usize = 4096;
/// Numbers of indexes behind one alias.
const NUMBER_MAX: u32 = 999_999;

pub struct ElasticsearchSink {
    flow: String,
    source: String,
    endpoint: Endpoint,
    options: Options,
    plans: HashMap<(u32, u32), Arc<Plan>>,
    open: Option<Open>,
}

/// What is known while connected.
struct Open {
    server: Server,
    held: Held,
    token: Option<Token>,
    told: Option<Standing>,
    saved_at: Instant,
    unsaved: bool,
    /// Schemas whose columns the indexes have.
    mapped: HashSet<(u32, u32)>,
    /// The tables behind each alias, by id.
    tables: HashMap<String, BTreeMap<u32, TableName>>,
    /// Aliases whose filling index has no document yet.
    blank: HashSet<String>,
    /// What became of a batch that came back because a row of it was refused.
    passed: Passed,
}

/// A server's URL has no path: what stands behind the host would be lost.
fn endpoint(url: &Secret) -> Result<Endpoint, String> {
    let (endpoint, path) = Endpoint::parse(url, Some(PORT_DEFAULT))?;
    if path.expose().trim_matches('/').is_empty() {
        Ok(endpoint)
    } else {
        Err("the url has a path behind the host".to_owned())
    }
}

#[derive(Default)]
struct Passed {
    written: HashSet<u64>,
    /// Changes whose documents are written once more because of what happened elsewhere: one that is refused was told of at
    /// its own change.
    again: HashSet<u64>,
    refusals: Refusals,
}

impl ElasticsearchSink {
    pub fn new(flow: &str, source: &str, url: &Secret, config: &FlowConfig) -> Result<Self, SinkError> {
        let options = Options::compile(&config.options)
            .map_err(|(message, hint)| SinkError::Blocked { message, hint })?;
        let endpoint = endpoint(url)
            .map_err(|error| blocked(error, "url: http://[user:${env:SEARCH_PASSWORD}@]host:9200"))?;
        Ok(Self {
            flow: flow.to_owned(),
            source: source.to_owned(),
            endpoint,
            options,
            plans: HashMap::new(),
            open: None,
        })
    }

    async fn connect(&self) -> Result<Open, SinkError> {
        let mut server = Server::new(self.endpoint.clone());
        let read = server.read_progress(&self.flow).await?;
        let mut open = Open {
            server,
            held: Held::default(),
            token: None,
            told: None,
            saved_at: Instant::now(),
            unsaved: false,
            mapped: HashSet::new(),
            tables: HashMap::new(),
            blank: HashSet::new(),
            passed: Passed::default(),
        };
        match read {
            None => open.server.make_progress_index().await?,
            Some((held, token)) => {
                (open.held, open.token) = (held, Some(token));
                let whole = open.recover(&self.flow).await?;
                open.told = whole.then(|| open.standing()).flatten();
            }
        }
        Ok(open)
    }

    /// The plan of a table. One that waits to be tried again may be known by later names: it is planned each time.
    fn plan(&mut self, table: &Table, anew: bool) -> Result<Arc<Plan>, SinkError> {
        let id = (table.id, table.version);
        if let Some(plan) = self.plans.get(&id).filter(|_| !anew) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::new(&self.options, &self.source, table)?);
        if !anew {
            if self.plans.len() >= PLANS_MAX {
                self.plans.clear();
            }
            self.plans.insert(id, Arc::clone(&plan));
        }
        Ok(plan)
    }

    fn open(&mut self) -> Result<&mut Open, SinkError> {
        self.open.as_mut().ok_or_else(|| away("not connected"))
    }

    async fn write(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let open = self.open()?;
        // A change that touches many documents comes in parts, of which all but the last move nothing.
        let known = |change: &OutChange| change.lsn <= open.held.lsn;
        if !batch.redrive && batch.up_to.lsn <= open.held.lsn && batch.changes.iter().all(known) {
            return Ok(());
        }
        if open.held.generation >= plan::GENERATIONS_MAX {
            let message = format!("the flow has seen {} journals", plan::GENERATIONS_MAX);
            return Err(blocked(message, "give it a new name: its versions are used up"));
        }
        let mut passed = std::mem::take(&mut open.passed);
        let done = open.held.lsn;
        passed.again = batch.changes.iter().filter(|change| change.again).map(|change| change.lsn).collect();
        let mut items = Vec::new();
        for change in batch.changes.iter().filter(|change| batch.redrive || change.lsn > done) {
            if let Some(step) = step(change) {
                self.flush(std::mem::take(&mut items), &mut passed).await?;
                self.take_step(step, change).await?;
            } else if !passed.written.contains(&change.lsn) && !passed.refusals.contains_key(&change.lsn) {
                match self.items(change, batch.redrive).await {
                    Ok(made) => items.extend(made),
                    Err(SinkError::Row { lsn, reason }) => {
                        passed.refusals.insert(lsn, reason);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // What the batch no longer holds was put aside.
        passed.refusals.retain(|lsn, _| batch.changes.iter().any(|change| change.lsn == *lsn));
        self.flush(items, &mut passed).await?;
        if !batch.redrive {
            self.open()?.reached(batch.up_to);
            self.save_when_due().await?;
        }
        Ok(())
    }

    /// What a change of a row writes, where it goes now.
    async fn items(&mut self, change: &OutChange, anew: bool) -> Result<Vec<Item>, SinkError> {
        let plan = self.plan(&change.table, anew)?;
        self.attach(&plan, &change.table).await?;
        let open = self.open()?;
        let index = open.target(&plan.alias).ok_or_else(|| away("no index for a table"))?;
        open.blank.remove(&plan.alias);
        plan.items(&index, open.held.generation, change)
    }

    /// Writes items. A refused change is told alone; of the others it is noted that they are there.
    async fn flush(&mut self, items: Vec<Item>, passed: &mut Passed) -> Result<(), SinkError> {
        let lsns: Vec<u64> = items.iter().map(|item| item.lsn).collect();
        let open = self.open()?;
        passed.refusals.extend(bulk::write(&mut open.server.client, items).await?);
        for lsn in &passed.again {
            if let Some(reason) = passed.refusals.remove(lsn) {
                tracing::warn!(
                    lsn,
                    reason,
                    "a document that is written once more was refused; it stays as it is"
                );
            }
        }
        let Some((lsn, reason)) = passed.refusals.pop_first() else { return Ok(()) };
        passed
            .written
            .extend(lsns.into_iter().filter(|other| *other != lsn && !passed.refusals.contains_key(other)));
        open.passed = std::mem::take(passed);
        Err(SinkError::Row { lsn, reason })
    }

    /// Gives a table its index and its columns. Done once for each schema.
    async fn attach(&mut self, plan: &Plan, table: &Table) -> Result<(), SinkError> {
        let id = (table.id, table.version);
        let known = self.open()?.target(&plan.alias).is_some();
        if known && self.open()?.mapped.contains(&id) {
            return Ok(());
        }
        self.open()?.register(&plan.alias, table)?;
        if known {
            self.open()?.put_mapping(plan).await?;
        } else {
            let flow = self.flow.clone();
            match self.open()?.server.find(&plan.alias, &flow).await? {
                Found::Nothing => {
                    let index = self.make_index(plan, true).await?;
                    self.open()?.held.indexes.insert(plan.alias.clone(), index);
                    self.save().await?;
                }
                // Of an earlier life of this flow: searchers keep it until the new one is whole.
                Found::Ours(indexes) => {
                    if let Some(index) = indexes.into_iter().next() {
                        self.open()?.held.indexes.insert(plan.alias.clone(), index);
                    }
                    let begun = self.open()?.held.lsn;
                    self.begin_filling(plan, table.id, begun).await?;
                    self.save().await?;
                }
                Found::Foreign(reason) => {
                    let hint = "give the flow another `index`, or delete what has the name";
                    return Err(blocked(reason, hint));
                }
            }
        }
        self.open()?.mapped.insert(id);
        Ok(())
    }

    /// Makes an index under a name that nobody has. Until it is noted what it is for, it is noted as to be deleted, so
    /// that a crash leaves none behind.
    async fn make_index(&mut self, plan: &Plan, shown: bool) -> Result<String, SinkError> {
        let mut number = self.open()?.last_number(&plan.alias);
        while number < NUMBER_MAX {
            number += 1;
            let index = format!("{}-{number:06}", plan.alias);
            self.open()?.held.doomed.insert(index.clone());
            self.save().await?;
            let Some(open) = &mut self.open else { return Err(away("not connected")) };
            let make = Make {
                flow: &self.flow,
                index: &index,
                properties: &plan.properties,
                settings: &self.options.index_settings,
                shown_as: shown.then_some(plan.alias.as_str()),
            };
            let made = open.server.make_index(make).await?;
            open.held.doomed.remove(&index);
            if made {
                return Ok(index);
            }
        }
        Err(blocked(format!("all names of an index for `{}` are taken", plan.alias), "delete old indexes"))
    }

    /// A new index, not shown to searchers, takes all writes from now on.
    async fn begin_filling(&mut self, plan: &Plan, table: u32, begun: u64) -> Result<(), SinkError> {
        let open = self.open()?;
        if open.blank.contains(&plan.alias)
            && let Some(filling) = open.held.filling.get_mut(&plan.alias)
        {
            filling.tables.insert(table);
            filling.begun = begun;
            return Ok(());
        }
        let index = self.make_index(plan, false).await?;
        let open = self.open()?;
        let filling = Filling { index, tables: BTreeSet::from([table]), begun };
        let before = open.held.filling.insert(plan.alias.clone(), filling);
        open.held.doomed.extend(before.map(|filling| filling.index));
        open.blank.insert(plan.alias.clone());
        Ok(())
    }

    async fn take_step(&mut self, step: Step, change: &OutChange) -> Result<(), SinkError> {
        match step {
            Step::Anew(table) => {
                let plan = self.plan(&table, true)?;
                self.attach(&plan, &table).await?;
                self.begin_filling(&plan, table.id, change.lsn).await?;
                tracing::info!(flow = %self.flow, alias = plan.alias, "a new index is being filled");
            }
            Step::Empty(table) => {
                let plan = self.plan(&table, true)?;
                self.attach(&plan, &table).await?;
                self.begin_filling(&plan, table.id, change.lsn).await?;
                self.save().await?;
                self.open()?.take_over(&plan.alias).await?;
            }
            Step::Drop(table) => {
                let plan = self.plan(&table, true)?;
                self.open()?.let_go(&plan.alias, table.id);
            }
            Step::Shape(before, after) => {
                let plan = self.plan(&after, true)?;
                if let Some(before) = before {
                    let old = self.plan(&before, true)?;
                    self.open()?.forget(&old.alias, before.id);
                    if old.alias != plan.alias {
                        self.rename(&old.alias, &plan.alias).await?;
                    }
                }
                self.attach(&plan, &after).await?;
            }
        }
        let open = self.open()?;
        open.reached(Progress { epoch: change.epoch, lsn: change.lsn });
        self.save().await?;
        let flow = self.flow.clone();
        self.open()?.bury(&flow).await
    }

    /// Puts a table's documents under another alias.
    async fn rename(&mut self, old: &str, new: &str) -> Result<(), SinkError> {
        let flow = self.flow.clone();
        let open = self.open()?;
        if !open.held.indexes.contains_key(old) && !open.held.filling.contains_key(old) {
            return Ok(());
        }
        if let Some(index) = open.held.indexes.get(old).cloned() {
            if !open.held.indexes.contains_key(new)
                && let Found::Foreign(reason) = open.server.find(new, &flow).await?
            {
                return Err(blocked(reason, "delete what has the name of the renamed table's index"));
            }
            let actions = vec![
                json!({"add": {"index": index, "alias": new}}),
                json!({"remove": {"index": index, "alias": old, "must_exist": false}}),
            ];
            open.server.change_aliases(actions).await?;
        }
        if let Some(index) = open.held.indexes.remove(old) {
            let replaced = open.held.indexes.insert(new.to_owned(), index);
            open.held.doomed.extend(replaced);
        }
        if let Some(filling) = open.held.filling.remove(old) {
            let replaced = open.held.filling.insert(new.to_owned(), filling);
            open.held.doomed.extend(replaced.map(|filling| filling.index));
        }
        Ok(())
    }

    /// Writes the progress document. Without one, an empty server and a new flow would look the same.
    async fn save(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(away("not connected")) };
        let token = open.server.write_progress(&self.flow, &open.held, open.token).await?;
        (open.token, open.unsaved, open.saved_at) = (Some(token), false, Instant::now());
        Ok(())
    }

    async fn save_when_due(&mut self) -> Result<(), SinkError> {
        let open = self.open()?;
        let due = open.token.is_none() || open.unsaved && open.saved_at.elapsed() >= PROGRESS_INTERVAL;
        if due { self.save().await } else { Ok(()) }
    }

    async fn look(&mut self) -> Result<(), SinkError> {
        let flow = self.flow.clone();
        let open = self.open()?;
        if open.token.is_some()
            && open.server.read_progress(&flow).await?.map(|(_, token)| token) != open.token
        {
            return Err(away(format!("the progress of flow `{flow}` was taken away or moved")));
        }
        let names = open.names();
        let there = open.server.aliases_of(&names.iter().map(String::as_str).collect()).await?;
        match names.iter().find(|name| !there.contains_key(*name)) {
            Some(index) => Err(away(format!("the index `{index}` was taken away"))),
            None => Ok(()),
        }
    }

    /// Some may be written after an error that is not of a row: only a new `open` knows.
    fn closing<T>(&mut self, result: Result<T, SinkError>) -> Result<T, SinkError> {
        if matches!(result, Err(SinkError::Unavailable { .. } | SinkError::Blocked { .. })) {
            self.open = None;
        }
        result
    }
}

impl Open {
    fn standing(&self) -> Option<Standing> {
        let journal = u64::from_str_radix(&self.held.journal, 16).ok()?;
        let progress = Progress { epoch: self.held.epoch, lsn: self.held.lsn };
        Some(Standing { journal, progress })
    }

    /// The number of the newest index of an alias.
    fn last_number(&self, alias: &str) -> u32 {
        let filling = self.held.filling.get(alias).map(|filling| &filling.index);
        let newest = filling.or_else(|| self.held.indexes.get(alias));
        let number = newest.and_then(|index| index.rsplit_once('-')?.1.parse().ok());
        number.unwrap_or(0)
    }

    fn reached(&mut self, progress: Progress) {
        (self.held.epoch, self.held.lsn, self.unsaved) = (progress.epoch, progress.lsn, true);
    }

    /// All indexes that must be there.
    fn names(&self) -> BTreeSet<String> {
        let filling = self.held.filling.values().map(|filling| &filling.index);
        self.held.indexes.values().chain(filling).cloned().collect()
    }

    /// What is written to for an alias.
    fn target(&self, alias: &str) -> Option<String> {
        let filling = self.held.filling.get(alias).map(|filling| &filling.index);
        filling.or_else(|| self.held.indexes.get(alias)).map(|index| writer(index))
    }

    /// Brings what a crash left half done to its end. Answers false when an index is gone: then documents are missing.
    async fn recover(&mut self, flow: &str) -> Result<bool, SinkError> {
        self.bury(flow).await?;
        let names = self.names();
        let there = self.server.aliases_of(&names.iter().map(String::as_str).collect()).await?;
        let has = |index: &str, alias: &str| there.get(index).is_some_and(|aliases| aliases.contains(alias));
        let mut whole = true;
        let mut missing = Vec::new();
        for (alias, index) in self.held.indexes.clone() {
            let filling =
                self.held.filling.get(&alias).filter(|filling| has(&filling.index, &alias)).cloned();
            if let Some(filling) = filling {
                // It took the alias over, and we died before we noted it.
                self.held.indexes.insert(alias.clone(), filling.index);
                self.held.filling.remove(&alias);
            } else if !there.contains_key(&index) {
                tracing::error!(index, alias, "an index is gone");
                self.held.indexes.remove(&alias);
                whole = false;
            } else if !has(&index, &alias) {
                missing.push((index, alias));
            }
        }
        for (alias, filling) in self.held.filling.clone() {
            if !there.contains_key(&filling.index) {
                tracing::error!(index = filling.index, alias, "an index that was being filled is gone");
                self.held.filling.remove(&alias);
                whole = false;
            }
        }
        let writers = self.names().into_iter().map(|index| (index.clone(), writer(&index)));
        missing.extend(writers.filter(|(index, alias)| !has(index, alias)));
        let add = |(index, alias): (String, String)| json!({"add": {"index": index, "alias": alias}});
        let actions: Vec<Value> = missing.into_iter().map(add).collect();
        if !actions.is_empty() {
            self.server.change_aliases(actions).await?;
        }
        Ok(whole)
    }

    /// Notes which table is behind an alias. Two cannot share one: what empties one would empty both.
    fn register(&mut self, alias: &str, table: &Table) -> Result<(), SinkError> {
        let tables = self.tables.entry(alias.to_owned()).or_default();
        match tables.iter().find(|(id, name)| **id != table.id && **name != table.name) {
            Some((_, other)) => Err(blocked(
                format!("`{other}` and `{}` would share the index `{alias}`", table.name),
                "put the table's name into it: options: {index: \"{db}.{table}\"}, or name one table in `tables`",
            )),
            None => {
                tables.insert(table.id, table.name.clone());
                Ok(())
            }
        }
    }

    fn forget(&mut self, alias: &str, table: u32) {
        if let Some(tables) = self.tables.get_mut(alias) {
            tables.remove(&table);
        }
    }

    /// A dropped table's documents go with it, when no other table is behind the alias.
    fn let_go(&mut self, alias: &str, table: u32) {
        self.forget(alias, table);
        if self.tables.get(alias).is_some_and(|tables| !tables.is_empty()) {
            return;
        }
        self.held.doomed.extend(self.held.indexes.remove(alias));
        self.held.doomed.extend(self.held.filling.remove(alias).map(|filling| filling.index));
    }

    async fn put_mapping(&mut self, plan: &Plan) -> Result<(), SinkError> {
        let filling = self.held.filling.get(&plan.alias).map(|filling| filling.index.clone());
        let indexes = filling.into_iter().chain(self.held.indexes.get(&plan.alias).cloned());
        for index in indexes.collect::<Vec<_>>() {
            let Some(reason) = self.server.put_mapping(&index, &plan.properties).await? else { continue };
            // One field that does not fit takes the others with it: each is tried alone.
            for (name, field) in &plan.properties {
                let one = serde_json::Map::from_iter([(name.clone(), field.clone())]);
                if self.server.put_mapping(&index, &one).await?.is_some() {
                    tracing::warn!(
                        index,
                        column = name,
                        reason,
                        "a column keeps the mapping that it had: `flow resnapshot` makes a new index"
                    );
                }
            }
        }
        Ok(())
    }

    /// The index that was filled becomes the one that searchers see, in one step; the old one goes.
    async fn take_over(&mut self, alias: &str) -> Result<(), SinkError> {
        let Some(filling) = self.held.filling.get(alias).cloned() else { return Ok(()) };
        self.server.refresh(&filling.index).await?;
        let mut actions = vec![json!({"add": {"index": filling.index, "alias": alias}})];
        if let Some(old) = self.held.indexes.get(alias) {
            actions.push(json!({"remove_index": {"index": old}}));
        }
        self.server.change_aliases(actions).await?;
        self.held.indexes.insert(alias.to_owned(), filling.index);
        self.held.filling.remove(alias);
        self.blank.remove(alias);
        self.unsaved = true;
        Ok(())
    }

    /// Deletes what is noted as to be deleted; done again, it changes nothing.
    async fn bury(&mut self, flow: &str) -> Result<(), SinkError> {
        while let Some(index) = self.held.doomed.first().cloned() {
            self.server.delete_index(&index, flow).await?;
            self.held.doomed.remove(&index);
            self.unsaved = true;
        }
        Ok(())
    }
}

/// What a change does besides writing documents.
enum Step {
    /// All rows come again.
    Anew(Arc<Table>),
    /// All rows are gone.
    Empty(Arc<Table>),
    Drop(Arc<Table>),
    /// The table was made, or got other columns or another name.
    Shape(Option<Arc<Table>>, Arc<Table>),
}

/// `None` for a change of a row, and for a statement on no table of the flow.
fn step(change: &OutChange) -> Option<Step> {
    if change.op == Op::Truncate {
        let table = Arc::clone(&change.table);
        // A TRUNCATE is of a transaction; what begins the reading of a table anew is of none.
        return Some(if change.txn.is_some() { Step::Empty(table) } else { Step::Anew(table) });
    }
    let ddl = change.ddl.as_ref()?;
    match (&ddl.before, &ddl.after) {
        (Some(before), None) => Some(Step::Drop(Arc::clone(before))),
        (before, Some(after)) => Some(Step::Shape(before.clone(), Arc::clone(after))),
        (None, None) => None,
    }
}

#[async_trait]
impl Sink for ElasticsearchSink {
    async fn open(&mut self) -> Result<Option<Standing>, SinkError> {
        self.open = None;
        let open = self.connect().await?;
        let told = open.told;
        self.open = Some(open);
        Ok(told)
    }

    fn memory(&self) -> Memory {
        Memory::MayVanish
    }

    fn follow(&mut self, standing: Standing) {
        let Some(open) = &mut self.open else { return };
        let journal = format!("{:016x}", standing.journal);
        if open.token.is_some() && open.held.journal != journal {
            // Versions begin anew above all of those before, and what is there is of another history.
            open.held.generation += 1;
            open.held.indexes.clear();
            let filling = std::mem::take(&mut open.held.filling);
            open.held.doomed.extend(filling.into_values().map(|filling| filling.index));
        }
        open.held.journal = journal;
        open.reached(standing.progress);
    }

    async fn rewind(&mut self) -> Result<(), SinkError> {
        let result = self.save().await;
        self.closing(result)
    }

    async fn probe(&mut self) -> Result<(), SinkError> {
        Server::new(self.endpoint.clone()).greet().await
    }

    async fn prepare(&mut self, tables: &[Arc<Table>]) -> Result<(), SinkError> {
        for table in tables {
            let plan = self.plan(table, false)?;
            let result = self.attach(&plan, table).await;
            self.closing(result)?;
        }
        Ok(())
    }

    async fn apply(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let result = self.write(batch).await;
        self.closing(result)
    }

    async fn still_there(&mut self) -> Result<(), SinkError> {
        let result = self.look().await;
        self.closing(result)
    }

    async fn settle(&mut self) -> Result<(), SinkError> {
        if self.open()?.unsaved {
            let result = self.save().await;
            self.closing(result)?;
        }
        Ok(())
    }

    fn is_filling(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.held.filling.is_empty())
    }

    async fn filled(&mut self, end: u64, unfinished: &BTreeSet<u32>) -> Result<(), SinkError> {
        let open = self.open()?;
        let mut whole = Vec::new();
        for (alias, filling) in &open.held.filling {
            let known = open.tables.get(alias).into_iter().flat_map(BTreeMap::keys);
            let read = known.chain(&filling.tables).all(|id| !unfinished.contains(id));
            if read && filling.begun <= end {
                whole.push(alias.clone());
            }
        }
        for alias in whole {
            let result = self.open()?.take_over(&alias).await;
            self.closing(result)?;
            let result = self.save().await;
            self.closing(result)?;
            tracing::info!(flow = %self.flow, alias, "the new index is whole, and searchers see it");
        }
        Ok(())
    }
}
