//! From the events of one commit to one transaction of the journal: statements first, deletes before what is written, each
//! key once, and the commit timestamp in the step that seals it.

use super::catalog::{Catalog, Evolved, Undefined, keeping_hidden};
use super::claim;
use super::database::{Database, after_millis, is_collected, millis_of};
use super::order::{Held, sealed_step};
use crate::capture::kafka::hand_over;
use crate::capture::kafka::intake::BATCH_BYTES;
use crate::capture::mysql::model::changes_rows;
use crate::capture::mysql::schema::Live;
use crate::capture::mysql::snapshot::{is_redefined, row_key};
use crate::capture::tables::statement;
use crate::capture::writer::JournalHandle;
use crate::capture::{CaptureError, CaptureErrorKind};
use crate::config::OnBad;
use crate::formats::decode::ticdc::{Event, Kind, Part, Protocol, Row, Statement, read};
use crate::patterns::Patterns;
use base::{Ddl, Op, RowBuf, Table, TableName, Value};
use journal::Batch;
use mysql::ddl::{DatabaseDdlKind, StatementTable, TableDdl, TableDdlKind};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long after its timestamp a statement is to be seen at the latest.
const SEEN_AFTER_MS: u64 = 1000;
const NOT_YET_PAUSE: Duration = Duration::from_millis(20);
/// Rows of one SELECT when a table is read anew.
const REFILL_ROWS: u64 = 4096;

pub struct Applier {
    pub source: Arc<str>,
    pub format: &'static str,
    pub protocol: Protocol,
    pub on_bad: OnBad,
    pub patterns: Arc<Patterns>,
    pub handle: JournalHandle,
    pub catalog: Catalog,
    pub database: Option<Database>,
    pub claim_check: Option<PathBuf>,
    pub batch: Batch,
    pub skipped: u64,
    /// What the statement at hand seals: its own commit, if nothing else is of it.
    pub seals: u64,
    /// Definitions that are in the catalog and not in the batch yet, because another table's is waited for.
    pub pending: Vec<Evolved>,
}

/// What became of a commit.
pub enum Applied {
    Done,
    /// This table's definition is not known yet.
    Waits(TableName),
}

struct Change {
    table: Arc<Table>,
    op: Op,
    before: Option<RowBuf>,
    after: Option<RowBuf>,
}

impl Applier {
    /// The events of a commit. On an error nothing of it is in the batch.
    pub async fn apply(&mut self, commit_ts: u64, events: &[Held]) -> Result<Applied, CaptureError> {
        let (mut statements, mut claimed) = (Vec::<(Statement, usize)>::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            match read(self.protocol, &event.part) {
                Err(why) => self.bad(event, &why).await?,
                // Every partition has a copy.
                Ok(Event::Ddl(one)) => {
                    if statements.iter().all(|(own, _)| *own != *one) {
                        statements.push((*one, index));
                    }
                }
                Ok(Event::Row(row)) => {
                    if let Some(place) = row.claim_check.filter(|_| self.patterns.matches(&row.name)) {
                        match claim::fetch(self.protocol, self.claim_check.as_deref(), &place).await {
                            Ok(part) => claimed.push((index, part)),
                            Err(why) => self.bad(event, &why).await?,
                        }
                    }
                }
                Ok(Event::Watermark | Event::Bootstrap(_)) => {}
            }
        }
        let alone = events.iter().all(|event| event.part.kind == Kind::Ddl);
        let last = statements.len().saturating_sub(1);
        for (number, (statement, index)) in statements.into_iter().enumerate() {
            self.seals = if alone && number == last { commit_ts + 1 } else { commit_ts };
            self.follow(commit_ts, &statement, &events[index]).await?;
        }
        self.write(commit_ts, events, &claimed).await
    }

    async fn write(
        &mut self,
        commit_ts: u64,
        events: &[Held],
        claimed: &[(usize, Part)],
    ) -> Result<Applied, CaptureError> {
        let mut rows: Vec<(Box<Row<'_>>, &Held)> = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let whole = claimed.iter().find(|(own, _)| *own == index).map(|(_, part)| part);
            let Ok(Event::Row(row)) = read(self.protocol, whole.unwrap_or(&event.part)) else { continue };
            // What could not be fetched was told.
            if self.patterns.matches(&row.name) && (whole.is_some() || row.claim_check.is_none()) {
                rows.push((row, event));
            }
        }
        let mut evolved = std::mem::take(&mut self.pending);
        let mut bad = HashSet::new();
        for (index, (row, event)) in rows.iter().enumerate() {
            match self.catalog.make_room(row) {
                Ok(made) => {
                    evolved.extend(made);
                    // The statement was not to be seen yet at its own timestamp; to the row it was.
                    if self.catalog.lacks(row)
                        && let Some(Ok(live)) = self.describe(commit_ts, &row.name).await?
                    {
                        evolved.extend(self.catalog.define(live.table, None));
                    }
                }
                Err(Undefined::Bad(why)) => {
                    self.bad(event, &why).await?;
                    bad.insert(index);
                }
                Err(Undefined::Wait) => match self.describe(commit_ts, &row.name).await? {
                    Some(Ok(live)) => evolved.extend(self.catalog.define(live.table, row.schema_version)),
                    Some(Err(why)) => {
                        self.bad(event, &why).await?;
                        bad.insert(index);
                    }
                    None if self.database.is_some() => {
                        let why = format!("TiDB had no table `{}` then", row.name);
                        self.bad(event, &why).await?;
                        bad.insert(index);
                    }
                    None => {
                        self.pending = evolved;
                        return Ok(Applied::Waits(row.name.clone()));
                    }
                },
            }
        }
        let (mut deletes, mut writes) = (Vec::new(), Vec::with_capacity(rows.len()));
        let mut seen = HashSet::new();
        for (index, (row, event)) in rows.iter().enumerate() {
            let table = self.catalog.get(&row.name).filter(|_| !bad.contains(&index));
            let Some(table) = table else { continue };
            match self.change(commit_ts, &table, row).await? {
                Err(why) => self.bad(event, &why).await?,
                Ok(change) => {
                    let list = if change.op == Op::Delete { &mut deletes } else { &mut writes };
                    // A row that is there twice was sent twice: a transaction changes a key once.
                    let image = change.after.as_ref().or(change.before.as_ref());
                    let once = table.key.is_empty()
                        || image.is_none_or(|image| {
                            seen.insert((table.id, change.op == Op::Delete, row_key(&table, image.view())))
                        });
                    if once {
                        list.push(change);
                    }
                }
            }
        }
        if deletes.is_empty() && writes.is_empty() && evolved.is_empty() {
            return Ok(Applied::Done);
        }
        self.batch.begin(&commit_ts.to_string(), millis_of(commit_ts));
        for one in &evolved {
            self.put_evolved(one);
        }
        for change in deletes.iter().chain(&writes) {
            let image = |row: &Option<RowBuf>| row.as_ref().map(|row| row.0.clone());
            let (before, after) = (image(&change.before), image(&change.after));
            self.batch.change(change.op, &change.table, before.as_deref(), after.as_deref());
            self.flush_large().await?;
        }
        self.batch.commit(&sealed_step(commit_ts + 1));
        self.flush_large().await?;
        Ok(Applied::Done)
    }

    /// A definition that rows told.
    fn put_evolved(&mut self, one: &Evolved) {
        self.batch.schema(&one.after);
        if let Some(before) = &one.before {
            let sql = statement(Some(before), &one.after);
            let (before, after) = (Some(Arc::clone(before)), Some(Arc::clone(&one.after)));
            self.batch.ddl(&Ddl { sql, before, after, column_renames: Vec::new() });
        }
    }

    /// A row as the journal takes it; `Err` says what is wrong with it.
    async fn change(
        &mut self,
        commit_ts: u64,
        table: &Arc<Table>,
        row: &Row<'_>,
    ) -> Result<Result<Change, String>, CaptureError> {
        let image = |image: Option<&_>, whole| {
            image.map(|image| self.catalog.image(table, row, image, whole)).transpose()
        };
        let read = image(row.before.as_ref(), false)
            .and_then(|before| Ok((before, image(row.after.as_ref(), !row.key_only)?)));
        let (before, mut after) = match read {
            Ok(read) => read,
            Err(why) => return Ok(Err(why)),
        };
        if row.key_only
            && let Some(key) = &after
        {
            match self.reread(commit_ts, table, key).await? {
                Ok(whole) => after = Some(whole),
                Err(why) => return Ok(Err(why)),
            }
        }
        let has = match row.op {
            Op::Delete => before.is_some(),
            _ => after.is_some(),
        };
        if !has {
            return Ok(Err("it has no row".into()));
        }
        if row.op == Op::Update && before.is_none() && table.key.is_empty() {
            return Ok(Err("it changes a row of a table without a key, and does not say which".into()));
        }
        Ok(Ok(Change { table: Arc::clone(table), op: row.op, before, after }))
    }

    /// The whole of a row that was too large for its message, as it was after its commit.
    async fn reread(
        &mut self,
        commit_ts: u64,
        table: &Table,
        key: &RowBuf,
    ) -> Result<Result<RowBuf, String>, CaptureError> {
        let Some(database) = &mut self.database else {
            return Ok(Err(
                "it has the key of a row that was too large, and no more: set `tidb:` to read the row \
                           there, or let the changefeed use claim checks"
                    .into(),
            ));
        };
        let values: Vec<Value> = table
            .key
            .iter()
            .filter_map(|index| key.view().get(*index).ok().flatten().map(base::ValueRef::to_value))
            .collect();
        match database.row(commit_ts, table, &values).await {
            Ok(Some(row)) => Ok(Ok(row)),
            Ok(None) => Ok(Err("it has the key of a row that TiDB did not have then".into())),
            Err(error) if is_collected(&error) => Ok(Err(format!(
                "it has the key of a row as it was before TiDB's garbage collection: {}",
                base::error::chain(&error)
            ))),
            Err(error) => Err(error),
        }
    }

    /// A table's definition at a commit, if there is a TiDB that can be asked, and it has the table.
    async fn describe(
        &mut self,
        commit_ts: u64,
        name: &TableName,
    ) -> Result<Option<Result<Live, String>>, CaptureError> {
        let Some(database) = &mut self.database else { return Ok(None) };
        let mut tables = database.tables(commit_ts, |own| own == name).await?;
        Ok(tables.remove(name))
    }

    /// Takes a statement into the catalog and the journal.
    async fn follow(&mut self, ts: u64, one: &Statement, event: &Held) -> Result<(), CaptureError> {
        let named = |table: &StatementTable| {
            TableName::new(table.db.clone().unwrap_or_else(|| one.db.clone()), table.table.clone())
        };
        match mysql::ddl::classify(&one.sql, false) {
            mysql::Statement::TableDdl(ddl) if ddl.is_temporary => Ok(()),
            mysql::Statement::TableDdl(ddl) => {
                let names: Vec<TableName> = ddl.tables.iter().map(named).collect();
                let renames: Vec<_> = ddl.renames.iter().map(|(a, b)| (named(a), named(b))).collect();
                match ddl.kind {
                    TableDdlKind::Truncate => {
                        let tables: Vec<_> = names.iter().filter_map(|name| self.catalog.get(name)).collect();
                        if tables.is_empty() {
                            return Ok(());
                        }
                        self.begin(ts);
                        for table in &tables {
                            self.batch.truncate(table);
                        }
                        self.end().await
                    }
                    TableDdlKind::Drop => self.drop_tables(ts, &names, &one.sql).await,
                    _ => {
                        for (from, to) in &renames {
                            self.rename(ts, from, to, one, event).await?;
                        }
                        if ddl.kind == TableDdlKind::Rename {
                            return Ok(());
                        }
                        // The statement names tables as they were before it renamed them.
                        let now = |name: &TableName| {
                            let renamed = renames.iter().find(|(from, _)| from == name);
                            renamed.map_or_else(|| name.clone(), |(_, to)| to.clone())
                        };
                        for name in names.iter().map(now) {
                            self.settle(ts, &name, one, &ddl, event).await?;
                        }
                        Ok(())
                    }
                }
            }
            mysql::Statement::DatabaseDdl { kind: DatabaseDdlKind::Drop, db: Some(db) } => {
                let names: Vec<_> = self.catalog.names().into_iter().filter(|name| name.db == db).collect();
                self.drop_tables(ts, &names, &one.sql).await
            }
            mysql::Statement::Unknown => {
                let name = TableName::new(one.db.clone(), one.table.clone());
                if self.catalog.get(&name).is_none() {
                    return Ok(());
                }
                let ddl = TableDdl {
                    kind: TableDdlKind::Alter,
                    tables: Vec::new(),
                    renames: Vec::new(),
                    column_renames: Vec::new(),
                    added_columns: Vec::new(),
                    dropped_columns: Vec::new(),
                    placed_columns: Vec::new(),
                    like: None,
                    is_select: false,
                    starts_transaction: false,
                    is_temporary: false,
                    moves_rows: true,
                    keeps_columns: false,
                };
                self.settle(ts, &name, one, &ddl, event).await
            }
            _ => Ok(()),
        }
    }

    async fn drop_tables(&mut self, ts: u64, names: &[TableName], sql: &str) -> Result<(), CaptureError> {
        let tables: Vec<_> = names.iter().filter_map(|name| self.catalog.forget(name)).collect();
        if tables.is_empty() {
            return Ok(());
        }
        self.begin(ts);
        for before in tables {
            let (id, sql) = (before.id, sql.to_owned());
            self.batch.ddl(&Ddl { sql, before: Some(before), after: None, column_renames: Vec::new() });
            self.batch.drop_table(id);
        }
        self.end().await
    }

    async fn rename(
        &mut self,
        ts: u64,
        from: &TableName,
        to: &TableName,
        one: &Statement,
        event: &Held,
    ) -> Result<(), CaptureError> {
        if !self.patterns.matches(to) {
            return self.drop_tables(ts, std::slice::from_ref(from), &one.sql).await;
        }
        let Some(Evolved { before, after }) = self.catalog.rename(from, to) else {
            // It comes from where we do not look: its rows are not in the journal.
            let Some(live) = self.definition(ts, to, one).await? else { return Ok(()) };
            if let Some(evolved) = self.catalog.define(live.table, None) {
                self.begin(ts);
                self.batch.schema(&evolved.after);
                if self.database.is_none() {
                    return self.end().await;
                }
                return self.refill(ts, &evolved.after, false, event).await;
            }
            return Ok(());
        };
        self.begin(ts);
        self.batch.schema(&after);
        let sql = one.sql.clone();
        self.batch.ddl(&Ddl { sql, before, after: Some(after), column_renames: Vec::new() });
        self.end().await
    }

    /// A table's definition behind a statement, from the message or from TiDB; `None` where neither tells.
    async fn definition(
        &mut self,
        ts: u64,
        name: &TableName,
        one: &Statement,
    ) -> Result<Option<Live>, CaptureError> {
        if let Some(schema) = one.after.clone().filter(|schema| schema.table.name == *name) {
            let known = self.catalog.get(name);
            let before = one.before.as_ref().map(|schema| &schema.table);
            let schema = keeping_hidden(schema, known.as_deref(), before);
            return Ok(Some(Live { table: schema.table, fills: schema.fills }));
        }
        if self.database.is_none() {
            return Ok(None);
        }
        // TiDB shows a statement from its commit on, which is a little behind the timestamp that TiCDC gives it. Always so
        // much later: a look never shows less than the one before. What it shows too early is asked for again in its turn.
        let at = self.seen(ts).await?;
        Ok(self.describe(at, name).await?.and_then(Result::ok))
    }

    /// When every statement of a timestamp is to be seen, once that is past.
    async fn seen(&mut self, ts: u64) -> Result<u64, CaptureError> {
        let at = after_millis(ts, SEEN_AFTER_MS);
        let Some(database) = &mut self.database else { return Ok(at) };
        while database.now().await? < at {
            tokio::time::sleep(NOT_YET_PAUSE).await;
        }
        Ok(at)
    }

    /// Brings a table in line with a statement that made or altered it.
    async fn settle(
        &mut self,
        ts: u64,
        name: &TableName,
        one: &Statement,
        ddl: &TableDdl,
        event: &Held,
    ) -> Result<(), CaptureError> {
        if !self.patterns.matches(name) {
            return Ok(());
        }
        let before = self.catalog.get(name);
        let Some(live) = self.definition(ts, name, one).await? else {
            return self.guess(ts, before, one, ddl, event).await;
        };
        let version = one.after.as_ref().map(|schema| schema.version);
        // Seen before its statement's turn came: what was written in between had it not.
        let early = |before: &Table, name: &String| {
            before.column_index(name).is_some()
                && live.table.column_index(name).is_some_and(|i| live.fills[i])
        };
        let changed = before.as_ref().is_some_and(|before| {
            changes_rows(before, &live.table, &live, &ddl.column_renames)
                || (self.database.is_some() && ddl.added_columns.iter().any(|name| early(before, name)))
        });
        let evolved = self.catalog.define(live.table, version);
        // Without a TiDB nobody has its rows, nor asked for them.
        let is_news = before.is_none() && ddl.kind != TableDdlKind::Create && self.database.is_some();
        let refill = (ddl.moves_rows && before.is_some()) || changed || is_news;
        let Some(table) = self.catalog.get(name) else { return Ok(()) };
        if evolved.is_none() && !refill {
            return Ok(());
        }
        self.begin(ts);
        if let Some(Evolved { before, after }) = evolved {
            self.batch.schema(&after);
            let (sql, column_renames) = (one.sql.clone(), ddl.column_renames.clone());
            self.batch.ddl(&Ddl { sql, before, after: Some(after), column_renames });
        }
        if refill { self.refill(ts, &table, ddl.moves_rows, event).await } else { self.end().await }
    }

    /// A statement whose effect nobody tells: rows will tell their columns; names of columns are known.
    async fn guess(
        &mut self,
        ts: u64,
        before: Option<Arc<Table>>,
        one: &Statement,
        ddl: &TableDdl,
        event: &Held,
    ) -> Result<(), CaptureError> {
        let Some(before) = before else { return Ok(()) };
        let mut after = (*before).clone();
        for (from, to) in &ddl.column_renames {
            if let Some(column) = after.columns.iter_mut().find(|column| column.name == *from) {
                column.name.clone_from(to);
            }
        }
        let upper = one.sql.to_ascii_uppercase();
        let fills =
            !ddl.added_columns.is_empty() && (upper.contains("DEFAULT") || upper.contains("NOT NULL"));
        let evolved = self.catalog.define(after, None);
        if evolved.is_none() && !ddl.moves_rows && !fills {
            return Ok(());
        }
        self.begin(ts);
        let mut table = before;
        if let Some(Evolved { before, after }) = evolved {
            self.batch.schema(&after);
            table = Arc::clone(&after);
            let (sql, column_renames) = (one.sql.clone(), ddl.column_renames.clone());
            self.batch.ddl(&Ddl { sql, before, after: Some(after), column_renames });
        }
        if ddl.moves_rows || fills {
            self.refill(ts, &table, ddl.moves_rows, event).await
        } else {
            self.end().await
        }
    }

    /// Reads a table as it was behind a statement that changed its rows without telling, within the open transaction.
    async fn refill(
        &mut self,
        ts: u64,
        table: &Arc<Table>,
        empties: bool,
        event: &Held,
    ) -> Result<(), CaptureError> {
        if self.database.is_none() || table.key.is_empty() {
            let why = format!(
                "it changes rows of `{}` without telling which: set `tidb:` so that the table is read anew",
                table.name
            );
            // With `on_bad: skip` the statement stands, and its rows are as they were.
            self.bad(event, &why).await?;
            return self.end().await;
        }
        tracing::info!(source = %self.source, table = %table.name, "a statement changed rows: the table is read anew");
        if empties {
            self.batch.truncate(table);
        }
        // What was committed since the statement comes once more with its own commit.
        let mut at = self.seen(ts).await?;
        let mut cursor = None;
        loop {
            let Some(database) = &mut self.database else { return Ok(()) };
            let rows = match database.chunk(at, table, cursor.as_ref(), REFILL_ROWS).await {
                Ok(rows) => rows,
                // By then another statement had made another table of it.
                Err(error) if is_redefined(&error) && at > ts => {
                    at = ts;
                    continue;
                }
                Err(error) if is_collected(&error) => {
                    return Err(CaptureError {
                        kind: CaptureErrorKind::Gap,
                        ..error.with_hint(
                            "raise `tidb_gc_life_time`, and run `tidemill flow resnapshot` to read the tables anew",
                        )
                    });
                }
                Err(error) => return Err(error),
            };
            for row in &rows {
                self.batch.change(Op::Read, table, None, Some(&row.0));
                self.flush_large().await?;
            }
            if (rows.len() as u64) < REFILL_ROWS {
                return self.end().await;
            }
            cursor = rows.last().map(|row| RowBuf(row_key(table, row.view())));
        }
    }

    /// Rows that are read belong to no transaction; a statement's own are named by its commit.
    fn begin(&mut self, ts: u64) {
        self.batch.begin(&ts.to_string(), millis_of(ts));
    }

    /// Ends what a statement did to one table. Where more of its commit follows, it is met again after a kill in between, and
    /// then finds its work done.
    async fn end(&mut self) -> Result<(), CaptureError> {
        self.batch.commit(&sealed_step(self.seals));
        self.flush_large().await
    }

    async fn bad(&mut self, event: &Held, reason: &str) -> Result<(), CaptureError> {
        let ((topic, partition), offset) = (&event.place, event.offset);
        if self.on_bad == OnBad::Fail {
            self.flush().await?;
            let format = self.format;
            return Err(CaptureError::fatal(
                format!(
                    "topic `{topic}`, partition {partition}, offset {offset}: the message cannot be read as `{format}`: {reason}"
                ),
                "mend what it says, or set `on_bad: skip` to pass over such messages",
            ));
        }
        self.skipped += 1;
        metrics::counter!(base::metrics::SKIPPED_MESSAGES, "source" => self.source.to_string()).increment(1);
        if self.skipped.is_power_of_two() {
            tracing::warn!(
                source = %self.source, %topic, partition, offset, reason, skipped = self.skipped,
                "a message cannot be read and is passed over"
            );
        }
        Ok(())
    }

    /// A message that is none of the protocol's.
    pub async fn bad_message(
        &mut self,
        place: &super::order::Place,
        offset: i64,
        reason: &str,
    ) -> Result<(), CaptureError> {
        let none = bytes::Bytes::new;
        let part = Part { kind: Kind::Row, commit_ts: 0, key: none(), value: none() };
        self.bad(&Held { place: place.clone(), offset, part }, reason).await
    }

    async fn flush_large(&mut self) -> Result<(), CaptureError> {
        if self.batch.len_bytes() >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    pub async fn flush(&mut self) -> Result<(), CaptureError> {
        hand_over(&self.handle, &self.source, &mut self.batch).await
    }
}
