//! Counts of values by size, for metrics: fixed bounds, no allocation, cheap to copy.

/// Bounds of every histogram here.
pub const BOUNDS: usize = 12;

/// How many values were at most each bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: [u64; BOUNDS],
    /// Values in each step, the last one past all bounds.
    counts: [u64; BOUNDS + 1],
    sum: u64,
}

impl Histogram {
    /// Of durations in microseconds: 50 µs to 2.5 s.
    pub const MICROSECONDS: Self = Self::new([
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000,
    ]);
    /// Of counts, in powers of two.
    pub const COUNTS: Self = Self::new([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048]);

    const fn new(bounds: [u64; BOUNDS]) -> Self {
        Self {
            bounds,
            counts: [0; BOUNDS + 1],
            sum: 0,
        }
    }

    /// Counts a value.
    pub fn observe(&mut self, value: u64) {
        let step = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(step) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Each bound, and how many values were at most that; last the number of all values.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let mut total = 0;
        bounds.zip(self.counts).map(move |(bound, count)| {
            total += count;
            (bound, total)
        })
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_at_its_bound_and_at_every_greater_one() {
        let mut histogram = Histogram::COUNTS;
        for value in [0, 1, 2, 3, 2_048, 2_049, u64::MAX] {
            histogram.observe(value);
        }
        let counts: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counts[..3], [(Some(1), 2), (Some(2), 3), (Some(4), 4)]);
        assert_eq!(counts[11..], [(Some(2_048), 5), (None, 7)]);
        assert_eq!((histogram.count(), histogram.sum()), (7, u64::MAX));
    }
}
