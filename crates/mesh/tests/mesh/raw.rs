//! A client that sends commands as bytes, which no driver would.

use anyhow::{Context, Result, bail};
use mysql::protocol::{
    Answer, Capabilities, Command, LoginRequest, ServerError, Step, packet, payload_bytes,
};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Raw(TcpStream);

impl Raw {
    /// Logs in as root without a password; with `more` capabilities.
    pub async fn login(address: SocketAddr, more: Capabilities) -> Result<Raw> {
        let (mut raw, mut answer) = Raw::knock(address, more, "root", "mysql_native_password").await?;
        loop {
            let (sequence, payload) = answer;
            match payload.first() {
                Some(0) => return Ok(raw),
                Some(0xfe) => raw.0.write_all(&packet(sequence.wrapping_add(1), b"")).await?,
                Some(0xff) => bail!("{}", ServerError::read(&payload)?.message),
                _ => {}
            }
            answer = raw.hear().await?;
        }
    }

    /// Says who it is and proves nothing; with what is answered first.
    pub async fn knock(
        address: SocketAddr,
        more: Capabilities,
        user: &str,
        plugin: &str,
    ) -> Result<(Raw, (u8, Vec<u8>))> {
        let mut raw = Raw(TcpStream::connect(address).await?);
        raw.hear().await?;
        let request = LoginRequest {
            capabilities: Capabilities::LONG_PASSWORD
                | Capabilities::PROTOCOL_41
                | Capabilities::TRANSACTIONS
                | Capabilities::SECURE_CONNECTION
                | Capabilities::MULTI_RESULTS
                | Capabilities::PLUGIN_AUTH
                | Capabilities::AUTH_LENGTH_ENCODED
                | more,
            packet_bytes_max: 1 << 30,
            collation: 45,
            user: user.into(),
            proof: Vec::new(),
            database: Vec::new(),
            plugin: plugin.into(),
            attributes: Vec::new(),
            zstd_level: 0,
        };
        raw.0.write_all(&packet(1, &request.write())).await?;
        let answer = raw.hear().await?;
        Ok((raw, answer))
    }

    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        Ok(self.0.write_all(&packet(0, payload)).await?)
    }

    pub async fn hear(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).await.context("the connection has ended")?;
        let mut payload = vec![0; payload_bytes(&header)];
        self.0.read_exact(&mut payload).await?;
        Ok((header[3], payload))
    }

    /// Every packet that a command is answered by, on a connection of these capabilities.
    pub async fn answer(&mut self, command: &[u8], capabilities: Capabilities) -> Result<Vec<u8>> {
        self.send(command).await?;
        let mut answer = Answer::to(Command::of(command[0]), capabilities);
        let mut all = Vec::new();
        loop {
            let (sequence, payload) = self.hear().await?;
            let bytes = packet(sequence, &payload);
            let (_, step) = answer.advance(&bytes);
            all.extend_from_slice(&bytes);
            if matches!(step, Step::Done(_)) {
                return Ok(all);
            }
        }
    }

    /// The number and the words of the error that a command gets; `None` where its answer begins otherwise.
    pub async fn error(&mut self, payload: &[u8]) -> Result<Option<(u16, String)>> {
        self.send(payload).await?;
        let (_, answer) = self.hear().await?;
        if answer.first() != Some(&0xff) {
            return Ok(None);
        }
        let error = ServerError::read(&answer)?;
        Ok(Some((error.number, error.message)))
    }
}
