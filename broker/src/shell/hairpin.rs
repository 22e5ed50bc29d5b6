//! Whether the broker can be reached where hosts are told that it is: one handshake with itself, as a host would make it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::certificate::{ALPN, Facts};

/// How long all of it may take: a person waits for it, and it is a piece of advice and no more.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Dials `address`, `name:port`, and makes the handshake, trusting what bundles trust.
///
/// # Errors
/// Why that does not work from here, in a few words. It may work from elsewhere: behind a NAT, its own address often leads nowhere.
pub async fn reach(address: &str, facts: &Facts) -> anyhow::Result<()> {
    let shake = async {
        let (name, _port) = address.rsplit_once(':').context("no name and port")?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(name.to_owned()).context("no name")?;
        let connector = TlsConnector::from(Arc::new(config(facts)?));
        let tcp = TcpStream::connect(address).await.context("connect")?;
        connector
            .connect(server, tcp)
            .await
            .context("TLS handshake")?;
        Ok(())
    };
    match timeout(WAIT_MAX, shake).await {
        Ok(shaken) => shaken,
        Err(_) => anyhow::bail!("no answer within {} s", WAIT_MAX.as_secs()),
    }
}

fn config(facts: &Facts) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for one in &facts.authorities {
        roots
            .add(CertificateDer::from(one.der.as_slice()))
            .context("read an authority")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("configure TLS 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTPS: it ends without a word, while an MQTT client that says nothing would be counted as one that was refused.
    config.alpn_protocols = ALPN.last().iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_place_that_is_not_the_broker_is_said_to_be_none_within_seconds() {
        let mut facts = (**Facts::sample().borrow()).clone();
        facts.authorities.clear();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // It accepts and says nothing.
        let error = reach(&address, &facts).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 3 s");
        drop(listener);
        let error = format!("{:#}", reach(&address, &facts).await.unwrap_err());
        assert!(error.starts_with("connect: "), "{error}");
        for bad in ["", "no-port", ":1"] {
            assert!(reach(bad, &facts).await.is_err(), "{bad}");
        }
    }
}
