//! Who comes in: the greeting, TLS, and the proof.
//!
//! Tokens are kept as digests, so no exchange that proves a password without showing it is possible. The door therefore asks
//! for the password itself, and only where nobody can listen: by TLS with `caching_sha2_password`, whose full exchange every
//! driver does without being told to, and from loopback with `mysql_clear_password`, which drivers want an option for.

use crate::error::SqlError;
use crate::packets::{self, LOGIN_PAYLOAD_BYTES_MAX, Packets, Stream};
use crate::{Admitted, Door};
use mysql::protocol::{
    AuthSwitch, CACHING_SHA2, CLEAR, Capabilities, Greeting, HEADER_BYTES, LoginRequest, Status,
    TLS_REQUEST_BYTES, packet,
};
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// `utf8mb4_0900_ai_ci`.
const COLLATION: u8 = 255;
/// `caching_sha2_password`: the password itself, please.
const FULL_EXCHANGE: [u8; 2] = [1, 4];
/// `caching_sha2_password`: the proof is believed.
const BELIEVED: [u8; 2] = [1, 3];

/// What a client may agree on.
fn offered(tls: bool) -> Capabilities {
    let all = Capabilities::LONG_PASSWORD
        | Capabilities::FOUND_ROWS
        | Capabilities::LONG_FLAG
        | Capabilities::CONNECT_WITH_DATABASE
        | Capabilities::ODBC
        | Capabilities::IGNORE_SPACE
        | Capabilities::PROTOCOL_41
        | Capabilities::INTERACTIVE
        | Capabilities::IGNORE_SIGPIPE
        | Capabilities::TRANSACTIONS
        | Capabilities::RESERVED
        | Capabilities::SECURE_CONNECTION
        | Capabilities::MULTI_RESULTS
        | Capabilities::PREPARED_MULTI_RESULTS
        | Capabilities::PLUGIN_AUTH
        | Capabilities::CONNECT_ATTRIBUTES
        | Capabilities::AUTH_LENGTH_ENCODED
        | Capabilities::DEPRECATE_EOF;
    if tls { all | Capabilities::TLS } else { all }
}

/// A client that was let in.
pub struct LoggedIn {
    pub packets: Packets,
    pub user: String,
    /// What it wants to begin in; not looked up yet.
    pub database: Option<String>,
    pub admitted: Admitted,
    pub tls: bool,
}

/// The exchange from the greeting to the proof; the last OK is left to the caller. `None`: told why not, and let go.
pub async fn log_in(
    door: &Door,
    stream: TcpStream,
    peer: SocketAddr,
    id: u32,
) -> io::Result<Option<LoggedIn>> {
    let salt = salt()?;
    let greeting = Greeting {
        version: crate::VERSION.as_bytes().to_vec(),
        connection_id: id,
        salt: salt.to_vec(),
        capabilities: offered(door.tls.is_some()),
        collation: COLLATION,
        status: Status::AUTOCOMMIT.0,
        plugin: CACHING_SHA2.to_vec(),
    };
    let mut stream = stream;
    stream.write_all(&packet(0, &greeting.write())).await?;
    let mut sequence = 1;
    let mut payload = packets::read(&mut stream, &mut sequence, LOGIN_PAYLOAD_BYTES_MAX).await?;
    let asked =
        Capabilities(u64::from(u32::from_le_bytes(payload.first_chunk().copied().unwrap_or_default())));
    let mut tls = false;
    let mut stream: Box<dyn Stream> = match &door.tls {
        Some(acceptor) if payload.len() == TLS_REQUEST_BYTES && asked.has(Capabilities::TLS) => {
            let mut stream = acceptor.accept(stream).await?;
            payload = packets::read(&mut stream, &mut sequence, LOGIN_PAYLOAD_BYTES_MAX).await?;
            tls = true;
            Box::new(stream)
        }
        _ => Box::new(stream),
    };
    let Ok(login) = LoginRequest::read(&payload) else {
        let error = SqlError::new(1043, "Bad handshake");
        let whole = mysql::protocol::error_packet(sequence, error.number, error.state(), &error.message);
        stream.write_all(&whole).await?;
        stream.flush().await?;
        return Ok(None);
    };
    let mut packets = Packets::new(stream, sequence);
    packets.capabilities = login.capabilities & offered(tls);
    let user = String::from_utf8_lossy(&login.user).into_owned();
    match prove(door, &mut packets, &login, &user, peer, tls, &salt).await? {
        Ok(admitted) => {
            packets.let_in();
            let database = String::from_utf8_lossy(&login.database).into_owned();
            let database = Some(database).filter(|it| !it.is_empty());
            Ok(Some(LoggedIn { packets, user, database, admitted, tls }))
        }
        Err(error) => {
            tracing::debug!(%peer, user, error = error.message, "a client of the SQL door was refused");
            packets.error(&error).await?;
            packets.flush().await?;
            Ok(None)
        }
    }
}

async fn prove(
    door: &Door,
    packets: &mut Packets,
    login: &LoginRequest,
    user: &str,
    peer: SocketAddr,
    tls: bool,
    salt: &[u8],
) -> io::Result<Result<Admitted, SqlError>> {
    let denied = |using: bool| {
        let using = if using { "YES" } else { "NO" };
        let host = peer.ip();
        SqlError::new(1045, format!("Access denied for user '{user}'@'{host}' (using password: {using})"))
    };
    if !door.gate.wants_password() {
        if !peer.ip().to_canonical().is_loopback() {
            let hint = "without a token only programs of this machine may come in: `tidemill token create` makes one";
            return Ok(Err(SqlError::new(1045, hint)));
        }
        // Some clients wait for a word after a proof that is not empty.
        if login.plugin == CACHING_SHA2 && login.proof.len() > 1 {
            packets.put(&BELIEVED).await?;
        }
        return Ok(Ok(door.gate.admit()));
    }
    let password = if tls {
        let mut proof = login.proof.clone();
        if login.plugin != CACHING_SHA2 {
            let switch = AuthSwitch { plugin: CACHING_SHA2.to_vec(), salt: salt.to_vec() };
            packets.put(&switch.write()).await?;
            packets.flush().await?;
            proof = packets.read().await?;
        }
        if proof.len() <= 1 {
            return Ok(Err(denied(false)));
        }
        packets.put(&FULL_EXCHANGE).await?;
        packets.flush().await?;
        packets.read().await?
    } else if peer.ip().to_canonical().is_loopback() {
        if login.proof.len() <= 1 {
            return Ok(Err(denied(false)));
        }
        packets.put(&AuthSwitch { plugin: CLEAR.to_vec(), salt: Vec::new() }.write()).await?;
        packets.flush().await?;
        packets.read().await?
    } else {
        return Ok(Err(SqlError::new(
            3159,
            "Connections using insecure transport are prohibited: connect by TLS",
        )));
    };
    let password = String::from_utf8_lossy(password.strip_suffix(&[0]).unwrap_or(&password)).into_owned();
    Ok(door.gate.admit_checked(&password).map_err(|why| {
        let error = denied(!password.is_empty());
        SqlError::new(error.number, format!("{}: {why}", error.message))
    }))
}

/// 20 random bytes, none of which ends a text.
fn salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut salt)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    salt.iter_mut().for_each(|byte| *byte = (*byte & 0x7f).max(1));
    Ok(salt)
}

/// An ERR in the greeting's place.
pub async fn refuse(mut stream: TcpStream, error: &SqlError) -> io::Result<()> {
    let whole = mysql::protocol::error_packet(0, error.number, error.state(), &error.message);
    debug_assert!(whole.len() > HEADER_BYTES);
    stream.write_all(&whole).await?;
    stream.shutdown().await
}
