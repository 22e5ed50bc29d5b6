//! Writes the seed corpus, from the protocol's own constructors: `cargo run --example seeds`, here, after a message has changed.
//! The first byte of a seed says what its target does with the rest; see `fuzz_targets/`.

mod link;
mod message;
mod signed;
mod stream;
mod text;

use std::{fs, path::Path};

/// What `edit` reads as: flip the lowest bit of byte 40.
const FLIP: [u8; 4] = [0, 0, 40, 1];

fn main() {
    signed::token();
    signed::command();
    signed::report();
    signed::exchange();
    signed::past_the_limits();
    signed::cbor_items();
    stream::batch();
    stream::stream();
    stream::record();
    stream::stream_file();
    text::text();
    link::packet();
    link::server_packet();
}

fn write(target: &str, name: &str, parts: &[&[u8]]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("make the corpus folder");
    fs::write(folder.join(name), parts.concat()).expect("write a seed");
}
