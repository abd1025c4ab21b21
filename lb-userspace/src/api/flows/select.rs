//! From the names in a request to the flows that are meant.

use std::collections::BTreeSet;

use crate::{
    api::{error::ApiError, requests::ErrorCode, types::FlowSelection},
    config::values,
    control::ControlView,
    datapath::FlowFilter,
    state::names::{BackendName, ServiceName},
};

/// Names that an error lists at most.
const LISTED: usize = 8;

/// The filter of a selection.
///
/// # Errors
/// A name or value that makes no sense, or a service or backend that there is not.
pub(super) fn filter(view: &ControlView, selection: &FlowSelection) -> Result<FlowFilter, ApiError> {
    let FlowSelection {
        service,
        backend,
        client,
        state,
    } = selection;
    let service: Option<ServiceName> = service.as_deref().map(values::name).transpose()?;
    let backend: Option<BackendName> = backend.as_deref().map(values::name).transpose()?;
    let key = match &service {
        None => None,
        Some(name) => {
            let services = &view.desired.services;
            let found = services.get(name);
            let found = found.ok_or_else(|| missing("service", name.as_str(), services.keys()))?;
            Some(found.key)
        }
    };
    let of_service = |name: &ServiceName| service.as_ref().is_none_or(|meant| meant == name);
    let backends = match &backend {
        None => None,
        Some(meant) => {
            let all = || view.backends().filter(|((name, _), ..)| of_service(name));
            let named = all().filter(|((_, name), ..)| name == meant);
            let places: BTreeSet<_> = named.map(|(_, key, address)| (key, address)).collect();
            if places.is_empty() {
                let of = service.as_ref().map_or(String::new(), |name| format!("{name}/"));
                let names: BTreeSet<_> = all().map(|((_, name), ..)| name).collect();
                return Err(missing("backend", &format!("{of}{meant}"), names.iter()));
            }
            Some(places)
        }
    };
    Ok(FlowFilter {
        service: key,
        backends,
        client: client.as_deref().map(values::prefix).transpose()?,
        state: state.as_deref().map(values::word).transpose()?,
    })
}

fn missing(kind: &str, name: &str, there: impl ExactSizeIterator<Item = impl ToString>) -> ApiError {
    let count = there.len();
    let mut names: Vec<String> = there.take(LISTED).map(|name| name.to_string()).collect();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    let hint = match count {
        0 => format!("there are no {kind}s"),
        _ => format!("{kind}s: {}", names.join(", ")),
    };
    let what = format!("{kind} \"{name}\": no such {kind}");
    ApiError::new(ErrorCode::NotFound, what, Some(hint))
}

/// A selection in words, for events.
pub(super) fn text(selection: &FlowSelection) -> String {
    let FlowSelection {
        service,
        backend,
        client,
        state,
    } = selection;
    let parts = [
        ("service", service),
        ("backend", backend),
        ("client", client),
        ("state", state),
    ];
    let given = parts
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let given: Vec<String> = given.collect();
    if given.is_empty() {
        "all".to_owned()
    } else {
        given.join(", ")
    }
}
