//! What the SQL proxy costs: point selects of sysbench against one MySQL, direct, through HAProxy in TCP mode, through MySQL
//! Router where it can be had, and through `tidemill` as little as it can do and with more, one after the other in the same
//! run on the same processors.
//!
//! A closed loop tells the CPU time of each query; a fixed rate, well below what any of them reaches, tells what is added to
//! the time of an answer. Idle connections and one large result tell the memory.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Opts, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port, installed};

use crate::report;
use crate::tidemill::Tidemill;
use crate::usage::{self, Usage};

pub struct Options {
    pub seconds: u32,
    pub runs: u32,
    pub idle: usize,
    pub save: bool,
}

/// Clients of the closed loop: one, as many as keep two processors busy, and a crowd.
const THREADS: [u32; 3] = [1, 8, 64];
/// Clients of statements that are sent as text, so that each is read.
const TEXT_THREADS: u32 = 8;
/// Whose memory is looked at.
const HELD: [&str; 4] = ["haproxy", "mysql router", "tidemill", "tidemill, digests"];
/// Rules of the variant that has many.
const RULES: usize = 1_000;
/// Queries a second of the fixed rate, and the clients that keep it.
const RATE: u32 = 2_000;
const RATE_THREADS: u32 = 4;
pub const TABLES: u32 = 4;
const TABLE_ROWS: u32 = 20_000;
/// Of the large result: rows of a mebibyte.
const LARGE_ROWS: u32 = 1024;
const START_MAX: Duration = Duration::from_secs(10);

/// Who stands between.
enum Door {
    Direct(u16),
    HaProxy(Peer),
    Router(Peer),
    Tidemill(Tidemill, u16, &'static str),
}

impl Door {
    fn name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::HaProxy(_) => "haproxy",
            Self::Router(_) => "mysql router",
            Self::Tidemill(_, _, name) => name,
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Direct(port) | Self::Tidemill(_, port, _) => *port,
            Self::HaProxy(peer) | Self::Router(peer) => peer.port,
        }
    }

    fn usage(&self) -> Result<Usage> {
        match self {
            Self::Direct(_) => Ok(Usage::default()),
            Self::HaProxy(peer) | Self::Router(peer) => usage::of_process(peer.child.id()),
            Self::Tidemill(tidemill, ..) => tidemill.usage(),
        }
    }
}

/// Another program in the same place.
struct Peer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Peer {
    /// HAProxy in TCP mode, as it is set up before databases.
    fn haproxy(server: u16) -> Result<Peer> {
        let program = installed("haproxy")?.join("bin/haproxy");
        Self::start(program, &["-db", "-f"], |port, _| {
            format!(
                "global\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 3s\n  timeout client 1h\n  timeout server 1h\n\
                 listen mysql\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{server}\n"
            )
        })
    }

    /// MySQL Router with one static route, TLS passed through: what it does by default.
    fn router(server: u16) -> Result<Peer> {
        let install = installed("router")?;
        let plugins = fs::read_dir(install.join("root/usr/lib"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .flat_map(|folder| [folder.join("mysqlrouter/plugin"), folder.join("plugin")])
            .find(|folder| folder.join("routing.so").is_file())
            .context("MySQL Router's package holds no plugin `routing`")?;
        Self::start(install.join("bin/mysqlrouter"), &["-c"], |port, folder| {
            format!(
                "[DEFAULT]\nlogging_folder={folder}\nruntime_folder={folder}\ndata_folder={folder}\nplugin_folder={plugins}\nmax_total_connections=12000\n\
                 [logger]\nlevel=WARNING\n\
                 [routing:bench]\nbind_address=127.0.0.1:{port}\ndestinations=127.0.0.1:{server}\nrouting_strategy=first-available\n\
                 protocol=classic\nmax_connections=12000\n",
                folder = folder.display(),
                plugins = plugins.display(),
            )
        })
    }

    fn start(program: PathBuf, words: &[&str], config: impl FnOnce(u16, &Path) -> String) -> Result<Peer> {
        let folder = tempfile::tempdir()?;
        let port = Port::reserve()?;
        let number = port.number();
        let file = folder.path().join("peer.conf");
        fs::write(&file, config(number, folder.path()))?;
        let mut command = Command::new(&program);
        command.args(words).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(port);
        let child =
            testkit::spawn(command).with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Peer { child, port: number, _folder: folder })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One measurement.
struct Measured {
    program: &'static str,
    scenario: String,
    queries: f64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    cpu: Duration,
}

impl Measured {
    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.queries
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario, "program": self.program, "queries": self.queries,
            "queries_per_second": (self.queries / self.seconds).round(), "p50_us": self.p50_us.round(),
            "p99_us": self.p99_us.round(), "cpu_us_per_query": (self.cpu_us() * 100.0).round() / 100.0,
        })
    }
}

pub async fn run(options: Options) -> Result<()> {
    let args = [
        "--max-connections=12000",
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=128M",
        "--skip-log-bin",
    ];
    let mysql = MySql::start(MySqlOptions {
        args: args.map(str::to_owned).into(),
        gtid: false,
        ..MySqlOptions::default()
    })
    .await?;
    mysql.exec("create database sbtest; create user bench@'%' identified by 'bench'; grant all on sbtest.* to bench@'%'").await?;
    let sysbench = Sysbench::find()?;
    sysbench.run(mysql.port(), 1, &["prepare".to_owned()])?;
    let mut doors = vec![Door::Direct(mysql.port()), Door::HaProxy(Peer::haproxy(mysql.port())?)];
    match Peer::router(mysql.port()) {
        Ok(peer) => doors.push(Door::Router(peer)),
        Err(error) => println!("without MySQL Router: {error:#}"),
    }
    for (name, group, more) in variants() {
        doors.push(door(name, &group, &more, mysql.port())?);
    }
    for door in &doors {
        reachable(door.port()).context(door.name())?;
    }
    let mut all = Vec::new();
    for _ in 0..options.runs {
        for threads in THREADS {
            for door in &doors {
                let scenario = format!("prepared, {threads} clients");
                all.push(measure(&sysbench, door, scenario, threads, options.seconds, &[])?);
            }
        }
        let text = "--db-ps-mode=disable".to_owned();
        for door in &doors {
            let scenario = format!("text, {TEXT_THREADS} clients");
            let words = std::slice::from_ref(&text);
            all.push(measure(&sysbench, door, scenario, TEXT_THREADS, options.seconds, words)?);
        }
        for door in &doors {
            let scenario = format!("prepared, {RATE} queries/s");
            let words = [format!("--rate={RATE}")];
            all.push(measure(&sysbench, door, scenario, RATE_THREADS, options.seconds, &words)?);
        }
    }
    print(&all);
    let mut memory = Vec::new();
    for door in doors.iter().filter(|door| HELD.contains(&door.name())) {
        memory.push(hold(door, options.idle).await?);
    }
    println!("\nmemory: idle connections, then a result of {LARGE_ROWS} MiB that one client reads");
    for line in &memory {
        println!("  {line}");
    }
    if options.save {
        let command = format!("cargo xtask bench mesh --seconds {} --runs {}", options.seconds, options.runs);
        let more = json!({"measured": all.iter().map(Measured::json).collect::<Vec<_>>(), "memory": memory});
        println!("saved {}", report::save("mesh", &command, &[], more)?.display());
    }
    Ok(())
}

/// What is measured of tidemill: a name, what its group has more, and what the mesh has.
fn variants() -> [(&'static str, String, String); 5] {
    let rules: Vec<String> = (0..RULES)
        .map(|n| format!("{{name: r{n}, match: {{pattern: \"from `secret_{n}`\"}}, action: deny}}"))
        .collect();
    let vault = "auth: vault, users: [{name: bench, password: bench}], pool: {max: 64}";
    [
        ("tidemill", String::new(), "digests: false".into()),
        ("tidemill, digests", String::new(), "digests: true".into()),
        ("… and capture", String::new(), "digests: true\ncapture: {enabled: true}".into()),
        ("… and 1,000 rules", format!("rules: [{}]", rules.join(", ")), "digests: true".into()),
        ("… and a pool", vault.into(), "digests: true".into()),
    ]
}

fn door(name: &'static str, group: &str, more: &str, server: u16) -> Result<Door> {
    let port = Port::reserve()?;
    let number = port.number();
    drop(port);
    let comma = if group.is_empty() { "" } else { ", " };
    let mesh = format!(
        "listeners: [{{name: bench, bind: \"127.0.0.1:{number}\", tenants: [bench]}}]\n\
         groups: {{bench: {{backends: [{{addr: \"127.0.0.1:{server}\"}}]{comma}{group}}}}}\n\
         {more}\n"
    );
    let mut tidemill = Tidemill::new(&[("mesh.yaml", mesh)])?;
    tidemill.start()?;
    Ok(Door::Tidemill(tidemill, number, name))
}

pub fn reachable(port: u16) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > START_MAX {
            bail!("nobody listens on port {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn measure(
    sysbench: &Sysbench,
    door: &Door,
    scenario: String,
    threads: u32,
    seconds: u32,
    more: &[String],
) -> Result<Measured> {
    let mut words = vec![format!("--time={seconds}"), "--histogram=on".to_owned()];
    words.extend_from_slice(more);
    words.push("run".to_owned());
    let before = door.usage()?;
    let output = sysbench.run(door.port(), threads, &words)?;
    let after = door.usage()?;
    let (queries, seconds) = (number_after(&output, "queries:")?, number_after(&output, "total time:")?);
    let times = histogram(&output);
    Ok(Measured {
        program: door.name(),
        scenario,
        queries,
        seconds,
        p50_us: quantile(&times, 0.5),
        p99_us: quantile(&times, 0.99),
        cpu: after.cpu - before.cpu,
    })
}

fn print(all: &[Measured]) {
    println!(
        "\n{:<24} {:<18} {:>10} {:>9} {:>9} {:>14}",
        "scenario", "program", "queries/s", "p50 µs", "p99 µs", "CPU µs/query"
    );
    for one in all {
        println!(
            "{:<24} {:<18} {:>10.0} {:>9.0} {:>9.0} {:>14.2}",
            one.scenario,
            one.program,
            one.queries / one.seconds,
            one.p50_us,
            one.p99_us,
            one.cpu_us()
        );
    }
}

/// Memory of one program with idle connections, and at its highest while a large result passes.
async fn hold(door: &Door, idle: usize) -> Result<Value> {
    let opts = || -> Opts {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(door.port())
            .user(Some("bench"))
            .pass(Some("bench"))
            .db_name(Some("sbtest"))
            .prefer_socket(false)
            .into()
    };
    let before = door.usage()?.rss_bytes;
    let mut held = Vec::new();
    for _ in 0..idle {
        held.push(Conn::new(opts()).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let with = door.usage()?.rss_bytes;
    drop(held);
    let mut conn = Conn::new(opts()).await?;
    let sql = format!("select repeat('x', 1048576) from sbtest1 limit {LARGE_ROWS}");
    let mut bytes = 0_usize;
    let began = Instant::now();
    let mut rows = conn.query_iter(sql).await?;
    while let Some(row) = rows.next().await? {
        bytes += row.get::<Vec<u8>, _>(0).map_or(0, |cell| cell.len());
    }
    let seconds = began.elapsed().as_secs_f64();
    drop(rows);
    let peak = door.usage()?.peak_rss_bytes;
    Ok(json!({
        "program": door.name(),
        "idle_connections": idle,
        "bytes_per_idle_connection": (with.saturating_sub(before)) as usize / idle.max(1),
        "large_result_mb": bytes / 1_000_000,
        "large_result_mb_per_second": (bytes as f64 / 1e6 / seconds).round(),
        "peak_rss_mb": peak / 1_000_000,
    }))
}

/// The load generator of the Debian package, run with its own libraries.
#[derive(Clone)]
pub struct Sysbench {
    program: PathBuf,
    scripts: PathBuf,
    plugins: PathBuf,
}

impl Sysbench {
    pub fn find() -> Result<Sysbench> {
        let install = installed("sysbench")?;
        let libraries = install.join("root/usr/lib");
        let folder = fs::read_dir(&libraries)?
            .filter_map(|entry| Some(entry.ok()?.path().join("libmariadb3/plugin")))
            .find(|folder| folder.is_dir());
        Ok(Sysbench {
            program: install.join("bin/sysbench"),
            scripts: install.join("root/usr/share/sysbench"),
            plugins: folder.context("sysbench's packages hold no plugins of the client library")?,
        })
    }

    fn run(&self, port: u16, threads: u32, words: &[String]) -> Result<String> {
        self.run_script("oltp_point_select", port, threads, words)
    }

    pub fn run_script(&self, name: &str, port: u16, threads: u32, words: &[String]) -> Result<String> {
        let script = |name: &str| Path::new(&self.scripts).join(name).display().to_string();
        let output = Command::new(&self.program)
            .arg(script(&format!("{name}.lua")))
            .args([
                "--db-driver=mysql",
                "--mysql-host=127.0.0.1",
                "--mysql-user=bench",
                "--mysql-password=bench",
            ])
            .arg(format!("--mysql-port={port}"))
            .arg(format!("--tables={TABLES}"))
            .arg(format!("--table-size={TABLE_ROWS}"))
            .arg(format!("--threads={threads}"))
            .args(words)
            .env("LUA_PATH", script("?.lua"))
            .env("MARIADB_PLUGIN_DIR", &self.plugins)
            .output()
            .context("failed to run sysbench")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("sysbench failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }
}

pub fn number_after(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .with_context(|| format!("no `{name}` in:\n{text}"))?;
    let word = line.split_whitespace().next().unwrap_or_default().trim_end_matches('s');
    word.parse().with_context(|| format!("`{word}` is no number"))
}

/// Microseconds of each step, and how many answers took so long: `   0.123 |****** 42`.
fn histogram(text: &str) -> Vec<(f64, u64)> {
    text.lines()
        .filter_map(|line| {
            let (value, rest) = line.split_once('|')?;
            let millis: f64 = value.trim().parse().ok()?;
            Some((millis * 1000.0, rest.split_whitespace().last()?.parse().ok()?))
        })
        .collect()
}

fn quantile(times: &[(f64, u64)], share: f64) -> f64 {
    let total: u64 = times.iter().map(|(_, count)| count).sum();
    let rank = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (micros, count) in times {
        seen += count;
        if seen >= rank {
            return *micros;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sysbench_prints_is_read() {
        let text = "Latency histogram (values are in milliseconds)\n       value  ------------- distribution ------------- count\n       0.073 |**                                       90\n       0.075 |******                                   9\n       1.5 |                                         1\n    queries:                             100    (12759.28 per sec.)\n    total time:                          4.0002s\n";
        let times = histogram(text);
        assert_eq!(times.len(), 3);
        assert_eq!(
            (quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 1.0)),
            (73.0, 75.0, 1500.0)
        );
        assert_eq!(number_after(text, "queries:").unwrap(), 100.0);
        assert_eq!(number_after(text, "total time:").unwrap(), 4.0002);
    }
}
