//! What the mesh may use, how near to it it is, and what gives way: first what can be spared, then newcomers.
//!
//! What grows with what a client sends (a long statement, texts of prepared statements, a wide frame) asks for itself where it
//! grows, and is refused; so nobody has to be ended to make room. What the process really takes is looked at too, where it is
//! in a cgroup with a limit: the kernel ends a process that takes more.

use crate::buffers;
use base::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

/// What a session counts for before it has moved a byte: its task, both sockets, and what the kernel has for them.
const SESSION_BYTES: usize = 16 * 1024;
/// Where `limits.memory` says nothing, and no cgroup has less.
const BYTES_MAX: usize = 512 << 20;
/// The least, in a cgroup that is nearly used up.
const BYTES_MIN: usize = 4 << 20;

/// What the mesh may use.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Memory of sessions, buffers, texts of statements, captures and mirrors. Captures and mirrors shed what comes when three
    /// quarters are used up; a client that comes when all is gets error 1040. By default half of what the process's cgroup has
    /// free at the start, 512MiB at most.
    #[schemars(with = "Option<String>")]
    pub memory: Option<ByteSize>,
    /// Sessions at once; one more gets error 1040.
    #[schemars(extend("default" = 10_000))]
    pub sessions: Option<usize>,
}

/// How near the limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    Low,
    /// Captures and mirrors shed what comes, and threads keep no free buffers.
    High,
    /// Newcomers are turned away as well, with error 1040.
    Full,
}

impl Pressure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
            Self::Full => "full",
        }
    }

    /// Of what counts and of what the whole process takes, each of its limit.
    fn of(used: usize, max: usize, taken: Option<(usize, usize)>) -> Self {
        let of_cgroup = |percent: usize| {
            taken.is_some_and(|(bytes, limit)| bytes.saturating_mul(100) >= limit.saturating_mul(percent))
        };
        if used >= max || of_cgroup(90) {
            Self::Full
        } else if used >= max - max / 4 || of_cgroup(80) {
            Self::High
        } else {
            Self::Low
        }
    }
}

/// The limit, and what was last seen of it.
#[derive(Debug)]
pub struct Memory {
    pub bytes_max: usize,
    cgroup: Option<usize>,
    seen: AtomicU8,
}

impl Memory {
    /// `configured`: bytes, where the configuration says. Else half of what the cgroup has left, 512 MiB at most.
    pub fn new(configured: Option<u64>) -> Self {
        let cgroup = cgroup_limit();
        let bytes_max = match (configured, cgroup) {
            (Some(bytes), _) => usize::try_from(bytes).unwrap_or(usize::MAX),
            (None, Some(limit)) => share(limit, process_bytes().unwrap_or(0)),
            (None, None) => BYTES_MAX,
        };
        Self { bytes_max, cgroup, seen: AtomicU8::new(0) }
    }

    /// Bytes that count, with so many sessions.
    pub fn used(sessions: usize) -> usize {
        buffers::leased_bytes() + buffers::spooled_bytes() + sessions * SESSION_BYTES
    }

    /// Whether one more session has room.
    pub fn has_room(&self, sessions: usize) -> bool {
        self.has_room_for(SESSION_BYTES, sessions)
    }

    /// Whether so many bytes have, with so many sessions.
    pub fn has_room_for(&self, bytes: usize, sessions: usize) -> bool {
        self.pressure() < Pressure::Full && Self::used(sessions) + bytes <= self.bytes_max
    }

    pub fn pressure(&self) -> Pressure {
        match self.seen.load(Ordering::Relaxed) {
            0 => Pressure::Low,
            1 => Pressure::High,
            _ => Pressure::Full,
        }
    }

    /// Looks at what is used now, with so many sessions.
    pub fn look(&self, sessions: usize) {
        let taken = self.cgroup.and_then(|limit| Some((process_bytes()?, limit)));
        let now = Pressure::of(Self::used(sessions), self.bytes_max, taken);
        let before = self.pressure();
        if now == before {
            return;
        }
        self.seen.store(now as u8, Ordering::Relaxed);
        buffers::spare(now != Pressure::Low);
        if now > before {
            tracing::warn!(
                pressure = now.name(),
                used_bytes = Self::used(sessions),
                max_bytes = self.bytes_max,
                sessions,
                "the mesh's memory is nearly used up; see `limits.memory`"
            );
        } else {
            tracing::info!(pressure = now.name(), "the mesh has memory again");
        }
    }
}

/// What the mesh may have of a cgroup whose process takes so much before anybody has come. The allocator's and the kernel's
/// part of it is left.
fn share(limit: usize, taken: usize) -> usize {
    (limit.saturating_sub(taken) / 2).clamp(BYTES_MIN, BYTES_MAX)
}

/// What the process has in memory that the kernel cannot take back; `None` where there is no /proc.
fn process_bytes() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_ascii_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The least limit of the process's cgroup and those above it; `None` without one.
fn cgroup_limit() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    places(&groups)
        .into_iter()
        .filter_map(|(root, path, file)| least(Path::new(root), Path::new(&path), file))
        .min()
}

/// Where the limits are: the controller's root, the cgroup's path beneath it, and the name of the file.
fn places(groups: &str) -> Vec<(&'static str, String, &'static str)> {
    let mut places = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/').to_owned();
        if controllers.is_empty() {
            places.push(("/sys/fs/cgroup", path, "memory.max"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            places.push(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"));
        }
    }
    places
}

fn least(root: &Path, path: &Path, file: &str) -> Option<usize> {
    // In a container, the path may be that of the host, while the root is the container's own.
    let mut folders: Vec<PathBuf> = path.ancestors().map(|path| root.join(path)).collect();
    folders.push(root.to_owned());
    let limit = |folder: PathBuf| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    // Without a limit, the first version of cgroups says the largest number that is whole pages.
    let limits = folders.into_iter().filter_map(limit).filter(|limit| *limit < 1 << 60);
    limits.min().and_then(|limit| usize::try_from(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_and_what_the_process_takes_both_press() {
        assert_eq!(Pressure::of(0, 100, None), Pressure::Low);
        assert_eq!(Pressure::of(74, 100, None), Pressure::Low);
        assert_eq!(Pressure::of(75, 100, None), Pressure::High);
        assert_eq!(Pressure::of(100, 100, None), Pressure::Full);
        assert_eq!(Pressure::of(0, 100, Some((79, 100))), Pressure::Low);
        assert_eq!(Pressure::of(0, 100, Some((80, 100))), Pressure::High);
        assert_eq!(Pressure::of(0, 100, Some((90, 100))), Pressure::Full);
    }

    #[test]
    fn a_cgroup_leaves_half_of_what_is_free_to_the_mesh() {
        assert_eq!(share(64 << 20, 24 << 20), 20 << 20);
        assert_eq!(share(64 << 20, 80 << 20), BYTES_MIN);
        assert_eq!(share(64 << 30, 0), BYTES_MAX);
        assert_eq!(Memory::new(Some(7)).bytes_max, 7);
        assert!((BYTES_MIN..=BYTES_MAX).contains(&Memory::new(None).bytes_max));
    }

    #[test]
    fn limits_are_found_under_both_versions_of_cgroups() {
        let groups = "4:memory,hugetlb:/pod/one\n1:cpu:/pod\n0::/pod/two\n";
        let expected = [
            ("/sys/fs/cgroup/memory", "pod/one".to_owned(), "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "pod/two".to_owned(), "memory.max"),
        ];
        assert_eq!(places(groups), expected);

        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let limit = || least(root.path(), Path::new("a/b"), "memory.max");
        assert_eq!(limit(), None);
        fs::write(root.path().join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(limit(), None);
        // One above has less.
        fs::write(root.path().join("a/memory.max"), "1048576\n").unwrap();
        fs::write(root.path().join("a/b/memory.max"), "2097152\n").unwrap();
        assert_eq!(limit(), Some(1 << 20));
        // As a container sees it, where the path is the host's.
        fs::write(root.path().join("memory.max"), "524288\n").unwrap();
        assert_eq!(least(root.path(), Path::new("not/here"), "memory.max"), Some(1 << 19));
    }

    #[test]
    fn one_more_session_has_room_until_the_limit() {
        let memory = Memory::new(Some(u64::try_from(buffers::leased_bytes() + (64 << 20)).unwrap()));
        assert!(memory.has_room(10));
        assert!(!memory.has_room(1 << 20));
        memory.look(1 << 20);
        assert_eq!(memory.pressure(), Pressure::Full);
        assert!(!memory.has_room(0), "until it was looked at again");
        memory.look(0);
        assert_eq!(memory.pressure(), Pressure::Low);
        assert!(memory.has_room(0));
    }
}
