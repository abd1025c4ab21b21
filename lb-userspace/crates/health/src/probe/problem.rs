//! Why settings are no valid check.

use regex::bytes::Regex;

/// Longest body that settings can request; it is held in memory for each check in flight.
pub const MAX_BODY_LIMIT: usize = 1024 * 1024;

/// Why settings make no check.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProbeError {
    /// No HTTP token, or CONNECT.
    #[error("\"{0}\" is no method of a check")]
    Method(String),
    /// Not an absolute path of visible ASCII characters.
    #[error("path \"{0}\" must begin with / and have no spaces or special characters (use %20 and the like)")]
    Path(String),
    /// Not visible ASCII.
    #[error("\"{0}\" is no host name")]
    Host(String),
    /// No token, or one that the check sets itself.
    #[error(
        "header \"{0}\" cannot be set (host has a setting of its own, the rest of the framing is the check's)"
    )]
    HeaderName(String),
    /// A control character.
    #[error("value of header \"{0}\" has control characters")]
    HeaderValue(String),
    /// No status could ever match, or a status is invalid.
    #[error("expected statuses must be one or more numbers from 200 to 599")]
    Status,
    /// The pattern.
    #[error("\"{pattern}\" is no regular expression: {reason}")]
    Pattern {
        /// The setting.
        key: &'static str,
        /// As given.
        pattern: String,
        /// The reason.
        reason: String,
    },
    /// Listed again, perhaps in other letters.
    #[error("header \"{0}\" is listed twice")]
    HeaderTwice(String),
    /// Neither a host name nor an IP address.
    #[error("\"{0}\" is no name that a certificate can have")]
    ServerName(String),
    /// A host that no certificate can be verified for.
    #[error("host \"{0}\" is no name that a certificate can have: set server_name, or verify = false")]
    Unverifiable(String),
    /// Not an absolute path.
    #[error("{0} must be an absolute path")]
    File(&'static str),
    /// One of two that go together.
    #[error("{0} needs {1}")]
    Pair(&'static str, &'static str),
    /// A protocol's name without or with too many bytes.
    #[error("names in alpn have 1 to 255 bytes")]
    Alpn,
    /// A name with empty or long labels, or spaces.
    #[error("\"{0}\" is no name that DNS can be asked for")]
    DnsName(String),
    /// No step, or too many.
    #[error("a dialogue has from 1 to {0} steps")]
    Steps(usize),
    /// A step that neither sends nor expects.
    #[error("a step of a dialogue sends something, expects something, or both")]
    EmptyStep,
    /// A text to send or to expect that is empty or too long.
    #[error("{0} must have from 1 to {1} bytes")]
    Sent(&'static str, usize),
    /// More than a datagram takes.
    #[error("payload is over {0} bytes")]
    Payload(usize),
    /// A gRPC service's name is too long.
    #[error("service is over {0} bytes")]
    Service(usize),
    /// No program, or not an absolute path.
    #[error("command must begin with the absolute path of a program")]
    Command,
    /// A report that holds for no time, or too long.
    #[error("ttl must be between 1ms and 1d")]
    TimeToLive,
    /// Over [`MAX_BODY_LIMIT`], or none of it although it is examined.
    #[error("max_body must be between 1 and {MAX_BODY_LIMIT} bytes")]
    MaxBody,
}

impl ProbeError {
    /// The key of the health table that is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Method(_) => "method",
            Self::Path(_) => "path",
            Self::Host(_) | Self::Unverifiable(_) => "host",
            Self::HeaderName(_) | Self::HeaderValue(_) | Self::HeaderTwice(_) => "headers",
            Self::Status => "expect_status",
            Self::Pattern { key, .. } => key,
            Self::MaxBody => "max_body",
            Self::ServerName(_) => "server_name",
            Self::File(key) | Self::Pair(key, _) | Self::Sent(key, _) => key,
            Self::Steps(_) | Self::EmptyStep => "steps",
            Self::DnsName(_) => "name",
            Self::Payload(_) => "payload",
            Self::Service(_) => "service",
            Self::Command => "command",
            Self::TimeToLive => "ttl",
            Self::Alpn => "alpn",
        }
    }
}

/// A regular expression of the setting `key`.
pub(super) fn compile(key: &'static str, pattern: &str) -> Result<Regex, ProbeError> {
    Regex::new(pattern).map_err(|error| ProbeError::Pattern {
        key,
        pattern: pattern.to_owned(),
        reason: error.to_string().replace('\n', " "),
    })
}
