//! Certificates as text and as bytes, and the dates in them.

use anyhow::Context as _;
use protocol::time::UnixMillis;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// How a certificate begins as text, and ends.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
    /// When it begins to count.
    pub(super) not_before: UnixMillis,
    /// When it ends.
    pub(super) not_after: UnixMillis,
}

impl Certificate {
    pub(super) fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).context("it is damaged (not PEM)")?;
        let (not_before, not_after) = life(&der)?;
        Ok(Self {
            pem: format!("{}\n", pem.trim()),
            der,
            not_before,
            not_after,
        })
    }
}

/// Every certificate in a text, in order; whatever stands between them is left out.
pub(super) fn certificates(text: &str) -> anyhow::Result<Vec<Certificate>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let (body, after) = begun
            .split_once(END)
            .context("a certificate in it is cut off")?;
        let one = Certificate::from_pem(&format!("{BEGIN}{body}{END}"));
        found.push(one.with_context(|| format!("read its certificate {}", found.len() + 1))?);
        rest = after;
    }
    Ok(found)
}

/// From when to when a certificate counts.
fn life(der: &CertificateDer<'_>) -> anyhow::Result<(UnixMillis, UnixMillis)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| anyhow::anyhow!("it is damaged (not X.509)"))?;
    let millis = |seconds: i64| UnixMillis(u64::try_from(seconds).unwrap_or(0) * 1000);
    let validity = parsed.validity();
    Ok((
        millis(validity.not_before.timestamp()),
        millis(validity.not_after.timestamp()),
    ))
}

/// Who signed a certificate, for a person.
pub(super) fn issuer_of(der: &CertificateDer<'_>) -> String {
    x509_parser::parse_x509_certificate(der).map_or_else(
        |_| "?".to_owned(),
        |(_, parsed)| parsed.issuer().to_string(),
    )
}

/// A date as people write it, in UTC, to the minute.
pub(super) fn date(time: UnixMillis) -> String {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    x509_parser::time::ASN1Time::from_timestamp(seconds)
        .map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}
