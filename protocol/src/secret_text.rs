//! How a secret is written for people to carry: `<prefix>_<kid>_<secret>_<check>`, in base 62.
//!
//! The prefix is for secret scanners, the check catches a bad copy before it costs an attempt.

use zeroize::{Zeroize as _, Zeroizing};

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits for 8 bytes, 32 bytes, 4 bytes in base 62.
const KID_DIGITS: usize = 11;
const SECRET_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;

/// Writes it.
pub(crate) fn write(prefix: &str, kid: &[u8; 8], secret: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(format!("{prefix}_"));
    text.reserve_exact(KID_DIGITS + SECRET_DIGITS + CHECK_DIGITS + 3);
    push_base62(&mut text, kid, KID_DIGITS);
    text.push('_');
    push_base62(&mut text, secret, SECRET_DIGITS);
    let check = crc32(text.as_bytes());
    text.push('_');
    push_base62(&mut text, &check.to_be_bytes(), CHECK_DIGITS);
    text
}

/// Reads it, white space around it ignored: the kid, and the secret.
pub(crate) fn read(prefix: &str, text: &str) -> Option<([u8; 8], Zeroizing<[u8; 32]>)> {
    let (checked, check) = text.trim().rsplit_once('_')?;
    let mut parts = checked.split('_');
    let (Some(found), Some(kid), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let expected = from_base62::<4>(check, CHECK_DIGITS)?;
    if found != prefix || crc32(checked.as_bytes()).to_be_bytes() != expected {
        return None;
    }
    let kid = from_base62(kid, KID_DIGITS)?;
    Some((kid, from_base62(secret, SECRET_DIGITS).map(Zeroizing::new)?))
}

fn push_base62(text: &mut String, bytes: &[u8], width: usize) {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new(vec![b'0'; width]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u16;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            remainder = value % 62;
        }
        *digit = DIGITS.get(usize::from(remainder)).copied().unwrap_or(b'0');
    }
    text.extend(digits.iter().map(|digit| char::from(*digit)));
}

fn from_base62<const N: usize>(text: &str, width: usize) -> Option<[u8; N]> {
    if text.len() != width {
        return None;
    }
    let mut number = [0_u8; N];
    for digit in text.bytes() {
        let mut carry = u16::try_from(DIGITS.iter().position(|d| *d == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u16::from(*byte) * 62 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            number.zeroize();
            return None;
        }
    }
    Some(number)
}

/// CRC-32 (IEEE 802.3), bit by bit: it runs once a key.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_the_usual_crc_and_digits_past_the_bytes_are_refused() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(from_base62::<4>("zzzzzz", 6), None, "past 32 bits");
    }

    #[test]
    fn a_secret_of_another_kind_is_refused() {
        let text = write("ohk1", &[1; 8], &[2; 32]);
        assert!(read("ort1", &text).is_none());
        assert_eq!(read("ohk1", &text), Some(([1; 8], Zeroizing::new([2; 32]))));
    }
}
