//! Seeds of what comes as text or as bare bytes.

use protocol::{
    install_key::InstallKey,
    key::{Dispatcher, Host, Sandbox},
    possession,
    reader_token::ReaderToken,
};
use protocol_fuzz::{
    input::chunk,
    world::{self, DISPATCHER, HOST, SANDBOX},
};
use zeroize::Zeroizing;

use crate::write;

pub fn text() {
    let text = |kind: u8, name: &str, text: &str| write("text", name, &[&[kind], text.as_bytes()]);
    let key = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
    let proof = possession::prove(world::secret::<Sandbox>(SANDBOX), &[1; 8], &[2; 8]);
    let mut weak = [0; 32];
    weak[0] = 1;
    let mut past = [0xff; 32];
    (past[0], past[31]) = (0xf0, 0x7f);
    write("text", "key-bytes-past-the-field", &[&[1], &past]);
    write("text", "proof", &[&[0], &proof]);
    write(
        "text",
        "key-bytes",
        &[&[1], world::public::<Host>(HOST).as_bytes()],
    );
    write("text", "key-bytes-weak", &[&[1], &weak]);
    let filters = [
        "v1/edge-1/+/events",
        "v1/edge-1/build-7/events",
        "v1/edge-1/build-7/events",
    ];
    write(
        "text",
        "filters-that-cover",
        &[&[2], &filters.map(|f| chunk(f.as_bytes())).concat()],
    );
    let filters = ["a/#", "+/+/#", "a"];
    write(
        "text",
        "filters-of-many-levels",
        &[&[2], &filters.map(|f| chunk(f.as_bytes())).concat()],
    );
    text(
        3,
        "key-of-a-dispatcher",
        &world::public::<Dispatcher>(DISPATCHER).to_string(),
    );
    text(3, "key-of-a-host", &world::public::<Host>(HOST).to_string());
    text(
        3,
        "secret-key-of-a-host",
        &world::secret::<Host>(HOST).to_file_text(),
    );
    text(4, "install-key", &key.to_text());
    let token = ReaderToken::new([3; 8], Zeroizing::new([4; 32]));
    text(4, "reader-token", &token.to_text());
    text(5, "topic-of-events", "v1/edge-1/build-7/events");
    text(5, "topic-of-commands", "v1/edge-1/commands");
    text(5, "subject-of-a-sandbox", "edge-1/build-7");
    text(5, "image", "registry.example:5000/tool@sha256:9f");
}
