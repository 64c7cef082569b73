//! PD, which knows the servers of a TiDB cluster. It has no TiKV: it is a list of TiDB servers here.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::installed::installed;
use crate::port::Port;
use crate::server::{Launch, Probe, Server, data_dir, folder};

/// A PD server.
#[derive(Debug)]
pub struct Pd {
    server: Server,
}

/// The sign of life of a TiDB server in PD: it goes some seconds after the last renewal.
#[derive(Debug)]
pub struct Lease(String);

impl Pd {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Result<Pd> {
        let install = installed("pd")?;
        let (folder, port, peer) = (folder("pd")?, Port::reserve()?, Port::reserve()?);
        let data = data_dir(folder.path());
        fs::create_dir_all(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        let mut arguments: Vec<OsString> = vec!["--name=pd".into(), "--data-dir".into(), data.into()];
        arguments.push(format!("--client-urls=http://{}", port.addr()).into());
        arguments.push(format!("--peer-urls=http://{}", peer.addr()).into());
        let program = install.join("bin/pd-server");
        let probe = Probe::Http(port.number(), "/health");
        let launch = Launch { name: "pd", program, arguments, probe };
        let server = Server::start(launch, folder, port, Some(peer)).await?;
        Ok(Pd { server })
    }

    /// Writes what a TiDB writes of itself: `info`, its JSON, and a sign of life that ends with the lease.
    pub async fn register(&self, address: &str, info: &str, seconds: u32) -> Result<Lease> {
        let granted = self.post("/v3/lease/grant", &format!("{{\"TTL\": {seconds}}}")).await?;
        let id = granted.split("\"ID\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let lease = Lease(id.with_context(|| format!("no lease in `{granted}`"))?.to_owned());
        let key = |what: &str| base64(format!("/topology/tidb/{address}/{what}").as_bytes());
        let value = base64(info.as_bytes());
        self.post("/v3/kv/put", &format!("{{\"key\": \"{}\", \"value\": \"{value}\"}}", key("info"))).await?;
        let (value, Lease(id)) = (base64(b"1"), &lease);
        let put = format!("{{\"key\": \"{}\", \"value\": \"{value}\", \"lease\": \"{id}\"}}", key("ttl"));
        self.post("/v3/kv/put", &put).await?;
        Ok(lease)
    }

    /// Ends a lease as if its time had come.
    pub async fn expire(&self, Lease(id): Lease) -> Result<()> {
        self.post("/v3/lease/revoke", &format!("{{\"ID\": \"{id}\"}}")).await.map(|_| ())
    }

    /// Posts JSON to PD's etcd.
    async fn post(&self, path: &str, json: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.addr()).await?;
        let length = json.len();
        let request =
            format!("POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{json}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if !answer.lines().next().unwrap_or_default().contains(" 200 ") {
            bail!("POST {path} answered `{answer}`");
        }
        Ok(answer)
    }
}

impl Deref for Pd {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= three.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}
