//! What is to be diagnosed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use std::time::Duration;

use lb_common::service::Mode;

use super::daemon_user::DaemonUser;
use crate::{
    datapath::XdpMode,
    serve::TlsFiles,
    state::{desired::Desired, service::Service, xdp_mode::XdpModeChoice},
};

/// Time before the end of a certificate of the admin API from which on a warning is given.
const API_WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// What is to be diagnosed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Interfaces, by any of their names.
    pub interfaces: Vec<String>,
    /// XDP modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// The mode in which the program runs on each interface now, if a daemon runs.
    pub running: BTreeMap<String, XdpMode>,
    /// Whether a daemon runs.
    pub has_daemon: bool,
    /// The user that it runs as, unless it may read every file.
    pub daemon_user: Option<DaemonUser>,
    /// Files of the admin API over TLS, if it is served.
    pub api_files: Option<TlsFiles>,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// Services and settings.
    pub desired: Desired,
    /// Addresses of services that are looked at, beside those of `desired`.
    pub addresses: Vec<IpAddr>,
    /// Looks at services of these addresses alone, unless empty.
    pub only: Vec<IpAddr>,
}

/// What uses certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UsedBy {
    /// Checks of a service, as a client.
    Check,
    /// The admin API, as a server.
    Api,
}

/// Files of certificates that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CertificateUse {
    /// The service, or `api`.
    pub subject: String,
    /// What uses them.
    pub by: UsedBy,
    /// The trusted certificates.
    pub authorities: Option<PathBuf>,
    /// The lists of revoked certificates.
    pub lists: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
    /// Time before the end of a certificate from which on a warning is given.
    pub warn_before: Duration,
}

impl CertificateUse {
    /// What fails without the files.
    pub(super) fn effect(&self) -> &'static str {
        match self.by {
            UsedBy::Check => "checks of the service cannot be made",
            UsedBy::Api => "the admin API is not served over TLS",
        }
    }

    /// The keys of the configuration that name the files.
    pub(super) fn keys(&self) -> &'static str {
        match self.by {
            UsedBy::Check => "ca_file, cert_file or key_file of the check",
            UsedBy::Api => "api_ca_file, api_cert_file, api_key_file or api_crl_file",
        }
    }

    /// What has the daemon read changed files.
    pub(super) fn reread(&self) -> &'static str {
        match self.by {
            UsedBy::Check => "`systemctl restart lb`",
            UsedBy::Api => "the daemon",
        }
    }
}

impl Setup {
    /// All uses of certificates.
    pub(super) fn certificate_uses(&self) -> Vec<CertificateUse> {
        let mut uses = Vec::new();
        for service in self.services() {
            for tls in service.tls_checks() {
                let path = |file: &Option<String>| file.as_ref().map(PathBuf::from);
                let used = CertificateUse {
                    subject: service.name.to_string(),
                    by: UsedBy::Check,
                    authorities: path(&tls.ca_file).filter(|_| tls.verify),
                    lists: None,
                    pair: path(&tls.cert_file).zip(path(&tls.key_file)),
                    warn_before: tls.warn_before,
                };
                let has_files = used.authorities.is_some() || used.pair.is_some();
                if has_files && !uses.contains(&used) {
                    uses.push(used);
                }
            }
        }
        uses.extend(self.api_files.as_ref().map(|files| CertificateUse {
            subject: "api".to_owned(),
            by: UsedBy::Api,
            authorities: Some(files.ca.clone()),
            lists: files.crl.clone(),
            pair: Some((files.cert.clone(), files.key.clone())),
            warn_before: API_WARN_BEFORE,
        }));
        uses
    }

    /// The services that are looked at.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.desired
            .services
            .values()
            .map(|service| &**service)
            .filter(|service| {
                self.only.is_empty() || self.only.iter().any(|address| service.key.has_address(*address))
            })
    }

    /// Addresses of services that are looked at, each on its own: no prefixes.
    pub(super) fn service_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let services = self.services().filter(|service| !service.key.is_prefix());
        services
            .map(|service| service.key.address)
            .chain(self.addresses.iter().copied())
    }

    /// Addresses of backends that are looked at.
    pub(super) fn backend_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.services()
            .flat_map(|service| service.backends.iter().map(|backend| backend.address.ip()))
    }

    /// Addresses of backends in mode l2dsr.
    pub(super) fn direct_addresses(&self) -> BTreeSet<IpAddr> {
        let direct = self.services().flat_map(|service| {
            let backends = service.backends.iter();
            backends.filter(|backend| backend.mode.unwrap_or(service.mode) == Mode::L2dsr)
        });
        direct.map(|backend| backend.address.ip()).collect()
    }
}
