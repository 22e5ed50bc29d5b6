//! A reader over HTTPS: curl, dialled again after every kill with the last id it has seen, as an `EventSource` does.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tests::{
    sse::{Curl, Event},
    wait,
    world::World,
};

/// What a follower shares with the test.
#[derive(Default)]
pub(crate) struct Seen {
    /// The greatest offset that it has seen.
    pub(crate) last: AtomicU64,
    /// When its stream ends, it does not come back.
    pub(crate) is_over: AtomicBool,
}

/// What a follower needs.
pub(crate) struct Follower {
    header: PathBuf,
    port: u16,
    ca: PathBuf,
}

impl Follower {
    pub(crate) fn new(world: &World) -> Self {
        let token = world.path("siem.token");
        let file = token.to_string_lossy();
        let arguments = ["reader", "add", "siem", "--output", &file];
        world.outhaul_ok(&arguments).unwrap();
        let token = std::fs::read_to_string(&*file).unwrap();
        let header = world.path("siem.header");
        std::fs::write(&header, format!("Authorization: Bearer {}", token.trim())).unwrap();
        Self {
            header,
            port: world.port,
            ca: world.path("broker/keys/ca.crt"),
        }
    }

    /// Every event in the order it came, until the test is over.
    pub(crate) fn run(&self, seen: &Arc<Seen>) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut last_id: Option<String> = None;
        while !seen.is_over.load(Ordering::Relaxed) {
            let again = last_id.as_deref();
            let mut stream =
                Curl::begin_at(self.port, &self.ca, &self.header, "?from=oldest", again).unwrap();
            while let Some(event) = stream.next_event().unwrap() {
                seen.last.fetch_max(event.id, Ordering::Relaxed);
                events.push(event);
            }
            if !stream.parser.last_id.is_empty() {
                last_id = Some(stream.parser.last_id.clone());
            }
            wait::pause();
        }
        events
    }
}
