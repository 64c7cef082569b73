//! The way to a NATS server, or to one of a cluster: addresses, TLS, and who we are.

use crate::config::SinkConfig;
use crate::deliver::sink::SinkError;
use crate::tls;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use base::Secret;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the sink's file says of the server.
pub struct Server {
    url: Secret,
    files: tls::Files,
    credentials: Option<PathBuf>,
    nkey: Option<Secret>,
}

impl Server {
    pub fn new(sink: &SinkConfig) -> Result<Self, SinkError> {
        let blocked =
            |message: &str, hint: &str| SinkError::Blocked { message: message.into(), hint: hint.into() };
        let url = sink
            .url
            .clone()
            .ok_or_else(|| blocked("the NATS sink has no `url`", "url: nats://127.0.0.1:4222"))?;
        if sink.credentials.is_some() && sink.nkey.is_some() {
            return Err(blocked("`credentials` and `nkey` are two ways to log in", "remove one of them"));
        }
        let (credentials, nkey) = (sink.credentials.clone(), sink.nkey.clone());
        Ok(Self { url, files: sink.tls_files(), credentials, nkey })
    }

    /// All servers that the URL names; those that the first one tells of are found by the client itself.
    fn addresses(&self) -> Result<Vec<ServerAddr>, SinkError> {
        let url = self.url.expose();
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        // A login before the first host is that of all.
        let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
        let address = |(index, host): (usize, &str)| {
            let whole = if index == 0 { url.split(',').next().unwrap_or(url) } else { host };
            let whole = if whole.contains("://") { whole.to_owned() } else { format!("{scheme}://{host}") };
            whole.parse::<ServerAddr>().map_err(|_| SinkError::Blocked {
                message: "the NATS sink's `url` cannot be read".into(),
                hint: "url: nats://host:4222,host:4222".into(),
            })
        };
        hosts.split(',').map(str::trim).enumerate().map(address).collect()
    }

    fn options(&self, first: Option<&ServerAddr>) -> Result<ConnectOptions, SinkError> {
        let mut options = ConnectOptions::new().connection_timeout(CONNECT_TIMEOUT).name("tidemill");
        if !self.files.is_empty() || self.url.expose().starts_with("tls://") {
            let config = tls::client_config(&self.files).map_err(|message| SinkError::Blocked {
                message: format!("NATS: {message}"),
                hint: "see `tls_ca`, `tls_cert` and `tls_key` in the sink's file".into(),
            })?;
            // Also where `nats://` is written: who names an authority does not want to do without TLS.
            options = options.tls_client_config(config).require_tls(true);
        }
        if let Some(seed) = &self.nkey {
            return Ok(options.nkey(seed.expose().trim().to_owned()));
        }
        if let Some(path) = &self.credentials {
            // Read anew with each connection: these are renewed while we run.
            let unreadable = |error: std::io::Error| SinkError::Blocked {
                message: format!(
                    "NATS: `credentials`: no login can be read from `{}`: {error}",
                    path.display()
                ),
                hint: "name the file that `nsc generate creds` wrote".into(),
            };
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            return options.credentials(&text).map_err(unreadable);
        }
        // The login stands in the URL, where the client itself does not look for it: user and password, or a token alone.
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let Some(first) = first else { return Ok(options) };
        Ok(match (first.username().map(decoded), first.password().map(decoded)) {
            (Some(user), Some(password)) => options.user_and_password(user, password),
            (Some(token), None) => options.token(token),
            (None, _) => options,
        })
    }

    pub async fn connect(&self) -> Result<Client, SinkError> {
        let addresses = self.addresses()?;
        self.options(addresses.first())?.connect(addresses).await.map_err(unconnected)
    }
}

pub fn away(error: &dyn std::fmt::Display) -> SinkError {
    SinkError::Unavailable { message: format!("NATS: {error}") }
}

/// A login that is refused stays so, and a certificate that is not trusted; everything else may pass.
fn unconnected(error: async_nats::ConnectError) -> SinkError {
    let message = format!("NATS: {}", base::error::chain(&error));
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => SinkError::Blocked {
            message,
            hint: "check the URL's user, password or token, or `credentials` or `nkey`".into(),
        },
        _ => match tls_hint(&error) {
            Some(hint) => SinkError::Blocked { message, hint: hint.into() },
            None => SinkError::Unavailable { message },
        },
    }
}

fn tls_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hint) = error.downcast_ref::<std::io::Error>().and_then(tls::hint) {
            return Some(hint);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> Vec<String> {
        let mut sink: SinkConfig = serde_saphyr::from_str("kind: nats").unwrap();
        sink.url = Some(Secret::new(url.to_owned()));
        let server = Server::new(&sink).unwrap();
        server.addresses().unwrap().iter().map(|at| format!("{}:{}", at.host(), at.port())).collect()
    }

    #[test]
    fn a_url_names_one_server_or_several() {
        assert_eq!(addresses("nats://a"), ["a:4222"]);
        assert_eq!(addresses("tls://u:p%2C%40@a:1,b:2,c"), ["a:1", "b:2", "c:4222"]);
    }
}
