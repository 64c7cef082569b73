//! `tidemill flow verify`: whether a sink holds what its source holds.

use crate::client::NodeClient;
use crate::commands::{load, print_table};
use crate::failure::Failure;
use crate::project::Project;
use async_trait::async_trait;
use flow::config::{FlowConfig, SinkConfig, SourceConfig, SourceKind};
use flow::verify::{Ends, Known, Mark, Mend, SourceEnd, TableReport, VerifyError, Watch, has_reached};
use indicatif::{ProgressBar, ProgressStyle};
use journal::RealDisk;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks at the node's status.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The flow is given up when nothing of it moves for as long.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The node that delivers the flow.
struct Node {
    client: NodeClient,
    source: String,
    flow: String,
    bar: Option<ProgressBar>,
}

impl Node {
    async fn status(&self) -> Result<(Value, Value), VerifyError> {
        let stalled = |failure: Failure| VerifyError::Stalled { message: failure.message };
        let status = self.client.get("/api/v1/status").await.map_err(stalled)?;
        let find = |list: &str, name: &str| {
            let all = status[list].as_array().into_iter().flatten();
            all.clone().find(|item| item["name"] == name).cloned().unwrap_or(Value::Null)
        };
        Ok((find("sources", &self.source), find("flows", &self.flow)))
    }

    /// Fails when nothing has moved for too long, with the error of one of `ends`, the last of which is the flow.
    fn check_moves(&self, moved: Instant, paused: bool, ends: &[&Value]) -> Result<(), VerifyError> {
        if !paused && moved.elapsed() <= STALL_MAX {
            return Ok(());
        }
        let error = ends.iter().find_map(|end| end["error"]["message"].as_str());
        let state = ends.last().and_then(|flow| flow["state"].as_str()).unwrap_or("unknown");
        let why = error.map_or_else(|| format!("it is {state}"), str::to_owned);
        Err(VerifyError::Stalled { message: format!("the flow `{}` does not deliver: {why}", self.flow) })
    }
}

#[async_trait]
impl Watch for Node {
    async fn delivered(&self, mark: &Mark) -> Result<(), VerifyError> {
        let mut moved = Instant::now();
        let mut seen = Value::Null;
        // What capture shows as read is sealed a moment later: the second look counts.
        let mut looks = 0;
        let mut wanted = None;
        loop {
            let (source, flow) = self.status().await?;
            if has_reached(mark, &source["position"]) {
                looks += 1;
                if looks == 2 {
                    wanted = source["lsn"].as_u64();
                }
            }
            if wanted.is_some_and(|lsn| flow["lsn"].as_u64() >= Some(lsn)) {
                return Ok(());
            }
            let now = watched(wanted, &source, &flow);
            if now != seen {
                (seen, moved) = (now, Instant::now());
            }
            // Someone paused it, and it may stay so.
            let paused = wanted.is_some() && flow["state"] == "paused";
            self.check_moves(moved, paused, &[&source, &flow])?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn repair(&self, table: &str, keys: &[Value], deletes: bool) -> Result<u64, VerifyError> {
        let failed = |message: String| VerifyError::Repair { table: table.to_owned(), message };
        let path = format!("/api/v1/flows/{}:repair", self.flow);
        let body = json!({"table": table, "keys": keys, "deletes": deletes});
        let answer = self.client.post(&path, &body).await.map_err(|failure| failed(failure.message))?;
        answer["lsn"].as_u64().ok_or_else(|| failed("the node does not say where they are".to_owned()))
    }

    async fn delivered_to(&self, lsn: u64) -> Result<(), VerifyError> {
        let mut moved = Instant::now();
        let mut seen = Value::Null;
        loop {
            let (_, flow) = self.status().await?;
            if flow["lsn"].as_u64() >= Some(lsn) {
                return Ok(());
            }
            if flow["lsn"] != seen {
                (seen, moved) = (flow["lsn"].clone(), Instant::now());
            }
            self.check_moves(moved, flow["state"] == "paused", &[&flow])?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn parked(&self) -> Result<HashSet<(String, String)>, VerifyError> {
        let stalled = |failure: Failure| VerifyError::Stalled { message: failure.message };
        let (mut rows, mut after) = (HashSet::new(), 0);
        // Page by page, until one is empty.
        loop {
            let path = format!("/api/v1/flows/{}/dead-letters?after={after}", self.flow);
            let letters = self.client.get(&path).await.map_err(stalled)?;
            let letters = letters.as_array().map_or(&[][..], Vec::as_slice);
            rows.extend(letters.iter().flat_map(names));
            match letters.last().and_then(|letter| letter["lsn"].as_u64()).filter(|lsn| *lsn > after) {
                Some(last) => after = last,
                None => return Ok(rows),
            }
        }
    }

    fn progress(&self, table: &str, rows: u64, of: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(of);
            bar.set_position(rows);
            bar.set_message(table.to_owned());
        }
    }
}

/// What must move: capture until it has what is wanted, and from then on the flow, however busy the source is.
fn watched(wanted: Option<u64>, source: &Value, flow: &Value) -> Value {
    if wanted.is_some() { flow["lsn"].clone() } else { source["position"].clone() }
}

/// The rows that a parked change is of: a change of a key is of two.
fn names(letter: &Value) -> Vec<(String, String)> {
    let name = |part: &str| letter[part].as_str().unwrap_or_default().to_owned();
    let table = format!("{}.{}", name("db"), name("table"));
    let keys = ["key", "old_key"].map(|key| &letter[key]).into_iter().filter(|key| !key.is_null());
    keys.map(|key| (table.clone(), key.to_string())).collect()
}

/// A flow and its two ends.
pub struct FlowEnds<'a> {
    pub name: &'a str,
    pub config: &'a FlowConfig,
    pub source: &'a SourceConfig,
    pub sink: &'a SinkConfig,
    /// Where the node keeps its files.
    pub data_dir: &'a Path,
}

impl FlowEnds<'_> {
    /// What its source's journal knows; a journal that cannot be read knows nothing, and the node tells why.
    fn known(&self) -> Known {
        let dir = self.data_dir.join("journal").join(&self.config.from);
        let journal = journal::open_read_only(Arc::new(RealDisk), &dir);
        let tables = journal.map(|journal| journal.state().tables.into_values().collect());
        Known { tables: tables.unwrap_or_default(), scratch: self.data_dir.to_owned() }
    }
}

/// Compares the ends of a flow that a node delivers, and mends what differs where that is asked for.
pub async fn compare(
    client: NodeClient,
    flow: FlowEnds<'_>,
    tables: &[String],
    mend: &Mend,
    bar: Option<ProgressBar>,
) -> Result<Vec<TableReport>, Failure> {
    let known = flow.known();
    let FlowEnds { name, config, source, sink, .. } = flow;
    let node = Node { client, source: config.from.clone(), flow: name.to_owned(), bar };
    // Without a node nothing moves, and what is on its way would look like a difference.
    node.client.get("/api/v1/status").await?;
    let failed = |error: VerifyError| Failure::of("compare", &error);
    let source = SourceEnd { name: &config.from, config: source, known };
    let mut ends = Ends::open(source, name, sink, config, tables, &node).await.map_err(failed)?;
    ends.compare(&node, mend).await.map_err(failed)
}

/// Compares the ends of a flow; fails when they differ.
pub async fn run(
    dir: &Path,
    flow: &str,
    tables: &[String],
    repair: bool,
    json: bool,
    quiet: bool,
) -> Result<(), Failure> {
    let project = load(dir)?;
    let Some(config) = project.flows.get(flow) else {
        let names: Vec<_> = project.flows.keys().map(String::as_str).collect();
        return Err(Failure::new(2, format!("there is no flow `{flow}`"))
            .hint(format!("there are: {}", names.join(", "))));
    };
    let (source, sink) = (&project.sources[&config.from], &project.sinks[&config.to]);
    let bar = (!json && !quiet && std::io::stderr().is_terminal()).then(|| {
        let style = ProgressStyle::with_template("{msg} {bar:30} {human_pos}/{human_len} rows  eta {eta}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let pair = FlowEnds { name: flow, config, source, sink, data_dir: &project.node.data_dir };
    let mend = if repair { mend(&project, flow)? } else { Mend::Nothing };
    let reports = compare(NodeClient::new(&project.node)?, pair, tables, &mend, bar.clone()).await?;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let equal = reports.iter().all(TableReport::is_equal);
    if json {
        println!("{}", json!({"flow": flow, "equal": equal, "tables": reports}));
    } else {
        show(&reports, repair);
    }
    if reports.is_empty() {
        return Err(Failure::new(2, "no table of the source is carried by this flow")
            .hint("see its `tables:`, and those of the source"));
    }
    if equal {
        return Ok(());
    }
    let differ = reports.iter().filter(|report| !report.is_equal()).count();
    let mended = if repair { "still " } else { "" };
    let mut ways = vec![format!("see `tidemill flow dead-letters {flow}`")];
    if !repair && source.kind == SourceKind::Mysql {
        ways.push(format!("`tidemill flow verify {flow} --repair` delivers again what differs"));
    }
    ways.push(format!("`tidemill flow resnapshot {flow} TABLE` fills a table anew"));
    Err(Failure::new(4, format!("{differ} of {} tables {mended}differ", reports.len())).hint(ways.join("; ")))
}

/// What a repair of the flow can do.
fn mend(project: &Project, flow: &str) -> Result<Mend, Failure> {
    let config = &project.flows[flow];
    if project.sources[&config.from].kind != SourceKind::Mysql {
        let message = format!("the source `{}` has no row that could be read again by its key", config.from);
        let hint = format!("`tidemill flow resnapshot {flow}` reads the source anew");
        return Err(Failure::new(2, message).hint(hint));
    }
    let others = project.flows.iter().filter(|(name, _)| *name != flow);
    let others = others.map(|(name, other)| (name.as_str(), other));
    Ok(Mend::of(config, &project.sinks[&config.to], others))
}

fn show(reports: &[TableReport], repair: bool) {
    let heads = ["TABLE", "COPY", "ROWS", "MISSING", "EXTRA", "DIFFERENT", "UNDECIDED", "PARKED"];
    let heads = heads.into_iter().chain(repair.then_some("REPAIRED")).chain([""]);
    let mut rows = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    for report in reports {
        let numbers =
            [report.rows, report.missing, report.extra, report.different, report.undecided, report.parked];
        let mut row = vec![report.table.clone(), report.copy.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row.extend(repair.then(|| report.repaired.to_string()));
        row.push(if report.is_equal() { "equal" } else { "differs" }.to_owned());
        rows.push(row);
    }
    print_table(&rows);
    for report in reports {
        if let Some(note) = &report.note {
            println!("\n{}: {note}", report.table);
        }
        if let Some(unchecked) = &report.unchecked {
            println!("\n{}: {unchecked}", report.table);
        }
        if let Some(unrepaired) = &report.unrepaired {
            println!("\n{}: {unrepaired}", report.table);
        }
        for difference in &report.differences {
            let state = match (repair, difference.repaired) {
                (false, _) => "",
                (true, true) => ", repaired",
                (true, false) => ", and still so",
            };
            println!("\n{}: {} {}{state}", report.table, difference.kind, difference.key);
            let (source, sink) = (&difference.source, &difference.sink);
            let names = source.as_ref().or(sink.as_ref()).into_iter().flat_map(|row| row.keys());
            for name in names {
                let of = |row: &Option<std::collections::BTreeMap<String, String>>| {
                    row.as_ref().and_then(|row| row.get(name).cloned()).unwrap_or_else(|| "no row".to_owned())
                };
                let (source, sink) = (of(source), of(sink));
                if source != sink {
                    println!("  {name}: source {source}, sink {sink}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_moves_is_no_sign_of_a_flow_that_does() {
        let (source, flow) = (json!({"position": {"pos": 1}}), json!({"lsn": 5}));
        let later = json!({"position": {"pos": 2}});
        assert_ne!(watched(None, &source, &flow), watched(None, &later, &flow));
        assert_eq!(watched(Some(9), &source, &flow), watched(Some(9), &later, &flow));
        assert_ne!(watched(Some(9), &source, &flow), watched(Some(9), &source, &json!({"lsn": 6})));
    }
}
