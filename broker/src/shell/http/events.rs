//! `GET /v1/events`: a reader's cursor on the journal as server-sent events, over HTTPS.
//!
//! The same rights, seats and ends as over MQTT. The journal is read for it only when the piece before was taken: what a slow reader has
//! not taken stays on the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use protocol::time::UnixMillis;
use tokio::{
    sync::mpsc::error::SendError,
    time::{sleep, timeout, timeout_at},
};

use super::{
    Site,
    pieces::{Broken, Pieces, body},
};
use crate::{
    core::{
        gate::Start,
        principal::{Principal, Who},
        reader::Reader,
        sse::{self, Ask, Asked, Begin, CONTENT_TYPE},
    },
    drive::{Denied, Plane},
    shell::{
        clock,
        journal::{self, Filter, Item},
        listener::Stay,
        registry::{End, NoSeat, Seated},
    },
};

/// How long a stream may be silent; then it says that it is still there, which proxies on the way want to hear (WHATWG HTML, §9.2.7).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a piece may wait to be taken: a piece fits the buffers of any connection that is alive, and a client that comes back later
/// goes on where it was.
const TAKE_WAIT: Duration = Duration::from_secs(60);
/// How long the last word may take, and a connection that nobody reads any more.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// How often the clock is looked at for the end of a token: it may have been set meanwhile.
const CLOCK_EVERY: Duration = Duration::from_secs(2);
/// Pieces that wait for a slow client, besides the one that is being sent.
const PIECES_MAX: usize = 1;
/// Records in one piece.
const PIECE_RECORDS: usize = 256;
/// Bytes of payload in one piece, before they become base64; the last record may pass it.
const PIECE_BYTES: usize = 32 * 1024;

/// Numbers streams, so that each has a seat of its own.
#[derive(Debug, Default)]
pub(super) struct Streams(AtomicU64);

/// Why a request gets no stream, as its client is told.
struct No {
    status: StatusCode,
    /// What it is counted by.
    why: &'static str,
    /// What a client is to show (RFC 6750 §3).
    challenge: Option<&'static str>,
    message: String,
}

impl No {
    fn new(status: StatusCode, why: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            why,
            challenge: None,
            message: message.into(),
        }
    }

    /// What is wrong with a token, nobody is told.
    fn token(why: &'static str, challenge: &'static str) -> Self {
        let message = "show a reader's token: Authorization: Bearer ort1_…";
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, why, message)
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }
}

impl From<sse::Refusal> for No {
    fn from(refusal: sse::Refusal) -> Self {
        if refusal.is_forbidden() {
            let no = Self::new(StatusCode::FORBIDDEN, "not_allowed", refusal.to_string());
            return Self {
                challenge: Some("Bearer error=\"insufficient_scope\""),
                ..no
            };
        }
        Self::bad(refusal.to_string())
    }
}

impl From<NoSeat> for No {
    fn from(no_seat: NoSeat) -> Self {
        let message = format!("no stream now: {no_seat}");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many", message)
    }
}

/// Begins a stream, or says why not.
pub(super) async fn stream(
    State(site): State<Site>,
    Extension(stay): Extension<Arc<Stay>>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let began = match site.authorize(&headers, asked) {
        Ok((reader, ask)) => site.begin(reader, ask, stay).await,
        Err(no) => Err(no),
    };
    let no = match began {
        Ok(response) => return response,
        Err(no) => no,
    };
    site.metrics.refuse_stream(no.why);
    let message = format!("{}\n", no.message);
    let mut response = (no.status, message).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = no.challenge {
        let challenge = HeaderValue::from_static(challenge);
        fields.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A reader that was let in.
struct Admitted {
    reader: Reader,
    who: Who,
}

impl Site {
    /// Who asks is the first question: strangers learn nothing from what else is wrong.
    fn authorize(
        &self,
        headers: &HeaderMap,
        asked: Result<Query<Asked>, QueryRejection>,
    ) -> Result<(Admitted, Ask), No> {
        let shown = headers.get(header::AUTHORIZATION);
        let token = shown.and_then(|value| sse::bearer(value.as_bytes()));
        let token = token.ok_or_else(|| No::token("no_token", "Bearer"))?;
        let checked = self.plane.check_reader(token, self.plane.now());
        let reader = checked.map_err(|bad| {
            self.metrics.refuse_token(Denied::from(bad).word());
            No::token("token", "Bearer error=\"invalid_token\"")
        })?;
        let mut accept = headers.get_all(header::ACCEPT).iter().peekable();
        let is_taken =
            accept.peek().is_none() || accept.any(|value| value.to_str().is_ok_and(sse::accepts));
        if !is_taken {
            let message = "this is a text/event-stream, and Accept does not take one";
            return Err(No::new(
                StatusCode::NOT_ACCEPTABLE,
                "not_acceptable",
                message,
            ));
        }
        let Query(asked) = asked.map_err(|bad| No::bad(bad.body_text()))?;
        let last = headers.get("last-event-id");
        let last = last.map(|id| id.to_str().map_err(|_| sse::Refusal::LastEventId));
        let last = last.transpose()?;
        let number = self.streams.0.fetch_add(1, Ordering::Relaxed);
        // No client id of MQTT has a `#`: nobody takes this one's seat.
        let principal = Principal::reader(&reader, format!("#{number}"));
        let ask = asked.decide(&principal, reader.rights(), last)?;
        let who = principal.who().clone();
        Ok((Admitted { reader, who }, ask))
    }

    async fn begin(
        &self,
        Admitted { reader, who }: Admitted,
        ask: Ask,
        stay: Arc<Stay>,
    ) -> Result<Response, No> {
        let claim = self.registry.claim(&who, false, clock::mono()).await?;
        let seat = claim.evict().await?;
        // From here on a removal finds us in the registry; one that came before is found here.
        if self.plane.is_withdrawn(&who) {
            return Err(No::token("token", "Bearer error=\"invalid_token\""));
        }
        let begun = self.plane.blocking(move |plane| cursor(plane, &ask));
        let cursor = begun.await.map_err(|error| {
            let error = format!("{error:#}");
            tracing::error!(error, "the journal cannot be read for a reader");
            No::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", UNREADABLE)
        })?;
        self.plane.note_reading(reader.name());
        stay.settle();
        let (pieces, body) = body(PIECES_MAX);
        let streaming = Streaming {
            site: self.clone(),
            who,
            seat,
            expires: UnixMillis(reader.expires_ms()),
            pieces,
            stay,
        };
        tokio::spawn(streaming.run(cursor));
        Ok(response(body))
    }
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [
        (header::CONTENT_TYPE, CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
        // The connection was let stay for this stream alone.
        (header::CONNECTION, "close"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// An offset that is still to come is one of another journal: it begins with what comes next, as over MQTT.
/// Blocks.
fn cursor(plane: &Plane, ask: &Ask) -> anyhow::Result<journal::Reader> {
    let journal = plane.journal();
    let next = journal.next_offset();
    let from = match ask.begin {
        Begin::With(Start::Now) => next,
        Begin::With(Start::Oldest) => journal.oldest(),
        Begin::With(Start::Offset(offset)) => offset.min(next),
        Begin::Since(moment) => journal.offset_since(moment.at(plane.now()).0)?,
    };
    let filters = ask.selected.iter().map(|selected| {
        let mut filter = Filter::from(&selected.filter);
        filter.sandbox = selected.sandbox.as_ref().map(ToString::to_string);
        filter
    });
    Ok(journal.reader_of_any(from, filters.collect()))
}

/// A stream, from when it is let in to its end.
struct Streaming {
    site: Site,
    who: Who,
    seat: Seated,
    expires: UnixMillis,
    pieces: Pieces,
    stay: Arc<Stay>,
}

impl Streaming {
    async fn run(mut self, cursor: journal::Reader) {
        let (plane, who) = (&self.site.plane, &self.who);
        self.site.metrics.streams.add();
        self.site.metrics.admitted.add();
        tracing::info!(%who, "reads a stream of events");
        let why = tokio::select! {
            biased;
            end = &mut self.seat.end => end.map_or(NOBODY, |End { why, .. }| why),
            () = passed(plane, self.expires) => "its token has ended",
            () = self.pieces.closed() => "the client closed the connection",
            why = feed(plane, cursor, &self.pieces) => why,
        };
        let mut last = Vec::new();
        sse::put_farewell(&mut last, why);
        let last = if why == UNREADABLE {
            Err(Broken)
        } else {
            Ok(last.into())
        };
        // A client that has left something unread gets on without it.
        let _ = self.pieces.try_send(last);
        drop(self.pieces);
        self.stay.end_within(FAREWELL_WAIT);
        // The seat is free when the connection is gone: the broker waits for it when it stops.
        let _ = timeout(2 * FAREWELL_WAIT, self.stay.over()).await;
        self.site.metrics.ended.add();
        self.site.metrics.end_stream(why);
        tracing::info!(%who, why, "its stream of events has ended");
    }
}

const NOBODY: &str = "its seat is gone";
const UNREADABLE: &str = "the journal cannot be read";

/// Resolves at the time `end`, by a clock that may be set.
async fn passed(plane: &Plane, end: UnixMillis) {
    loop {
        let left = end.since(plane.now());
        if left.is_zero() {
            return;
        }
        sleep(left.min(CLOCK_EVERY)).await;
    }
}

/// Reads the journal as its client takes it, without end; or why there is one.
async fn feed(plane: &Plane, mut cursor: journal::Reader, pieces: &Pieces) -> &'static str {
    let mut committed = plane.journal().committed();
    let mut piece = Vec::new();
    sse::put_greeting(&mut piece);
    let mut silent_until = clock::mono() + KEEP_ALIVE;
    loop {
        // Room first: nothing is read that nobody takes.
        let room = match timeout(TAKE_WAIT, pieces.reserve()).await {
            Ok(Ok(room)) => room,
            Ok(Err(SendError(()))) => return "the client closed the connection",
            Err(_) => return "the client takes no bytes",
        };
        if clock::mono() >= silent_until {
            sse::put_keep_alive(&mut piece, cursor.position());
        }
        if !piece.is_empty() {
            room.send(Ok(std::mem::take(&mut piece).into()));
            silent_until = clock::mono() + KEEP_ALIVE;
            continue;
        }
        let step = match read(plane, cursor).await {
            Ok(step) => step,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the journal cannot be read for a reader");
                return UNREADABLE;
            }
        };
        cursor = step.cursor;
        if !step.piece.is_empty() {
            room.send(Ok(step.piece.into()));
            silent_until = clock::mono() + KEEP_ALIVE;
        }
        if step.is_caught_up {
            let next = cursor.position();
            let news = committed.wait_for(|committed| *committed > next);
            // Whether something came or nothing did, it is looked at above.
            let _ = timeout_at(silent_until.into(), news).await;
        }
    }
}

/// What one look at the journal brought.
struct Step {
    cursor: journal::Reader,
    piece: Vec<u8>,
    is_caught_up: bool,
}

/// Reads on, away from the runtime's threads.
async fn read(plane: &Plane, mut cursor: journal::Reader) -> anyhow::Result<Step> {
    let (mut piece, history) = (Vec::new(), plane.history());
    let live = cursor.give_live(PIECE_RECORDS, PIECE_BYTES, |record| {
        sse::put_record(&mut piece, &record, history.of(record.offset));
    });
    if let Some(live) = live {
        return Ok(Step {
            cursor,
            piece,
            is_caught_up: live.caught_up,
        });
    }
    let step = tokio::task::spawn_blocking(move || {
        let batch = cursor.next_batch(PIECE_RECORDS, PIECE_BYTES)?;
        anyhow::Ok((cursor, batch))
    });
    let (cursor, batch) = step.await??;
    for item in &batch.items {
        match item {
            Item::Gap { from, to, causes } => {
                let withdrawn = history.withdrawn_in(*from, *to);
                sse::put_gap(&mut piece, *from, *to, *causes, withdrawn);
            }
            Item::Record(record) => {
                let incarnation = history.of(record.offset);
                sse::put_record(&mut piece, &record.as_record(), incarnation);
            }
        }
    }
    Ok(Step {
        cursor,
        piece,
        is_caught_up: batch.caught_up,
    })
}

#[cfg(test)]
mod tests;
