//! Interfaces by the names that they are asked for by.

use lb_common::limits::MAX_INTERFACES;

use super::super::netlink::{Client, LinkState};
use crate::{error::DatapathError, interface::AttachOptions};

/// An interface that is to have the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Wanted {
    /// The name it is asked for by.
    pub(in super::super) configured: String,
    /// The interface, if it is there.
    pub(in super::super) link: Option<LinkState>,
}

/// Finds the interfaces by their names, alternative ones too, each once.
///
/// # Errors
/// [`DatapathError::NotEthernet`] for the first that cannot be served, and [`DatapathError::InterfaceMissing`] for the
/// first that is not there, unless missing ones are waited for.
pub(in super::super) fn find(
    client: &mut Client,
    options: &AttachOptions,
) -> Result<Vec<Wanted>, DatapathError> {
    let mut found: Vec<Wanted> = Vec::new();
    for name in &options.interfaces {
        let link = match find_one(client, name) {
            Ok(link) => Some(link),
            Err(DatapathError::InterfaceMissing { .. }) if options.wait_for_interfaces => None,
            Err(error) => return Err(error),
        };
        let is_known = |wanted: &Wanted| wanted.configured == *name || link.is_some() && wanted.link == link;
        if !found.iter().any(is_known) {
            found.push(Wanted {
                configured: name.clone(),
                link,
            });
        }
    }
    match found.len() {
        0 if !options.wait_for_interfaces => Err(DatapathError::NoInterface),
        given if given > MAX_INTERFACES as usize => Err(DatapathError::TooManyInterfaces { given }),
        _ => Ok(found),
    }
}

/// As [`find`], for one interface.
pub(in super::super) fn find_one(client: &mut Client, name: &str) -> Result<LinkState, DatapathError> {
    let io = |what: String| move |source| DatapathError::Io { what, source };
    let link = client
        .link_named(name)
        .map_err(io(format!("cannot look for interface \"{name}\"")))?;
    let Some(link) = link else {
        let links = client.links().map_err(io("cannot list interfaces".to_owned()))?;
        return Err(DatapathError::InterfaceMissing {
            name: name.to_owned(),
            present: links.into_iter().map(|link| link.name).collect(),
        });
    };
    if !link.framed {
        return Err(DatapathError::NotEthernet(name.to_owned()));
    }
    Ok(link)
}
