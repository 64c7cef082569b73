//! The URL of a cluster, TLS and SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512: RFC 4616, 5802, 7677).

use super::wire::{Broker, Transport, WireError, checked};
use crate::tls;
use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::digest::core_api::BlockSizeUser;
use hmac::digest::{Digest, KeyInit, Output};
use hmac::{Mac, SimpleHmac};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PORT_DEFAULT: u16 = 9092;
const HANDSHAKE_VERSION: i16 = 1;
const AUTHENTICATE_VERSION: i16 = 1;
/// What a server may ask for; more would be an attack on our CPU.
const ITERATIONS_MAX: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How brokers are talked to.
#[derive(Clone, Default)]
pub struct Security {
    pub tls: Option<TlsConnector>,
    user: Option<User>,
}

#[derive(Clone)]
struct User {
    name: String,
    password: Secret,
    mechanism: Mechanism,
}

/// Where a cluster is and how to get in, from `kafka://[user:password@]host[:port][,…][?sasl=MECHANISM]`; `kafkas` is TLS.
/// `Err` says what is wrong, and never holds the password.
pub fn parse_url(url: &Secret, files: &tls::Files) -> Result<(Vec<(String, u16)>, Security), String> {
    let text = url.expose();
    let (tls, rest) = match text.split_once("://") {
        Some(("kafka", rest)) => (false, rest),
        Some(("kafkas", rest)) => (true, rest),
        _ => return Err("the URL does not begin with kafka:// or kafkas://".to_owned()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, hosts) = match rest.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, rest),
    };
    let hosts = hosts.trim_end_matches('/');
    let mut mechanism = if tls { Mechanism::Plain } else { Mechanism::ScramSha256 };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        mechanism = match pair.to_ascii_lowercase().as_str() {
            "sasl=plain" => Mechanism::Plain,
            "sasl=scram-sha-256" => Mechanism::ScramSha256,
            "sasl=scram-sha-512" => Mechanism::ScramSha512,
            _ => return Err("the URL's query is not sasl=plain, scram-sha-256 or scram-sha-512".to_owned()),
        };
    }
    let mut seeds = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => {
                (name, port.parse().map_err(|_| format!("`{port}` in the URL is not a port"))?)
            }
            _ => (host, PORT_DEFAULT),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() {
            return Err("the URL has an empty host".to_owned());
        }
        seeds.push((name.to_owned(), port));
    }
    let user = match login {
        None => None,
        Some(login) => {
            let (name, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text: &str| {
                let bytes = percent_encoding::percent_decode_str(text);
                bytes
                    .decode_utf8()
                    .map(|text| text.into_owned())
                    .map_err(|_| "the URL's login is not UTF-8".to_owned())
            };
            Some(User { name: decoded(name)?, password: Secret::new(decoded(password)?), mechanism })
        }
    };
    let tls = if tls { Some(tls::connector(files)?) } else { None };
    Ok((seeds, Security { tls, user }))
}

pub async fn start_tls(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<Box<dyn Transport>, WireError> {
    let name = ServerName::try_from(host.to_owned()).map_err(WireError::broken)?;
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        // A certificate that is not trusted stays so.
        Err(error) => Err(match tls::hint(&error) {
            Some(hint) => WireError::Tls { message: format!("TLS with {host}: {error}"), hint },
            None => WireError::Broken(format!("TLS: {error}")),
        }),
    }
}

pub async fn log_in(broker: &mut Broker, security: &Security) -> Result<(), WireError> {
    let Some(user) = &security.user else { return Ok(()) };
    let mechanism = StrBytes::from_static_str(user.mechanism.name());
    let answer =
        broker.call(HANDSHAKE_VERSION, &SaslHandshakeRequest::default().with_mechanism(mechanism)).await?;
    if ResponseError::try_from_code(answer.error_code) == Some(ResponseError::UnsupportedSaslMechanism) {
        let offered: Vec<_> = answer.mechanisms.iter().map(|m| m.to_string()).collect();
        return Err(WireError::Login(format!(
            "the broker does not take {}, it takes {}",
            user.mechanism.name(),
            offered.join(", ")
        )));
    }
    checked(|| "SASL".to_owned(), answer.error_code)?;
    match user.mechanism {
        Mechanism::Plain => {
            let text = format!("\0{}\0{}", user.name, user.password.expose());
            exchange(broker, text.into_bytes()).await.map(|_| ())
        }
        Mechanism::ScramSha256 => scram::<sha2::Sha256>(broker, user).await,
        Mechanism::ScramSha512 => scram::<sha2::Sha512>(broker, user).await,
    }
}

async fn exchange(broker: &mut Broker, bytes: Vec<u8>) -> Result<Bytes, WireError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(bytes));
    let answer = broker.call(AUTHENTICATE_VERSION, &request).await?;
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(answer.auth_bytes),
        Some(error) => {
            let why = answer.error_message.map(|m| m.to_string()).unwrap_or_else(|| error.to_string());
            Err(WireError::Login(format!("the broker refuses the login: {why}")))
        }
    }
}

/// The client's half of a SCRAM conversation, one message after the other.
struct Scram<'a> {
    user: &'a str,
    password: &'a [u8],
    nonce: String,
}

impl Scram<'_> {
    fn first(&self) -> String {
        format!("n={},r={}", self.user.replace('=', "=3D").replace(',', "=2C"), self.nonce)
    }

    /// From the server's first message: our last one, and what the server must answer to it.
    fn last<D>(&self, server: &str) -> Result<(String, String), String>
    where
        D: Digest + BlockSizeUser + Clone + Sync,
    {
        let field = |name: &str| server.split(',').find_map(|part| part.strip_prefix(name));
        let (nonce, salt) = (field("r=").unwrap_or_default(), field("s=").unwrap_or_default());
        let iterations: u32 = field("i=").and_then(|i| i.parse().ok()).unwrap_or(0);
        let salt = BASE64.decode(salt).map_err(|_| "the server's salt is malformed".to_owned())?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's nonce is not ours".to_owned());
        }
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err("the server's count of iterations is not sensible".to_owned());
        }
        let mut salted = Output::<SimpleHmac<D>>::default();
        pbkdf2::pbkdf2::<SimpleHmac<D>>(self.password, &salt, iterations, &mut salted)
            .map_err(|_| "the password cannot be hashed".to_owned())?;
        let mac = |key: &[u8], text: &[u8]| -> Result<Vec<u8>, String> {
            let mut mac = <SimpleHmac<D> as KeyInit>::new_from_slice(key).map_err(|e| e.to_string())?;
            mac.update(text);
            Ok(mac.finalize().into_bytes().to_vec())
        };
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server},{without_proof}", self.first());
        let client_key = mac(&salted, b"Client Key")?;
        let signature = mac(&D::digest(&client_key), signed.as_bytes())?;
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let expected = mac(&mac(&salted, b"Server Key")?, signed.as_bytes())?;
        Ok((format!("{without_proof},p={}", BASE64.encode(proof)), format!("v={}", BASE64.encode(expected))))
    }
}

async fn scram<D>(broker: &mut Broker, user: &User) -> Result<(), WireError>
where
    D: Digest + BlockSizeUser + Clone + Sync,
{
    let nonce = BASE64.encode(nonce_bytes()?);
    let scram = Scram { user: &user.name, password: user.password.expose().as_bytes(), nonce };
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).map_err(WireError::broken);
    let server = text(exchange(broker, format!("n,,{}", scram.first()).into_bytes()).await?)?;
    let (last, expected) = scram.last::<D>(&server).map_err(WireError::Login)?;
    let server = text(exchange(broker, last.into_bytes()).await?)?;
    if server.split(',').next() != Some(&expected) {
        return Err(WireError::Login(
            "the server does not know the password either: it is not the broker".to_owned(),
        ));
    }
    Ok(())
}

fn nonce_bytes() -> Result<[u8; 18], WireError> {
    let mut bytes = [0; 18];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| WireError::Broken("no random bytes".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_brokers_and_logins() {
        let parse = |url: &str| parse_url(&Secret::new(url.to_owned()), &tls::Files::default());
        let (seeds, security) = parse("kafka://a,b:9093,[::1]:9094/").unwrap();
        let seeds: Vec<_> = seeds.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(seeds, [("a", 9092), ("b", 9093), ("::1", 9094)]);
        assert!(security.user.is_none() && security.tls.is_none());
        let user = |url: &str| parse(url).unwrap().1.user.unwrap();
        let plain = user("kafka://al%40ice:p:%2f@h?sasl=plain");
        assert_eq!(
            (plain.name.as_str(), plain.password.expose(), plain.mechanism),
            ("al@ice", "p:/", Mechanism::Plain)
        );
        assert_eq!(user("kafka://a:b@h").mechanism, Mechanism::ScramSha256);
        for wrong in ["nats://h", "kafka://", "kafka://h:x", "kafka://a:secret@h?sasl=gssapi"] {
            let why = parse(wrong).err().unwrap();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn scram_says_what_the_standard_says() {
        // The example of RFC 7677.
        let scram = Scram { user: "user", password: b"pencil", nonce: "rOprNGfwEbeRWgbNEkqO".to_owned() };
        assert_eq!(scram.first(), "n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, expected) = scram.last::<sha2::Sha256>(server).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(expected, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(scram.last::<sha2::Sha256>("r=other,s=AA==,i=1").is_err());
        assert!(scram.last::<sha2::Sha256>(&server.replace("4096", "4000000000")).is_err());
    }
}
