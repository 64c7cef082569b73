//! The SQL proxy in a project: `mesh.yaml`, its routes, and `tidemill mesh`.

use crate::capture;
use crate::client::NodeClient;
use crate::commands::{load_node, many, print_table};
use crate::failure::Failure;
use crate::files;
use crate::http::{App, problem};
use crate::project::{Problem, SECRETS_HINT, below, place, resolve_all};
use crate::replay;
use crate::upgrade;
use axum::extract::{Path as UrlPath, Query, State};
use axum::response::{IntoResponse, Response};
use base::{Code, Secret, Span};
use clap::Subcommand;
use mesh::{AllowMode, MeshConfig};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub const FILE: &str = "mesh.yaml";

/// Reads `mesh.yaml` where there is one. With `resolve` its secrets are what they refer to.
pub fn load(dir: &Path, resolve: bool, problems: &mut Vec<Problem>) -> Option<MeshConfig> {
    if dir.join(FILE).exists() { read(dir, FILE, resolve, problems) } else { None }
}

/// Reads a file that is `mesh.yaml`, or is to be it.
pub fn read(dir: &Path, file: &str, resolve: bool, problems: &mut Vec<Problem>) -> Option<MeshConfig> {
    let mut config: MeshConfig = files::read(dir, file, problems)?;
    read_lists(dir, file, &mut config, problems);
    let mut add = |message: String, hint: String| {
        let (line, column) = place_in_group(dir, file, &message);
        problems.push(Problem { path: file.to_owned(), line, column, message, hint });
    };
    for (message, hint) in config.problems() {
        add(message, hint);
    }
    if resolve && let Err((message, hint)) = resolve_all(secrets(&mut config)) {
        add(message, hint.unwrap_or_else(|| SECRETS_HINT.to_owned()));
    }
    let admin = config.admin.iter_mut().filter_map(|admin| admin.tls.as_mut());
    let listeners = config.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut());
    for tls in listeners
        .chain(admin)
        .chain(config.groups.values_mut().filter_map(|group| group.pd_tls_client.as_mut()))
    {
        tls.cert = below(dir, &tls.cert);
        tls.key = below(dir, &tls.key);
    }
    config.capture.dir = below(dir, &config.capture.dir);
    for path in
        config.groups.values_mut().flat_map(|group| [&mut group.tls_ca, &mut group.pd_tls_ca]).flatten()
    {
        *path = below(dir, path);
    }
    Some(config)
}

/// Reads the lists of allowed statements. One that is not there yet is an empty one, as long as it is only learnt.
fn read_lists(dir: &Path, mesh_file: &str, config: &mut MeshConfig, problems: &mut Vec<Problem>) {
    for (name, group) in &mut config.groups {
        let Some(list) = &mut group.allow_list else { continue };
        let file = list.file.display().to_string();
        if below(dir, &list.file).exists() {
            let read = files::read::<mesh::AllowFile>(dir, &file, problems);
            list.statements = read.unwrap_or_default().statements;
        } else if matches!(list.mode, AllowMode::Observe | AllowMode::Enforce) {
            let message = format!("group `{name}`: allow_list.file: `{file}` is not there");
            let (line, column) = place_in_group(dir, mesh_file, &message);
            let hint =
                "write `mode: learn`, let the application run, and `tidemill mesh learn --write`".to_owned();
            problems.push(Problem { path: mesh_file.to_owned(), line, column, message, hint });
        }
        list.file = below(dir, &list.file);
    }
}

/// Where a mistake stands: what it quotes, sought among the lines of the group that it names; else at the group.
fn place_in_group(dir: &Path, file: &str, message: &str) -> (u64, u64) {
    let named = message.strip_prefix("group `").and_then(|rest| rest.split_once("`: "));
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    let head = named.and_then(|(group, _)| {
        let is_head =
            |line: &str| line.trim_start().strip_prefix(group).is_some_and(|rest| rest.starts_with(':'));
        lines().skip_while(|(_, line)| !line.starts_with("groups:")).skip(1).find(|(_, line)| is_head(line))
    });
    let (Some((_, told)), Some((first, head))) = (named, head) else { return place(dir, file, message) };
    let own = || {
        let below = lines().skip_while(|(number, _)| *number <= first);
        below.take_while(|(_, line)| line.trim().is_empty() || indent(line) > indent(head))
    };
    let found = told
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.is_empty())
        .find_map(|word| own().find_map(|(number, line)| Some((number, line.find(word)?))));
    let (line, column) = found.unwrap_or((first, indent(head)));
    (line as u64 + 1, column as u64 + 1)
}

fn secrets(config: &mut MeshConfig) -> impl Iterator<Item = &mut Secret> {
    let admin = config.admin.iter_mut().flat_map(|admin| &mut admin.users).map(|user| &mut user.password);
    let of_groups = config.groups.values_mut().flat_map(|group| {
        let monitor = group.monitor.as_mut().map(|monitor| &mut monitor.password);
        let mirror = group.mirror.as_mut().map(|mirror| &mut mirror.account);
        let users = group.users.iter_mut().chain(&mut group.account).chain(mirror);
        monitor.into_iter().chain(users.map(|user| &mut user.password))
    });
    admin.chain(of_groups)
}

/// `tidemill mesh …`
#[derive(Subcommand)]
pub enum MeshVerb {
    /// Ports, servers, and how many clients came and went.
    Status,
    /// Servers with their role, state and connections.
    Backends,
    /// Statements with their literals left out: calls, errors, rows and times, the costliest first.
    Digests {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// The latest statements that took long, the newest first.
    Slow {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Keep every statement in files, and look into them.
    Capture {
        #[command(subcommand)]
        verb: capture::CaptureVerb,
    },
    /// What the mirrors answer otherwise than the groups they belong to, and how fast.
    Mirror,
    /// Ask a capture again of another server, and report what differs. Exit status 4 when something does.
    Replay(replay::ReplayArgs),
    /// Tell where a fresh session would send a statement, and why.
    Explain {
        /// The statement.
        sql: String,
        /// The group; needed where there are several.
        #[arg(long)]
        group: Option<String>,
        /// Whose statement it is, for rules that are for some users only.
        #[arg(long)]
        user: Option<String>,
    },
    /// Clients that are connected, with what they wait for.
    Sessions,
    /// End a session, or only the statement that it runs.
    Kill {
        /// The session's number, as `tidemill mesh sessions` has it.
        id: u32,
        /// Stop only the statement.
        #[arg(long)]
        query: bool,
    },
    /// Rules and limits with how often they were met, and the latest statements that met them.
    Rules {
        /// How many statements.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// The statements that came while a group's `allow_list` learnt, with those of its file, as that file has them.
    Learn {
        /// The group; needed where there are several.
        #[arg(long)]
        group: Option<String>,
        /// Write them into the file of the `allow_list`, for review, instead of printing them.
        #[arg(long)]
        write: bool,
    },
    /// Take `mesh.yaml` into use as it is now, all of it or nothing; sessions stay.
    Reload,
    /// Let a new process take the place of the running one; sessions move to it, also in the midst of transactions.
    Upgrade {
        /// The program to run; by default the file that the running one was started from.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// How long a session within TLS, which cannot move, or one in the midst of a statement may hold up the old
        /// process: 60s, 5m.
        #[arg(long, default_value = "60s")]
        wait: Span,
    },
    /// Send no new session to a server, and move those that can be moved.
    Drain {
        /// The group's name.
        group: String,
        /// The server's address, as in `mesh.yaml`.
        address: String,
    },
    /// Let sessions go to a server again.
    Undrain {
        /// The group's name.
        group: String,
        /// The server's address, as in `mesh.yaml`.
        address: String,
    },
}

pub async fn run(dir: &Path, verb: MeshVerb, json: bool) -> Result<(), Failure> {
    if let MeshVerb::Upgrade { binary, wait } = verb {
        return upgrade::run(dir, binary, wait.0, json).await;
    }
    if let MeshVerb::Capture { verb } = verb {
        return capture::run(dir, verb, json).await;
    }
    if let MeshVerb::Replay(args) = verb {
        return replay::run(args, json).await;
    }
    let node = NodeClient::new(&load_node(dir)?)?;
    let (group, address, verb) = match verb {
        MeshVerb::Status | MeshVerb::Backends => {
            let status = node.get("/api/v1/mesh").await?;
            match (json, matches!(verb, MeshVerb::Backends)) {
                (true, false) => println!("{status}"),
                (true, true) => println!("{}", status["groups"]),
                (false, false) => print_status(&status),
                (false, true) => {
                    print_table(&backend_rows(&status));
                    print_notes(&status);
                }
            }
            return Ok(());
        }
        MeshVerb::Reload => {
            let done = node.post("/api/v1/mesh:reload", &json!({})).await?;
            println!("{}", if json { done.to_string() } else { "mesh.yaml is in use".to_owned() });
            return Ok(());
        }
        MeshVerb::Mirror => {
            let list = node.get("/api/v1/mesh/mirror").await?;
            if json {
                println!("{list}")
            } else {
                replay::print_mirrors(&list)
            }
            return Ok(());
        }
        MeshVerb::Digests { limit } => {
            let list = node.get(&format!("/api/v1/mesh/digests?limit={limit}")).await?;
            if json {
                println!("{list}")
            } else {
                print_digests(&list)
            }
            return Ok(());
        }
        MeshVerb::Slow { limit } => {
            let list = node.get(&format!("/api/v1/mesh/slow?limit={limit}")).await?;
            if json {
                println!("{list}")
            } else {
                print_slow(&list)
            }
            return Ok(());
        }
        MeshVerb::Rules { limit } => {
            let told = node.get(&format!("/api/v1/mesh/rules?limit={limit}")).await?;
            if json {
                println!("{told}")
            } else {
                print_rules(&told)
            }
            return Ok(());
        }
        MeshVerb::Sessions => {
            let list = node.get("/api/v1/mesh/sessions").await?;
            if json {
                println!("{list}")
            } else {
                print_table(&session_rows(&list))
            }
            return Ok(());
        }
        MeshVerb::Kill { id, query } => {
            let path = format!("/api/v1/mesh/sessions/{id}:{}", if query { "kill_query" } else { "kill" });
            let done = node.post(&path, &json!({})).await?;
            let what = if query { "the statement of session" } else { "session" };
            println!("{}", if json { done.to_string() } else { format!("{what} {id} ends") });
            return Ok(());
        }
        MeshVerb::Learn { group, write } => return learn(dir, &node, group, write, json).await,
        MeshVerb::Explain { sql, group, user } => {
            let body = json!({"sql": sql, "group": group, "user": user});
            let told = node.post("/api/v1/mesh:explain", &body).await?;
            if json {
                println!("{told}")
            } else {
                print_explanation(&told)
            }
            return Ok(());
        }
        MeshVerb::Drain { group, address } => (group, address, "drain"),
        MeshVerb::Undrain { group, address } => (group, address, "undrain"),
        MeshVerb::Upgrade { .. } | MeshVerb::Capture { .. } | MeshVerb::Replay(_) => return Ok(()),
    };
    let done =
        node.post(&format!("/api/v1/mesh/groups/{group}/backends/{address}:{verb}"), &json!({})).await?;
    println!("{}", if json { done.to_string() } else { format!("{address} of {group}: {verb}ed") });
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn print_status(status: &Value) {
    let mut rows = vec![["LISTENER", "ADDRESS", "TLS", "GROUPS"].map(str::to_owned).to_vec()];
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let groups = listener["groups"].as_array().into_iter().flatten().map(text);
        let tls = if listener["tls"] == true { "yes" } else { "no" };
        rows.push(vec![
            text(&listener["name"]),
            text(&listener["address"]),
            tls.to_owned(),
            groups.collect::<Vec<_>>().join(", "),
        ]);
    }
    print_table(&rows);
    println!();
    print_table(&group_rows(status));
    println!();
    print_table(&backend_rows(status));
    let shared = pool_rows(status);
    if shared.len() > 1 {
        println!();
        print_table(&shared);
    }
    let pins = pin_rows(status);
    if pins.len() > 1 {
        println!();
        print_table(&pins);
    }
    let count = |key: &str| status[key].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    println!(
        "\n{} now; {} came, {} turned away; {} moved to another server, {} told that theirs was lost",
        many(count("sessions"), "session"),
        count("accepted"),
        count("refused"),
        count("moved"),
        count("broken"),
    );
}

fn group_rows(status: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![["GROUP", "SESSIONS", "MOST", "ONE TOO MANY", "TAKES"].map(str::to_owned).to_vec()];
    for group in status["groups"].as_array().into_iter().flatten() {
        let conditions = group["match"].as_object().into_iter().flatten();
        let takes: Vec<_> = conditions.map(|(what, values)| format!("{what} {values}")).collect();
        rows.push(vec![
            text(&group["name"]),
            text(&group["sessions"]),
            text(&group["sessions_max"]),
            text(&group["limited"]),
            if takes.is_empty() { "-".to_owned() } else { takes.join(" and ") },
        ]);
    }
    rows
}

fn session_rows(list: &Value) -> Vec<Vec<String>> {
    let heads = ["ID", "USER", "CLIENT", "GROUP", "SERVERS", "AGE", "BUSY"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for session in list.as_array().into_iter().flatten() {
        let servers = session["servers"].as_array().into_iter().flatten().map(text);
        let millis = |key: &str| session[key].as_u64().map_or("-".into(), |millis| format!("{millis} ms"));
        rows.push(vec![
            text(&session["id"]),
            text(&session["user"]),
            text(&session["client"]),
            text(&session["group"]),
            servers.collect::<Vec<_>>().join(", "),
            millis("age_ms"),
            millis("busy_ms"),
        ]);
    }
    rows
}

/// What the table does not say by itself.
fn print_notes(status: &Value) {
    for group in status["groups"].as_array().into_iter().flatten() {
        let several = group["writers"].as_u64().unwrap_or_default() > 1;
        let one_writes = group["kind"] == "mysql";
        if several && one_writes {
            println!(
                "\nnote: {} has several servers that take writes, and get them; let all but one be read-only",
                text(&group["name"])
            );
        }
    }
}

fn print_digests(list: &Value) {
    let heads = ["CALLS", "ERRORS", "ROWS", "TOTAL", "P50", "P95", "P99", "MAX", "GROUP", "STATEMENT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for digest in list.as_array().into_iter().flatten() {
        let micros = |key: &str| {
            let micros = digest[key].as_f64().unwrap_or_default();
            if micros < 10_000.0 {
                format!("{:.2} ms", micros / 1e3)
            } else {
                format!("{:.0} ms", micros / 1e3)
            }
        };
        rows.push(vec![
            text(&digest["calls"]),
            text(&digest["errors"]),
            text(&digest["rows"]),
            format!("{} ms", text(&digest["total_ms"])),
            micros("p50_us"),
            micros("p95_us"),
            micros("p99_us"),
            micros("max_us"),
            text(&digest["group"]),
            shortened(&digest["text"]),
        ]);
    }
    print_table(&rows);
}

fn print_slow(list: &Value) {
    let heads = ["AT", "TOOK", "ROWS", "USER", "DATABASE", "SERVER", "STATEMENT"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for slow in list.as_array().into_iter().flatten() {
        rows.push(vec![
            time(&slow["at_ms"]),
            format!("{:.2} s", slow["elapsed_us"].as_f64().unwrap_or_default() / 1e6),
            text(&slow["rows"]),
            text(&slow["user"]),
            text(&slow["database"]),
            text(&slow["server"]),
            shortened(&slow["text"]),
        ]);
    }
    print_table(&rows);
}

fn time(at_ms: &Value) -> String {
    let at = at_ms.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or("-".into(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A statement as far as a terminal's line has room for it beside the rest.
pub fn shortened(statement: &Value) -> String {
    const CHARS_MAX: usize = 80;
    match statement.as_str().unwrap_or_default() {
        "" => "(others: the table is full)".to_owned(),
        long if long.chars().count() > CHARS_MAX => long.chars().take(CHARS_MAX - 1).chain(['…']).collect(),
        short => short.to_owned(),
    }
}

fn print_explanation(told: &Value) {
    println!("statement  {}", text(&told["text"]));
    println!("digest     {}", text(&told["digest"]));
    println!("goes to    {} of {}: {}", text(&told["role"]), text(&told["group"]), text(&told["reason"]));
    if let Some(pins) = told["pins"].as_str() {
        println!("afterwards the session stays with its writer: {pins}");
    }
    let flags: Vec<_> = told["flags"].as_array().into_iter().flatten().map(text).collect();
    if !flags.is_empty() {
        println!("seen in it {}", flags.join(", ").to_lowercase());
    }
    let verdict = &told["verdict"];
    if !verdict.is_object() {
        return;
    }
    let by = verdict["rule"].as_str().map(|rule| format!(" by {rule}")).unwrap_or_default();
    println!("rules      {}{by}: {}", text(&verdict["action"]), text(&verdict["reason"]));
    let mut rows = vec![["RULE", "ACTS", "WHY"].map(str::to_owned).to_vec()];
    let all = |key: &str| verdict[key].as_array().into_iter().flatten();
    for says in all("rules").chain(all("limits")) {
        let acts = if says["matches"] == true { "yes" } else { "no" };
        rows.push(vec![text(&says["name"]), acts.to_owned(), text(&says["reason"])]);
    }
    print_table(&rows);
}

fn print_rules(told: &Value) {
    let mut rows = vec![["GROUP", "RULE", "ACTION", "MET", "NOW"].map(str::to_owned).to_vec()];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for group in list(&told["groups"]) {
        let mut add = |rule: Value, action: &Value, hits: &Value, now: String| {
            rows.push(vec![text(&group["name"]), text(&rule), text(action), text(hits), now]);
        };
        for rule in list(&group["rules"]["rules"]) {
            add(rule["name"].clone(), &rule["action"], &rule["hits"], String::new());
        }
        for limit in list(&group["rules"]["limits"]) {
            let now = format!("{} running, {} waiting", limit["running"], limit["waiting"]);
            add(limit["name"].clone(), &limit["action"], &limit["hits"], now);
        }
        let allow = &group["rules"]["allow_list"];
        if allow.is_object() {
            let now = format!("{} on the list, {} learnt", allow["statements"], allow["learnt"]);
            add("allow_list".into(), &allow["mode"], &allow["hits"], now);
        }
    }
    print_table(&rows);
    let noted = list(&told["noted"]);
    if noted.is_empty() {
        return;
    }
    let mut rows =
        vec![["AT", "COUNT", "RULE", "ACTION", "USER", "WHY", "STATEMENT"].map(str::to_owned).to_vec()];
    for noted in noted {
        rows.push(vec![
            time(&noted["at_ms"]),
            text(&noted["count"]),
            text(&noted["rule"]),
            text(&noted["action"]),
            text(&noted["user"]),
            text(&noted["reason"]),
            if noted["text"] == "" { "-".to_owned() } else { shortened(&noted["text"]) },
        ]);
    }
    println!();
    print_table(&rows);
}

/// Prints, or writes, what a group has learnt.
async fn learn(
    dir: &Path,
    node: &NodeClient,
    group: Option<String>,
    write: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let config = load(dir, false, &mut problems)
        .filter(|_| problems.is_empty())
        .ok_or_else(|| Failure::new(2, "mesh.yaml cannot be read").hint("`tidemill check` says why"))?;
    let lists: Vec<_> =
        config.groups.iter().filter_map(|(name, group)| Some((name, group.allow_list.as_ref()?))).collect();
    let (name, list) = match (&group, &lists[..]) {
        (Some(named), lists) => lists.iter().find(|(name, _)| *name == named).copied(),
        (None, [only]) => Some(*only),
        (None, _) => None,
    }
    .ok_or_else(|| {
        Failure::new(2, "which `allow_list` is meant cannot be told")
            .hint("name a group that has one: --group NAME, with `allow_list: {mode: learn, file: ./NAME.allow.yaml}` in mesh.yaml")
    })?;
    let told = node.get(&format!("/api/v1/mesh/groups/{name}/learnt")).await?;
    if json && !write {
        println!("{told}");
        return Ok(());
    }
    let statements = told["statements"].as_array().cloned().unwrap_or_default();
    let mut yaml = String::from(
        "# Statements that may pass, their literals left out. Without `users` everybody may send one.\nstatements:\n",
    );
    for statement in &statements {
        yaml.push_str(&format!("  - digest: {}\n", statement["digest"]));
        if statement["users"].as_array().is_some_and(|users| !users.is_empty()) {
            yaml.push_str(&format!("    users: {}\n", statement["users"]));
        }
        // A text of JSON is one of YAML.
        yaml.push_str(&format!("    text: {}\n", statement["text"]));
    }
    if statements.is_empty() {
        yaml = yaml.replace("statements:\n", "statements: []\n");
    }
    if !write {
        print!("{yaml}");
        return Ok(());
    }
    let fresh = list.file.with_extension("fresh");
    std::fs::write(&fresh, yaml)
        .and_then(|()| std::fs::rename(&fresh, &list.file))
        .map_err(|error| Failure::io(&format!("write {}", list.file.display()), &error))?;
    let done = json!({"file": list.file, "statements": statements.len()});
    let count = many(statements.len(), "statement");
    println!("{}", if json { done.to_string() } else { format!("{count} in {}", list.file.display()) });
    Ok(())
}

/// The connections that sessions share.
fn pool_rows(status: &Value) -> Vec<Vec<String>> {
    let heads = ["GROUP", "SERVER", "SHARED", "IDLE", "IN USE", "WAITING", "TIMEOUTS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for group in status["groups"].as_array().into_iter().flatten() {
        for backend in group["backends"].as_array().into_iter().flatten() {
            let pool = &backend["pool"];
            if pool.is_object() {
                let counts = ["open", "idle", "in_use", "waiting", "timeouts"].map(|key| text(&pool[key]));
                rows.push([vec![text(&group["name"]), text(&backend["address"])], counts.to_vec()].concat());
            }
        }
    }
    rows
}

/// Why sessions keep a shared connection.
fn pin_rows(status: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![["GROUP", "KEPT FOR", "NOW", "TIMES"].map(str::to_owned).to_vec()];
    for group in status["groups"].as_array().into_iter().flatten() {
        for (reason, pin) in group["pins"].as_object().into_iter().flatten() {
            rows.push(vec![text(&group["name"]), reason.clone(), text(&pin["now"]), text(&pin["total"])]);
        }
    }
    rows
}

fn backend_rows(status: &Value) -> Vec<Vec<String>> {
    let heads = ["GROUP", "SERVER", "ROLE", "STATE", "CONNECTIONS", "LAG", "VERSION", "ERROR"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for group in status["groups"].as_array().into_iter().flatten() {
        for backend in group["backends"].as_array().into_iter().flatten() {
            let lag = backend["lag_ms"].as_u64().map_or("-".into(), |lag| format!("{lag} ms"));
            rows.push(vec![
                text(&group["name"]),
                text(&backend["address"]),
                text(&backend["role"]),
                text(&backend["state"]),
                text(&backend["connections"]),
                lag,
                text(&backend["version"]),
                text(&backend["error"]),
            ]);
        }
    }
    rows
}

/// The servers of a node's status, where it has a mesh.
pub fn print_backends(mesh: &Value) {
    if mesh.is_object() {
        println!();
        print_table(&backend_rows(mesh));
    }
}

pub const NONE: &str = "this node has no mesh";
pub const NONE_HINT: &str =
    "write a mesh.yaml (docs/reference/config.md) and start the node with the role `mesh`";

/// `GET /api/v1/mesh`
pub async fn status(State(app): State<App>) -> Response {
    match &app.node.mesh {
        Some(mesh) => axum::Json(mesh.status()).into_response(),
        None => problem(Code::NotFound, NONE, NONE_HINT),
    }
}

/// How many statements a list has.
#[derive(Deserialize)]
pub struct DigestsQuery {
    limit: Option<usize>,
}

/// `GET /api/v1/mesh/digests`
pub async fn digests(State(app): State<App>, Query(query): Query<DigestsQuery>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let mut list = mesh.digests();
    list.truncate(query.limit.unwrap_or(usize::MAX));
    axum::Json(list).into_response()
}

/// `GET /api/v1/mesh/mirror`
pub async fn mirror(State(app): State<App>) -> Response {
    match &app.node.mesh {
        Some(mesh) => axum::Json(mesh.mirrors()).into_response(),
        None => problem(Code::NotFound, NONE, NONE_HINT),
    }
}

/// `GET /api/v1/mesh/slow`
pub async fn slow(State(app): State<App>, Query(query): Query<DigestsQuery>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let mut list = mesh.slow();
    list.truncate(query.limit.unwrap_or(usize::MAX));
    axum::Json(list).into_response()
}

/// The body of `POST /api/v1/mesh:explain`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainBody {
    sql: String,
    group: Option<String>,
    user: Option<String>,
}

/// `GET /api/v1/mesh/rules`
pub async fn rules(State(app): State<App>, Query(query): Query<DigestsQuery>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let groups: Vec<_> = mesh
        .status()
        .groups
        .into_iter()
        .filter_map(|group| Some(json!({"name": group.name, "rules": group.rules?})))
        .collect();
    let mut noted = mesh.noted();
    noted.truncate(query.limit.unwrap_or(usize::MAX));
    axum::Json(json!({"groups": groups, "noted": noted})).into_response()
}

/// `GET /api/v1/mesh/groups/{group}/learnt`
pub async fn learnt(State(app): State<App>, UrlPath(group): UrlPath<String>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    match mesh.learnt(&group) {
        Some(list) => axum::Json(list).into_response(),
        None => problem(
            Code::NotFound,
            format!("group `{group}` has no `allow_list`"),
            "allow_list: {mode: learn, file: ./NAME.allow.yaml}, and `tidemill mesh reload`",
        ),
    }
}

/// `POST /api/v1/mesh:explain`
pub async fn explain(State(app): State<App>, axum::Json(body): axum::Json<ExplainBody>) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let names: Vec<_> = mesh.status().groups.into_iter().map(|group| group.name).collect();
    let hint = format!("groups are: {}", names.join(", "));
    let group = match (&body.group, &names[..]) {
        (Some(group), _) => group,
        (None, [only]) => only,
        (None, _) => return problem(Code::Invalid, "there are several groups, and none is named", &hint),
    };
    match mesh.explain(group, &body.sql, body.user.as_deref()) {
        Some(told) => axum::Json(told).into_response(),
        None => problem(Code::NotFound, format!("there is no group `{group}`"), &hint),
    }
}

/// `POST /api/v1/mesh/groups/{group}/backends/{address}:{verb}`
pub async fn backend_verb(
    State(app): State<App>,
    UrlPath((group, address_and_verb)): UrlPath<(String, String)>,
) -> Response {
    let Some(mesh) = &app.node.mesh else { return problem(Code::NotFound, NONE, NONE_HINT) };
    let (address, draining) = match address_and_verb.rsplit_once(':') {
        Some((address, "drain")) => (address, true),
        Some((address, "undrain")) => (address, false),
        _ => {
            return problem(
                Code::NotFound,
                format!("`{address_and_verb}` is no server and verb"),
                "verbs are drain and undrain",
            );
        }
    };
    if !mesh.drain(&group, address, draining) {
        let hint = "`tidemill mesh backends` lists groups and their servers";
        return problem(Code::NotFound, format!("group `{group}` has no server `{address}`"), hint);
    }
    axum::Json(json!({"group": group, "backend": address, "done": true})).into_response()
}
