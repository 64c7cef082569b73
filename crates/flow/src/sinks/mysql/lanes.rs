//! Parts of a large batch at the same time, on connections of their own.
//!
//! A batch is cut between source transactions into segments that follow each other. Each is a transaction of a lane; they
//! run at once and commit one after the other, each with its own progress: readers see the states of the source, in its
//! order. A segment that meets rows of an earlier one, by its key or a unique key, before or after, begins when that one
//! has committed. What the target alone knows to conflict (its own keys, triggers) meets there on locks that no one waits
//! for long. Whatever goes wrong in a lane, it and those behind it are rolled back, and the rest of the batch goes the way
//! of one transaction on one connection, which also finds out what was wrong.

use super::statements::{Key, statements};
use super::target::Dialect;
use super::{MySqlSink, Shape, answered};
use crate::deliver::sink::{OutChange, Progress, SinkBatch, SinkError};
use base::{Op, TableName, Txn, Value};
use futures_util::future::join_all;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Lanes of a flow unless the configuration says otherwise.
pub const LANES_DEFAULT: u32 = 4;
pub const LANES_MAX: u32 = 64;
/// Fewer rows are written by one statement as fast as by two.
const SEGMENT_ROWS_MIN: usize = 256;
/// Lanes that have had nothing to do for as long are closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Large batches that go without lanes after one that did not fit them …
const REST_MIN: u32 = 4;
/// … twice as many each time, up to this.
const REST_MAX: u32 = 1024;
/// A lane that waits for a lock may wait for a lane that waits for its turn: it gives up after a second, which is the least
/// that MySQL knows. Rows are read as they are now, and no gaps between them are locked.
const SESSION: [&str; 3] = [
    "SET SESSION innodb_lock_wait_timeout = 1",
    "SET SESSION lock_wait_timeout = 1",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// A flow's lanes.
pub(super) struct Lanes {
    /// How many there may be.
    count: usize,
    conns: Vec<Conn>,
    used_at: Instant,
    /// Large batches that still go without lanes.
    resting: u32,
    /// How many it will be after the next failure.
    rest_next: u32,
}

impl Lanes {
    pub fn new(count: u32) -> Self {
        let count = count.clamp(1, LANES_MAX) as usize;
        Self { count, conns: Vec::new(), used_at: Instant::now(), resting: 0, rest_next: REST_MIN }
    }

    /// Ends the connections, and with them what they had open.
    pub fn close(&mut self) {
        self.conns.clear();
    }

    pub fn close_idle(&mut self) {
        if self.used_at.elapsed() > IDLE_MAX {
            self.close();
        }
    }

    fn rest(&mut self) {
        self.resting = self.rest_next;
        self.rest_next = (self.rest_next * 2).min(REST_MAX);
    }
}

/// Rows that go into one transaction of a lane.
#[derive(Debug, PartialEq)]
struct Segment {
    rows: Range<usize>,
    /// How many segments must have been committed before it begins.
    starts_after: usize,
}

/// Cuts `rows` into at most `lanes` segments. One that would only wait for the one before it is joined to it.
fn segments(rows: &[&OutChange], lanes: usize) -> Vec<Segment> {
    let size = rows.len().div_ceil(lanes).max(SEGMENT_ROWS_MIN);
    let hasher = RandomState::new();
    // The segment that met a key last.
    let mut met: HashMap<u64, usize> = HashMap::new();
    let mut out: Vec<Segment> = Vec::new();
    let mut start = 0;
    while start < rows.len() {
        let mut end = (start + size).min(rows.len());
        while end < rows.len() && !may_part(rows[end - 1], rows[end]) {
            end += 1;
        }
        let mut keys = Vec::with_capacity(end - start);
        for row in &rows[start..end] {
            put_keys(row, &hasher, &mut keys);
        }
        let met_before: Vec<usize> = keys.iter().filter_map(|key| met.get(key)).copied().collect();
        let starts_after =
            |by: usize| met_before.iter().filter(|met| **met < by).max().map_or(0, |met| met + 1);
        let waits_for = starts_after(out.len());
        let joins = waits_for == out.len();
        let one_before = out.len().saturating_sub(1);
        match out.last_mut().filter(|_| joins) {
            Some(last) => {
                last.rows.end = end;
                last.starts_after = last.starts_after.max(starts_after(one_before));
            }
            None => out.push(Segment { rows: start..end, starts_after: waits_for }),
        }
        let index = out.len() - 1;
        met.extend(keys.into_iter().map(|key| (key, index)));
        start = end;
    }
    out
}

/// Whether one transaction of the sink may end between two changes that follow each other.
fn may_part(one: &OutChange, next: &OutChange) -> bool {
    let same = |one: &Txn, next: &Txn| !one.last && one.id == next.id;
    one.lsn != next.lsn && !one.txn.as_ref().zip(next.txn.as_ref()).is_some_and(|(one, next)| same(one, next))
}

/// Hashes of all that another change must have in common with this one to meet the same row. Two keys with one hash only
/// wait for each other.
fn put_keys(row: &OutChange, hasher: &RandomState, out: &mut Vec<u64>) {
    let table = &*row.table;
    if table.key.is_empty() {
        // Any of its rows may be any other.
        out.push(hasher.hash_one(&table.name));
        return;
    }
    let uniques = table.unique_keys.iter().filter(|columns| **columns != table.key);
    for (number, columns) in std::iter::once(&table.key).chain(uniques).enumerate() {
        let mut last = None;
        for values in [row.before.as_deref(), row.after.as_deref()].into_iter().flatten() {
            let key = Key { columns, values };
            // A unique key with a NULL is equal to none.
            if columns.iter().any(|column| values[*column] == Value::Null) || last.as_ref() == Some(&key) {
                continue;
            }
            out.push(hasher.hash_one((&table.name, number, &key)));
            last = Some(key);
        }
    }
}

/// How far a window has come. Segments commit in order, and none behind one that failed.
#[derive(Clone, Copy)]
struct Turn {
    committed: usize,
    failed: usize,
}

/// One segment's transaction.
struct Work<'a> {
    rows: &'a [&'a OutChange],
    starts_after: usize,
    /// The statement that marks the transaction, where it is to be marked.
    mark: Option<String>,
    /// The statement that notes how far the flow is.
    progress: String,
}

/// What all segments of a window have in common.
struct Window<'a> {
    turns: watch::Sender<Turn>,
    dialect: Dialect,
    targets: &'a HashMap<TableName, Shape>,
    statement_bytes_max: usize,
    answer_wait: Duration,
}

impl Window<'_> {
    /// Waits until so many segments have been committed; false when one before `index` has failed.
    async fn reaches(&self, committed: usize, index: usize) -> bool {
        let mut turns = self.turns.subscribe();
        let turn = turns.wait_for(|turn| turn.committed >= committed || turn.failed < index).await;
        turn.is_ok_and(|turn| turn.failed > index)
    }

    async fn send(&self, conn: &mut Conn, sql: &str) -> Result<(), String> {
        let answer = answered(self.answer_wait, conn.query_drop(sql)).await.map_err(|e| e.to_string())?;
        answer.map_err(|e| base::error::chain(&e))
    }

    /// Runs a segment. What it has not committed is rolled back when its connection ends.
    async fn run(&self, index: usize, conn: &mut Conn, work: &Work<'_>) {
        match self.try_run(index, conn, work).await {
            Ok(true) => self.turns.send_modify(|turn| turn.committed = index + 1),
            Ok(false) => {}
            Err(reason) => {
                tracing::debug!(segment = index, reason, "a lane failed");
                self.turns.send_modify(|turn| turn.failed = turn.failed.min(index));
            }
        }
    }

    /// False when one before it has failed.
    async fn try_run(&self, index: usize, conn: &mut Conn, work: &Work<'_>) -> Result<bool, String> {
        if !self.reaches(work.starts_after, index).await {
            return Ok(false);
        }
        self.send(conn, "START TRANSACTION").await?;
        if let Some(mark) = &work.mark {
            self.send(conn, mark).await?;
        }
        let strict = |name: &TableName| self.targets.get(name).is_some_and(|target| target.strict);
        for statement in statements(work.rows, self.dialect, strict) {
            if !statement.zero_labels.is_empty() || statement.sql.len() > self.statement_bytes_max {
                return Err("a statement needs more than a lane gives".to_owned());
            }
            self.send(conn, &statement.sql).await?;
        }
        if !self.reaches(index, index).await {
            return Ok(false);
        }
        // Not before its turn: it is the one row that all lanes write.
        self.send(conn, &work.progress).await?;
        self.send(conn, "COMMIT").await?;
        Ok(true)
    }
}

impl MySqlSink {
    /// Commits as much of a large batch as lanes can: `open.progress` says how much that is.
    pub(super) async fn apply_in_lanes(
        &mut self,
        batch: &SinkBatch,
        rows: &[&OutChange],
    ) -> Result<(), SinkError> {
        let fits = self.lanes.count > 1
            && rows.len() >= 2 * SEGMENT_ROWS_MIN
            && batch.ends_txn
            && !batch.redrive
            && !self.history
            && self.open()?.txn_rows.is_none()
            && !rows.iter().any(|row| matches!(row.op, Op::Ddl | Op::Truncate));
        if !fits {
            return Ok(());
        }
        if self.lanes.resting > 0 {
            self.lanes.resting -= 1;
            return Ok(());
        }
        let segments = segments(rows, self.lanes.count);
        if segments.len() < 2 {
            return Ok(());
        }
        let mut ends: Vec<Progress> =
            segments.iter().map(|segment| behind(rows[segment.rows.end - 1])).collect();
        ends.pop();
        ends.push(batch.up_to);
        let work: Vec<Work<'_>> = segments
            .into_iter()
            .zip(&ends)
            .enumerate()
            .map(|(index, (segment, end))| {
                // The first connection is the flow's own.
                let mark = self.mark.then(|| self.mark_statement(index + 1));
                let progress = self.progress_statement(*end)?;
                Ok(Work { rows: &rows[segment.rows], starts_after: segment.starts_after, mark, progress })
            })
            .collect::<Result<_, SinkError>>()?;
        // Taken out, so that they end with whoever waits here.
        let mut conns = std::mem::take(&mut self.lanes.conns);
        if let Err(error) = self.connect_lanes(&mut conns, work.len()).await {
            tracing::debug!(flow = self.flow, %error, "no connections for lanes");
            self.lanes.rest();
            return Ok(());
        }
        let open =
            self.open.as_ref().ok_or_else(|| SinkError::Unavailable { message: "not connected".into() })?;
        let window = Window {
            turns: watch::Sender::new(Turn { committed: 0, failed: usize::MAX }),
            dialect: self.target.dialect,
            targets: &open.targets,
            statement_bytes_max: open.statement_bytes_max,
            answer_wait: self.answer_wait,
        };
        let lanes = conns.iter_mut().zip(&work).enumerate();
        join_all(lanes.map(|(index, (conn, work))| window.run(index, conn, work))).await;
        let committed = window.turns.borrow().committed;
        if let Some(end) = committed.checked_sub(1).and_then(|last| ends.get(last)) {
            self.open()?.progress = *end;
        }
        if committed == work.len() {
            self.lanes.conns = conns;
            self.lanes.used_at = Instant::now();
            self.lanes.rest_next = REST_MIN;
            return Ok(());
        }
        tracing::debug!(flow = self.flow, committed, of = work.len(), "the rest goes without lanes");
        self.lanes.rest();
        drop(conns);
        self.note_what_lanes_did().await
    }

    async fn connect_lanes(&self, conns: &mut Vec<Conn>, count: usize) -> Result<(), SinkError> {
        while conns.len() < count {
            let mut conn = self.session().await?;
            for sql in SESSION {
                conn.query_drop(sql).await.map_err(|e| self.classify(e, None))?;
            }
            conns.push(conn);
        }
        Ok(())
    }

    /// A COMMIT that was not answered may have been done: the progress that went with it tells.
    async fn note_what_lanes_did(&mut self) -> Result<(), SinkError> {
        let mut open =
            self.open.take().ok_or_else(|| SinkError::Unavailable { message: "not connected".into() })?;
        let found = answered(self.answer_wait, self.look_up_progress(&mut open.conn)).await?;
        let found = found.map_err(|e| self.classify(e, None))?;
        if let Some((_, epoch, lsn)) = found.filter(|(journal, ..)| *journal == open.journal) {
            open.progress = open.progress.max(Progress { epoch, lsn });
        }
        self.open = Some(open);
        Ok(())
    }
}

fn behind(row: &OutChange) -> Progress {
    Progress { epoch: row.epoch, lsn: row.lsn }
}

#[cfg(test)]
mod tests {
    use super::super::statements::tests::{change, table};
    use super::*;
    use crate::deliver::sink::{Sink, Standing};
    use base::{Secret, Table};
    use proptest::test_runner::{RngAlgorithm, TestRng};
    use std::sync::Arc;
    use testkit::{MySql, MySqlOptions};

    fn cut(changes: &[OutChange], lanes: usize) -> Vec<(Range<usize>, usize)> {
        let rows: Vec<_> = changes.iter().collect();
        segments(&rows, lanes).into_iter().map(|s| (s.rows, s.starts_after)).collect()
    }

    /// So many inserts, each a transaction.
    fn inserts(table: &Arc<Table>, count: u64) -> Vec<OutChange> {
        (1..=count).map(|lsn| change(lsn, table, &format!(">{lsn}=x"))).collect()
    }

    fn in_txn(changes: &mut [OutChange], id: &str) {
        let count = changes.len() as u64;
        for (change, index) in changes.iter_mut().zip(0..) {
            change.txn = Some(Txn { id: id.into(), index, last: index + 1 == count });
        }
    }

    #[test]
    fn rows_that_never_meet_are_cut_evenly() {
        let a = table("a", vec![0]);
        let changes = inserts(&a, 1024);
        assert_eq!(cut(&changes, 4), [(0..256, 0), (256..512, 0), (512..768, 0), (768..1024, 0)]);
        assert_eq!(cut(&changes[..300], 4), [(0..256, 0), (256..300, 0)]);
    }

    #[test]
    fn a_row_met_again_waits_for_the_segment_that_had_it() {
        let a = table("a", vec![0]);
        let mut changes = inserts(&a, 1024);
        // Moved there from a row of the first segment.
        changes[600] = change(601, &a, "7=x>9999=x");
        assert_eq!(cut(&changes, 4), [(0..256, 0), (256..512, 0), (512..768, 1), (768..1024, 0)]);
        // One that would wait for the one just before it is one with it.
        changes[800] = change(801, &a, "700=x>700=y");
        assert_eq!(cut(&changes, 4), [(0..256, 0), (256..512, 0), (512..1024, 1)]);
        // What joins it brings what else it waits for.
        changes[600] = change(601, &a, ">601=x");
        changes[801] = change(802, &a, "300=x>300=y");
        assert_eq!(cut(&changes, 4), [(0..256, 0), (256..512, 0), (512..1024, 2)]);
    }

    #[test]
    fn unique_keys_meet_too_and_their_nulls_do_not() {
        let plain = table("a", vec![0]);
        let a = Arc::new(Table { unique_keys: vec![vec![1]], ..(*plain).clone() });
        let mut changes: Vec<_> = (1..=768).map(|lsn| change(lsn, &a, &format!(">{lsn}=v{lsn}"))).collect();
        changes[600] = change(601, &a, ">601=v1");
        assert_eq!(cut(&changes, 3), [(0..256, 0), (256..512, 0), (512..768, 1)]);
        for index in [0, 600] {
            changes[index].after.as_mut().unwrap()[1] = Value::Null;
        }
        assert_eq!(cut(&changes, 3), [(0..256, 0), (256..512, 0), (512..768, 0)]);
    }

    #[test]
    fn transactions_stay_whole_and_keyless_tables_in_one_segment_after_another() {
        let a = table("a", vec![0]);
        let mut changes = inserts(&a, 1024);
        in_txn(&mut changes[200..700], "t");
        assert_eq!(cut(&changes, 4), [(0..700, 0), (700..956, 0), (956..1024, 0)]);
        // Its last row was left out.
        changes.remove(699);
        assert_eq!(cut(&changes, 4)[0], (0..699, 0));
        let keyless = table("k", vec![]);
        assert_eq!(cut(&inserts(&keyless, 1024), 4), [(0..1024, 0)]);
    }

    struct Target {
        server: MySql,
        sink: MySqlSink,
    }

    impl Target {
        async fn start(lanes: u32) -> Self {
            let server = MySql::start(MySqlOptions::default()).await.unwrap();
            let text = format!("{{from: shop, to: db, options: {{lanes: {lanes}}}}}");
            let config = serde_saphyr::from_str(&text).unwrap();
            let mut sink = MySqlSink::new("copy", &Secret::new(server.url()), false, &config).unwrap();
            Sink::open(&mut sink).await.unwrap();
            sink.follow(Standing { journal: 7, progress: Progress::default() });
            Self { server, sink }
        }

        async fn prepare(&mut self, tables: &[Arc<Table>]) {
            Sink::prepare(&mut self.sink, tables).await.unwrap();
        }

        async fn apply(&mut self, changes: &[OutChange]) -> Result<(), SinkError> {
            let up_to = behind(changes.last().unwrap());
            let (source, flow, changes) = ("shop".into(), "copy".into(), changes.to_vec());
            self.sink.apply(&SinkBatch { source, flow, changes, up_to, ends_txn: true, redrive: false }).await
        }

        async fn reached(&self) -> u64 {
            self.server.query_one("SELECT lsn FROM tidemill.tidemill_progress").await.unwrap()
        }

        async fn rows(&self, table: &str) -> Vec<(String, Option<String>)> {
            self.server.query(&format!("SELECT k, v FROM shop.{table} ORDER BY k, v")).await.unwrap()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_see_the_states_of_the_source_and_the_progress_that_goes_with_them() {
        let mut target = Target::start(4).await;
        let a = table("a", vec![0]);
        target.prepare(std::slice::from_ref(&a)).await;
        let mut reader = target.server.conn().await.unwrap();
        let (stop, mut stopped) = watch::channel(false);
        let reading = tokio::spawn(async move {
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let last = *stopped.borrow_and_update();
                let state: Option<(u64, Option<u64>, u64)> = reader
                    .query_first(
                        "SELECT COUNT(*), MAX(CAST(k AS UNSIGNED)), \
                         (SELECT COALESCE(MAX(lsn), 0) FROM tidemill.tidemill_progress) FROM shop.a",
                    )
                    .await
                    .unwrap();
                let (count, newest, lsn) = state.unwrap();
                assert_eq!((count, newest.unwrap_or(0)), (lsn, lsn));
                seen.insert(lsn);
                if last {
                    return seen;
                }
            }
        });
        let changes = inserts(&a, 40_000);
        for part in changes.chunks(4000) {
            target.apply(part).await.unwrap();
            assert_eq!(target.sink.lanes.conns.len(), 4);
        }
        stop.send(true).unwrap();
        let seen = reading.await.unwrap();
        assert!(seen.contains(&40_000) && seen.len() > 2, "{seen:?}");
    }

    #[tokio::test]
    async fn what_one_lane_refuses_ends_it_and_those_behind_it_and_the_change_is_named() {
        let mut target = Target::start(4).await;
        let a = table("a", vec![0]);
        target.prepare(std::slice::from_ref(&a)).await;
        let mut changes = inserts(&a, 4096);
        changes[2500] = change(2501, &a, ">a key that is too long=x");
        let refused = target.apply(&changes).await;
        assert!(matches!(refused, Err(SinkError::Row { lsn: 2501, .. })), "{refused:?}");
        assert_eq!(target.reached().await, 2048);
        assert!(target.sink.lanes.conns.is_empty());
        changes.remove(2500);
        target.apply(&changes).await.unwrap();
        assert_eq!(target.reached().await, 4096);
        assert_eq!(target.rows("a").await.len(), 4095);
    }

    #[tokio::test]
    async fn a_lane_that_waits_too_long_for_a_lock_gives_way_to_one_connection() {
        let mut target = Target::start(4).await;
        let a = table("a", vec![0]);
        target.prepare(std::slice::from_ref(&a)).await;
        // As another lane would, by a trigger of the target or a key that only the target has.
        let mut holder = target.server.conn().await.unwrap();
        for sql in ["BEGIN", "INSERT INTO shop.a VALUES ('1', 'held')"] {
            holder.query_drop(sql).await.unwrap();
        }
        let connections = "SELECT COUNT(*) FROM information_schema.processlist";
        let mut looker = target.server.conn().await.unwrap();
        let before: Option<u64> = looker.query_first(connections).await.unwrap();
        let let_go = async {
            // Lanes come; and when they have given up, the one connection waits for the lock.
            for lanes in [true, false] {
                loop {
                    let now: Option<u64> = looker.query_first(connections).await.unwrap();
                    if (now > before) == lanes {
                        break;
                    }
                }
            }
            holder.query_drop("ROLLBACK").await.unwrap();
        };
        let changes = inserts(&a, 4096);
        let both = async { tokio::join!(target.apply(&changes[..2048]), let_go) };
        let (applied, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        applied.unwrap();
        assert_eq!((target.sink.lanes.resting, target.sink.lanes.rest_next), (REST_MIN, 2 * REST_MIN));
        target.apply(&changes[2048..]).await.unwrap();
        assert_eq!(target.sink.lanes.resting, REST_MIN - 1);
        assert_eq!((target.rows("a").await.len(), target.reached().await), (4096, 4096));
    }

    #[tokio::test]
    async fn lanes_that_are_killed_are_replaced_and_nothing_is_twice() {
        let mut target = Target::start(4).await;
        let (a, keyless) = (table("a", vec![0]), table("k", vec![]));
        target.prepare(&[Arc::clone(&a), Arc::clone(&keyless)]).await;
        let changes = inserts(&a, 4096);
        target.apply(&changes[..2048]).await.unwrap();
        for id in target.sink.lanes.conns.iter().map(Conn::id).skip(1) {
            target.server.exec(&format!("KILL {id}")).await.unwrap();
        }
        let mut more = changes[2048..].to_vec();
        for (index, lsn) in (0..2048).step_by(10).zip(2049..) {
            more[index] = change(more[index].lsn, &keyless, &format!(">{lsn}=x"));
        }
        target.apply(&more).await.unwrap();
        assert_eq!((target.rows("a").await.len(), target.rows("k").await.len()), (4096 - 205, 205));
        assert_eq!(target.reached().await, 4096);
    }

    /// A source of changes as a busy server makes them: rows come, change, move and go, some of them soon again.
    struct Traffic {
        rng: TestRng,
        lsn: u64,
        /// Of each table: its rows by key, and the keys in some order.
        rows: Vec<HashMap<String, String>>,
        keys: Vec<Vec<String>>,
    }

    impl Traffic {
        fn below(&mut self, n: usize) -> usize {
            use proptest::prelude::Rng;
            (self.rng.next_u64() % n as u64) as usize
        }

        fn insert(&mut self, table: usize) -> String {
            let (key, value) = (self.lsn.to_string(), format!("v{}", self.lsn));
            self.rows[table].insert(key.clone(), value.clone());
            self.keys[table].push(key.clone());
            format!(">{key}={value}")
        }

        fn next(&mut self, tables: &[Arc<Table>], only_inserts: bool) -> OutChange {
            self.lsn += 1;
            // The table without a key is rare: it holds up everything.
            let table = if self.below(2000) == 0 { 2 } else { self.below(2) };
            let count = self.keys[table].len();
            let verb = if only_inserts || count == 0 { 3 } else { self.below(4) };
            let text = if verb == 3 {
                self.insert(table)
            } else {
                // Now and then one of the newest rows, otherwise any.
                let recent = self.below(500) == 0;
                let index = if recent { count - 1 - self.below(count.min(500)) } else { self.below(count) };
                let key = self.keys[table][index].clone();
                let before = self.rows[table].remove(&key).unwrap();
                // Keys that others had a moment ago.
                let moved = format!("m{}", self.lsn % 700);
                match verb {
                    0 => {
                        self.keys[table].swap_remove(index);
                        format!("{key}={before}>")
                    }
                    1 if !self.rows[table].contains_key(&moved) => {
                        self.keys[table][index] = moved.clone();
                        self.rows[table].insert(moved.clone(), before.clone());
                        format!("{key}={before}>{moved}={before}")
                    }
                    _ => {
                        let after = format!("v{}", self.lsn);
                        self.rows[table].insert(key.clone(), after.clone());
                        format!("{key}={before}>{key}={after}")
                    }
                }
            };
            change(self.lsn, &tables[table], &text)
        }
    }

    #[tokio::test]
    async fn random_traffic_ends_the_same_with_lanes_and_without() {
        let (mut with, mut without) = (Target::start(4).await, Target::start(1).await);
        let b = table("b", vec![0]);
        let b = Arc::new(Table { unique_keys: vec![vec![1]], ..(*b).clone() });
        let tables = [table("a", vec![0]), b, table("k", vec![])];
        for target in [&mut with, &mut without] {
            target.prepare(&tables).await;
        }
        // From a fixed seed.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut traffic = Traffic { rng, lsn: 0, rows: vec![HashMap::new(); 3], keys: vec![Vec::new(); 3] };
        let (mut in_lanes, mut joined) = (0, 0);
        for number in 0..60 {
            let (count, only_inserts) = if number < 20 { (4096, true) } else { (1024, false) };
            let mut changes: Vec<_> = (0..count).map(|_| traffic.next(&tables, only_inserts)).collect();
            for (number, part) in changes.chunks_mut(3).enumerate() {
                in_txn(part, &number.to_string());
            }
            let segments = cut(&changes, 4);
            if !only_inserts {
                in_lanes += segments.iter().filter(|(_, starts_after)| *starts_after > 0).count();
                joined += usize::from(segments.len() < 4);
            }
            with.apply(&changes).await.unwrap();
            without.apply(&changes).await.unwrap();
            assert_eq!(with.sink.lanes.resting, 0);
        }
        for ((table, rows), keys) in ["a", "b", "k"].into_iter().zip(&traffic.rows).zip(&traffic.keys) {
            let mut expected: Vec<_> = keys.iter().map(|k| (k.clone(), Some(rows[k].clone()))).collect();
            expected.sort();
            for target in [&with, &without] {
                let mut rows = target.rows(table).await;
                rows.sort();
                let differing = rows.iter().zip(&expected).find(|(one, other)| one != other);
                assert_eq!((rows.len(), differing), (expected.len(), None), "{table}");
            }
        }
        assert!(in_lanes > 0 && joined > 0 && without.sink.lanes.conns.is_empty(), "{in_lanes} {joined}");
    }
}
