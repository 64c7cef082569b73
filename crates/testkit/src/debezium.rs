//! Debezium's MySQL connector in a Kafka Connect worker of its own: the peer that benchmarks measure.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;

use anyhow::Result;

use crate::installed::installed;
use crate::kafka::Kafka;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, folder};
use crate::sql::SqlServer;

/// What the connector calls its topics: `peer.DATABASE.TABLE`.
pub const TOPIC_PREFIX: &str = "peer";

/// How to start a Debezium.
#[derive(Clone, Debug)]
pub struct DebeziumOptions {
    /// The database to capture.
    pub database: String,
    pub heap_mb: u32,
    /// More lines of the connector's configuration, like `snapshot.mode=no_data`.
    pub connector: Vec<String>,
}

/// A worker with one connector. It keeps its offsets in a file, so that a restart goes on.
#[derive(Debug)]
pub struct Debezium {
    server: Server,
}

impl Debezium {
    /// Starts a worker and waits until its connector exists; what it captures may still be coming up.
    pub async fn start(source: &SqlServer, sink: &Kafka, options: DebeziumOptions) -> Result<Debezium> {
        let install = installed("debezium")?;
        let (folder, port) = (folder("debezium")?, Port::reserve()?);
        let worker = folder.path().join("worker.properties");
        let connector = folder.path().join("mysql.properties");
        let offsets = folder.path().join("offsets");
        let history = folder.path().join("history");
        fs::write(
            &worker,
            format!(
                "bootstrap.servers={}\n\
                 listeners=http://127.0.0.1:{}\n\
                 key.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 value.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 key.converter.schemas.enable=false\n\
                 value.converter.schemas.enable=false\n\
                 offset.storage.file.filename={}\n\
                 offset.flush.interval.ms=2000\n\
                 plugin.discovery=only_scan\n\
                 producer.linger.ms=5\n\
                 producer.batch.size=262144\n",
                sink.addr(),
                port.number(),
                offsets.display()
            ),
        )?;
        fs::write(
            &connector,
            format!(
                "name=mysql\n\
                 connector.class=io.debezium.connector.mysql.MySqlConnector\n\
                 tasks.max=1\n\
                 database.hostname=127.0.0.1\n\
                 database.port={}\n\
                 database.user=root\n\
                 database.password=\n\
                 database.server.id=9003\n\
                 topic.prefix={TOPIC_PREFIX}\n\
                 database.include.list={}\n\
                 schema.history.internal=io.debezium.storage.file.history.FileSchemaHistory\n\
                 schema.history.internal.file.filename={}\n\
                 max.batch.size=8192\n\
                 max.queue.size=32768\n{}\n",
                source.port(),
                options.database,
                history.display(),
                options.connector.join("\n")
            ),
        )?;
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{}m", options.heap_mb).into()];
        arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        arguments.extend(["-cp".into(), format!("{}/*", install.join("lib").display()).into()]);
        arguments.push("org.apache.kafka.connect.cli.ConnectStandalone".into());
        arguments.extend([worker.into(), connector.into()]);
        let probe = Probe::Http(port.number(), "/connectors/mysql/status");
        let launch = Launch { name: "debezium", program: "java".into(), arguments, probe };
        Ok(Debezium { server: Server::start(launch, folder, port, None).await? })
    }
}

impl Deref for Debezium {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
