//! The command line: what a person or a script asks of Tidemill, and how it ends.

mod auth;
mod cache;
mod capture;
mod client;
mod commands;
mod daemon;
mod demo;
mod doctor;
mod door;
mod durable;
mod failure;
mod files;
mod gauges;
mod grpc;
mod http;
mod import;
mod indicators;
mod init;
mod listener;
mod mesh;
mod mesh_backends;
mod mesh_file;
mod notify;
mod placement;
mod preview;
mod project;
mod push;
mod pushed;
mod query;
mod reachable;
mod reference;
mod repair;
mod replay;
mod retention;
mod routes;
mod scheduled;
mod search;
mod start;
mod subscribe;
mod upgrade;
mod verify;
mod warehouse;

use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;
use flow::formats::Format;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Captures every change of MySQL, MariaDB and SQLite into a durable journal, and delivers it anywhere.
#[derive(Parser)]
#[command(name = "tidemill", version, propagate_version = true)]
pub struct Cli {
    /// The project folder.
    #[arg(short = 'C', long = "project", env = "TIDEMILL_PROJECT", default_value = ".", global = true)]
    project: PathBuf,
    /// Print machines' JSON where a person would get a table.
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// A file with the token that the node wants of a command; else the environment's TIDEMILL_TOKEN is taken.
    #[arg(long, value_name = "PATH", global = true)]
    bearer_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented, runnable project.
    Init {
        /// The folder to write to; the project folder by default. Files that are there are never overwritten.
        dir: Option<PathBuf>,
    },
    /// Write a project out of another tool's configuration, and say what was not taken over.
    Import {
        #[command(subcommand)]
        from: import::Import,
    },
    /// Find every mistake at once.
    Check {
        /// Also reach every system: grants, settings, tables, with the statement that mends each.
        #[arg(long)]
        connect: bool,
    },
    /// Run the project until SIGTERM or Ctrl-C.
    Up {
        /// What this node does, comma-separated: `flow` captures and delivers, `mesh` is the SQL proxy of `mesh.yaml`.
        #[arg(long, value_delimiter = ',', default_value = "flow,mesh")]
        role: Vec<String>,
        /// `plain` or `json`.
        #[arg(long, default_value = "plain")]
        log: String,
        /// Run in the background: come back when the node serves, with its log in `tidemill.log` of the data folder.
        #[arg(long)]
        daemon: bool,
        /// Write the process's number here once the node serves.
        #[arg(long, value_name = "PATH", conflicts_with = "daemon")]
        pid_file: Option<PathBuf>,
        /// Take the place of the node at the other end of the standard input, which started this process.
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// End the node that `up --daemon` started, and wait until it has.
    Down,
    /// Show sources, positions, lag, flows and errors of the running node.
    Status,
    /// Print changes of a source, one a line.
    Tail {
        /// The source's name.
        source: String,
        /// Only these tables: `db.table`, wildcards allowed.
        #[arg(long)]
        table: Option<String>,
        /// `start`, `now`, or the first lsn; `now` unless reading offline, `start` then.
        #[arg(long)]
        from: Option<String>,
        /// `json`, `debezium`, `maxwell`, `canal` or `cloudevents`.
        #[arg(long, default_value = "json")]
        format: String,
        /// With `--format debezium`: put the schema beside each key and value.
        #[arg(long)]
        schemas: bool,
        /// Stop after this many changes.
        #[arg(long)]
        limit: Option<u64>,
        /// Read the journal on disk, without a running node.
        #[arg(long)]
        offline: bool,
    },
    /// Follow a table as a device does: print its rows and changes, or keep a copy of it in a SQLite file.
    Subscribe(subscribe::SubscribeArgs),
    /// Ask the project's engine: one SELECT, rows as a table or, with `--json`, one object a line.
    Query(query::QueryArgs),
    /// Indicators of the project, from its rollups.
    Indicator {
        #[command(subcommand)]
        verb: indicators::command::IndicatorVerb,
    },
    /// Act on flows of the running node.
    Flow {
        #[command(subcommand)]
        verb: FlowVerb,
    },
    /// Look at the SQL proxy of the running node, and act on it.
    Mesh {
        #[command(subcommand)]
        verb: mesh::MeshVerb,
    },
    /// Run a flow that collects or a model now, on the node that is up or here where none is, and wait for its end.
    Run(warehouse::command::RunArgs),
    /// Compute days of the past of a model again.
    Backfill(warehouse::command::BackfillArgs),
    /// List what ran, the newest first, with its rows and what it said.
    Runs(warehouse::command::RunsArgs),
    /// Hold models against `tests/*.yaml`: rows in, rows out, with no server. Exit status 4 when one gives other rows.
    Test {
        /// Only tests whose name or model holds this.
        name: Option<String>,
    },
    /// Show what `placement.yaml` would change on its TiDB cluster, statement by statement, and what speaks against it. Exit
    /// status 4 when the plan is refused. Of a project with models: which are new or changed, and what a run would compute.
    Plan {
        /// Only models that changed, with everything that stands on them.
        #[arg(long)]
        impact: bool,
    },
    /// Run the statements of a plan. Goes on where a run before it ended.
    Apply {
        /// The plan's name, as `plan` told it.
        plan: String,
    },
    /// Take back what `apply` did of a plan, in reverse, or the last run of a model.
    Rollback {
        /// The plan's name.
        #[arg(required_unless_present = "run")]
        plan: Option<String>,
        /// The run of a model, as `tidemill runs` has it.
        #[arg(long, value_name = "RUN", conflicts_with = "plan")]
        run: Option<i64>,
    },
    /// Hold the TiDB cluster against `placement.yaml`: policies, tables, users, and every region by PD. Exit status 4 when it
    /// differs.
    Verify,
    /// Look at the placement of businesses on the TiDB cluster.
    Placement {
        #[command(subcommand)]
        verb: placement::PlacementVerb,
    },
    /// Make, list and revoke the tokens that callers of the HTTP port show.
    Token {
        #[command(subcommand)]
        verb: auth::command::TokenVerb,
    },
    /// Print a report for support, with secrets removed.
    Doctor,
    /// Print a completion script.
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        shell: clap_complete::Shell,
    },
    /// Run a small shop whose orders flow, or are on three devices, in a temporary folder.
    Demo(demo::DemoArgs),
    /// Write or check the reference pages.
    #[command(hide = true)]
    Docs {
        #[arg(long)]
        write: Option<PathBuf>,
        #[arg(long)]
        check: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum FlowVerb {
    /// Flows with their position, lag and state.
    List,
    /// Stop delivering, also over restarts, until `resume`.
    Pause {
        /// The flow's name.
        flow: String,
    },
    /// Go on.
    Resume {
        /// The flow's name.
        flow: String,
    },
    /// Empty the flow's tables in the journal and read them anew from the source.
    Resnapshot {
        /// The flow's name.
        flow: String,
        /// Only these tables; all of the flow by default.
        tables: Vec<String>,
    },
    /// Deliver again from a change on; readers see older rows until the flow has caught up.
    Rewind {
        /// The flow's name.
        flow: String,
        /// The first change that comes again: its lsn, or `start` for the oldest that the journal has.
        #[arg(long, value_name = "LSN|start", value_parser = rewind_place)]
        to: serde_json::Value,
    },
    /// Try the parked changes again.
    Retry {
        /// The flow's name.
        flow: String,
    },
    /// Compare the sink with the source, row by row, while both move. Exit status 4 when they differ.
    Verify {
        /// The flow's name.
        flow: String,
        /// Only source tables that match, as `db.table` with `*` and `?`; may be repeated.
        #[arg(long = "table", value_name = "PATTERN")]
        tables: Vec<String>,
        /// Journal rows that differ again, as the source has them now, so that the flow delivers them.
        #[arg(long)]
        repair: bool,
    },
    /// Show rows before and after the flow's rules, from the newest changes on, without disturbing the flow.
    Preview {
        /// The flow's name.
        flow: String,
        /// Stop after this many changes. Without it: the newest 20, and then those that come.
        #[arg(long)]
        limit: Option<u64>,
        /// Read the journal on disk to its end, without a running node.
        #[arg(long)]
        offline: bool,
    },
    /// Show the changes that are parked, with the reasons.
    DeadLetters {
        /// The flow's name.
        flow: String,
    },
}

/// An lsn, or `start`, as the node takes it.
fn rewind_place(text: &str) -> Result<serde_json::Value, String> {
    match text.parse::<u64>() {
        Ok(lsn) => Ok(lsn.into()),
        Err(_) if text == "start" => Ok(text.into()),
        Err(_) => Err("neither the number of a change nor `start`".to_owned()),
    }
}

/// Freed memory goes back to the system at least this often: the allocator gives it back only when it is used.
const COLLECT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);

/// Gives freed memory back, for ever. A node at rest shall not keep what its last burst took.
async fn give_back_memory() {
    let mut ticks = tokio::time::interval(COLLECT_INTERVAL);
    loop {
        ticks.tick().await;
        // SAFETY: takes no pointer, and may be called by any thread at any time.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One that follows writes to a node that may close the connection at any time, which is no end.
    if !matches!(cli.command, Command::Up { .. } | Command::Demo(_) | Command::Subscribe(_)) {
        // `tidemill tail … | head` ends quietly, as every other tool does.
        // SAFETY: no other thread runs yet, and the default action is a valid one.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    // A file at the limit of `ulimit -f` is an error like a full disk, which sources and flows tell and wait out. By default
    // the system would end the process instead.
    // SAFETY: no other thread runs yet, and to ignore a signal is a valid action.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // One TLS provider for the whole process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::io("start the runtime", &error))),
    };
    let result = runtime.block_on(dispatch(cli));
    // A task that blocks on a pipe must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    end(result)
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let dir = cli.project.clone();
    if let Some(file) = cli.bearer_file {
        client::take_token_from(file);
    }
    match cli.command {
        Command::Init { dir: target } => init::run(&target.unwrap_or(dir), cli.quiet),
        Command::Import { from } => import::run(from, &dir, cli.quiet),
        Command::Check { connect } => commands::check(&dir, connect, cli.json, cli.quiet).await,
        Command::Up { role, log, daemon, pid_file, take_over } => {
            if let Some(other) = role.iter().find(|role| !["flow", "mesh"].contains(&role.as_str())) {
                return Err(Failure::new(2, format!("the role `{other}` is not supported in this version"))
                    .hint("leave --role out, or choose from flow and mesh"));
            }
            if daemon {
                let node = commands::load_node(&dir)?;
                return daemon::start(&dir, &node, &role, &log, cli.quiet).await;
            }
            start_log(&log, LOG_DEFAULT);
            listener::raise_files();
            tokio::spawn(give_back_memory());
            commands::up(&dir, &role, cli.quiet, take_over, pid_file.as_deref()).await
        }
        Command::Down => daemon::down(&commands::load_node(&dir)?, cli.quiet).await,
        Command::Status => commands::status(&dir, cli.json).await,
        Command::Tail { source, table, from, format, schemas, limit, offline } => {
            let format = Format::parse_text(&format).ok_or_else(|| {
                Failure::new(2, format!("there is no format `{format}`"))
                    .hint(format!("there are: {}", Format::TEXTS.map(Format::name).join(", ")))
            })?;
            let from = from.unwrap_or_else(|| if offline { "start".into() } else { "now".into() });
            let query = http::ChangesQuery { from, table, limit, follow: false, format, schemas };
            commands::tail(&dir, &source, query, offline).await
        }
        Command::Subscribe(args) => subscribe::run(&dir, args, cli.json, cli.quiet).await,
        Command::Query(args) => query::run(&dir, args, cli.json).await,
        Command::Indicator { verb } => indicators::command::run(&dir, verb, cli.json).await,
        Command::Flow { verb } => commands::flow(&dir, verb, cli.json, cli.quiet).await,
        Command::Mesh { verb } => mesh::run(&dir, verb, cli.json).await,
        Command::Run(args) => warehouse::command::run(&dir, args, cli.json, cli.quiet).await,
        Command::Backfill(args) => warehouse::command::run(&dir, args.into(), cli.json, cli.quiet).await,
        Command::Runs(args) => warehouse::command::runs(&dir, args, cli.json).await,
        Command::Test { name } => warehouse::command::test(&dir, name, cli.json, cli.quiet).await,
        Command::Plan { impact } => commands::plan(&dir, impact, cli.json).await,
        Command::Apply { plan } => placement::apply(&dir, &plan, cli.quiet).await,
        Command::Rollback { run: Some(run), .. } => warehouse::command::rollback(&dir, run, cli.quiet).await,
        Command::Rollback { plan, .. } => {
            placement::rollback(&dir, &plan.unwrap_or_default(), cli.quiet).await
        }
        Command::Verify => placement::verify(&dir, cli.json).await,
        Command::Placement { verb } => placement::run(&dir, verb).await,
        Command::Token { verb } => auth::command::run(&dir, verb, cli.json, cli.quiet).await,
        Command::Doctor => {
            doctor::run(&dir, cli.json).await;
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidemill", &mut std::io::stdout());
            Ok(())
        }
        Command::Demo(args) => {
            start_log("plain", args.log());
            demo::run(args).await
        }
        Command::Docs { write, check } => reference::run(write, check),
    }
}

/// What is logged where TIDEMILL_LOG does not say.
const LOG_DEFAULT: &str = "info,async_nats=warn";

fn start_log(format: &str, filter: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(filter));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = if format == "json" {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // A second subscriber in one process is a test's: the first one stays.
    drop(started);
}

fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if !failure.message.is_empty() {
        eprintln!("error: {}", failure.message);
    }
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(failure.status)
}
