//! `tidemill subscribe`: a device of its own. Prints what comes, or keeps a copy in a SQLite file.

use crate::client::{bearer, node_url};
use crate::commands::load_node;
use crate::failure::Failure;
use base::Secret;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::v1::subscribe_response::Event;
use client::v1::value::Kind;
use client::v1::{Column, Op, OrderBy, ResetReason, Shape, SubscribeResponse, Value};
use client::{Copy, CopyError, Heard, Node, Subscription, Tls};
use futures_util::FutureExt as _;
use indicatif::ProgressBar;
use serde_json::{Map, Value as Json, json};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Changes that are stored together while more are there already.
const TOGETHER_MAX: usize = 20_000;
/// How long a node may be silent where the command is to end by itself.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct SubscribeArgs {
    /// The source's name.
    source: String,
    /// The table: `db.table`.
    #[arg(long, value_name = "DB.TABLE")]
    table: String,
    /// Only rows for which this is true; MySQL's syntax.
    #[arg(long = "where", value_name = "EXPR", default_value = "", hide_default_value = true)]
    filter: String,
    /// Only these columns, and the key's; all by default.
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Only the first rows in this order, with `--limit`: `amount DESC,id`. The table's key decides between equal rows.
    #[arg(long, value_name = "COLUMN [DESC]", value_delimiter = ',', requires = "limit")]
    order_by: Vec<String>,
    /// Only so many rows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Keep a copy in this SQLite file: filled at first, then brought up to date from where it was.
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    into: Option<PathBuf>,
    /// Keep the place in this file, and go on from there the next time.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Begin behind this place where the file has none: a token in base64, as `Tidemill-Token` of a message that a broker has.
    #[arg(long, value_name = "BASE64", conflicts_with = "into")]
    token: Option<String>,
    /// End when all has come that there is.
    #[arg(long)]
    until_up_to_date: bool,
    /// The node's address; the project's own by default.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A PEM file that the node's certificate is checked by.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A PEM file of the certificate that is shown where the node asks for one.
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CLIENT_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// A PEM file of that certificate's key.
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CLIENT_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

pub async fn run(dir: &Path, args: SubscribeArgs, json: bool, quiet: bool) -> Result<(), Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => node_url(&load_node(dir)?),
    };
    let (authority, cert, key) =
        (read(args.ca.as_deref())?, read(args.cert.as_deref())?, read(args.key.as_deref())?);
    let key = key.map(Secret::new);
    let tls = Tls {
        authority: authority.as_deref(),
        identity: cert.as_deref().zip(key.as_ref().map(Secret::expose)),
    };
    let bearer = bearer()?;
    let node = Node::secured(&url, bearer.as_ref().map(Secret::expose), tls)
        .map_err(|error| Failure::new(2, base::error::chain(&error)))?;
    let shape = Shape {
        source: args.source.clone(),
        table: args.table.clone(),
        columns: args.columns.clone(),
        r#where: args.filter.clone(),
        order_by: args.order_by.iter().map(|text| order_by(text)).collect::<Result<_, _>>()?,
        limit: args.limit.unwrap_or_default(),
    };
    let mut device = match &args.into {
        Some(path) => Device::Copy(
            Box::new(Copy::open(path, &shape).map_err(|error| refused(path, &error))?),
            Progress::new(json || quiet),
        ),
        None => {
            Device::Lines(Lines { columns: Vec::new(), token_file: args.token_file.clone(), unread: false })
        }
    };
    let mut token = device.token()?;
    if token.is_empty()
        && let Some(text) = &args.token
    {
        token = BASE64_STANDARD.decode(text.trim()).map_err(|_| {
            Failure::new(2, "`--token` is no base64").hint("give it as it stands in `Tidemill-Token`")
        })?;
    }
    let mut subscription = Subscription::new(node, shape, token);
    let begun = Instant::now();
    loop {
        let heard = tokio::select! {
            heard = subscription.next() => heard,
            _ = tokio::signal::ctrl_c() => {
                device.commit()?;
                return Err(Failure::new(130, ""));
            }
        };
        let mut response = match heard {
            Ok(Heard::Response(response)) => response,
            Ok(Heard::Broken { reason, .. }) => {
                device.commit()?;
                if args.until_up_to_date && begun.elapsed() > ANSWER_WAIT {
                    return Err(Failure::new(3, format!("{url} does not answer: {reason}"))
                        .hint("start it with `tidemill up`"));
                }
                if !quiet {
                    eprintln!("{url} does not answer ({reason}); trying again");
                }
                continue;
            }
            Err(status) => return Err(failure(&status)),
        };
        // What has come already is stored with it.
        let mut taken = 0;
        loop {
            taken += match &response.event {
                Some(Event::Batch(batch)) => batch.changes.len(),
                _ => 1,
            };
            let up_to_date = matches!(response.event, Some(Event::UpToDate(_)));
            match device.take(&response) {
                Ok(()) => {}
                Err(CopyError::Differs { own, wanted }) => {
                    eprintln!(
                        "the copy had {} rows and the source {}, or other contents: it is filled anew",
                        own.rows, wanted.rows
                    );
                    subscription.rewind(Vec::new());
                    break;
                }
                Err(error) => return Err(Failure::new(1, base::error::chain(&error))),
            }
            if up_to_date && args.until_up_to_date {
                device.commit()?;
                return device.finish(begun, json, quiet);
            }
            if up_to_date || taken >= TOGETHER_MAX {
                break;
            }
            // What else may be said, is said again.
            let Some(Ok(Heard::Response(more))) = subscription.next().now_or_never() else { break };
            response = more;
        }
        device.commit()?;
    }
}

/// The text of a file that an option names.
fn read(path: Option<&Path>) -> Result<Option<String>, Failure> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| Failure::io(&format!("read {}", path.display()), &e))
    };
    path.map(read).transpose()
}

/// `COLUMN`, `COLUMN ASC` or `COLUMN DESC`.
fn order_by(text: &str) -> Result<OrderBy, Failure> {
    let mut words = text.split_whitespace();
    let (column, direction) = (words.next(), words.next().unwrap_or("ASC").to_ascii_uppercase());
    match (column, direction.as_str(), words.next()) {
        (Some(column), "ASC" | "DESC", None) => {
            Ok(OrderBy { column: column.trim_matches('`').to_owned(), descending: direction == "DESC" })
        }
        _ => Err(Failure::new(2, format!("`{text}` is no order"))
            .hint("name columns, each with DESC behind it or not: --order-by 'amount DESC,id'")),
    }
}

fn refused(path: &Path, error: &CopyError) -> Failure {
    let failure =
        Failure::new(1, format!("failed to open {}: {}", path.display(), base::error::chain(error)));
    match error {
        CopyError::OtherShape(_) => Failure { status: 2, ..failure }
            .hint("a copy is of one shape: ask for the same, or name another file"),
        _ => failure.hint("it must be a file that `tidemill subscribe` made, or none"),
    }
}

/// What a status means to who typed the command.
fn failure(status: &Status) -> Failure {
    let (message, hint) = match status.message().split_once("; hint: ") {
        Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
        None => (status.message().to_owned(), None),
    };
    let exit = match status.code() {
        Code::InvalidArgument | Code::NotFound => 2,
        Code::Unavailable => 3,
        _ => 1,
    };
    let failure = Failure::new(exit, message);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

enum Device {
    Copy(Box<Copy>, Progress),
    Lines(Lines),
}

impl Device {
    fn token(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Copy(copy, _) => Ok(copy.token().to_vec()),
            Self::Lines(Lines { token_file: Some(path), .. }) => match std::fs::read(path) {
                Ok(token) => Ok(token),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(Failure::io(&format!("read {}", path.display()), &error)),
            },
            Self::Lines(_) => Ok(Vec::new()),
        }
    }

    fn take(&mut self, response: &SubscribeResponse) -> Result<(), CopyError> {
        match self {
            Self::Copy(copy, progress) => {
                progress.see(response);
                copy.apply(response)
            }
            Self::Lines(lines) => {
                lines.print(response);
                Ok(())
            }
        }
    }

    fn commit(&mut self) -> Result<(), Failure> {
        match self {
            Self::Copy(copy, _) => copy.commit().map_err(|error| Failure::new(1, base::error::chain(&error))),
            // As a program ends that writes into a closed pipe.
            Self::Lines(lines) if lines.unread => Err(Failure::new(128 + libc::SIGPIPE as u8, "")),
            Self::Lines(_) => Ok(()),
        }
    }

    fn finish(&mut self, begun: Instant, json: bool, quiet: bool) -> Result<(), Failure> {
        let Self::Copy(copy, progress) = self else { return Ok(()) };
        progress.end();
        let client::Totals { rows, checksum } = copy.totals();
        if json {
            let line = json!({"table": copy.table(), "rows": rows, "checksum": format!("{checksum:016x}"),
                "lsn": copy.lsn(), "changes": progress.changes, "proven": progress.proven});
            let _ = writeln!(std::io::stdout(), "{line}");
        } else if !quiet {
            let proof = if progress.proven { "as the source's" } else { "not compared" };
            let _ = writeln!(
                std::io::stdout(),
                "{}: {rows} rows, checksum {checksum:016x} ({proof}), up to change {}; {} changes came in {:.1} s",
                copy.table(),
                copy.lsn(),
                progress.changes,
                begun.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }
}

/// How far a copy is.
struct Progress {
    bar: Option<ProgressBar>,
    changes: u64,
    /// Whether the last checksum was the copy's own.
    proven: bool,
}

impl Progress {
    fn new(hidden: bool) -> Self {
        let bar = (!hidden && std::io::stderr().is_terminal()).then(|| ProgressBar::new(0));
        Self { bar, changes: 0, proven: false }
    }

    fn see(&mut self, response: &SubscribeResponse) {
        match &response.event {
            Some(Event::Ready(ready)) => {
                if let Some(bar) = &self.bar {
                    bar.set_length(ready.rows);
                }
            }
            Some(Event::Batch(batch)) => {
                self.changes += batch.changes.len() as u64;
                self.proven = false;
                if let Some(bar) = &self.bar {
                    bar.inc(batch.changes.len() as u64);
                }
            }
            Some(Event::Checkpoint(_)) => self.proven = true,
            Some(Event::UpToDate(_)) => self.end(),
            _ => {}
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// What comes, a line each.
struct Lines {
    columns: Vec<Column>,
    token_file: Option<PathBuf>,
    /// Nobody reads what is printed any more.
    unread: bool,
}

impl Lines {
    fn print(&mut self, response: &SubscribeResponse) {
        let lines: Vec<Json> = match &response.event {
            None => Vec::new(),
            Some(Event::Schema(schema)) => {
                self.columns.clone_from(&schema.columns);
                let columns: Vec<Json> = schema
                    .columns
                    .iter()
                    .map(|c| json!({"name": c.name, "type": c.r#type, "key": c.key}))
                    .collect();
                vec![json!({"event": "schema", "columns": columns})]
            }
            Some(Event::Batch(batch)) => batch.changes.iter().map(|change| self.change(change)).collect(),
            Some(Event::Ready(ready)) => {
                let mode = ready.mode().as_str_name().trim_start_matches("MODE_").to_lowercase();
                vec![
                    json!({"event": "ready", "mode": mode, "subscription": ready.subscription, "rows": ready.rows}),
                ]
            }
            Some(Event::SnapshotEnd(_)) => vec![json!({"event": "snapshot_end", "lsn": response.lsn})],
            Some(Event::UpToDate(_)) => vec![json!({"event": "up_to_date", "lsn": response.lsn})],
            Some(Event::Checkpoint(point)) => {
                let checksum = format!("{:016x}", point.checksum);
                vec![
                    json!({"event": "checkpoint", "lsn": response.lsn, "rows": point.rows, "checksum": checksum}),
                ]
            }
            Some(Event::Heartbeat(_)) => Vec::new(),
            Some(Event::Reset(reset)) => {
                let reason = ResetReason::try_from(reset.reason).unwrap_or_default();
                let reason = reason.as_str_name().trim_start_matches("RESET_REASON_").to_lowercase();
                vec![json!({"event": "reset", "reason": reason, "detail": reset.detail})]
            }
            Some(Event::Reached(reached)) => vec![json!({"event": "reached", "mark": reached.mark})],
        };
        let mut out = std::io::stdout().lock();
        let printed = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
        if printed.is_err() {
            // What was not printed comes again the next time.
            self.unread = true;
            return;
        }
        if let Some(path) = self.token_file.as_ref().filter(|_| !response.token.is_empty()) {
            // In one step, so that no kill leaves a part of it.
            let next = path.with_extension("next");
            let written = std::fs::write(&next, &response.token).and_then(|()| std::fs::rename(&next, path));
            if let Err(error) = written {
                eprintln!("failed to write {}: {error}", path.display());
            }
        }
    }

    fn change(&self, change: &client::v1::Change) -> Json {
        let op = Op::try_from(change.op).unwrap_or_default();
        let name = op.as_str_name().trim_start_matches("OP_").to_lowercase();
        let mut key: Vec<&Column> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        let columns: Vec<&Column> = if op == Op::Put { self.columns.iter().collect() } else { key };
        let cells: Map<String, Json> = columns
            .iter()
            .zip(&change.values)
            .map(|(column, value)| (column.name.clone(), plain(value)))
            .collect();
        match op {
            Op::Put => json!({"op": name, "lsn": change.lsn, "row": cells}),
            Op::Truncate => json!({"op": name, "lsn": change.lsn}),
            _ => json!({"op": name, "lsn": change.lsn, "key": cells}),
        }
    }
}

fn plain(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::Null(_)) => Json::Null,
        Some(Kind::Int(v)) => (*v).into(),
        Some(Kind::Uint(v)) => (*v).into(),
        Some(Kind::Double(v)) => (*v).into(),
        Some(Kind::Text(v)) => v.as_str().into(),
        Some(Kind::Bytes(v)) => v.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}
