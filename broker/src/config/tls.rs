//! Settings of `[tls]`: certificates that someone else issues.

use std::path::PathBuf;

use anyhow::bail;
use serde::Deserialize;

use crate::shell::certificate::{ServerFiles, TlsFiles};

/// `[tls]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTls {
    /// The server's certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The authorities that hosts are to trust, PEM.
    pub authority: Option<PathBuf>,
}

impl RawTls {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            certificate: self.certificate.or(below.certificate),
            key: self.key.or(below.key),
            authority: self.authority.or(below.authority),
        }
    }
}

impl TryFrom<RawTls> for TlsFiles {
    type Error = anyhow::Error;

    fn try_from(raw: RawTls) -> anyhow::Result<Self> {
        let server = match (raw.certificate, raw.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(ServerFiles { certificate, key }),
            (Some(_), None) => {
                bail!("tls.certificate is set and tls.key is not: name the certificate's key")
            }
            (None, Some(_)) => {
                bail!("tls.key is set and tls.certificate is not: name the key's certificate")
            }
        };
        if server.is_some() && raw.authority.is_none() {
            bail!(
                "tls.certificate is set and tls.authority is not: name the authority that bundles shall carry; the \
                 system's trust store is not used"
            );
        }
        Ok(Self {
            server,
            authority: raw.authority,
        })
    }
}
