//! Real servers for tests, as child processes, and a proxy that breaks the network between them and the code under test.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mysql = testkit::MySql::start(testkit::MySqlOptions::default()).await?;
//! mysql.exec("create database shop").await?;
//! let network = testkit::FaultProxy::start(mysql.addr()).await?;
//! network.set(testkit::Fault::Cut).await;
//! mysql.kill9();
//! mysql.restart().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every server listens on 127.0.0.1 only, on a port nobody else has, with its data in a temporary folder. It is killed
//! when its value is dropped and when the test's process dies, however that dies. `cargo xtask servers` installs what is
//! started here; a test whose server is not installed fails and says so, it is never skipped.
//!
//! This crate must never depend on another of the workspace: it judges them.

mod child;
mod installed;
mod port;
mod server;

mod debezium;
mod fake_stores;
mod kafka;
mod kafka_cluster;
mod kafka_log;
mod kafka_write;
mod mariadb;
mod mysql;
mod mysql_group;
mod nats;
mod open_search;
mod pd;
mod redis;
mod registry;
mod sql;
mod tidb;
mod webhook;

mod fault_proxy;

pub use child::spawn;
pub use debezium::{Debezium, DebeziumOptions, DebeziumSinkOptions, TOPIC_PREFIX};
pub use fake_stores::{FakePeer, FakeRegion, FakeStore, FakeStores};
pub use fault_proxy::{Fault, FaultProxy};
pub use installed::installed;
pub use kafka::{Kafka, KafkaOptions, KafkaRecord};
pub use kafka_cluster::KafkaCluster;
pub use kafka_protocol::records::Compression as KafkaCompression;
pub use kafka_write::KafkaMessage;
pub use mariadb::{MariaDb, MariaDbOptions};
pub use mysql::{MySql, MySqlOptions};
pub use mysql_group::{MySqlGroup, MySqlGroupOptions};
pub use nats::{Nats, NatsCluster, NatsOptions};
pub use open_search::{OpenSearch, OpenSearchOptions};
pub use pd::{Lease, Pd};
pub use port::Port;
pub use redis::{Redis, RedisOptions};
pub use registry::{Registry, RegistryOptions};
pub use server::Server;
pub use sql::SqlServer;
pub use tidb::{TiDb, TiDbOptions};
pub use webhook::{Received, Reply, Webhook};

/// The client library whose types appear in this crate's functions.
pub use mysql_async;
