//! Thousands of seeded histories against a plain model: whatever is written, rolled, aborted or pruned, and wherever the
//! power is cut, a reader sees a prefix of what was committed, and all of what was sealed.
//!
//! A failure prints its seed; `TIDEMILL_SEED=<seed>` runs that history alone.

#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

mod support;

use base::{Op, Position, SnapshotProgress, Step, Table, TableSnapshot};
use journal::sim::{Rng, SimDisk};
use journal::{Batch, Journal, JournalError, Options, Reader, Retention, State, Writer, open};
use std::path::Path;
use std::sync::Arc;
use support::{image, read_all, row, show, table};

const DIR: &str = "/journal";

/// What the journal should be after each commit.
struct Model {
    /// Every line of every commit.
    lines: Vec<String>,
    /// How many of the lines, and which state, hold after each commit; the first is the empty journal.
    commits: Vec<(usize, State)>,
    /// Commits that must survive.
    sealed: usize,
    /// What an open transaction adds.
    open_lines: Vec<String>,
    open_state: State,
    open_txn: Option<(String, i64)>,
}

struct Run {
    rng: Rng,
    disk: SimDisk,
    model: Model,
    writer: Writer,
    journal: Journal,
    reader: Reader,
    /// What the reader has seen since it began, and the first lsn of it.
    seen: Vec<String>,
    seen_from: u64,
}

impl Model {
    fn new() -> Self {
        let state = State::default();
        Self {
            lines: Vec::new(),
            commits: vec![(0, state.clone())],
            sealed: 0,
            open_lines: Vec::new(),
            open_state: state,
            open_txn: None,
        }
    }

    fn committed(&self) -> &State {
        &self.commits.last().unwrap().1
    }

    fn drop_open(&mut self) {
        self.open_lines.clear();
        self.open_state = self.committed().clone();
        self.open_txn = None;
    }

    fn keep_commits(&mut self, count: usize) {
        self.commits.truncate(count + 1);
        self.lines.truncate(self.commits[count].0);
        self.drop_open();
    }

    fn commit(&mut self, step: &Step) {
        // Only the last change of a transaction is marked as such.
        if let Some(last) = self.open_lines.last_mut() {
            *last = last.replacen("?\"", "!\"", 1);
        }
        self.lines.extend(self.open_lines.drain(..).map(|l| l.replacen("?\"", "\"", 1)));
        self.open_state.next_lsn = self.lines.len() as u64 + 1;
        match (&mut self.open_state.position, step) {
            (position, Step::Full(full)) => *position = Some((**full).clone()),
            (Some(position), step) => position.advance(step),
            (None, _) => {}
        }
        self.open_txn = None;
        self.commits.push((self.lines.len(), self.open_state.clone()));
    }
}

fn options(rng: &mut Rng) -> Options {
    Options { segment_bytes: 4096 + rng.below(8192), identity: Some(0) }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let (writer, journal) = open(Arc::new(disk.clone()), Path::new(DIR), options(&mut rng)).unwrap();
        let reader = journal.reader(1).unwrap();
        let model = Model::new();
        Self { rng, disk, model, writer, journal, reader, seen: Vec::new(), seen_from: 1 }
    }

    /// One step of the history; errors are checked by the caller.
    fn act(&mut self) -> Result<(), JournalError> {
        let result = self.step();
        // A new segment seals the one before without being asked.
        let sealed = self.journal.state();
        let model = &mut self.model;
        let found = (model.sealed..model.commits.len()).find(|&k| model.commits[k].1 == sealed);
        model.sealed = found.expect("what is sealed was committed");
        result
    }

    fn step(&mut self) -> Result<(), JournalError> {
        match self.rng.below(12) {
            0..6 => {
                let batch = self.batch();
                self.writer.append(batch)
            }
            6..9 => {
                let commits = self.model.commits.len() - 1;
                let lsn = self.writer.seal()?;
                assert_eq!(lsn, self.model.lines.len() as u64);
                self.model.sealed = commits;
                assert_eq!(&self.journal.state(), self.model.committed());
                Ok(())
            }
            9 => {
                self.writer.abort()?;
                self.model.drop_open();
                Ok(())
            }
            10 => {
                let bytes_max = [1, 100, 3000, 1 << 20][self.rng.below(4) as usize];
                match self.reader.next(bytes_max) {
                    Ok(Some(chunk)) => self.seen.extend(show(&chunk)?),
                    Ok(None) => {}
                    Err(JournalError::Pruned { .. }) => self.new_reader()?,
                    Err(error) => return Err(error),
                }
                Ok(())
            }
            _ => {
                let keep = self.rng.below(self.journal.sealed().lsn + 2);
                let retention = Retention { bytes_max: Some(20_000), since_ts_ms: None };
                self.journal.prune(keep, retention).map(drop)
            }
        }
    }

    fn new_reader(&mut self) -> Result<(), JournalError> {
        let first = self.journal.first_lsn();
        self.seen_from = first + self.rng.below(self.journal.sealed().lsn + 1 - (first - 1));
        self.seen.clear();
        self.reader = self.journal.reader(self.seen_from)?;
        Ok(())
    }

    /// A batch of a few commits, the last perhaps open; told to the model as if it were appended.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch::reuse(self.writer.spare().unwrap_or_default(), self.writer.next_lsn());
        for _ in 0..=self.rng.below(4) {
            self.transaction(&mut batch);
            if self.model.open_txn.is_some() {
                break;
            }
        }
        batch
    }

    fn transaction(&mut self, batch: &mut Batch) {
        let model = &mut self.model;
        let rng = &mut self.rng;
        if model.open_state.position.is_none() {
            let position = Position::MySql { server: "s".into(), gtids: None, file: "b.1".into(), pos: 4 };
            let step = Step::Full(Box::new(position));
            batch.commit(&step);
            model.commit(&step);
        }
        if model.open_txn.is_none() {
            if rng.one_in(10) {
                model.open_state.epoch += 1;
                batch.epoch(model.open_state.epoch, "test");
            }
            let snapshot = rng.one_in(4);
            let id = if snapshot { String::new() } else { format!("gtid:{}", rng.below(1000)) };
            let ts_ms = rng.below(1_000_000) as i64;
            batch.begin(&id, ts_ms);
            model.open_txn = Some((id, ts_ms));
        }
        for _ in 0..rng.below(6) {
            if rng.one_in(8) {
                drop_or_know_table(rng, batch, &mut model.open_state);
            }
            put_change(rng, batch, model);
        }
        if rng.one_in(6) {
            let rows = rng.below(1000);
            let progress = TableSnapshot { rows, ..TableSnapshot::default() };
            model.open_state.snapshot =
                SnapshotProgress { tables: [("shop.t1".to_owned(), progress)].into_iter().collect() };
            batch.snapshot(&model.open_state.snapshot);
        }
        if !rng.one_in(6) {
            let step = if rng.one_in(3) {
                Step::Stay
            } else {
                Step::MySql { gtid: None, file: None, pos: rng.below(1 << 40) }
            };
            batch.commit(&step);
            model.commit(&step);
        }
    }

    /// Reopens after a crash or an ended process and compares with the model.
    fn reopen(&mut self) {
        loop {
            // Recovery is cut short now and then, too.
            if self.rng.one_in(4) {
                let ahead = self.rng.below(6);
                self.disk.crash_after(ahead);
            }
            match open(Arc::new(self.disk.clone()), Path::new(DIR), options(&mut self.rng)) {
                Ok((writer, journal)) => {
                    self.writer = writer;
                    self.journal = journal;
                    break;
                }
                Err(error) => {
                    assert!(self.disk.crashed(), "recovery failed: {error}");
                    self.disk.restart();
                }
            }
        }
        if self.disk.crashed() {
            // The seal that recovery writes met the crash; what is read from now on fails.
            self.disk.restart();
            return self.reopen();
        }
        self.disk.crash_after(u64::MAX >> 1);
        let first = self.journal.first_lsn();
        let lines = read_all(&self.journal, first, 4096).unwrap();
        let state = self.writer.state().clone();
        let until = state.next_lsn as usize - 1;
        assert_eq!(lines, self.model.lines[first as usize - 1..until], "the changes are a prefix");
        let found = (self.model.sealed..self.model.commits.len())
            .rfind(|&k| self.model.commits[k].1 == state && self.model.commits[k].0 == until);
        let Some(found) = found else {
            panic!("the state {state:?} is of no commit from the sealed {} on", self.model.sealed)
        };
        self.check_seen();
        self.model.keep_commits(found);
        self.model.sealed = found;
        self.new_reader().unwrap();
    }

    /// What a reader saw before is what is there now.
    fn check_seen(&self) {
        let start = self.seen_from as usize - 1;
        let seen = &self.seen[..];
        let sealed = self.model.commits[self.model.sealed].0;
        assert!(seen.is_empty() || start + seen.len() <= sealed, "a reader saw what was not sealed");
        if !seen.is_empty() {
            assert_eq!(seen, &self.model.lines[start..start + seen.len()], "a reader saw something else");
        }
    }
}

fn drop_or_know_table(rng: &mut Rng, batch: &mut Batch, state: &mut State) {
    let id = rng.below(3) as u32 + 1;
    match state.tables.get(&id) {
        Some(_) if rng.one_in(3) => {
            state.tables.remove(&id);
            batch.drop_table(id);
        }
        known => {
            let table = table(id, known.map_or(1, |t| t.version % 5 + 1));
            batch.schema(&table);
            state.tables.insert(id, table);
        }
    }
}

fn put_change(rng: &mut Rng, batch: &mut Batch, model: &mut Model) {
    let id = rng.below(3) as u32 + 1;
    let table = match model.open_state.tables.get(&id) {
        Some(table) => table.clone(),
        None => {
            let table = table(id, 1);
            batch.schema(&table);
            model.open_state.tables.insert(id, table.clone());
            table
        }
    };
    let random = |rng: &mut Rng| row(rng.below(50) as i64, &"x".repeat(rng.below(200) as usize)).0;
    let (before, after) = (random(rng), random(rng));
    let (op, before, after) = match rng.below(5) {
        0 => (Op::Insert, None, Some(after)),
        1 => (Op::Update, Some(before), Some(after)),
        2 => (Op::Delete, Some(before), None),
        3 => (Op::Truncate, None, None),
        _ => (Op::Read, None, Some(after)),
    };
    if rng.one_in(20) {
        batch.start_change(op, table.id, table.version, false, true).push(7);
        batch.cancel_change();
    }
    let lsn = batch.change(op, &table, before.as_deref(), after.as_deref());
    assert_eq!(lsn as usize, model.lines.len() + model.open_lines.len() + 1);
    model.open_lines.push(line(model, lsn, op, &table, before, after));
}

/// A change as `support::show` prints it, with `?` where the mark of the last change goes.
fn line(
    model: &Model,
    lsn: u64,
    op: Op,
    table: &Table,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
) -> String {
    let (id, ts_ms) = model.open_txn.as_ref().unwrap();
    let txn = (!id.is_empty()).then(|| format!("{id}#{}?", model.open_lines.len()));
    let (epoch, op, name) = (model.open_state.epoch, op.name(), &table.name);
    let (before, after) = (before.map(|b| image(&b)), after.map(|a| image(&a)));
    let (table_id, version, ddl) = (table.id, table.version, None::<String>);
    format!("{epoch}/{lsn} {op} {name}:{table_id}v{version} {ts_ms} {txn:?} {before:?} {after:?} {ddl:?}")
}

fn history(seed: u64) {
    let mut run = Run::new(seed);
    for _ in 0..3 {
        match run.rng.below(8) {
            0 => run.disk.set_capacity(Some(run.rng.below(40_000))),
            1 => run.disk.fail_syncs(1),
            _ => {}
        }
        let ahead = run.rng.below(60);
        run.disk.crash_after(ahead);
        for _ in 0..80 {
            let before = (run.model.commits.len() - 1, run.disk.operations());
            let Err(error) = run.act() else { continue };
            if run.disk.crashed() {
                break;
            }
            let full = matches!(&error, JournalError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
            if !full {
                assert!(matches!(error, JournalError::Io { .. }), "{error}");
                assert!(matches!(run.writer.seal(), Err(JournalError::Poisoned { .. })), "{error}");
                break;
            }
            run.disk.set_capacity(None);
            if run.writer.abort().is_err() {
                break;
            }
            run.model.keep_commits(before.0);
        }
        if run.disk.crashed() || run.rng.one_in(2) {
            run.disk.restart();
        } else {
            run.disk.end_process();
        }
        run.disk.set_capacity(None);
        run.disk.fail_syncs(0);
        run.reopen();
    }
}

/// Runs each seed, or the one that the environment names; prints the seed of a failure.
fn for_seeds(count: u64, test: impl Fn(u64)) {
    let one = std::env::var("TIDEMILL_SEED").ok().and_then(|s| s.parse().ok());
    let seeds = one.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(seed)));
        if let Err(panic) = result {
            eprintln!("failed with TIDEMILL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn after_any_crash_a_reader_sees_a_prefix_with_all_that_was_sealed() {
    for_seeds(2000, history);
}

#[test]
fn a_crash_at_each_operation_of_a_history_loses_nothing_sealed() {
    for_seeds(6, |seed| {
        let mut ahead = 0;
        loop {
            let mut run = Run::new(seed);
            run.disk.crash_after(ahead);
            let mut steps = 0;
            while steps < 120 && run.act().is_ok() {
                steps += 1;
            }
            let crashed = run.disk.crashed();
            run.disk.restart();
            run.reopen();
            if !crashed {
                break;
            }
            ahead += 1;
        }
        assert!(ahead > 50, "the history has {ahead} operations");
    });
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out_or_leaves_a_prefix() {
    for_seeds(500, |seed| {
        let mut run = Run::new(seed);
        run.disk.set_lying(true);
        let ahead = run.rng.below(100);
        run.disk.crash_after(ahead);
        while run.act().is_ok() {}
        run.disk.restart();
        run.disk.set_lying(false);
        let options = Options { identity: Some(0), ..Options::default() };
        let Ok((writer, journal)) = open(Arc::new(run.disk.clone()), Path::new(DIR), options) else {
            return;
        };
        let state = writer.state().clone();
        assert!(run.model.commits.iter().any(|c| c.1 == state), "the state {state:?} is of no commit");
        let first = journal.first_lsn();
        if let Ok(lines) = read_all(&journal, first, 4096) {
            assert_eq!(lines, run.model.lines[first as usize - 1..state.next_lsn as usize - 1]);
        }
    });
}
