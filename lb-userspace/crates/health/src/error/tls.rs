//! Readable texts for failures of TLS; the library's texts are names of its types.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

use crate::probe::verifier::Fault;

/// Of a server that refuses clients without a certificate.
pub(crate) const CERTIFICATE_WANTED: &str = "it demands a client certificate: set cert_file and key_file";
const VERSIONS: &str = "it speaks neither TLS 1.2 nor TLS 1.3, and older versions are not supported";
const NOTHING_IN_COMMON: &str = "it shares no cipher suite or kind of key with the check, which speaks TLS 1.3, and TLS \
     1.2 with ECDHE and AES-GCM or ChaCha20: RSA key exchange and CBC are not supported";

/// The name of a value of the library as words: `BadCertificate` as "bad certificate".
pub(crate) fn words(value: &impl Debug) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for letter in format!("{value:?}").chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        before = letter;
    }
    words
}

/// Why there is no session.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add kinds at any time; its words serve for all the others"
)]
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::AlertReceived(AlertDescription::ProtocolVersion) => VERSIONS.to_owned(),
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity) => {
            NOTHING_IN_COMMON.to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => CERTIFICATE_WANTED.to_owned(),
        Error::AlertReceived(alert) => format!("it sent the alert \"{}\"", words(alert)),
        Error::PeerIncompatible(problem) => match words(problem) {
            older if older.contains("tls12") => VERSIONS.to_owned(),
            other => format!("it does not go with this check: {other}"),
        },
        Error::PeerMisbehaved(problem) => format!("it breaks the rules of TLS: {}", words(problem)),
        Error::InvalidMessage(problem) => format!("its answer is not TLS: {}", words(problem)),
        other => other.to_string(),
    }
}

/// Names of a certificate that an error lists.
const SHOWN_NAMES: usize = 4;

fn at(word: &str, time: &Option<SystemTime>) -> String {
    let space = if word.starts_with(',') { "" } else { " " };
    time.map_or_else(String::new, |time| {
        format!("{space}{word} {}", humantime::format_rfc3339_seconds(time))
    })
}

fn but_for(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(", but for {}", names.join(", "))
    }
}

fn wall(time: UnixTime) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

/// A name as the library shows it, such as `DnsName("a.example")`, without its kind.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// A problem of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// Its validity is over, since that time where it can be read.
    #[error("has expired{}", at("at", .0))]
    Expired(Option<SystemTime>),
    /// Its validity has not begun: it does then, where that can be read.
    #[error("is not valid yet{}", at(", only from", .0))]
    NotYetValid(Option<SystemTime>),
    /// It is for other names.
    #[error("is not for {expected}{}", but_for(.presented))]
    WrongName {
        /// The name that the check wants.
        expected: String,
        /// The names that it has, at most `SHOWN_NAMES`.
        presented: Vec<String>,
    },
    /// Its issuer is not trusted.
    #[error("is signed by an unknown CA")]
    UnknownIssuer,
    /// The check cannot verify such a certificate, or the server does not hold its key.
    #[error("{0}")]
    Unfit(String),
    /// Something else.
    #[error("is bad: {0}")]
    Other(String),
}

impl CertificateProblem {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may add kinds at any time; its words serve for all the others"
    )]
    pub(super) fn new(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired => Self::Expired(None),
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(wall(*not_after)),
            CertificateError::NotValidYet => Self::NotYetValid(None),
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid(wall(*not_before)),
            CertificateError::NotValidForName => Self::WrongName {
                expected: "this server".to_owned(),
                presented: Vec::new(),
            },
            CertificateError::NotValidForNameContext { expected, presented } => Self::WrongName {
                expected: expected.to_str().into_owned(),
                presented: presented
                    .iter()
                    .take(SHOWN_NAMES)
                    .map(|name| bare(name))
                    .collect(),
            },
            // A bad signature: the CA has the name of a trusted one, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Other(other) => match other.0.downcast_ref::<Fault>() {
                Some(problem) => Self::Unfit(problem.to_string()),
                None => Self::unnamed(&other.0.to_string()),
            },
            CertificateError::BadEncoding => Self::Other("it is not encoded as a certificate".to_owned()),
            other => Self::Other(words(other)),
        }
    }

    /// An error of which only the kind's name is known.
    fn unnamed(name: &str) -> Self {
        match name {
            "CaUsedAsEndEntity" => {
                Self::Unfit("is that of a CA (to trust just this one, name it in ca_file)".to_owned())
            }
            other => Self::Other(words(&format_args!("{other}"))),
        }
    }
}
