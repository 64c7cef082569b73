//! Making a window: its first rows and the spare ones from a look at the mirror, and what the journal has had since.

use super::catch_up::{Refusal, Stop, with_values};
use super::follow::{End, Follower, Taken};
use super::hub::{Hub, Live};
use super::shape::{Shape, ShapeError, ShapePlan};
use super::window::{Window, spare_rows, too_large};
use crate::mirror::read::{MirrorReader, Mirrored};
use journal::JournalError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 1 << 20;
/// Rows, and bytes of rows, of the mirror that are held at once.
const PAGE_ROWS: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;
/// How many times more spare rows than usual a window is made with at most.
const SPARE_TIMES_MAX: usize = 64;
/// A mirror that is behind is looked at again at this pace, whatever was heard of it.
const WAIT_LOOK: Duration = Duration::from_secs(1);

/// A look at the table of a shape as the mirror has it; `Wait` where that is not whole.
pub fn look(hub: &Hub, mirror: &mut MirrorReader, shape: &Shape, lsn: u64) -> Result<Mirrored, Stop> {
    let name = &shape.spec.table;
    if !mirror.look_now(lsn, std::slice::from_ref(name))? {
        return Err(Stop::Wait);
    }
    mirror.table(name)?.ok_or_else(|| {
        Stop::Refused(Refusal::NotFound(ShapeError {
            message: format!("source `{}` has no table `{name}` that is mirrored", hub.source),
            hint: format!(
                "does it exist, and do `tables` and `mirror` of the source take it in? `mirror: [{name}]`"
            ),
        }))
    })
}

/// How many spare rows the next attempt has after one that ran dry before it was handed over: rows go faster than it was made.
pub fn more_spare(times: usize) -> usize {
    (times * 4).min(SPARE_TIMES_MAX)
}

/// The window of a look that is open, which is of `table` by `plan`, with so many times more spare rows than usual.
pub fn fill(
    hub: &Hub,
    mirror: &mut MirrorReader,
    table: &Mirrored,
    plan: &Arc<ShapePlan>,
    times: usize,
) -> Result<Window, Stop> {
    let lsn = mirror.lsn()?;
    let limit = plan.order.as_ref().map_or(0, |order| order.limit);
    let spare = hub.limits.spare_rows.unwrap_or_else(|| spare_rows(limit)) * times;
    let Some(mut window) = Window::new(Arc::clone(plan), lsn, spare) else { return Err(Stop::Wait) };
    let by_key = plan.order.as_ref().is_some_and(|order| order.is_by_key());
    let mut after = Vec::new();
    loop {
        let (rows, more) = mirror.page_within(table, &after, PAGE_ROWS, PAGE_BYTES)?;
        for row in &rows {
            let fits = with_values(&plan.table, &row.table, row.view(), |values| window.offer(values))?;
            if !fits {
                return Err(Stop::Refused(Refusal::Exhausted(too_large())));
            }
        }
        match rows.last() {
            // Rows come in the window's own order: those that follow are behind its bound.
            Some(_) if by_key && window.is_full() => break,
            Some(last) if more => after.clone_from(&last.key),
            _ => break,
        }
    }
    mirror.end()?;
    Ok(window)
}

/// Takes in what the journal has behind the window; `Wait` where that cannot be told from it, and the mirror has to move first.
pub fn advance(
    hub: &Hub,
    shape: &Arc<Shape>,
    plan: &Arc<ShapePlan>,
    epoch: u32,
    window: &mut Window,
) -> Result<(), Stop> {
    let end = hub.journal.sealed().lsn;
    if window.lsn >= end {
        return Ok(());
    }
    let pruned = |error| match error {
        JournalError::Pruned { .. } => Stop::Wait,
        error => Stop::from(error),
    };
    let table = (plan.table.id, plan.table.version);
    let mut follower = Follower::new(Arc::clone(shape), table, epoch, Some(Arc::clone(plan)));
    let mut reader = hub.journal.reader(window.lsn + 1).map_err(pruned)?;
    let (mut last, mut ends) = (window.lsn, window.ends);
    let mut body = Vec::new();
    while last < end {
        let Some(chunk) = reader.next(READ_BYTES).map_err(pruned)? else { break };
        for change in chunk.changes() {
            let change = change?;
            if !follower.concerns(&change) {
                continue;
            }
            body.clear();
            match window.take(&mut follower, &change, &mut body)? {
                Taken::Nothing | Taken::Rows(_) if !window.is_dry() => {}
                _ => return Err(Stop::Wait),
            }
        }
        (last, ends) = (chunk.last_lsn(), chunk.ends_txn());
    }
    (window.lsn, window.ends) = (last, ends);
    Ok(())
}

/// Makes a window anew that has run dry, or soon does, and hands it to the thread.
pub async fn refill(hub: Arc<Hub>, live: Arc<Live>, plan: Arc<ShapePlan>) {
    let Ok(_turn) = Arc::clone(&hub.refills).acquire_owned().await else { return };
    let work = {
        let (hub, live) = (Arc::clone(&hub), Arc::clone(&live));
        tokio::task::spawn_blocking(move || refill_now(&hub, &live, &plan))
    };
    let failed = !matches!(work.await, Ok(Ok(())));
    if failed {
        tracing::warn!(source = hub.source, table = %live.shape.spec.table, "a window could not be filled again");
        // All who follow it come again, and hear why.
        hub.refill(&live, Err(End::Anew));
    }
}

fn refill_now(hub: &Arc<Hub>, live: &Arc<Live>, plan: &Arc<ShapePlan>) -> Result<(), Stop> {
    let Some(mirror) = hub.mirror.clone() else { return Err(Stop::Gone) };
    let mut seen = mirror.watch();
    let mut reader = MirrorReader::new(mirror);
    let mut shutdown = hub.shutdown();
    let mut times = 1;
    while !live.has_ended() && !*shutdown.borrow() {
        seen.borrow_and_update();
        let made = remake(hub, &mut reader, live, plan, &mut times);
        reader.end()?;
        match made {
            Ok(()) => return Ok(()),
            Err(Stop::Wait) => tokio::runtime::Handle::current().block_on(async {
                tokio::select! {
                    _ = seen.changed() => {}
                    _ = shutdown.wait_for(|stop| *stop) => {}
                    () = tokio::time::sleep(WAIT_LOOK) => {}
                }
            }),
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

fn remake(
    hub: &Arc<Hub>,
    reader: &mut MirrorReader,
    live: &Arc<Live>,
    plan: &Arc<ShapePlan>,
    times: &mut usize,
) -> Result<(), Stop> {
    let table = look(hub, reader, &live.shape, 0)?;
    if table.id != plan.table.id || table.table.version != plan.table.version {
        // The thread meets the statement that made it another, or the mirror does.
        return Err(Stop::Wait);
    }
    let mut window = fill(hub, reader, &table, plan, *times)?;
    loop {
        let advanced = advance(hub, &live.shape, plan, live.epoch(), &mut window);
        if window.is_dry() {
            *times = more_spare(*times);
        }
        advanced?;
        match hub.refill(live, Ok(window)) {
            None => {
                hub.stats.refills.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(behind) => window = behind,
        }
    }
}
