//! Runs by schedule: a node with `schedule`, and behind it everything that stands on it and has no schedule of its own.

use super::runner::{Ask, Warehouse};
use ::warehouse::graph::Node;
use base::schedule::Schedule;
use catalog::RunState;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The clock is looked at again after as long: it may be set meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A run that was missed while the node was down is made up for, once, when it is not older than this.
const CATCH_UP_MAX: SignedDuration = SignedDuration::from_hours(24);

struct Timed {
    node: Node,
    schedule: Schedule,
    next: Option<Zoned>,
    /// The last batch that it began.
    batch: Option<i64>,
}

/// One task for everything that has a schedule.
pub fn spawn(warehouse: &Warehouse, tasks: &mut JoinSet<()>, shutdown: &watch::Receiver<bool>) {
    let now = Timestamp::now().to_zoned(warehouse.zone().clone());
    let timed = warehouse.graph().nodes().filter_map(|node| {
        let schedule = warehouse.schedule_of(node)?;
        Some(Timed {
            next: first(warehouse, node, &schedule, &now),
            schedule,
            node: node.clone(),
            batch: None,
        })
    });
    let mut timed: Vec<Timed> = timed.collect();
    if timed.is_empty() {
        return;
    }
    let (warehouse, mut stop) = (warehouse.clone(), shutdown.clone());
    tasks.spawn(async move {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = run(&warehouse, &mut timed) => {}
        }
    });
}

/// When a node runs first: at once where a time of the last day was missed, else by its schedule. A run that was cut off counts as
/// missed.
fn first(warehouse: &Warehouse, node: &Node, schedule: &Schedule, now: &Zoned) -> Option<Zoned> {
    let ended = [RunState::Ok, RunState::Warned, RunState::Failed];
    let last = warehouse.catalog().last_run(node.kind(), node.name(), &ended).ok().flatten();
    let last = last.and_then(|run| Timestamp::from_millisecond(run.started_ms).ok());
    let next = schedule.next(now);
    // A node that has never run begins with its next time.
    let Some(last) = last else { return next };
    let from = last.max(now.timestamp().saturating_sub(CATCH_UP_MAX).unwrap_or(last));
    let missed = schedule.next(&from.to_zoned(now.time_zone().clone()));
    missed.filter(|missed| missed <= now).or(next)
}

async fn run(warehouse: &Warehouse, timed: &mut [Timed]) {
    loop {
        let due = timed.iter_mut().filter(|it| it.next.is_some()).min_by(|a, b| a.next.cmp(&b.next));
        let Some(due) = due else { return };
        let Some(next) = &due.next else { return };
        let wait = next.timestamp().duration_since(Timestamp::now());
        if wait > SignedDuration::ZERO {
            tokio::time::sleep(wait.unsigned_abs().min(LOOK_MAX)).await;
            continue;
        }
        let graph = warehouse.graph();
        let behind = graph.downstream(&due.node).into_iter().filter(|it| warehouse.schedule_of(it).is_none());
        let nodes: Vec<Node> = std::iter::once(due.node.clone()).chain(behind).collect();
        let ask = Ask { target: format!("{}+", due.node.name()), ..Ask::default() };
        let goes_on = due.batch.is_some_and(|batch| {
            let run = warehouse.catalog().run(batch).ok().flatten();
            run.is_some_and(|run| run.state == RunState::Running)
        });
        let name = due.node.name();
        if goes_on {
            tracing::warn!(name, "a run by schedule is left out: the one before goes on");
        } else {
            match warehouse.start_nodes(nodes, ask, "schedule") {
                Ok(batch) => due.batch = Some(batch),
                Err(failure) => {
                    tracing::error!(name, error = failure.message, "a run by schedule did not begin");
                }
            }
        }
        let now = Timestamp::now().to_zoned(warehouse.zone().clone());
        due.next = due.schedule.next(&now);
    }
}
