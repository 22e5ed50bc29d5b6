//! Every maximum that the wire knows, with its reason. What crosses the boundary is small; these numbers keep it so.

/// The longest MQTT packet, in bytes. A batch of events fits with room for its head and topic.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// The most a peer may send before it is authenticated, in bytes: a CONNECT with a two-link token is under 1 KiB.
pub const PACKET_BYTES_BEFORE_AUTH_MAX: usize = 4 * 1024;

/// Unacknowledged QoS 1 messages each way (MQTT 5.0 §3.2.2.3.3).
pub const RECEIVE_MAXIMUM: u16 = 128;

/// The longest id, in bytes: a DNS label and one to spare.
pub const ID_BYTES_MAX: usize = 64;

/// The longest topic, in bytes: `v1/<64>/<64>/events`, rounded up.
pub const TOPIC_BYTES_MAX: usize = 256;

/// The longest token, in bytes; a sandbox token with its parent is about 500.
pub const TOKEN_BYTES_MAX: usize = 2 * 1024;

/// Entries in a token's scope. A host needs two, a sandbox one, a reader a few.
pub const SCOPE_ENTRIES_MAX: usize = 16;

/// The longest signed command or report, in bytes: it fits one packet with its topic.
pub const MESSAGE_BYTES_MAX: usize = 60 * 1024;

/// The longest request or answer of the token exchange, in bytes.
pub const EXCHANGE_BYTES_MAX: usize = 8 * 1024;

/// Successions in one request: with a host's longest name one takes 264 bytes. A host that is further ahead asks again.
pub const SUCCESSIONS_MAX: usize = 24;

const _: () = assert!(
    SUCCESSIONS_MAX * 270 + WITNESS_NOTE_BYTES_MAX + 512 <= EXCHANGE_BYTES_MAX,
    "a request that no broker would read"
);

/// Certificate authorities that a grant names: the broker's own, those before it that have not ended, and some of its owner's.
pub const AUTHORITIES_MAX: usize = 8;

/// The bytes of these together: an EC one is about 500, an RSA one 1,500; beside the longest token they fit the exchange.
pub const AUTHORITIES_BYTES_MAX: usize = 5 * 1024;

const _: () = assert!(
    TOKEN_BYTES_MAX + AUTHORITIES_BYTES_MAX + 512 <= EXCHANGE_BYTES_MAX,
    "a grant that no host would read"
);

/// The longest checkpoint that a witness keeps, shows or is shown, in bytes: a name of 64 bytes three times, two signatures of the audit
/// key and one cosignature are about 700.
pub const WITNESS_NOTE_BYTES_MAX: usize = 1024;

/// The longest verifier's key in an answer of the exchange, in bytes: the longest name, and 54 bytes around its key.
pub const VKEY_BYTES_MAX: usize = 320;

/// Checkpoints cosigned by other hosts that a grant carries. They are the newest, so over some renewals a host is shown those of many; a
/// broker puts in fewer where the exchange has no room.
pub const COSIGNED_MAX: usize = 4;

/// Changes of the audit key that a grant carries: hosts that missed more are told by their owner.
pub const HANDOVERS_MAX: usize = 4;

/// Events in one batch. 64 is normal, 256 under load: past that a verify costs no less per event.
pub const BATCH_EVENTS_MAX: usize = 256;

/// Events in a batch when nothing presses.
pub const BATCH_EVENTS_NORMAL: usize = 64;

/// The longest body of a batch, in bytes: 256 events of 233 bytes fit. With its head it fits a packet, and inside a `forwarded` report
/// too.
pub const BATCH_BODY_BYTES_MAX: usize = 59 * 1024;

/// The longest signed head of a batch, in bytes; an ordinary one is about 250.
pub const BATCH_HEAD_BYTES_MAX: usize = 512;

/// Heads of a stream that are remembered, to know a batch that comes again: a shim has at most [`RECEIVE_MAXIMUM`] unacknowledged,
/// which its operator may forward once more.
pub const HEADS_REMEMBERED: usize = 256;

/// Batches of one sandbox that wait for the report that names their key, 64 MiB of them at the most. Past that the host's report is long
/// due.
pub const BATCHES_WAITING_MAX: usize = 1024;

/// How long a batch may wait for its next event, in milliseconds.
pub const BATCH_WAIT_MS_MAX: u64 = 100;

/// How long a stream may be silent before its writer seals an empty batch, in milliseconds.
pub const HEARTBEAT_WAIT_MS: u64 = 60_000;

/// The most data one event carries, in bytes. A longer line is split with a continuation mark.
pub const EVENT_DATA_BYTES_MAX: usize = 8 * 1024;

/// Arguments of a launched command.
pub const ARGUMENTS_MAX: usize = 256;

/// The longest argument, environment value or image reference, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 32 * 1024;

/// Environment variables of a launched command.
pub const ENVIRONMENT_MAX: usize = 128;

/// Sources that one sandbox may name.
pub const SOURCES_MAX: usize = 16;

/// The longest free text in a report, in bytes: a reason that a person reads.
pub const DETAIL_BYTES_MAX: usize = 512;

/// The longest name in a report that is not ours, in bytes: an engine's id of an image or a container, an operator's version.
pub const REPORT_NAME_BYTES_MAX: usize = 256;

/// Sandboxes that one `status` or `reconciled` report lists. A host that runs more sends several.
pub const REPORT_SANDBOXES_MAX: usize = 256;

/// The longest a command may live, in milliseconds: hosts remember ids until they expire, and must not remember for ever.
pub const COMMAND_LIFE_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// How far two clocks may differ before a date is refused, in seconds. RFC 8392 leaves it to us; no more than this, anywhere.
pub const LEEWAY_S: u64 = 60;

/// Life of a host's connection token, in seconds.
pub const HOST_TOKEN_LIFE_S_MAX: u64 = 3600;

/// Life of a sandbox's token, in seconds.
pub const SANDBOX_TOKEN_LIFE_S_MAX: u64 = 15 * 60;

/// Dispatchers that a bundle or a policy may list.
pub const DISPATCHERS_MAX: usize = 64;

/// Statements of dispatchers that a broker passes on and a host keeps: a key of each of them that is followed or revoked.
pub const STATEMENTS_MAX: usize = 64;

/// The first label that a reader of an open message skips if it does not know it; below, it must know what it reads.
pub const OPEN_LABELS_FROM: i64 = 64;

/// Items of one array: no list is longer. A longer one is refused by its head, before there is room for it.
pub const ARRAY_ITEMS_MAX: u64 = 256;

/// Pairs of one map. Ours have at most 11; and 23 fit the first byte of its head.
pub const MAP_PAIRS_MAX: u64 = 23;

/// How deep arrays and maps may nest in a value that is skipped.
pub const SKIPPED_DEPTH_MAX: usize = 8;

const _: () = assert!(
    ARGUMENTS_MAX as u64 <= ARRAY_ITEMS_MAX
        && ENVIRONMENT_MAX as u64 <= ARRAY_ITEMS_MAX
        && SOURCES_MAX as u64 <= ARRAY_ITEMS_MAX
        && SCOPE_ENTRIES_MAX as u64 <= ARRAY_ITEMS_MAX
        && REPORT_SANDBOXES_MAX as u64 <= ARRAY_ITEMS_MAX,
    "a list that no reader would take"
);
