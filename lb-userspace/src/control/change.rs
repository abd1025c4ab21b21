//! Changes of the desired state, and the pure function that applies one.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::error::ControlError;
use crate::{
    config::{self, Config, fields::Keys, health},
    spec::ServiceSpec,
    state::{
        backend::Backend,
        change::{BackendChange, ChangeError},
        desired::{Desired, Revision},
        discovered,
        names::{BackendName, ServiceName},
        service::Service,
        shared::Shared,
        stored::{self, FileOrder, Stored},
    },
};

/// A change of the desired state.
#[derive(Clone, Debug)]
pub enum Change {
    /// A service comes.
    AddService(Box<ServiceSpec>),
    /// A service changes.
    SetService(ServiceName, Box<ServiceSpec>),
    /// A service goes, with its backends.
    RemoveService(ServiceName),
    /// A backend comes.
    AddBackend(ServiceName, Backend),
    /// A backend changes.
    SetBackend(ServiceName, BackendName, BackendChange),
    /// A backend goes: `now`, or when its flows are finished.
    RemoveBackend {
        /// Its service.
        service: ServiceName,
        /// Its name.
        backend: BackendName,
        /// Its flows move at once.
        now: bool,
    },
    /// Host names were answered.
    Discovered(Vec<Discovered>),
    /// A configuration file comes.
    File(Arc<Config>, FileOrder),
}

/// The addresses that a host name has now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovered {
    /// The service.
    pub service: ServiceName,
    /// The host name's `[[service.backend]]` table.
    pub host: BackendName,
    /// Its addresses; at least one.
    pub addresses: BTreeSet<IpAddr>,
}

impl Change {
    /// The state after this change; its revision is higher only if something that is desired is different.
    ///
    /// # Errors
    /// [`ControlError::Change`], [`ControlError::Values`] and [`ControlError::NoServices`]
    pub fn follow(&self, stored: &Stored) -> Result<Stored, ControlError> {
        let Self::File(config, order) = self else {
            return Ok(Stored {
                desired: Arc::new(self.apply(&stored.desired)?),
                applied: stored.applied.clone(),
            });
        };
        let content = stored::content_by_file(stored, &config.desired, *order)?;
        let desired = stored.desired.replace(content)?;
        // Services that are alike are shared, so that later comparisons end at once.
        let known = stored.applied.as_ref().map(|applied| &applied.daemon);
        let applied = Config {
            // An operator may apply an export, which lacks these keys: a start reads another file.
            daemon: match order {
                FileOrder::Apply { .. } => known.unwrap_or(&config.daemon).clone(),
                FileOrder::Reload => config.daemon.clone(),
            },
            desired: Desired {
                revision: Revision::default(),
                ..desired.replace(config.desired.clone())?
            },
        };
        Ok(Stored {
            desired: Arc::new(desired),
            applied: Some(Arc::new(applied)),
        })
    }

    /// The desired state after a change that no file brings.
    fn apply(&self, desired: &Desired) -> Result<Desired, ControlError> {
        let next = match self {
            Self::AddService(spec) => add_service(desired, spec)?,
            Self::SetService(name, spec) => set_service(desired, name, spec)?,
            Self::RemoveService(name) => desired.remove_service(name)?,
            Self::AddBackend(service, backend) => desired.add_backend(service, backend.clone())?,
            Self::SetBackend(service, name, change) => desired.set_backend(service, name, change.clone())?,
            Self::RemoveBackend {
                service,
                backend,
                now: _,
            } => desired.remove_backend(service, backend)?,
            Self::Discovered(answers) => {
                let mut next = desired.clone();
                for Discovered {
                    service,
                    host,
                    addresses,
                } in answers
                {
                    match discovered::answered(&next, service, host, addresses) {
                        Ok((after, _)) => next = after,
                        // It went while it was looked up.
                        Err(ChangeError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                // One change makes one revision.
                desired.replace(next)?
            }
            Self::File(config, _) => desired.replace(config.desired.clone())?,
        };
        Ok(next)
    }

    /// The backend that must not linger.
    pub fn at_once(&self) -> Option<(&ServiceName, &BackendName)> {
        match self {
            Self::RemoveBackend {
                service,
                backend,
                now: true,
            } => Some((service, backend)),
            Self::RemoveBackend { now: false, .. }
            | Self::AddService(_)
            | Self::SetService(..)
            | Self::RemoveService(_)
            | Self::AddBackend(..)
            | Self::SetBackend(..)
            | Self::Discovered(_)
            | Self::File(..) => None,
        }
    }
}

/// Adding a service that exists with the same settings succeeds, whatever backends it has by now.
fn add_service(desired: &Desired, spec: &ServiceSpec) -> Result<Desired, ControlError> {
    let mut service = parse(&table(spec)?, desired)?;
    if let Some(there) = desired.services.get(&service.name) {
        service.backends.clone_from(&there.backends);
        service.hosts.clone_from(&there.hosts);
    }
    Ok(desired.add_service(service)?)
}

/// Merges the new values into the service as the configuration file would have it, so that one grammar and one set of rules
/// hold for both, and replaces it.
fn set_service(desired: &Desired, name: &ServiceName, spec: &ServiceSpec) -> Result<Desired, ControlError> {
    let mut alone = Desired::default();
    alone
        .services
        .insert(name.clone(), desired.service(name)?.clone().into());
    let document: toml::Table = config::export(&alone, Keys::Whole)
        .parse()
        .map_err(|error| internal(&error))?;
    let old = document
        .get("service")
        .and_then(toml::Value::as_array)
        .and_then(|services| services.first());
    let mut merged = old.and_then(toml::Value::as_table).cloned().unwrap_or_default();
    // One stands in place of the other.
    if spec.port.is_some() {
        merged.remove("ports");
    }
    if spec.ports.is_some() {
        merged.remove("port");
    }
    for (key, value) in table(spec)? {
        match (merged.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) if same_kind(old, &new) => {
                if key == "health" {
                    for excluded in new
                        .iter()
                        .flat_map(|(key, value)| health::excluded_by(key, value))
                    {
                        old.remove(excluded);
                    }
                }
                old.extend(new)
            }
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    Ok(desired.set_service(parse(&merged, desired)?)?)
}

/// Another kind of check starts from the defaults: an HTTP path has no meaning for TCP.
fn same_kind(old: &toml::Table, new: &toml::Table) -> bool {
    new.get("kind").is_none_or(|kind| old.get("kind") == Some(kind))
}

fn table(spec: &ServiceSpec) -> Result<toml::Table, ControlError> {
    toml::Table::try_from(spec).map_err(|error| internal(&error))
}

/// A service table, checked as in the file.
fn parse(service: &toml::Table, desired: &Desired) -> Result<Service, ControlError> {
    let document = toml::Table::from_iter([(
        "service".to_owned(),
        toml::Value::Array(vec![toml::Value::Table(service.clone())]),
    )]);
    let text = document.to_string();
    let parsed = config::parse_beside(&text, "request", desired).map_err(ControlError::Values)?;
    parsed
        .desired
        .services
        .into_values()
        .next()
        .map(Shared::into_inner)
        .ok_or_else(|| internal(&"no service in the request"))
}

fn internal(error: &dyn std::fmt::Display) -> ControlError {
    ControlError::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::fields, state::testing};

    fn spec(health: &str) -> Box<ServiceSpec> {
        Box::new(toml::from_str(&format!("[health]\n{health}")).unwrap())
    }

    /// The keys of a check, the new ones of a command, and those that follow.
    #[test]
    fn a_key_that_excludes_others_replaces_them() {
        let name: ServiceName = "web".parse().unwrap();
        for (before, new, after) in [
            (r#"send = "a""#, r#"send_hex = "62""#, r#"send_hex = "62""#),
            (r#"send_hex = "62""#, r#"send = "a""#, r#"send = "a""#),
            (
                "send = \"a\"\nexpect = \"x\"",
                r#"expect_regex = "^y""#,
                "send = \"a\"\nexpect_regex = \"^y\"",
            ),
            (
                r#"expect_regex = "^y""#,
                r#"expect_hex = "2b""#,
                r#"expect_hex = "2b""#,
            ),
            (
                "send = \"a\"\nexpect = \"x\"",
                r#"steps = [{ send = "a" }, { expect = "b" }]"#,
                r#"steps = [{ send = "a" }, { expect = "b" }]"#,
            ),
            (
                r#"steps = [{ send = "a" }, { expect = "b" }]"#,
                r#"send = "a""#,
                r#"send = "a""#,
            ),
            (
                "send = \"a\"\nsend_proxy = \"v2\"",
                "half_open = true",
                "half_open = true",
            ),
            ("half_open = true", r#"expect = "x""#, r#"expect = "x""#),
            ("half_open = true", r#"send_proxy = "v1""#, r#"send_proxy = "v1""#),
            ("half_open = true", "rise = 7", "half_open = true\nrise = 7"),
        ] {
            let check = |keys: &str| {
                let spec = spec(&format!("kind = \"tcp\"\n{keys}"));
                let state = testing::desired([testing::service("web", 1, &[("a", 1)])]);
                set_service(&state, &name, &spec).unwrap()
            };
            let changed = set_service(&check(before), &name, &spec(new)).unwrap();
            let health = |desired: &Desired| desired.services[&name].health.clone();
            assert_eq!(health(&changed), health(&check(after)), "{before} and then {new}");
        }
    }

    #[test]
    fn a_check_that_gives_up_tls_gives_up_its_keys() {
        let name: ServiceName = "web".parse().unwrap();
        let state = testing::desired([testing::service("web", 1, &[("a", 1)])]);
        let secure = spec("kind = \"http2\"\ntls = true\nverify = false\nserver_name = \"a.example\"");
        let secure = set_service(&state, &name, &secure).unwrap();
        let plain = set_service(&secure, &name, &spec("tls = false")).unwrap();
        let written = fields::health(&plain.services[&name].health);
        assert!(written.iter().all(|field| field.name() != "health.server_name"));
    }

    #[test]
    fn keys_that_exclude_each_other_are_refused_in_one_command() {
        let name: ServiceName = "web".parse().unwrap();
        let state = testing::desired([testing::service("web", 1, &[("a", 1)])]);
        let both = spec("kind = \"tcp\"\nsend = \"a\"\nsend_hex = \"62\"");
        let error = set_service(&state, &name, &both).unwrap_err();
        assert!(error.to_string().contains("cannot be combined"), "{error}");
    }
}
