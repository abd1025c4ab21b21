//! Why an exchange failed, in the kinds that a report counts.

use std::io;

/// A kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The other side, or a balancer before it, refused the connection, or answered a datagram by "port unreachable".
    Refused,
    /// A connection was reset.
    Reset,
    /// A connection was closed before the whole answer.
    Closed,
    /// No whole answer within the time limit of a request.
    Timeout,
    /// No route, or a router or host that says so.
    Unreachable,
    /// No local port was free.
    NoPort,
    /// No descriptor was free.
    NoDescriptor,
    /// TLS failed.
    Tls,
    /// The answer breaks the protocol.
    Protocol,
    /// An echo differs from its payload.
    Corrupt,
    /// A status of 400 or more.
    Status,
    /// Another error of the system.
    Other,
}

impl Failure {
    /// All, in the order of a report.
    pub(crate) const ALL: [Self; 12] = [
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::Unreachable,
        Self::NoPort,
        Self::NoDescriptor,
        Self::Tls,
        Self::Protocol,
        Self::Corrupt,
        Self::Status,
        Self::Other,
    ];

    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::NoPort => "no_port",
            Self::NoDescriptor => "no_descriptor",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Corrupt => "corrupt",
            Self::Status => "status",
            Self::Other => "other",
        }
    }

    /// What to do about it, for those that are this machine's own.
    pub(crate) const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::NoPort => Some(
                "local ports ran out: widen net.ipv4.ip_local_port_range, or lower --rate or the connections",
            ),
            Self::NoDescriptor => Some("the machine ran out of open files: raise fs.file-max, or lower -c"),
            Self::Refused
            | Self::Reset
            | Self::Closed
            | Self::Timeout
            | Self::Unreachable
            | Self::Tls
            | Self::Protocol
            | Self::Corrupt
            | Self::Status
            | Self::Other => None,
        }
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => Self::Reset,
            Some(libc::ETIMEDOUT) => Self::Timeout,
            Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                Self::Unreachable
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Self::NoPort,
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptor,
            Some(_) => Self::Other,
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => Self::Tls,
            None => Self::Other,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}
