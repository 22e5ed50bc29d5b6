//! Readers and load tests: how they are added, and how they connect, publish and hear.

use std::fs;

use tests::world::BrokerTerms;

use crate::{
    bystander::packet_id,
    bytes::{Hello, Post, puback, text},
    site::{Site, run_on},
    wire::Wire,
};

/// A reader that the owner added.
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) token: String,
}

/// Runs a case where readers and load tests are let in.
pub(crate) fn run_open(case: impl FnOnce(&mut Site)) {
    let terms = BrokerTerms {
        flags: &["--allow-readers", "--allow-bench"],
        ..BrokerTerms::default()
    };
    run_on(terms, case);
}

pub(crate) fn add(site: &mut Site, name: &str, more: &[&str]) -> Reader {
    let path = site.world.path(&format!("{name}.token"));
    let _ = fs::remove_file(&path);
    let file = path.to_string_lossy();
    let arguments = [&["reader", "add", name, "--output", &file], more].concat();
    site.world.outhaul_ok(&arguments).unwrap();
    let token = fs::read_to_string(&path).unwrap().trim().to_owned();
    site.secrets.add(token.as_bytes());
    Reader {
        name: name.to_owned(),
        token,
    }
}

pub(crate) fn remove(site: &Site, name: &str) {
    let removed = site.world.outhaul_ok(&["reader", "remove", name]);
    removed.unwrap();
}

/// A CONNECT with a user name and a password.
pub(crate) fn hello_of(client_id: &str, user: &str, password: &str) -> Hello {
    Hello {
        flags: 0xC2,
        properties: Vec::new(),
        rest: [text(user), text(password)].concat(),
        ..Hello::new(client_id, &[])
    }
}

/// The same of MQTT 3.1.1.
pub(crate) fn older(hello: Hello) -> Hello {
    Hello { level: 4, ..hello }
}

/// A return code of MQTT 3.1.1.
pub(crate) fn older_connack(code: u8) -> [u8; 4] {
    [0x20, 2, 0, code]
}

impl Reader {
    pub(crate) fn hello(&self) -> Hello {
        hello_of(&self.name, &self.name, &self.token)
    }

    /// Under a client id, with what was kept of it, and to be kept for ten minutes.
    pub(crate) fn again(&self, client_id: &str) -> Hello {
        Hello {
            flags: 0xC0,
            ..hello_of(client_id, &self.name, &self.token).with(vec![0x11, 0, 0, 2, 88])
        }
    }
}

/// Online, and whether a session of it goes on.
#[track_caller]
pub(crate) fn online(site: &Site, hello: &Hello) -> (Wire, bool) {
    let mut wire = site.dial();
    wire.send(&hello.bytes());
    let answer = wire.packet();
    assert!(answer[0] == 0x20 && answer[3] == 0, "{answer:02X?}");
    (wire, answer[2] == 1)
}

/// A load test that publishes, one message after the other.
#[track_caller]
pub(crate) fn publish(wire: &mut Wire, topic: &str, payloads: &[&[u8]]) {
    for (number, payload) in (1..).zip(payloads) {
        let post = Post::new(topic, number, payload);
        wire.says(&post.bytes(), &puback(number, 0));
    }
}

/// The next message, and what it says.
#[track_caller]
pub(crate) fn message(wire: &mut Wire, payload: &[u8]) -> u16 {
    let publish = wire.packet();
    assert!(publish[0] & 0xF0 == 0x30 && publish.ends_with(payload));
    packet_id(&publish)
}
