//! Makes the golden vectors of `protocol/vectors`: `cargo run -p protocol --example vectors`.
//!
//! It appends what is not there yet, by name. A line that is there is never written again, whatever this program would write today.
//! What is signed here is put together by hand, from `SPEC.md`: the crate refuses to make most of it.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool that people start by hand, whose failed step is a failed run"
)]

mod bad;
mod base62;
mod file;
mod forge;
mod good;
mod item;
mod message;
mod note;
mod statement;
mod stream;
mod vector;
mod world;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
};

use vector::Vector;

fn main() {
    append("good.jsonl", &good::all());
    append("bad.jsonl", &bad::all());
}

/// Adds the vectors whose names `file` does not have.
fn append(file: &str, vectors: &[Vector]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let present = fs::read_to_string(&path).unwrap_or_default();
    let mut known: HashMap<String, &str> =
        present.lines().map(|line| (name_of(line), line)).collect();
    let mut out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .expect("open the file of vectors");
    let mut added = 0;
    for vector in vectors {
        let line = vector.line();
        match known.remove(&name_of(&line)) {
            None => {
                writeln!(out, "{line}").expect("write a vector");
                added += 1;
            }
            Some(present) if present == line => {}
            Some(_) => println!(
                "{file}: kept as it is, though made otherwise today: {}",
                name_of(&line)
            ),
        }
    }
    println!("{file}: {added} added to {}", present.lines().count());
}

fn name_of(line: &str) -> String {
    let vector: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    let name = vector["name"].as_str();
    name.expect("a vector with a name").to_owned()
}
