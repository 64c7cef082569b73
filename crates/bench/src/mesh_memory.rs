//! The SQL proxy in a cgroup of 64 MiB, under clients that want more than that: long results and long files, results that are
//! asked for and not read, more connections than it lets in, prepared statements without end, logins that never end. The
//! kernel ends a process that takes more than its cgroup has: it must live, and serve.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use testkit::mysql_async::prelude::Queryable;
use testkit::mysql_async::{Conn, Error, Opts, OptsBuilder};
use testkit::{MySql, MySqlOptions, Port};
use tokio::io::AsyncWriteExt;

use crate::mesh::reachable;
use crate::report;
use crate::tidemill::Tidemill;

const CGROUP_BYTES: u64 = 64 << 20;
/// What the proxy is told that it may use, below what the program itself takes.
const BUDGET: &str = "24MiB";
const MIB: usize = 1 << 20;
/// Clients of one story are gone within this, before the next.
const SERVED_MAX: Duration = Duration::from_secs(15);

/// A cgroup of this run's own.
struct Cgroup {
    folder: PathBuf,
    limit: &'static str,
    peak: &'static str,
    events: &'static str,
}

impl Cgroup {
    fn make() -> Result<Cgroup> {
        let name = format!("tidemill-bench-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let group = if first.is_dir() {
            Cgroup {
                folder: first.join(name),
                limit: "memory.limit_in_bytes",
                peak: "memory.max_usage_in_bytes",
                events: "memory.oom_control",
            }
        } else {
            Cgroup {
                folder: Path::new("/sys/fs/cgroup").join(name),
                limit: "memory.max",
                peak: "memory.peak",
                events: "memory.events",
            }
        };
        let hint = "a cgroup is made as root, where /sys/fs/cgroup can be written";
        fs::create_dir(&group.folder).context(hint)?;
        fs::write(group.folder.join(group.limit), CGROUP_BYTES.to_string()).context(hint)?;
        // Without swap; not every kernel counts it.
        let _ = fs::write(group.folder.join("memory.memsw.limit_in_bytes"), CGROUP_BYTES.to_string());
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        Ok(group)
    }

    fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    fn peak_bytes(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.peak)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Processes that the kernel has ended here.
    fn killed(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.events))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).context("the kernel does not count what it ends")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

pub async fn run(save: bool) -> Result<()> {
    let args = [
        "--max-connections=6000",
        "--performance-schema=OFF",
        "--skip-log-bin",
        "--local-infile=1",
        "--max-allowed-packet=64M",
    ];
    let mysql = MySql::start(MySqlOptions {
        args: args.map(str::to_owned).into(),
        gtid: false,
        ..MySqlOptions::default()
    })
    .await?;
    mysql
        .exec(
            "create database shop; create user bench@'%' identified by 'bench'; grant all on shop.* to bench@'%'; \
             create table shop.lines_of (line longtext) engine = blackhole; set global max_prepared_stmt_count = 1000000",
        )
        .await?;
    let cgroup = Cgroup::make()?;
    let port = Port::reserve()?;
    let number = port.number();
    drop(port);
    let mesh = format!(
        "listeners: [{{name: bench, bind: \"127.0.0.1:{number}\", tenants: [bench]}}]\n\
         groups: {{bench: {{backends: [{{addr: \"127.0.0.1:{}\"}}], auth: vault, users: [{{name: bench, password: bench}}], read_write_split: true}}}}\n\
         limits: {{memory: {BUDGET}}}\n",
        mysql.port()
    );
    let mut tidemill = Tidemill::new(&[("mesh.yaml", mesh)])?;
    tidemill.start_within(&cgroup.procs())?;
    reachable(number)?;
    let door = Door(number);
    let mut told = Vec::new();
    for (name, story) in STORIES {
        let began = Instant::now();
        let seen = match *name {
            "result" => result(&door).await,
            "file" => file(&door).await,
            "unread" => unread(&door).await,
            "crowd" => crowd(&door).await,
            "statements" => statements(&door).await,
            _ => logins(&door).await,
        };
        let lives = tidemill.usage().is_ok();
        let killed = cgroup.killed()?;
        let peak = cgroup.peak_bytes();
        let (seen, failed) = match seen {
            Ok(seen) => (seen, false),
            Err(error) => (format!("{error:#}"), true),
        };
        println!(
            "{story:<58} {seen:<44} {:>5.1} MiB at most, {:.1} s",
            peak as f64 / MIB as f64,
            began.elapsed().as_secs_f64()
        );
        if failed || !lives || killed > 0 {
            bail!("{name}: the process lives: {lives}; ended by the kernel: {killed}");
        }
        // Whoever comes next is served, when those of before have gone.
        door.served().await.context(*name)?;
        told.push(json!({"story": story, "seen": seen, "peak_bytes_so_far": peak}));
    }
    if save {
        let more = json!({"cgroup_bytes": CGROUP_BYTES, "limits.memory": BUDGET, "stories": told});
        println!(
            "saved {}",
            report::save("mesh-memory", "cargo xtask bench mesh-memory", &[], more)?.display()
        );
    }
    tidemill.stop().await
}

const STORIES: &[(&str, &str)] = &[
    ("result", "a result of 1 GiB"),
    ("file", "LOAD DATA LOCAL of 1 GiB"),
    ("crowd", "5,000 connections, each with a statement"),
    ("statements", "prepared statements of 15 KB until it has no more"),
    ("logins", "3,000 logins that stop in their midst"),
    // Last: the client library reads to its end what it has been given and is asked no more for.
    ("unread", "200 results of 1 GiB that nobody reads on"),
];

struct Door(u16);

impl Door {
    fn opts(&self) -> OptsBuilder {
        OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.0)
            .user(Some("bench"))
            .pass(Some("bench"))
            .db_name(Some("shop"))
            .prefer_socket(false)
    }

    /// Waits until a client is let in, and gets an answer.
    async fn served(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.conn().await {
                Ok(mut conn) => return Ok(conn.query_drop("select 1").await?),
                Err(error) if began.elapsed() > SERVED_MAX => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn conn(&self) -> Result<Conn> {
        Ok(Conn::new(Opts::from(self.opts())).await?)
    }
}

/// 1024 rows of a mebibyte, which the server makes one after the other.
const GIBIBYTE: &str = "select repeat('x', 1048576) from (values row(1), row(2), row(3), row(4)) a, (values row(1), row(2), row(3), row(4)) b, \
    (values row(1), row(2), row(3), row(4)) c, (values row(1), row(2), row(3), row(4)) d, (values row(1), row(2), row(3), row(4)) e";

async fn result(door: &Door) -> Result<String> {
    let mut conn = door.conn().await?;
    let (mut bytes, began) = (0, Instant::now());
    let mut rows = conn.query_iter(GIBIBYTE).await?;
    while let Some(row) = rows.next().await? {
        bytes += row.get::<Vec<u8>, _>(0).map_or(0, |cell| cell.len());
    }
    if bytes != 1024 * MIB {
        bail!("{bytes} bytes came");
    }
    Ok(format!("{:.0} MB/s", bytes as f64 / 1e6 / began.elapsed().as_secs_f64()))
}

async fn file(door: &Door) -> Result<String> {
    let line = Bytes::from([&vec![b'x'; MIB - 1][..], b"\n"].concat());
    let mut conn = door.conn().await?;
    conn.set_infile_handler(async move { Ok(stream::iter(std::iter::repeat_n(line, 1024)).map(Ok).boxed()) });
    let began = Instant::now();
    conn.query_drop("load data local infile 'x' into table lines_of").await?;
    Ok(format!("{:.0} MB/s", (1024 * MIB) as f64 / 1e6 / began.elapsed().as_secs_f64()))
}

async fn unread(door: &Door) -> Result<String> {
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut conn = door.conn().await?;
        // The first row is there, and what comes behind it fills every buffer on its way.
        let mut rows = conn.query_iter(GIBIBYTE).await?;
        rows.next().await?;
        drop(rows);
        held.push(conn);
    }
    let count = held.len();
    // Each ends here, in the midst of its answer.
    drop(held);
    Ok(format!("{count} held"))
}

async fn crowd(door: &Door) -> Result<String> {
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..5_000 {
        match door.conn().await {
            Ok(mut conn) => {
                conn.query_drop("select 1").await?;
                held.push(conn);
            }
            Err(error) if error.to_string().contains("1040") || error.to_string().contains("Too many") => {
                turned_away += 1
            }
            Err(error) => bail!("turned away in another way: {error:#}"),
        }
    }
    Ok(format!("{} held, {turned_away} got error 1040", held.len()))
}

async fn statements(door: &Door) -> Result<String> {
    const EACH: usize = 2_000;
    let mut held = Vec::new();
    let mut prepared = 0;
    let told = |prepared: i32, sessions: usize, end: &str| {
        format!("{prepared} prepared by {sessions} sessions{end}")
    };
    for session in 0..20 {
        let opts = door.opts().stmt_cache_size(EACH);
        let Ok(mut conn) = Conn::new(Opts::from(opts)).await else { break };
        for number in 0..EACH {
            let sql = format!("select {number}, {session}, '{}'", "x".repeat(15_000));
            match conn.prep(sql).await {
                Ok(_) => prepared += 1,
                Err(Error::Server(error)) if error.code == 1461 => {
                    return Ok(told(prepared, held.len() + 1, ", then error 1461"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        held.push(conn);
    }
    Ok(told(prepared, held.len(), ""))
}

async fn logins(door: &Door) -> Result<String> {
    let mut held = Vec::new();
    for _ in 0..3_000 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", door.0)).await {
            // The header of a login of 120,000 bytes, and half of them.
            let _ = stream.write_all(&[0xc0, 0xd4, 0x01, 1]).await;
            let _ = stream.write_all(&vec![b'x'; 60_000]).await;
            held.push(stream);
        }
    }
    Ok(format!("{} held", held.len()))
}
