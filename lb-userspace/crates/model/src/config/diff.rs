//! The differences that a change makes, for people and programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Serialize, Serializer};

use super::fields::{self, Field, Fields, Keys};
use crate::state::{
    backend::Backend,
    desired::{Desired, Settings},
    names::{BackendName, GroupName, ServiceName},
    quic::QuicSettings,
    service::Service,
};

/// The difference of two desired states; empty if they are equal.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Diff {
    /// The differences: settings first, then by service and backend.
    pub items: Vec<Item>,
}

/// The key that no difference mentions: it names the subject.
const NAME: &str = "name";

/// One thing that is different.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Item {
    /// The thing that differs.
    pub what: Subject,
    /// Whether it is added, removed or changed.
    pub change: Change,
    /// Its keys that differ; of an added thing, its keys that are not at their default.
    pub fields: Vec<FieldChange>,
}

/// The thing that differs; as text `settings`, `service web`, `clients web/near`, `quic web/2` or `backend web/web-1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The settings of the balancer as a whole.
    Settings,
    /// A service.
    Service(ServiceName),
    /// The clients of a group of a service's backends.
    Clients(ServiceName, GroupName),
    /// The QUIC connection ids of this configuration of a service.
    Quic(ServiceName, u8),
    /// A backend of a service.
    Backend(ServiceName, BackendName),
}

impl Subject {
    /// The service that it is a part of; `None` for a service itself.
    pub fn part_of(&self) -> Option<&ServiceName> {
        match self {
            Self::Settings | Self::Service(_) => None,
            Self::Clients(service, _) | Self::Quic(service, _) | Self::Backend(service, _) => Some(service),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("settings"),
            Self::Service(service) => write!(f, "service {service}"),
            Self::Clients(service, group) => write!(f, "clients {service}/{group}"),
            Self::Quic(service, config) => write!(f, "quic {service}/{config}"),
            Self::Backend(service, backend) => write!(f, "backend {service}/{backend}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether a thing is added, removed or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is added.
    Added,
    /// It is removed.
    Removed,
    /// It stays with other values.
    Changed,
}

/// A key whose value differs, as the configuration file writes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FieldChange {
    /// The key.
    pub key: String,
    /// Its value before; `None` in added things.
    pub old: Option<String>,
    /// Its value after.
    pub new: Option<String>,
    /// Whether the values may be credentials, which events and logs do not have.
    #[serde(skip)]
    pub is_secret: bool,
}

impl Diff {
    /// Whether the states are equal.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether services are added as a whole, and nothing else differs.
    pub fn only_adds_services(&self) -> bool {
        let is_added = |service: &ServiceName| {
            let mut added = self.items.iter().filter(|item| item.change == Change::Added);
            added.any(|item| matches!(&item.what, Subject::Service(name) if name == service))
        };
        self.items.iter().all(|item| {
            item.change == Change::Added
                && match &item.what {
                    Subject::Settings => false,
                    Subject::Service(_) => true,
                    Subject::Clients(service, _)
                    | Subject::Quic(service, _)
                    | Subject::Backend(service, _) => is_added(service),
                }
        })
    }

    /// The services that are added or changed, themselves or a part of them.
    pub fn services(&self) -> BTreeSet<ServiceName> {
        let service = |item: &Item| match &item.what {
            Subject::Settings => None,
            Subject::Service(service) => (item.change != Change::Removed).then(|| service.clone()),
            Subject::Clients(service, _) | Subject::Quic(service, _) | Subject::Backend(service, _) => {
                Some(service.clone())
            }
        };
        self.items.iter().filter_map(service).collect()
    }

    fn push(&mut self, what: Subject, old: Option<Fields>, new: Option<Fields>) {
        let change = match (&old, &new) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(_), Some(_)) => Change::Changed,
        };
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let keys: Vec<_> = new.iter().chain(&old).map(Field::name).collect();
        let mut seen = BTreeSet::from([NAME.to_owned()]);
        let value = |fields: &Fields, key: &str| fields.iter().find(|field| field.name() == key).cloned();
        let mut changes = Vec::new();
        for key in keys.into_iter().filter(|key| seen.insert(key.clone())) {
            let (before, after) = (value(&old, &key), value(&new, &key));
            let is_secret = after
                .as_ref()
                .or(before.as_ref())
                .is_some_and(|field| field.key.is_secret);
            let interesting = match change {
                Change::Added => after.as_ref().is_some_and(|field| !field.is_default),
                Change::Removed => false,
                Change::Changed => {
                    before.as_ref().map(|field| &field.value) != after.as_ref().map(|field| &field.value)
                }
            };
            if interesting {
                let text = |field: Option<Field>| field.map(|field| field.value);
                changes.push(FieldChange {
                    key,
                    old: text(before),
                    new: text(after),
                    is_secret,
                });
            }
        }
        if change != Change::Changed || !changes.is_empty() {
            self.items.push(Item {
                what,
                change,
                fields: changes,
            });
        }
    }
}

/// `weight 10 -> 30`, `health.port 80 -> unset`, `address "10.0.0.11:8080"`.
impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            old,
            new,
            is_secret: _,
        } = self;
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "{key} {old} -> {new}"),
            (None, Some(new)) => write!(f, "{key} {new}"),
            (Some(old), None) => write!(f, "{key} {old} -> unset"),
            (None, None) => f.write_str(key),
        }
    }
}

/// `+ backend web/web-1: address "10.0.0.11:8080"`, `~ service web: on_empty "drop" -> "all"`, `- service old`.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Item { what, change, fields } in &self.items {
            let sign = match change {
                Change::Added => '+',
                Change::Removed => '-',
                Change::Changed => '~',
            };
            write!(f, "{sign} {what}")?;
            for (place, field) in fields.iter().enumerate() {
                f.write_str(if place == 0 { ": " } else { ", " })?;
                write!(f, "{field}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The difference from one desired state to another.
pub fn diff(old: &Desired, new: &Desired) -> Diff {
    let mut diff = Diff::default();
    let settings = |settings: &Settings| Some(fields::settings(settings));
    diff.push(
        Subject::Settings,
        settings(&old.settings),
        settings(&new.settings),
    );
    let names: BTreeSet<&ServiceName> = old.services.keys().chain(new.services.keys()).collect();
    for name in names {
        let (before, after) = (old.services.get(name), new.services.get(name));
        if before == after {
            continue;
        }
        let (before, after) = (before.map(|before| &**before), after.map(|after| &**after));
        let own = |service: &Service| {
            [
                fields::service(service),
                fields::guard(&service.guard),
                fields::health(&service.health),
                fields::agent(service.agent.as_ref()),
            ]
            .concat()
        };
        diff.push(Subject::Service(name.clone()), before.map(own), after.map(own));
        if after.is_some() {
            clients(&mut diff, name, before, after);
            quic(&mut diff, name, before, after);
            hosts(&mut diff, name, before, after);
            backends(&mut diff, name, before, after);
        }
    }
    diff
}

fn clients(diff: &mut Diff, service: &ServiceName, old: Option<&Service>, new: Option<&Service>) {
    let by_group = |service: Option<&Service>| -> BTreeMap<GroupName, Fields> {
        let tables = service.iter().flat_map(|service| &service.clients);
        tables
            .map(|table| (table.group.clone(), fields::clients(table)))
            .collect()
    };
    let (old, new) = (by_group(old), by_group(new));
    let groups: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for group in groups {
        let what = Subject::Clients(service.clone(), group.clone());
        diff.push(what, old.get(group).cloned(), new.get(group).cloned());
    }
}

fn quic(diff: &mut Diff, service: &ServiceName, old: Option<&Service>, new: Option<&Service>) {
    let by_id = |service: Option<&Service>| -> BTreeMap<u8, Fields> {
        let tables = service.map(|service| service.quic.as_slice()).unwrap_or_default();
        let fields = |table: &QuicSettings| (table.config_id, fields::quic(table, Keys::Hidden));
        tables.iter().map(fields).collect()
    };
    let (old, new) = (by_id(old), by_id(new));
    let ids: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for &id in ids {
        let what = Subject::Quic(service.clone(), id);
        diff.push(what, old.get(&id).cloned(), new.get(&id).cloned());
    }
}

fn hosts(diff: &mut Diff, service: &ServiceName, old: Option<&Service>, new: Option<&Service>) {
    let by_name = |service: Option<&Service>| -> BTreeMap<BackendName, Fields> {
        let hosts = service.iter().flat_map(|service| &service.hosts);
        hosts
            .map(|host| (host.name.clone(), fields::host(host)))
            .collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let what = Subject::Backend(service.clone(), name.clone());
        diff.push(what, old.get(name).cloned(), new.get(name).cloned());
    }
}

fn backends(diff: &mut Diff, service: &ServiceName, old: Option<&Service>, new: Option<&Service>) {
    let by_name = |service: Option<&Service>| -> BTreeMap<_, Backend> {
        let backends = service
            .map(|service| service.backends.clone())
            .unwrap_or_default();
        backends
            .into_iter()
            .map(|backend| (backend.name.clone(), backend))
            .collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        let of = |backends: &BTreeMap<_, Backend>| backends.get(name).map(fields::backend);
        let what = Subject::Backend(service.clone(), name.clone());
        diff.push(what, of(&old), of(&new));
    }
}

#[cfg(test)]
mod tests;
