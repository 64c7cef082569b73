//! Results as a table for people and as a file for later comparison.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One program on one stretch of binlog, once.
#[derive(Clone, Debug)]
pub struct Run {
    pub scenario: String,
    pub program: String,
    pub rows: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// `None` where it was not measured.
    pub peak_rss_bytes: Option<u64>,
    pub note: String,
}

impl Run {
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.wall.as_secs_f64()
    }

    pub fn rows_per_cpu_second(&self) -> f64 {
        self.rows as f64 / self.cpu.as_secs_f64()
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "program": self.program,
            "rows": self.rows,
            "wall_seconds": round(self.wall.as_secs_f64()),
            "cpu_seconds": round(self.cpu.as_secs_f64()),
            "rows_per_second": self.rows_per_second().round(),
            "rows_per_cpu_second": self.rows_per_cpu_second().round(),
            "peak_rss_mb": self.peak_rss_bytes.map(|bytes| round(bytes as f64 / 1e6)),
            "note": self.note,
        })
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// One line a run.
pub fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<22} {:<22} {:>9} {:>8} {:>8} {:>12} {:>14} {:>8}  {}\n",
        "scenario", "program", "rows", "wall s", "CPU s", "rows/s", "rows/CPU s", "peak MB", "note"
    );
    for run in runs {
        text += &format!(
            "{:<22} {:<22} {:>9} {:>8.2} {:>8.2} {:>12.0} {:>14.0} {:>8}  {}\n",
            run.scenario,
            run.program,
            run.rows,
            run.wall.as_secs_f64(),
            run.cpu.as_secs_f64(),
            run.rows_per_second(),
            run.rows_per_cpu_second(),
            run.peak_rss_bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6)),
            run.note
        );
    }
    text
}

/// Writes `bench/results/DATE-NAME.json`; a second run of a day replaces the first.
pub fn save(name: &str, command: &str, runs: &[Run], more: Value) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/results");
    fs::create_dir_all(&folder)?;
    let path = folder.canonicalize()?.join(format!("{}-{name}.json", date()?));
    let runs: Vec<Value> = runs.iter().map(Run::json).collect();
    let value = json!({"command": command, "machine": machine(), "runs": runs, "more": more});
    fs::write(&path, serde_json::to_string_pretty(&value)? + "\n")?;
    Ok(path)
}

fn date() -> Result<String> {
    let output = Command::new("date").arg("+%Y-%m-%d").output().context("failed to run `date`")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the results depend on and a reader cannot guess.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    json!({
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").split('-').next().unwrap_or_default().trim(),
    })
}
