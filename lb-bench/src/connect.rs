//! Connections to a target, and a first one that tells beforehand why a load could not be sent.

use std::{io, net::SocketAddr, time::Duration};

use rustls::{CertificateError, ClientConfig, Error as TlsError, pki_types::ServerName};
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use crate::{
    options::{HttpVersion, Plan, Traffic},
    stream::Stream,
    target::{Target, TargetError},
    tls,
};

/// Opens connections to a target.
#[derive(Clone)]
pub(crate) struct Connector {
    /// Where to.
    pub(crate) address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why no load can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nothing listens.
    #[error(
        "{address} refused the connection: nothing listens there; start the server, or correct the URL or --connect"
    )]
    Refused {
        /// Where to.
        address: SocketAddr,
    },
    /// No answer.
    #[error(
        "{address} did not answer within {timeout:?}: check that the host is up, that no firewall drops the packets, and that the port speaks what the URL says"
    )]
    Silent {
        /// Where to.
        address: SocketAddr,
        /// For how long.
        timeout: Duration,
    },
    /// A certificate of another name.
    #[error(
        "the certificate of {address} is not valid for {host}: use a name that it contains (with --connect {address}), or --insecure"
    )]
    Name {
        /// Where to.
        address: SocketAddr,
        /// The URL's host.
        host: String,
    },
    /// A certificate by an unknown authority.
    #[error(
        "the certificate of {address} is signed by an unknown authority: name a file with the authority's certificate in SSL_CERT_FILE, or \
         use --insecure"
    )]
    Issuer {
        /// Where to.
        address: SocketAddr,
    },
    /// Other answers than TLS.
    #[error("{address} does not speak TLS: use http:// or another port")]
    NotTls {
        /// Where to.
        address: SocketAddr,
    },
    /// HTTP/1.1 alone.
    #[error("{address} does not offer HTTP/2 over TLS (ALPN h2): use --http 1.1, or turn HTTP/2 on")]
    NotHttp2 {
        /// Where to.
        address: SocketAddr,
    },
    /// Any other error.
    #[error("cannot connect to {address}: {source}; check the URL and the server's log")]
    Other {
        /// Where to.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// TLS cannot be set up here.
    #[error("{0:#}")]
    Setup(anyhow::Error),
}

/// Finds an address of each target that accepts connections (of `--udp` the first one).
///
/// # Errors
/// When a target has none.
pub(crate) async fn connectors(
    plan: &Plan,
    connect: Option<SocketAddr>,
) -> Result<Vec<Connector>, StartError> {
    let version = match &plan.traffic {
        Traffic::Http(request) => request.version,
        Traffic::Tcp(_) | Traffic::Udp(_) => HttpVersion::One,
    };
    let tls = if plan.targets.iter().any(|target| target.tls) {
        Some(tls::config(version, plan.insecure).map_err(StartError::Setup)?)
    } else {
        None
    };
    let mut connectors = Vec::new();
    for target in &plan.targets {
        let addresses = match connect {
            Some(address) => vec![address],
            None => target.resolve()?,
        };
        let tls = tls.as_ref().filter(|_| target.tls);
        let tls = tls.map(|config| secured(target, config)).transpose()?;
        connectors.push(first(plan, target, addresses, tls, version).await?);
    }
    Ok(connectors)
}

fn secured(
    target: &Target,
    config: &std::sync::Arc<ClientConfig>,
) -> Result<(TlsConnector, ServerName<'static>), StartError> {
    let name = ServerName::try_from(target.host().to_owned());
    let name = name.map_err(|error| StartError::Setup(anyhow::anyhow!("host {}: {error}", target.host())))?;
    Ok((TlsConnector::from(std::sync::Arc::clone(config)), name))
}

/// A connector to the first address that accepts a connection.
async fn first(
    plan: &Plan,
    target: &Target,
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    version: HttpVersion,
) -> Result<Connector, StartError> {
    let mut last = None;
    for address in addresses {
        let connector = Connector {
            address,
            tls: tls.clone(),
        };
        if let Traffic::Udp(_) = plan.traffic {
            return Ok(connector);
        }
        match connector.probe(plan.timeout, target, version).await {
            Ok(()) => return Ok(connector),
            Err(error) => last = Some(error),
        }
    }
    // A target that resolves has an address.
    Err(last.unwrap_or_else(|| {
        StartError::Target(TargetError::Resolve {
            host: target.host().to_owned(),
            source: io::Error::other("no address"),
        })
    }))
}

impl Connector {
    /// A connector without TLS.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The system's and TLS's.
    pub(crate) async fn open(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let stream = connector.connect(name.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn probe(
        &self,
        timeout: Duration,
        target: &Target,
        version: HttpVersion,
    ) -> Result<(), StartError> {
        let address = self.address;
        let Ok(opened) = time::timeout(timeout, self.open()).await else {
            return Err(StartError::Silent { address, timeout });
        };
        match opened {
            Ok(Stream::Tls(stream))
                if version == HttpVersion::Two && stream.get_ref().1.alpn_protocol() != Some(b"h2") =>
            {
                Err(StartError::NotHttp2 { address })
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.start_error(error, target, timeout)),
        }
    }

    fn start_error(&self, source: io::Error, target: &Target, timeout: Duration) -> StartError {
        let address = self.address;
        let tls = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<TlsError>());
        match tls {
            Some(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => StartError::Name {
                address,
                host: target.host().to_owned(),
            },
            Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                StartError::Issuer { address }
            }
            Some(TlsError::InvalidMessage(_)) => StartError::NotTls { address },
            Some(TlsError::NoApplicationProtocol) => StartError::NotHttp2 { address },
            _ => match source.raw_os_error() {
                Some(libc::ECONNREFUSED) => StartError::Refused { address },
                Some(libc::ETIMEDOUT) => StartError::Silent { address, timeout },
                _ => StartError::Other { address, source },
            },
        }
    }
}
