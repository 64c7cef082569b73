//! `check --connect`: reaches every system of a project, changes nothing, and tells what stands in the way.

use crate::commands::many;
use crate::project::Project;
use base::{Code, Fault, TableName};
use collect::reader::ReadError;
use flow::capture::CaptureError;
use flow::capture::kafka;
use flow::capture::mysql::check::{inspect_for, inspect_tables};
use flow::capture::mysql::connect::Address;
use flow::capture::mysql::schema;
use flow::capture::reach::Reach;
use flow::capture::sqlite;
use flow::capture::statements;
use flow::config::{FlowConfig, SinkKind, SourceConfig, SourceKind};
use flow::deliver::sink::SinkError;
use flow::patterns::Patterns;
use std::path::Path;
use std::time::Duration;

const PROBE_MAX: Duration = Duration::from_secs(10);
const AWAY_HINT: &str = "is the server up, and the url right?";

/// Something that must be mended.
pub struct Finding {
    /// The file that names the system.
    pub place: String,
    pub message: String,
    pub hint: String,
    /// Whether it is that nobody answered.
    pub unreachable: bool,
}

/// What was found.
#[derive(Default)]
pub struct Report {
    /// What each system is, for a person to read.
    pub lines: Vec<String>,
    /// What is no mistake, and perhaps not meant.
    pub notes: Vec<String>,
    pub findings: Vec<Finding>,
}

pub async fn reach(project: &Project) -> Report {
    let mut report = Report::default();
    for (name, config) in &project.sources {
        let place = format!("sources/{name}.yaml");
        let reach = Reach::new(name, config, &project.flows);
        let looked = match config.kind {
            SourceKind::Mysql => look_at_mysql(&place, config, &reach, &mut report).await,
            SourceKind::Sqlite => look_at_sqlite(&place, config, &reach, &mut report),
            SourceKind::Capture => {
                look_at_capture(&place, config, &mut report);
                continue;
            }
            // It is reached, and reaches nobody.
            SourceKind::Http => continue,
            SourceKind::Kafka => {
                if let Err(error) = look_at_kafka(&place, config, &mut report).await {
                    report.findings.push(unreached(place, &error));
                }
                // Which tables there are is known when the topics are read.
                continue;
            }
        };
        match looked {
            // Where a grant is missing, no table is seen: that is told with its hint.
            Ok(seen) if seen.is_empty() && report.findings.iter().any(|found| found.place == place) => {}
            Ok(seen) => {
                let idle = reach.idle(&seen).into_iter();
                report.notes.extend(idle.map(|idle| format!("{}: {}", idle.path, idle.message)));
            }
            Err(error) => report.findings.push(unreached(place, &error)),
        }
    }
    for mistake in crate::indicators::reach(project).await {
        let (place, message, hint) = (mistake.path, mistake.message, mistake.hint);
        report.findings.push(Finding { place, message, hint, unreachable: false });
    }
    for (name, source) in &project.collected {
        look_at_collected(name, source, project, &mut report).await;
    }
    if let Some(mesh) = &project.mesh {
        for met in mesh::reach(mesh).await {
            match met.trouble {
                None => report.lines.push(format!("mesh.yaml: {}: {}", met.address, met.line)),
                Some(message) => report.findings.push(Finding {
                    place: "mesh.yaml".into(),
                    message: format!("{}: {message}", met.address),
                    hint: met.hint,
                    unreachable: true,
                }),
            }
        }
    }
    for (name, config) in &project.sinks {
        if config.kind == SinkKind::Stdout {
            continue;
        }
        let probe = FlowConfig::probe(name);
        let opened = match flow::sinks::build("tidemill_check", "check", name, config, &probe) {
            Ok(mut sink) => {
                let probed = tokio::time::timeout(PROBE_MAX, sink.probe()).await;
                let silent = || SinkError::Unavailable { message: "no answer within 10 s".into() };
                probed.unwrap_or_else(|_| Err(silent()))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            let hint = match &error {
                SinkError::Blocked { hint, .. } => hint.clone(),
                _ => AWAY_HINT.into(),
            };
            let unreachable = matches!(error, SinkError::Unavailable { .. } | SinkError::Later { .. });
            let (place, message) = (format!("sinks/{name}.yaml"), base::error::chain(&error));
            report.findings.push(Finding { place, message, hint, unreachable });
        }
    }
    report
}

async fn look_at_mysql(
    place: &str,
    config: &SourceConfig,
    reach: &Reach,
    report: &mut Report,
) -> Result<Vec<TableName>, CaptureError> {
    let mut conn = Address::new(config)?.connect().await?;
    let (server, mut findings) = inspect_for(&mut conn, &config.tables).await?;
    findings.extend(inspect_tables(&mut conn, &server, &config.tables, &patterns(config)).await?);
    let seen = schema::list_tables(&mut conn).await?;
    let tables = many(reach.captured(&seen).len(), "table");
    report.lines.push(format!("{place}: {} as {}, captures {tables}", server.version, server.user));
    report.findings.extend(findings.into_iter().map(|found| Finding {
        place: place.to_owned(),
        message: found.message,
        hint: found.hint,
        unreachable: false,
    }));
    Ok(seen)
}

fn unreached(place: String, error: &CaptureError) -> Finding {
    let hint = error.hint.clone().unwrap_or_else(|| AWAY_HINT.into());
    Finding { place, message: base::error::chain(error), hint, unreachable: true }
}

/// Opens what is collected, and compares the tables that it has with those that flows name.
async fn look_at_collected(name: &str, source: &collect::Source, project: &Project, report: &mut Report) {
    let place = format!("sources/{name}.yaml");
    // Capture has met it already.
    if report.findings.iter().any(|it| it.place == place) {
        return;
    }
    let listed = async { collect::open_reader(source).await?.tables().await };
    let listed = tokio::time::timeout(PROBE_MAX, listed).await;
    let silent = || Err(ReadError::Unavailable("no answer within 10 s".into()));
    let tables = match listed.unwrap_or_else(|_| silent()) {
        Ok(tables) => tables,
        Err(error) => {
            return report.findings.push(Finding {
                place,
                message: format!("failed to read the source: {}", base::error::chain(&error)),
                hint: error.hint().unwrap_or_else(|| AWAY_HINT.into()),
                unreachable: error.code() == Code::Unavailable,
            });
        }
    };
    let shown = many(tables.len(), "table");
    report.lines.push(format!("{place}: {shown} can be collected"));
    for (flow, config) in project.collections.iter().filter(|(_, config)| config.from == name) {
        if !tables.iter().any(|table| config.reads(table)) {
            let has: Vec<&str> = tables.iter().take(20).map(String::as_str).collect();
            report.findings.push(Finding {
                place: format!("flows/{flow}.yaml"),
                message: format!("the source `{name}` has no table that `tables` means"),
                hint: format!("it has: {}", has.join(", ")),
                unreachable: false,
            });
        }
    }
}

fn look_at_capture(place: &str, config: &SourceConfig, report: &mut Report) {
    let Some(folder) = &config.path else { return };
    match statements::inspect(folder) {
        Ok((0, _)) => report.notes.push(format!(
            "{place}: {} has no captures yet: `tidemill mesh capture start` on the mesh's node begins one",
            folder.display()
        )),
        Ok((files, bytes)) => report.lines.push(format!(
            "{place}: {} of captured statements, {:.1} MB",
            many(files, "file"),
            bytes as f64 / 1e6
        )),
        Err(error) => report.findings.push(unreached(place.to_owned(), &error)),
    }
}

async fn look_at_kafka(place: &str, config: &SourceConfig, report: &mut Report) -> Result<(), CaptureError> {
    let listed = tokio::time::timeout(PROBE_MAX, kafka::list_topics(config)).await;
    let topics = listed.unwrap_or_else(|_| Err(CaptureError::unavailable("no answer within 10 s")))?;
    let partitions = many(topics.iter().map(|(_, partitions)| partitions).sum(), "partition");
    report.lines.push(format!(
        "{place}: reads {} with {partitions} as {}",
        many(topics.len(), "topic"),
        config.options.format.name()
    ));
    let names: Vec<String> = topics.into_iter().map(|(name, _)| name).collect();
    for pattern in kafka::idle_patterns(config, &names) {
        report.notes.push(format!("{place}: `{pattern}` matches no topic"));
    }
    Ok(())
}

fn look_at_sqlite(
    place: &str,
    config: &SourceConfig,
    reach: &Reach,
    report: &mut Report,
) -> Result<Vec<TableName>, CaptureError> {
    let path: &Path = config.path.as_ref().expect("checked with the project");
    let seen = sqlite::list_tables(path)?;
    let statements = sqlite::install_statements(path, &patterns(config))?;
    let tables = many(reach.captured(&seen).len(), "table");
    report.lines.push(format!(
        "{place}: captures {tables}; `up` makes the table tidemill_changes and keeps these triggers:"
    ));
    report.lines.extend(statements.into_iter().map(|statement| format!("  {statement};")));
    for table in sqlite::displaceable_tables(path, &patterns(config)).unwrap_or_default() {
        report.lines.push(format!(
            "  note: `{table}` has a UNIQUE constraint besides its key: a row that INSERT OR REPLACE displaces by it is \
             only seen with PRAGMA recursive_triggers = ON in the application"
        ));
    }
    Ok(seen)
}

fn patterns(config: &SourceConfig) -> Patterns {
    Patterns::new(&config.tables, &config.exclude).expect("checked with the project")
}
