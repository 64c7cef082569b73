//! `tidemill mesh replay`: a capture, asked again of another server.

use crate::commands::{many, print_table};
use crate::failure::Failure;
use crate::mesh::shortened;
use base::Secret;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mesh::BackendTls;
use mesh::replay::{Options, Progress, ReplayError, Report, Speed, Target, run as replay};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Statements of the printed report; `--json` has all.
const STATEMENTS_SHOWN: usize = 20;
/// Time between two looks at how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct ReplayArgs {
    /// A file of a capture, or its folder.
    #[arg(long, value_name = "DIR_OR_FILE")]
    from: PathBuf,
    /// The server that is asked: `mysql://USER@HOST:PORT`. Its password never stands here.
    #[arg(long, value_name = "URL")]
    to: String,
    /// The variable of the environment that has the password.
    #[arg(long, value_name = "NAME")]
    password_env: Option<String>,
    /// TLS to the server.
    #[arg(long, value_enum, default_value = "off")]
    tls: Tls,
    /// So many times as fast as it was: `1`, `2`, `0.5`; `max` does not wait.
    #[arg(long, default_value = "1", value_parser = speed)]
    speed: Speed,
    /// Connections at once; a session that begins when there are as many is passed over.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: u32,
    /// Only what surely only reads, on connections that the server lets only read.
    #[arg(long)]
    read_only: bool,
    /// Show statements that differ with their literals.
    #[arg(long)]
    literals: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tls {
    /// Never.
    Off,
    /// Whoever signed its certificate.
    Require,
    /// The certificate must name the host and be signed by an authority of the system's.
    Verify,
}

fn speed(text: &str) -> Result<Speed, String> {
    match text.parse::<f64>() {
        Ok(times) if times.is_finite() && times >= 0.001 => Ok(Speed::Times(times)),
        Err(_) if text == "max" => Ok(Speed::Max),
        _ => Err("neither a number of times, from 0.001 on, nor `max`".to_owned()),
    }
}

/// The user and `host:port` of a URL that has no password.
fn place(url: &str) -> Result<(String, String), Failure> {
    let usage = |message: &str| {
        Failure::new(2, format!("`--to`: {message}"))
            .hint("--to mysql://app@127.0.0.1:3306 --password-env APP_PASSWORD")
    };
    let rest = url.strip_prefix("mysql://").ok_or_else(|| usage("it does not begin with `mysql://`"))?;
    let (user, address) = rest.rsplit_once('@').ok_or_else(|| usage("it has no user"))?;
    if user.contains(':') {
        return Err(usage("a password on the command line is seen by everyone on the machine"));
    }
    let address = address.trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "3306"));
    if user.is_empty() || host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err(usage("it is not `mysql://USER@HOST:PORT`"));
    }
    Ok((user.to_owned(), format!("{host}:{port}")))
}

pub async fn run(args: ReplayArgs, json: bool) -> Result<(), Failure> {
    let (user, address) = place(&args.to)?;
    let password = match &args.password_env {
        Some(name) => std::env::var(name).map_err(|_| {
            Failure::new(2, format!("the environment has no `{name}`")).hint("export it first")
        })?,
        None => String::new(),
    };
    let tls = match args.tls {
        Tls::Off => BackendTls::Off,
        Tls::Require => BackendTls::Require,
        Tls::Verify => BackendTls::Verify,
    };
    let target = Target::new(&address, &user, Secret::new(password), tls)
        .map_err(|error| Failure::of("prepare the replay", &error))?;
    let options = Options {
        speed: args.speed,
        sessions_max: usize::try_from(args.sessions).unwrap_or(usize::MAX),
        read_only: args.read_only,
        literals: args.literals,
    };
    let progress = Arc::new(Progress::default());
    let bar = (!json && std::io::stderr().is_terminal()).then(|| watch(progress.clone()));
    let report = replay(&args.from, target, options, progress).await;
    if let Some((bar, task)) = bar {
        task.abort();
        bar.finish_and_clear();
    }
    let report = report.map_err(|error| {
        let (status, hint) = match &error {
            ReplayError::Read { .. } => (2, "name a file `sql-….capture`, or the folder that has them"),
            ReplayError::Server(_) => (3, "see whether the server runs, and the user and password are right"),
            ReplayError::Ended => (1, "see above"),
        };
        Failure::new(status, base::error::chain(&error)).hint(hint)
    })?;
    if json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print(&report);
    }
    match report.differences + report.lost {
        0 => Ok(()),
        // What is to be said stands in the report.
        _ => Err(Failure::new(4, "")),
    }
}

fn watch(progress: Arc<Progress>) -> (ProgressBar, tokio::task::JoinHandle<()>) {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {bytes} of {total_bytes}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            shown.set_length(progress.total.load(Ordering::Relaxed));
            shown.set_position(progress.done.load(Ordering::Relaxed));
        }
    });
    (bar, task)
}

fn print(report: &Report) {
    let count = |number: u64, noun: &str| many(usize::try_from(number).unwrap_or(usize::MAX), noun);
    println!("asked      {}, in {:.1} s", report.to, report.elapsed_ms as f64 / 1e3);
    println!("compared   {} of {}", count(report.compared, "command"), count(report.sessions, "session"));
    println!("differ     {}", report.differences);
    println!("lost       {}", report.lost);
    let skipped = &report.skipped;
    for (number, why) in [
        (skipped.left_out, "its literals are not in the capture: it speaks of a secret"),
        (skipped.cut, "longer than what the capture keeps; see `statement_bytes`"),
        (skipped.unprepared, "executes what was not prepared here"),
        (skipped.administers, "administers the server, or reads or writes its files"),
        (skipped.writes, "may write, and --read-only was asked for"),
        (skipped.too_many_sessions, "of a session beyond --sessions"),
        (skipped.unreachable, "found no connection"),
    ] {
        if number > 0 {
            println!("not asked  {number}: {why}");
        }
    }
    for note in &report.notes {
        println!("note       {note}");
    }
    println!();
    let statements = serde_json::to_value(&report.statements).unwrap_or_default();
    print_compared(statements.as_array().map(Vec::as_slice).unwrap_or_default(), ["captured", "replayed"]);
}

/// What `GET /api/v1/mesh/mirror` answers.
pub fn print_mirrors(list: &Value) {
    let mirrors = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if mirrors.is_empty() {
        println!("no group has a `mirror`");
    }
    for mirror in mirrors {
        let number = |key: &str| mirror[key].as_u64().unwrap_or_default();
        println!(
            "group      {}, {} of 100 reads asked again of {}",
            mirror["group"].as_str().unwrap_or("-"),
            mirror["share"],
            mirror["to"].as_str().unwrap_or("-"),
        );
        println!("compared   {}", number("compared"));
        println!("differ     {}", number("differences"));
        for (key, why) in [
            ("shed", "too many waited"),
            ("lost", "no answer within `timeout`, or the connection broke"),
            ("unreachable", "found no connection"),
            ("unprepared", "executions of statements that are not known here"),
        ] {
            if number(key) > 0 {
                println!("{key:<10} {}: {why}", number(key));
            }
        }
        if let Some(error) = mirror["error"].as_str() {
            println!("trouble    {error}");
        }
        println!();
        let statements = mirror["statements"].as_array().map(Vec::as_slice).unwrap_or_default();
        print_compared(statements, ["group", "mirror"]);
        println!();
    }
}

/// Statements side by side, with an example of those that differ.
fn print_compared(statements: &[Value], [before, after]: [&str; 2]) {
    if statements.is_empty() {
        println!("nothing was compared yet");
        return;
    }
    println!("times in ms: {before} > {after}");
    let heads = ["CALLS", "DIFFER", "P50", "P95", "P99", "STATEMENT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for one in statements.iter().take(STATEMENTS_SHOWN) {
        let pair = |key: &str| {
            let ms = |side: &str| one[side][key].as_f64().unwrap_or_default() / 1e3;
            format!("{:.2} > {:.2}", ms("before"), ms("after"))
        };
        let number = |key: &str| one[key].as_u64().unwrap_or_default();
        let differ = number("errors") + number("rows") + number("contents");
        let mut row = vec![number("calls").to_string(), differ.to_string()];
        row.extend(["p50_us", "p95_us", "p99_us"].map(pair));
        row.push(shortened(&one["text"]));
        rows.push(row);
    }
    print_table(&rows);
    for one in statements.iter().take(STATEMENTS_SHOWN).filter(|one| one["example"].is_object()) {
        let example = &one["example"];
        let text = if example["text"].is_string() { &example["text"] } else { &one["text"] };
        let of = [
            ("errors", "in the error"),
            ("rows", "in the number of rows"),
            ("contents", "in what the rows hold"),
        ];
        let kinds: Vec<String> = of
            .iter()
            .filter(|(key, _)| one[*key].as_u64().is_some_and(|number| number > 0))
            .map(|(key, words)| format!("{} {words}", one[*key]))
            .collect();
        println!("\n{}", shortened(text));
        println!("  differ: {}", kinds.join(", "));
        println!("  the last: {before} {}, {after} {}", said(&example["before"]), said(&example["after"]));
    }
    if statements.len() > STATEMENTS_SHOWN {
        println!("\nand {}; --json has all", many(statements.len() - STATEMENTS_SHOWN, "more statement"));
    }
}

/// An answer in words.
fn said(answer: &Value) -> String {
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    match number("error") {
        0 => many(usize::try_from(number("rows")).unwrap_or(usize::MAX), "row"),
        error => format!("error {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_user_and_a_place_and_never_a_password() {
        let of = |url: &str| place(url).ok();
        let app = |address: &str| Some(("app".to_owned(), address.to_owned()));
        assert_eq!(of("mysql://app@127.0.0.1:4000/"), app("127.0.0.1:4000"));
        assert_eq!(of("mysql://app@db"), app("db:3306"));
        for bad in ["app@db", "mysql://db:3306", "mysql://app:geheim@db", "mysql://@db", "mysql://app@db:x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert!(!place("mysql://app:geheim@db").unwrap_err().message.contains("geheim"));
        assert!(speed("max") == Ok(Speed::Max) && speed("2") == Ok(Speed::Times(2.0)));
        assert!(speed("0").is_err() && speed("fast").is_err() && speed("inf").is_err());
    }
}
