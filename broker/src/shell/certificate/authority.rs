//! The broker's own certificate authority, and those it had before.
//!
//! A rotation makes a new key and has the old one certify it. That cross certificate is sent behind the server's own, so a host that
//! knows only the old authority follows it to the new one, and a host that knows only the new one needs it not: neither a deadline
//! nor a fresh bundle, until the old authority ends.
//!
//! Files, below `keys/`: `ca.key` and `ca.crt`, the authority; `ca.past`, for each one before it, newest first, its successor's
//! cross certificate and its own (its key is gone); `ca.next`, a rotation under way, which the next start finishes.

use std::time::Duration;

use anyhow::{Context as _, bail};
use protocol::{id::hex, time::UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    server::ParsedCertificate,
};
use zeroize::Zeroizing;

use super::{
    BACKDATED, after, before,
    pem::{Certificate, certificates},
};
use crate::shell::keys::{
    DataDir, fill_random, read_secret, refuse_to_replace, remove, write_secret,
};

/// Life of an authority. Hosts keep it for as long as they keep their bundle.
pub(super) const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// It is followed by another when this much is left. Every host that is heard of in these two years learns of the new one; one that
/// is not has long lost its recovery window, of 90 days at the most, and needs a new bundle anyhow.
pub(super) const AUTHORITY_LEFT_MIN: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
/// Authorities before this one that are kept while they live. Each costs every handshake half a kilobyte.
pub(super) const PAST_MAX: usize = 4;

/// The authority, and what leads to it from those before.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Newest first.
    pub(super) past: Vec<Past>,
}

/// An authority that was followed by another.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// Its successor's key, under its signature.
    pub(super) cross: Certificate,
    /// Itself.
    pub(super) certificate: Certificate,
}

impl Authority {
    /// Reads the authority; makes it in a directory that was never used. A rotation that a crash broke off is finished.
    pub(super) fn open(directory: &DataDir, now: UnixMillis) -> anyhow::Result<Self> {
        if let Some(next) = read_secret(&directory.key("ca.next"))? {
            put_in_place(directory, &next)?;
        }
        let (key_path, certificate_path) = (directory.key("ca.key"), directory.key("ca.crt"));
        let (key, pem) = match (read_secret(&key_path)?, read_secret(&certificate_path)?) {
            (Some(key), Some(pem)) => (key, pem),
            (key, _) => {
                let missing = if key.is_none() {
                    &key_path
                } else {
                    &certificate_path
                };
                refuse_to_replace(directory, missing)?;
                let (key, pem) = make(now)?;
                write_secret(&key_path, key.as_bytes())?;
                write_secret(&certificate_path, pem.as_bytes())?;
                (key, Zeroizing::new(pem))
            }
        };
        let key =
            KeyPair::from_pem(&key).with_context(|| format!("read key {}", key_path.display()))?;
        let read = || format!("read certificate {}", certificate_path.display());
        let certificate = Certificate::from_pem(&pem).with_context(read)?;
        let parsed = ParsedCertificate::try_from(&certificate.der).with_context(read)?;
        if parsed.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            bail!(
                "{} and {} do not belong together: restore both from the same backup",
                key_path.display(),
                certificate_path.display()
            );
        }
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate.der, key).with_context(read)?,
            certificate,
            past: read_past(directory)?,
        })
    }

    /// Whether it is time for the next one.
    pub(super) fn is_ending(&self, now: UnixMillis) -> bool {
        self.certificate.not_after < now.plus(AUTHORITY_LEFT_MIN)
    }

    /// Makes the next authority, certified by this one; `record` hears of it before it is in force. Blocks on the disk. Whatever a
    /// crash leaves, the next start has the old one or the new one, whole.
    pub(super) fn rotate(
        &self,
        directory: &DataDir,
        now: UnixMillis,
        record: impl FnOnce(&CertificateDer<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .context("make the authority's next key")?;
        let mut params = params(now)?;
        let next = params.self_signed(&key).context("sign the authority")?;
        // Past its signer's end nobody may follow it.
        params.not_after = after(self.certificate.not_after, Duration::ZERO).into();
        params.use_authority_key_identifier_extension = true;
        let cross = params
            .signed_by(&key, &self.issuer)
            .context("certify the next authority")?;
        let key = Zeroizing::new(key.serialize_pem());
        let text = Zeroizing::new(
            [
                &key,
                next.pem().as_str(),
                &cross.pem(),
                &self.certificate.pem,
            ]
            .concat(),
        );
        record(next.der())?;
        // From here on it has happened.
        write_secret(&directory.key("ca.next"), text.as_bytes())?;
        put_in_place(directory, &text)?;
        Self::open(directory, now)
    }

    /// Forgets the authorities before this one: who trusts only them is not led here any more.
    pub(super) fn retire(&mut self, directory: &DataDir) -> anyhow::Result<usize> {
        remove(&directory.key("ca.past"))?;
        Ok(std::mem::take(&mut self.past).len())
    }

    /// What leads here from authorities before this one, as long as they live.
    pub(super) fn crosses(&self, now: UnixMillis) -> impl Iterator<Item = CertificateDer<'static>> {
        let live = self.past.iter().filter(move |past| past.is_live(now));
        live.map(|past| past.cross.der.clone())
    }
}

impl Past {
    pub(super) fn is_live(&self, now: UnixMillis) -> bool {
        now < self.certificate.not_after
    }
}

/// A key and its certificate, signed by itself.
fn make(now: UnixMillis) -> anyhow::Result<(Zeroizing<String>, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make the authority's key")?;
    let certificate = params(now)?
        .self_signed(&key)
        .context("sign the authority")?;
    Ok((Zeroizing::new(key.serialize_pem()), certificate.pem()))
}

fn params(now: UnixMillis) -> anyhow::Result<CertificateParams> {
    // Two authorities may stand in one trust store: their names tell them apart.
    let mut tag = [0; 4];
    fill_random(&mut tag)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Outhaul broker CA {}", hex(&tag)),
    );
    // No limit on the path: libraries that hold the root itself to one would refuse its successor's cross certificate.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = before(now, BACKDATED).into();
    params.not_after = after(now, AUTHORITY_LIFE).into();
    Ok(params)
}

/// Brings a rotation to its end: `next` is the key, the certificate, the cross certificate and the one before. Doing it twice is
/// doing it once.
fn put_in_place(directory: &DataDir, next: &str) -> anyhow::Result<()> {
    let path = directory.key("ca.next");
    let read = || format!("read {}", path.display());
    let found = certificates(next).with_context(read)?;
    let [certificate, cross, before] = found.as_slice() else {
        bail!(
            "{} is damaged: it does not hold three certificates",
            path.display()
        );
    };
    let key = next
        .split_inclusive("-----END PRIVATE KEY-----")
        .next()
        .filter(|key| rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).is_ok())
        .with_context(|| format!("{} is damaged: it holds no key", path.display()))?;
    let mut past = vec![Past {
        cross: cross.clone(),
        certificate: before.clone(),
    }];
    past.extend(
        read_past(directory)?
            .into_iter()
            .filter(|past| past.certificate != *before),
    );
    past.truncate(PAST_MAX);
    let text: String = past
        .iter()
        .flat_map(|past| [past.cross.pem.as_str(), &past.certificate.pem])
        .collect();
    write_secret(&directory.key("ca.past"), text.as_bytes())?;
    let key = Zeroizing::new(format!("{key}\n"));
    write_secret(&directory.key("ca.key"), key.as_bytes())?;
    write_secret(&directory.key("ca.crt"), certificate.pem.as_bytes())?;
    remove(&path)
}

fn read_past(directory: &DataDir) -> anyhow::Result<Vec<Past>> {
    let path = directory.key("ca.past");
    let Some(text) = read_secret(&path)? else {
        return Ok(Vec::new());
    };
    let found = certificates(&text).with_context(|| format!("read {}", path.display()))?;
    let pairs = found.chunks_exact(2).filter_map(|pair| match pair {
        [cross, certificate] => Some(Past {
            cross: cross.clone(),
            certificate: certificate.clone(),
        }),
        _ => None,
    });
    Ok(pairs.collect())
}
