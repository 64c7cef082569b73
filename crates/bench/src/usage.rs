//! What a process has used: CPU and memory, as the kernel counts them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// One process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all its threads; the kernel counts in steps of 10 ms.
    pub cpu: Duration,
    pub rss_bytes: u64,
    /// The largest `rss_bytes` so far.
    pub peak_rss_bytes: u64,
}

/// Reads the usage of a process that runs.
pub fn of_process(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The second field is the program's name in brackets, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("a malformed /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    // SAFETY: sysconf takes a number and answers one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let cpu =
        Duration::from_secs_f64(ticks.context("a malformed /proc/PID/stat")? as f64 / per_second as f64);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name: &str| kib(name).unwrap_or(0) * 1024;
    Ok(Usage { cpu, rss_bytes: bytes("VmRSS:"), peak_rss_bytes: bytes("VmHWM:") })
}

/// The CPU time of all children of this process that have ended.
pub fn cpu_of_ended_children() -> Duration {
    // SAFETY: a rusage is plain numbers, for which zero is a value, and getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
