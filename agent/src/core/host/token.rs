//! What the session knows of a token: its life, not its bytes.

use std::time::Duration;

use protocol::time::UnixMillis;

use crate::core::pace::up_to;

/// A token that ends sooner than this is not presented: it could end on the way.
const PRESENT_MARGIN: Duration = Duration::from_secs(5);

/// A connection token's life, in the broker's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Tells tokens apart.
    pub serial: u64,
    /// When it ends.
    pub expires: UnixMillis,
    /// When to fetch the next: between 50 and 75 % of its life, so that hosts enrolled together do not renew together.
    pub renew_at: UnixMillis,
    /// Granted to this process, and not accepted on a link yet.
    pub is_fresh: bool,
}

impl Token {
    /// A token of this life, to be renewed at a point drawn by `random`.
    #[must_use]
    pub fn new(serial: u64, issued: UnixMillis, expires: UnixMillis, random: u64) -> Self {
        let life = expires.since(issued);
        let renew_after = life / 2 + up_to(life / 4, random);
        Self {
            serial,
            expires,
            renew_at: issued.plus(renew_after),
            is_fresh: true,
        }
    }

    /// The same, found on disk.
    #[must_use]
    pub fn found(self) -> Self {
        Self {
            is_fresh: false,
            ..self
        }
    }

    /// Whether it is time for the next one.
    #[must_use]
    pub fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.renew_at
    }

    /// Whether it may be presented: nobody presents a token that is known to be expired.
    #[must_use]
    pub fn is_presentable(&self, now: UnixMillis) -> bool {
        now.plus(PRESENT_MARGIN) < self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_falls_between_half_and_three_quarters_of_life() {
        let (issued, expires) = (UnixMillis(1_000_000), UnixMillis(1_000_000 + 3_600_000));
        for random in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
            let token = Token::new(1, issued, expires, random);
            let share = token.renew_at.since(issued).as_secs_f64() / 3600.0;
            assert!((0.5..0.75).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_token_about_to_end_is_not_presented() {
        let token = Token::new(1, UnixMillis(0), UnixMillis(60_000), 0);
        assert!(token.is_presentable(UnixMillis(54_999)));
        assert!(!token.is_presentable(UnixMillis(55_000)));
        let backwards = Token::new(1, UnixMillis(9), UnixMillis(3), u64::MAX);
        assert!(!backwards.is_presentable(UnixMillis(9)) && backwards.is_due(UnixMillis(9)));
    }
}
