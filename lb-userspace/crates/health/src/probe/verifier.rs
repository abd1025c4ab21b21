//! Verifies the certificate of a server, and that the server holds its key. The TLS library reads certificates of
//! version 3 only, and only keys that its algorithms support. Neither matters if the certificate is not verified or is
//! trusted itself, so this module verifies the bare key.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore,
    SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::certificate::{outline, rsa_bits};

/// Sizes in bits of RSA keys whose signatures can be verified.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Signature schemes that are offered although their signatures cannot be verified.
const UNVERIFIABLE: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP521_SHA512, SignatureScheme::ED448];

/// Why a certificate cannot be verified, or a server has not proved that it is its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The signature is by another key.
    #[error("does not belong to the key that the server has")]
    Foreign,
    /// Version 1 or 2, which have no extensions.
    #[error(
        "is not of X.509 version 3 and so has no names to verify (in ca_file, or with verify = false, it is taken)"
    )]
    Version,
    /// No certificate, or one in another encoding.
    #[error("cannot be read")]
    Unreadable,
    /// Too short to be safe, or too long.
    #[error("has an RSA key of {0} bits, and only 2048 to 8192 can be verified (verify = false takes it)")]
    Size(usize),
    /// A kind of key that the library does not know.
    #[error(
        "has a key that cannot be verified: RSA, ECDSA of P-256 and P-384 and Ed25519 can (verify = false takes it)"
    )]
    Kind,
}

impl From<Fault> for Error {
    fn from(problem: Fault) -> Self {
        CertificateError::Other(OtherError(Arc::new(problem))).into()
    }
}

/// Whether `signed` is a signature of `message` by the key of the certificate.
fn proof(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<(), Fault> {
    let key = outline(certificate).ok_or(Fault::Unreadable)?.key;
    let known = provider.signature_verification_algorithms.mapping.iter();
    let (_, algorithms) = known
        .clone()
        .find(|(scheme, _)| *scheme == signed.scheme)
        .ok_or(Fault::Kind)?;
    if algorithms.iter().any(|algorithm| {
        algorithm
            .verify_signature(key, message, signed.signature())
            .is_ok()
    }) {
        return Ok(());
    }
    match rsa_bits(key) {
        Some(bits) if !RSA_BITS.contains(&bits) => Err(Fault::Size(bits)),
        Some(_) | None => Err(Fault::Foreign),
    }
}

/// Whether TLS 1.3 has no such signatures (RFC 8446 section 4.2.3).
fn is_old(scheme: SignatureScheme) -> bool {
    [
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ]
    .contains(&scheme)
}

/// Which certificates are accepted.
#[derive(Debug)]
enum Trust {
    /// Any.
    Any,
    /// Certificates signed by a trusted CA, and certificates that are trusted themselves.
    Some {
        /// Absent if no certificate of the file can be a CA.
        chain: Option<Arc<WebPkiServerVerifier>>,
        pinned: Vec<CertificateDer<'static>>,
    },
}

/// Accepts certificates; the server must hold the key of its certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Accepts any certificate, also those whose signatures cannot be verified.
    pub(super) fn of_any(provider: Arc<CryptoProvider>) -> Self {
        Self {
            trust: Trust::Any,
            provider,
        }
    }

    /// Trusts the CAs in `roots` and, with any issuer, the certificates in `pinned`.
    ///
    /// # Errors
    /// When the library cannot use the CAs.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        pinned: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let chain = if roots.is_empty() {
            None
        } else {
            Some(WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?)
        };
        Ok(Self {
            trust: Trust::Some { chain, pinned },
            provider,
        })
    }
}

/// Whether a certificate that is trusted itself is valid now and has the name. A certificate without names, as of
/// version 1, fits any name.
fn check_pinned(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let outline = outline(certificate).ok_or(Fault::Unreadable)?;
    let unix = |date: Option<SystemTime>| {
        let since = date?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    };
    if let Some(not_before) = unix(outline.not_before).filter(|begin| now.as_secs() < begin.as_secs()) {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if let Some(not_after) = unix(outline.not_after).filter(|end| end.as_secs() < now.as_secs()) {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return Ok(());
    };
    match verify_server_name(&parsed, name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty() =>
        {
            Ok(())
        }
        verified => verified,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (chain, pinned) = match &self.trust {
            Trust::Any => return Ok(ServerCertVerified::assertion()),
            Trust::Some { chain, pinned } => (chain, pinned),
        };
        if pinned.iter().any(|pinned| pinned == certificate) {
            check_pinned(certificate, name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        // The library would call its encoding wrong.
        if outline(certificate).is_some_and(|outline| outline.version < 3) {
            return Err(Fault::Version.into());
        }
        match chain {
            Some(chain) => chain.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match (proof(&self.provider, message, certificate, signed), &self.trust) {
            // Without verification any certificate is accepted: the proof detects misconfigured servers, and these keys
            // are no sign of that.
            (Ok(()), _) | (Err(Fault::Size(_) | Fault::Kind), Trust::Any) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            (Err(problem), Trust::Any | Trust::Some { .. }) => Err(problem.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if is_old(signed.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        self.verify_tls12_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self
            .provider
            .signature_verification_algorithms
            .supported_schemes();
        match self.trust {
            Trust::Any => schemes.extend(UNVERIFIABLE),
            Trust::Some { .. } => {}
        }
        schemes
    }
}
