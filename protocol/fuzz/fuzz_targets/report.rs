//! Reports, as the broker meets them: what anybody may publish, and what a hostile host may sign.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    key::Host,
    limits::{
        BATCH_BODY_BYTES_MAX, BATCH_HEAD_BYTES_MAX, DETAIL_BYTES_MAX, MESSAGE_BYTES_MAX,
        REPORT_NAME_BYTES_MAX, REPORT_SANDBOXES_MAX,
    },
    report::{self, News, Report},
    signed::{self, Message as _, VerifyError},
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    item::Item,
    quiet,
    seal::{is_worth_signing, seal},
    world::{self, HOST},
};

const AAD: &[u8] = b"v1/edge-1/reports";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => strangers_bytes(input.rest()),
        1 => good_one_changed(input),
        _ => signed(input.rest()),
    }
});

fn strangers_bytes(bytes: &[u8]) {
    assert!(verify(bytes).is_none());
    if signed::peek::<Report>(bytes).is_ok() {
        assert!(bytes.len() <= MESSAGE_BYTES_MAX && Item::read(bytes).is_some());
    }
}

fn good_one_changed(mut input: Input<'_>) {
    let good = seal(HOST, Report::TYP, input.chunk(), AAD, None);
    let bytes = edited(&good, input);
    assert!(bytes == good || verify(&bytes).is_none());
}

/// The host signed it, whatever it is: what is read of it is what it says, less what a newer host says besides.
fn signed(payload: &[u8]) {
    let read = cbor::from_slice::<Report>(payload, MESSAGE_BYTES_MAX).ok();
    if let Some(report) = &read {
        assert_eq!(cbor::to_vec(report), known_part(payload, report));
        look_at(&report.news);
    }
    if !is_worth_signing(payload, read.is_some()) {
        return;
    }
    let bytes = seal(HOST, Report::TYP, payload, AAD, None);
    let expected = read.filter(|report| {
        bytes.len() <= MESSAGE_BYTES_MAX && report.host == world::host() && is_bounded(&report.news)
    });
    assert_eq!(verify(&bytes), expected);
}

/// What the decoder has to compare with: no skipped pairs, and of a choice that is unknown only the label.
fn known_part(payload: &[u8], report: &Report) -> Vec<u8> {
    let item = Item::read(payload).expect("what is taken is in its one encoding");
    let is_status = matches!(report.news, News::Status(_));
    let mut known = item.without_skipped(&|path, label| is_status && path == [4] && label == 65);
    if let (News::Other(_), Some(Item::Array(pair))) = (&report.news, known.label_mut(4)) {
        pair.truncate(1);
    }
    known.to_vec()
}

fn look_at(news: &News) {
    let is_about_one = !matches!(news, News::Status(_) | News::Other(_));
    assert_eq!(news.sandbox().is_some(), is_about_one);
    assert!(is_about_one || news.settles().is_none());
    assert!(news.word().len() < 16);
}

fn verify(bytes: &[u8]) -> Option<Report> {
    let keys = [world::public::<Host>(HOST)];
    let verified = report::verify(bytes, &keys, &world::host());
    let verified = verified.map_err(quiet::check::<VerifyError>).ok()?;
    assert_eq!(verified.signer(), keys[0]);
    Some(verified.into_value())
}

fn is_bounded(news: &News) -> bool {
    match news {
        News::Refused(refused) => refused.detail.len() <= DETAIL_BYTES_MAX,
        News::Ended(ended) => ended.detail.len() <= DETAIL_BYTES_MAX,
        News::Launched(launched) => {
            launched.image.len() <= REPORT_NAME_BYTES_MAX
                && launched.container.len() <= REPORT_NAME_BYTES_MAX
        }
        News::Forwarded(forwarded) => {
            forwarded.batch.len() <= BATCH_HEAD_BYTES_MAX + BATCH_BODY_BYTES_MAX
        }
        News::Status(status) => {
            status.version.len() <= REPORT_NAME_BYTES_MAX
                && status.sandboxes.len() <= REPORT_SANDBOXES_MAX
        }
        News::Stopped(_) | News::Other(_) => true,
    }
}
