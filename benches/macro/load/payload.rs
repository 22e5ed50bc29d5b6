//! What is published: true batches of one event each, signed and chained, sealed before the clock starts.

use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::Secret,
    stream::{Writer, stream_id},
};
use zeroize::Zeroizing;

use super::clock;

/// The size that payloads are made to have, in bytes. Heads grow by a byte here and there as their numbers do.
pub(crate) const PAYLOAD_BYTES: usize = 256;
/// The batch whose payload has exactly that size.
const SIZED_BATCH: usize = 300;

/// Payloads, one behind the other.
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Seals `count` batches of the sandbox's stream.
    pub(crate) fn seal(
        host: &HostId,
        sandbox: &SandboxId,
        seed: &Zeroizing<[u8; 32]>,
        count: usize,
    ) -> Self {
        let writer = || Writer::new(Secret::from_seed(seed), stream_id(host, sandbox), [1; 8]);
        let mut probe = Self::of(writer(), SIZED_BATCH + 1, 0);
        let least = probe.get(SIZED_BATCH).map_or(0, <[u8]>::len);
        probe = Self::of(writer(), count, PAYLOAD_BYTES.saturating_sub(least));
        probe
    }

    fn of(mut writer: Writer, count: usize, data_bytes: usize) -> Self {
        let data = vec![b'x'; data_bytes];
        let time = clock::unix();
        let mut bytes = Vec::with_capacity(count * (PAYLOAD_BYTES + 8));
        let mut ends = Vec::with_capacity(count);
        for _ in 0..count {
            let is_room = writer.push(&Event {
                time,
                kind: Kind::Stdout,
                flags: 0,
                size: data.len() as u64,
                value: 0,
                data: &data,
            });
            debug_assert!(is_room, "an empty batch has room for an event");
            bytes.extend_from_slice(&writer.seal(time, false));
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(crate) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }
}
