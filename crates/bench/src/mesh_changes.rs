//! sysbench through the SQL proxy while everything around its connections changes: the program is upgraded again and again,
//! the configuration is taken into use anew, the replica is drained, and killed in the end. No client may notice.
//!
//! Two loads run at once: transactions of reads and writes, which belong to the writer, and single reads, which go to the
//! replica. sysbench ends at the first error that a client is told, but for deadlocks of its
//! own transactions, which it counts as those that it connects anew for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testkit::{MySql, MySqlOptions, Port};

use crate::mesh::{Sysbench, number_after, reachable};
use crate::report;
use crate::tidemill::Tidemill;

pub struct Options {
    pub upgrades: u32,
    pub save: bool,
}

const THREADS: u32 = 8;
/// Two transactions of the load wait for each other: the server ends one of them.
const DEADLOCK: u16 = 1213;
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that a run is planned for; sysbench is ended before by its own clock.
const UPGRADE_SECONDS_MAX: u32 = 6;

/// The process that serves now: no child of this one after the first upgrade.
struct Serving(Option<u32>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // SAFETY: kill takes two numbers; the process is the last one that said it serves, and has not been asked to end.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
        }
    }
}

pub async fn run(options: Options) -> Result<()> {
    let args = ["--max-connections=2000", "--innodb-buffer-pool-size=128M"].map(str::to_owned).to_vec();
    let writer = MySql::start(MySqlOptions { args: args.clone(), ..MySqlOptions::default() }).await?;
    let replica = MySql::start(MySqlOptions { args, server_id: 2, ..MySqlOptions::default() }).await?;
    replica.replica_of(&writer).await?;
    writer
        .exec(
            "create database sbtest; create user bench@'%' identified by 'bench'; grant all on sbtest.* to bench@'%'; \
             create user monitor@'%'; grant replication client on *.* to monitor@'%'",
        )
        .await?;
    let sysbench = Sysbench::find()?;
    sysbench.run_script("oltp_read_write", writer.port(), 1, &["prepare".to_owned()])?;
    replica.caught_up_with(&writer).await?;
    replica.exec("set global super_read_only = on").await?;
    let port = Port::reserve()?;
    let number = port.number();
    drop(port);
    let mesh = |slow: u32| {
        format!(
            "listeners: [{{name: bench, bind: \"127.0.0.1:{number}\", tenants: [bench]}}]\n\
             groups:\n  bench:\n    backends: [{{addr: \"127.0.0.1:{}\"}}, {{addr: \"127.0.0.1:{}\"}}]\n    \
             monitor: {{user: monitor}}\n    auth: vault\n    users: [{{name: bench, password: bench}}]\n    \
             read_write_split: true\n    consistency: \"off\"\nslow: {slow}s\n",
            writer.port(),
            replica.port()
        )
    };
    let mut tidemill = Tidemill::new(&[("mesh.yaml", mesh(1))])?;
    tidemill.start()?;
    reachable(number)?;
    let mut serving = Serving(tidemill.pid());
    let seconds = options.upgrades * UPGRADE_SECONDS_MAX;
    let loads: Vec<_> = ["oltp_read_write", "oltp_point_select"]
        .map(|script| {
            let sysbench = sysbench.clone();
            let words =
                [format!("--time={seconds}"), format!("--mysql-ignore-errors={DEADLOCK}"), "run".into()];
            std::thread::spawn(move || sysbench.run_script(script, number, THREADS, &words))
        })
        .into();
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let (mut times, mut moved, mut reloads, mut drains) = (Vec::new(), 0, 0, 0);
    let address = format!("127.0.0.1:{}", replica.port());
    for round in 0..options.upgrades {
        if loads.iter().any(|load| load.is_finished()) {
            bail!("a load ended before its time, in round {round}");
        }
        let started = Instant::now();
        let told: Value = serde_json::from_str(&tidemill.command(&["mesh", "upgrade", "--json"])?)?;
        times.push(started.elapsed());
        serving.0 = told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        moved += told["moved"].as_u64().unwrap_or(0);
        if told["left"] != 0 || told["ended"] != 0 {
            bail!("an upgrade left sessions behind: {told}");
        }
        tidemill.write("mesh.yaml", &mesh(1 + round % 2))?;
        wait_for_node(&tidemill)?;
        tidemill.command(&["mesh", "reload"])?;
        reloads += 1;
        if round % 3 == 0 {
            tidemill.command(&["mesh", "drain", "bench", &address])?;
            std::thread::sleep(PAUSE);
            tidemill.command(&["mesh", "undrain", "bench", &address])?;
            drains += 1;
        }
        std::thread::sleep(PAUSE);
    }
    replica.kill9();
    println!(
        "{} upgrades in {:.0} s; the replica is killed, and the loads go on",
        options.upgrades,
        began.elapsed().as_secs_f64()
    );
    let mut lines = Vec::new();
    for (load, name) in loads.into_iter().zip(["transactions", "reads"]) {
        let output = load.join().ok().context("a load panicked")??;
        let count = |what: &str| number_after(&output, what);
        let (queries, deadlocks, anew) =
            (count("queries:")?, count("ignored errors:")?, count("reconnects:")?);
        println!(
            "{name:<13} {queries:>10.0} queries, no error but {deadlocks} deadlocks, {anew} connected anew"
        );
        lines.push(json!({"load": name, "queries": queries, "deadlocks": deadlocks, "reconnects": anew}));
        if anew > 0.0 {
            bail!("clients noticed:\n{output}");
        }
    }
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let longest = times.last().copied().unwrap_or_default();
    println!(
        "an upgrade took {middle:.1?} (longest {longest:.1?}), of which 3 s are spent watching; {moved} sessions moved, {reloads} reloads, {drains} drains"
    );
    if options.save {
        let more = json!({
            "upgrades": options.upgrades, "moved": moved, "reloads": reloads, "drains": drains,
            "upgrade_seconds_p50": middle.as_secs_f64(), "upgrade_seconds_max": longest.as_secs_f64(), "loads": lines,
        });
        let command = format!("cargo xtask bench mesh-changes --upgrades {}", options.upgrades);
        println!("saved {}", report::save("mesh-changes", &command, &[], more)?.display());
    }
    Ok(())
}

/// The new process answers over HTTP a moment after it serves clients.
fn wait_for_node(tidemill: &Tidemill) -> Result<()> {
    let began = Instant::now();
    while tidemill.status().is_null() {
        if began.elapsed() > Duration::from_secs(20) {
            bail!("the new process does not answer over HTTP");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
