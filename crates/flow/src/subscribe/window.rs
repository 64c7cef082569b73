//! The first rows of a shape in an order, as the server knows them: those that devices hold, and the next ones behind them.
//!
//! `inside` are the rows that devices hold: the first `limit`, or all there are. `spare` are those that come next, so that one takes
//! the place of a row that goes without a look at the mirror. Every row of the shape up to `bound` in the order is held; where that is
//! `None`, all are. While there is a bound, `inside` is full: a change that would take a row out of it and finds no spare one leaves the
//! window dry, which stays as it was before that change until it is filled again.
//!
//! All that devices are told is appended change by change, so that they have the first rows behind each.

use super::follow::{End, Follower, Taken};
use super::shape::{Effect, ShapeError, ShapePlan, values_of};
use super::wire::{self, Op};
use crate::mirror::key;
use base::row::MalformedRow;
use base::{Change, ValueRef};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Spare rows of a window: as many as it has rows, within these.
const SPARE_MIN: usize = 100;
const SPARE_MAX: usize = 1000;
/// Bytes that one window takes, spare rows and all.
pub const WINDOW_BYTES_MAX: usize = 64 << 20;
/// What a row costs besides its bytes, about.
const ROW_BYTES: usize = 160;
/// Bytes of rows in one response of a copy, about.
const BATCH_BYTES: usize = 64 << 10;

/// How many spare rows a window of `limit` rows keeps.
pub fn spare_rows(limit: usize) -> usize {
    limit.clamp(SPARE_MIN, SPARE_MAX)
}

/// A row, encoded.
#[derive(Debug, Clone)]
struct Held {
    /// The bytes of its key, as the mirror has them.
    key: Arc<[u8]>,
    /// What a PUT of it has, and what its end has.
    cells: Box<[u8]>,
    key_cells: Box<[u8]>,
    hash: u64,
}

impl Held {
    fn bytes(&self, place: &[u8]) -> usize {
        ROW_BYTES + place.len() + self.key.len() + self.cells.len() + self.key_cells.len()
    }
}

/// The bytes of a row's key, and encoded values.
type Key = Arc<[u8]>;
type Cells = Box<[u8]>;
type Rows = BTreeMap<Arc<[u8]>, Held>;

/// See above.
#[derive(Debug)]
pub struct Window {
    plan: Arc<ShapePlan>,
    /// All changes up to this one are in it; they are ignored when they come.
    pub lsn: u64,
    /// Whether that change ends a transaction.
    pub ends: bool,
    limit: usize,
    spare_max: usize,
    inside: Rows,
    spare: Rows,
    by_key: HashMap<Arc<[u8]>, Arc<[u8]>>,
    bound: Option<Arc<[u8]>>,
    bytes: usize,
    /// Of the rows inside.
    sum: u64,
    dry: bool,
    scratch: Vec<u8>,
}

/// Rows that others made room for, or took theirs.
#[derive(Default)]
struct Settled {
    /// Keys, and what their ends have.
    left: Vec<(Key, Cells)>,
    /// Places.
    entered: Vec<Arc<[u8]>>,
}

/// What a change of a row came to.
enum Moved {
    Nothing,
    Rows(Effect),
    Dry,
    TooLarge,
}

/// All rows inside, for who has none.
#[derive(Debug)]
pub struct WindowCopy {
    /// What it is the state of.
    pub lsn: u64,
    /// The number of the ring's first frame behind it.
    pub next: u64,
    pub rows: u64,
    pub checksum: u64,
    /// The bodies of batches, and how many rows each has.
    pub bodies: Vec<(u32, Vec<u8>)>,
}

impl Window {
    /// An empty one, over a plan that has an order; `None` for another.
    pub fn new(plan: Arc<ShapePlan>, lsn: u64, spare_max: usize) -> Option<Self> {
        let limit = plan.order.as_ref()?.limit;
        Some(Self {
            plan,
            lsn,
            ends: true,
            limit,
            spare_max,
            inside: Rows::new(),
            spare: Rows::new(),
            by_key: HashMap::new(),
            bound: None,
            bytes: 0,
            sum: 0,
            dry: false,
            scratch: Vec::new(),
        })
    }

    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// Whether it is to be filled before it runs dry.
    pub fn is_low(&self) -> bool {
        self.bound.is_some() && self.spare.len() <= self.spare_max / 4
    }

    /// Whether there are more rows than it holds.
    pub fn is_full(&self) -> bool {
        self.bound.is_some()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rows devices hold, and the sum of their hashes.
    pub fn totals(&self) -> (u64, u64) {
        (self.inside.len() as u64, self.sum)
    }

    /// Takes a row of the table in, while the window is made; false when it takes too many bytes.
    pub fn offer(&mut self, values: &[ValueRef<'_>]) -> bool {
        if self.plan.matches(values)
            && let Some(place) = self.place(values)
        {
            self.insert(place, values);
            self.settle();
        }
        self.bytes <= WINDOW_BYTES_MAX
    }

    fn place(&self, values: &[ValueRef<'_>]) -> Option<Arc<[u8]>> {
        let place: Arc<[u8]> = self.plan.order.as_ref()?.place(values).into();
        // What is behind the bound is not held, and is found when the window is filled again.
        self.bound.as_ref().is_none_or(|bound| place <= *bound).then_some(place)
    }

    fn key(&self, values: &[ValueRef<'_>]) -> Arc<[u8]> {
        let mut out = Vec::with_capacity(16);
        self.plan.key(values).for_each(|(value, _)| key::put(&mut out, value));
        out.into()
    }

    /// Puts a row where it belongs; [`Window::settle`] is to follow.
    fn insert(&mut self, place: Arc<[u8]>, values: &[ValueRef<'_>]) {
        let held = Held {
            key: self.key(values),
            cells: wire::encoded(self.plan.cells(values)),
            key_cells: wire::encoded(self.plan.key(values)),
            hash: self.plan.hash(&mut self.scratch, values),
        };
        self.bytes += held.bytes(&place);
        self.by_key.insert(Arc::clone(&held.key), Arc::clone(&place));
        let is_inside = match self.spare.first_key_value() {
            Some((first, _)) => place < *first,
            None => true,
        };
        if is_inside {
            self.enter(place, held);
        } else {
            self.spare.insert(place, held);
        }
    }

    fn enter(&mut self, place: Arc<[u8]>, held: Held) {
        self.sum = self.sum.wrapping_add(held.hash);
        self.inside.insert(place, held);
    }

    /// Takes a row out; says whether it was inside.
    fn remove(&mut self, key: &[u8]) -> Option<(Held, bool)> {
        let place = self.by_key.remove(key)?;
        let (held, was_inside) = match self.inside.remove(&place) {
            Some(held) => (held, true),
            None => (self.spare.remove(&place)?, false),
        };
        if was_inside {
            self.sum = self.sum.wrapping_sub(held.hash);
        }
        self.bytes -= held.bytes(&place);
        Some((held, was_inside))
    }

    /// Fills the inside from the spare rows, or moves what is too much there, and forgets what is too much of those.
    fn settle(&mut self) -> Settled {
        let mut moved = Settled::default();
        while self.inside.len() > self.limit
            && let Some((place, held)) = self.inside.pop_last()
        {
            self.sum = self.sum.wrapping_sub(held.hash);
            moved.left.push((Arc::clone(&held.key), held.key_cells.clone()));
            self.spare.insert(place, held);
        }
        while self.inside.len() < self.limit
            && let Some((place, held)) = self.spare.pop_first()
        {
            moved.entered.push(Arc::clone(&place));
            self.enter(place, held);
        }
        while (self.spare.len() > self.spare_max || self.bytes > WINDOW_BYTES_MAX)
            && let Some((place, held)) = self.spare.pop_last()
        {
            self.bytes -= held.bytes(&place);
            self.by_key.remove(&held.key);
            let last = self.spare.last_key_value().or_else(|| self.inside.last_key_value());
            self.bound = last.map(|(place, _)| Arc::clone(place));
        }
        moved
    }

    /// Takes the next change; appends what it is to devices. A window that runs dry takes nothing but ends until it is replaced.
    pub fn take(
        &mut self,
        follower: &mut Follower,
        change: &Change<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Taken, MalformedRow> {
        if change.lsn <= self.lsn {
            return Ok(Taken::Nothing);
        }
        match change.op {
            base::Op::Insert | base::Op::Update | base::Op::Delete | base::Op::Read => {}
            base::Op::Truncate | base::Op::Ddl => {
                let before = follower.version();
                return Ok(match follower.take(change, out)? {
                    Taken::Rows(Effect::Emptied) => Taken::Rows(self.empty()),
                    Taken::Nothing if follower.version() == before => Taken::Nothing,
                    // Rows are encoded by the definition that they had: it is made anew by the other one.
                    Taken::Nothing | Taken::Schema(_) | Taken::Rows(_) => Taken::End(End::Again),
                    ended => ended,
                });
            }
        }
        if change.epoch != follower.epoch() {
            return Ok(Taken::End(End::Epoch));
        }
        if change.table.id != follower.table {
            return Ok(Taken::Nothing);
        }
        if change.table.version != self.plan.table.version {
            return Ok(Taken::End(End::Again));
        }
        if self.dry {
            return Ok(Taken::Nothing);
        }
        Ok(match self.row(change, out)? {
            Moved::Nothing => Taken::Nothing,
            Moved::Rows(effect) => Taken::Rows(effect),
            Moved::Dry => {
                self.dry = true;
                Taken::Nothing
            }
            Moved::TooLarge => Taken::End(End::Broken(too_large())),
        })
    }

    fn empty(&mut self) -> Effect {
        let (rows, sum) = (self.inside.len() as i64, self.sum);
        self.inside.clear();
        self.spare.clear();
        self.by_key.clear();
        (self.bound, self.bytes, self.sum, self.dry) = (None, 0, 0, false);
        Effect::By { rows: -rows, sum: sum.wrapping_neg() }
    }

    fn row(&mut self, change: &Change<'_>, out: &mut Vec<u8>) -> Result<Moved, MalformedRow> {
        let before = change.before.map(values_of).transpose()?.map(|(values, _)| values);
        let after = change.after.map(values_of).transpose()?.map(|(values, _)| values);
        let keys = [&before, &after].map(|values| values.as_ref().map(|values| self.key(values)));
        let mut own: Vec<&Arc<[u8]>> = keys.iter().flatten().collect();
        own.dedup();
        let gone = own.iter().filter(|key| self.has_inside(key)).count();
        let spare = self.spare.len() - own.iter().filter(|key| self.is_spare(key)).count();
        if self.bound.is_some() && gone > spare {
            return Ok(Moved::Dry);
        }
        let (rows, sum) = (self.inside.len() as i64, self.sum);
        let removed: Vec<(Held, bool)> = own.iter().filter_map(|key| self.remove(key)).collect();
        if let Some(after) = after.as_ref().filter(|after| self.plan.matches(after))
            && let Some(place) = self.place(after)
        {
            self.insert(place, after);
        }
        let moved = self.settle();
        if self.bytes > WINDOW_BYTES_MAX {
            return Ok(Moved::TooLarge);
        }
        let start = out.len();
        let (lsn, ms) = (change.lsn, change.ts_ms);
        for (held, _) in
            removed.iter().filter(|(held, was_inside)| *was_inside && !self.has_inside(&held.key))
        {
            let stays = keys[1].as_ref().is_some_and(|key| *key == held.key);
            let op = if stays { Op::Leave } else { Op::Delete };
            wire::put_encoded_change(out, op, lsn, ms, &held.key_cells);
        }
        for (_, cells) in moved.left.iter().filter(|(key, _)| keys[1].as_ref() != Some(key)) {
            wire::put_encoded_change(out, Op::Leave, lsn, ms, cells);
        }
        let own = keys[1].iter().filter_map(|key| self.by_key.get(key));
        let is_own =
            |place: &Arc<[u8]>| keys[1].as_ref().is_some_and(|key| self.by_key.get(key) == Some(place));
        for place in own.chain(moved.entered.iter().filter(|place| !is_own(place))) {
            if let Some(held) = self.inside.get(place) {
                wire::put_encoded_change(out, Op::Put, lsn, ms, &held.cells);
            }
        }
        if out.len() == start {
            return Ok(Moved::Nothing);
        }
        let (rows, sum) = (self.inside.len() as i64 - rows, self.sum.wrapping_sub(sum));
        Ok(Moved::Rows(Effect::By { rows, sum }))
    }

    fn is_spare(&self, key: &[u8]) -> bool {
        self.by_key.get(key).is_some_and(|place| self.spare.contains_key(place))
    }

    fn has_inside(&self, key: &[u8]) -> bool {
        self.by_key.get(key).is_some_and(|place| self.inside.contains_key(place))
    }

    /// Becomes `other`, which is newer; appends what that is to devices.
    pub fn replace(&mut self, other: Self, out: &mut Vec<u8>) -> Option<Effect> {
        let (rows, sum) = (self.inside.len() as i64, self.sum);
        let old = std::mem::replace(self, other);
        let start = out.len();
        for held in old.inside.values().filter(|held| !self.has_inside(&held.key)) {
            wire::put_encoded_change(out, Op::Leave, self.lsn, 0, &held.key_cells);
        }
        let held_before: HashMap<&Arc<[u8]>, &Held> =
            old.inside.values().map(|held| (&held.key, held)).collect();
        for held in self.inside.values() {
            if held_before.get(&held.key).is_none_or(|before| before.cells != held.cells) {
                wire::put_encoded_change(out, Op::Put, self.lsn, 0, &held.cells);
            }
        }
        let effect = Effect::By { rows: self.inside.len() as i64 - rows, sum: self.sum.wrapping_sub(sum) };
        (out.len() > start).then_some(effect)
    }

    /// All rows inside, as of `lsn`.
    pub fn copy(&self, lsn: u64, next: u64) -> WindowCopy {
        let (mut bodies, mut body) = (Vec::new(), (0, Vec::new()));
        for held in self.inside.values() {
            body.0 += 1;
            // Its own last change may be older than the one by which it was told before.
            wire::put_encoded_change(&mut body.1, Op::Put, lsn, 0, &held.cells);
            if body.1.len() >= BATCH_BYTES {
                bodies.push(std::mem::take(&mut body));
            }
        }
        if body.0 > 0 {
            bodies.push(body);
        }
        let (rows, checksum) = self.totals();
        WindowCopy { lsn, next, rows, checksum, bodies }
    }
}

/// Why a window is not followed.
pub fn too_large() -> ShapeError {
    ShapeError {
        message: format!("the rows of the window take more than {} MiB", WINDOW_BYTES_MAX >> 20),
        hint: "ask for fewer rows, or for fewer columns".into(),
    }
}
