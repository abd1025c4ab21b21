//! The ports of a service with several.

use std::{fmt, str::FromStr};

use crate::number;

/// Most ports of one service. Each port has an index entry, so that several are as fast as one.
pub const MAX_PORTS: usize = 1024;

/// A range of consecutive ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is not a range of ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PortRangeError {
    /// Neither a number nor two.
    #[error("neither a port nor a range of ports")]
    Malformed,
    /// Port 0, which is every port.
    #[error("port 0 is every port, and not one of several")]
    Zero,
    /// The last port is before the first.
    #[error("the range ends before it begins")]
    Backwards,
}

impl PortRange {
    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// All ports of the range.
    pub fn ports(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// Number of ports.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let port = |text: &str| number::decimal(text).ok_or(PortRangeError::Malformed);
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        match (first, last) {
            (0, _) => Err(PortRangeError::Zero),
            _ if last < first => Err(PortRangeError::Backwards),
            _ => Ok(Self { first, last }),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}
