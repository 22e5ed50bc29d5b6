//! Install keys and reader tokens by hand (`SPEC.md`, 1.6 and 1.7): any parts, with a check that fits them or not.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The key of this byte, again and again.
pub(crate) fn install_key(byte: u8) -> String {
    checked(&front(&base62(&[byte; 8], 11), &base62(&[byte; 32], 43)))
}

/// The reader token of this byte, again and again.
pub(crate) fn reader_token(byte: u8) -> String {
    let (kid, secret) = (base62(&[byte; 8], 11), base62(&[byte; 32], 43));
    checked(&format!("ort1_{kid}_{secret}"))
}

/// All that the check is over.
pub(crate) fn front(kid: &str, secret: &str) -> String {
    format!("ohk1_{kid}_{secret}")
}

/// The same with its check.
pub(crate) fn checked(front: &str) -> String {
    let check = crc32(front.as_bytes()).to_be_bytes();
    format!("{front}_{}", base62(&check, 6))
}

/// A big-endian number in so many digits.
pub(crate) fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits: Vec<char> = (0..width)
        .map(|_| {
            let mut rest = 0;
            for byte in &mut number {
                let value = rest * 256 + u32::from(*byte);
                *byte = (value / 62).to_le_bytes()[0];
                rest = value % 62;
            }
            char::from(DIGITS[rest as usize])
        })
        .collect();
    digits.reverse();
    digits.iter().collect()
}

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}
