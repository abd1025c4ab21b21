//! Settings as keys and values of the configuration file, for exports and differences.

use std::net::Ipv4Addr;

pub use super::keys::Keys;
use super::{
    daemon::DaemonSettings,
    keys::{self, Key, KeyTable, Subject, quoted},
};
use crate::{
    health::{
        agent::AgentSettings,
        settings::{CheckKind, CheckSettings},
    },
    state::{
        backend::Backend, clients::Clients, desired::Settings, guard::Guard, hosts::HostBackend,
        quic::QuicSettings, service::Service,
    },
};

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Field {
    /// The table that it stands in.
    pub table: &'static KeyTable,
    /// The key.
    pub key: &'static Key,
    /// The value in TOML.
    pub value: String,
    /// Whether the value is the default, so that the key can be left out.
    pub is_default: bool,
}

impl Field {
    /// The key's name in a difference: with the table's prefix.
    pub fn name(&self) -> String {
        format!("{}{}", self.table.prefix, self.key.name)
    }
}

/// Keys of one thing, in the order in which they are written.
pub type Fields = Vec<Field>;

fn of(table: &'static KeyTable, subject: &impl Subject, keys: Keys) -> Fields {
    let field = |(key, value): (&'static Key, String)| Field {
        table,
        key,
        is_default: key.is_default(&value),
        value,
    };
    table.written(subject, keys).map(field).collect()
}

/// The part of the `[lb]` table that only a start of the daemon reads.
pub fn daemon(settings: &DaemonSettings) -> Fields {
    of(&keys::LB, settings, Keys::Hidden)
}

/// The part of the `[lb]` table that can change while the daemon runs.
pub fn settings(settings: &Settings) -> Fields {
    of(&keys::LB, settings, Keys::Hidden)
}

/// A service without its tables and its backends.
pub fn service(service: &Service) -> Fields {
    of(&keys::SERVICE, service, Keys::Hidden)
}

/// A service's guard table. All keys are at their default if the table can be left out.
pub fn guard(guard: &Guard) -> Fields {
    of(&keys::GUARD, guard, Keys::Hidden)
}

/// A service's health table. All keys are at their default if the table can be left out.
pub fn health(settings: &CheckSettings) -> Fields {
    let mut fields = of(&keys::HEALTH, settings, Keys::Hidden);
    let is_kind = |field: &Field| field.key.name == "kind";
    let is_absent =
        settings.kind == CheckKind::None && fields.iter().all(|field| field.is_default || is_kind(field));
    for kind in fields.iter_mut().filter(|field| is_kind(field)) {
        kind.is_default = is_absent;
    }
    fields
}

/// A service's agent table; no keys where there is no table.
pub fn agent(settings: Option<&AgentSettings>) -> Fields {
    settings.map_or_else(Fields::new, |settings| of(&keys::AGENT, settings, Keys::Hidden))
}

/// One of a service's tables of clients.
pub fn clients(clients: &Clients) -> Fields {
    of(&keys::CLIENTS, clients, Keys::Hidden)
}

/// One of a service's QUIC tables.
pub fn quic(settings: &QuicSettings, keys: Keys) -> Fields {
    of(&keys::QUIC, settings, keys)
}

/// A backend.
pub fn backend(backend: &Backend) -> Fields {
    of(&keys::BACKEND, backend, Keys::Hidden)
}

/// A host name that stands for backends.
pub fn host(host: &HostBackend) -> Fields {
    // The address is a dummy: the host replaces it.
    let backend = Backend {
        name: host.name.clone(),
        discovered_by: None,
        ..host.at(Ipv4Addr::UNSPECIFIED.into())
    };
    let mut fields = self::backend(&backend);
    for field in fields.iter_mut().filter(|field| field.key.name == "address") {
        field.value = quoted(host.address());
    }
    fields
}
