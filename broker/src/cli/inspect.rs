//! `outhaul inspect`: any message, token or key in readable form, with what of it verifies and what does not. Offline.

mod finding;
mod given;
mod message;
mod text;
mod token;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use self::{finding::Inspection, given::GivenKey};
use super::Context;
use crate::shell::clock;

/// The longest input, in bytes: the hexadecimal digits of a packet, with white space between them.
const INPUT_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// A public key to verify with (ohi1_… issuer, ohd1_… dispatcher, ohh1_… host, ohs1_… sandbox); may be repeated
    #[arg(long, value_name = "KEY")]
    key: Vec<GivenKey>,
    /// The message as it travelled, or its hexadecimal digits; `-` reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn execute(context: &Context, args: &InspectArgs) -> anyhow::Result<u8> {
    let bytes = read(&args.file).with_context(|| format!("read {}", args.file.display()))?;
    let bytes = unhex(&bytes).unwrap_or(bytes);
    let keys = given::Keys::of(&args.key);
    let found = inspect(&bytes, &keys, clock::unix()).with_context(|| {
        format!(
            "inspect {}: nothing that Outhaul signs, grants or keeps",
            args.file.display()
        )
    })?;
    if context.output.is_json() {
        context.output.json(&found.to_json())?;
    } else {
        context.output.text(&found.to_text())?;
    }
    Ok(u8::from(found.has_failed()))
}

/// What `bytes` are; nothing if they are nothing of ours.
fn inspect(
    bytes: &[u8],
    keys: &given::Keys,
    now: protocol::time::UnixMillis,
) -> Option<Inspection> {
    text::inspect(bytes)
        .or_else(|| token::inspect(bytes, keys, now))
        .or_else(|| message::inspect(bytes, keys, now))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let source: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut bytes = Vec::new();
    source
        .take(INPUT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() <= INPUT_BYTES_MAX,
        "longer than any message: for an exported stream there is `outhaul verify-stream`"
    );
    Ok(bytes)
}

/// The bytes that hexadecimal digits stand for, white space between them ignored; nothing if there is anything else.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            protocol::id::unhex::<1>(pair).map(|[byte]| byte)
        })
        .collect()
}

#[cfg(test)]
mod tests;
