//! One question by HTTP, and its whole answer, both small.

use crate::tls::Connector;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer, with what stands before its body, is no longer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// From the connection to the last byte.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What to ask, and whom.
pub struct Question<'a> {
    /// `host:port`.
    pub address: &'a str,
    /// For `https`.
    pub connector: Option<&'a Connector>,
    pub path: &'a str,
    /// What is posted.
    pub json: &'a str,
}

impl Question<'_> {
    /// The body of the answer.
    ///
    /// # Errors
    /// Where it does not come whole, in time and with the status 200.
    pub async fn ask(&self) -> io::Result<Vec<u8>> {
        timeout(ANSWER_MAX, self.ask_slowly()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn ask_slowly(&self) -> io::Result<Vec<u8>> {
        let stream = TcpStream::connect(self.address).await?;
        match self.connector {
            None => self.talk(stream).await,
            Some(connector) => self.talk(connector.connect(self.address, stream).await?).await,
        }
    }

    async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
        // By version 1.0 the answer comes in one piece, and ends with the connection.
        let head = format!(
            "POST {} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.address,
            self.json.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(self.json.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await;
        // Some end TLS without saying so; whether all has come, its length tells.
        if let Err(error) = read
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            return Err(error);
        }
        body(&answer).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

fn body(answer: &[u8]) -> Result<Vec<u8>, String> {
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
    }
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or("an answer without an end of its head")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.") || status.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(format!("it answered `{}`", status.chars().take(100).collect::<String>()));
    }
    let field = |wanted: &str| {
        let named = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        };
        head.lines().skip(1).find_map(named)
    };
    if field("transfer-encoding").is_some() {
        return Err("an answer in parts, which was not asked for".into());
    }
    match field("content-length").map(|length| length.parse::<usize>()) {
        Some(Ok(length)) => body.get(..length).map(<[u8]>::to_vec).ok_or_else(|| "half an answer".into()),
        Some(Err(_)) => Err("a length that is no number".into()),
        // It could be half of one; what reads it will see.
        None => Ok(body.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_of_200_is_one() {
        let ok = body(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}rest");
        assert_eq!(ok.as_deref(), Ok(&b"{}"[..]));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n{}").as_deref(), Ok(&b"{}"[..]));
        for (answer, reason) in [
            (&b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}"[..], "half an answer"),
            (b"HTTP/1.0 200 OK\r\ncontent-length: -1\r\n\r\n{}", "no number"),
            (b"HTTP/1.0 404 Not Found\r\n\r\n{}", "404"),
            (b"HTTP/1.0 2000 OK\r\n\r\n{}", "2000"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", "in parts"),
            (b"SSH-2.0-x\r\n\r\n", "SSH"),
            (b"", "without an end"),
        ] {
            let told = body(answer).unwrap_err();
            assert!(told.contains(reason), "{told}");
        }
    }
}
