//! OpenSearch: one node, as a sink.

use std::ffi::OsString;
use std::ops::Deref;

use anyhow::Result;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

/// Answers 200 when every shard that this one node can hold is there, also after a restart.
const READY: &str = "/_cluster/health?wait_for_status=yellow&timeout=4s";

/// How to start an OpenSearch.
#[derive(Clone, Debug)]
pub struct OpenSearchOptions {
    pub heap_mb: u32,
    /// More settings of the node: `http.max_content_length=1mb`.
    pub settings: Vec<String>,
}

impl Default for OpenSearchOptions {
    fn default() -> OpenSearchOptions {
        OpenSearchOptions { heap_mb: 512, settings: Vec::new() }
    }
}

/// An OpenSearch of one node, which lets everyone in. What it has acknowledged, a kill does not take.
#[derive(Debug)]
pub struct OpenSearch {
    server: Server,
}

impl OpenSearch {
    /// Starts a node without any index and waits until it answers.
    pub async fn start(options: OpenSearchOptions) -> Result<OpenSearch> {
        let install = installed("opensearch")?;
        let (folder, port, transport) = (folder("opensearch")?, Port::reserve()?, Port::reserve()?);
        let mut arguments: Vec<OsString> = vec![format!("-Xmx{}m", options.heap_mb).into()];
        // A small heap, code that is compiled quickly, no native library that would have to be unpacked.
        arguments.extend(["-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(Into::into));
        arguments.extend(["-Djna.nosys=true", "-Dopensearch.networkaddress.cache.ttl=60"].map(Into::into));
        let logging = install.join("log4j2.properties");
        arguments.push(format!("-Dlog4j2.configurationFile={}", logging.display()).into());
        let (classes, jars) = (install.join("classes"), install.join("lib"));
        arguments.extend(["-cp".into(), format!("{}:{}/*", classes.display(), jars.display()).into()]);
        arguments.extend(["TidemillNode".into(), data_dir(folder.path()).into()]);
        arguments.extend([port.number().to_string().into(), transport.number().to_string().into()]);
        arguments.extend(options.settings.iter().map(OsString::from));
        let probe = Probe::Http(port.number(), READY);
        let launch = Launch { name: "opensearch", program: "java".into(), arguments, probe };
        Ok(OpenSearch { server: Server::start(launch, folder, port, Some(transport)).await? })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }
}

impl Deref for OpenSearch {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
