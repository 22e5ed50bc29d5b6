//! Certificates that someone else issues: files, read and judged whole. Each thing that may be wrong with them has one sentence.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    limits::{AUTHORITIES_BYTES_MAX, AUTHORITIES_MAX},
    time::UnixMillis,
};
use rustls::{
    CertificateError, Error as TlsError,
    client::verify_server_name,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::{
    pem::{Certificate, certificates, date, issuer_of},
    provider,
    server::verify,
};

/// The longest file, in bytes: a chain of a few RSA certificates.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Authorities in the owner's file: with the broker's own and those before it they fit a grant.
const FILE_AUTHORITIES_MAX: usize = AUTHORITIES_MAX / 2;
/// Their bytes together, in the same way.
const FILE_AUTHORITIES_BYTES_MAX: usize = AUTHORITIES_BYTES_MAX - 1024;

/// What the owner brings. Nothing: the broker is its own authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and its key.
    pub server: Option<ServerFiles>,
    /// The authorities that hosts are to trust; with no server certificate, beside the broker's own.
    pub authority: Option<PathBuf>,
}

/// The server's certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// PEM: the server's own, then what leads to the authority.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// A server certificate from files that holds what it must.
#[derive(Debug)]
pub(super) struct FromFiles {
    pub(super) leaf: Certificate,
    pub(super) server: CertifiedKey,
    /// When the authority ends that it leads to; of several, the last.
    pub(super) authority_not_after: UnixMillis,
}

/// Reads and judges the server's certificate.
pub(super) fn load(
    files: &ServerFiles,
    authority_path: &Path,
    authorities: &[Certificate],
    public_name: &str,
    now: UnixMillis,
) -> anyhow::Result<FromFiles> {
    let path = files.certificate.display();
    let chain = read_certificates(&files.certificate, "certificate")?;
    let (leaf, between) = chain
        .split_first()
        .with_context(|| format!("tls.certificate {path} holds no certificate"))?;
    let between: Vec<CertificateDer<'_>> = between.iter().map(|one| one.der.clone()).collect();
    let key = read_key(&files.key)?;
    let all = chain.iter().map(|one| one.der.clone()).collect();
    let server = CertifiedKey::from_der(all, key, &provider()).with_context(|| {
        format!(
            "tls.key {} does not belong to the certificate in {path}, or is of a kind that cannot be used",
            files.key.display()
        )
    })?;
    ensure!(
        server.keys_match().is_ok(),
        "tls.key {} does not belong to the certificate in {path}",
        files.key.display()
    );
    check_dates(
        leaf,
        &format!("the certificate in tls.certificate {path}"),
        now,
    )?;
    check_name(leaf, &path.to_string(), public_name)?;
    let led_to = |authority: &&Certificate| {
        let roots = std::slice::from_ref(&authority.der);
        verify(&leaf.der, &between, roots, now).is_ok()
    };
    let ends = authorities.iter().filter(led_to).map(|one| one.not_after);
    let Some(authority_not_after) = ends.max() else {
        let roots: Vec<_> = authorities.iter().map(|one| one.der.clone()).collect();
        let why = verify(&leaf.der, &between, &roots, now).err();
        bail!("{}", unled(leaf, &path.to_string(), authority_path, why));
    };
    Ok(FromFiles {
        leaf: leaf.clone(),
        server,
        authority_not_after,
    })
}

/// Reads and judges the authorities of the owner's file.
pub(super) fn load_authorities(path: &Path, now: UnixMillis) -> anyhow::Result<Vec<Certificate>> {
    let found = read_certificates(path, "authority")?;
    let shown = path.display();
    ensure!(
        !found.is_empty(),
        "tls.authority {shown} holds no certificate"
    );
    let bytes: usize = found.iter().map(|one| one.der.len()).sum();
    ensure!(
        found.len() <= FILE_AUTHORITIES_MAX && bytes <= FILE_AUTHORITIES_BYTES_MAX,
        "tls.authority {shown} holds {} certificates of {bytes} bytes in all; hosts are told of {FILE_AUTHORITIES_MAX} and \
         {FILE_AUTHORITIES_BYTES_MAX} at the most: name your own authority, not a whole trust store",
        found.len()
    );
    for one in &found {
        check_dates(one, &format!("an authority in tls.authority {shown}"), now)?;
        rustls::RootCertStore::empty()
            .add(one.der.clone())
            .with_context(|| format!("tls.authority {shown} holds what is no authority"))?;
    }
    Ok(found)
}

fn check_dates(one: &Certificate, what: &str, now: UnixMillis) -> anyhow::Result<()> {
    ensure!(
        now <= one.not_after,
        "{what} ended on {}: have it issued anew",
        date(one.not_after)
    );
    ensure!(
        now >= one.not_before,
        "{what} counts from {} only, and here it is {}: is this machine's clock right?",
        date(one.not_before),
        date(now)
    );
    Ok(())
}

/// Whether a certificate is for this name.
pub(super) fn covers(leaf: &Certificate, name: &str) -> bool {
    check_name(leaf, "", name).is_ok()
}

fn check_name(leaf: &Certificate, path: &str, public_name: &str) -> anyhow::Result<()> {
    let describe = || format!("tls.certificate {path} holds what is no server certificate");
    let parsed = ParsedCertificate::try_from(&leaf.der).with_context(describe)?;
    let name = ServerName::try_from(public_name).context("read public_address")?;
    match verify_server_name(&parsed, &name) {
        Ok(()) => Ok(()),
        Err(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) => {
            // As the library shows them: DnsName("a.example").
            let names: Vec<_> = presented.iter().map(|name| name.replace('"', "")).collect();
            bail!(
                "the certificate in tls.certificate {path} does not cover public_address, {public_name}: it is for {}",
                if names.is_empty() {
                    "no name".to_owned()
                } else {
                    names.join(", ")
                }
            )
        }
        Err(_) => bail!(
            "the certificate in tls.certificate {path} does not cover public_address, {public_name}"
        ),
    }
}

/// Why a certificate leads to no authority.
fn unled(leaf: &Certificate, path: &str, authority: &Path, why: Option<TlsError>) -> String {
    let said = format!(
        "the certificate in tls.certificate {path} does not lead to an authority in tls.authority {}",
        authority.display()
    );
    match why {
        // A bad signature is an authority of the same name with another key.
        Some(TlsError::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ))
        | None => format!(
            "{said}: it was issued by {}; put the certificates between them behind it, or that authority into the other file",
            issuer_of(&leaf.der)
        ),
        Some(other) => format!("{said}: {other}"),
    }
}

fn read_certificates(path: &Path, setting: &str) -> anyhow::Result<Vec<Certificate>> {
    let describe = || format!("read tls.{setting} {}", path.display());
    let text = File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(read)
        .with_context(describe)?;
    certificates(&text).with_context(describe)
}

/// A key that only its owner reads; or, since that is how machines hand keys to one service among many, that root owns and our group
/// reads.
fn read_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let shown = path.display();
    let describe = || format!("read tls.key {shown}");
    let file = File::open(path).with_context(describe)?;
    // Of the open file, not of the path, which may be another's by now.
    let metadata = file.metadata().with_context(describe)?;
    let mode = metadata.mode() & 0o777;
    let closed = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    ensure!(
        mode & closed == 0,
        "others may read tls.key {shown} (mode {mode:03o}): run `chmod 600 {shown}`; if others may have read it, have the \
         certificate issued anew, with another key"
    );
    let text = read(file).with_context(describe)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes())
        .with_context(|| format!("tls.key {shown} holds no private key without a password (PEM)"))
}

fn read(file: File) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "longer than {FILE_BYTES_MAX} bytes"
    );
    Ok(text)
}
