//! The header that a load balancer puts before a connection, to say whose it is: PROXY protocol, version 2 (HAProxy, 2020/03/05).
//!
//! Read from bytes, bounded, without allocating. Version 1 is refused: it has no length, and everything speaks 2. What stands behind
//! the addresses (TLVs: names, TLS versions, checksums) must be whole and is not used.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How every header begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub const HEAD_BYTES: usize = 16;
/// The longest header taken, in bytes. Addresses are 36 at the most; load balancers of clouds add a hundred or two.
pub const HEADER_BYTES_MAX: usize = 1024;

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not all is there yet: so many bytes are needed in all.
    More(usize),
    /// A whole header, of so many bytes.
    Whole {
        /// How many bytes it takes.
        bytes: usize,
        /// Who the client is; none, if the connection is the load balancer's own (its health check) or it does not know.
        client: Option<IpAddr>,
    },
}

/// Why what a load balancer sent is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It begins with something else: TLS, or version 1.
    #[error("no PROXY header of version 2 comes first")]
    Missing,
    /// Another version, or a command that is not known.
    #[error("a PROXY header of a version or command that is not known")]
    Version,
    /// Not TCP, or a family that is not known.
    #[error("a PROXY header that is not for TCP")]
    Family,
    /// It says that it is longer than we take.
    #[error("a PROXY header of more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Its addresses do not fit its length, or what follows them is cut off.
    #[error("a PROXY header whose parts do not fit its length")]
    Malformed,
}

/// Reads the beginning of a connection. What is wrong is said as soon as it can be known.
///
/// # Errors
/// [`ProxyError`].
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let signed = bytes.len().min(SIGNATURE.len());
    if bytes.get(..signed) != SIGNATURE.get(..signed) {
        return Err(ProxyError::Missing);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(Parsed::More(HEAD_BYTES));
    };
    let [.., command, family, high, low] = *head;
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Version),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let total = HEAD_BYTES + length;
    if total > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::More(total));
    };
    let client = if is_local {
        // What follows is to be skipped, whatever it is.
        None
    } else {
        client_of(family, body)?
    };
    Ok(Parsed::Whole {
        bytes: total,
        client,
    })
}

/// The source address: the first of source, destination and their ports.
fn client_of(family: u8, body: &[u8]) -> Result<Option<IpAddr>, ProxyError> {
    let (client, tlvs) = match family {
        // Unknown to the load balancer; nothing says how long its addresses are.
        0x00 => return Ok(None),
        0x11 => {
            let (addresses, tlvs) = body
                .split_first_chunk::<12>()
                .ok_or(ProxyError::Malformed)?;
            let [a, b, c, d, ..] = *addresses;
            (IpAddr::from(Ipv4Addr::new(a, b, c, d)), tlvs)
        }
        0x21 => {
            let (addresses, tlvs) = body
                .split_first_chunk::<36>()
                .ok_or(ProxyError::Malformed)?;
            let (source, _) = addresses
                .split_first_chunk::<16>()
                .ok_or(ProxyError::Malformed)?;
            (IpAddr::from(Ipv6Addr::from(*source)), tlvs)
        }
        _ => return Err(ProxyError::Family),
    };
    check_tlvs(tlvs)?;
    Ok(Some(client))
}

/// Type, two bytes of length, value; one behind the other to the end.
fn check_tlvs(mut rest: &[u8]) -> Result<(), ProxyError> {
    while !rest.is_empty() {
        let ([_, high, low], after) = rest.split_first_chunk().ok_or(ProxyError::Malformed)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = after.get(length..).ok_or(ProxyError::Malformed)?;
    }
    Ok(())
}

/// A header as a load balancer writes it, for tests.
#[cfg(test)]
pub(crate) fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xC3, 0x50, 0x20, 0xFB];

    fn tcp6() -> Vec<u8> {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&address.octets()[..], &[0; 16], &[1, 2, 3, 4]].concat()
    }

    fn client(bytes: &[u8]) -> Option<IpAddr> {
        match parse(bytes).unwrap() {
            Parsed::Whole {
                client,
                bytes: total,
            } => {
                assert_eq!(total, bytes.len());
                client
            }
            Parsed::More(_) => panic!("not whole"),
        }
    }

    #[test]
    fn the_client_of_a_whole_header_is_its_source() {
        assert_eq!(
            client(&header(0x21, 0x11, &TCP4)),
            Some("192.0.2.7".parse().unwrap())
        );
        assert_eq!(
            client(&header(0x21, 0x21, &tcp6())),
            Some("2001:db8::7".parse().unwrap())
        );
    }

    #[test]
    fn what_comes_behind_a_header_is_not_its() {
        let whole = header(0x21, 0x11, &TCP4);
        let longer = [&whole[..], b"\x16\x03\x01"].concat();
        assert_eq!(parse(&longer), parse(&whole));
    }

    #[test]
    fn a_connection_of_the_load_balancers_own_and_one_it_does_not_know_have_no_client() {
        for family in 0..=u8::MAX {
            for body in [&[][..], &TCP4, &[0xff; 7]] {
                assert_eq!(client(&header(0x20, family, body)), None, "LOCAL");
            }
        }
        for body in [&[][..], &TCP4, &[0xff; 7]] {
            assert_eq!(client(&header(0x21, 0x00, body)), None, "UNSPEC");
        }
    }

    #[test]
    fn a_header_that_is_cut_short_anywhere_asks_for_what_is_missing() {
        let tlv = [&TCP4[..], &[0x04, 0, 2, 9, 9]].concat();
        for whole in [
            header(0x21, 0x11, &TCP4),
            header(0x21, 0x21, &tcp6()),
            header(0x21, 0x11, &tlv),
            header(0x20, 0x00, &[]),
        ] {
            for end in 0..whole.len() {
                let needed = if end < HEAD_BYTES {
                    HEAD_BYTES
                } else {
                    whole.len()
                };
                assert_eq!(parse(&whole[..end]), Ok(Parsed::More(needed)), "{end}");
            }
        }
    }

    #[test]
    fn every_other_first_byte_sequence_is_no_header_and_is_known_at_once() {
        let whole = header(0x21, 0x11, &TCP4);
        for at in 0..SIGNATURE.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(parse(&bytes), Err(ProxyError::Missing));
                assert_eq!(parse(&bytes[..=at]), Err(ProxyError::Missing));
            }
        }
        for other in [
            &b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 8443\r\n"[..],
            b"PROXY UNKNOWN\r\n",
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(parse(other), Err(ProxyError::Missing));
        }
    }

    #[test]
    fn of_every_command_and_family_only_those_of_tcp_are_taken() {
        for command in 0..=u8::MAX {
            for family in 0..=u8::MAX {
                let parsed = parse(&header(command, family, &tcp6()));
                let expected = match (command, family) {
                    (0x20, _) | (0x21, 0x00 | 0x21) => Ok(()),
                    // The rest of a longer body are TLVs, of which these bytes are none.
                    (0x21, 0x11) => Ok(()),
                    (0x21, _) => Err(ProxyError::Family),
                    _ => Err(ProxyError::Version),
                };
                match (parsed, expected) {
                    (Err(error), Err(expected)) => assert_eq!(error, expected),
                    (Err(ProxyError::Malformed), Ok(())) if family == 0x11 => {}
                    (parsed, expected) => assert!(
                        parsed.is_ok() && expected.is_ok(),
                        "{command:#x} {family:#x}: {parsed:?}"
                    ),
                }
            }
        }
    }

    #[test]
    fn addresses_that_do_not_fit_the_length_are_refused() {
        for length in 0..12 {
            let bytes = header(0x21, 0x11, &TCP4[..length]);
            assert_eq!(parse(&bytes), Err(ProxyError::Malformed), "{length}");
        }
        for length in 0..36 {
            let bytes = header(0x21, 0x21, &tcp6()[..length]);
            assert_eq!(parse(&bytes), Err(ProxyError::Malformed), "{length}");
        }
    }

    #[test]
    fn whole_tlvs_are_passed_over_and_ones_cut_off_are_refused() {
        let one = [0x04, 0, 3, 1, 2, 3];
        let two = [&one[..], &[0x20, 0, 0]].concat();
        for tlvs in [&one[..], &two] {
            assert!(client(&header(0x21, 0x11, &[&TCP4[..], tlvs].concat())).is_some());
        }
        for end in (1..two.len()).filter(|end| *end != one.len()) {
            let body = [&TCP4[..], &two[..end]].concat();
            let parsed = parse(&header(0x21, 0x11, &body));
            assert_eq!(parsed, Err(ProxyError::Malformed), "{end}");
        }
    }

    #[test]
    fn a_header_is_refused_for_its_length_before_it_is_read() {
        let longest = vec![0; HEADER_BYTES_MAX - HEAD_BYTES];
        assert!(parse(&header(0x20, 0, &longest)).is_ok());
        for length in [HEADER_BYTES_MAX - HEAD_BYTES + 1, usize::from(u16::MAX)] {
            let bytes = header(0x21, 0x11, &vec![0; length]);
            assert_eq!(parse(&bytes[..HEAD_BYTES]), Err(ProxyError::TooLong));
        }
    }
}
