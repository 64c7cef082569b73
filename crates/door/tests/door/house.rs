//! A door over a SQLite file with tables, and what the tests ask it by.

use anyhow::{Context, Result};
use async_trait::async_trait;
use base::{Column, Value};
use door::{Admitted, Door, Gate, Opener, SqlError, Tls, VirtualDataset, Waits, number_column, text_column};
use engine::{Engine, EngineError, Given, Options, Sqlite};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tables of every type that both engines have, as both take them; `DB.` stands in front of each name.
pub const TABLES: &[&str] = &[
    "CREATE TABLE DB.orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, customer VARCHAR(40) NOT NULL, \
     price DECIMAL(12,2), quantity INT UNSIGNED NOT NULL DEFAULT 1, ratio DOUBLE, paid BOOLEAN, day DATE, \
     made DATETIME(3), took TIME, note TEXT, photo VARBINARY(20), small SMALLINT, kind CHAR(3), \
     UNIQUE KEY by_customer (customer, day), KEY by_day (day))",
    "INSERT INTO DB.orders VALUES \
     (1,'Ann',12.50,2,0.25,TRUE,'2026-01-02','2026-01-02 03:04:05.120','01:02:03','it''s',x'00FF',-3,'abc'),\
     (2,'李雷',NULL,4000000000,-1.5e10,FALSE,'2025-12-31','1999-01-01 00:00:00','-10:00:00','',NULL,7,NULL),\
     (3,'Zoë',-0.05,1,NULL,NULL,NULL,NULL,NULL,NULL,x'',NULL,'')",
    "CREATE TABLE DB.customers (name VARCHAR(40) NOT NULL PRIMARY KEY, city VARCHAR(20) DEFAULT 'Riga')",
    "INSERT INTO DB.customers VALUES ('Ann','Riga'),('Zoë',NULL)",
];

pub struct House {
    pub port: u16,
    _folder: TempDir,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// Opens the file of a house.
struct File(PathBuf, Duration);

#[async_trait]
impl Opener for File {
    async fn open(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let options = Options { read_only: true, timeout: self.1 };
        Ok(Arc::new(Sqlite::open(&self.0, options).await?))
    }
}

/// A dataset that no engine has.
struct Indicators;

#[async_trait]
impl VirtualDataset for Indicators {
    fn name(&self) -> &str {
        "indicators"
    }

    fn tables(&self) -> Vec<(String, Vec<Column>)> {
        vec![("revenue".into(), vec![text_column("city"), number_column("total")])]
    }

    async fn rows(&self, table: &str) -> Result<Given, SqlError> {
        let (_, columns) = self.tables().swap_remove(0);
        let row = |city: &str, total| vec![Value::Text(city.into()), Value::UInt(total)];
        Ok(Given { name: table.into(), columns, rows: vec![row("Riga", 5), row("Oslo", 7)] })
    }
}

/// Lets in everybody, or the bearer of one token.
pub struct Porter {
    token: Option<&'static str>,
    gone: watch::Sender<bool>,
}

impl Porter {
    pub fn new(token: Option<&'static str>) -> Self {
        Self { token, gone: watch::Sender::new(false) }
    }
}

impl Gate for Porter {
    fn wants_password(&self) -> bool {
        self.token.is_some()
    }

    fn admit_checked(&self, token: &str) -> Result<Admitted, String> {
        if Some(token) == self.token { Ok(self.admit()) } else { Err("the token is not known".into()) }
    }

    fn admit(&self) -> Admitted {
        Admitted { name: "".into(), gone: self.gone.subscribe() }
    }
}

impl House {
    pub async fn open() -> Result<Self> {
        Self::with(Porter::new(None), None, Waits::default()).await
    }

    pub async fn with(gate: Porter, tls: Option<Box<dyn Tls>>, waits: Waits) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("warehouse.db");
        let engine = Sqlite::open(&path, Options::default()).await?;
        for sql in TABLES {
            engine.execute(&sql.replace("DB.", "ods.")).await.with_context(|| (*sql).to_owned())?;
        }
        engine.execute("CREATE TABLE plain (id INT PRIMARY KEY)").await?;
        engine.execute("INSERT INTO plain VALUES (7)").await?;
        Self::over(folder, Box::new(File(path, waits.query)), gate, tls, waits).await
    }

    pub async fn over(
        folder: TempDir,
        opener: Box<dyn Opener>,
        gate: Porter,
        tls: Option<Box<dyn Tls>>,
        waits: Waits,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let door = Door::new(opener, Box::new(gate), tls, waits).with_dataset(Arc::new(Indicators));
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(Arc::new(door).serve(listener, stopped));
        Ok(Self { port, _folder: folder, stop, serving })
    }

    pub async fn close(self) -> Result<()> {
        self.stop.send_replace(true);
        Ok(self.serving.await?)
    }
}

/// What a program prints, in time.
pub async fn output(mut command: Command) -> Result<String> {
    let program = format!("{command:?}");
    let mut bounded = tokio::process::Command::from({
        let mut bounded = Command::new("timeout");
        bounded.args(["--kill-after=5", "60"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                bounded.env(name, value);
            }
        }
        command.current_dir(".");
        bounded
    });
    let output = bounded.kill_on_drop(true).output().await?;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{program}: {}\n{out}\n{error}", output.status);
    Ok(out.into_owned())
}
