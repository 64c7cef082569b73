//! OpenSearch: one node, made of its libraries and a small program of ours that starts them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::maven;
use crate::step::{need, quiet, step};

/// 2.19 is the last line that runs on Java 17.
pub const VERSION: &str = "opensearch 2.19.5, recipe 1";

const ARTIFACTS: [&str; 6] = [
    "org.opensearch:opensearch:2.19.5",
    "org.opensearch.plugin:transport-netty4-client:2.19.5",
    "org.opensearch.plugin:lang-painless:2.19.5",
    "org.opensearch.plugin:reindex-client:2.19.5",
    "org.opensearch.plugin:analysis-common:2.19.5",
    // The library does without; a node does not start.
    "org.apache.logging.log4j:log4j-core:2.25.3",
];

const NODE: &str = include_str!("../../servers/opensearch/TidemillNode.java");
const LOGGING: &str = include_str!("../../servers/opensearch/log4j2.properties");

pub fn install(install: &Path, work: &Path) -> Result<()> {
    need("javac", "apt-get install openjdk-17-jdk-headless")?;
    maven::copy_jars(&ARTIFACTS, install, work)?;
    let source = work.join("TidemillNode.java");
    fs::write(&source, NODE)?;
    fs::write(install.join("log4j2.properties"), LOGGING)?;
    step("compile the program that starts the node", || {
        quiet(
            Command::new("javac")
                .arg("-d")
                .arg(install.join("classes"))
                .args(["-proc:none", "-cp"])
                .arg(format!("{}/*", install.join("lib").display()))
                .arg(&source),
        )
    })?;
    Ok(())
}
