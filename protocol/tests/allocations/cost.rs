//! Counting what reading allocates, and how much of that is allowed.

use allocation_counter::measure;

/// What reading may allocate beyond the length of what is read, in bytes, where there can be a list: room for the longest list of the
/// largest items, 256 pairs of 48 bytes each.
pub(crate) const SPARE_BYTES_WITH_LISTS: u64 = 256 * 48;

/// The same where there can be none, in bytes: a header of 64 to compare with, and the topic that a message is bound to.
pub(crate) const SPARE_BYTES: u64 = 96;

/// What a piece of work allocated, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// The most at one time.
    pub(crate) peak: u64,
    /// All of it, whether it was given back or not.
    pub(crate) total: u64,
    /// How often.
    pub(crate) count: u64,
}

/// Does `work`, and counts.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let mut done = None;
    let info = measure(|| done = Some(work()));
    let cost = Cost {
        peak: info.bytes_max,
        total: info.bytes_total,
        count: info.count_total,
    };
    (done.unwrap(), cost)
}

#[test]
fn what_is_allocated_is_seen() {
    let (kept, cost) = of(|| {
        drop(Vec::<u8>::with_capacity(300));
        Vec::<u8>::with_capacity(200)
    });
    assert_eq!(kept.capacity(), 200);
    assert_eq!((cost.peak, cost.total, cost.count), (300, 500, 2));
}
