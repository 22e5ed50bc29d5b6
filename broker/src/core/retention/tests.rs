//! Tests of `retention`, over every small journal.

use super::*;

const NOW: u64 = 1_000;

fn limits(age_ms: Option<u64>, bytes: Option<u64>, host_bytes: Option<u64>) -> Limits {
    Limits {
        age_ms,
        bytes,
        host_bytes,
    }
}

/// A segment of what `a`, `b` and `c` have in it, in bytes, one record each; accepted at `ms`.
fn segment(first: u64, ms: u64, bytes: [u64; 3]) -> Summary {
    let hosts = ["a", "b", "c"].into_iter().zip(bytes);
    Summary {
        first,
        end: first + 1,
        first_ms: ms,
        last_ms: ms,
        is_whole: true,
        hosts: hosts
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(host, bytes)| (host.to_owned(), Count { records: 1, bytes }))
            .collect(),
    }
}

/// What goes of each segment, as `a:age b:bytes`.
fn judged(segments: &[Summary], limits: Limits) -> Vec<String> {
    let mut census = Census::new(limits, NOW);
    segments.iter().for_each(|segment| census.add(segment));
    let mut plan = census.plan();
    let words = |goes: Goes| {
        let words: Vec<_> = goes
            .iter()
            .map(|(host, cause)| format!("{host}:{cause}"))
            .collect();
        words.join(" ")
    };
    segments
        .iter()
        .map(|segment| match plan.judge(segment, &BTreeMap::new()) {
            Verdict::Stays => String::new(),
            Verdict::Loses(goes) | Verdict::Vanishes(goes) => words(goes),
        })
        .collect()
}

/// Every journal of three segments in which each of three hosts has 0, 16 or 48 bytes, under every pair of limits.
fn small_worlds(check: impl Fn(&[Summary], Limits, &[String])) {
    let amounts = [0, 16, 48];
    for number in 0..3_usize.pow(9) {
        let amount = |cell: u32| amounts[number / 3_usize.pow(cell) % 3];
        let segments: Vec<_> = (0..3)
            .map(|at| {
                let cells = [amount(at * 3), amount(at * 3 + 1), amount(at * 3 + 2)];
                segment(u64::from(at), 800 + 100 * u64::from(at), cells)
            })
            .collect();
        for bytes in [None, Some(96), Some(160)] {
            for host_bytes in [None, Some(48)] {
                for age_ms in [None, Some(150)] {
                    let limits = limits(age_ms, bytes, host_bytes);
                    check(&segments, limits, &judged(&segments, limits));
                }
            }
        }
    }
}

fn bytes_of<'a>(
    segments: &'a [Summary],
    judged: &'a [String],
    host: &'a str,
    stays: bool,
) -> impl Iterator<Item = (usize, u64)> + 'a {
    let prefix = format!("{host}:");
    segments
        .iter()
        .zip(judged)
        .enumerate()
        .filter(move |(_, (_, goes))| {
            goes.split(' ').any(|word| word.starts_with(&prefix)) != stays
        })
        .filter_map(move |(at, (segment, _))| Some((at, segment.hosts.get(host)?.bytes)))
}

#[test]
fn whatever_there_was_what_is_left_keeps_to_every_limit() {
    small_worlds(|segments, limits, judged| {
        let mut all = 0;
        for host in ["a", "b", "c"] {
            let left: u64 = bytes_of(segments, judged, host, true).map(|(_, b)| b).sum();
            assert!(limits.host_bytes.is_none_or(|most| left <= most));
            all += left;
        }
        assert!(
            limits.bytes.is_none_or(|most| all <= most),
            "{segments:?} {limits:?} {judged:?}"
        );
        if limits.age_ms.is_some() {
            assert_eq!(bytes_of(&segments[..1], &judged[..1], "a", true).count(), 0);
        }
    });
}

#[test]
fn a_host_within_its_share_of_the_whole_loses_nothing_to_others_whatever_they_write() {
    small_worlds(|segments, limits, judged| {
        let Some(bytes) = limits.bytes else { return };
        let share = bytes / 3 - bytes / 16;
        for host in ["a", "b", "c"] {
            let has: u64 = segments
                .iter()
                .filter_map(|s| s.hosts.get(host))
                .map(|c| c.bytes)
                .sum();
            let is_within = has <= share && limits.host_bytes.is_none_or(|most| has <= most);
            let lost = judged.iter().flat_map(|goes| goes.split(' '));
            let mut lost = lost.filter(|word| word.starts_with(&format!("{host}:")));
            assert!(
                !is_within || lost.all(|word| word.ends_with(":age")),
                "{segments:?} {limits:?} {judged:?}"
            );
        }
    });
}

#[test]
fn of_each_host_the_oldest_goes_first_and_no_more_than_has_to() {
    small_worlds(|segments, limits, judged| {
        for host in ["a", "b", "c"] {
            let last_gone = bytes_of(segments, judged, host, false)
                .map(|(at, _)| at)
                .max();
            let first_left = bytes_of(segments, judged, host, true)
                .map(|(at, _)| at)
                .min();
            if let (Some(gone), Some(left)) = (last_gone, first_left) {
                assert!(gone < left, "{segments:?} {limits:?} {judged:?}");
            }
        }
        if limits == Limits::default() {
            assert!(judged.iter().all(String::is_empty));
        }
    });
}

#[test]
fn the_cause_is_the_limit_that_was_passed() {
    let segments = [
        segment(0, 100, [16, 0, 0]),
        segment(1, 900, [48, 16, 0]),
        segment(2, 950, [48, 16, 16]),
    ];
    let by = |limits| judged(&segments, limits);
    assert_eq!(by(limits(Some(500), None, None)), ["a:age", "", ""]);
    assert_eq!(by(limits(None, None, Some(60))), ["a:host", "a:host", ""]);
    assert_eq!(
        by(limits(None, Some(130), None)),
        ["a:bytes", "a:bytes", ""]
    );
    assert_eq!(
        by(limits(Some(500), Some(130), None)),
        ["a:age", "a:bytes", ""]
    );
}

#[test]
fn what_is_exactly_at_a_limit_stays() {
    let segments = [segment(0, 900, [16, 16, 0])];
    for limits in [
        limits(Some(100), None, None),
        limits(None, Some(32), None),
        limits(None, None, Some(16)),
    ] {
        assert_eq!(judged(&segments, limits), [""], "{limits:?}");
    }
    assert_eq!(
        judged(&segments, limits(Some(99), None, None)),
        ["a:age b:age"]
    );
}

#[test]
fn a_host_with_nothing_but_needed_records_in_a_segment_is_left_alone() {
    let mut old = segment(0, 0, [16, 16, 0]);
    let limits = limits(Some(1), None, None);
    let needed = BTreeMap::from([("a".to_owned(), 1)]);
    let judge = |segment: &Summary| Census::new(limits, NOW).plan().judge(segment, &needed);
    let only_b = Goes::from([("b".to_owned(), Cause::Age)]);
    assert_eq!(judge(&old), Verdict::Loses(only_b));
    old.hosts.remove("b");
    assert_eq!(judge(&old), Verdict::Stays);
    old.hosts.insert(
        "a".to_owned(),
        Count {
            records: 2,
            bytes: 32,
        },
    );
    let a = Goes::from([("a".to_owned(), Cause::Age)]);
    assert_eq!(judge(&old), Verdict::Loses(a));
}

#[test]
fn what_cannot_be_read_goes_with_its_whole_segment_by_age_or_not_at_all() {
    let damaged = |ms, bytes| Summary {
        is_whole: false,
        ..segment(0, ms, bytes)
    };
    let judge = |segment: &Summary, limits, needed: &BTreeMap<String, u64>| {
        let mut census = Census::new(limits, NOW);
        census.add(segment);
        census.plan().judge(segment, needed)
    };
    let (by_age, by_host) = (limits(Some(10), None, None), limits(None, None, Some(20)));
    let none = BTreeMap::new();
    let a = |cause| Goes::from([("a".to_owned(), cause)]);
    assert_eq!(
        judge(&damaged(0, [16, 0, 0]), by_age, &none),
        Verdict::Vanishes(a(Cause::Age))
    );
    assert_eq!(
        judge(&damaged(0, [0, 0, 0]), by_age, &none),
        Verdict::Vanishes(Goes::new())
    );
    assert_eq!(
        judge(&damaged(NOW, [0, 0, 0]), by_age, &none),
        Verdict::Stays
    );
    assert_eq!(
        judge(&damaged(NOW, [48, 0, 0]), by_host, &none),
        Verdict::Stays
    );
    assert_eq!(
        judge(&damaged(NOW, [48, 16, 0]), by_host, &none),
        Verdict::Stays
    );
    let needed = BTreeMap::from([("a".to_owned(), 1)]);
    assert_eq!(
        judge(&damaged(0, [16, 16, 0]), by_age, &needed),
        Verdict::Stays
    );
}

#[test]
fn small_leftovers_join_and_what_is_large_or_far_apart_does_not() {
    let left = |bytes, first_ms, last_ms| Left {
        bytes,
        first_ms,
        last_ms,
    };
    let kept_for_long = limits(Some(64 * SPAN_MS_MIN), None, None);
    let join = |a: Left, b| a.join(b, 800, &kept_for_long);
    let nothing = left(0, 0, 0);
    assert_eq!(join(nothing, nothing), Some(nothing));
    assert_eq!(join(nothing, left(100, 5, 6)), Some(left(100, 5, 6)));
    assert_eq!(join(left(100, 5, 6), nothing), Some(left(100, 5, 6)));
    assert_eq!(join(nothing, left(101, 5, 6)), None);
    assert_eq!(join(left(60, 5, 6), left(40, 7, 9)), Some(left(100, 5, 9)));
    assert_eq!(join(left(60, 5, 6), left(41, 7, 9)), None);
    let span = 2 * SPAN_MS_MIN;
    assert_eq!(
        join(left(1, 0, 6), left(1, 7, span)),
        Some(left(2, 0, span))
    );
    assert_eq!(join(left(1, 0, 6), left(1, 7, span + 1)), None);
}
