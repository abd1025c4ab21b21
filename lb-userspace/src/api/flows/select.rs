//! From the names in a request to the flows that are meant.

use crate::{
    api::{error::ApiError, selection::Selection, types::FlowSelection},
    config::values,
    control::ControlView,
    datapath::{FlowFilter, Places},
};

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
    let selection = Selection::named(service.as_deref(), backend.as_deref())?;
    let Places { service, backends } = selection.find(view)?;
    Ok(FlowFilter {
        service,
        backends,
        client: client.as_deref().map(values::prefix).transpose()?,
        state: state.as_deref().map(values::word).transpose()?,
    })
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
