//! Changes to a good message, as a man in the middle could make them. The fuzzer chooses which.

use crate::input::Input;

/// Changes made to one message at most: more are no nearer to being accepted.
const EDITS_MAX: usize = 8;

/// `good` after the changes that `input` tells. It may come out as it went in.
pub fn edited(good: &[u8], mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        edit(&mut bytes, &mut input);
    }
    bytes
}

fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let kind = input.byte();
    let at = usize::from(input.u16()) % (bytes.len() + 1);
    let value = input.byte();
    let end = (at + usize::from(value)).min(bytes.len());
    match kind % 6 {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= value),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = value),
        2 => bytes.insert(at, value),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.truncate(at),
        _ => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
    }
}
