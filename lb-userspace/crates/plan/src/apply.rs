//! Keeping the mirror of the maps up to date, step by step.

use crate::{
    programmed::{Programmed, ProgrammedQuic},
    step::{QuicStep, Step},
};

impl Programmed {
    /// Records a step that has been written.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::WriteSettings {
                snat_addresses,
                snat_ports,
                gue_port,
                wildcard,
                dnat,
                prefix_services,
                ends_tunnels,
            } => {
                self.snat_addresses.clone_from(snat_addresses);
                self.snat_ports = Some(snat_ports.clone());
                self.gue_port = *gue_port;
                self.wildcard = *wildcard;
                self.dnat = *dnat;
                self.prefix_services = *prefix_services;
                self.ends_tunnels = *ends_tunnels;
            }
            Step::WriteBackend { id, backend } => {
                self.generations.insert(*id, backend.generation);
                self.backends.insert(*id, *backend);
            }
            Step::WriteReply { endpoint, reply } => {
                self.replies.insert(*endpoint, *reply);
            }
            Step::WriteRing { ring, slots } => {
                self.rings.insert(*ring, slots.clone());
            }
            Step::WritePrefix { key, verdict } => {
                self.prefixes.insert(*key, *verdict);
            }
            Step::WriteFlowGuard { service, guard } => {
                self.flow_guards.insert(*service, *guard);
            }
            Step::WriteService { key, service } => {
                // The earlier use of a key is replaced.
                let (there, other) = match service.alias {
                    0 => (&mut self.services, &mut self.aliases),
                    _ => (&mut self.aliases, &mut self.services),
                };
                there.insert(*key, *service);
                other.remove(key);
            }
            Step::RemoveService { key, id: _ } => {
                self.services.remove(key);
                self.aliases.remove(key);
            }
            Step::Quic(step) => self.quic.apply(step),
            Step::WriteClients {
                service,
                prefix,
                ring,
            } => {
                self.clients.entry(*service).or_default().insert(*prefix, *ring);
            }
            Step::RemoveClients { service, prefix } => {
                if let Some(clients) = self.clients.get_mut(service) {
                    clients.remove(prefix);
                    if clients.is_empty() {
                        self.clients.remove(service);
                    }
                }
            }
            Step::WriteTunnelEnd { key } => {
                self.tunnel_ends.insert(*key);
            }
            Step::RemoveTunnelEnd { key } => {
                self.tunnel_ends.remove(key);
            }
            Step::Barrier => {}
            Step::RemovePrefix { key } => {
                self.prefixes.remove(key);
            }
            Step::RemoveRing { ring } => {
                self.rings.remove(ring);
            }
            Step::RemoveReply { endpoint } => {
                self.replies.remove(endpoint);
            }
            Step::FreeBackend { id } => {
                self.backends.remove(id);
            }
        }
    }
}

impl ProgrammedQuic {
    /// Applies one write.
    fn apply(&mut self, step: &QuicStep) {
        match step {
            QuicStep::WriteConfig { key, config } => {
                self.configs.insert(*key, **config);
            }
            QuicStep::WriteServer { key, backend } => {
                self.servers.insert(*key, *backend);
            }
            QuicStep::RemoveServer { key } => {
                self.servers.remove(key);
            }
            QuicStep::RemoveConfig { key } => {
                self.configs.remove(key);
            }
        }
    }
}
