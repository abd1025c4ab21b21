//! TLS with certificates on both sides: clients without one of a trusted authority are refused in the handshake.

use std::{
    cell::RefCell,
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
        pem::{self, PemObject as _},
    },
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task_local,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    author::Peer,
    config::DaemonSettings,
    health::{CertificateIdentity, certificate_identity, certificate_names, next_update},
};

/// Time in which one refused certificate at most is in the log: any client can show some.
const QUIET: Duration = Duration::from_secs(10);

/// The files of a listener, PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Its certificate, with the chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities of the clients' certificates.
    pub ca: PathBuf,
    /// Lists of the clients' certificates that are revoked, if there are any.
    pub crl: Option<PathBuf>,
}

/// What files hold.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration by them.
    pub config: Arc<ServerConfig>,
    /// When the first of the revocation lists is to be replaced, if any says so.
    pub crl_ends: Option<SystemTime>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read, or is no PEM.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// A file of certificates without any.
    #[error("{}: no certificate in it", .0.display())]
    Empty(PathBuf),
    /// A file of revocation lists without any.
    #[error("{}: no revocation list in it (-----BEGIN X509 CRL-----)", .0.display())]
    NoList(PathBuf),
    /// The authorities cannot be used.
    #[error("{}: {source}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: VerifierBuilderError,
    },
    /// Certificate and key cannot be used, or do not belong together.
    #[error("{} with {}: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// Device, inode, size and time of the last change of each file; `None` for one that is missing.
pub type Stamps = [Option<(u64, u64, u64, i64, i64)>; 4];

impl TlsFiles {
    /// Those of the admin API; `None` if it is not served over TLS.
    pub fn of(settings: &DaemonSettings) -> Option<Self> {
        settings.api_address?;
        Some(Self {
            cert: settings.api_cert_file.clone()?,
            key: settings.api_key_file.clone()?,
            ca: settings.api_ca_file.clone()?,
            crl: settings.api_crl_file.clone(),
        })
    }

    /// What the files were when they are read next. Blocks.
    pub fn stamps(&self) -> Stamps {
        let stamp = |file: &Path| {
            let of = fs::metadata(file).ok()?;
            Some((of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
        };
        let crl = self.crl.as_deref().and_then(stamp);
        [stamp(&self.cert), stamp(&self.key), stamp(&self.ca), crl]
    }

    /// The configuration by these files. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|source| TlsError::Pair {
                cert: self.ca.clone(),
                key: self.key.clone(),
                source,
            })?;
        }
        let lists = self
            .crl
            .as_deref()
            .map(revocation_lists)
            .transpose()?
            .unwrap_or_default();
        let crl_ends = lists.iter().filter_map(|list| next_update(list)).min();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .with_crls(lists)
            .build()
            .map_err(|source| TlsError::Authorities {
                file: match (&source, &self.crl) {
                    (VerifierBuilderError::InvalidCrl(_), Some(crl)) => crl.clone(),
                    _ => self.ca.clone(),
                },
                source,
            })?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Read {
            file: self.key.clone(),
            source,
        })?;
        let chain = certificates(&self.cert)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(Arc::new(Naming(clients)))
                    .with_single_cert(chain, key)
            });
        let mut config = config.map_err(|source| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Loaded {
            config: Arc::new(config),
            crl_ends,
        })
    }
}

/// The certificates of a file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Read {
            file: file.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(file.to_owned()));
    }
    Ok(certificates)
}

/// The revocation lists of a file; at least one.
fn revocation_lists(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let lists = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::Read {
            file: file.to_owned(),
            source,
        })?;
    if lists.is_empty() {
        return Err(TlsError::NoList(file.to_owned()));
    }
    Ok(lists)
}

task_local! {
    /// The certificate that was refused in the handshake of this task.
    static REFUSED: RefCell<Option<CertificateIdentity>>;
}

/// Verifies as another verifier does, and says in [`REFUSED`] which certificate was refused: a connection whose handshake failed has
/// none.
#[derive(Debug)]
struct Naming(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Naming {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(certificate, others, now);
        if verified.is_err() {
            // Outside of a handshake it is not needed.
            let _ = REFUSED.try_with(|refused| *refused.borrow_mut() = certificate_identity(certificate));
        }
        verified
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Why a client's certificate was refused; `None`: that was not the reason for the end of the handshake.
fn refusal(error: &io::Error) -> Option<String> {
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let rustls::Error::InvalidCertificate(why) = error else {
        return None;
    };
    Some(if *why == CertificateError::Revoked {
        "it is revoked by api_crl_file".to_owned()
    } else if *why == CertificateError::UnknownRevocationStatus {
        "an authority on its chain has no list in api_crl_file".to_owned()
    } else if *why == CertificateError::UnknownIssuer {
        "no authority of api_ca_file has signed it".to_owned()
    } else {
        why.to_string()
    })
}

/// A TCP socket for clients with certificates.
#[derive(Debug)]
pub struct Tls {
    /// The socket.
    pub listener: TcpListener,
    /// The configuration in force; a connection has that from when it began.
    pub config: watch::Receiver<Arc<ServerConfig>>,
    /// When a refused certificate was logged last.
    pub logged: Mutex<Option<Instant>>,
}

impl Tls {
    /// Makes the handshake of a connection.
    pub(super) async fn open(&self, io: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Peer>)> {
        let address = io.peer_addr()?.ip().to_canonical();
        let config = Arc::clone(&self.config.borrow());
        let handshake = async {
            let accepted = TlsAcceptor::from(config).accept(io).await;
            accepted.inspect_err(|error| self.log_refusal(address, error, REFUSED.with(RefCell::take)))
        };
        let stream = REFUSED.scope(RefCell::default(), handshake).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let names = shown.and_then(|chain| certificate_names(chain.first()?));
        let names = names.unwrap_or_default();
        Ok((stream, Some(Peer::Client { names, address })))
    }

    /// Logs that a client's certificate was refused, once in a while.
    fn log_refusal(&self, client: IpAddr, error: &io::Error, certificate: Option<CertificateIdentity>) {
        let Some(why) = refusal(error) else { return };
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|last| last.elapsed() >= QUIET) {
            *logged = Some(Instant::now());
            let CertificateIdentity {
                subject,
                serial,
                issuer,
            } = certificate.unwrap_or_default();
            tracing::warn!(%client, subject, serial, issuer, "the admin API refused a client's certificate: {why}");
        }
    }
}
