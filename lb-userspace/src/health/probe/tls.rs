//! TLS connections of checks, and the check of the handshake alone.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Checker,
    certificate::not_after,
    connect::{Budget, Route},
    connection::Connection,
    problem::ProbeError,
    unverified::Unverified,
};
use crate::health::{
    error::{CertificateProblem, CheckError, Latency, LocalError, Stage},
    settings::TlsCheck,
    status::Certificate,
};

/// Does the handshakes of one target and resumes its sessions.
///
/// Files are read at the first handshake, and again at each one until that succeeds.
#[derive(Debug)]
pub(super) struct TlsClient {
    settings: Arc<TlsCheck>,
    /// The name in the certificate where the settings have none; else the target's address.
    host: Option<String>,
    /// Shared by all targets of the same settings.
    base: Arc<Mutex<Option<ClientConfig>>>,
    /// With a session store of its own: servers of one name may not share their keys, and one must not vouch for
    /// another.
    own: Mutex<Option<Arc<ClientConfig>>>,
    /// When the certificate seen last ends, in seconds since 1970; 0 before the first.
    expires: AtomicU64,
}

/// Everything that makes `settings` no check.
pub(super) fn problems(settings: &TlsCheck) -> Vec<ProbeError> {
    let TlsCheck {
        verify: _,
        server_name,
        ca_file,
        cert_file,
        key_file,
        alpn,
        warn_before: _,
    } = settings;
    let mut problems = Vec::new();
    if let Some(name) = server_name.as_ref().filter(|name| server_name_of(name).is_none()) {
        problems.push(ProbeError::ServerName(name.clone()));
    }
    for (key, file) in [
        ("ca_file", ca_file),
        ("cert_file", cert_file),
        ("key_file", key_file),
    ] {
        if file.as_ref().is_some_and(|file| !Path::new(file).is_absolute()) {
            problems.push(ProbeError::File(key));
        }
    }
    match (cert_file, key_file) {
        (Some(_), None) => problems.push(ProbeError::Pair("cert_file", "key_file")),
        (None, Some(_)) => problems.push(ProbeError::Pair("key_file", "cert_file")),
        _ => {}
    }
    if alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
        problems.push(ProbeError::Alpn);
    }
    problems
}

fn server_name_of(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

impl TlsClient {
    /// A client for a server that is known as `host`.
    ///
    /// # Errors
    /// The first of [`problems`].
    pub(super) fn new(settings: &TlsCheck, host: Option<&str>) -> Result<Self, ProbeError> {
        match problems(settings).into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self {
                settings: Arc::new(settings.clone()),
                // A Host header may have a port.
                host: host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned()),
                base: Arc::default(),
                own: Mutex::default(),
                expires: AtomicU64::new(0),
            }),
        }
    }

    /// One for another target.
    pub(super) fn sibling(&self) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            host: self.host.clone(),
            base: Arc::clone(&self.base),
            own: Mutex::default(),
            expires: AtomicU64::new(0),
        }
    }

    /// Does the handshake on a new connection.
    pub(super) async fn handshake(
        &self,
        budget: &mut Budget,
        stream: Connection,
    ) -> Result<TlsStream<Connection>, CheckError> {
        let target = budget.target;
        let local = |why: String| CheckError::Local {
            target,
            error: LocalError::Settings(why.into()),
        };
        let connector = self.connector().map_err(local)?;
        let name = self.settings.server_name.as_deref().or(self.host.as_deref());
        let name = name
            .and_then(server_name_of)
            .unwrap_or_else(|| ServerName::IpAddress(target.ip().into()));
        let protocol = || CheckError::Protocol {
            target,
            offered: self.settings.alpn.join(", ").into(),
        };
        let stream = budget
            .limit(|| Stage::Handshake, connector.connect(name, stream))
            .await?
            .map_err(|error| {
                if no_protocol(&error) {
                    protocol()
                } else {
                    CheckError::from_io(target, Stage::Handshake, &error)
                }
            })?;
        let session = stream.get_ref().1;
        if !self.settings.alpn.is_empty() && session.alpn_protocol().is_none() {
            return Err(protocol());
        }
        self.check_dates(target, session)?;
        Ok(stream)
    }

    /// Whether the certificate is still valid, and until when: sessions that go on or are resumed are not verified again.
    pub(super) fn check_dates(
        &self,
        target: SocketAddr,
        session: &ClientConnection,
    ) -> Result<(), CheckError> {
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let Some(end) = certificate.and_then(|certificate| not_after(certificate)) else {
            return Ok(());
        };
        let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expires.store(seconds.as_secs(), Ordering::Relaxed);
        if self.settings.verify && end <= SystemTime::now() {
            return Err(CheckError::Certificate {
                target,
                problem: CertificateProblem::Expired,
            });
        }
        Ok(())
    }

    /// The certificate that was seen last.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        let seconds = Some(self.expires.load(Ordering::Relaxed)).filter(|seconds| *seconds != 0)?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(Certificate {
            warn_from: expires
                .checked_sub(self.settings.warn_before)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            expires,
        })
    }

    fn connector(&self) -> Result<TlsConnector, String> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = &*own {
            return Ok(Arc::clone(connector).into());
        }
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = match &*base {
            Some(config) => config.clone(),
            None => base.insert(load(&self.settings)?).clone(),
        };
        config.resumption = Resumption::in_memory_sessions(1);
        Ok(Arc::clone(own.insert(Arc::new(config))).into())
    }
}

/// Whether the peer refused the handshake since it speaks none of the offered protocols.
fn no_protocol(error: &io::Error) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref())
        .is_some_and(|error: &rustls::Error| *error == alert)
}

fn load(settings: &TlsCheck) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.verify {
        builder.with_root_certificates(roots(settings.ca_file.as_deref())?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    let mut config = match (&settings.cert_file, &settings.key_file) {
        (Some(chain), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot_read(key, &error))?;
            builder
                .with_client_auth_cert(certificates(chain)?, key_der)
                .map_err(|error| format!("cannot use {chain} with {key}: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.clone().into_bytes())
        .collect();
    Ok(config)
}

fn roots(ca_file: Option<&str>) -> Result<Arc<RootCertStore>, String> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let mut store = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in certificates(file)? {
                store
                    .add(certificate)
                    .map_err(|error| format!("{file} is no CA: {error}"))?;
            }
            Ok(Arc::new(store))
        }
        None => {
            let system = SYSTEM.get_or_init(|| {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Arc::new(store)
            });
            if system.is_empty() {
                return Err("this machine trusts no CA: install ca-certificates, or set ca_file".to_owned());
            }
            Ok(Arc::clone(system))
        }
    }
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| cannot_read(file, &error))?;
    if certificates.is_empty() {
        return Err(format!("no certificate in {file}"));
    }
    Ok(certificates)
}

fn cannot_read(file: &str, error: &pem::Error) -> String {
    if let pem::Error::Io(error) = error {
        return format!("cannot read {file}: {error}");
    }
    format!("{file} is no PEM file: {error}")
}

/// Establishes a TLS session and ends it.
#[derive(Debug)]
pub struct TlsChecker {
    client: TlsClient,
    route: Route,
}

impl TlsChecker {
    /// A checker for `settings`.
    ///
    /// # Errors
    /// When they make no handshake.
    pub fn new(settings: &TlsCheck) -> Result<Self, ProbeError> {
        Ok(Self {
            client: TlsClient::new(settings, None)?,
            route: Route::default(),
        })
    }

    /// Connects by `route`.
    #[must_use]
    pub fn with_route(self, route: Route) -> Self {
        Self { route, ..self }
    }

    /// The certificate that was seen last, if any was.
    pub fn certificate(&self) -> Option<Certificate> {
        self.client.certificate()
    }

    /// A checker with the same settings for another target.
    pub fn sibling(&self) -> Self {
        Self {
            client: self.client.sibling(),
            route: self.route,
        }
    }
}

impl Checker for TlsChecker {
    async fn check(&self, target: SocketAddr, timeout: Duration) -> Result<Latency, CheckError> {
        let mut budget = Budget::start(target, timeout);
        let stream = budget.connect(self.route).await?;
        self.client.handshake(&mut budget, stream).await?;
        Ok(Latency(budget.started.elapsed()))
    }
}
