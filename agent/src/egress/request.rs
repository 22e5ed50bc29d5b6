//! What a peer on a sandbox's socket asks for, and whether it gets it. Pure.

/// The longest request head, in bytes: `CONNECT`, an authority and a `Host` line.
pub const REQUEST_BYTES_MAX: usize = 1024;

/// Why a request was refused. The word goes to the peer and to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Not a well-formed CONNECT.
    #[error("malformed")]
    Malformed,
    /// Another authority than the broker's.
    #[error("destination_not_listed")]
    Destination,
    /// Not the sandbox's first process.
    #[error("not_the_shim")]
    Peer,
}

impl Denial {
    /// The HTTP status that says it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Destination | Self::Peer => 403,
        }
    }
}

/// Whether `head` (up to and with its empty line) is a CONNECT (RFC 9110 §9.3.6) to `broker`, and nothing else.
///
/// # Errors
/// [`Denial::Malformed`] or [`Denial::Destination`].
pub fn check(head: &[u8], broker: &str) -> Result<(), Denial> {
    let text = std::str::from_utf8(head).map_err(|_| Denial::Malformed)?;
    let text = text.strip_suffix("\r\n\r\n").ok_or(Denial::Malformed)?;
    let line = text.split("\r\n").next().ok_or(Denial::Malformed)?;
    let authority = line
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
        .ok_or(Denial::Malformed)?;
    if normal(authority) == normal(broker) {
        Ok(())
    } else {
        Err(Denial::Destination)
    }
}

/// An authority as it is compared: lower case, without the dot that may end a name.
fn normal(authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    match lower.rsplit_once(':') {
        Some((name, port)) => format!("{}:{port}", name.strip_suffix('.').unwrap_or(name)),
        None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(authority: &str) -> Result<(), Denial> {
        let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        check(head.as_bytes(), "broker.example:8443")
    }

    #[test]
    fn the_broker_is_reached_under_its_own_name_in_any_case() {
        for name in [
            "broker.example:8443",
            "Broker.Example:8443",
            "broker.example.:8443",
        ] {
            assert_eq!(ask(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn nothing_else_is_reached() {
        for name in [
            "broker.example:443",
            "broker.example",
            "xbroker.example:8443",
            "broker.example:8443.evil.example:80",
            "169.254.169.254:80",
            "[::1]:8443",
            "broker.example..:8443",
            "user@broker.example:8443",
            "",
        ] {
            assert_eq!(ask(name), Err(Denial::Destination), "{name}");
        }
    }

    #[test]
    fn what_is_no_connect_is_refused() {
        for head in [
            "GET http://broker.example:8443/ HTTP/1.1\r\n\r\n",
            "CONNECT broker.example:8443 HTTP/1.0\r\n\r\n",
            "CONNECT broker.example:8443\r\n\r\n",
            "CONNECT broker.example:8443 HTTP/1.1\r\n",
            "connect broker.example:8443 HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(
                check(head.as_bytes(), "broker.example:8443"),
                Err(Denial::Malformed),
                "{head}"
            );
        }
        assert_eq!(
            check(b"\xff\r\n\r\n", "broker.example:8443"),
            Err(Denial::Malformed)
        );
    }
}
