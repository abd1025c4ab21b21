//! The guard of a service as the operator wants it: ACL and rate limits.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::number;

/// Addresses that begin with the same bits, as `10.0.0.0/8` or `2001:db8::/32`. An address alone is a prefix of its whole
/// length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is not a prefix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// Neither an address nor an address with a length.
    #[error("{0:?} is no prefix of addresses")]
    Malformed(String),
    /// Longer than an address.
    #[error("length {length} of prefix {text:?} is more than the {most} bits of an address")]
    TooLong {
        /// The text.
        text: String,
        /// Its length.
        length: u8,
        /// Bits of an address of its family.
        most: u8,
    },
    /// An IPv4 address written as IPv6, which no packet carries.
    #[error("{0:?} has an IPv4 address written as IPv6")]
    Mapped(String),
    /// Bits beyond the length are set.
    #[error("{text:?} has bits beyond its length")]
    HostBits {
        /// The text.
        text: String,
        /// The prefix without these bits.
        meant: Prefix,
    },
}

impl Prefix {
    /// The address; bits beyond the length are zero.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Number of bits beyond its length.
    pub const fn free_bits(&self) -> u8 {
        Self::most(self.address).saturating_sub(self.length)
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::around(address, self.length) == *self
    }

    /// Whether an address lies in both.
    pub fn overlaps(&self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Bits of an address of this family.
    pub const fn most(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// The prefix of this length that an address lies in.
    pub fn around(address: IpAddr, length: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(length.into()))
                    .unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(length.into()))
                    .unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, length }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let malformed = || PrefixError::Malformed(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let most = Self::most(address);
        let length: u8 = match length {
            Some(digits) => number::decimal(digits).ok_or_else(malformed)?,
            None => most,
        };
        if length > most {
            return Err(PrefixError::TooLong {
                text: text.to_owned(),
                length,
                most,
            });
        }
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(PrefixError::Mapped(text.to_owned()));
        }
        let prefix = Self::around(address, length);
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(PrefixError::HostBits {
                text: text.to_owned(),
                meant: prefix,
            })
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// ACL and rate limits of a service. Of several prefixes that contain an address, the longest decides; a prefix in both lists
/// denies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guard {
    /// Prefixes of the only clients that may send; empty: all may.
    pub allow: Vec<Prefix>,
    /// Prefixes of clients that may not send.
    pub deny: Vec<Prefix>,
    /// Limit of new flows of all clients together.
    pub new_flows: Rate,
    /// Limit of new flows of each source.
    pub source_new_flows: Rate,
    /// First bits of a client's address that make it a source; 0: [`Self::SOURCE_BITS_V4`] or [`Self::SOURCE_BITS_V6`].
    pub source_bits: u8,
}

/// A rate limit and its burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Number a second; 0: no limit.
    pub per_second: u32,
    /// Number at once; 0: as many as in a second.
    pub burst: u32,
}

impl Guard {
    /// Each IPv4 address is a source.
    pub const SOURCE_BITS_V4: u8 = 32;
    /// Each IPv6 network of this length is a source: a client can use any address in it (RFC 6177, RFC 8981).
    pub const SOURCE_BITS_V6: u8 = 64;

    /// Bits of a client's address that make it a source, where clients are of the family of `vip`.
    pub const fn source_bits(&self, vip: IpAddr) -> u8 {
        match (self.source_bits, vip) {
            (0, IpAddr::V4(_)) => Self::SOURCE_BITS_V4,
            (0, IpAddr::V6(_)) => Self::SOURCE_BITS_V6,
            (bits, _) => bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_written_alike() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.6/31", "192.0.2.6/31"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8:0:0::1", "2001:db8::1/128"),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(prefix));
        }
    }

    #[test]
    fn texts_that_are_no_prefixes_are_refused_with_the_reason() {
        for (text, words) in [
            ("", "no prefix"),
            ("10.0.0.0/", "no prefix"),
            ("10.0.0/8", "no prefix"),
            ("10.0.0.0/+8", "no prefix"),
            ("10.0.0.0/999", "no prefix"),
            ("example.org", "no prefix"),
            ("10.0.0.0/33", "more than the 32 bits"),
            ("2001:db8::/129", "more than the 128 bits"),
            ("10.0.0.1/8", "bits beyond its length"),
            ("2001:db8::1/64", "bits beyond its length"),
            ("::ffff:10.0.0.1/128", "IPv4 address written as IPv6"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let meant = match "10.1.2.3/12".parse::<Prefix>() {
            Err(PrefixError::HostBits { meant, .. }) => meant.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(meant, "10.0.0.0/12");
    }
}
