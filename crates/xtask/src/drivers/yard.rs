//! A real server and a mesh in front of it, for as long as a [`Yard`] lives.
//!
//! The server is started by testkit's example `serve`, so that this crate stays small; the mesh is `tidemill up` on a project
//! in a temporary folder.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Suite;
use crate::servers;
use crate::step::workspace;

/// The account that suites log in as, direct and through the mesh.
pub const USER: &str = "driver";
pub const PASSWORD: &str = "driver-Secret-1";

/// Longest wait for the mesh to listen.
const UP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Which server stands behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    MySql,
    MariaDb,
    TiDb,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::MySql, Self::MariaDb, Self::TiDb];

    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
            Self::TiDb => "tidb",
        }
    }

    /// What the suites need and the server does not do by itself.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::MySql => &["--local-infile=ON", "--performance-schema=ON", "--max-connections=300"],
            Self::MariaDb => &["--local-infile=ON", "--max-connections=300", "--max-allowed-packet=36700160"],
            Self::TiDb => &[],
        }
    }
}

/// Who proves the client's password: the mesh's key `auth`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    Relay,
    Vault,
}

impl Auth {
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Vault => "vault",
        }
    }
}

/// What happens to the mesh while a suite runs: see `crates/mesh/examples/chaos.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chaos {
    None,
    Mux,
    Cut,
    Handover,
}

impl Chaos {
    pub const ALL: [Self; 4] = [Self::None, Self::Mux, Self::Cut, Self::Handover];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mux => "mux",
            Self::Cut => "cut",
            Self::Handover => "handover",
        }
    }
}

/// How the mesh is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    pub auth: Auth,
    /// Connections are shared; with `Auth::Vault` alone.
    pub pool: bool,
    pub chaos: Chaos,
}

impl Way {
    pub fn name(self) -> String {
        let mut name = self.auth.name().to_owned();
        if self.pool {
            name += "-pool";
        }
        if self.chaos != Chaos::None {
            name = format!("{name}-{}", self.chaos.name());
        }
        name
    }
}

pub struct Yard {
    serve: Child,
    statements: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    mesh: Option<Child>,
    folder: PathBuf,
    /// The server's own port.
    pub direct: u16,
    /// The mesh's port.
    pub through: u16,
    http: u16,
    pub data: PathBuf,
}

impl Yard {
    /// Starts both; `folder` is emptied and keeps the mesh's project and log.
    pub fn start(kind: Kind, way: Way, suite: &Suite, folder: &Path) -> Result<Self> {
        let mut serve = Command::new(crate::drivers::target().join("debug/examples/serve"))
            .arg(kind.name())
            .args(kind.arguments())
            .args(suite.options)
            .env("TIDEMILL_SERVERS", servers::folder()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start testkit's `serve`")?;
        let statements = serve.stdin.take();
        let mut answers = BufReader::new(serve.stdout.take().context("`serve` has no output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let words: Vec<_> = line.trim_end().splitn(4, ' ').collect();
        let [direct, through, http, data] = words[..] else {
            bail!("{} did not start: `{line}`", kind.name())
        };
        let mut yard = Self {
            direct: direct.parse()?,
            through: through.parse()?,
            http: http.parse()?,
            data: data.into(),
            serve,
            statements,
            answers,
            mesh: None,
            folder: folder.to_path_buf(),
        };
        yard.sql(&format!("CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'"))?;
        yard.sql(&format!("GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION"))?;
        yard.start_mesh(kind, way, suite.server_tls)?;
        Ok(yard)
    }

    /// Runs a statement at the server, as root.
    pub fn sql(&mut self, statement: &str) -> Result<()> {
        let statements = self.statements.as_mut().context("`serve` has no input")?;
        writeln!(statements, "{statement}")?;
        statements.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end() {
            "ok" => Ok(()),
            other => bail!("`{statement}`: {other}"),
        }
    }

    /// Makes empty databases of these names, whatever was there.
    pub fn fresh(&mut self, databases: &[&str]) -> Result<()> {
        for database in databases {
            let drop = format!("DROP DATABASE IF EXISTS {database}");
            if self.sql(&drop).is_err() {
                // A file that a suite has written among the tables keeps a database from going.
                let _ = fs::remove_dir_all(self.data.join(database));
                self.sql(&drop)?;
            }
            self.sql(&format!("CREATE DATABASE {database}"))?;
        }
        Ok(())
    }

    fn start_mesh(&mut self, kind: Kind, way: Way, server_tls: bool) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let project = format!("name: drivers\nlisten: {{http: \"127.0.0.1:{}\"}}\n", self.http);
        fs::write(self.folder.join("tidemill.yaml"), project)?;
        fs::write(self.folder.join("mesh.yaml"), self.mesh_yaml(kind, way, server_tls))?;
        let log = fs::File::create(self.folder.join("mesh.log"))?;
        let target = crate::drivers::target();
        let (program, arguments) = match way.chaos {
            Chaos::None => {
                (target.join("debug/tidemill"), vec!["-C".into(), self.folder.clone(), "up".into()])
            }
            chaos => (
                target.join("debug/examples/chaos"),
                vec![chaos.name().into(), self.folder.join("mesh.yaml")],
            ),
        };
        let mesh = Command::new(&program)
            .args(arguments)
            .current_dir(workspace())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        self.mesh = Some(mesh);
        let end = Instant::now() + UP_WAIT_MAX;
        while TcpStream::connect(("127.0.0.1", self.through)).is_err() {
            if Instant::now() > end || !self.mesh_lives() {
                let said = fs::read_to_string(self.folder.join("mesh.log")).unwrap_or_default();
                bail!("the mesh does not listen:\n{said}");
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// The mesh offers TLS where the server does, with the server's own certificate. Its own leg is plain unless the
    /// suite asks: with `relay`, a server behind TLS would not check the password of a plain client (see the guide).
    /// It is JSON, which is YAML too.
    fn mesh_yaml(&self, kind: Kind, way: Way, server_tls: bool) -> String {
        let at = |name: &str| self.data.join(name).display().to_string();
        let (through, direct) = (self.through, self.direct);
        let tls = kind == Kind::MySql;
        let mut door = format!(r#""name": "door", "bind": "127.0.0.1:{through}", "tenants": ["suite"]"#);
        if tls {
            let (certificate, key) = (at("server-cert.pem"), at("server-key.pem"));
            door += &format!(r#", "tls": {{"cert": "{certificate}", "key": "{key}"}}"#);
        }
        let (name, auth) = (if kind == Kind::TiDb { "tidb" } else { "mysql" }, way.auth.name());
        let mut group =
            format!(r#""kind": "{name}", "backends": [{{"addr": "127.0.0.1:{direct}"}}], "auth": "{auth}""#);
        if tls && server_tls {
            group += r#", "tls": "require""#;
        }
        if way.auth == Auth::Vault {
            // As `root` without a password, too: `mysqltest` does.
            group += &format!(
                r#", "users": [{{"name": "{USER}", "password": "{PASSWORD}"}}, {{"name": "root"}}]"#
            );
        }
        if way.pool {
            group += r#", "pool": {"max": 100}"#;
        }
        format!("{{\"listeners\": [{{{door}}}],\n \"groups\": {{\"suite\": {{{group}}}}}}}\n")
    }

    /// Whether the mesh still runs: one that a suite has ended is the worst finding of all.
    pub fn mesh_lives(&mut self) -> bool {
        self.mesh.as_mut().is_some_and(|mesh| matches!(mesh.try_wait(), Ok(None)))
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Some(mesh) = &mut self.mesh {
            let _ = mesh.kill();
            let _ = mesh.wait();
        }
        // The end of its input ends the server.
        self.statements = None;
        let _ = self.serve.wait();
    }
}
