//! Counts of flows by state, and by service, backend or client, in bounded memory.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    api::{
        names::Names,
        types::{FlowCount, FlowGroup, FlowGroups, FlowStates},
    },
    datapath::{Flow, FlowState},
};

/// Clients of each family that are counted one by one at most: 4 MB of them, or 8 MB. A table is read in the order of a hash, so that a
/// client with many flows there is among its first; clients that only a later table has may find no room.
pub(super) const MAX_CLIENTS: usize = 1 << 17;

/// Counts flows.
pub(super) struct Counter {
    by: Option<FlowGroups>,
    names: Names,
    states: FlowStates,
    services: HashMap<Arc<str>, u64>,
    backends: HashMap<(Arc<str>, Arc<str>), u64>,
    clients_v4: HashMap<Ipv4Addr, u64>,
    clients_v6: HashMap<Ipv6Addr, u64>,
    most_clients: usize,
    is_exact: bool,
}

impl Counter {
    pub(super) fn new(by: Option<FlowGroups>, names: Names) -> Self {
        Self {
            by,
            names,
            states: FlowStates::default(),
            services: HashMap::new(),
            backends: HashMap::new(),
            clients_v4: HashMap::new(),
            clients_v6: HashMap::new(),
            most_clients: MAX_CLIENTS,
            is_exact: true,
        }
    }

    /// The same with fewer clients, for tests.
    #[cfg(test)]
    pub(super) fn with_clients(self, most_clients: usize) -> Self {
        Self { most_clients, ..self }
    }

    pub(super) fn add(&mut self, flow: &Flow) {
        *match flow.state {
            FlowState::Opening => &mut self.states.opening,
            FlowState::Established => &mut self.states.established,
            FlowState::Closing => &mut self.states.closing,
            FlowState::Closed => &mut self.states.closed,
        } += 1;
        match self.by {
            None => {}
            Some(FlowGroups::Service) => {
                *self.services.entry(self.names.of(flow).service).or_default() += 1;
            }
            Some(FlowGroups::Backend) => {
                let named = self.names.of(flow);
                *self.backends.entry((named.service, named.backend)).or_default() += 1;
            }
            Some(FlowGroups::Client) => {
                let most = self.most_clients;
                self.is_exact &= match flow.client {
                    SocketAddr::V4(client) => count(&mut self.clients_v4, *client.ip(), most),
                    SocketAddr::V6(client) => count(&mut self.clients_v6, *client.ip(), most),
                };
            }
        }
    }

    /// The result, with `limit` groups at most.
    pub(super) fn finish(self, limit: usize) -> FlowCount {
        let FlowStates {
            opening,
            established,
            closing,
            closed,
        } = self.states;
        let flows = opening + established + closing + closed;
        let of_services = self.services.into_iter().map(|(service, flows)| FlowGroup {
            service: Some(service.to_string()),
            flows,
            ..FlowGroup::default()
        });
        let of_backends = self
            .backends
            .into_iter()
            .map(|((service, backend), flows)| FlowGroup {
                service: Some(service.to_string()),
                backend: Some(backend.to_string()),
                flows,
                ..FlowGroup::default()
            });
        let mut groups = largest(of_services, limit);
        groups.extend(largest(of_backends, limit));
        let of_v4 = self.clients_v4.into_iter().map(of_client);
        groups.extend(largest(
            of_v4.chain(self.clients_v6.into_iter().map(of_client)),
            limit,
        ));
        let counted: u64 = groups.iter().map(|group| group.flows).sum();
        FlowCount {
            flows,
            states: self.states,
            groups,
            rest: if self.by.is_some() { flows - counted } else { 0 },
            exact: self.is_exact,
        }
    }
}

/// Counts a client's flow; whether there was room for it.
fn count<A: Eq + std::hash::Hash>(clients: &mut HashMap<A, u64>, client: A, most: usize) -> bool {
    if let Some(flows) = clients.get_mut(&client) {
        *flows += 1;
        return true;
    }
    let has_room = clients.len() < most;
    if has_room {
        clients.insert(client, 1);
    }
    has_room
}

fn of_client((client, flows): (impl ToString, u64)) -> FlowGroup {
    FlowGroup {
        client: Some(client.to_string()),
        flows,
        ..FlowGroup::default()
    }
}

/// The largest groups, the largest first, those of one size by name.
fn largest(groups: impl Iterator<Item = FlowGroup>, limit: usize) -> Vec<FlowGroup> {
    let mut groups: Vec<FlowGroup> = groups.collect();
    groups.sort_unstable_by(|a, b| {
        let name = |group: &FlowGroup| (group.service.clone(), group.backend.clone(), group.client.clone());
        b.flows.cmp(&a.flows).then_with(|| name(a).cmp(&name(b)))
    });
    groups.truncate(limit);
    groups
}
