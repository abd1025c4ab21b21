//! Host names that stand for backends: each address that a name has is a backend.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use lb_common::service::Mode;

use super::{
    backend::{Admin, Backend},
    names::{BackendName, GroupName, MAX_NAME_LEN},
};

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
pub const MAX_HOST_LEN: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL_LEN: usize = 63;

/// Why a text is no host name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostNameError {
    /// Over [`MAX_HOST_LEN`].
    #[error("a host name has at most {MAX_HOST_LEN} characters")]
    TooLong,
    /// An internationalised name in its readable form.
    #[error("a host name is written in ASCII")]
    NotAscii,
    /// Its last label is a number, as in an IPv4 address (RFC 1123, section 2.1).
    #[error("the last label of a host name is not a number")]
    Number,
    /// A label is empty, too long, or has a character that has no place there.
    #[error("labels of a host name have 1 to {MAX_LABEL_LEN} letters, digits and inner '-'")]
    Label,
}

/// A host name (RFC 1123, section 2.1), in lower case. A name with a dot at the end is absolute: the resolver skips its search
/// list.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostName(Arc<str>);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        if !text.is_ascii() {
            return Err(HostNameError::NotAscii);
        }
        let labels = text.strip_suffix('.').unwrap_or(text);
        if labels.len() > MAX_HOST_LEN {
            return Err(HostNameError::TooLong);
        }
        let is_label = |label: &str| {
            (1..=MAX_LABEL_LEN).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !labels.split('.').all(is_label) {
            return Err(HostNameError::Label);
        }
        let last = labels.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|c| c.is_ascii_digit()) {
            return Err(HostNameError::Number);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A host name that stands for backends, and the initial values of each of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostBackend {
    /// Unique among the service's backends and host names.
    pub name: BackendName,
    /// The name to look up.
    pub host: HostName,
    /// Port of the backends; 0 keeps the packet's own, as in [`Backend::address`].
    pub port: u16,
    /// As [`Backend::weight`], of each address.
    pub weight: u16,
    /// As [`Backend::mode`].
    pub mode: Option<Mode>,
    /// As [`Backend::agent_port`].
    pub agent_port: Option<u16>,
    /// As [`Backend::backup`].
    pub backup: bool,
    /// As [`Backend::group`].
    pub group: Option<GroupName>,
    /// As [`Backend::admin`].
    pub admin: Admin,
    /// As [`Backend::drain_until`].
    pub drain_until: Option<SystemTime>,
}

impl HostBackend {
    /// The backend at an address of the host.
    pub fn at(&self, address: IpAddr) -> Backend {
        Backend {
            name: self.name_at(address),
            address: SocketAddr::new(address, self.port),
            weight: self.weight,
            mode: self.mode,
            server_ids: Vec::new(),
            agent_port: self.agent_port,
            backup: self.backup,
            group: self.group.clone(),
            admin: self.admin,
            drain_until: self.drain_until,
            discovered_by: Some(self.name.clone()),
        }
    }

    /// `app-10.0.0.1`, `app-2001-db8--1`; a name that is too long loses the end of its first part.
    fn name_at(&self, address: IpAddr) -> BackendName {
        let suffix = format!("-{address}").replace(':', "-");
        let room = MAX_NAME_LEN.saturating_sub(suffix.len());
        let name = self.name.as_str();
        let prefix = name.get(..room).unwrap_or(name);
        // Both parts consist of characters of names, so the fallback is never taken.
        format!("{prefix}{suffix}")
            .parse()
            .unwrap_or_else(|_| self.name.clone())
    }

    /// `app.example.org:8080`
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn host_names_are_distinguished_from_mistyped_addresses() {
        let long = |label: &str| vec![label; 127].join(".");
        for (text, expected) in [
            ("app", Ok("app")),
            ("App-1.Example.ORG", Ok("app-1.example.org")),
            ("app.example.org.", Ok("app.example.org.")),
            ("1and1.example", Ok("1and1.example")),
            ("10.0.0.app", Ok("10.0.0.app")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            (&long("a"), Ok(&*long("a"))),
            (&long("ab"), Err(HostNameError::TooLong)),
            ("10.0.0.256", Err(HostNameError::Number)),
            ("10.0.0.11.", Err(HostNameError::Number)),
            ("8080", Err(HostNameError::Number)),
            ("bücher.example", Err(HostNameError::NotAscii)),
            ("", Err(HostNameError::Label)),
            (".", Err(HostNameError::Label)),
            ("app..org", Err(HostNameError::Label)),
            ("-app.org", Err(HostNameError::Label)),
            ("app-.org", Err(HostNameError::Label)),
            ("my_app.org", Err(HostNameError::Label)),
            ("app org", Err(HostNameError::Label)),
            (&"a".repeat(64), Err(HostNameError::Label)),
        ] {
            let read = text.parse::<HostName>();
            assert_eq!(
                read.as_ref().map(HostName::as_str),
                expected.as_ref().copied(),
                "{text}"
            );
        }
    }

    #[test]
    fn each_address_gives_a_backend_a_name_that_fits() {
        let long = "n".repeat(MAX_NAME_LEN);
        for (name, address, expected) in [
            ("app", "10.0.0.1", "app-10.0.0.1".to_owned()),
            ("app", "2001:db8::1", "app-2001-db8--1".to_owned()),
            (&long, "10.0.0.1", format!("{}-10.0.0.1", "n".repeat(54))),
        ] {
            let host = testing::host(name, "app.example.org");
            let backend = host.at(address.parse().unwrap());
            assert_eq!(backend.name.as_str(), expected);
            assert_eq!(backend.address.port(), 8080);
            assert_eq!(backend.discovered_by, Some(host.name));
        }
    }
}
