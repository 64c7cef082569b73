//! What a copy of a window lacks. The server has the window's rows at hand, so there are two ways: what the ring of the shape still has
//! behind the copy's token, or all rows, of which there are few. Net changes have no part in it: what left a window did not change.

use super::catch_up::{CatchUp, Place, Refusal, Stop};
use super::hub::{Attached, BeganWindow, Next};
use super::shape::{ShapeError, ShapePlan};
use super::token::Phase;
use super::window::WindowCopy;
use super::window_build;
use super::wire::{self, Event, Mode, ResetReason};
use base::Table;
use std::sync::Arc;
use std::time::Duration;

/// A window that is dry is waited for so long, before others may go on here.
const DRY_WAIT: Duration = Duration::from_millis(200);

/// All rows of a window on their way.
pub struct Copying {
    attached: Attached,
    copy: Arc<WindowCopy>,
    sent: usize,
}

impl CatchUp {
    /// One step of a copy of a window.
    pub(super) fn window(&mut self) -> Result<Option<Attached>, Stop> {
        if self.copying.is_some() {
            return self.copy_on();
        }
        let attached = self.window_attached()?;
        match &self.place {
            None => self.copy_window(attached).map(|()| None),
            Some(place) => {
                let stands = (place.table, place.schema, place.epoch);
                let live = (attached.live.table(), attached.live.version(), attached.live.epoch());
                match place.phase {
                    Phase::Tail { owes_end } if stands == live => self.window_tail(attached, owes_end),
                    Phase::Tail { .. } if stands.0 != live.0 => {
                        Err(Stop::Again(ResetReason::Table, "the table was made anew".into()))
                    }
                    Phase::Tail { .. } if stands.1 != live.1 => {
                        Err(Stop::Again(ResetReason::Schema, "the table's definition has changed".into()))
                    }
                    _ => Err(Stop::Again(ResetReason::Window, unknown(place.lsn))),
                }
            }
        }
    }

    /// The window as others follow it, or one that is made.
    fn window_attached(&mut self) -> Result<Attached, Stop> {
        if let Some(attached) = self.hub.window(&self.shape) {
            return Ok(attached);
        }
        self.seen.borrow_and_update();
        let epoch = self.hub.journal.sealed().epoch;
        let table = window_build::look(&self.hub, &mut self.mirror, &self.shape, 0)?;
        let plan = self.plan(&table.table)?;
        let mut window = window_build::fill(&self.hub, &mut self.mirror, &table, &plan, self.spare_times)?;
        loop {
            let advanced = window_build::advance(&self.hub, &self.shape, &plan, epoch, &mut window);
            if window.is_dry() {
                self.spare_times = window_build::more_spare(self.spare_times);
            }
            advanced?;
            match self.hub.begin_window(&self.shape, &plan, epoch, window) {
                BeganWindow::Attached(attached) => return Ok(attached),
                BeganWindow::Behind(behind) => window = *behind,
                BeganWindow::Full => {
                    return Err(Stop::Refused(Refusal::Exhausted(ShapeError {
                        message:
                            "too many shapes are followed, or the windows among them take too much memory"
                                .into(),
                        hint: "share shapes between clients, end some, or ask for smaller windows".into(),
                    })));
                }
            }
        }
    }

    /// The definition by which a window is followed.
    fn window_plan(&self, attached: &Attached) -> Result<Arc<ShapePlan>, Stop> {
        let table: Arc<Table> = Arc::clone(attached.live.definition());
        self.plan(&table)
    }

    /// Goes on behind a token, by what the ring has.
    fn window_tail(&mut self, mut attached: Attached, owes_end: bool) -> Result<Option<Attached>, Stop> {
        let Some(place) = &self.place else { return Ok(None) };
        let (from, end) = (place.lsn, self.hub.journal.sealed().lsn);
        if attached.live.evicted() > from {
            return Err(Stop::Again(ResetReason::Window, unknown(from)));
        }
        if self.place.as_ref().is_some_and(|place| place.plan.is_none()) {
            let plan = self.window_plan(&attached)?;
            self.ready(Mode::Tail, 0)?;
            self.send(wire::response(&[], from, &Event::Schema(&plan.schema)), false)?;
            if let Some(place) = &mut self.place {
                place.plan = Some(plan);
            }
        }
        self.ready(Mode::Tail, 0)?;
        attached.lsn = end.max(from);
        if !self.wait_for_ring(&mut attached)? {
            return Err(Stop::Again(ResetReason::Window, unknown(from)));
        }
        let reached = attached.lsn;
        if !attached.resume(from) {
            return Err(Stop::Again(ResetReason::Window, unknown(from)));
        }
        if owes_end {
            self.stands(from);
            let token = self.token();
            self.send(wire::response(&token, from, &Event::SnapshotEnd), false)?;
        }
        loop {
            if self.slow {
                return Ok(None);
            }
            // Asked first: a frame that fills the window comes before it is no longer held back.
            let held_back = attached.live.is_held_back();
            match attached.next() {
                Next::Frame(framed) => {
                    (attached.next, attached.lsn) = (attached.next + 1, framed.lsn);
                    self.stands(framed.lsn);
                    self.changes = framed.changes;
                    self.send(framed.bytes, framed.is_batch)?;
                }
                Next::Wait if held_back => {
                    self.wait_for_fill(&mut attached)?;
                }
                Next::Wait => break,
                Next::Behind => return Err(Stop::Again(ResetReason::Window, unknown(attached.lsn))),
                Next::End(end) => return Err(self.ended(end)),
            }
        }
        attached.lsn = attached.lsn.max(reached);
        attached.schema = attached.live.version();
        let totals = attached.live.audit(attached.lsn);
        self.window_end(attached.lsn, totals)?;
        Ok(Some(attached))
    }

    /// The copy has all changes up to `lsn`.
    fn stands(&mut self, lsn: u64) {
        if let Some(place) = &mut self.place {
            (place.lsn, place.until, place.phase) = (lsn, lsn, Phase::Tail { owes_end: false });
        }
    }

    fn window_end(&mut self, lsn: u64, totals: Option<(u64, u64)>) -> Result<(), Stop> {
        self.stands(lsn);
        let token = self.token();
        if let Some((rows, checksum)) = totals {
            self.send(wire::response(&token, lsn, &Event::Checkpoint { rows, checksum }), false)?;
        }
        self.send(wire::response(&token, lsn, &Event::UpToDate), false)
    }

    /// Begins to send all rows.
    fn copy_window(&mut self, mut attached: Attached) -> Result<(), Stop> {
        let plan = self.window_plan(&attached)?;
        let copy = self.window_copy(&mut attached)?;
        attached.next = copy.next;
        (attached.lsn, attached.schema) = (copy.lsn, plan.table.version);
        self.place = Some(Place {
            epoch: attached.live.epoch(),
            table: plan.table.id,
            schema: plan.table.version,
            lsn: copy.lsn,
            until: copy.lsn,
            // A token of it says that it came in part: it is sent again then.
            phase: Phase::Snapshot { cursor: Vec::new() },
            plan: Some(Arc::clone(&plan)),
        });
        self.ready(Mode::Snapshot, copy.rows)?;
        self.send(wire::response(&[], copy.lsn, &Event::Schema(&plan.schema)), false)?;
        self.copying = Some(Copying { attached, copy, sent: 0 });
        Ok(())
    }

    fn window_copy(&mut self, attached: &mut Attached) -> Result<Arc<WindowCopy>, Stop> {
        let mut answer = self.hub.copy_of(&attached.live);
        let mut shutdown = self.hub.shutdown();
        loop {
            attached.count.borrow_and_update();
            if attached.has_ended() {
                return Err(Stop::Wait);
            }
            let answered = tokio::runtime::Handle::current().block_on(async {
                tokio::select! {
                    answered = &mut answer => Ok(Some(answered.ok())),
                    _ = attached.count.changed() => Ok(None),
                    _ = shutdown.wait_for(|stop| *stop) => Err(Stop::Gone),
                    () = self.sender.closed() => Err(Stop::Gone),
                }
            })?;
            match answered {
                Some(Some(copy)) => return Ok(copy),
                Some(None) => {
                    self.wait_for_fill(attached)?;
                    answer = self.hub.copy_of(&attached.live);
                }
                None => {}
            }
        }
    }

    /// Waits a moment for a window that is dry.
    fn wait_for_fill(&self, attached: &mut Attached) -> Result<(), Stop> {
        let mut shutdown = self.hub.shutdown();
        attached.count.borrow_and_update();
        if attached.has_ended() || !attached.live.is_held_back() {
            return Ok(());
        }
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                _ = attached.count.changed() => Ok(()),
                _ = shutdown.wait_for(|stop| *stop) => Err(Stop::Gone),
                () = self.sender.closed() => Err(Stop::Gone),
                () = tokio::time::sleep(DRY_WAIT) => Err(Stop::Wait),
            }
        })
    }

    /// Sends the rest of the rows.
    fn copy_on(&mut self) -> Result<Option<Attached>, Stop> {
        let Some(mut copying) = self.copying.take() else { return Ok(None) };
        let copy = Arc::clone(&copying.copy);
        while let Some((rows, body)) = copy.bodies.get(copying.sent) {
            copying.sent += 1;
            let is_last = copying.sent == copy.bodies.len();
            if let Some(place) = self.place.as_mut().filter(|_| is_last) {
                place.phase = Phase::Tail { owes_end: true };
            }
            let token = self.token();
            self.changes = *rows;
            self.send(wire::batch(&token, copy.lsn, body, is_last), true)?;
            if self.slow && !is_last {
                self.copying = Some(copying);
                return Ok(None);
            }
        }
        self.stands(copy.lsn);
        let token = self.token();
        self.send(wire::response(&token, copy.lsn, &Event::SnapshotEnd), false)?;
        self.window_end(copy.lsn, Some((copy.rows, copy.checksum)))?;
        Ok(Some(copying.attached))
    }
}

fn unknown(lsn: u64) -> String {
    format!("what left the window behind change {lsn} is no longer known")
}
