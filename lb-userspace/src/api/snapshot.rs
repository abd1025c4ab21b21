//! One consistent snapshot of the daemon's whole state, as the API shows it.

mod backend;
mod check_remedy;
mod config;
mod host;
mod moment;
mod problems;

use std::{sync::Arc, time::Duration};

use lb_common::{reason::Reason, service::Mode};
use tokio::task;

pub(crate) use self::moment::StatusSnapshot;
use super::{
    agent,
    error::ApiError,
    guard,
    types::{self, Drops, Interface, MapUse, Status, XdpMode},
};
use crate::{
    api::context::Api,
    control::{self},
    datapath, duration,
    events::rfc3339,
    metrics::is_drop,
    parts::Part,
    plan::groups::TakenBy,
    state::{
        change::{ChangeError, Kind},
        desired::Desired,
        effective,
        names::{BackendName, GroupName, ServiceName},
        quic::QuicSettings,
        service::{Protocol, RingSize, Service, Tracking},
        words::{self, Word},
    },
};

impl StatusSnapshot {
    /// Reads everything.
    pub(crate) async fn take(api: &Arc<Api>) -> Result<Self, ApiError> {
        let look = Arc::clone(&api.looks).lock_owned().await;
        let view = api.control.view();
        let (of, named) = (Arc::clone(api), Arc::clone(&view));
        // Reading maps and files is system calls, which may take a while.
        let (seen, (config, of_config)) = task::spawn_blocking(move || {
            let _look = look;
            let seen = of.observer.observe(&named);
            seen.map(|seen| (seen, config::state(&of, &named)))
        })
        .await??;
        Ok(Self {
            view,
            seen,
            config,
            of_config,
            checks: api.checks.checks(),
            agents: api.checks.agents(),
            hosts: Arc::clone(&api.hosts.borrow()),
        })
    }

    /// The desired state.
    pub(crate) fn desired(&self) -> &Desired {
        &self.view.desired
    }

    /// The daemon's status without services and their problems, of which there may be thousands.
    pub(crate) fn status(&self, api: &Api) -> Status {
        let interfaces = api.interfaces.borrow().clone();
        let missing = api.parts.missing();
        let metrics = (!missing.contains_key(&Part::Metrics)).then(|| api.settings.metrics.to_string());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: rfc3339(api.started),
            revision: self.view.desired.revision.0,
            ready: self.view.not_ready(&interfaces).is_none(),
            interfaces: interfaces
                .iter()
                .map(|interface| self.interface(interface))
                .collect(),
            config: self.config.clone(),
            problems: self
                .failure()
                .into_iter()
                .chain(problems::of_interfaces(&interfaces))
                .chain(problems::of_parts(missing))
                .chain(self.own_traffic())
                .chain(self.redirects())
                .chain(self.of_config.iter().cloned())
                .collect(),
            services: Vec::new(),
            metrics,
            maps: self
                .seen
                .maps
                .iter()
                .map(|map| MapUse {
                    name: map.name.to_owned(),
                    entries: map.entries,
                    capacity: map.capacity,
                })
                .collect(),
        }
    }

    fn interface(&self, interface: &datapath::Interface) -> Interface {
        let stats = self
            .seen
            .interfaces
            .iter()
            .find(|stats| stats.name == interface.name);
        let counts = || stats.iter().flat_map(|stats| &stats.by_reason);
        let attached = interface.attached.as_ref();
        let known_as = (interface.name != interface.configured)
            .then(|| format!("configured as {}", interface.configured));
        let problem = interface.problem().map(|problem| problem.message);
        let note = attached.and_then(|attached| attached.note.clone());
        let notes: Vec<String> = [problem, known_as, note].into_iter().flatten().collect();
        Interface {
            name: interface.name.clone(),
            configured: interface.configured.clone(),
            altnames: interface.altnames.clone(),
            link: interface.operation.name().to_owned(),
            ifindex: attached.map_or(0, |attached| attached.ifindex),
            xdp_mode: match attached.map(|attached| attached.xdp_mode) {
                Some(datapath::XdpMode::Native) => XdpMode::Native,
                Some(datapath::XdpMode::Generic) => XdpMode::Generic,
                None => XdpMode::None,
            },
            program_id: attached.map_or(0, |attached| attached.program_id),
            reattachments: interface.repairs,
            took_over: attached.is_some_and(|attached| attached.took_over),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            packets: counts().map(|(_, count)| count.packets).sum(),
            dropped: counts()
                .filter(|(reason, _)| is_drop(reason.action()))
                .map(|(_, count)| count.packets)
                .sum(),
            drops: counts()
                .filter(|(reason, count)| is_drop(reason.action()) && count.packets > 0)
                .map(|(reason, count)| Drops {
                    reason: reason.name().to_owned(),
                    packets: count.packets,
                })
                .collect(),
            tunnels_ended: stats.map_or(0, |stats| stats.tunnels_ended.packets),
        }
    }

    pub(super) fn service(&self, name: &ServiceName) -> Result<types::Service, ChangeError> {
        Ok(self.describe(self.view.desired.service(name)?))
    }

    /// A backend, also a removed one whose flows finish.
    pub(super) fn backend(
        &self,
        service: &ServiceName,
        name: &BackendName,
    ) -> Result<types::Backend, ChangeError> {
        let backends = self.service(service)?.backends;
        backends
            .into_iter()
            .find(|backend| backend.name == name.as_str())
            .ok_or_else(|| ChangeError::NotFound {
                kind: Kind::Backend,
                name: format!("{service}/{name}"),
            })
    }

    pub(crate) fn describe(&self, service: &Service) -> types::Service {
        let programmed = self.view.service_is_programmed(&service.key);
        let present = service
            .backends
            .iter()
            .map(|backend| self.present(service, backend));
        let finishing = self
            .view
            .lingering_of(service)
            .map(|lingering| self.finishing(lingering));
        let backends: Vec<_> = present.chain(finishing).collect();
        let traffic = self.seen.services.get(&service.name).copied().unwrap_or_default();
        let of_reasons = |replies: bool| {
            let reasons = Reason::ALL.iter().filter(|reason| reason.is_reply() == replies);
            let counts = reasons.filter_map(|reason| {
                let packets = *self.seen.drops.get(&(service.name.clone(), *reason))?;
                Some(Drops {
                    reason: reason.name().to_owned(),
                    packets,
                })
            });
            counts.collect()
        };
        let idle = service.idle.in_force(service.key.protocol);
        let seconds = |seconds: u32| duration::text(Duration::from_secs(seconds.into()));
        let (broken, remedies) = self.broken(service).unzip();
        let remedies = remedies.unwrap_or_default();
        let described = types::Service {
            name: service.name.to_string(),
            address: service.key.address_text(),
            port: service.key.port,
            ports: service.ports.iter().map(ToString::to_string).collect(),
            protocol: service.key.protocol.word().to_owned(),
            mode: service.mode.word().to_owned(),
            algorithm: service.algorithm.word().to_owned(),
            affinity: service.affinity.word().to_owned(),
            tracking: service.tracking.word().to_owned(),
            recorded_flows: self.recorded_flows(service).to_owned(),
            ring_size: match service.ring_size {
                RingSize::Auto => match self.view.target_service(&service.key) {
                    Some(target) => format!("auto ({})", target.ring_size),
                    None => "auto".to_owned(),
                },
                RingSize::Slots(slots) => slots.to_string(),
            },
            on_empty: service.on_empty.word().to_owned(),
            on_down: service.on_down.word().to_owned(),
            on_down_after: duration::text(service.on_down_after),
            max_removed_percent: service.max_removed_percent,
            backup_below: service.backup_below,
            serving_backups: backends
                .iter()
                .filter(|backend| backend.is_serving_backup())
                .count(),
            slow_start: duration::text(service.slow_start),
            idle_timeout: seconds(idle.established),
            half_open_timeout: seconds(idle.half_open),
            closed_timeout: (service.key.protocol == Protocol::Tcp).then(|| seconds(idle.closed)),
            guard: guard::shown(&service.guard),
            check: words::kind(&service.health.kind).to_owned(),
            agent: agent::settings(service.agent.as_ref()),
            clients: self.clients(service),
            quic: service.quic.iter().map(quic).collect(),
            packets: traffic.packets,
            bytes: traffic.bytes,
            new_flows: traffic.new_flows,
            flows_give_way: self
                .seen
                .gave_way
                .get(&service.name)
                .is_some_and(|gave_way| gave_way.lately),
            active_flows: backends.iter().map(|backend| backend.active_flows).sum(),
            reply_packets: traffic.reply_packets,
            reply_bytes: traffic.reply_bytes,
            drops: of_reasons(false),
            replies: of_reasons(true),
            state: String::new(),
            broken,
            remedies,
            faults: self.faults(service),
            healthy_backends: backends
                .iter()
                .filter(|backend| backend.effective_weight > 0)
                .count(),
            backends,
            hosts: service
                .hosts
                .iter()
                .map(|host| self.host(service, host))
                .collect(),
            programmed,
            error: if programmed {
                None
            } else {
                self.view.failure.clone()
            },
        };
        types::Service {
            state: described.judged().name().to_owned(),
            ..described
        }
    }
}

impl StatusSnapshot {
    /// Which flows of a service the tables have.
    fn recorded_flows(&self, service: &Service) -> &'static str {
        let all = match self.view.target_service(&service.key) {
            Some(target) => !target.records() || target.records_all(),
            None => service.mode == Mode::Nat || service.tracking == Tracking::Full,
        };
        if all { "all" } else { "changing" }
    }

    /// Why no flow of a service can work, and what mends it.
    fn broken(&self, service: &Service) -> Option<(String, Vec<String>)> {
        let seen = &self.seen;
        let broken = control::broken(&self.view.desired, service, &seen.next_hops, control::forwards);
        let broken = broken.map(|broken| (broken.to_string(), broken.cause.remedies(service)));
        broken.or_else(|| {
            let fault = seen.fault_of(&service.name)?;
            Some((fault.reason(), fault.remedies.clone()))
        })
    }

    /// Faults of its backends.
    fn faults(&self, service: &Service) -> Vec<types::Fault> {
        let faults = self.seen.faults.get(&service.name).into_iter().flatten();
        faults
            .filter(|fault| !fault.is_total)
            .filter_map(|fault| {
                Some(types::Fault {
                    backend: fault.backend.as_ref()?.to_string(),
                    message: fault.message.clone(),
                    remedies: fault.remedies.clone(),
                })
            })
            .collect()
    }

    fn clients(&self, service: &Service) -> Vec<types::Clients> {
        let target = self.view.target_service(&service.key);
        let taken_by = |group: &GroupName| match target {
            Some(target) => target.taken_by(effective::group(service, Some(group))),
            None => TakenBy::None,
        };
        let clients = service.clients.iter().map(|clients| types::Clients {
            group: clients.group.to_string(),
            from: clients.from.iter().map(ToString::to_string).collect(),
            taken_by: match taken_by(&clients.group) {
                TakenBy::Own => "group",
                TakenBy::General => "general",
                TakenBy::All => "all",
                TakenBy::None => "none",
            }
            .to_owned(),
        });
        clients.collect()
    }
}

fn quic(settings: &QuicSettings) -> types::Quic {
    let QuicSettings {
        config_id,
        server_id_length,
        nonce_length,
        key,
    } = settings;
    types::Quic {
        config_id: *config_id,
        server_id_length: *server_id_length,
        nonce_length: *nonce_length,
        key: key.map(|key| key.fingerprint().to_string()),
    }
}
