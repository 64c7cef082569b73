//! Comparisons by schedule: flows with `verify:`, one at a time, beside delivery. How each ended is in the status and in the
//! metrics; it stops nothing and changes nothing.

use crate::client::NodeClient;
use crate::failure::Failure;
use crate::project::Project;
use crate::start::RunningFlow;
use crate::verify::{FlowEnds, compare};
use flow::capture::status::ErrorStatus;
use flow::config::{FlowConfig, SinkConfig, SourceConfig};
use flow::deliver::status::{FlowStatusCell, VerifyStatus};
use flow::schedule::Schedule;
use flow::verify::{Mend, TableReport};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The clock is looked at again after as long: it may be set meanwhile.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// A flow that is compared by itself.
struct Scheduled {
    name: String,
    config: FlowConfig,
    source: SourceConfig,
    sink: SinkConfig,
    schedule: Schedule,
    status: FlowStatusCell,
    next: Option<Zoned>,
}

/// One task for all flows of the project that have a schedule.
pub fn spawn(
    project: &Project,
    running: &BTreeMap<String, RunningFlow>,
    client: &NodeClient,
    tasks: &mut JoinSet<()>,
    shutdown: &watch::Receiver<bool>,
) {
    let zone = project.node.timezone.as_deref().and_then(|zone| TimeZone::get(zone).ok());
    let zone = zone.unwrap_or(TimeZone::UTC);
    let now = Timestamp::now().to_zoned(zone.clone());
    let flows = project.flows.iter().filter_map(|(name, config)| {
        let schedule = config.verify.clone()?;
        Some(Scheduled {
            name: name.clone(),
            config: config.clone(),
            source: project.sources[&config.from].clone(),
            sink: project.sinks[&config.to].clone(),
            next: schedule.next(&now),
            schedule,
            status: running[name].status.clone(),
        })
    });
    let mut flows: Vec<Scheduled> = flows.collect();
    if flows.is_empty() {
        return;
    }
    for flow in &flows {
        // So that the first failure is an increase.
        metrics::counter!(base::metrics::VERIFY_FAILURES, "flow" => flow.name.clone()).absolute(0);
        metrics::gauge!(base::metrics::VERIFY_TIME, "flow" => flow.name.clone()).set(0.0);
    }
    let (mut stop, client) = (shutdown.clone(), client.clone());
    let data_dir = project.node.data_dir.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = run(&mut flows, &zone, &client, &data_dir) => {}
        }
    });
}

async fn run(flows: &mut [Scheduled], zone: &TimeZone, client: &NodeClient, data_dir: &Path) {
    loop {
        let due = flows.iter_mut().filter(|flow| flow.next.is_some()).min_by(|a, b| a.next.cmp(&b.next));
        let Some(flow) = due else { return };
        let Some(next) = &flow.next else { return };
        let wait = next.timestamp().duration_since(Timestamp::now());
        if wait > SignedDuration::ZERO {
            tokio::time::sleep(wait.unsigned_abs().min(LOOK_MAX)).await;
            continue;
        }
        let Scheduled { name, config, source, sink, .. } = &*flow;
        let ends = FlowEnds { name, config, source, sink, data_dir };
        let result = compare(client.clone(), ends, &[], &Mend::Nothing, None).await;
        let ended = Timestamp::now();
        note(flow, ended, result);
        // What was due meanwhile is not made up for.
        flow.next = flow.schedule.next(&ended.to_zoned(zone.clone()));
    }
}

/// Tells how a comparison ended.
fn note(flow: &Scheduled, ended: Timestamp, result: Result<Vec<TableReport>, Failure>) {
    let name = flow.name.clone();
    let status = match result {
        Ok(reports) => {
            let status = summed(ended, &reports);
            let VerifyStatus { rows, missing, extra, different, undecided, parked, .. } = status;
            let unfit = reports.iter().filter(|report| report.note.is_some()).count() as u64;
            let differences = missing + extra + different + undecided + parked + unfit;
            if status.equal == Some(true) {
                tracing::info!(flow = name, rows, "both ends are equal");
            } else {
                let hint = format!("see `tidemill flow verify {name}`");
                tracing::warn!(
                    flow = name,
                    missing,
                    extra,
                    different,
                    undecided,
                    parked,
                    hint,
                    "the ends differ"
                );
            }
            metrics::gauge!(base::metrics::VERIFY_TIME, "flow" => name.clone()).set(ended.as_second() as f64);
            metrics::gauge!(base::metrics::VERIFY_DIFFERENCES, "flow" => name).set(differences as f64);
            status
        }
        Err(failure) => {
            let (message, hint) = (failure.message, failure.hint);
            tracing::warn!(flow = name, error = message, hint, "the ends could not be compared");
            metrics::counter!(base::metrics::VERIFY_FAILURES, "flow" => name).increment(1);
            let error = Some(ErrorStatus { message, hint });
            VerifyStatus { at: at(ended), error, ..VerifyStatus::default() }
        }
    };
    flow.status.update(|shown| shown.verify = Some(status));
}

fn at(ended: Timestamp) -> String {
    ended.strftime("%FT%TZ").to_string()
}

fn summed(ended: Timestamp, reports: &[TableReport]) -> VerifyStatus {
    let sum = |count: fn(&TableReport) -> u64| reports.iter().map(count).sum();
    VerifyStatus {
        at: at(ended),
        equal: Some(reports.iter().all(TableReport::is_equal)),
        rows: sum(|report| report.rows),
        missing: sum(|report| report.missing),
        extra: sum(|report| report.extra),
        different: sum(|report| report.different),
        undecided: sum(|report| report.undecided),
        parked: sum(|report| report.parked),
        error: None,
    }
}
