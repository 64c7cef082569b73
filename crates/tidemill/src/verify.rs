//! `tidemill flow verify`: whether a sink holds what its source holds.

use crate::client::NodeClient;
use crate::commands::{load, print_table};
use crate::failure::Failure;
use async_trait::async_trait;
use flow::config::{FlowConfig, SinkConfig, SourceConfig};
use flow::verify::{Ends, Mark, TableReport, VerifyError, Watch, has_reached};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::Path;
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
            let position = &source["position"];
            let text = |name: &str| position[name].as_str();
            if has_reached(mark, text("gtid"), text("file"), position["pos"].as_u64().unwrap_or(0)) {
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
            if paused || moved.elapsed() > STALL_MAX {
                let error = [&source, &flow].into_iter().find_map(|end| end["error"]["message"].as_str());
                let state = flow["state"].as_str().unwrap_or("unknown");
                let why = error.map_or_else(|| format!("it is {state}"), str::to_owned);
                return Err(VerifyError::Stalled {
                    message: format!("the flow `{}` does not deliver: {why}", self.flow),
                });
            }
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
}

/// Compares the ends of a flow that a node delivers.
pub async fn compare(
    client: NodeClient,
    flow: FlowEnds<'_>,
    tables: &[String],
    bar: Option<ProgressBar>,
) -> Result<Vec<TableReport>, Failure> {
    let FlowEnds { name, config, source, sink } = flow;
    let node = Node { client, source: config.from.clone(), flow: name.to_owned(), bar };
    // Without a node nothing moves, and what is on its way would look like a difference.
    node.client.get("/api/v1/status").await?;
    let failed = |error: VerifyError| Failure::of("compare", &error);
    let mut ends = Ends::open(&config.from, source, name, sink, config, tables).await.map_err(failed)?;
    ends.compare(&node).await.map_err(failed)
}

/// Compares the ends of a flow; fails when they differ.
pub async fn run(dir: &Path, flow: &str, tables: &[String], json: bool, quiet: bool) -> Result<(), Failure> {
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
    let pair = FlowEnds { name: flow, config, source, sink };
    let reports = compare(NodeClient::new(&project.node), pair, tables, bar.clone()).await?;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let equal = reports.iter().all(TableReport::is_equal);
    if json {
        println!("{}", json!({"flow": flow, "equal": equal, "tables": reports}));
    } else {
        show(&reports);
    }
    if reports.is_empty() {
        return Err(Failure::new(2, "no table of the source is carried by this flow")
            .hint("see its `tables:`, and those of the source"));
    }
    if equal {
        return Ok(());
    }
    let differ = reports.iter().filter(|report| !report.is_equal()).count();
    Err(Failure::new(4, format!("{differ} of {} tables differ", reports.len())).hint(format!(
        "see `tidemill flow dead-letters {flow}`; `tidemill flow resnapshot {flow} TABLE` fills a table anew"
    )))
}

fn show(reports: &[TableReport]) {
    let heads = ["TABLE", "COPY", "ROWS", "MISSING", "EXTRA", "DIFFERENT", "UNDECIDED", "PARKED", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for report in reports {
        let numbers =
            [report.rows, report.missing, report.extra, report.different, report.undecided, report.parked];
        let mut row = vec![report.table.clone(), report.copy.clone()];
        row.extend(numbers.map(|number| number.to_string()));
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
        for difference in &report.differences {
            println!("\n{}: {} {}", report.table, difference.kind, difference.key);
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
