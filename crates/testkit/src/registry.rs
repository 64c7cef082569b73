//! A schema registry: Apicurio's, which speaks Confluent's REST interface.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;

use anyhow::{Context, Result};

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

/// Where it has Confluent's interface.
const PATH: &str = "/apis/ccompat/v7";

/// How to start a registry.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    pub heap_mb: u32,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions { heap_mb: 256 }
    }
}

/// A registry that lets everyone in and takes any schema, until a test says otherwise. What it has answered, a kill does
/// not take.
#[derive(Debug)]
pub struct Registry {
    server: Server,
}

impl Registry {
    /// Starts a registry without any schema and waits until it answers.
    pub async fn start(options: RegistryOptions) -> Result<Registry> {
        let install = installed("registry")?;
        let (folder, port) = (folder("registry")?, Port::reserve()?);
        let archive = fs::read_dir(&install)?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut archives = archive.filter(|path| path.to_string_lossy().ends_with("-runner.jar"));
        let runner = archives.next().context("the registry's archive has no runner")?;
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{}m", options.heap_mb).into()];
        arguments.extend(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(Into::into));
        let database = data_dir(folder.path()).join("registry");
        let settings = [
            "quarkus.http.host=127.0.0.1".to_owned(),
            format!("quarkus.http.port={}", port.number()),
            "apicurio.storage.sql.kind=h2".to_owned(),
            format!(
                "apicurio.datasource.url=jdbc:h2:file:{};DB_CLOSE_ON_EXIT=FALSE;WRITE_DELAY=0",
                database.display()
            ),
        ];
        arguments.extend(settings.map(|setting| OsString::from(format!("-D{setting}"))));
        arguments.extend(["-jar".into(), runner.into()]);
        let probe = Probe::Http(port.number(), "/apis/ccompat/v7/subjects");
        let launch = Launch { name: "registry", program: "java".into(), arguments, probe };
        Ok(Registry { server: Server::start(launch, folder, port, None).await? })
    }

    /// The URL of Confluent's interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port())
    }
}

impl Deref for Registry {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
