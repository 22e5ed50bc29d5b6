//! When the audit trail's state is signed anew.

/// The longest that a row may wait for a checkpoint that covers it, in milliseconds: a minute of the trail is what its key's holder
/// could take back unseen, besides what a witness or a saved checkpoint holds.
pub const CHECKPOINT_WAIT_MS: u64 = 60_000;

/// The most rows that wait for a checkpoint, whatever the time.
pub const CHECKPOINT_ROWS: u64 = 256;

/// How long every checkpoint is kept, in milliseconds; of older days the last one stays, and those at which a key changed.
pub const CHECKPOINTS_KEPT_MS: u64 = 7 * 86_400_000;

/// Whether a trail of `rows` rows is to be signed at `now_ms`. `last` is the newest checkpoint: its rows, and when it was signed.
#[must_use]
pub fn is_due(last: Option<(u64, u64)>, rows: u64, now_ms: u64) -> bool {
    let Some((covered, signed_ms)) = last else {
        return true;
    };
    // Fewer rows than were signed is a fault, which whoever signs will find.
    let waiting = rows.abs_diff(covered);
    waiting >= CHECKPOINT_ROWS
        || (waiting > 0 && now_ms.saturating_sub(signed_ms) >= CHECKPOINT_WAIT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_due_for_many_rows_or_after_a_minute_and_never_for_none() {
        let minute = CHECKPOINT_WAIT_MS;
        for (last, rows, now, due) in [
            (None, 0, 0, true),
            (Some((5, 0)), 5, 10 * minute, false),
            (Some((5, 0)), 6, minute - 1, false),
            (Some((5, 0)), 6, minute, true),
            (Some((5, 0)), 5 + CHECKPOINT_ROWS, 0, true),
            (Some((5, minute)), 6, 0, false),
            (Some((5, 0)), 4, minute, true),
        ] {
            assert_eq!(is_due(last, rows, now), due, "{last:?} {rows} {now}");
        }
    }
}
