//! What a copy lacks, sent until it can be followed in the ring of its shape: the rest of a snapshot, the latest images of what changed, the
//! changes themselves. Runs on a thread that may block, a few at once; what is sent waits for the client.

use super::follow::{End, Follower, Taken};
use super::hub::{Attached, Hub};
use super::shape::{Effect, Shape, ShapeError, ShapePlan, values_of};
use super::token::{Phase, Token};
use super::window_build;
use super::window_catch_up::Copying;
use super::wire::{self, Event, Mode, Op, ResetReason};
use crate::mirror::Reached;
use crate::mirror::read::{MirrorReader, Mirrored, ReadError};
use base::{RowView, Table, ValueRef};
use bytes::Bytes;
use journal::JournalError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Responses that wait for a client while it catches up.
const SENT_MAX: usize = 2;
/// Bytes of changes in one of them, about.
const BATCH_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long lets others catch up meanwhile.
const SLOW_AFTER: Duration = Duration::from_millis(100);
/// Sorts behind every key: these begin with smaller bytes.
const BEHIND_ALL_KEYS: [u8; 1] = [0xff];
/// Rows of one page of a snapshot or of net changes.
const PAGE_ROWS: usize = 2000;
/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Who lacks more changes than this is sent the latest images instead, where these are fewer than half of that.
const NET_FROM: u64 = 20_000;
/// A checksum is left out when the mirror does not come to where it would be of in this time.
const MIRROR_WAIT_MAX: Duration = Duration::from_secs(2);

/// A response on its way to one client.
pub struct Sent {
    pub bytes: Bytes,
    pub is_batch: bool,
    /// Changes of rows in it.
    pub changes: u32,
    /// Given back when the transport has taken it.
    _room: Option<OwnedSemaphorePermit>,
}

impl Sent {
    /// One that waits for nobody.
    pub fn at_once(bytes: Bytes, is_batch: bool) -> Self {
        Self { bytes, is_batch, changes: 0, _room: None }
    }
}

/// What the thread hands over, in order.
pub enum Item {
    Sent(Sent),
    /// Nothing comes behind it, until the work is gone on with.
    Came(Outcome),
}

/// How it ended.
pub enum Outcome {
    /// The ring of the shape has what comes next.
    Attached(Attached),
    /// The mirror is not as far; to be gone on with when it has moved.
    Wait(Box<CatchUp>),
    /// The client does not read: to be gone on with when it has.
    Slow(Box<CatchUp>),
    /// The client went away, or the node ends.
    Gone,
    Refused(Refusal),
}

/// Why a stream ends, by the status that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The source, or the table, is not there.
    NotFound(ShapeError),
    /// The request can never be answered.
    Invalid(ShapeError),
    /// It can, when somebody does something about it.
    Precondition(ShapeError),
    /// It can, later.
    Unavailable(ShapeError),
    /// As many are served as may be.
    Exhausted(ShapeError),
}

/// What one client still lacks.
pub struct CatchUp {
    pub(super) hub: Arc<Hub>,
    pub(super) shape: Arc<Shape>,
    pub(super) mirror: MirrorReader,
    /// Bounded by `room`, but for what follows the first response that finds none.
    pub(super) sender: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    /// Somebody else may go on here: the client has not taken anything for a while.
    pub(super) slow: bool,
    subscription: u64,
    /// Where the copy stands; `None` before a snapshot has begun.
    pub(super) place: Option<Place>,
    /// The first response, once.
    ready: bool,
    /// Where net changes are gone on with, behind a row that has its lsn in common with others.
    net: Option<(u64, Vec<u8>)>,
    /// The mirror as it was before the last look.
    pub(super) seen: watch::Receiver<Reached>,
    /// Changes in the batch that is sent next.
    pub(super) changes: u32,
    /// A window on its way.
    pub(super) copying: Option<Copying>,
    /// How many times more spare rows than usual a window that is made has.
    pub(super) spare_times: usize,
}

pub(super) struct Place {
    pub epoch: u32,
    pub table: u32,
    pub schema: u32,
    pub lsn: u64,
    pub until: u64,
    pub phase: Phase,
    /// By the definition `schema`, where it is known and was told.
    pub plan: Option<Arc<ShapePlan>>,
}

/// Why the work stops.
pub(super) enum Stop {
    Gone,
    Wait,
    Slow,
    Refused(Refusal),
    Again(ResetReason, String),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Ended => Self::Gone,
            error => Self::Refused(Refusal::Unavailable(ShapeError {
                message: base::error::chain(&error),
                hint: "see the mirror in `tidemill status`".into(),
            })),
        }
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Refused(Refusal::Unavailable(ShapeError {
            message: base::error::chain(&error),
            hint: "see `tidemill status`".into(),
        }))
    }
}

impl From<base::row::MalformedRow> for Stop {
    fn from(error: base::row::MalformedRow) -> Self {
        Self::Refused(Refusal::Unavailable(ShapeError {
            message: error.to_string(),
            hint: "see `tidemill status`".into(),
        }))
    }
}

impl CatchUp {
    /// For a client that comes with a token, or without.
    pub fn begin(
        hub: Arc<Hub>,
        shape: Arc<Shape>,
        token: &[u8],
        subscription: u64,
        sender: mpsc::UnboundedSender<Item>,
    ) -> Result<(Self, Option<(ResetReason, String)>), Refusal> {
        let Some(mirror) = hub.mirror.clone() else {
            return Err(Refusal::Precondition(ShapeError {
                message: format!("source `{}` keeps no mirror", hub.source),
                hint: format!("write into the source's file: mirror: [{}]", shape.spec.table),
            }));
        };
        let mut own = Self {
            seen: mirror.watch(),
            mirror: MirrorReader::new(mirror),
            hub,
            shape,
            sender,
            room: Arc::new(Semaphore::new(SENT_MAX)),
            slow: false,
            subscription,
            place: None,
            ready: false,
            net: None,
            changes: 0,
            copying: None,
            spare_times: 1,
        };
        let reset = if token.is_empty() { None } else { own.place_of(token).err() };
        Ok((own, reset))
    }

    /// The stream has begun before.
    pub fn was_ready(&mut self) {
        self.ready = true;
    }

    /// Waits until the mirror has moved since the last look.
    pub async fn moved_on(&mut self) {
        let _ = self.seen.changed().await;
    }

    /// Sends what is lacking, and then how it ended.
    pub fn work(self, reset: Option<(ResetReason, String)>, permit: OwnedSemaphorePermit) {
        let sender = self.sender.clone();
        let outcome = self.run(reset);
        drop(permit);
        let _ = sender.send(Item::Came(outcome));
    }

    fn place_of(&mut self, bytes: &[u8]) -> Result<(), (ResetReason, String)> {
        // A device may come with what it was given over HTTP.
        let offset = || std::str::from_utf8(bytes).ok().and_then(Token::from_offset);
        let token = Token::decode(bytes)
            .or_else(offset)
            .ok_or((ResetReason::Token, "the token is damaged, or of another version".to_owned()))?;
        let sealed = self.hub.journal.sealed();
        if token.shape != self.shape.hash {
            return Err((ResetReason::Shape, "the token is of another shape".to_owned()));
        }
        if token.journal != self.hub.journal.identity() {
            return Err((ResetReason::Journal, "the source's journal began anew".to_owned()));
        }
        if token.epoch != sealed.epoch {
            let detail = format!("the token is of epoch {}, and this is {}", token.epoch, sealed.epoch);
            return Err((ResetReason::Epoch, detail));
        }
        if token.lsn > sealed.lsn || token.until > sealed.lsn {
            let detail =
                format!("the token is of change {}, and the journal ends at {}", token.lsn, sealed.lsn);
            return Err((ResetReason::Future, detail));
        }
        let Token { epoch, table, schema, lsn, until, phase, .. } = token;
        self.place = Some(Place { epoch, table, schema, lsn, until, phase, plan: None });
        Ok(())
    }

    fn run(mut self, reset: Option<(ResetReason, String)>) -> Outcome {
        let mut reset = reset;
        self.slow = false;
        loop {
            if let Some((reason, detail)) = reset.take() {
                self.hub.stats.reset(reason);
                (self.place, self.net, self.copying) = (None, None, None);
                let lsn = self.hub.journal.sealed().lsn;
                if self.ready(Mode::Snapshot, 0).is_err()
                    || self
                        .send(wire::response(&[], lsn, &Event::Reset { reason, detail: &detail }), false)
                        .is_err()
                {
                    return Outcome::Gone;
                }
            }
            let stop = match self.step() {
                Ok(Some(attached)) => return Outcome::Attached(attached),
                Ok(None) if self.slow => Stop::Slow,
                Ok(None) => continue,
                Err(stop) => stop,
            };
            // A look that is left open keeps the file's log from being emptied.
            let _ = self.mirror.end();
            match stop {
                Stop::Gone => return Outcome::Gone,
                Stop::Wait => return Outcome::Wait(Box::new(self)),
                Stop::Slow => return Outcome::Slow(Box::new(self)),
                Stop::Refused(refusal) => return Outcome::Refused(refusal),
                Stop::Again(reason, detail) => reset = Some((reason, detail)),
            }
        }
    }

    fn step(&mut self) -> Result<Option<Attached>, Stop> {
        if self.shape.spec.window.is_some() {
            return self.window();
        }
        match &self.place {
            None => self.begin_snapshot().map(|()| None),
            Some(place) => match place.phase {
                Phase::Snapshot { .. } => self.page().map(|()| None),
                Phase::NetChanges => self.net_changes().map(|()| None),
                Phase::Tail { .. } => self.tail(),
            },
        }
    }

    pub(super) fn send(&mut self, bytes: Bytes, is_batch: bool) -> Result<(), Stop> {
        if *self.hub.shutdown().borrow() {
            return Err(Stop::Gone);
        }
        let room = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) => Some(room),
            Err(_) => self.wait_for_room(),
        };
        // Without room it is sent nevertheless, and is the last but for what belongs to it: the work stops at its next step.
        self.slow |= room.is_none();
        let changes = if is_batch { std::mem::take(&mut self.changes) } else { 0 };
        self.sender.send(Item::Sent(Sent { bytes, is_batch, changes, _room: room })).map_err(|_| Stop::Gone)
    }

    /// Room for a response, if the client takes one soon.
    fn wait_for_room(&self) -> Option<OwnedSemaphorePermit> {
        let mut shutdown = self.hub.shutdown();
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                room = Arc::clone(&self.room).acquire_owned() => room.ok(),
                () = self.sender.closed() => None,
                _ = shutdown.wait_for(|stop| *stop) => None,
                () = tokio::time::sleep(SLOW_AFTER) => None,
            }
        })
    }

    pub(super) fn ready(&mut self, mode: Mode, rows: u64) -> Result<(), Stop> {
        if std::mem::replace(&mut self.ready, true) {
            return Ok(());
        }
        let lsn = self.place.as_ref().map_or(0, |place| place.lsn);
        // How many rows there are besides is nobody's business who may not see them.
        let rows = if self.shape.is_enforced() { 0 } else { rows };
        let event = Event::Ready { subscription: self.subscription, mode, rows };
        self.send(wire::response(&[], lsn, &event), false)
    }

    pub(super) fn token(&self) -> Vec<u8> {
        let Some(place) = &self.place else { return Vec::new() };
        let Place { epoch, table, schema, lsn, until, ref phase, .. } = *place;
        let (journal, shape) = (self.hub.journal.identity(), self.shape.hash);
        Token { journal, epoch, shape, table, schema, lsn, until, phase: phase.clone() }.encode()
    }

    /// A look at the table as the mirror has it; `Wait` where that is not whole.
    fn look(&mut self, lsn: u64) -> Result<Mirrored, Stop> {
        self.seen.borrow_and_update();
        window_build::look(&self.hub, &mut self.mirror, &self.shape, lsn)
    }

    pub(super) fn plan(&self, table: &Arc<Table>) -> Result<Arc<ShapePlan>, Stop> {
        let plan = self.shape.plan(table).map_err(|error| Stop::Refused(Refusal::Precondition(error)))?;
        Ok(Arc::new(plan))
    }

    fn begin_snapshot(&mut self) -> Result<(), Stop> {
        let table = self.look(0)?;
        let (lsn, rows) = (self.mirror.lsn()?, self.mirror.count(&table)?);
        let plan = self.plan(&table.table)?;
        self.mirror.end()?;
        self.place = Some(Place {
            epoch: self.hub.journal.sealed().epoch,
            table: table.id,
            schema: table.table.version,
            lsn,
            until: lsn,
            phase: Phase::Snapshot { cursor: Vec::new() },
            plan: Some(Arc::clone(&plan)),
        });
        self.ready(Mode::Snapshot, rows)?;
        self.send(wire::response(&[], lsn, &Event::Schema(&plan.schema)), false)
    }

    /// The table in a look, if it is the one that the copy is of, in the same definition.
    fn same_table(&mut self, lsn: u64) -> Result<Mirrored, Stop> {
        let table = self.look(lsn)?;
        let Some(place) = &self.place else { return Err(Stop::Gone) };
        if table.id != place.table {
            return Err(Stop::Again(ResetReason::Table, "the table was made anew".into()));
        }
        if table.table.version != place.schema {
            return Err(Stop::Again(ResetReason::Schema, "the table's definition has changed".into()));
        }
        Ok(table)
    }

    /// Tells the columns where a client came with a token.
    fn told(&mut self, table: &Arc<Table>, mode: Mode, rows: u64) -> Result<Arc<ShapePlan>, Stop> {
        if let Some(plan) = self.place.as_ref().and_then(|place| place.plan.clone()) {
            return Ok(plan);
        }
        let plan = self.plan(table)?;
        self.ready(mode, rows)?;
        let lsn = self.place.as_ref().map_or(0, |place| place.lsn);
        self.send(wire::response(&[], lsn, &Event::Schema(&plan.schema)), false)?;
        if let Some(place) = &mut self.place {
            place.plan = Some(Arc::clone(&plan));
        }
        Ok(plan)
    }

    /// One page of a snapshot.
    fn page(&mut self) -> Result<(), Stop> {
        let table = self.same_table(0)?;
        let (lsn, rows) = (self.mirror.lsn()?, self.mirror.count(&table)?);
        let plan = self.told(&table.table, Mode::Snapshot, rows)?;
        let cursor = match self.place.as_ref().map(|place| &place.phase) {
            Some(Phase::Snapshot { cursor }) => cursor.clone(),
            _ => return Ok(()),
        };
        let (rows, more) = self.mirror.page_within(&table, &cursor, PAGE_ROWS, BATCH_BYTES)?;
        self.mirror.end()?;
        let mut body = Vec::new();
        for row in &rows {
            with_values(&plan.table, &row.table, row.view(), |values| {
                if plan.matches(values) {
                    plan.put(&mut body, row.lsn, 0, values);
                    self.changes += 1;
                }
            })?;
        }
        let Some(place) = &mut self.place else { return Ok(()) };
        place.until = place.until.max(lsn);
        place.phase = match rows.last() {
            Some(last) if more => Phase::Snapshot { cursor: last.key.clone() },
            _ => Phase::Tail { owes_end: true },
        };
        let at = place.lsn;
        let token = self.token();
        self.send(wire::batch(&token, at, &body, false), true)
    }

    /// The latest images of all that changed behind the copy's place.
    fn net_changes(&mut self) -> Result<(), Stop> {
        let Some(place) = &self.place else { return Ok(()) };
        let first = place.lsn;
        if self.shape.is_enforced() {
            let detail = "what left the shape meanwhile may not be told".to_owned();
            return Err(Stop::Again(ResetReason::Compacted, detail));
        }
        let (mut at, mut key) = self.net.take().unwrap_or((first, BEHIND_ALL_KEYS.to_vec()));
        let mut is_first = true;
        loop {
            let table = self.same_table(first)?;
            if self.mirror.knows_gone_from(&table)? > at + 1 {
                return Err(Stop::Again(ResetReason::Compacted, compacted(at)));
            }
            let lsn = self.mirror.lsn()?;
            if std::mem::take(&mut is_first) {
                self.told(&table.table, Mode::NetChanges, 0)?;
            }
            let plan = self.told(&table.table, Mode::NetChanges, 0)?;
            let (rows, more) = self.mirror.changed_within(&table, (at, &key), PAGE_ROWS, BATCH_BYTES)?;
            self.mirror.end()?;
            let mut body = Vec::new();
            self.changes = rows.len() as u32;
            for (row, gone) in &rows {
                with_values(&plan.table, &row.table, row.view(), |values| match gone {
                    true => plan.put_end(&mut body, Op::Delete, row.lsn, 0, values),
                    false if plan.matches(values) => plan.put(&mut body, row.lsn, 0, values),
                    false => plan.put_end(&mut body, Op::Leave, row.lsn, 0, values),
                })?;
            }
            let Some(place) = &mut self.place else { return Ok(()) };
            match rows.last() {
                Some((last, _)) if more => {
                    (at, key) = (last.lsn, last.key.clone());
                    // Rows that ended together have one lsn: those behind the last one come again.
                    (place.lsn, place.until) = (at - 1, lsn);
                }
                _ => (place.lsn, place.until, place.phase) = (lsn, lsn, Phase::Tail { owes_end: true }),
            }
            let (token, is_last) = (self.token(), !more);
            let stands = self.place.as_ref().map_or(0, |place| place.lsn);
            self.send(wire::batch(&token, stands, &body, is_last), true)?;
            if is_last {
                return Ok(());
            }
            if self.slow {
                self.net = Some((at, key));
                return Ok(());
            }
        }
    }

    /// The changes themselves, up to where the ring goes on.
    fn tail(&mut self) -> Result<Option<Attached>, Stop> {
        let Some(place) = &self.place else { return Ok(None) };
        let (table, until) = (place.table, place.until);
        let owes_end = place.phase == Phase::Tail { owes_end: true };
        let state = self.hub.journal.state();
        let Some(now) = state.tables.get(&table).cloned() else {
            let name = &self.shape.spec.table;
            let by_name = state.tables.values().any(|table| table.name == *name);
            return Err(match by_name {
                true => Stop::Again(ResetReason::Table, "the table was made anew".into()),
                false => Stop::Refused(Refusal::NotFound(ShapeError {
                    message: format!("table `{name}` was dropped"),
                    hint: "follow a table that exists".into(),
                })),
            });
        };
        let compacted = place.lsn + 1 < self.hub.journal.first_lsn();
        if compacted || self.prefers_net_changes(&now)? {
            if let Some(place) = &mut self.place {
                place.phase = Phase::NetChanges;
            }
            return Ok(None);
        }
        let plan = self.plan(&now)?;
        if self.place.as_ref().is_some_and(|place| place.schema == now.version) {
            self.told(&now, Mode::Tail, 0)?;
        }
        self.ready(Mode::Tail, 0)?;
        let Some(mut attached) = self.hub.attach(&self.shape, &plan) else {
            return Err(Stop::Refused(Refusal::Exhausted(ShapeError {
                message: "too many shapes are followed".into(),
                hint: "share shapes between clients, or end some".into(),
            })));
        };
        // What pages have shown is in the journal, and will be in the rings.
        while attached.lsn < until {
            self.wait_for(until, &mut attached)?;
            drop(attached);
            let Some(again) = self.hub.attach(&self.shape, &plan) else { return Err(Stop::Wait) };
            attached = again;
        }
        let Some(place) = &self.place else { return Ok(None) };
        let known = place.plan.clone().filter(|plan| plan.table.version == place.schema);
        let mut follower =
            Follower::new(Arc::clone(&self.shape), (place.table, place.schema), place.epoch, known);
        loop {
            self.read_to(&mut follower, attached.lsn)?;
            // The thread may be in the midst of the chunk that ends there: what it puts into the ring of it has been sent.
            if !self.wait_for_ring(&mut attached)? {
                return Ok(None);
            }
            attached.settle();
            if attached.live.evicted() <= attached.lsn {
                break;
            }
            let Some(again) = self.hub.attach(&self.shape, &plan) else { return Err(Stop::Wait) };
            attached = again;
        }
        let lsn = attached.lsn;
        let Some(place) = &mut self.place else { return Ok(None) };
        (place.until, place.phase) = (lsn, Phase::Tail { owes_end: false });
        let token = self.token();
        if owes_end {
            self.send(wire::response(&token, lsn, &Event::SnapshotEnd), false)?;
        }
        if let Some((rows, checksum)) = self.audit(&attached, &follower)? {
            self.send(wire::response(&token, lsn, &Event::Checkpoint { rows, checksum }), false)?;
        }
        self.send(wire::response(&token, lsn, &Event::UpToDate), false)?;
        attached.schema = follower.version();
        Ok(Some(attached))
    }
    /// Whether the latest images are far fewer than the changes.
    fn prefers_net_changes(&mut self, now: &Table) -> Result<bool, Stop> {
        let Some(place) = &self.place else { return Ok(false) };
        let (lsn, gap) = (place.lsn, self.hub.journal.sealed().lsn.saturating_sub(place.lsn));
        if gap < NET_FROM
            || place.phase != (Phase::Tail { owes_end: false })
            || self.shape.is_enforced()
            || now.version != place.schema
        {
            return Ok(false);
        }
        let name = self.shape.spec.table.clone();
        if !self.mirror.look_now(lsn + gap / 2, std::slice::from_ref(&name))? {
            return Ok(false);
        }
        let prefers = match self.mirror.table(&name)? {
            Some(table) if table.id == now.id && table.table.version == now.version => {
                self.mirror.knows_gone_from(&table)? <= lsn + 1
                    && self.mirror.count_changed(&table, lsn, gap / 2)? < gap / 2
            }
            _ => false,
        };
        self.mirror.end()?;
        Ok(prefers)
    }

    /// Waits until all changes up to `lsn` are in the rings, or something came of this one.
    fn wait_for(&self, lsn: u64, attached: &mut Attached) -> Result<(), Stop> {
        let (mut position, mut shutdown) = (self.hub.position(), self.hub.shutdown());
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                reached = position.wait_for(|position| *position >= lsn) => reached.map(|_| ()).map_err(|_| Stop::Gone),
                _ = attached.count.changed() => Ok(()),
                _ = shutdown.wait_for(|stop| *stop) => Err(Stop::Gone),
                () = self.sender.closed() => Err(Stop::Gone),
            }
        })
    }

    /// Waits until all changes up to the place of `attached` are in its ring; false when nothing comes by that any more.
    pub(super) fn wait_for_ring(&self, attached: &mut Attached) -> Result<bool, Stop> {
        let position = self.hub.position();
        loop {
            if *position.borrow() >= attached.lsn {
                return Ok(true);
            }
            if attached.has_ended() {
                return Ok(false);
            }
            self.wait_for(attached.lsn, attached)?;
        }
    }

    /// Sends the changes behind the copy's place up to `end`.
    fn read_to(&mut self, follower: &mut Follower, end: u64) -> Result<(), Stop> {
        let Some(place) = &self.place else { return Ok(()) };
        let until = place.until;
        if place.lsn >= end {
            return Ok(());
        }
        let mut reader = match self.hub.journal.reader(place.lsn + 1) {
            Ok(reader) => reader,
            Err(JournalError::Pruned { .. }) => {
                return Err(Stop::Again(ResetReason::Compacted, compacted(place.lsn)));
            }
            Err(error) => return Err(error.into()),
        };
        let mut body = Vec::new();
        let (mut last, mut ends) = (place.lsn, true);
        while last < end {
            let chunk = match reader.next(READ_BYTES) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(JournalError::Pruned { .. }) => {
                    return Err(Stop::Again(ResetReason::Compacted, compacted(last)));
                }
                Err(error) => return Err(error.into()),
            };
            for change in chunk.changes() {
                let change = change?;
                if change.lsn > end {
                    break;
                }
                let before = last;
                (last, ends) = (change.lsn, change.txn.as_ref().is_none_or(|txn| txn.last));
                if !follower.concerns(&change) {
                    continue;
                }
                let version = follower.version();
                let mut taken = follower.take(&change, &mut body)?;
                if let Taken::Schema(schema) = &taken {
                    if change.lsn <= until {
                        let detail = "the table's definition changed while its rows were sent".to_owned();
                        return Err(Stop::Again(ResetReason::Schema, detail));
                    }
                    let at = if change.op == base::Op::Ddl { change.lsn } else { before };
                    self.flush(version, &mut body, before, true)?;
                    self.moved(follower.version(), at);
                    self.told_by(follower);
                    let token = self.token();
                    self.send(wire::response(&token, at, &Event::Schema(schema)), false)?;
                    if change.op == base::Op::Ddl {
                        continue;
                    }
                    taken = follower.take(&change, &mut body)?;
                }
                match taken {
                    Taken::End(ending) => {
                        self.flush(version, &mut body, before, true)?;
                        self.moved(version, before);
                        return Err(self.ended(ending));
                    }
                    Taken::Rows(_) if body.len() < BATCH_BYTES => self.changes += 1,
                    _ if body.len() >= BATCH_BYTES => {
                        self.flush(follower.version(), &mut body, last, ends)?
                    }
                    _ => {}
                }
            }
            if chunk.last_lsn() <= end {
                (last, ends) = (chunk.last_lsn(), chunk.ends_txn());
            }
            self.flush(follower.version(), &mut body, last, ends)?;
        }
        self.flush(follower.version(), &mut body, end, ends)?;
        self.moved(follower.version(), end);
        self.told_by(follower);
        Ok(())
    }

    /// What follows is by the columns that the follower has told.
    fn told_by(&mut self, follower: &Follower) {
        if let Some(place) = &mut self.place
            && let Some(plan) = follower.plan().filter(|plan| plan.table.version == place.schema)
        {
            place.plan = Some(Arc::clone(plan));
        }
    }

    fn flush(&mut self, schema: u32, body: &mut Vec<u8>, lsn: u64, ends: bool) -> Result<(), Stop> {
        if body.is_empty() {
            return Ok(());
        }
        self.moved(schema, lsn);
        let token = self.token();
        self.send(wire::batch(&token, lsn, body, ends), true)?;
        body.clear();
        if self.slow { Err(Stop::Slow) } else { Ok(()) }
    }

    /// The copy has all changes up to `lsn`, by the definition `schema`.
    fn moved(&mut self, schema: u32, lsn: u64) {
        if let Some(place) = &mut self.place {
            // The columns of another definition are told when it is met.
            if place.schema != schema {
                place.plan = None;
            }
            (place.lsn, place.schema) = (lsn, schema);
            place.until = place.until.max(lsn);
        }
    }

    /// What comes of the end of a tail.
    pub(super) fn ended(&mut self, end: End) -> Stop {
        match end {
            End::Anew => {
                if let Some(place) = &mut self.place {
                    place.phase = Phase::NetChanges;
                }
                Stop::Wait
            }
            End::Again => {
                Stop::Again(ResetReason::Schema, "what rows were cannot be told from the changes".into())
            }
            End::Epoch => {
                Stop::Again(ResetReason::Epoch, "the source's history is not proven to be whole".into())
            }
            End::Gone(message) => Stop::Refused(Refusal::NotFound(ShapeError {
                message,
                hint: "follow a table that exists".into(),
            })),
            End::Broken(error) => Stop::Refused(Refusal::Precondition(error)),
        }
    }

    /// How many rows the shape has where the ring is attached, and the sum of their hashes; `None` where it cannot be said.
    fn audit(&mut self, attached: &Attached, follower: &Follower) -> Result<Option<(u64, u64)>, Stop> {
        if let Some(known) = attached.live.audit(attached.lsn) {
            return Ok(Some(known));
        }
        let Some(plan) = follower.plan().cloned() else { return Ok(None) };
        let name = self.shape.spec.table.clone();
        if !self.wait_for_mirror(attached.lsn)
            || !self.mirror.look_now(attached.lsn, std::slice::from_ref(&name))?
        {
            return Ok(None);
        }
        let at = self.mirror.lsn()?;
        let table = self.mirror.table(&name)?.filter(|table| table.table.version == plan.table.version);
        let (mut rows, mut sum, mut malformed) = (0i64, 0u64, false);
        let mut scratch = Vec::new();
        if let Some(table) = &table {
            self.mirror.each(table, |definition, row| {
                let counted = with_values(&plan.table, definition, row, |values| {
                    if plan.matches(values) {
                        rows += 1;
                        sum = sum.wrapping_add(plan.hash(&mut scratch, values));
                    }
                });
                malformed |= counted.is_err();
            })?;
        }
        self.mirror.end()?;
        if table.is_none() || malformed {
            return Ok(None);
        }
        // The look may be newer: what came since is taken off again.
        let mut follower = follower.clone();
        let mut body = Vec::new();
        let mut reader = self.hub.journal.reader(attached.lsn + 1)?;
        let mut last = attached.lsn;
        while last < at {
            let Some(chunk) = reader.next(READ_BYTES)? else { break };
            for change in chunk.changes() {
                let change = change?;
                if change.lsn > at || !follower.concerns(&change) {
                    continue;
                }
                body.clear();
                match follower.take(&change, &mut body)? {
                    Taken::Nothing => {}
                    Taken::Rows(Effect::By { rows: by, sum: by_sum }) => {
                        (rows, sum) = (rows - by, sum.wrapping_sub(by_sum));
                    }
                    _ => return Ok(None),
                }
            }
            last = chunk.last_lsn();
        }
        let Ok(rows) = u64::try_from(rows) else { return Ok(None) };
        attached.live.set_audit(attached.lsn, rows, sum);
        Ok(Some((rows, sum)))
    }

    /// Whether the mirror comes to `lsn` in time.
    fn wait_for_mirror(&self, lsn: u64) -> bool {
        let Some(mirror) = &self.hub.mirror else { return false };
        let mut reached = mirror.watch();
        let mut shutdown = self.hub.shutdown();
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                reached = reached.wait_for(|reached| reached.looked && reached.lsn >= lsn) => reached.is_ok(),
                _ = shutdown.wait_for(|stop| *stop) => false,
                () = tokio::time::sleep(MIRROR_WAIT_MAX) => false,
            }
        })
    }
}

fn compacted(lsn: u64) -> String {
    format!("the changes behind {lsn} are no longer kept")
}

/// A row of an older definition by the columns of today; those that it lacks are NULL.
pub(super) fn with_values<R>(
    now: &Table,
    definition: &Table,
    row: RowView<'_>,
    take: impl FnOnce(&[ValueRef<'_>]) -> R,
) -> Result<R, base::row::MalformedRow> {
    let (values, _) = values_of(row)?;
    if now.version == definition.version {
        return Ok(take(&values));
    }
    let of = |name: &str| definition.column_index(name).and_then(|index| values.get(index).copied());
    let values: Vec<ValueRef<'_>> =
        now.columns.iter().map(|column| of(&column.name).unwrap_or(ValueRef::Null)).collect();
    Ok(take(&values))
}
