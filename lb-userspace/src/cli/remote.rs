//! A daemon elsewhere: the admin API over TLS, with a certificate of the command line's own.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use hyper::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::error::{CliError, Exit};

/// Time for connection and handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options that name a daemon elsewhere.
#[derive(Args, Clone, Debug)]
pub(super) struct RemoteOptions {
    /// A daemon elsewhere, by its api_address: https://HOST:PORT; goes before --socket
    #[arg(
        long,
        global = true,
        env = "LB_API",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    api: Option<String>,
    /// Certificate to show it, PEM
    #[arg(
        long,
        global = true,
        env = "LB_CERT",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    cert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(
        long,
        global = true,
        env = "LB_KEY",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    key: Option<PathBuf>,
    /// Authorities of its certificate, PEM
    #[arg(
        long,
        global = true,
        env = "LB_CA",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    ca: Option<PathBuf>,
}

impl RemoteOptions {
    /// The daemon that they name; `None` if they name none.
    ///
    /// # Errors
    /// A part is missing, or a file cannot be used.
    pub(super) fn remote(self) -> Result<Option<Remote>, CliError> {
        let Self { api, cert, key, ca } = self;
        let Some(api) = api else { return Ok(None) };
        let need = |file: Option<PathBuf>, option: &str| {
            file.ok_or_else(|| {
                let hint = format!("--{option} FILE, or LB_{}", option.to_uppercase());
                CliError::new(Exit::Usage, format!("--api needs --{option}")).hint(hint)
            })
        };
        let (cert, key, ca) = (need(cert, "cert")?, need(key, "key")?, need(ca, "ca")?);
        Remote::new(&api, &cert, &key, &ca).map(Some)
    }
}

/// A daemon elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Remote {
    fn new(api: &str, cert: &PathBuf, key: &PathBuf, ca: &PathBuf) -> Result<Self, CliError> {
        let wrong = || {
            CliError::new(Exit::Usage, format!("--api {api}: expected https://HOST:PORT"))
                .hint("the port is that of api_address in [lb] of the daemon's file")
        };
        let uri: Uri = api.parse().map_err(|_| wrong())?;
        let is_plain = uri.path() == "/" && uri.query().is_none();
        let (Some("https"), Some(host), Some(port), true) =
            (uri.scheme_str(), uri.host(), uri.port_u16(), is_plain)
        else {
            return Err(wrong());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let failed = |file: &PathBuf, why: &dyn std::fmt::Display| {
            CliError::new(Exit::Failed, format!("{}: {why}", file.display()))
        };
        let certificates = |file: &PathBuf| {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| failed(file, &error))
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(ca)?);
        let chain = certificates(cert)?;
        let shown = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_root_certificates(roots)
                    .with_client_auth_cert(chain, shown)
            })
            .map_err(|error| failed(cert, &error))?;
        Ok(Self {
            host,
            port,
            name,
            config: Arc::new(config),
        })
    }

    /// The name of its machine.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// A connection to it.
    ///
    /// # Errors
    /// It is not there, or its certificate or ours is refused.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, CliError> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            let connector = TlsConnector::from(Arc::clone(&self.config));
            connector.connect(self.name.clone(), stream).await
        };
        let connected = time::timeout(PATIENCE, connect).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|error| {
            let what = format!("cannot reach the daemon at {}:{}: {error}", self.host, self.port);
            CliError::new(Exit::Unreachable, what)
                .hint("see that api_address is set there, that --ca is the authority of its certificate and --cert one of its clients'")
        })
    }
}
