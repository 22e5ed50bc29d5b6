//! The first door, `cbor::from_slice`: what a connection vouches for, and every payload behind a signature. A hostile value at any place
//! of any message is refused, and costs no more than its length and [`Sample::spare`].

use crate::{
    cost,
    hostile::{Fits, Hostile, bombs, twists},
    sample::{Sample, samples},
};

/// Reads `bytes`, holds the cost, and says whether they were taken.
fn is_taken(sample: &Sample, bytes: &[u8], what: &str) -> bool {
    let (read, cost) = cost::of(|| (sample.read)(bytes, sample.bytes_max));
    let length = bytes.len() as u64;
    // Who skips keeps a copy of the rest, to compare with.
    let times = if sample.skipped.is_some() { 2 } else { 1 };
    let most = times * length + sample.spare;
    assert!(
        cost.peak <= most && cost.total <= most + length,
        "{}: {what} of {length} bytes: {cost:?}",
        sample.name
    );
    read.is_ok()
}

/// Puts something hostile at `place`.
fn refuse(sample: &Sample, place: &[usize], hostile: &Hostile) {
    let skipped = sample.skipped.as_ref();
    let fits = match hostile.fits {
        Fits::Nowhere => false,
        Fits::Skipped => skipped.is_some_and(|skipped| place.starts_with(skipped)),
        Fits::Somewhere => true,
    };
    let bytes = sample.item.with(place, &hostile.item).encode();
    let is_taken = is_taken(sample, &bytes, hostile.what);
    assert!(
        fits || !is_taken,
        "{}: {} at {place:?} is taken",
        sample.name,
        hostile.what
    );
}

#[test]
fn honest_messages_are_taken() {
    for sample in samples() {
        let bytes = sample.item.encode();
        assert!(is_taken(&sample, &bytes, "as it is"), "{}", sample.name);
    }
}

#[test]
fn a_bomb_at_any_place_is_refused_at_the_price_of_its_own_length() {
    for sample in samples() {
        let bombs = bombs(sample.bytes_max - sample.item.encode().len());
        for place in sample.item.places() {
            bombs.iter().for_each(|bomb| refuse(&sample, &place, bomb));
        }
    }
}

#[test]
fn another_form_of_any_part_is_refused_at_the_price_of_its_own_length() {
    for sample in samples() {
        for place in sample.item.places() {
            for twist in twists(&sample.item.at(&place)) {
                refuse(&sample, &place, &twist);
            }
        }
    }
}

#[test]
fn a_message_cut_short_or_with_bytes_behind_it_is_refused_at_the_price_of_its_own_length() {
    for sample in samples() {
        let whole = sample.item.encode();
        for end in 0..whole.len() {
            assert!(
                !is_taken(&sample, &whole[..end], "cut short"),
                "{}",
                sample.name
            );
        }
        for behind in [&[0][..], &[0xff], &whole, &[0x81; 400]] {
            let longer = [&whole[..], behind].concat();
            assert!(!is_taken(&sample, &longer, "longer"), "{}", sample.name);
        }
    }
}

#[test]
fn what_is_longer_than_its_limit_is_refused_unread() {
    for sample in samples() {
        let mut bytes = sample.item.encode();
        bytes.resize(sample.bytes_max + 1, 0);
        let (read, cost) = cost::of(|| (sample.read)(&bytes, sample.bytes_max));
        assert!(read.is_err() && cost.count == 0, "{}", sample.name);
    }
}
