//! The journal, as a stream of records: a CBOR sequence (RFC 8742) of arrays of six.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use protocol::{
    hole::{Causes, Hole},
    id::{HostId, SandboxId},
    record::{self, Kind},
    time::UnixMillis,
};
use serde::Deserialize;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    Api,
    answer::{Answer, No, ok},
    host::read_host,
    route::query,
};
use crate::{
    core::{
        incarnation::History,
        journal::{ID_BYTES_MAX, Record, RecordKind},
    },
    drive::{Peer, Plane},
    shell::{
        http::{Broken, Pieces, Visit, body},
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
/// How long the last word of a stream that ends early may take.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// How long a client over HTTPS may leave a piece untaken: it fits the buffers of any connection that is alive.
const TAKE_WAIT: Duration = Duration::from_secs(60);

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
    Extension(peer): Extension<Peer>,
    visit: Option<Extension<Arc<Visit>>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let wanted = query(wanted)?;
    let chosen = choose(&wanted, &peer)?;
    let Ok(place) = api.streams.clone().try_acquire_owned() else {
        return Err(No::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many streams are read at once: end one of them",
        ));
    };
    let (host, sandbox) = (chosen.host.as_ref(), chosen.sandbox.as_ref());
    api.plane.begin_reading(&peer, host, sandbox).await?;
    let reader = api.plane.journal().reader(wanted.from, chosen.filter());
    let (pieces, body) = body(PIECES_MAX);
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    let visit = visit.map(|Extension(visit)| visit);
    if let Some(visit) = &visit {
        visit.settle();
        // The connection was let stay for this stream alone.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let streaming = Streaming {
        api,
        peer,
        wanted,
        pieces,
        visit,
        _place: place,
    };
    tokio::spawn(streaming.run(reader));
    Ok(response)
}

/// What is read.
struct Chosen {
    host: Option<HostId>,
    sandbox: Option<SandboxId>,
    kind: Option<RecordKind>,
}

impl Chosen {
    fn filter(&self) -> Filter {
        Filter {
            host: self.host.as_ref().map(ToString::to_string),
            sandbox: self.sandbox.as_ref().map(ToString::to_string),
            kind: self.kind,
        }
    }
}

fn choose(wanted: &Wanted, peer: &Peer) -> Result<Chosen, No> {
    let host = wanted.host.as_deref().map(read_host).transpose()?;
    // Who is limited to a host and names none reads that one.
    let host = host.or_else(|| peer.only_host().cloned());
    if let Some(host) = &host {
        peer.reach(host)?;
    }
    let sandbox = wanted.sandbox.as_deref().map(SandboxId::new).transpose();
    let sandbox = sandbox.map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    let kind = match wanted.kind.as_deref() {
        None => None,
        Some("event") => Some(RecordKind::Event),
        Some("report") => Some(RecordKind::Report),
        Some("command") => Some(RecordKind::Command),
        Some(_) => return Err(No::bad("kind is event, report or command")),
    };
    Ok(Chosen {
        host,
        sandbox,
        kind,
    })
}

/// A stream, from when it is let in to its end.
struct Streaming {
    api: Api,
    peer: Peer,
    wanted: Wanted,
    pieces: Pieces,
    /// Of one that came over HTTPS.
    visit: Option<Arc<Visit>>,
    _place: OwnedSemaphorePermit,
}

impl Streaming {
    /// Reads until the end, or for ever; ends when nobody listens any more, who listens may no more, or the broker stops.
    async fn run(self, reader: Reader) {
        let is_whole = tokio::select! {
            biased;
            // Whoever asks again hears why.
            () = self.api.plane.access_ended(&self.peer) => false,
            is_whole = self.read(reader) => is_whole,
        };
        let Self { pieces, visit, .. } = self;
        let wait = if is_whole { TAKE_WAIT } else { FAREWELL_WAIT };
        if let Some(visit) = &visit {
            visit.end_within(wait);
        }
        let over = async {
            match &visit {
                Some(visit) => visit.over().await,
                None => std::future::pending().await,
            }
        };
        if !is_whole {
            // Broken off, so that nobody takes it for the end of what there is.
            tokio::select! {
                _ = pieces.send(Err(Broken)) => {}
                () = over => {}
            }
            return;
        }
        drop(pieces);
        if visit.is_some() {
            // It counts as its token's until its connection is gone.
            over.await;
        }
    }

    /// Whether it came to its end.
    async fn read(&self, mut reader: Reader) -> bool {
        let plane = &self.api.plane;
        let mut committed = plane.journal().committed();
        let mut stopping = self.api.stopping.clone();
        let to = self.wanted.to.unwrap_or(u64::MAX);
        let mut last_bytes = 0;
        while reader.position() < to {
            let mut piece = Vec::with_capacity(last_bytes);
            let live = reader.give_live(PIECE_RECORDS, PIECE_BYTES, |record| {
                if record.offset < to {
                    put_record(&mut piece, &record);
                }
            });
            let caught_up = match live {
                Some(live) => live.caught_up,
                None => {
                    let read = move |_: &Plane| {
                        let batch = reader.next_batch(PIECE_RECORDS, PIECE_BYTES)?;
                        Ok((reader, batch))
                    };
                    let batch = match plane.blocking(read).await {
                        Ok((back, batch)) => {
                            reader = back;
                            batch
                        }
                        Err(error) => {
                            tracing::error!(
                                error = format!("{error:#}"),
                                "the journal cannot be read"
                            );
                            return false;
                        }
                    };
                    piece.reserve(batch.items.iter().map(room_for).sum());
                    let items = batch.items.iter().filter(|item| offset_of(item) < to);
                    items.for_each(|item| put(&mut piece, item, plane.history()));
                    batch.caught_up
                }
            };
            last_bytes = piece.len();
            if !piece.is_empty() && !self.give(piece).await {
                return false;
            }
            if !caught_up {
                continue;
            }
            let next = reader.position();
            let more = async {
                self.wanted.follow
                    && committed
                        .wait_for(|committed| *committed > next)
                        .await
                        .is_ok()
            };
            let goes_on = tokio::select! {
                more = more => more,
                () = self.pieces.closed() => false,
                _ = stopping.wait_for(|stopping| *stopping) => false,
            };
            if !goes_on {
                break;
            }
        }
        true
    }

    /// Whether it was taken. Over HTTPS a client that takes nothing for long has gone without a word.
    async fn give(&self, piece: Vec<u8>) -> bool {
        let giving = self.pieces.send(Ok(Bytes::from(piece)));
        match &self.visit {
            None => giving.await.is_ok(),
            Some(_) => matches!(timeout(TAKE_WAIT, giving).await, Ok(Ok(()))),
        }
    }
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
        Item::Record(record) => put_record(piece, &record.as_record()),
    }
}

fn put_record(piece: &mut Vec<u8>, record: &Record<'_>) {
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
        (record.host, record.sandbox.unwrap_or_default()),
        record.payload,
    );
}
