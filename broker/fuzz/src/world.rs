//! The one world of all sessions: who there is, with which keys, and what their tokens grant.

use std::{sync::LazyLock, time::Duration};

use protocol::{
    id::{HostId, ReaderName, SandboxId},
    key::{Host, Secret},
    possession::Nonce,
    reader_token::ReaderToken,
    scope::{Permission, Scope},
    time::UnixMillis,
    token::{Grant, Subject},
};
use zeroize::Zeroizing;

use crate::core::reader::{Account, Accounts, Admitted, Reader, Rights, check};

/// When every session begins.
pub const UNIX: UnixMillis = UnixMillis(1_800_000_000_000);
/// What the broker draws for every challenge.
pub const NONCE: Nonce = [5; 8];
/// A token with its length, as authentication data. What it grants is for the verdict to say.
pub const TOKEN_DATA: &[u8] = b"\x00\x07a token";
/// The topic of the host's commands.
pub const COMMANDS: &str = "v1/edge-1/commands";

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// `edge-1`.
    Host,
    /// `edge-1/build-7`.
    Sandbox,
}

impl Who {
    /// Its subject, and client id.
    pub const fn subject(self) -> &'static str {
        match self {
            Self::Host => "edge-1",
            Self::Sandbox => "edge-1/build-7",
        }
    }

    /// The one topic it may publish to.
    pub const fn own_topic(self) -> &'static str {
        match self {
            Self::Host => "v1/edge-1/reports",
            Self::Sandbox => "v1/edge-1/build-7/events",
        }
    }

    /// What its token permits, if all goes well.
    pub fn scope(self) -> Scope {
        let publish = (self.own_topic().to_owned(), vec![Permission::Pub]);
        match self {
            Self::Host => Scope::new(vec![(COMMANDS.to_owned(), vec![Permission::Sub]), publish]),
            Self::Sandbox => Scope::new(vec![publish]),
        }
    }
}

/// The key that tokens name.
pub static KEY: LazyLock<Secret<Host>> =
    LazyLock::new(|| Secret::from_seed(&Zeroizing::new([1; 32])));
/// One that no token names.
pub static OTHER_KEY: LazyLock<Secret<Host>> =
    LazyLock::new(|| Secret::from_seed(&Zeroizing::new([2; 32])));

/// A grant; every bit of `twists` makes it a little worse. Zero is a good one.
pub fn grant(who: Who, twists: u8, now: UnixMillis) -> Grant {
    let life = match twists >> 3 & 0b11 {
        0 => Duration::from_secs(600),
        1 => Duration::from_secs(3),
        2 => Duration::ZERO,
        _ => Duration::from_secs(48 * 3600),
    };
    let subject = if twists & 1 == 0 {
        who.subject()
    } else {
        "edge-2"
    };
    // Past its leeway if it has no life at all.
    let issued_s = now.seconds() - if life.is_zero() { 60 } else { 0 };
    Grant {
        subject: Subject::parse(subject).expect("a good subject"),
        holder: KEY.public().as_holder(),
        expires_s: issued_s + life.as_secs(),
        scope: match twists >> 1 & 0b11 {
            0 => who.scope(),
            1 => Scope::default(),
            2 => Scope::one("#".to_owned(), Permission::Pub),
            _ => Scope::one("v1/#".to_owned(), Permission::Sub),
        },
        id: [1; 8],
        generation: 1,
    }
}

/// A reader's name, and so its user name.
pub const READER: &str = "grafana";
/// What a reader shows. Whose it is, and what it opens, is for the verdict to say.
pub const PASSWORD: &[u8] = b"a reader's token";

/// What a reader may, by number.
pub fn rights(number: u8) -> Rights {
    let read = |events, reports, host: Option<&str>, sandbox: Option<&str>| Rights::Read {
        events,
        reports,
        metrics: true,
        host: host.map(|id| HostId::new(id).expect("a good id")),
        sandbox: sandbox.map(|id| SandboxId::new(id).expect("a good id")),
    };
    match number & 7 {
        0 => read(true, true, None, None),
        1 => Rights::Bench,
        2 => read(true, false, None, None),
        3 => read(false, true, Some("edge-1"), None),
        4 => read(true, true, Some("edge-1"), None),
        5 => read(true, false, Some("edge-1"), Some("build-7")),
        6 => read(true, true, None, Some("build-7")),
        _ => read(false, false, None, None),
    }
}

/// A reader, let in at `now`: the lowest three bits of `twists` say what it may, the next two how long its token lasts, and the one
/// behind them whether it is somebody else's.
pub fn reader(twists: u8, now: UnixMillis) -> Reader {
    let life_s = [600, 3, 1, 48 * 3600][usize::from(twists >> 3 & 0b11)];
    let name = if twists & 0x20 == 0 { READER } else { "other" };
    let token = ReaderToken::new([1; 8], Zeroizing::new([1; 32]));
    let account = Account {
        name: ReaderName::new(name).expect("a good name"),
        secret_sha256: token.hash(),
        rights: rights(twists),
        expires_ms: (now.seconds() + life_s) * 1000,
    };
    let all = Admitted {
        readers: true,
        bench: true,
        access: false,
    };
    let accounts = Accounts::from([(token.kid, account)]);
    check(token.to_text().as_bytes(), &accounts, all, now).expect("its own token")
}
