//! QUIC connection ids in a plan: their formats, and the backends that they name.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::{
    backend::BackendId,
    limits::{MAX_QUIC_CONFIGS, MAX_QUIC_SERVERS},
    quic::{ConfigKey, ServerKey},
    service::ServiceId,
};

use crate::{
    error::PlanError,
    programmed::ProgrammedQuic,
    step::{QuicStep, Step},
    target::content::{Target, TargetQuic},
};

/// Refuses more than the maps hold.
pub(super) fn check_limits(target: &Target) -> Result<(), PlanError> {
    let all = target
        .services
        .values()
        .filter_map(|service| service.quic.as_ref());
    let (mut configs, mut servers) = (0, 0);
    for quic in all {
        configs += quic.configs.len();
        servers += quic.servers.values().map(Vec::len).sum::<usize>();
    }
    if configs > MAX_QUIC_CONFIGS as usize {
        return Err(PlanError::TooManyQuicConfigs(configs));
    }
    if servers > MAX_QUIC_SERVERS as usize {
        return Err(PlanError::TooManyQuicServers(servers));
    }
    Ok(())
}

/// The wanted content of the maps, under construction.
#[derive(Default)]
pub(super) struct Draft {
    wanted: ProgrammedQuic,
}

impl Draft {
    /// Adds a service with its backends.
    pub(super) fn service(
        &mut self,
        service: ServiceId,
        target: &TargetQuic,
        backends: impl Iterator<Item = (SocketAddr, BackendId)>,
        programmed: &ProgrammedQuic,
    ) {
        let ProgrammedQuic { configs, servers } = &mut self.wanted;
        for config in &target.configs {
            configs.insert(ConfigKey::new(service, config.id()), *config);
        }
        let mut finishing = BTreeSet::new();
        for (address, backend) in backends {
            let Some(keys) = target.servers.get(&address) else {
                finishing.insert(backend);
                continue;
            };
            let keys = keys.iter().map(|key| ServerKey { service, ..*key });
            servers.extend(keys.map(|key| (key, backend)));
        }
        if finishing.is_empty() {
            return;
        }
        for (key, backend) in &programmed.servers {
            let config = ConfigKey::new(service, key.config);
            if key.service == service
                && finishing.contains(backend)
                && programmed.configs.get(&config) == configs.get(&config)
            {
                servers.entry(*key).or_insert(*backend);
            }
        }
    }

    /// Writes after the backends that they name, and before the service that uses them.
    pub(super) fn writes(&self, programmed: &ProgrammedQuic) -> impl Iterator<Item = Step> {
        let ProgrammedQuic { configs, servers } = &self.wanted;
        let configs = configs
            .iter()
            .filter(|(key, config)| programmed.configs.get(key) != Some(config));
        let servers = servers
            .iter()
            .filter(|(key, backend)| programmed.servers.get(key) != Some(backend));
        let configs = configs.map(|(key, config)| QuicStep::WriteConfig {
            key: *key,
            config: Box::new(*config),
        });
        let servers = servers.map(|(key, backend)| QuicStep::WriteServer {
            key: *key,
            backend: *backend,
        });
        configs.chain(servers).map(Step::Quic)
    }

    /// Removals after the service that used them, and before the backends that they named.
    pub(super) fn removals(&self, programmed: &ProgrammedQuic) -> impl Iterator<Item = Step> {
        let servers = programmed
            .servers
            .keys()
            .filter(|key| !self.wanted.servers.contains_key(key));
        let configs = programmed
            .configs
            .keys()
            .filter(|key| !self.wanted.configs.contains_key(key));
        servers
            .map(|key| QuicStep::RemoveServer { key: *key })
            .chain(configs.map(|key| QuicStep::RemoveConfig { key: *key }))
            .map(Step::Quic)
    }
}
