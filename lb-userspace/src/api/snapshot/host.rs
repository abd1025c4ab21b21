//! Host names of backends, as the API shows them.

use crate::{
    api::{
        snapshot::moment::StatusSnapshot,
        types::{self, Problem},
    },
    discovery::{MAX_ADDRESSES, addresses},
    events::rfc3339,
    state::{discovered, hosts::HostBackend, service::Service},
};

impl StatusSnapshot {
    pub(super) fn host(&self, service: &Service, host: &HostBackend) -> types::Host {
        let id = (service.name.clone(), host.name.clone());
        let status = self.hosts.get(&id).cloned().unwrap_or_default();
        let cut = status
            .cut
            .map(|count| format!("{count} addresses are more than the {MAX_ADDRESSES} that are used"));
        let resolved = status.is_resolved();
        let (error, since) = status.failure.unzip();
        types::Host {
            name: host.name.to_string(),
            address: host.address(),
            backends: discovered::of(service, host).len(),
            resolved,
            error,
            failing_since: since.map(rfc3339),
            unused: status
                .left_out
                .into_iter()
                .map(|left| left.why)
                .chain(cut)
                .collect(),
            refused: status.refused,
        }
    }
}

/// Problems of a service's host names.
pub(super) fn problems(service: &types::Service) -> impl Iterator<Item = Problem> {
    service.hosts.iter().flat_map(|host| {
        let name = host.address.rsplit_once(':').map_or("", |(name, _)| name);
        let failing = host.error.as_ref().map(|error| {
            let since = host.failing_since.as_deref().unwrap_or_default();
            let effect = match host.backends {
                0 => "it has no backends yet".to_owned(),
                count => format!("its last answer stays in force: {}", addresses(count)),
            };
            (
                format!("{name} cannot be looked up since {since}: {error}; {effect}"),
                format!("`getent ahosts {name}` asks the same resolver; see /etc/resolv.conf"),
            )
        });
        let pending = (host.backends == 0 && host.error.is_none() && !host.resolved).then(|| {
            (
                format!("{name} is being looked up for the first time"),
                "its addresses are backends once they are known".to_owned(),
            )
        });
        let unused = host.unused.first().map(|why| {
            let message = match host.unused.len() {
                1 => format!("an address of {name} is not used: {why}"),
                count => format!("{count} addresses of {name} are not used: {why}"),
            };
            (
                message,
                format!("`lb service show {} -o json` lists them all", service.name),
            )
        });
        let refused = host.refused.as_ref().map(|why| {
            (
                format!("the addresses of {name} cannot be put in force: {why}"),
                "the last ones stay; it is tried again by itself".to_owned(),
            )
        });
        let all = [failing, pending, unused, refused].into_iter().flatten();
        all.map(|(message, hint)| Problem {
            service: Some(service.name.clone()),
            backend: Some(host.name.clone()),
            message,
            hint: Some(hint),
        })
    })
}
