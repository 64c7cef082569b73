//! Debezium's connectors, each in a Kafka Connect worker of its own: the peers that benchmarks measure.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;

use anyhow::Result;
use tempfile::TempDir;

use crate::installed::installed;
use crate::kafka::Kafka;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, folder};
use crate::sql::SqlServer;

/// What the connector calls its topics: `peer.DATABASE.TABLE`.
pub const TOPIC_PREFIX: &str = "peer";

/// How to start a Debezium that reads MySQL.
#[derive(Clone, Debug)]
pub struct DebeziumOptions {
    /// The database to capture.
    pub database: String,
    pub heap_mb: u32,
    /// Whether each message brings its schema, as the sink wants it.
    pub schemas: bool,
    /// More lines of the connector's configuration, like `snapshot.mode=no_data`.
    pub connector: Vec<String>,
}

/// How to start a Debezium that writes into MySQL by JDBC.
#[derive(Clone, Debug)]
pub struct DebeziumSinkOptions {
    pub topics: Vec<String>,
    pub database: String,
    pub heap_mb: u32,
    pub tasks: u32,
    /// More lines of the connector's configuration, like `batch.size=1000`.
    pub connector: Vec<String>,
}

/// A worker with one connector. It keeps its offsets in a file, or a sink's in Kafka, so that a restart goes on.
#[derive(Debug)]
pub struct Debezium {
    server: Server,
}

impl Debezium {
    /// Starts a worker and waits until its connector exists; what it captures may still be coming up.
    pub async fn start(source: &SqlServer, sink: &Kafka, options: DebeziumOptions) -> Result<Debezium> {
        let folder = folder("debezium")?;
        let connector = format!(
            "connector.class=io.debezium.connector.mysql.MySqlConnector\n\
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
            folder.path().join("history").display(),
            options.connector.join("\n")
        );
        Self::work(sink, folder, options.heap_mb, options.schemas, &connector).await
    }

    /// Starts a worker that writes what the topics have into tables of the same names.
    pub async fn start_sink(
        source: &Kafka,
        sink: &SqlServer,
        options: DebeziumSinkOptions,
    ) -> Result<Debezium> {
        let connector = format!(
            "connector.class=io.debezium.connector.jdbc.JdbcSinkConnector\n\
             tasks.max={}\n\
             topics={}\n\
             connection.url=jdbc:mysql://127.0.0.1:{}/{}\n\
             connection.username=root\n\
             connection.password=\n\
             insert.mode=upsert\n\
             primary.key.mode=record_key\n\
             schema.evolution=none\n\
             collection.name.format=${{source.table}}\n{}\n",
            options.tasks,
            options.topics.join(","),
            sink.port(),
            options.database,
            options.connector.join("\n")
        );
        Self::work(source, folder("debezium")?, options.heap_mb, true, &connector).await
    }

    async fn work(
        kafka: &Kafka,
        folder: TempDir,
        heap_mb: u32,
        schemas: bool,
        lines: &str,
    ) -> Result<Debezium> {
        let (install, port) = (installed("debezium")?, Port::reserve()?);
        let worker = folder.path().join("worker.properties");
        let connector = folder.path().join("connector.properties");
        fs::write(
            &worker,
            format!(
                "bootstrap.servers={}\n\
                 listeners=http://127.0.0.1:{}\n\
                 key.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 value.converter=org.apache.kafka.connect.json.JsonConverter\n\
                 key.converter.schemas.enable={schemas}\n\
                 value.converter.schemas.enable={schemas}\n\
                 offset.storage.file.filename={}\n\
                 offset.flush.interval.ms=2000\n\
                 plugin.discovery=only_scan\n\
                 consumer.max.poll.records=2000\n\
                 consumer.auto.offset.reset=earliest\n\
                 producer.linger.ms=5\n\
                 producer.batch.size=262144\n",
                kafka.addr(),
                port.number(),
                folder.path().join("offsets").display()
            ),
        )?;
        fs::write(&connector, format!("name=bench\n{lines}"))?;
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{heap_mb}m").into()];
        arguments.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        arguments.extend(["-cp".into(), format!("{}/*", install.join("lib").display()).into()]);
        arguments.push("org.apache.kafka.connect.cli.ConnectStandalone".into());
        arguments.extend([worker.into(), connector.into()]);
        let probe = Probe::Http(port.number(), "/connectors/bench/status");
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
