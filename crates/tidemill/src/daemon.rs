//! `tidemill up --daemon` and `tidemill down`: a node in the background, where no service manager keeps it.
//!
//! The node is a process and a session of its own that writes its number into a file once it serves, and holds a lock on that
//! file while it lives: whoever reads the number knows by the lock that it is still that process.

use crate::failure::Failure;
use crate::project::NodeConfig;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A node that does not serve by then is left to itself; its log says what it does.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// A node drains for some 20 s at most when it is told to end.
const DOWN_WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// As much of a log is shown of a node that did not come up.
const SHOWN_BYTES_MAX: u64 = 4096;
/// No number of a process is longer.
const PID_BYTES_MAX: u64 = 32;

/// Where a node in the background has its number.
pub fn pid_path(node: &NodeConfig) -> PathBuf {
    node.data_dir.join("tidemill.pid")
}

fn log_path(node: &NodeConfig) -> PathBuf {
    node.data_dir.join("tidemill.log")
}

/// The file with this process's number, locked while it lives.
pub struct PidFile {
    path: PathBuf,
    /// Its name until this process serves, where another process's file is at `path`.
    next: Option<PathBuf>,
    file: File,
}

impl PidFile {
    /// Has no number in it yet.
    ///
    /// # Errors
    /// When another process that lives has it.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), next: None, file: locked(path)? })
    }

    /// Will stand in the place of the file of a process that lives on for a while, and keeps one that has no name any more.
    pub fn replace(path: &Path) -> Result<Self, Failure> {
        let next = path.with_extension("pid.next");
        let file = locked(&next)?;
        Ok(Self { path: path.to_owned(), next: Some(next), file })
    }

    /// This process serves.
    pub fn tell(&mut self) {
        let mut told =
            self.file.seek(SeekFrom::Start(0)).and_then(|_| writeln!(self.file, "{}", std::process::id()));
        if let (Ok(()), Some(next)) = (&told, self.next.take()) {
            told = fs::rename(next, &self.path);
        }
        if let Err(error) = told {
            tracing::error!(%error, path = %self.path.display(), "failed to write our number");
        }
    }
}

/// An empty file that is nobody else's.
fn locked(path: &Path) -> Result<File, Failure> {
    let file = open(path).map_err(|error| unwritten(path, &error))?;
    if file.try_lock().is_err() {
        return Err(Failure::new(1, format!("{} is another living node's", path.display()))
            .hint("`tidemill down` ends it"));
    }
    file.set_len(0).map_err(|error| unwritten(path, &error))?;
    Ok(file)
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("write {}", path.display()), error)
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Emptied and not removed: another process may have opened it to take it next.
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, path = %self.path.display(), "failed to empty the file with our number");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// The process that has the file and lives, if one does.
fn holder(path: &Path) -> io::Result<Option<u32>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.try_lock_shared().is_ok() {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

/// Starts this program once more, in the background, and waits until it serves.
///
/// # Errors
/// When it ends before that: with its exit status, and the end of what it said.
pub async fn start(
    dir: &Path,
    node: &NodeConfig,
    role: &[String],
    log: &str,
    quiet: bool,
) -> Result<(), Failure> {
    let (pid_path, log_path) = (pid_path(node), log_path(node));
    if let Some(pid) = look(&pid_path)? {
        return Err(Failure::new(1, format!("process {pid} runs this project already"))
            .hint("`tidemill down` ends it, `tidemill mesh upgrade` replaces it"));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&node.data_dir)
        .map_err(|error| Failure::io(&format!("make {}", node.data_dir.display()), &error))?;
    let failed = |error: io::Error| Failure::io(&format!("write {}", log_path.display()), &error);
    let mut said =
        OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path).map_err(failed)?;
    let begin = said.seek(SeekFrom::End(0)).map_err(failed)?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find this program", &error))?;
    let mut command = Command::new(program);
    command.arg("--project").arg(dir).args(["up", "--log", log, "--role", &role.join(",")]);
    command.arg("--pid-file").arg(&pid_path).stdin(Stdio::null());
    let twin = said.try_clone().map_err(failed)?;
    command.stdout(twin).stderr(said);
    // SAFETY: between fork and exec the child makes one system call, which takes no memory and no lock.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
    }
    let mut child = command.spawn().map_err(|error| Failure::io("start the node", &error))?;
    let until = Instant::now() + READY_WAIT_MAX;
    loop {
        let ended = child.try_wait().map_err(|error| Failure::io("look at the node", &error))?;
        if let Some(ended) = ended {
            let status = ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            eprint!("{}", end_of(&log_path, begin));
            return Err(Failure::new(status, format!("the node did not come up: {ended}"))
                .hint(format!("above is the end of {}", log_path.display())));
        }
        if look(&pid_path)? == Some(child.id()) {
            break;
        }
        if Instant::now() > until {
            return Err(Failure::new(1, format!("process {} does not serve yet", child.id()))
                .hint(format!("it goes on in the background; see {}", log_path.display())));
        }
        sleep(LOOK_INTERVAL).await;
    }
    if !quiet {
        println!("up: process {}, which logs into {}", child.id(), log_path.display());
    }
    Ok(())
}

fn look(path: &Path) -> Result<Option<u32>, Failure> {
    holder(path).map_err(|error| Failure::io(&format!("read {}", path.display()), &error))
}

/// What a log has got since, or the end of it.
fn end_of(path: &Path, begin: u64) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(begin.max(end.saturating_sub(SHOWN_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(SHOWN_BYTES_MAX).read_to_end(&mut bytes)?;
        io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Tells the node in the background to end, as SIGTERM does, and waits until it has.
pub async fn down(node: &NodeConfig, quiet: bool) -> Result<(), Failure> {
    let path = pid_path(node);
    let Some(pid) = look(&path)? else {
        return Err(Failure::new(1, "no node of this project runs in the background")
            .hint("only one that `tidemill up --daemon` started is found"));
    };
    // SAFETY: takes no pointer. The lock says that the number is still the node's; 0 and what is below it are groups.
    let killed = pid.cast_signed() > 0 && unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) } == 0;
    if !killed {
        return Err(Failure::io(&format!("end process {pid}"), &io::Error::last_os_error()));
    }
    let until = Instant::now() + DOWN_WAIT_MAX;
    while look(&path)? == Some(pid) {
        if Instant::now() > until {
            return Err(Failure::new(1, format!("process {pid} has not ended yet"))
                .hint(format!("it was told to; see {}", log_path(node).display())));
        }
        sleep(LOOK_INTERVAL).await;
    }
    if !quiet {
        println!("down: process {pid} has ended");
    }
    Ok(())
}
