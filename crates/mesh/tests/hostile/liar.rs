//! A server that greets and lets everybody in, and then does what it was told to.

use anyhow::Result;
use mysql::protocol::{
    Capabilities, Greeting, HEADER_BYTES, LoginRequest, Status, ok_packet, packet, payload_bytes,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does. Everything but `Honest` and `Slow` ends with a close.
#[derive(Clone, Debug)]
pub enum Trick {
    /// Answers as a server does.
    Honest,
    /// Says these bytes in its greeting's place.
    Greets(Vec<u8>),
    /// Says these bytes in the place of what follows a login.
    LetsIn(Vec<u8>),
    /// Says these bytes in the answer's place.
    Answers(Vec<u8>),
    /// Says the first, and the second for ever.
    Endless(Vec<u8>, Vec<u8>),
}

pub struct Liar {
    pub port: u16,
    trick: Arc<Mutex<Trick>>,
    logins: Arc<Mutex<Vec<LoginRequest>>>,
    answered: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Liar {
    /// `without` is what it cannot do.
    pub async fn start(without: Capabilities) -> Result<Liar> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let trick = Arc::new(Mutex::new(Trick::Honest));
        let logins = Arc::new(Mutex::new(Vec::new()));
        let answered = Arc::new(AtomicUsize::new(0));
        let (tricks, seen, count) = (trick.clone(), logins.clone(), answered.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tricks.clone(), seen.clone(), count.clone(), without));
            }
        });
        Ok(Liar { port, trick, logins, answered, accepting })
    }

    pub fn does(&self, trick: Trick) {
        *held(&self.trick) = trick;
    }

    /// How many commands it has lied to.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Who has logged in.
    pub fn logins(&self) -> Vec<LoginRequest> {
        held(&self.logins).clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An end of the connection is the end of it.
async fn serve(
    mut stream: TcpStream,
    trick: Arc<Mutex<Trick>>,
    logins: Arc<Mutex<Vec<LoginRequest>>>,
    answered: Arc<AtomicUsize>,
    without: Capabilities,
) -> Option<()> {
    let now = || held(&trick).clone();
    stream.set_nodelay(true).ok()?;
    if let Trick::Greets(bytes) = now() {
        stream.write_all(&bytes).await.ok()?;
        return None;
    }
    let all = Capabilities(0xffff_ffff).without(Capabilities::TLS | Capabilities::ZSTD);
    let greeting = Greeting {
        version: b"9.7.0-liar".to_vec(),
        connection_id: 7,
        salt: vec![b'a'; 20],
        capabilities: all.without(without),
        collation: 255,
        status: Status::AUTOCOMMIT.0,
        plugin: b"caching_sha2_password".to_vec(),
    };
    stream.write_all(&packet(0, &greeting.write())).await.ok()?;
    let login = LoginRequest::read(&hear(&mut stream).await?).ok()?;
    held(&logins).push(login.clone());
    if let Trick::LetsIn(bytes) = now() {
        stream.write_all(&bytes).await.ok()?;
        return None;
    }
    stream.write_all(&ok_packet(2, Status::AUTOCOMMIT)).await.ok()?;
    loop {
        let command = hear(&mut stream).await?;
        match (command.first()?, now()) {
            (1, _) => return None,
            (_, Trick::Answers(bytes)) => {
                answered.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&bytes).await.ok()?;
                return None;
            }
            (_, Trick::Endless(first, again)) => {
                stream.write_all(&first).await.ok()?;
                loop {
                    stream.write_all(&again).await.ok()?;
                }
            }
            // Everything else that is asked has one row.
            (3, _) if !command.windows(4).any(|four| four == b"set ") => {
                stream.write_all(&one_row(login.capabilities)).await.ok()?
            }
            _ => stream.write_all(&ok_packet(1, Status::AUTOCOMMIT)).await.ok()?,
        }
    }
}

async fn hear(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.ok()?;
    let mut payload = vec![0; payload_bytes(&header)];
    stream.read_exact(&mut payload).await.ok()?;
    Some(payload)
}

/// How many columns, and what they are: one.
pub fn columns() -> Vec<u8> {
    let mut definition = Vec::new();
    for text in [&b"def"[..], b"", b"", b"", b"a", b""] {
        definition.push(text.len() as u8);
        definition.extend_from_slice(text);
    }
    definition.extend_from_slice(&[0x0c, 45, 0, 1, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]);
    [packet(1, &[1]), packet(2, &definition)].concat()
}

/// A result of one row with the text `1`, with the ends that these capabilities want.
pub fn one_row(capabilities: Capabilities) -> Vec<u8> {
    let row: &[u8] = b"\x011";
    if capabilities.has(Capabilities::DEPRECATE_EOF) {
        [columns(), packet(3, row), packet(4, &[0xfe, 0, 0, 2, 0, 0, 0])].concat()
    } else {
        let eof = [0xfe, 0, 0, 2, 0];
        [columns(), packet(3, &eof), packet(4, row), packet(5, &eof)].concat()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
