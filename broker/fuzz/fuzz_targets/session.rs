//! Whole sessions: CONNECT, AUTH, then anything, from the client, from the shell around the gate, and from time.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| broker_fuzz::play::play(data));
