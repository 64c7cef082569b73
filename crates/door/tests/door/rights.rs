//! Who is let in: tokens as passwords, by TLS and from this machine.

use crate::clients::mysql;
use crate::house::{House, Porter, output};
use anyhow::Result;
use async_trait::async_trait;
use door::{Tls, Waits};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const TOKEN: &str = "tidemill_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

struct Shown(TlsAcceptor);

#[async_trait]
impl Tls for Shown {
    async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn certificate() -> Result<Box<dyn Tls>> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Box::new(Shown(TlsAcceptor::from(Arc::new(config)))))
}

/// What the client of MySQL says, or its error.
async fn asked(port: u16, arguments: &[&str]) -> String {
    let ask = async {
        let mut command = mysql(port, "SELECT count(*) FROM ods.orders", false)?;
        command.args(arguments);
        output(command).await
    };
    ask.await.unwrap_or_else(|error| error.to_string())
}

#[tokio::test]
async fn a_token_is_the_password_by_tls_and_in_the_clear_from_here() -> Result<()> {
    let house = House::with(Porter::new(Some(TOKEN)), Some(certificate()?), Waits::default()).await?;
    let password = format!("--password={TOKEN}");
    // Every client does this by itself.
    let heard = asked(house.port, &[&password, "--ssl-mode=REQUIRED"]).await;
    assert_eq!(heard, "count(*)\n3\n");
    let heard =
        asked(house.port, &[&password, "--ssl-mode=REQUIRED", "--default-auth=mysql_native_password"]).await;
    assert!(heard == "count(*)\n3\n" || heard.contains("mysql_native_password.so"), "{heard}");
    let heard = asked(house.port, &[&password, "--ssl-mode=DISABLED", "--enable-cleartext-plugin"]).await;
    assert_eq!(heard, "count(*)\n3\n");
    let heard = asked(house.port, &[&password, "--ssl-mode=DISABLED"]).await;
    assert!(heard.contains("mysql_clear_password"), "{heard}");
    for (arguments, words) in [
        (&["--password=tidemill_wrong", "--ssl-mode=REQUIRED"][..], "the token is not known"),
        (
            &["--password=tidemill_wrong", "--ssl-mode=DISABLED", "--enable-cleartext-plugin"],
            "the token is not known",
        ),
        (&["--ssl-mode=REQUIRED"], "(using password: NO)"),
        (&["--ssl-mode=DISABLED"], "(using password: NO)"),
    ] {
        let heard = asked(house.port, arguments).await;
        assert!(heard.contains("ERROR 1045 (28000)") && heard.contains(words), "{arguments:?}: {heard}");
    }
    house.close().await
}

#[tokio::test]
async fn without_a_token_anybody_of_this_machine_comes_in_with_tls_or_without() -> Result<()> {
    let house = House::with(Porter::new(None), Some(certificate()?), Waits::default()).await?;
    for arguments in [
        &["--ssl-mode=REQUIRED", "--password=whatever"][..],
        &["--ssl-mode=DISABLED", "--password=whatever"],
        &[],
    ] {
        assert_eq!(asked(house.port, arguments).await, "count(*)\n3\n", "{arguments:?}");
    }
    house.close().await
}
