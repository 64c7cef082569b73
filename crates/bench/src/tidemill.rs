//! A tidemill process on a project folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::usage::{self, Usage};

/// Time between two looks at the status: short against what is measured, and cheap.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const STOP_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest silence of a process that makes no progress.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A project folder, and the process that runs on it.
pub struct Tidemill {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Tidemill {
    /// A project with these files; nothing runs yet.
    pub fn new(files: &[(&str, String)]) -> Result<Tidemill> {
        let folder = tempfile::Builder::new().prefix("tidemill-bench-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let node = ("tidemill.yaml", format!("name: bench\nlisten: {{http: \"127.0.0.1:{port}\"}}\n"));
        for (name, text) in files.iter().chain([&node]) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a file in a folder"))?;
            fs::write(path, text)?;
        }
        Ok(Tidemill { folder, port, child: None })
    }

    /// A copy of a project and all its data, at rest.
    pub fn copy(&self) -> Result<Tidemill> {
        let folder = tempfile::Builder::new().prefix("tidemill-bench-").tempdir()?;
        copy_folder(self.folder.path(), folder.path())?;
        Ok(Tidemill { folder, port: self.port, child: None })
    }

    /// Writes a file of the project, before the process starts.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        Ok(fs::write(path, text)?)
    }

    pub fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(name))?)
    }

    /// Starts the process; returns at once.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(program()?);
        command.args(["up", "--quiet"]);
        self.start_by(command)
    }

    /// The same in a cgroup, by the file that takes its processes: what the program itself takes is counted too.
    pub fn start_within(&mut self, procs: &Path) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$1\" && exec \"$2\" up --quiet", "sh"]).arg(procs).arg(program()?);
        self.start_by(command)
    }

    fn start_by(&mut self, mut command: Command) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.log_path())?;
        command.env("TIDEMILL_PROJECT", self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(testkit::spawn(command).context("failed to start tidemill")?);
        Ok(())
    }

    /// Asks the process to end and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // SAFETY: kill takes two numbers; the child is not yet reaped, so the number still names it.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        let asked = Instant::now();
        while child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_WAIT_MAX {
                child.kill()?;
                child.wait()?;
                bail!("tidemill did not stop within {STOP_WAIT_MAX:?}");
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// What a command of the program prints on this project.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let output =
            Command::new(program()?).args(words).env("TIDEMILL_PROJECT", self.folder.path()).output()?;
        if !output.status.success() {
            bail!("tidemill {} failed:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Of the HTTP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn usage(&self) -> Result<Usage> {
        usage::of_process(self.pid().context("tidemill does not run")?)
    }

    /// `/api/v1/status`; null while the process does not answer.
    pub fn status(&self) -> Value {
        self.get("/api/v1/status").and_then(|body| Ok(serde_json::from_str(&body)?)).unwrap_or(Value::Null)
    }

    /// Waits until the status is as wanted. Fails when the process ends, or nothing moves for a minute.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let (mut seen, mut moved) = (Value::Null, Instant::now());
        loop {
            let status = self.status();
            if wanted(&status) {
                return Ok(status);
            }
            let place = |status: &Value| -> Vec<Value> {
                let flows = status["flows"].as_array().into_iter().flatten();
                flows
                    .chain(&status["sources"].as_array().cloned().unwrap_or_default())
                    .map(|it| it["lsn"].clone())
                    .collect()
            };
            if place(&status) != place(&seen) {
                moved = Instant::now();
            }
            if moved.elapsed() > STALL_MAX {
                let log = fs::read_to_string(self.log_path()).unwrap_or_default();
                bail!("tidemill stalled before {what}\nstatus: {status}\nlog:\n{log}");
            }
            seen = status;
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("tidemill.log")
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a malformed answer")?;
        Ok(body.to_owned())
    }
}

impl Drop for Tidemill {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The lsn of the first source.
pub fn lsn(status: &Value) -> u64 {
    status["sources"][0]["lsn"].as_u64().unwrap_or(0)
}

/// The program that was built beside this one, with the same profile.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().expect("a program is in a folder").join("tidemill");
    if !path.is_file() {
        bail!("{} is missing\nhint: run `cargo xtask bench`, which builds it", path.display());
    }
    Ok(path)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
