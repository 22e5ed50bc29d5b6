//! The server certificate that the broker's own authority signs: a matter of this machine alone, signed anew when the names change
//! or its end is near.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use protocol::time::UnixMillis;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{BACKDATED, after, authority::Authority, before, pem::Certificate, provider};
use crate::shell::keys::{DataDir, read_secret, write_secret};

/// Life of a server certificate.
pub(super) const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// It is signed anew when this much is left: a broker that is started once a month never shows an old one.
pub(super) const SERVER_LEFT_MIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The server certificate with what leads from it to every authority that hosts may trust, and its key.
pub(super) fn load_or_issue(
    directory: &DataDir,
    authority: &Authority,
    names: &[String],
    now: UnixMillis,
) -> anyhow::Result<(Certificate, CertifiedKey)> {
    let (key, leaf) = match load(directory, authority, names, now)? {
        Some(found) => found,
        None => issue(directory, authority, names, now)?,
    };
    let chain = std::iter::once(leaf.der.clone())
        .chain(authority.crosses(now))
        .collect();
    let server = CertifiedKey::from_der(chain, key, &provider()).context("use the server's key")?;
    Ok((leaf, server))
}

fn issue(
    directory: &DataDir,
    authority: &Authority,
    names: &[String],
    now: UnixMillis,
) -> anyhow::Result<(PrivateKeyDer<'static>, Certificate)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make the server's key")?;
    let mut params = CertificateParams::new(names).context("name the server certificate")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Outhaul broker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = before(now, BACKDATED).into();
    params.not_after = after(now, SERVER_LIFE).into();
    let certificate = params
        .signed_by(&key, &authority.issuer)
        .context("sign the server certificate")?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    // Two files, not one step: after a crash between them they do not match, and both are made anew.
    write_secret(&directory.key("server.key"), key_pem.as_bytes())?;
    write_secret(&directory.key("server.crt"), certificate.pem().as_bytes())?;
    Ok((
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("read the server's key")?,
        Certificate::from_pem(&certificate.pem())?,
    ))
}

/// The server certificate on disk, if it is of this authority, covers `names`, fits its key, and lasts.
fn load(
    directory: &DataDir,
    authority: &Authority,
    names: &[String],
    now: UnixMillis,
) -> anyhow::Result<Option<(PrivateKeyDer<'static>, Certificate)>> {
    let (Some(key), Some(pem)) = (
        read_secret(&directory.key("server.key"))?,
        read_secret(&directory.key("server.crt"))?,
    ) else {
        return Ok(None);
    };
    let Ok(leaf) = Certificate::from_pem(&pem) else {
        return Ok(None);
    };
    let read = || PrivateKeyDer::from_pem_slice(key.as_bytes());
    let (Ok(key), Ok(tried)) = (read(), read()) else {
        return Ok(None);
    };
    let fits = CertifiedKey::from_der(vec![leaf.der.clone()], tried, &provider())
        .is_ok_and(|server| server.keys_match().is_ok());
    let is_good = fits && is_good(&authority.certificate.der, &leaf.der, names, now);
    Ok(is_good.then_some((key, leaf)))
}

fn is_good(
    authority: &CertificateDer<'static>,
    leaf: &CertificateDer<'_>,
    names: &[String],
    now: UnixMillis,
) -> bool {
    let roots = std::slice::from_ref(authority);
    let lasts = |time| verify(leaf, &[], roots, time).is_ok();
    lasts(now) && lasts(now.plus(SERVER_LEFT_MIN)) && names.iter().all(|name| covers(leaf, name))
}

/// Whether a certificate leads to one of `roots`, and everything between counts at `time`.
pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    time: UnixMillis,
) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider().signature_verification_algorithms.all;
    let time = UnixTime::since_unix_epoch(Duration::from_millis(time.0));
    verify_server_cert_signed_by_trust_anchor(&parsed, &Arc::new(store), between, time, algorithms)
}

/// Whether a certificate is for `name`.
pub(super) fn covers(leaf: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(leaf) else {
        return false;
    };
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
}
