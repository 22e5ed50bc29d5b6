//! What is sent, acknowledged and come back to.

use super::*;
use protocol::hole::Cause;
use protocol::mqtt::{ServerPacket, decode_server, frame};

const LIMITS: Limits = Limits {
    version: Version::V5,
    window: 3,
    packet_bytes_max: usize::MAX,
};

fn feed(filters: &[(&str, bool)]) -> Feed {
    let mut feed = Feed::default();
    for (filter, is_confirmed) in filters {
        feed.subscribe(filter, *is_confirmed);
    }
    feed.start(0);
    feed
}

fn message(offset: u64) -> Message<'static> {
    Message {
        offset,
        incarnation: 1,
        topic: "v1/a/x/events",
        payload: b"batch",
        is_purged: false,
    }
}

/// Offset, packet id, whether it is a repeat, and the gap it tells of.
type Read = (String, Option<u16>, bool, Option<String>);

fn read(mut output: &[u8]) -> Vec<Read> {
    let mut all = Vec::new();
    while let Some(frame) = frame(output, usize::MAX).unwrap() {
        let ServerPacket::Publish(publish) = decode_server(&frame, Version::V5).unwrap() else {
            panic!("not a publish");
        };
        let of = |name| {
            let mut properties = publish.properties.user_properties.iter();
            properties.find(|(key, _)| *key == name)
        };
        let text = |pair: (&str, &str)| pair.1.to_owned();
        let id = publish.delivery.packet_id().map(PacketId::get);
        let offset = of("offset").map(text).unwrap();
        let gap = of("gap").map(text).map(|gap| {
            let reason = of("gap-reason").map(text);
            [Some(gap), reason]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        });
        all.push((offset, id, publish.delivery.dup(), gap));
        output = &output[frame.total_bytes()..];
    }
    all
}

fn write(feed: &mut Feed, offset: u64) -> Vec<Read> {
    let mut output = Vec::new();
    feed.write(message(offset), LIMITS, &mut output);
    read(&output)
}

#[test]
fn no_more_than_the_window_is_unacknowledged_and_nothing_is_asked_for_beyond_it() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    for offset in 0..3 {
        assert_eq!(feed.room(LIMITS, 0), 3 - usize::try_from(offset).unwrap());
        write(&mut feed, offset);
    }
    assert_eq!(feed.room(LIMITS, 0), 0);
    feed.acknowledge(PacketId::new(1).unwrap());
    assert_eq!(feed.room(LIMITS, 0), 1);
    assert_eq!(feed.room(LIMITS, OUTPUT_BYTES_MAX), 0, "it does not read");
}

/// Every order in which four messages can be acknowledged: the cursor is never past one that was not.
#[test]
fn the_cursor_to_come_back_to_is_the_first_offset_that_is_not_acknowledged() {
    for order in 0..4_usize.pow(4) {
        let order: Vec<_> = (0..4).map(|place| order / 4_usize.pow(place) % 4).collect();
        if !(0..4).all(|one| order.contains(&one)) {
            continue;
        }
        let mut feed = feed(&[("v1/+/+/events", true)]);
        let ids: Vec<_> = (10..14)
            .map(|offset| write(&mut feed, offset)[0].1.unwrap())
            .collect();
        let mut acknowledged = Vec::new();
        for one in order {
            feed.acknowledge(PacketId::new(ids[one]).unwrap());
            acknowledged.push(one);
            let first = (0..4).find(|one| !acknowledged.contains(one));
            let expected = first.map_or(14, |first| 10 + first as u64);
            assert_eq!(feed.keep().next, Some(expected), "{acknowledged:?}");
        }
    }
}

#[test]
fn what_comes_again_after_a_break_has_its_identifier_and_says_so() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    let first = [write(&mut feed, 7), write(&mut feed, 8)].concat();
    let kept = feed.keep();
    assert_eq!(kept.next, Some(7));
    let mut feed = Feed::resume(kept);
    let again = [
        write(&mut feed, 7),
        write(&mut feed, 8),
        write(&mut feed, 9),
    ]
    .concat();
    let ids = |reads: &[Read]| reads.iter().map(|read| read.1).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again[..2]));
    let repeats: Vec<_> = again.iter().map(|read| read.2).collect();
    assert_eq!(repeats, [true, true, false]);
}

#[test]
fn an_identifier_in_use_is_passed_over() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    let one = write(&mut feed, 3)[0].1;
    let other = write(&mut feed, 3 + u64::from(u16::MAX))[0].1;
    assert_eq!((one, other), (Some(4), Some(5)));
    assert_eq!(write(&mut feed, 65_534)[0].1, Some(65_535));
    let mut feed = Feed::resume(feed.keep());
    feed.start(65_534);
    write(&mut feed, 65_534);
    assert_eq!(write(&mut feed, 131_069)[0].1, Some(1), "round the end");
}

#[test]
fn a_message_that_two_filters_match_comes_once_at_the_better_quality() {
    let both = [("v1/+/+/events", false), ("v1/a/+/events", true)];
    let mut one = feed(&both);
    assert_eq!(write(&mut one, 0), [("0".to_owned(), Some(1), false, None)]);
    let mut unconfirmed = feed(&both[..1]);
    assert_eq!(
        write(&mut unconfirmed, 0),
        [("0".to_owned(), None, false, None)]
    );
    let mut other = feed(&[("v1/b/+/events", true)]);
    assert_eq!(write(&mut other, 0), []);
    assert_eq!(other.keep().next, Some(1), "looked at all the same");
}

#[test]
fn a_gap_is_told_with_the_next_message_once() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    feed.miss(0, 5, Cause::Age.into(), None);
    feed.miss(5, 9, Cause::Damage.into(), None);
    assert_eq!(write(&mut feed, 9)[0].3.as_deref(), Some("0-8 damage,age"));
    assert_eq!(write(&mut feed, 10)[0].3, None);
}

#[test]
fn what_is_larger_than_the_client_takes_is_passed_over() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    let small = Limits {
        packet_bytes_max: 10,
        ..LIMITS
    };
    let mut output = vec![1];
    assert_eq!(
        feed.write(message(0), small, &mut output),
        Written::TooLarge
    );
    assert_eq!((output, feed.keep().next), (vec![1], Some(1)));
}

#[test]
fn the_last_filter_ends_the_reading() {
    let mut feed = feed(&[("v1/+/+/events", true)]);
    assert!(!feed.unsubscribe("v1/a/+/events"));
    assert!(feed.unsubscribe("v1/+/+/events"));
    assert_eq!((feed.next(), feed.room(LIMITS, 0)), (None, 0));
}

#[test]
fn who_subscribes_anew_further_back_comes_back_to_what_it_has_not_acknowledged_there() {
    let filter = "v1/+/+/events";
    let mut feed = feed(&[(filter, true)]);
    feed.start(100);
    let late = write(&mut feed, 100)[0].1.unwrap();
    feed.unsubscribe(filter);
    feed.subscribe(filter, true);
    feed.start(5);
    assert_eq!(feed.keep().next, Some(5), "nothing of it was sent");
    let early = write(&mut feed, 5)[0].1.unwrap();
    assert_eq!(feed.keep().next, Some(5));
    feed.acknowledge(PacketId::new(early).unwrap());
    assert_eq!(feed.keep().next, Some(6));
    feed.acknowledge(PacketId::new(late).unwrap());
    assert_eq!(feed.keep().next, Some(6));
}

#[test]
fn without_a_subscription_there_is_no_place_and_no_gap() {
    let filter = "v1/+/+/events";
    let mut feed = feed(&[(filter, true)]);
    write(&mut feed, 7);
    feed.unsubscribe(filter);
    feed.miss(8, 12, Causes::UNKNOWN, None);
    feed.start(12);
    assert_eq!((feed.next(), feed.keep().next), (None, None));
    feed.subscribe(filter, true);
    feed.start(20);
    assert_eq!(write(&mut feed, 20)[0].3, None, "of a gap before it");
}

#[test]
fn a_message_says_its_incarnation_and_the_first_after_a_restore_what_is_withdrawn() {
    let mut feed = feed(&[("v1/+/+/events", false)]);
    let part = Withdrawn {
        from: 7,
        to: 100,
        by: 2,
    };
    feed.miss(5, 100, Causes::UNKNOWN, Some(part));
    // More that cannot be read takes nothing back of it.
    feed.miss(100, 102, Causes::UNKNOWN, None);
    let mut said = Vec::new();
    for offset in [102, 103] {
        let mut output = Vec::new();
        let message = Message {
            incarnation: 2,
            ..message(offset)
        };
        feed.write(message, LIMITS, &mut output);
        let packet = frame(&output, usize::MAX).unwrap().unwrap();
        let ServerPacket::Publish(publish) = decode_server(&packet, Version::V5).unwrap() else {
            panic!("not a publish");
        };
        let properties = publish.properties.user_properties.iter();
        said.push(
            properties
                .map(|(name, value)| format!("{name} {value}"))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(
        said[0],
        ["offset 102", "incarnation 2", "gap 5-101", "withdrawn 7-99"]
    );
    assert_eq!(said[1], ["offset 103", "incarnation 2"]);
}
