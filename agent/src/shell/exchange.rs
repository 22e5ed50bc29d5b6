//! The token exchange over HTTPS: one connection, one question, one answer.
//!
//! HTTP/1.1 on the broker's one port, told apart from MQTT by ALPN. Every answer is bounded in bytes and every question in time;
//! when to ask again is decided in `core`.

mod stream;

use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use protocol::cbor;
use protocol::exchange::{self, Challenge, Grant, Refusal, Refused};
use protocol::limits::EXCHANGE_BYTES_MAX;
use protocol::time::UnixMillis;

use super::tls::Tls;
use super::tokio::spawn;
use super::transport::{DIAL_WAIT_MAX, Proxy, dial, within};

/// How long a question may take in all, dialling included.
pub const ASK_WAIT_MAX: Duration = Duration::from_secs(20);

/// The ALPN of HTTPS on the broker's port.
pub const ALPN: &[u8] = b"http/1.1";

/// Where and how to ask.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    /// The broker, `host:port`.
    pub authority: String,
    /// The proxy to go through, if any.
    pub proxy: Option<Proxy>,
    /// With [`ALPN`].
    pub tls: Tls,
}

/// Why there is no answer to act on.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The broker said no, and what time it is there.
    #[error("the broker refused: {reason}")]
    Refused {
        /// Why.
        reason: Refusal,
        /// Its time.
        time: UnixMillis,
        /// How far it knows this host's keys, if it asks how they went on.
        known: Option<u64>,
    },
    /// Anything else: no connection, no HTTP, not one of our messages.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Asks for a challenge.
///
/// # Errors
/// [`ExchangeError`], at the latest after [`ASK_WAIT_MAX`].
pub async fn challenge(options: &ExchangeOptions) -> Result<Challenge, ExchangeError> {
    let body = ask(options, exchange::CHALLENGE_PATH, Vec::new()).await?;
    decode(&body).map_err(ExchangeError::Failed)
}

/// Asks for a token with a signed [`exchange::Request`].
///
/// # Errors
/// [`ExchangeError`], at the latest after [`ASK_WAIT_MAX`].
pub async fn redeem(options: &ExchangeOptions, request: Vec<u8>) -> Result<Grant, ExchangeError> {
    let body = ask(options, exchange::EXCHANGE_PATH, request).await?;
    decode(&body).map_err(ExchangeError::Failed)
}

async fn ask(
    options: &ExchangeOptions,
    path: &str,
    request: Vec<u8>,
) -> Result<Bytes, ExchangeError> {
    let authority = &options.authority;
    let (status, body) = within(ASK_WAIT_MAX, post(options, path, request))
        .await
        .with_context(|| {
            format!(
                "ask {authority}: no answer within {} s",
                ASK_WAIT_MAX.as_secs()
            )
        })??;
    if status.is_success() {
        return Ok(body);
    }
    match cbor::from_slice::<Refused>(&body, EXCHANGE_BYTES_MAX) {
        Ok(Refused {
            reason,
            time,
            generation: known,
        }) => Err(ExchangeError::Refused {
            reason,
            time,
            known,
        }),
        Err(_) => Err(ExchangeError::Failed(anyhow::anyhow!(
            "ask {authority}: it answered with HTTP status {}",
            status.as_u16()
        ))),
    }
}

async fn post(
    options: &ExchangeOptions,
    path: &str,
    request: Vec<u8>,
) -> anyhow::Result<(hyper::StatusCode, Bytes)> {
    let authority = &options.authority;
    // Its text has the whole chain in it already.
    let tls = dial(
        authority,
        options.proxy.as_ref(),
        &options.tls,
        DIAL_WAIT_MAX,
    )
    .await
    .map_err(|error| anyhow::anyhow!("{error}"))?;
    let describe = || format!("speak HTTP to {authority}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream::Stream::new(tls))
        .await
        .with_context(describe)?;
    // Ends with this question: a dropped task is a closed connection.
    let _driver = spawn(connection);
    let request = hyper::Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, exchange::CONTENT_TYPE)
        .body(Full::new(Bytes::from(request)))
        .with_context(describe)?;
    let answer = sender.send_request(request).await.with_context(describe)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), EXCHANGE_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| anyhow::anyhow!("ask {authority}: its answer broke off or is too long"))?;
    Ok((status, body.to_bytes()))
}

fn decode<T>(body: &[u8]) -> anyhow::Result<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    cbor::from_slice(body, EXCHANGE_BYTES_MAX).context("read the broker's answer")
}

#[cfg(test)]
mod tests;
