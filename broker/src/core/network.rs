//! A range of addresses: `10.0.0.0/8`, or one address.

use core::net::IpAddr;
use std::{fmt, str::FromStr};

/// The range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// The text is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a range of addresses: write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32, with no bit set behind the prefix"
)]
pub struct BadNetwork;

impl Network {
    /// Whether an address is in it. An IPv4 address that arrives as IPv6 is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let behind = u32::MAX.checked_shr(self.prefix).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & !behind == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let behind = u128::MAX.checked_shr(self.prefix).unwrap_or(0);
                (network.to_bits() ^ address.to_bits()) & !behind == 0
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let bits = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match prefix {
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= bits)
                .ok_or(BadNetwork)?,
            None => bits,
        };
        // What is set behind the prefix is a slip of the hand, and might be meant otherwise.
        let is_bare = match address {
            IpAddr::V4(address) => {
                address.to_bits() & u32::MAX.checked_shr(prefix).unwrap_or(0) == 0
            }
            IpAddr::V6(address) => {
                address.to_bits() & u128::MAX.checked_shr(prefix).unwrap_or(0) == 0
            }
        };
        // Nothing would ever be in it: addresses are compared as what they are.
        let is_canonical = address.to_canonical() == address;
        (is_bare && is_canonical)
            .then_some(Self { address, prefix })
            .ok_or(BadNetwork)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_shares_its_prefix_and_nothing_else() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let network: Network = range.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{range}");
            assert!(!network.contains(outside.parse().unwrap()), "{range}");
            assert_eq!(network.to_string().parse(), Ok(network));
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::1/64",
            "::/129",
            "a/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }
}
