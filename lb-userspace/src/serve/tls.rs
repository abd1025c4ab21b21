//! TLS with certificates on both sides: clients without one of a trusted authority are refused in the handshake.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{author::Peer, config::DaemonSettings, health::certificate_names};

/// The files of a listener, PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Its certificate, with the chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities of the clients' certificates.
    pub ca: PathBuf,
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
pub type Stamps = [Option<(u64, u64, u64, i64, i64)>; 3];

impl TlsFiles {
    /// Those of the admin API; `None` if it is not served over TLS.
    pub fn of(settings: &DaemonSettings) -> Option<Self> {
        settings.api_address?;
        Some(Self {
            cert: settings.api_cert_file.clone()?,
            key: settings.api_key_file.clone()?,
            ca: settings.api_ca_file.clone()?,
        })
    }

    /// What the files were when they are read next. Blocks.
    pub fn stamps(&self) -> Stamps {
        let stamp = |file: &Path| {
            let of = fs::metadata(file).ok()?;
            Some((of.dev(), of.ino(), of.size(), of.ctime(), of.ctime_nsec()))
        };
        [stamp(&self.cert), stamp(&self.key), stamp(&self.ca)]
    }

    /// The configuration by these files. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|source| TlsError::Pair {
                cert: self.ca.clone(),
                key: self.key.clone(),
                source,
            })?;
        }
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| TlsError::Authorities {
                file: self.ca.clone(),
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
                    .with_client_cert_verifier(clients)
                    .with_single_cert(chain, key)
            });
        let mut config = config.map_err(|source| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
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

/// A TCP socket for clients with certificates.
#[derive(Debug)]
pub struct Tls {
    /// The socket.
    pub listener: TcpListener,
    /// The configuration in force; a connection has that from when it began.
    pub config: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Makes the handshake of a connection.
    pub(super) async fn open(&self, io: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Peer>)> {
        let address = io.peer_addr()?.ip().to_canonical();
        let config = Arc::clone(&self.config.borrow());
        let stream = TlsAcceptor::from(config).accept(io).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let names = shown.and_then(|chain| certificate_names(chain.first()?));
        let names = names.unwrap_or_default();
        Ok((stream, Some(Peer::Client { names, address })))
    }
}
