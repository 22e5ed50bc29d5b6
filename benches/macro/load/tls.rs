//! How every client here makes TLS: version 1.3, one authority, nothing kept from one connection to the next.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Trusts `ca` alone, and speaks `alpn`.
pub(crate) fn client(ca: &Path, alpn: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).context("read the CA")? {
        roots.add(certificate.context("read the CA")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    // Each stands for a process of its own, which never spoke to this broker before.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
