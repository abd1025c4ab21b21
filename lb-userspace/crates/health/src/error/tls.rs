//! Readable texts for failures of TLS; the library's texts are names of its types.

use std::fmt::Debug;

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

/// A problem of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// Its validity is over.
    #[error("has expired")]
    Expired,
    /// Its validity has not begun.
    #[error("is not valid yet")]
    NotYetValid,
    /// It is for other names.
    #[error("is not for {0}")]
    WrongName(String),
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
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName => Self::WrongName("this server".to_owned()),
            CertificateError::NotValidForNameContext { expected, .. } => {
                Self::WrongName(expected.to_str().into_owned())
            }
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
