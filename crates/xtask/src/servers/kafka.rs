//! Apache Kafka: the broker of the peer that benchmarks measure.

use std::path::Path;

use anyhow::Result;

use super::maven;

pub const VERSION: &str = "kafka 4.3.1, recipe 1";

/// 4.3.1 is the newest release of which every part is in the central repository. slf4j stays at the line that the
/// broker's own slf4j-api belongs to: a newer one binds nothing.
const ARTIFACTS: [&str; 3] = [
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.kafka:kafka-tools:4.3.1",
    "org.slf4j:slf4j-simple:1.7.36",
];

pub fn install(install: &Path, work: &Path) -> Result<()> {
    maven::copy_jars(&ARTIFACTS, install, work)
}
