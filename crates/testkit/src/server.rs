//! What every server can do, whichever it is: start and be ready, stop, die, freeze, come back with its data.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::child;
use crate::kafka;
use crate::port::Port;
use crate::redis;
use crate::sql;

/// Longest wait for a server to answer: a hundred times what it takes on an idle machine.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
/// Longest wait for one probe, so that a server that accepts and says nothing is asked again.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for an orderly stop; a server that takes longer is a finding.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest time for every thread of a process to see that it is stopped.
const PAUSE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at a server that is starting or stopping.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of the log that a failure shows.
const LOG_TAIL_LINES: usize = 30;

/// How readiness is recognised.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// `select 1` as root over TCP.
    Sql,
    /// A GET of this path on this port answers 200.
    Http(u16, &'static str),
    /// Kafka's own protocol, on a listener without TLS.
    Kafka(SocketAddr),
    /// A PING.
    Redis,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) probe: Probe,
}

/// A real server: a child process with its port, its folder and its log.
///
/// Dropping it kills it. When a test panics, the drop shows the end of the log and keeps the whole of it.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    port: Port,
    /// A second port where the server needs one; held, not read.
    _status_port: Option<Port>,
    child: Mutex<Option<Child>>,
    folder: TempDir,
}

impl Server {
    /// Starts what `launch` says and waits until it answers.
    pub(crate) async fn start(
        launch: Launch,
        folder: TempDir,
        port: Port,
        status_port: Option<Port>,
    ) -> Result<Server> {
        let server = Server { launch, port, _status_port: status_port, child: Mutex::new(None), folder };
        server.launch().await?;
        Ok(server)
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// 127.0.0.1 and the port.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The folder with the server's data.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.folder.path())
    }

    /// The server's log, written to by every start of this server.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The process, or `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Whether the process runs (frozen counts as running).
    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills the process, as a power cut would end it, and waits for its end. Nothing happens when it is down.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child().take() {
            child::kill(&mut child);
        }
    }

    /// Freezes the process: its connections stay open and nothing answers. On a busy machine a thread may run on for
    /// a while behind the signal, so this waits until none does.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        let end = Instant::now() + PAUSE_WAIT_MAX;
        while self.pid().is_some_and(has_running_thread) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Undoes [`Server::pause`].
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Asks the process to end and waits until it has.
    pub async fn stop(&self) -> Result<()> {
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGTERM);
        let asked = Instant::now();
        while self.ended()?.is_none() {
            if asked.elapsed() > STOP_WAIT_MAX {
                self.kill9();
                bail!("{} did not stop within {STOP_WAIT_MAX:?}{}", self.launch.name, self.log_tail());
            }
            sleep(LOOK_INTERVAL).await;
        }
        self.child().take();
        Ok(())
    }

    /// Starts the server on its old data and port; one that runs is killed first.
    pub async fn restart(&self) -> Result<()> {
        self.kill9();
        self.launch().await
    }

    /// Waits until the server answers.
    pub async fn ready(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                self.child().take();
                bail!("{} ended with {status} before it was ready{}", self.launch.name, self.log_tail());
            }
            let probed =
                timeout(PROBE_WAIT_MAX, self.probe()).await.unwrap_or_else(|_| Err(anyhow!("no answer")));
            let Err(error) = probed else { return Ok(()) };
            if started.elapsed() > READY_WAIT_MAX {
                let tail = self.log_tail();
                return Err(
                    error.context(format!("{} not ready in {READY_WAIT_MAX:?}{tail}", self.launch.name))
                );
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn launch(&self) -> Result<()> {
        let name = self.launch.name;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .context("failed to open the log")?;
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = child::spawn(command).with_context(|| format!("failed to start {name}"))?;
        *self.child() = Some(child);
        self.ready().await
    }

    async fn probe(&self) -> Result<()> {
        match self.launch.probe {
            Probe::Sql => sql::probe(self.port()).await,
            Probe::Http(port, path) => http_ok(port, path).await,
            Probe::Kafka(addr) => kafka::probe(addr).await,
            Probe::Redis => redis::probe(self.addr()).await,
        }
    }

    /// How the process ended, or `None` while it runs.
    fn ended(&self) -> Result<Option<ExitStatus>> {
        match self.child().as_mut() {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("{} is not running", self.launch.name),
        }
    }

    fn signal(&self, signal: libc::c_int) {
        if let Some(child) = self.child().as_ref() {
            child::signal(child, signal);
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the log, with where the whole log is kept after this server's folder is gone.
    fn log_tail(&self) -> String {
        let kept = std::env::temp_dir().join(format!("tidemill-{}-{}.log", self.launch.name, self.port()));
        let place = match fs::copy(self.log_path(), &kept) {
            Ok(_) => kept.display().to_string(),
            Err(error) => format!("lost: {error}"),
        };
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        format!("\nlog: {place}, which ends with:\n{tail}\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("{} on port {}{}", self.launch.name, self.port(), self.log_tail());
        }
    }
}

/// A temporary folder for one server.
pub(crate) fn folder(name: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(&format!("tidemill-{name}-")).tempdir();
    folder.context("failed to create a temporary folder")
}

/// Where, in a server's folder, its data lies. A socket or log among the data would look like a database.
pub(crate) fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Copies a folder and all below it, with permissions.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("failed to read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("failed to write {}", target.display()))?;
        }
    }
    Ok(())
}

/// A GET that only looks at the status: not worth an HTTP client.
async fn http_ok(port: u16, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if !status.contains(" 200 ") {
        bail!("GET {path} answered `{status}`");
    }
    Ok(())
}

/// Whether any thread of the process is not stopped.
fn has_running_thread(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // `pid (name) state …`; the name may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['T', 't', 'Z', 'X']))
    })
}
