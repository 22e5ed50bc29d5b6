//! Seeds of event streams: batches, scripts of deliveries, whole files.

use protocol::{
    cbor,
    exchange::Succession,
    record::{Kind, Opening, Record},
    report::{Forwarded, News},
    signed::Message as _,
    stream::{Batch, Writer, stream_id},
    time::UnixMillis,
};
use protocol_fuzz::{
    input::chunk,
    seal::seal,
    world::{self, HOST, NOW, STRANGER},
};

use crate::{FLIP, message::*, write};

pub fn batch() {
    let batches = batches();
    let stream = stream_id(&world::host(), &world::sandbox());
    let mut writer = Writer::new(world::owned(STRANGER), stream, [2; 8]);
    assert!(writer.push(&line(b"hello")));
    write("batch", "by-a-stranger", &[&[0], &writer.seal(NOW, false)]);
    write("batch", "with-a-bit-flipped", &[&[1], &FLIP]);
    for (name, payload) in ["two-events", "heartbeat", "closing"].iter().zip(&batches) {
        let batch = Batch::parse(payload).expect("a good batch");
        let head = cbor::to_vec(&batch.head);
        write(
            "batch",
            &format!("head-{name}"),
            &[&[2], &chunk(&head), batch.body],
        );
        if batch.head.count == 2 {
            write("batch", "body-two-events", &[&[3, 0, 2], batch.body]);
            write("batch", "events-two", &[&[4, 0, 2], batch.body]);
        }
    }
}

pub fn stream() {
    let push = [&[0, 2][..], &chunk(b"hello"), &[0, 1]].concat();
    let deliver_next: &[u8] = &[4];
    write(
        "stream",
        "three-batches-in-order",
        &[
            &push,
            deliver_next,
            &push,
            &push,
            deliver_next,
            deliver_next,
        ],
    );
    write(
        "stream",
        "closed-and-then-one-more",
        &[&push, &[2, 5, 0], deliver_next],
    );
    write("stream", "one-missing", &[&[1, 1, 5, 1, 5, 0, 5, 1]]);
    write(
        "stream",
        "each-twice",
        &[deliver_next, &[5, 0], deliver_next, &[5, 1, 5, 0]],
    );
    write(
        "stream",
        "forged-heads-that-follow",
        &[&[3, 0, 0, 0, 0, 5, 0, 3, 1, 0, 0, 0, 5, 1]],
    );
    write(
        "stream",
        "forged-head-of-another-key",
        &[&[3, 0, 0, 0, 1, 5, 0]],
    );
    write(
        "stream",
        "forged-number-too-high",
        &[deliver_next, &[3, 0, 0, 2, 3, 0, 5, 1]],
    );
    let changed = [&[7, 0][..], &chunk(&FLIP)].concat();
    write(
        "stream",
        "delivered-changed-then-whole",
        &[&push, &[1], &changed, &[5, 0]],
    );
}

/// A stream file that is good, and whole: a launch, a batch that came, one that was forwarded, the end.
fn a_stream_file() -> Vec<u8> {
    let opening = Opening {
        is_part: false,
        host: world::host(),
        sandbox: world::sandbox(),
    };
    let batches = batches();
    let named = seal(HOST, Succession::TYP, &succession(HOST + 1, 4), b"", None);
    let record = |offset, kind, payload| Record {
        offset,
        received: if offset == 0 { UnixMillis(0) } else { NOW },
        kind,
        host: Some(world::host()),
        sandbox: (kind != Kind::Succession).then(world::sandbox),
        payload,
    };
    let report = |news| protocol::report::sign(world::secret(HOST + 1), &a_report(news));
    let launched = every_news().remove(1);
    let forwarded = News::Forwarded(Forwarded {
        sandbox: world::sandbox(),
        batch: batches[2].clone().into(),
    });
    let hole = Record {
        received: UnixMillis(0),
        host: None,
        sandbox: None,
        ..record(9, Kind::Gap, Vec::new())
    };
    let records = [
        record(0, Kind::Succession, named),
        record(5, Kind::Batch, batches[0].clone()),
        record(6, Kind::Report, report(launched)),
        record(7, Kind::Batch, batches[1].clone()),
        hole,
        record(12, Kind::Report, report(forwarded)),
    ];
    let all = records.iter().flat_map(Record::encode);
    opening.encode().into_iter().chain(all).collect()
}

pub fn record() {
    let file = a_stream_file();
    write("record", "file-read-whole", &[&[255], &file]);
    write("record", "file-read-in-small-pieces", &[&[7], &file]);
    write(
        "record",
        "file-cut-short",
        &[&[255], &file[..file.len() - 9]],
    );
}

pub fn stream_file() {
    let launched: &[u8] = &[1, 0, 0, 0, 0];
    let batch: &[u8] = &[4, 0, 0];
    let closing: &[u8] = &[4, 1, 0];
    write("stream_file", "by-a-stranger", &[&[0], &a_stream_file()]);
    write(
        "stream_file",
        "launched-and-whole",
        &[&[1], launched, batch, batch, closing],
    );
    write(
        "stream_file",
        "batches-before-launched",
        &[&[1], batch, batch, launched, closing],
    );
    let renewed: &[u8] = &[0, 0, 4, 2, 0];
    write(
        "stream_file",
        "after-a-renewal",
        &[&[1], renewed, &[1, 0, 0, 2, 0], batch],
    );
    write(
        "stream_file",
        "one-forwarded-and-a-hole",
        &[&[1], launched, &[2, 1, 0, 0, 0, 0], &[9, 0], batch],
    );
    write(
        "stream_file",
        "one-twice",
        &[&[2], launched, batch, &[7, 0, 0], batch],
    );
    write(
        "stream_file",
        "commands-and-the-end",
        &[&[1], &[8, 0, 9, 0, 0], launched, batch, &[3, 0, 1, 0, 0]],
    );
    write(
        "stream_file",
        "ended-and-never-launched",
        &[&[1], batch, &[3, 0, 1, 0, 0]],
    );
}
