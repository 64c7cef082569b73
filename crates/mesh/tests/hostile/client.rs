//! A client that says what it is told to say, byte for byte.

use crate::yard::PATIENCE;
use anyhow::{Context, Result, bail};
use mysql::protocol::{
    Capabilities, Greeting, HEADER_BYTES, LoginRequest, ServerError, packet, payload_bytes,
};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What an ordinary client can do.
pub const ORDINARY: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::AUTH_LENGTH_ENCODED.0,
);

pub struct Client(pub TcpStream);

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client(stream))
    }

    pub async fn greeting(&mut self) -> Result<Greeting> {
        let (_, payload) = self.hear().await?.context("a greeting comes")?;
        Ok(Greeting::read(&payload)?)
    }

    /// The next packet; `None` when the connection ends instead.
    pub async fn hear(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let mut header = [0; HEADER_BYTES];
        if !self.exactly(&mut header).await? {
            return Ok(None);
        }
        let mut payload = vec![0; payload_bytes(&header)];
        let whole = self.exactly(&mut payload).await?;
        Ok(whole.then_some((header[3], payload)))
    }

    /// Whether all of it came before the end.
    async fn exactly(&mut self, bytes: &mut [u8]) -> Result<bool> {
        let read =
            timeout(PATIENCE, self.0.read_exact(bytes)).await.context("neither an answer nor an end came")?;
        Ok(read.is_ok())
    }

    /// Says bytes; a connection that has ended meanwhile is what the test wants to see, in what it hears.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The error that ends the connection, or `None` where it just ends; whatever else comes before is passed over.
    pub async fn last_words(&mut self) -> Result<Option<ServerError>> {
        let mut error = None;
        while let Some((_, payload)) = self.hear().await? {
            error = (payload.first() == Some(&0xff)).then(|| ServerError::read(&payload)).transpose()?;
        }
        Ok(error)
    }

    pub async fn login(&mut self, capabilities: Capabilities) -> Result<()> {
        self.greeting().await?;
        self.say(&packet(1, &request(capabilities).write())).await;
        let mut sequence = 3;
        loop {
            let (number, payload) = self.hear().await?.context("the login goes on")?;
            match payload.first() {
                Some(0) => return Ok(()),
                Some(0xfe) => {
                    self.say(&packet(number.wrapping_add(1), b"")).await;
                    sequence += 2;
                }
                _ => bail!("{:?} in packet {number}, of {sequence}", ServerError::read(&payload)),
            }
        }
    }

    pub async fn query(&mut self, sql: &str) {
        let payload = [&[3], sql.as_bytes()].concat();
        self.say(&packet(0, &payload)).await;
    }
}

/// The login of `root`, who has no password.
pub fn request(capabilities: Capabilities) -> LoginRequest {
    LoginRequest {
        capabilities,
        packet_bytes_max: 1 << 24,
        collation: 45,
        user: b"root".to_vec(),
        plugin: b"caching_sha2_password".to_vec(),
        ..LoginRequest::default()
    }
}
