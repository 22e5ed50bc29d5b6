//! Nonces of the token exchange, without a table of them: what was issued is recognised by its MAC, what is old by its date.
//!
//! `time 8 ‖ random 8 ‖ mac 16`, the MAC a keyed BLAKE3 over what stands before it, cut to half. The key lives as long as the
//! process: a nonce from before a restart is refused, and the host asks for another. A nonce may be used again within its minute;
//! the request it is in then says the same again, and gets the same answer.

use protocol::time::UnixMillis;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How long a nonce is good, in milliseconds: a signature and one round trip over a slow link.
pub const NONCE_LIFE_MS: u64 = 60_000;

/// Bytes that the MAC covers.
const DATED_BYTES: usize = 16;

/// Makes nonces and knows them again.
pub struct Challenges {
    key: Zeroizing<[u8; 32]>,
}

/// Why a nonce is refused. Peers are told one thing for all of it: ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNonce {
    /// Not one of ours.
    #[error("the nonce is not of this broker, or from before its last start")]
    Foreign,
    /// Its minute is over.
    #[error("the nonce is too old")]
    Stale,
}

impl Challenges {
    /// Under a key from the system's generator.
    #[must_use]
    pub const fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self { key }
    }

    /// A nonce. `random` comes from the system's generator.
    #[must_use]
    pub fn issue(&self, now: UnixMillis, random: [u8; 8]) -> [u8; 32] {
        let mut nonce = [0; 32];
        let (dated, mac) = nonce.split_at_mut(DATED_BYTES);
        let source = now.0.to_be_bytes().into_iter().chain(random);
        dated
            .iter_mut()
            .zip(source)
            .for_each(|(to, from)| *to = from);
        mac.copy_from_slice(&self.mac(dated));
        nonce
    }

    /// Whether `nonce` is one of ours and still good: when it was given.
    ///
    /// # Errors
    /// [`BadNonce`].
    pub fn check(&self, nonce: &[u8; 32], now: UnixMillis) -> Result<UnixMillis, BadNonce> {
        let (dated, mac) = nonce.split_at(DATED_BYTES);
        if !bool::from(self.mac(dated).ct_eq(mac)) {
            return Err(BadNonce::Foreign);
        }
        let [a, b, c, d, e, f, g, h, ..] = *nonce;
        let issued_ms = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        // Our time never goes back, so a date to come is a bug or a trick: refused like an old one.
        if (issued_ms..issued_ms.saturating_add(NONCE_LIFE_MS)).contains(&now.0) {
            Ok(UnixMillis(issued_ms))
        } else {
            Err(BadNonce::Stale)
        }
    }

    fn mac(&self, dated: &[u8]) -> [u8; 16] {
        let whole = blake3::keyed_hash(&self.key, dated);
        let mut mac = [0; 16];
        mac.iter_mut()
            .zip(whole.as_bytes())
            .for_each(|(to, from)| *to = *from);
        mac
    }
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn challenges(byte: u8) -> Challenges {
        Challenges::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_nonce_is_good_for_its_minute_and_no_longer() {
        let challenges = challenges(1);
        let nonce = challenges.issue(NOW, [7; 8]);
        let at = |ms: u64| challenges.check(&nonce, UnixMillis(ms));
        assert_eq!(at(NOW.0), Ok(NOW));
        assert_eq!(
            at(NOW.0 + NONCE_LIFE_MS - 1),
            Ok(NOW),
            "and says when it was given"
        );
        assert_eq!(at(NOW.0 + NONCE_LIFE_MS), Err(BadNonce::Stale));
        assert_eq!(at(NOW.0 - 1), Err(BadNonce::Stale));
    }

    #[test]
    fn a_changed_or_foreign_nonce_is_refused() {
        let nonce = challenges(1).issue(NOW, [7; 8]);
        assert_eq!(
            challenges(2).check(&nonce, NOW),
            Err(BadNonce::Foreign),
            "another start"
        );
        for bit in 0..256 {
            let mut changed = nonce;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                challenges(1).check(&changed, NOW),
                Err(BadNonce::Foreign),
                "bit {bit}"
            );
        }
        assert_eq!(
            challenges(1).check(&[0; 32], UnixMillis(0)),
            Err(BadNonce::Foreign)
        );
    }

    #[test]
    fn two_nonces_of_one_moment_differ_by_their_random_part() {
        let challenges = challenges(1);
        assert_ne!(challenges.issue(NOW, [1; 8]), challenges.issue(NOW, [2; 8]));
    }
}
