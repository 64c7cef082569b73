//! A tidemill process on a project folder of the test's own.

use crate::random::Rng;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::{Port, SqlServer};

/// Longer than anything here takes on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub struct Node {
    pub dir: TempDir,
    port: Port,
    child: Option<Child>,
    env: Vec<(String, String)>,
    /// Longest wait for anything.
    pub patience: Duration,
}

impl Node {
    /// A project with these files; nothing runs yet.
    pub fn new(files: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = Port::reserve().unwrap();
        let node = Self { dir, port, child: None, env: Vec::new(), patience: PATIENCE };
        let listen = format!("name: test\nlisten: {{http: \"{}\"}}\n", node.address());
        node.write("tidemill.yaml", &listen);
        for (name, text) in files {
            node.write(name, text);
        }
        node
    }

    /// More environment for every process of this node.
    pub fn env(&mut self, pairs: &[(&str, &str)]) {
        self.env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    }

    /// Where the node listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.port.addr().to_string()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn start(&mut self) {
        self.start_into(Stdio::from(self.log_file()));
    }

    fn log_file(&self) -> fs::File {
        fs::OpenOptions::new().create(true).append(true).open(self.path("tidemill.log")).unwrap()
    }

    /// Starts with this as standard output; a pipe stays open, and unread, until the node ends.
    pub fn start_into(&mut self, out: Stdio) {
        let log = self.log_file();
        let child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["up", "--quiet"])
            .env("TIDEMILL_PROJECT", self.dir.path())
            .envs(self.env.iter().cloned())
            .stdout(out)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends the node as a service manager does; it must drain and say that all is well.
    pub fn stop(&mut self) {
        let Some(child) = self.child.take() else { return };
        let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = end_of(child);
        assert_eq!(status, Some(0), "SIGTERM ends with status 0\n{}", self.log());
    }

    /// The status that a node ends with by itself; `None` when it does not end.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.take().and_then(end_of)
    }

    /// The process that runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Runs a command of the CLI on this project: status, stdout, stderr.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(args)
            .env("TIDEMILL_PROJECT", self.dir.path())
            .envs(self.env.iter().cloned())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }

    /// `status --json`; null while the node does not answer.
    pub fn status(&self) -> Value {
        let (code, out, _) = self.run(&["status", "--json"]);
        if code == 0 { serde_json::from_str(&out).unwrap() } else { Value::Null }
    }

    /// Waits until `wanted` holds for the status.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + self.patience;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "waited for: {what}\nstatus: {status:#}\nlog:\n{}", self.log());
            pause().await;
        }
    }

    /// Waits until `holds` answers true.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let end = Instant::now() + self.patience;
        while !holds().await {
            assert!(
                Instant::now() < end,
                "waited for: {what}\nstatus: {:#}\nlog:\n{}",
                self.status(),
                self.log()
            );
            pause().await;
        }
    }

    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.path("tidemill.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The whole journal of a source, as `tail --offline` prints it.
    pub fn changes(&self, source: &str) -> Vec<Value> {
        let (code, out, err) = self.run(&["tail", source, "--offline"]);
        assert_eq!(code, 0, "{err}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The status of a process that ends in time; one that does not is killed.
fn end_of(mut child: Child) -> Option<i32> {
    let pid = child.id().to_string();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait()));
    match ended.recv_timeout(PATIENCE) {
        Ok(status) => status.unwrap().code(),
        Err(_) => {
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
            None
        }
    }
}

async fn pause() {
    let mut tick = tokio::time::interval(Duration::from_millis(60));
    tick.tick().await;
    tick.tick().await;
}

/// Whether the first source has connected and has no snapshot before it: its state alone is `stream` before either is known.
pub fn streams(status: &Value) -> bool {
    let source = &status["sources"][0];
    source["state"] == "stream" && source["position"]["file"].is_string()
}

/// A source file of a MySQL or MariaDB server.
pub fn mysql_source(url: &str, tables: &str) -> String {
    format!("kind: mysql\nurl: {url}\ntables: [\"{tables}\"]\n")
}

/// Writes into `shop.orders` (id, name, amount) until told to stop; how many statements.
pub async fn write_orders(server: &SqlServer, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = rng.below(3000);
        let sql = match rng.below(5) {
            0 | 1 => format!("REPLACE INTO shop.orders VALUES ({id}, 'new {written}', {written}.5)"),
            2 => format!(
                "UPDATE shop.orders SET name = 'seen {written}' WHERE id BETWEEN {id} AND {}",
                id + 20
            ),
            3 => format!("DELETE FROM shop.orders WHERE id = {id}"),
            _ => format!("UPDATE IGNORE shop.orders SET id = {} WHERE id = {id}", rng.below(3000)),
        };
        server.exec(&sql).await.unwrap();
        written += 1;
    }
    written
}

/// All changes have the next lsn: no gap, no repeat.
pub fn assert_dense(changes: &[Value]) {
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(change["lsn"].as_u64(), Some(index as u64 + 1), "{change}");
    }
}

/// Rows of a SQLite table as text, in key order.
pub fn sqlite_rows(path: &Path, sql: &str) -> Vec<Vec<String>> {
    let Ok(db) = rusqlite::Connection::open(path) else { return Vec::new() };
    let Ok(mut query) = db.prepare(sql) else { return Vec::new() };
    let width = query.column_count();
    let rows = query.query_map([], |row| {
        (0..width)
            .map(|i| {
                Ok(match row.get_ref(i)? {
                    rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                    rusqlite::types::ValueRef::Integer(v) => v.to_string(),
                    rusqlite::types::ValueRef::Real(v) => v.to_string(),
                    rusqlite::types::ValueRef::Text(v) | rusqlite::types::ValueRef::Blob(v) => {
                        String::from_utf8_lossy(v).into_owned()
                    }
                })
            })
            .collect()
    });
    rows.and_then(Iterator::collect).unwrap_or_default()
}

/// Runs statements in order; each must succeed.
pub async fn run_all(server: &SqlServer, statements: &[&str]) {
    for sql in statements {
        server.exec(sql).await.unwrap();
    }
}

/// The rows of an INSERT, one of each number. (MySQL 9.7 at times loses the temporary table of a recursive query.)
pub fn values(numbers: std::ops::Range<u32>, row: impl Fn(u32) -> String) -> String {
    let rows: Vec<String> = numbers.map(|i| format!("({})", row(i))).collect();
    format!("VALUES {}", rows.join(", "))
}
