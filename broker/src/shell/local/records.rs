//! The journal, as a stream of records: a CBOR sequence (RFC 8742) of arrays of six.

use axum::{
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use protocol::{
    hole::{Causes, Hole},
    id::SandboxId,
    record::{self, Kind},
    time::UnixMillis,
};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Api,
    answer::{Answer, No, ok},
    host::read_host,
    route::query,
};
use crate::{
    core::{
        incarnation::History,
        journal::{ID_BYTES_MAX, RecordKind},
    },
    drive::Plane,
    shell::{
        http::{Broken, Pieces, body},
        journal::{Filter, Item, Reader},
    },
};

/// Media type of a CBOR sequence.
const CONTENT_TYPE: &str = "application/cbor-seq";
/// Pieces that wait for a slow client. Past that the journal is not read for it.
const PIECES_MAX: usize = 2;
/// Records and bytes of payload in one piece.
const PIECE_RECORDS: usize = 1_024;
/// See [`PIECE_RECORDS`].
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    from: u64,
    /// The first offset that is not wanted any more.
    to: Option<u64>,
    host: Option<String>,
    sandbox: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn stream(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let wanted = query(wanted)?;
    let filter = filter(&wanted)?;
    let Ok(place) = api.streams.clone().try_acquire_owned() else {
        return Err(No::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many streams are read at once: end one of them",
        ));
    };
    let reader = api.plane.journal().reader(wanted.from, filter);
    let (pieces, body) = body(PIECES_MAX);
    tokio::spawn(read(api, reader, wanted, pieces, place));
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    Ok(response)
}

fn filter(wanted: &Wanted) -> Result<Filter, No> {
    if let Some(host) = &wanted.host {
        read_host(host)?;
    }
    if let Some(sandbox) = &wanted.sandbox {
        SandboxId::new(sandbox).map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    }
    let kind = match wanted.kind.as_deref() {
        None => None,
        Some("event") => Some(RecordKind::Event),
        Some("report") => Some(RecordKind::Report),
        Some("command") => Some(RecordKind::Command),
        Some(_) => return Err(No::bad("kind is event, report or command")),
    };
    Ok(Filter {
        host: wanted.host.clone(),
        sandbox: wanted.sandbox.clone(),
        kind,
    })
}

/// Reads until the end, or for ever; ends when nobody listens any more, or the broker stops.
async fn read(
    mut api: Api,
    mut reader: Reader,
    wanted: Wanted,
    pieces: Pieces,
    place: OwnedSemaphorePermit,
) {
    let mut committed = api.plane.journal().committed();
    let to = wanted.to.unwrap_or(u64::MAX);
    while reader.position() < to {
        let live = reader.next_live_batch(PIECE_RECORDS, PIECE_BYTES);
        let step = match live {
            Some(batch) => Ok((reader, batch)),
            None => {
                let read = move |_: &Plane| {
                    let batch = reader.next_batch(PIECE_RECORDS, PIECE_BYTES)?;
                    Ok((reader, batch))
                };
                api.plane.blocking(read).await
            }
        };
        let (back, batch) = match step {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the journal cannot be read");
                let _ = pieces.send(Err(Broken)).await;
                break;
            }
        };
        reader = back;
        let mut piece = Vec::with_capacity(batch.items.iter().map(room_for).sum());
        let items = batch.items.iter().filter(|item| offset_of(item) < to);
        items.for_each(|item| put(&mut piece, item, api.plane.history()));
        if !piece.is_empty() && pieces.send(Ok(Bytes::from(piece))).await.is_err() {
            break;
        }
        if !batch.caught_up {
            continue;
        }
        let next = reader.position();
        let more = async {
            wanted.follow
                && committed
                    .wait_for(|committed| *committed > next)
                    .await
                    .is_ok()
        };
        let goes_on = tokio::select! {
            more = more => more,
            () = pieces.closed() => false,
            _ = api.stopping.wait_for(|stopping| *stopping) => false,
        };
        if !goes_on {
            break;
        }
    }
    drop(place);
}

/// What an item takes in a piece, or somewhat more.
fn room_for(item: &Item) -> usize {
    match item {
        Item::Gap { .. } => 64,
        Item::Record(record) => record.payload.len() + 2 * ID_BYTES_MAX,
    }
}

const fn offset_of(item: &Item) -> u64 {
    match item {
        Item::Gap { from, .. } => *from,
        Item::Record(record) => record.offset,
    }
}

/// A time, and where it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    since_ms: u64,
}

/// The first offset that came at a time or later.
pub(super) async fn offset(
    State(api): State<Api>,
    when: Result<Query<When>, QueryRejection>,
) -> Answer {
    let When { since_ms } = query(when)?;
    let find = move |plane: &Plane| plane.journal().offset_since(since_ms);
    let offset = api.plane.blocking(find).await?;
    ok(serde_json::json!({ "offset": offset }))
}

fn put(piece: &mut Vec<u8>, item: &Item, history: &History) {
    match item {
        // Cut, so that its first offset says whether it is withdrawn: `/v1/incarnations` has the ranges.
        Item::Gap { from, to, causes } => {
            for (from, to) in history.pieces(*from, *to) {
                let causes = match history.withdrawn_in(from, to) {
                    Some(_) => Causes::UNKNOWN,
                    None => *causes,
                };
                let hole = Hole { to, causes }.encode();
                record::put(piece, from, UnixMillis(0), Kind::Gap, ("", ""), &hole);
            }
        }
        Item::Record(record) => {
            let kind = match record.kind {
                RecordKind::Event if record.is_purged => Kind::Head,
                RecordKind::Event => Kind::Batch,
                RecordKind::Report => Kind::Report,
                RecordKind::Command => Kind::Command,
                // In a partition of its own.
                RecordKind::Bench => return,
            };
            record::put(
                piece,
                record.offset,
                UnixMillis(record.time_ms),
                kind,
                (&record.host, record.sandbox.as_deref().unwrap_or_default()),
                &record.payload,
            );
        }
    }
}
