//! Files of certificates and keys, as they are now.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls::{
    crypto::ring,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};

use super::{daemon_user::DaemonUser, setup::Setup};
use crate::health::{CertificateFacts, certificate_facts, has_system_cas, next_update};

/// Files of certificates and keys that a setup names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PemFacts {
    /// The files of certificates.
    pub certificates: BTreeMap<PathBuf, Result<Vec<CertificateFacts>, PemProblem>>,
    /// The files of revocation lists: when the first one is to be replaced, if any says so.
    pub lists: BTreeMap<PathBuf, Result<Option<SystemTime>, PemProblem>>,
    /// The keys that cannot be used.
    pub keys: BTreeMap<PathBuf, PemProblem>,
    /// Certificates and keys that do not go together, and why.
    pub misfits: BTreeMap<(PathBuf, PathBuf), String>,
    /// Whether this machine trusts any CA.
    pub has_system_cas: bool,
    /// When that was.
    pub now: SystemTime,
}

impl Default for PemFacts {
    fn default() -> Self {
        Self {
            certificates: BTreeMap::new(),
            lists: BTreeMap::new(),
            keys: BTreeMap::new(),
            misfits: BTreeMap::new(),
            has_system_cas: true,
            now: SystemTime::UNIX_EPOCH,
        }
    }
}

/// Why a file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PemProblem {
    /// It does not exist.
    Missing,
    /// The daemon's user may not read it: the directory above that forbids it, or `None` where the file itself does.
    Denied {
        /// Number of the user's group.
        group: u32,
        /// Number of the user.
        user: u32,
        /// The topmost directory that the user may not enter.
        directory: Option<PathBuf>,
    },
    /// This process may not read it, which says nothing of the daemon.
    Unseen,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// It is not PEM; whether it is the binary form (DER).
    NotPem {
        /// Whether it may be DER.
        is_der: bool,
    },
    /// PEM, with nothing in it that is looked for.
    Empty,
}

impl PemFacts {
    /// Reads the files that a setup names.
    pub(super) fn gather(setup: &Setup) -> Self {
        let mut facts = Self {
            now: SystemTime::now(),
            ..Self::default()
        };
        let needs_system = setup
            .services()
            .flat_map(crate::state::service::Service::tls_checks)
            .any(|tls| tls.verify && tls.ca_file.is_none());
        facts.has_system_cas = !needs_system || has_system_cas();
        let user = setup.daemon_user.as_ref();
        for used in setup.certificate_uses() {
            let files = [used.authorities.clone(), used.pair.clone().map(|(file, _)| file)];
            for file in files.into_iter().flatten() {
                facts
                    .certificates
                    .entry(file)
                    .or_insert_with_key(|file| certificates(file, user));
            }
            if let Some(file) = used.lists {
                let found = lists(&file, user);
                facts.lists.insert(file, found);
            }
            let Some((certificate, key)) = used.pair else {
                continue;
            };
            match PrivateKeyDer::from_pem_file(&key) {
                Err(error) => {
                    facts.keys.insert(key.clone(), problem(&key, &error));
                }
                Ok(der) => {
                    if let Some(denied) = user.and_then(|user| denied(&key, user)) {
                        facts.keys.insert(key.clone(), denied);
                    }
                    if let Some(why) = misfit(&certificate, der) {
                        facts.misfits.insert((certificate, key), why);
                    }
                }
            }
        }
        facts
    }
}

fn certificates(file: &Path, user: Option<&DaemonUser>) -> Result<Vec<CertificateFacts>, PemProblem> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| problem(file, &error))?;
    if let Some(denied) = user.and_then(|user| denied(file, user)) {
        return Err(denied);
    }
    if found.is_empty() {
        return Err(not_pem(file).unwrap_or(PemProblem::Empty));
    }
    let facts = found.iter().map(|der| certificate_facts(der));
    facts
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| PemProblem::Unreadable("a certificate in it is damaged".to_owned()))
}

fn lists(file: &Path, user: Option<&DaemonUser>) -> Result<Option<SystemTime>, PemProblem> {
    let read =
        CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| problem(file, &error))?;
    if let Some(denied) = user.and_then(|user| denied(file, user)) {
        return Err(denied);
    }
    if found.is_empty() {
        return Err(not_pem(file).unwrap_or(PemProblem::Empty));
    }
    Ok(found.iter().filter_map(|list| next_update(list)).min())
}

fn problem(file: &Path, error: &pem::Error) -> PemProblem {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may add kinds at any time; its words serve for all the others"
    )]
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => PemProblem::Missing,
        pem::Error::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => PemProblem::Unseen,
        pem::Error::Io(error) => PemProblem::Unreadable(error.to_string()),
        pem::Error::NoItemsFound => not_pem(file).unwrap_or(PemProblem::Empty),
        other => PemProblem::Unreadable(other.to_string()),
    }
}

/// Of a file in which nothing was found: whether it is no PEM at all.
fn not_pem(file: &Path) -> Option<PemProblem> {
    /// Tag of a sequence, with which certificates and keys begin in DER (X.690 section 8.9).
    const SEQUENCE: u8 = 0x30;
    let content = fs::read(file).ok()?;
    let has_label = content.windows(11).any(|words| words == b"-----BEGIN ");
    (!has_label).then(|| PemProblem::NotPem {
        is_der: content.first() == Some(&SEQUENCE),
    })
}

fn denied(file: &Path, user: &DaemonUser) -> Option<PemProblem> {
    let denial = user.denial(file)?;
    Some(PemProblem::Denied {
        user: user.user,
        group: user.group,
        directory: denial,
    })
}

/// Why a certificate and a key do not go together; `None` if they do, or if the certificate cannot be read.
fn misfit(certificate: &Path, key: PrivateKeyDer<'static>) -> Option<String> {
    let read = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.ok().filter(|chain| !chain.is_empty())?;
    let error = CertifiedKey::from_der(chain, key, &ring::default_provider()).err()?;
    Some(error.to_string())
}
