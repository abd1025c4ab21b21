//! Changes by command: the keys of a request are merged into the service or the backend as a file would have it, and read by
//! the file's parser. So a request has the keys, the values, the rules and the errors of a file.

mod request;

use toml::{Table as Toml, Value, de::DeTable};

pub use self::request::Request;
use super::{
    ConfigError,
    error::Reporter,
    export, fields, health,
    keys::{self, Key, KeyTable, Keys, Shape},
    parse_beside,
    service::{self, Entry},
    table::Table,
    values,
};
use crate::state::{
    backend::Backend,
    change::ChangeError,
    desired::Desired,
    names::{BackendName, ServiceName},
    service::Service,
    shared::Shared,
};

/// Why a request is refused; the desired state stays as it was.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RequestError {
    /// It cannot be made of the desired state.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Its values make no sense; every error, named by its key.
    #[error("the values make no sense")]
    Values(Vec<ConfigError>),
    /// The desired state could not be written and read again.
    #[error("the present state cannot be read: {0}")]
    Internal(String),
}

/// Adds a service. One that exists with the same settings stays as it is, with its backends.
///
/// # Errors
/// Values that make no sense; otherwise as [`Desired::add_service`].
pub fn add_service(desired: &Desired, request: &Request) -> Result<Desired, RequestError> {
    let mut table = Toml::new();
    merge(&keys::SERVICE, &mut table, &request.0)?;
    let mut service = read_service(table, desired)?;
    if let Some(there) = desired.services.get(&service.name) {
        service.backends.clone_from(&there.backends);
        service.hosts.clone_from(&there.hosts);
    }
    Ok(desired.add_service(service)?)
}

/// Changes a service; keys that the request lacks keep their values.
///
/// # Errors
/// Values that make no sense; otherwise as [`Desired::set_service`].
pub fn set_service(
    desired: &Desired,
    name: &ServiceName,
    request: &Request,
) -> Result<Desired, RequestError> {
    let there = desired.service(name)?;
    keeps_name("service", name.as_str(), request)?;
    let text = export::service(there, Keys::Whole);
    let mut document: Toml = text.parse().map_err(|error| internal(&error))?;
    let mut table = match document.remove("service") {
        Some(Value::Array(services)) => services.into_iter().next().and_then(into_table),
        _ => None,
    }
    .ok_or_else(|| internal(&"it has no service"))?;
    merge(&keys::SERVICE, &mut table, &request.0)?;
    Ok(desired.set_service(read_service(table, desired)?)?)
}

/// The backend that a request describes.
///
/// # Errors
/// Values that make no sense.
pub fn backend(request: &Request) -> Result<Backend, RequestError> {
    let mut table = Toml::new();
    merge(&keys::BACKEND, &mut table, &request.0)?;
    read_backend(&table)
}

/// Changes a backend; keys that the request lacks keep their values.
///
/// # Errors
/// Values that make no sense; otherwise as [`Desired::set_backend`].
pub fn set_backend(
    desired: &Desired,
    service: &ServiceName,
    name: &BackendName,
    request: &Request,
) -> Result<Desired, RequestError> {
    let there = desired.backend(service, name)?;
    keeps_name("backend", name.as_str(), request)?;
    let fields = fields::backend(there)
        .into_iter()
        .filter(|field| !field.is_default);
    let lines = fields.map(|field| format!("{} = {}\n", field.key.name, field.value));
    let mut table: Toml = lines
        .collect::<String>()
        .parse()
        .map_err(|error| internal(&error))?;
    merge(&keys::BACKEND, &mut table, &request.0)?;
    let backend = read_backend(&table)?;
    Ok(desired.set_backend(service, name, |there| *there = backend)?)
}

/// Merges the keys of a request into a table. Keys that mean nothing beside a new one go.
fn merge(keys: &KeyTable, table: &mut Toml, new: &Toml) -> Result<(), ChangeError> {
    let known = new
        .iter()
        .filter_map(|(name, value)| Some((keys.key(name)?, value)));
    for (key, value) in known {
        if key.is_of_file {
            return Err(invalid(
                format!("{} is a key of the configuration file alone", key.name),
                "leave it out",
            ));
        }
        for excluded in excluded(keys, key, value) {
            table.remove(excluded);
        }
    }
    for (name, value) in new {
        let key = keys.key(name);
        let below = key.map(|key| key.value.shape);
        match (below, table.get_mut(name), value) {
            (Some(Shape::Table(below)), Some(Value::Table(there)), Value::Table(new))
                if same_kind(there, new) =>
            {
                merge(below, there, new)?;
            }
            (_, _, Value::String(text))
                if text.is_empty() && key.is_some_and(|key| key.is_removed_by_empty) =>
            {
                table.remove(name);
            }
            _ => {
                table.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

/// The keys that mean nothing beside a new value of `key`.
fn excluded(keys: &KeyTable, key: &Key, value: &Value) -> Vec<&'static str> {
    match (keys.header, key.name) {
        (header, name) if header == keys::HEALTH.header => health::excluded_by(name, value),
        // The end of a drain belongs to that drain.
        (header, "admin") if header == keys::BACKEND.header => vec!["drain_until"],
        _ => key.instead.into_iter().collect(),
    }
}

/// Another kind of check starts from the defaults: an HTTP path has no meaning for TCP.
fn same_kind(there: &Toml, new: &Toml) -> bool {
    new.get("kind").is_none_or(|kind| there.get("kind") == Some(kind))
}

/// Reads a service table as a file's.
fn read_service(service: Toml, desired: &Desired) -> Result<Service, RequestError> {
    let services = Value::Array(vec![Value::Table(service)]);
    let text = Toml::from_iter([("service".to_owned(), services)]).to_string();
    let parsed = parse_beside(&text, REQUEST, desired).map_err(RequestError::Values)?;
    let service = parsed.desired.services.into_values().next();
    service
        .map(Shared::into_inner)
        .ok_or_else(|| internal(&"it has no service"))
}

/// Reads a backend table as a file's.
fn read_backend(backend: &Toml) -> Result<Backend, RequestError> {
    let text = backend.to_string();
    let mut reporter = Reporter::new(&text, REQUEST);
    let (document, _) = DeTable::parse_recoverable(&text);
    let table = Table::new(document.get_ref(), document.span(), keys::BACKEND.header);
    let spans = table.spans();
    let entry = service::backend(&mut reporter, table, &spans, &Desired::default());
    reporter.check().map_err(RequestError::Values)?;
    match entry {
        Some(Entry::Backend(backend)) => Ok(backend),
        Some(Entry::Host(host)) => {
            let error = values::is_host(&host.address());
            let hint = error.hint.unwrap_or_default();
            Err(invalid(error.message, hint).into())
        }
        None => Err(internal(&"it has no backend")),
    }
}

/// What errors call the text of a request.
const REQUEST: &str = "request";

/// Refuses to rename a thing.
fn keeps_name(kind: &str, name: &str, request: &Request) -> Result<(), ChangeError> {
    match request.get("name") {
        Some(new) if new.as_str() != Some(name) => Err(invalid(
            format!("a {kind} keeps its name"),
            format!("add a {kind} with the new name, then remove the old one"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn into_table(value: Value) -> Option<Toml> {
    match value {
        Value::Table(table) => Some(table),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => None,
    }
}

fn invalid(what: String, hint: impl Into<String>) -> ChangeError {
    ChangeError::Invalid {
        what,
        hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
    }
}

fn internal(error: &dyn std::fmt::Display) -> RequestError {
    RequestError::Internal(error.to_string())
}

#[cfg(test)]
mod tests;
