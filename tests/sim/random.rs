//! Chance, from a seed: xorshift64*, so that a failing world can be run again.

use protocol::id::hex;
use zeroize::Zeroizing;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that differ in one bit shall not begin alike, and zero never ends.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.draw();
        }
        random
    }

    /// Uniform over all of `u64`.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| {
            let [byte, ..] = self.draw().to_be_bytes();
            byte
        })
    }

    pub(crate) fn seed(&mut self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.bytes())
    }

    pub(crate) fn boot_id(&mut self) -> String {
        hex(&self.bytes::<8>())
    }
}
