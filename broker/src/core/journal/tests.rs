//! Tests of `journal`.

use super::*;
use proptest::prelude::*;

fn event<'a>(payload: &'a [u8], sandbox: Option<&'a str>) -> Entry<'a> {
    Entry {
        kind: RecordKind::Event,
        host: "edge-1",
        sandbox,
        time_ms: 7,
        payload,
    }
}

fn sealed(entries: &[Entry<'_>], first: u64) -> Vec<u8> {
    let mut frames = Vec::new();
    for entry in entries {
        encode(entry, &mut frames).unwrap();
    }
    assert_eq!(seal(&mut frames, first).unwrap(), entries.len() as u64);
    frames
}

proptest! {
    #[test]
    fn a_record_reads_back_as_it_was_written(
        payload in proptest::collection::vec(any::<u8>(), 0..2_000),
        host in "[a-z0-9-]{1,64}",
        sandbox in proptest::option::of("[a-z0-9-]{1,64}"),
        time_ms: u64, offset in 0..u64::MAX,
    ) {
        let entry = Entry { kind: RecordKind::Report, host: &host, sandbox: sandbox.as_deref(), time_ms, payload: &payload };
        let frame = sealed(&[entry], offset);
        let (record, whole) = decode(&frame).unwrap();
        prop_assert_eq!(whole, frame.len());
        prop_assert_eq!(whole, entry.frame_bytes());
        prop_assert_eq!(decode_held(&frame), Ok((record, whole)));
        prop_assert_eq!(record, Record {
            offset, time_ms, kind: RecordKind::Report, host: &host, sandbox: sandbox.as_deref(), payload: &payload,
            is_purged: false,
        });
    }

    #[test]
    fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (decode(&bytes), decode_held(&bytes), decode_header(&bytes), last_record_in(&bytes, 3), seal(&mut bytes.clone(), 1));
    }
}

#[test]
fn a_load_tests_record_has_its_topic_and_its_payload() {
    for payload in [&b""[..], b"x"] {
        let record = bench_payload("bench/a", payload).unwrap();
        assert_eq!(split_bench_payload(&record), Some(("bench/a", payload)));
        for cut in 0..9 {
            assert_eq!(split_bench_payload(&record[..cut]), None);
        }
    }
    assert_eq!(bench_payload("bench/a", &[0; PAYLOAD_BYTES_MAX]), None);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let frame = sealed(&[event(b"hello", Some("build-7"))], 41);
    for bit in 0..frame.len() * 8 {
        let mut bad = frame.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
    for cut in 0..frame.len() {
        assert_eq!(
            decode(&frame[..cut]),
            Err(DecodeError::Incomplete),
            "cut at {cut}"
        );
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let header = encode_header(9);
    let rewritten = encode_rewritten_header(9, 12, 3);
    let shown = |bytes: &[u8]| decode_header(bytes).map(|header| (header.first, header.end));
    assert_eq!(shown(&header), Ok((9, None)));
    assert_eq!(shown(&rewritten), Ok((9, Some(12))));
    for header in [header.to_vec(), rewritten] {
        for bit in 0..header.len() * 8 {
            let mut bad = header.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_header(&bad), Err(HeaderError::Damaged), "bit {bit}");
        }
    }
}

#[test]
fn the_bytes_of_version_one_do_not_change() {
    assert_eq!(
        hex(&encode_header(5)),
        "4f55544841554c0a010000000500000000000000197526b6"
    );
    let frame = sealed(&[event(b"hi", Some("b-7"))], 5);
    assert_eq!(
        hex(&frame),
        "4b06bf711f0000000500000000000000070000000000000001060300656467652d31622d376869"
    );
}

#[test]
fn ids_and_payloads_beyond_their_limits_are_refused() {
    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    let mut out = Vec::new();
    assert_eq!(
        encode(&event(&long, None), &mut out),
        Err(EncodeError::PayloadTooLong)
    );
    for bad in ["", "Edge", "a/b", "ü", &"a".repeat(65)] {
        assert_eq!(
            encode(&event(b"", Some(bad)), &mut out),
            Err(EncodeError::BadId),
            "{bad}"
        );
    }
    assert!(out.is_empty());
    encode(&event(&long[1..], Some(&"a".repeat(64))), &mut out).unwrap();
    assert!(out.len() <= RECORD_BYTES_MAX);
}

#[test]
fn records_after_a_bad_one_are_found_and_offsets_that_cannot_stand_there_are_not() {
    let mut bytes = sealed(
        &[
            event(b"one", None),
            event(b"two", None),
            event(b"three", None),
        ],
        10,
    );
    bytes[20] ^= 1;
    assert_eq!(last_record_in(&bytes, 10), Some((12, 0)));
    assert_eq!(last_record_in(&bytes, 12), None);
    assert_eq!(last_record_in(&bytes, 3), None);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
