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
    AlertDescription, ClientConfig, ClientConnection, ProtocolVersion, RootCertStore,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    certificate::outline, connect::Budget, connection::Connection, identity::Identity, problem::ProbeError,
    verifier::Verifier,
};
use crate::{
    error::{CERTIFICATE_WANTED, CertificateProblem, CheckError, Latency, LocalError, Stage, words},
    probe::{checker::Checker, route::Route},
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
    base: Arc<Mutex<Option<Base>>>,
    /// With a session store of its own: servers of one name may not share their keys, and one must not vouch for
    /// another.
    own: Mutex<Option<(Arc<ClientConfig>, Arc<Identity>)>>,
    /// When the certificate seen last ends, in seconds since 1970; 0 before the first.
    expires: AtomicU64,
}

/// The TLS configuration by files and settings.
#[derive(Clone, Debug)]
struct Base {
    config: ClientConfig,
    /// The certificate for servers that request one.
    shown: Option<Arc<CertifiedKey>>,
}

/// All errors in `settings` for servers with the name `host`, if set.
pub(super) fn problems(settings: &TlsCheck, host: Option<&str>) -> Vec<ProbeError> {
    let TlsCheck {
        verify,
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
    if let Some(host) = host.filter(|host| *verify && server_name_of(name_in(host)).is_none())
        && server_name.is_none()
    {
        problems.push(ProbeError::Unverifiable(host.to_owned()));
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

/// The name or address in a Host header, which may have a port: addresses of IPv6 stand in brackets there (RFC 3986
/// section 3.2.2).
fn name_in(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

impl TlsClient {
    /// A client for a server with the name `host`.
    ///
    /// # Errors
    /// The first of [`problems`].
    pub(super) fn new(settings: &TlsCheck, host: Option<&str>) -> Result<Self, ProbeError> {
        match problems(settings, host).into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(Self {
                settings: Arc::new(settings.clone()),
                host: host.map(|host| name_in(host).to_owned()),
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
        let (connector, identity) = self.connector().map_err(local)?;
        identity.begin();
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
                if alert(&error) == Some(AlertDescription::NoApplicationProtocol) {
                    protocol()
                } else {
                    failure(target, &identity, &error)
                }
            })?;
        let session = stream.get_ref().1;
        if !self.settings.alpn.is_empty() && session.alpn_protocol().is_none() {
            return Err(protocol());
        }
        self.check_dates(target, session)?;
        Ok(stream)
    }

    /// Whether the certificate is still valid, and until when: kept and resumed sessions are not verified again.
    pub(super) fn check_dates(
        &self,
        target: SocketAddr,
        session: &ClientConnection,
    ) -> Result<(), CheckError> {
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let Some(end) = certificate.and_then(|certificate| outline(certificate)?.not_after) else {
            return Ok(());
        };
        let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.expires.store(seconds.as_secs(), Ordering::Relaxed);
        if self.settings.verify && end <= SystemTime::now() {
            return Err(CheckError::Certificate {
                target,
                problem: CertificateProblem::Expired(Some(end)),
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

    fn connector(&self) -> Result<(TlsConnector, Arc<Identity>), String> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, identity)) = &*own {
            return Ok((Arc::clone(config).into(), Arc::clone(identity)));
        }
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let Base { mut config, shown } = match &*base {
            Some(base) => base.clone(),
            None => base.insert(load(&self.settings)?).clone(),
        };
        let identity = Arc::new(Identity::new(shown));
        config.client_auth_cert_resolver = Arc::<Identity>::clone(&identity);
        config.resumption = Resumption::in_memory_sessions(1);
        let config = Arc::new(config);
        *own = Some((Arc::clone(&config), Arc::clone(&identity)));
        Ok((config.into(), identity))
    }

    /// Waits for the server's reaction to the client certificate, if it requested one: in TLS 1.3 it comes after the
    /// client has finished the handshake (RFC 8446 section 4.4.2.4). Silence means acceptance.
    async fn wait_for_consent(
        &self,
        budget: &mut Budget,
        stream: &mut TlsStream<Connection>,
    ) -> Result<(), CheckError> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((_, identity)) = own else {
            return Ok(());
        };
        if !identity.was_asked() || stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(());
        }
        let answer = budget.limit(|| Stage::Handshake, async {
            // A server that consents ends the session, too, and need not be waited for longer.
            stream.get_mut().1.send_close_notify();
            stream.flush().await?;
            stream.read(&mut [0]).await
        });
        match answer.await {
            Ok(Err(error)) if alert(&error).is_some() => Err(failure(budget.target, &identity, &error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The alert by which the peer ended the session, if it did.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    if let rustls::Error::AlertReceived(alert) = error {
        Some(*alert)
    } else {
        None
    }
}

/// The cause of a failed handshake.
fn failure(target: SocketAddr, identity: &Identity, error: &io::Error) -> CheckError {
    match alert(error) {
        Some(alert) if identity.was_asked() => CheckError::Tls {
            target,
            reason: if identity.is_set() {
                format!("it does not accept the client certificate ({})", words(&alert))
            } else {
                CERTIFICATE_WANTED.to_owned()
            },
        },
        Some(_) | None => CheckError::from_io(target, Stage::Handshake, error),
    }
}

fn load(settings: &TlsCheck) -> Result<Base, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = if settings.verify {
        let Trusted { roots, pinned } = trusted(settings.ca_file.as_deref())?;
        let verified = Verifier::new(roots, pinned, Arc::clone(&provider));
        Arc::new(verified.map_err(|error| error.to_string())?)
    } else {
        Arc::new(Verifier::of_any(Arc::clone(&provider)))
    };
    let shown = match (&settings.cert_file, &settings.key_file) {
        (Some(chain), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot_read(key, &error))?;
            let shown = CertifiedKey::from_der(certificates(chain)?, key_der, &provider)
                .map_err(|error| format!("cannot use {chain} with {key}: {error}"))?;
            Some(Arc::new(shown))
        }
        _ => None,
    };
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|name| name.clone().into_bytes())
        .collect();
    Ok(Base { config, shown })
}

/// The trusted certificates.
struct Trusted {
    roots: Arc<RootCertStore>,
    /// Certificates of a file, each of which may be the server's own.
    pinned: Vec<CertificateDer<'static>>,
}

/// The CAs that this machine trusts, as they were at the first call.
fn system_cas() -> &'static Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    })
}

/// Whether this machine trusts any CA, which checks without `ca_file` need. Reads the file system.
pub fn has_system_cas() -> bool {
    !system_cas().is_empty()
}

fn trusted(ca_file: Option<&str>) -> Result<Trusted, String> {
    match ca_file {
        Some(file) => {
            let mut store = RootCertStore::empty();
            let pinned = certificates(file)?;
            if pinned.iter().any(|certificate| outline(certificate).is_none()) {
                return Err(format!("{file} has a certificate that cannot be read"));
            }
            // A certificate that cannot be a CA may still be the server's own.
            store.add_parsable_certificates(pinned.iter().cloned());
            Ok(Trusted {
                roots: Arc::new(store),
                pinned,
            })
        }
        None => {
            let system = system_cas();
            if system.is_empty() {
                return Err("this machine trusts no CA: install ca-certificates, or set ca_file".to_owned());
            }
            Ok(Trusted {
                roots: Arc::clone(system),
                pinned: Vec::new(),
            })
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
        let mut stream = self.client.handshake(&mut budget, stream).await?;
        self.client.wait_for_consent(&mut budget, &mut stream).await?;
        Ok(Latency(budget.started.elapsed()))
    }
}
