//! Debezium's MySQL connector and its JDBC sink in standalone Kafka Connect workers: the peers that benchmarks measure.

use std::path::Path;

use anyhow::Result;

use super::maven;

pub const VERSION: &str = "debezium 3.6.1 on connect 4.3.1, recipe 2";

const ARTIFACTS: [&str; 8] = [
    "org.apache.kafka:connect-runtime:4.3.1",
    "org.apache.kafka:connect-json:4.3.1",
    "io.debezium:debezium-connector-mysql:3.6.1.Final",
    // It asks for Hibernate's part by a group that has moved.
    "io.debezium:debezium-connector-jdbc:3.6.0.Final -org.hibernate:hibernate-agroal",
    "org.hibernate.orm:hibernate-agroal:7.2.19.Final",
    "io.debezium:debezium-storage-file:3.6.1.Final",
    "io.debezium:debezium-storage-kafka:3.6.1.Final",
    "org.slf4j:slf4j-simple:1.7.36",
];

pub fn install(install: &Path, work: &Path) -> Result<()> {
    maven::copy_jars(&ARTIFACTS, install, work)
}
