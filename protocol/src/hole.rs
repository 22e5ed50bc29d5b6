//! Why records are not there any more: the payload of a lost record (`SPEC.md`, chapter 10). The broker's own word, signed by nobody.

use crate::cbor::head;

int_word! {
    /// One cause.
    pub enum Cause {
        /// The broker's disk lost them: they cannot be read.
        0 => Damage = "damage",
        /// They were older than its owner keeps.
        1 => Age = "age",
        /// All hosts together had more than its owner keeps.
        2 => Bytes = "bytes",
        /// Their host had more than its owner keeps of one.
        3 => Host = "host",
        /// Its owner had them purged.
        4 => Purge = "purge",
    }
}

/// Some causes, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes(u8);

impl Causes {
    /// None: it is not known.
    pub const UNKNOWN: Self = Self(0);

    /// These, and this one.
    #[must_use]
    pub const fn with(self, cause: Cause) -> Self {
        Self(self.0 | 1 << cause.label())
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, cause: Cause) -> bool {
        self.0 & 1 << cause.label() != 0
    }

    /// Each, in the order of their labels.
    pub fn iter(self) -> impl Iterator<Item = Cause> {
        let all = Cause::ALL.iter().copied();
        all.filter(move |cause| self.contains(*cause))
    }

    /// Whether the owner's will removed them all: nothing was lost.
    #[must_use]
    pub fn is_willed(self) -> bool {
        self != Self::UNKNOWN && !self.contains(Cause::Damage)
    }
}

impl From<Cause> for Causes {
    fn from(cause: Cause) -> Self {
        Self::UNKNOWN.with(cause)
    }
}

/// `age,bytes`; nothing where it is not known.
impl std::fmt::Display for Causes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, cause) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", cause.word())?;
        }
        Ok(())
    }
}

/// What a lost record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first offset behind it.
    pub to: u64,
    /// Why.
    pub causes: Causes,
}

impl Hole {
    /// The longest encoding, in bytes: one head, an offset, and a byte for each cause.
    pub const BYTES_MAX: usize = 1 + 9 + Cause::ALL.len();

    /// Its encoding: `[to, cause, …]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES_MAX);
        head::put_array(&mut out, 1 + self.causes.iter().count());
        head::put_uint(&mut out, self.to);
        self.causes
            .iter()
            .for_each(|cause| head::put_uint(&mut out, cause.label()));
        out
    }

    /// Reads one. `None`: it is none. Causes are known ones, each once, ascending.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = head::Reader::new(bytes);
        let items = reader.array()?;
        let to = reader.uint()?;
        let (mut causes, mut least) = (Causes::UNKNOWN, 0);
        for _ in 1..items {
            let label = reader.uint().filter(|label| *label >= least)?;
            causes = causes.with(Cause::from_label(label)?);
            least = label + 1;
        }
        reader.rest().is_empty().then_some(Self { to, causes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hole_has_one_encoding_and_nothing_else_is_one() {
        let mut known = Vec::new();
        for bits in 0..1_u8 << Cause::ALL.len() {
            for to in [0, 23, 24, 70_000, u64::MAX] {
                let causes = Causes(bits);
                let hole = Hole { to, causes };
                let bytes = hole.encode();
                assert!(bytes.len() <= Hole::BYTES_MAX);
                assert_eq!(Hole::decode(&bytes), Some(hole));
                known.push(bytes);
            }
        }
        let good = known.last().unwrap().clone();
        for at in 0..good.len() {
            assert_eq!(Hole::decode(&good[..at]), None, "cut at {at}");
        }
        for bad in [
            &b""[..],
            &[0x80],
            &[0x82, 5, 5],
            &[0x83, 5, 2, 1],
            &[0x83, 5, 1, 1],
            &[0x81, 0x18, 5],
            &[0x81, 5, 1],
            &[0x9f, 5, 0xff],
        ] {
            assert_eq!(Hole::decode(bad), None, "{bad:02x?}");
        }
    }

    #[test]
    fn causes_are_told_apart_and_put_together() {
        let both = Causes::from(Cause::Age).and(Cause::Purge.into());
        assert_eq!(both.to_string(), "age,purge");
        assert!(both.is_willed() && !both.with(Cause::Damage).is_willed());
        assert!(!Causes::UNKNOWN.is_willed());
        assert_eq!(Causes::UNKNOWN.to_string(), "");
    }
}
