//! Has the linker leave out of the small programs what nothing there reads.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    // Cargo does not tell a build script its profile's name; of ours, `small` alone asks for "z". There a panic ends the process
    // and nobody walks the stack, and the tables for it are an eighth of the program. GNU's linker, since it alone can keep a part
    // of a table.
    if variable("OPT_LEVEL") != "z" {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-fuse-ld=bfd");
    let folder = variable("CARGO_MANIFEST_DIR");
    link(&format!("-T,{folder}/no-unwind-tables.ld"));
    // The places to adjust at the start as a bit map (DT_RELR), 3 KB for 217. A loader reads it from glibc 2.36 on, which a dynamic
    // program cannot ask of its host; a static one brings its own.
    if variable("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "crt-static")
    {
        link("-z,pack-relative-relocs");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a build script is told everything by its environment"
)]
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn link(argument: &str) {
    println!("cargo::rustc-link-arg-bins=-Wl,{argument}");
}
