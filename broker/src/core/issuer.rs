//! The broker's issuer keys: the one that signs tokens, and those before it whose tokens may not have ended.

use std::time::Duration;

use protocol::{
    key::{Issuer, Public},
    limits::{HOST_TOKEN_LIFE_S_MAX, LEEWAY_S},
    time::UnixMillis,
};

/// Keys before the current one whose tokens are accepted. More than one an hour, for a day, is somebody's mistake.
pub const PAST_MAX: usize = 24;

/// A key that was followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The key.
    pub key: Public<Issuer>,
    /// Until when its tokens are accepted.
    pub until: UnixMillis,
}

/// Until when the tokens of a key are accepted that signs its last one at `now`: the longest a token lives, and the leeway of its date.
#[must_use]
pub fn overlap(now: UnixMillis) -> UnixMillis {
    now.plus(Duration::from_secs(HOST_TOKEN_LIFE_S_MAX + LEEWAY_S))
}

/// The keys before the next one, when `old` is followed at `now`; none in an emergency, when no token that is out there may count. `None`:
/// there are too many already.
#[must_use]
pub fn after_rotation(
    past: &[Past],
    old: Public<Issuer>,
    is_void: bool,
    now: UnixMillis,
) -> Option<Vec<Past>> {
    if is_void {
        return Some(Vec::new());
    }
    let mut kept: Vec<Past> = past
        .iter()
        .filter(|one| one.until >= now)
        .copied()
        .collect();
    kept.push(Past {
        key: old,
        until: overlap(now),
    });
    (kept.len() <= PAST_MAX).then_some(kept)
}

/// The keys whose tokens are accepted at `now`, the current one first.
pub fn accepted(
    current: Public<Issuer>,
    past: &[Past],
    now: UnixMillis,
) -> impl Iterator<Item = Public<Issuer>> {
    let past = past.iter().filter(move |one| one.until >= now);
    [current].into_iter().chain(past.map(|one| one.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::key::Secret;
    use zeroize::Zeroizing;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const LIFE: Duration = Duration::from_secs(3660);

    fn key(byte: u8) -> Public<Issuer> {
        Secret::from_seed(&Zeroizing::new([byte; 32])).public()
    }

    #[test]
    fn an_old_keys_tokens_are_accepted_until_the_last_of_them_has_ended_and_not_after() {
        let past = after_rotation(&[], key(1), false, NOW).unwrap();
        let at = |now| accepted(key(2), &past, now).collect::<Vec<_>>();
        assert_eq!(at(NOW.plus(LIFE)), [key(2), key(1)]);
        let after = NOW.plus(LIFE).plus(Duration::from_millis(1));
        assert_eq!(at(after), [key(2)]);
        // The next rotation forgets it.
        let next = after_rotation(&past, key(2), false, after).unwrap();
        assert_eq!(next.len(), 1);
        let soon = after_rotation(&past, key(2), false, NOW).unwrap();
        let all: Vec<_> = accepted(key(3), &soon, NOW).collect();
        assert_eq!(all, [key(3), key(1), key(2)]);
    }

    #[test]
    fn in_an_emergency_no_older_key_counts_and_too_many_rotations_are_refused() {
        let mut past = Vec::new();
        for byte in 0..u8::try_from(PAST_MAX).unwrap() {
            past = after_rotation(&past, key(byte), false, NOW).unwrap();
        }
        assert_eq!(after_rotation(&past, key(99), false, NOW), None);
        assert_eq!(after_rotation(&past, key(99), true, NOW), Some(vec![]));
    }
}
