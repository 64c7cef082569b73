//! Copies of tables on devices: what a device lacks, then every change as it comes.
//!
//! A stream is begun by [`Subscriptions::subscribe`]: [`catch_up`] brings a copy from nothing, or from its token, to where the
//! ring of its shape in the [`hub`] goes on; from there on the copy costs a place in that ring. Who is too slow for the ring, and whose table is read
//! anew, is caught up again. What is sent is bytes of `proto/tidemill/v1`, made by [`wire`].

pub mod broker;
pub mod catch_up;
pub mod figures;
pub mod follow;
pub mod hub;
pub mod mark;
pub mod order;
mod router;
pub mod shape;
pub mod token;
pub mod window;
mod window_build;
mod window_catch_up;
pub mod wire;

use bytes::Bytes;
use catch_up::{CatchUp, Item, Outcome, Refusal, Sent};
use follow::End;
use hub::{Attached, Hub, Next};
use shape::{Shape, ShapeError, ShapeSpec};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use token::{Phase, Token};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use wire::{Event, ResetReason};

/// Streams of a node at once.
const SUBSCRIPTIONS_MAX: usize = 20_000;
/// Marks of one stream that were not reached.
const MARKS_MAX: usize = 1024;
/// Who waits for the mirror looks again at this pace, whatever he heard.
const WAIT_LOOK: Duration = Duration::from_secs(2);
/// Credits of one stream.
const CREDITS_MAX: u32 = 1024;
/// Longer than a beat: a client hears something after as long though its window is dry, or the mirror has yet to be filled.
const QUIET_MAX: Duration = Duration::from_secs(20);

/// Where a stream stands that has all there is, and one that catches up.
const CAUGHT_UP: u64 = u64::MAX;
const CATCHING_UP: u64 = u64::MAX - 1;

/// The streams of a node.
#[derive(Default)]
pub struct Subscriptions {
    open: Mutex<HashMap<u64, Arc<Subscription>>>,
}

/// What others may do with an open stream.
pub struct Subscription {
    pub id: u64,
    /// Whose it is.
    pub caller: String,
    pub hub: Arc<Hub>,
    /// The last change of what was taken from the ring, or one of the above.
    at: AtomicU64,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Responses with a batch: how many were sent, and dealt with.
    sent: u64,
    acknowledged: u64,
    next_mark: u64,
    /// Marks, and the change at which each is reached.
    marks: VecDeque<(u64, u64)>,
}

/// What is asked for.
pub struct Request {
    pub spec: ShapeSpec,
    pub token: Vec<u8>,
    pub credits: u32,
    pub caller: String,
    /// How long what is known of the shape is kept once nobody follows it; the source's own time where it is `None`.
    pub keep: Option<Duration>,
}

impl Subscription {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many responses with a batch were dealt with; `Err` says how many were sent when that is fewer.
    pub fn acknowledge(&self, batches: u64) -> Result<(), u64> {
        {
            let mut state = self.lock();
            if batches > state.sent {
                return Err(state.sent);
            }
            state.acknowledged = state.acknowledged.max(batches);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// The stream is to say when it has come to `lsn`. `None` when it has too many such marks.
    pub fn mark(&self, lsn: u64) -> Option<u64> {
        let mark = {
            let mut state = self.lock();
            if state.marks.len() >= MARKS_MAX {
                return None;
            }
            state.next_mark += 1;
            let mark = state.next_mark;
            state.marks.push_back((mark, lsn));
            mark
        };
        self.wake.notify_one();
        Some(mark)
    }

    fn reached(&self, lsn: u64) -> Option<u64> {
        let mut state = self.lock();
        let at = state.marks.iter().position(|(_, wanted)| *wanted <= lsn)?;
        state.marks.remove(at).map(|(mark, _)| mark)
    }

    fn has_marks(&self) -> bool {
        !self.lock().marks.is_empty()
    }
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Subscription>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, id: u64) -> Option<Arc<Subscription>> {
        self.lock().get(&id).cloned()
    }

    /// Begins a stream.
    pub fn subscribe(self: &Arc<Self>, hub: &Arc<Hub>, request: Request) -> Result<Stream, Refusal> {
        let shape = Shape::compile(&hub.source, request.spec).map_err(Refusal::Invalid)?;
        let shape = Arc::new(shape);
        check(hub, &shape)?;
        let id = id();
        let subscription = Arc::new(Subscription {
            id,
            caller: request.caller,
            hub: Arc::clone(hub),
            at: AtomicU64::new(CATCHING_UP),
            state: Mutex::default(),
            wake: Notify::new(),
        });
        {
            let mut open = self.lock();
            if open.len() >= SUBSCRIPTIONS_MAX {
                return Err(Refusal::Exhausted(ShapeError {
                    message: format!("{SUBSCRIPTIONS_MAX} subscriptions are open"),
                    hint: "try again later, or start another node".into(),
                }));
            }
            open.insert(id, Arc::clone(&subscription));
        }
        let registered = Registered { all: Arc::clone(self), id };
        let (sender, receiver) = mpsc::unbounded_channel();
        let (work, reset) = CatchUp::begin(Arc::clone(hub), Arc::clone(&shape), &request.token, id, sender)?;
        Ok(Stream {
            hub: Arc::clone(hub),
            shape,
            subscription,
            credits: u64::from(request.credits.min(CREDITS_MAX)),
            keep: request.keep.unwrap_or(hub.limits.keep).min(hub.limits.keep_max),
            stage: Stage::CatchUp { receiver, work: Some((Box::new(work), reset)), waits: None },
            sent_at: Instant::now(),
            _registered: registered,
        })
    }
}

/// The token of who has nothing and wants only what is yet to come.
pub fn token_of_now(hub: &Hub, spec: ShapeSpec) -> Result<Token, Refusal> {
    let shape = Shape::compile(&hub.source, spec).map_err(Refusal::Invalid)?;
    // What is sealed by now may be of an older definition, never of a newer one.
    let sealed = hub.journal.sealed();
    let (table, schema) = check(hub, &shape)?;
    Ok(Token {
        journal: hub.journal.identity(),
        epoch: sealed.epoch,
        shape: shape.hash,
        table,
        schema,
        lsn: sealed.lsn,
        until: sealed.lsn,
        phase: Phase::Tail { owes_end: false },
    })
}

/// Whether the shape fits the table now, where there is one: its id and version.
fn check(hub: &Hub, shape: &Shape) -> Result<(u32, u32), Refusal> {
    let name = &shape.spec.table;
    let state = hub.journal.state();
    match state.tables.values().find(|table| table.name == *name) {
        Some(table) => shape.plan(table).map(|_| (table.id, table.version)).map_err(Refusal::Precondition),
        None if state.position.is_none() => Err(Refusal::Unavailable(ShapeError {
            message: format!("source `{}` has yet to look which tables it has", hub.source),
            hint: "come again; see `tidemill status`".into(),
        })),
        None => Err(Refusal::NotFound(ShapeError {
            message: format!("source `{}` has no table `{name}`", hub.source),
            hint: "name a table that `tables` of the source takes in, as `db.table`".into(),
        })),
    }
}

/// A number that cannot be guessed, and that fits a double.
fn id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    loop {
        let hasher = std::collections::hash_map::RandomState::new().build_hasher();
        let id = hasher.finish() >> 11;
        if id != 0 {
            return id;
        }
    }
}

/// That the stream lives; its place stays where it was.
fn sign_of_life(lsn: u64) -> Sent {
    Sent::at_once(wire::response(&[], lsn, &Event::Heartbeat), false)
}

struct Registered {
    all: Arc<Subscriptions>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// One client's stream.
pub struct Stream {
    hub: Arc<Hub>,
    shape: Arc<Shape>,
    subscription: Arc<Subscription>,
    /// 0 for as many as the transport takes.
    credits: u64,
    keep: Duration,
    stage: Stage,
    /// When something was sent last.
    sent_at: Instant,
    _registered: Registered,
}

/// Why a copy begins anew.
type Again = (ResetReason, String);

enum Stage {
    CatchUp {
        receiver: mpsc::UnboundedReceiver<Item>,
        /// What is to be begun, or gone on with.
        work: Option<(Box<CatchUp>, Option<Again>)>,
        /// Where the mirror has to move first: when it is looked at whether it has or not.
        waits: Option<Instant>,
    },
    Live(Attached),
    Ended,
}

impl Stream {
    /// Whether it has come to the end of the journal, and takes changes as they come.
    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live(_))
    }

    /// The next response; `None` when the node ends.
    pub async fn next(&mut self) -> Option<Result<Bytes, Refusal>> {
        loop {
            let sent = match &mut self.stage {
                Stage::Ended => return None,
                Stage::CatchUp { .. } => self.catch_up().await,
                Stage::Live(_) => self.live().await,
            };
            match sent {
                Ok(Some(sent)) => {
                    self.sent_at = Instant::now();
                    if sent.is_batch {
                        self.credit().await?;
                    }
                    self.hub.stats.delivered.fetch_add(sent.changes.into(), Ordering::Relaxed);
                    return Some(Ok(sent.bytes));
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.stage = Stage::Ended;
                    return refusal.map(Err);
                }
            }
        }
    }

    /// Waits until another batch may be sent.
    async fn credit(&mut self) -> Option<()> {
        let mut shutdown = self.hub.shutdown();
        loop {
            {
                let mut state = self.subscription.lock();
                if self.credits == 0 || state.sent - state.acknowledged < self.credits {
                    state.sent += 1;
                    return Some(());
                }
            }
            tokio::select! {
                () = self.subscription.wake.notified() => {}
                _ = shutdown.wait_for(|stop| *stop) => return None,
            }
        }
    }

    async fn catch_up(&mut self) -> Result<Option<Sent>, Option<Refusal>> {
        let Stage::CatchUp { receiver, work, waits } = &mut self.stage else { return Ok(None) };
        let mut shutdown = self.hub.shutdown();
        if let Some((own, _)) = work {
            if let Some(until) = *waits {
                tokio::select! {
                    () = own.moved_on() => {}
                    _ = shutdown.wait_for(|stop| *stop) => return Err(None),
                    () = tokio::time::sleep_until(until) => {}
                }
                *waits = None;
            }
            let permit = tokio::select! {
                permit = Arc::clone(&self.hub.catch_ups).acquire_owned() => permit.map_err(|_| None)?,
                _ = shutdown.wait_for(|stop| *stop) => return Err(None),
            };
            if let Some((own, reset)) = work.take() {
                tokio::task::spawn_blocking(move || own.work(reset, permit));
            }
        }
        match receiver.recv().await {
            Some(Item::Sent(sent)) => Ok(Some(sent)),
            Some(Item::Came(Outcome::Attached(attached))) => {
                attached.live.keep(self.keep);
                self.subscription.at.store(attached.lsn, Ordering::Relaxed);
                self.stage = Stage::Live(attached);
                Ok(None)
            }
            Some(Item::Came(Outcome::Wait(own))) => {
                (*work, *waits) = (Some((own, None)), Some(Instant::now() + WAIT_LOOK));
                let is_quiet = self.sent_at.elapsed() >= QUIET_MAX;
                Ok(is_quiet.then(|| sign_of_life(0)))
            }
            // What was sent has been taken by now.
            Some(Item::Came(Outcome::Slow(own))) => {
                self.hub.stats.gave_up.fetch_add(1, Ordering::Relaxed);
                *work = Some((own, None));
                Ok(None)
            }
            Some(Item::Came(Outcome::Gone)) => Err(None),
            Some(Item::Came(Outcome::Refused(refusal))) => Err(Some(refusal)),
            None => Err(Some(Refusal::Unavailable(ShapeError {
                message: "reading the changes broke off".into(),
                hint: "try again with the last token; see the log".into(),
            }))),
        }
    }

    async fn live(&mut self) -> Result<Option<Sent>, Option<Refusal>> {
        let Stage::Live(attached) = &mut self.stage else { return Ok(None) };
        attached.count.borrow_and_update();
        match attached.next() {
            Next::Frame(framed) => {
                (attached.next, attached.lsn, attached.schema) =
                    (attached.next + 1, framed.lsn, framed.schema);
                self.subscription.at.store(framed.lsn, Ordering::Relaxed);
                let mut sent = Sent::at_once(framed.bytes, framed.is_batch);
                sent.changes = framed.changes;
                return Ok(Some(sent));
            }
            Next::Wait => self.subscription.at.store(CAUGHT_UP, Ordering::Relaxed),
            Next::Behind => return self.again(Phase::Tail { owes_end: false }).map(|()| None),
            Next::End(End::Anew) => return self.again(Phase::NetChanges).map(|()| None),
            Next::End(End::Again) => {
                return self.reset(ResetReason::Schema, "what rows were cannot be told from the changes");
            }
            Next::End(End::Epoch) => {
                return self.reset(ResetReason::Epoch, "the source's history is not proven to be whole");
            }
            Next::End(End::Gone(message)) => {
                let hint = "follow a table that exists".to_owned();
                return Err(Some(Refusal::NotFound(ShapeError { message, hint })));
            }
            Next::End(End::Broken(error)) => return Err(Some(Refusal::Precondition(error))),
        }
        let (mut shutdown, mut position) = (self.hub.shutdown(), self.hub.position());
        if self.subscription.has_marks() {
            // Frames come before the position that accounts for them.
            let at = *position.borrow_and_update();
            let at = if attached.live.is_held_back() { attached.lsn } else { at };
            if let Next::Wait = attached.next()
                && let Some(mark) = self.subscription.reached(at)
            {
                let bytes = wire::response(&[], at, &Event::Reached { mark });
                return Ok(Some(Sent::at_once(bytes, false)));
            }
            tokio::select! {
                _ = attached.count.changed() => {}
                _ = position.changed() => {}
                () = self.subscription.wake.notified() => {}
                _ = shutdown.wait_for(|stop| *stop) => return Err(None),
                () = tokio::time::sleep_until(self.sent_at + QUIET_MAX) => return Ok(Some(sign_of_life(attached.lsn))),
            }
            return Ok(None);
        }
        tokio::select! {
            _ = attached.count.changed() => {}
            () = self.subscription.wake.notified() => {}
            _ = shutdown.wait_for(|stop| *stop) => return Err(None),
            () = tokio::time::sleep_until(self.sent_at + QUIET_MAX) => return Ok(Some(sign_of_life(attached.lsn))),
        }
        Ok(None)
    }

    /// Catches up again, behind what was sent.
    fn again(&mut self, phase: Phase) -> Result<(), Option<Refusal>> {
        let Stage::Live(attached) = &self.stage else { return Ok(()) };
        let token = Token {
            journal: self.hub.journal.identity(),
            epoch: attached.live.epoch(),
            shape: self.shape.hash,
            table: attached.live.table(),
            schema: attached.schema,
            lsn: attached.lsn,
            until: attached.lsn,
            phase,
        };
        self.restart(&token.encode(), None)
    }

    fn reset(&mut self, reason: ResetReason, detail: &str) -> Result<Option<Sent>, Option<Refusal>> {
        self.restart(&[], Some((reason, detail.to_owned()))).map(|()| None)
    }

    fn restart(&mut self, token: &[u8], reset: Option<(ResetReason, String)>) -> Result<(), Option<Refusal>> {
        self.subscription.at.store(CATCHING_UP, Ordering::Relaxed);
        let (sender, receiver) = mpsc::unbounded_channel();
        let (hub, shape) = (Arc::clone(&self.hub), Arc::clone(&self.shape));
        let (mut work, bad) =
            CatchUp::begin(hub, shape, token, self.subscription.id, sender).map_err(Some)?;
        work.was_ready();
        self.stage = Stage::CatchUp { receiver, work: Some((Box::new(work), reset.or(bad))), waits: None };
        Ok(())
    }
}
