//! What stands in a rewritten segment for records that were removed: one marker for each run of offsets, so that every offset is
//! either a record or known to be gone, and why.
//!
//! A marker is framed as a record is, with the kind 5, the first offset and the first time of its run, and the host if all of the run
//! were of one. Its payload, little-endian:
//!
//! ```text
//! first offset after the run u64 | last time u64 | for each cause: label u8 | records u64 | bytes u64
//! ```

use super::{BODY_HEAD_BYTES, FRAME_HEAD_BYTES, Fields, ID_BYTES_MAX, is_id};
use protocol::hole::{Cause, Causes};

/// The kind that a marker has in the place of a record's.
pub(super) const KIND: u8 = 5;
/// Causes for which anybody removes anything.
pub const CAUSES: [Cause; 4] = [Cause::Age, Cause::Bytes, Cause::Host, Cause::Purge];
/// What a marker says of one cause.
const COUNT_BYTES: usize = 17;

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Their bytes, frames and all.
    pub bytes: u64,
}

impl Count {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.records = self.records.saturating_add(other.records);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A run of offsets that were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The first offset of it.
    pub from: u64,
    /// The first offset after it.
    pub to: u64,
    /// When its first record was accepted, milliseconds since 1970.
    pub first_ms: u64,
    /// When its last record was.
    pub last_ms: u64,
    /// The host, if all of it was of one.
    pub host: Option<String>,
    /// What was removed, in the order of [`CAUSES`]. Together no more records than the run has offsets: where it has fewer, the
    /// others were damaged before.
    pub counts: [Count; CAUSES.len()],
}

impl Removed {
    /// One record.
    #[must_use]
    pub fn one(offset: u64, time_ms: u64, host: &str, bytes: u64, cause: Cause) -> Self {
        let mut removed = Self {
            from: offset,
            to: offset.saturating_add(1),
            first_ms: time_ms,
            last_ms: time_ms,
            host: Some(host.to_owned()),
            counts: Default::default(),
        };
        removed.count(cause, Count { records: 1, bytes });
        removed
    }

    /// Counts more of it. A cause for which nothing is removed counts for nothing.
    pub fn count(&mut self, cause: Cause, more: Count) {
        let place = CAUSES.iter().position(|known| *known == cause);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            count.add(more);
        }
    }

    /// What follows it joins it.
    pub fn join(&mut self, next: &Self) {
        if self.host != next.host {
            self.host = None;
        }
        self.to = self.to.max(next.to);
        self.first_ms = self.first_ms.min(next.first_ms);
        self.last_ms = self.last_ms.max(next.last_ms);
        for (count, more) in self.counts.iter_mut().zip(&next.counts) {
            count.add(*more);
        }
    }

    /// Why.
    #[must_use]
    pub fn causes(&self) -> Causes {
        let counted = CAUSES.iter().zip(&self.counts);
        let causes = counted
            .filter(|(_, count)| count.records > 0)
            .fold(Causes::UNKNOWN, |causes, (cause, _)| causes.with(*cause));
        if self.records() < self.to - self.from {
            causes.with(Cause::Damage)
        } else {
            causes
        }
    }

    fn records(&self) -> u64 {
        self.counts.iter().map(|count| count.records).sum()
    }

    /// Appends it as a frame, sealed.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let host = self.host.as_deref().filter(|host| is_id(host));
        let host = host.unwrap_or_default();
        let counted = CAUSES.iter().zip(&self.counts);
        let counted: Vec<_> = counted.filter(|(_, count)| count.records > 0).collect();
        let body_bytes = BODY_HEAD_BYTES + host.len() + 16 + COUNT_BYTES * counted.len();
        // None of these casts cuts: an id has 64 bytes, and there are four causes.
        let body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        let host_bytes = u8::try_from(host.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&body_bytes.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.first_ms.to_le_bytes());
        out.extend_from_slice(&[KIND, host_bytes, 0, 0]);
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(&self.to.to_le_bytes());
        out.extend_from_slice(&self.last_ms.to_le_bytes());
        for (cause, count) in counted {
            out.push(u8::try_from(cause.label()).unwrap_or_default());
            out.extend_from_slice(&count.records.to_le_bytes());
            out.extend_from_slice(&count.bytes.to_le_bytes());
        }
        super::seal_frame(out.get_mut(start..).unwrap_or_default());
    }

    /// Reads the body of one, whose checksum holds.
    pub(super) fn decode_body(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let from = u64::from_le_bytes(fields.take()?);
        let first_ms = u64::from_le_bytes(fields.take()?);
        let [KIND, host_bytes, 0, 0] = fields.take::<4>()? else {
            return None;
        };
        let (host, rest) = fields.0.split_at_checked(usize::from(host_bytes))?;
        let host = std::str::from_utf8(host).ok()?;
        fields = Fields(rest);
        let mut removed = Self {
            from,
            to: u64::from_le_bytes(fields.take()?),
            first_ms,
            last_ms: u64::from_le_bytes(fields.take()?),
            host: (!host.is_empty()).then(|| host.to_owned()),
            counts: Default::default(),
        };
        let mut place = 0;
        while !fields.0.is_empty() {
            let [label] = fields.take::<1>()?;
            let records = u64::from_le_bytes(fields.take()?);
            let bytes = u64::from_le_bytes(fields.take()?);
            let cause = CAUSES
                .iter()
                .skip(place)
                .position(|cause| cause.label() == u64::from(label))?;
            place += cause;
            *removed.counts.get_mut(place)? = Count { records, bytes };
            place += 1;
        }
        let is_sound = removed.to > from
            && host.len() <= ID_BYTES_MAX
            && (host.is_empty() || is_id(host))
            && removed
                .counts
                .iter()
                .try_fold(0_u64, |sum, count| sum.checked_add(count.records))
                .is_some_and(|records| records <= removed.to - from);
        is_sound.then_some(removed)
    }
}

/// The longest marker, in bytes.
pub const MARKER_BYTES_MAX: usize =
    FRAME_HEAD_BYTES + BODY_HEAD_BYTES + ID_BYTES_MAX + 16 + COUNT_BYTES * CAUSES.len();

#[cfg(test)]
mod tests {
    use super::super::{DecodeError, Frame, decode, decode_frame};
    use super::*;
    use proptest::prelude::*;

    fn marker(removed: &Removed) -> Vec<u8> {
        let mut bytes = Vec::new();
        removed.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_marker_reads_back_as_it_was_written_and_is_no_record(
            from in 0..u64::MAX / 2, length in 1..u64::MAX / 2, first_ms: u64, last_ms: u64,
            host in proptest::option::of("[a-z0-9-]{1,64}"), records in proptest::array::uniform4(0..u64::MAX / 10),
        ) {
            let mut removed = Removed { from, to: from + length, first_ms, last_ms, host, counts: Default::default() };
            let mut left = length;
            for (cause, records) in CAUSES.iter().zip(records) {
                let records = records.min(left);
                left -= records;
                // Bytes of no records are not written down.
                removed.count(*cause, Count { records, bytes: if records > 0 { 7 } else { 0 } });
            }
            let bytes = marker(&removed);
            prop_assert!(bytes.len() <= MARKER_BYTES_MAX);
            prop_assert_eq!(decode_frame(&bytes), Ok((Frame::Removed(removed.clone()), bytes.len())));
            prop_assert_eq!(decode(&bytes), Err(DecodeError::Content));
            prop_assert_eq!(removed.causes().contains(Cause::Damage), left > 0);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_marker_is_noticed() {
        let bytes = marker(&Removed::one(4, 5, "edge-1", 6, Cause::Age));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode_frame(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn runs_join_and_say_what_is_true_of_both() {
        let mut run = Removed::one(4, 50, "edge-1", 6, Cause::Host);
        run.join(&Removed::one(5, 60, "edge-1", 7, Cause::Host));
        assert_eq!(run.host.as_deref(), Some("edge-1"));
        run.join(&Removed::one(6, 40, "edge-2", 8, Cause::Age));
        assert_eq!(
            (run.from, run.to, run.first_ms, run.last_ms),
            (4, 7, 40, 60)
        );
        assert_eq!(run.host, None);
        assert_eq!(run.causes(), Causes::from(Cause::Age).with(Cause::Host));
        let counts = [
            Count {
                records: 1,
                bytes: 8,
            },
            Count::default(),
            Count {
                records: 2,
                bytes: 13,
            },
            Count::default(),
        ];
        assert_eq!(run.counts, counts);
        run.to = 9;
        assert!(
            run.causes().contains(Cause::Damage),
            "two that nobody removed"
        );
    }

    #[test]
    fn the_bytes_of_a_marker_do_not_change() {
        let bytes = marker(&Removed::one(4, 5, "h", 6, Cause::Bytes));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            hex.ends_with(
                "36000000040000000000000005000000000000000501000068050000000000000005000000000000000201000000000000000600000000000000"
            ),
            "{hex}"
        );
    }
}
