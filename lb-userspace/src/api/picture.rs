//! One consistent picture of everything that is known, as the API shows it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lb_common::{backend::TENTHS, counters, reason::Reason};
use tokio::task;

use super::{
    Api,
    error::ApiError,
    guard,
    types::{self, CheckPart, Drops, Interface, LastCheck, MapUse, Problem, Status, XdpMode},
};
use crate::{
    config::duration,
    control::{ControlView, lingering::Lingering},
    datapath::{self, BackendStats, NextHopState},
    events::rfc3339,
    health::{BreakerState, CheckId, CheckStatus, Health, PartResult, settings::Through},
    metrics::{Observation, is_drop},
    plan::TargetBackend,
    state::{
        backend::{Admin, Backend},
        change::{ChangeError, Kind},
        names::{BackendName, ServiceName},
        quic::QuicSettings,
        service::{RingSize, Service, ServiceKey},
        words::{self, Word},
    },
};

/// State, counters and checks at one moment.
pub(super) struct Picture {
    view: Arc<ControlView>,
    seen: Observation,
    checks: Arc<BTreeMap<CheckId, CheckStatus>>,
}

impl Picture {
    /// Reads everything.
    pub(super) async fn take(api: &Arc<Api>) -> Result<Self, ApiError> {
        let view = api.control.view();
        let (observer, named) = (Arc::clone(&api.observer), Arc::clone(&view));
        // Reading maps is system calls, which may take a while.
        let seen = task::spawn_blocking(move || observer.observe(&named)).await??;
        Ok(Self {
            view,
            seen,
            checks: api.checks.checks(),
        })
    }

    pub(super) fn status(&self, api: &Api) -> Status {
        let services = self.services();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: rfc3339(api.started),
            revision: self.view.desired.revision.0,
            ready: self.view.is_programmed(),
            interfaces: api
                .interfaces
                .iter()
                .map(|interface| self.interface(interface))
                .collect(),
            problems: self.problems(&services),
            services,
            metrics: Some(api.settings.metrics.to_string()),
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

    fn interface(&self, attached: &datapath::AttachedInterface) -> Interface {
        let stats = self
            .seen
            .interfaces
            .iter()
            .find(|stats| stats.name == attached.name);
        let counts = || stats.iter().flat_map(|stats| &stats.by_reason);
        Interface {
            name: attached.name.clone(),
            ifindex: attached.ifindex,
            xdp_mode: match attached.xdp_mode {
                datapath::XdpMode::Native => XdpMode::Native,
                datapath::XdpMode::Generic => XdpMode::Generic,
            },
            program_id: attached.program_id,
            took_over: attached.took_over,
            note: attached.note.clone(),
            packets: counts().map(|(_, count)| count.packets).sum(),
            dropped: counts()
                .filter(|(reason, _)| is_drop(reason.action()))
                .map(|(_, count)| count.packets)
                .sum(),
        }
    }

    pub(super) fn services(&self) -> Vec<types::Service> {
        self.view
            .desired
            .services
            .values()
            .map(|service| self.describe(service))
            .collect()
    }

    pub(super) fn service(&self, name: &ServiceName) -> Result<types::Service, ChangeError> {
        Ok(self.describe(self.view.desired.service(name)?))
    }

    /// A backend, also one that was removed and finishes its flows.
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

    fn describe(&self, service: &Service) -> types::Service {
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
        types::Service {
            name: service.name.to_string(),
            address: service.key.address,
            port: service.key.port,
            protocol: service.key.protocol.word().to_owned(),
            mode: service.mode.word().to_owned(),
            algorithm: service.algorithm.word().to_owned(),
            affinity: service.affinity.word().to_owned(),
            tracking: service.tracking.word().to_owned(),
            ring_size: match service.ring_size {
                RingSize::Auto => match self.view.target_service(&service.key) {
                    Some(target) => format!("auto ({})", target.ring_size),
                    None => "auto".to_owned(),
                },
                RingSize::Slots(slots) => slots.to_string(),
            },
            on_empty: service.on_empty.word().to_owned(),
            on_down: service.on_down.word().to_owned(),
            max_removed_percent: service.max_removed_percent,
            slow_start: duration::text(service.slow_start),
            guard: guard::shown(&service.guard),
            check: words::kind(&service.health.kind).to_owned(),
            quic: service.quic.iter().map(quic).collect(),
            packets: traffic.packets,
            bytes: traffic.bytes,
            new_flows: traffic.new_flows,
            active_flows: backends.iter().map(|backend| backend.active_flows).sum(),
            reply_packets: traffic.reply_packets,
            reply_bytes: traffic.reply_bytes,
            drops: of_reasons(false),
            replies: of_reasons(true),
            healthy_backends: backends
                .iter()
                .filter(|backend| backend.effective_weight > 0)
                .count(),
            backends,
            programmed,
            error: if programmed {
                None
            } else {
                self.view.failure.clone()
            },
        }
    }

    fn present(&self, service: &Service, backend: &Backend) -> types::Backend {
        let id = CheckId(service.name.clone(), backend.name.clone());
        let check = self.checks.get(&id);
        let place = (id.0, id.1);
        let named = self.seen.backends.get(&place).copied().unwrap_or_default();
        let stats = BackendStats {
            active_flows: self.seen.at(&service.key, backend.address).active_flows,
            ..named
        };
        let health = match check.map(|check| check.health).unwrap_or_default() {
            Health::Up => types::Health::Up,
            Health::Down => types::Health::Down,
            Health::Unchecked => types::Health::Unchecked,
        };
        let admin = match backend.admin {
            Admin::Enabled => types::Admin::Enabled,
            Admin::Draining => types::Admin::Draining,
            Admin::Disabled => types::Admin::Disabled,
        };
        types::Backend {
            weight: backend.weight,
            health,
            admin,
            server_ids: backend.server_ids.iter().map(ToString::to_string).collect(),
            drain_deadline: self.view.drain_deadlines.get(&place).map(|at| rfc3339(*at)),
            slow_start: self.view.whole_at.get(&place).map(|at| types::SlowStart {
                percent: self
                    .view
                    .target_backend(&service.key, backend.address)
                    .map_or(0, |target| 100 / TENTHS * target.tenths()),
                until: rfc3339(*at),
            }),
            last_check: check
                .and_then(|check| check.last_check.as_ref())
                .map(|last| LastCheck {
                    ok: last.ok(),
                    latency_us: u64::try_from(last.latency.as_micros()).unwrap_or(u64::MAX),
                    detail: last.detail().into_owned(),
                    at: rfc3339(last.at),
                    through: (service.health.through == Through::Vip)
                        .then(|| backend.mode.unwrap_or(service.mode).word().to_owned()),
                    parts: last.parts.iter().map(part).collect(),
                }),
            damped: check.is_some_and(|check| check.judgement.damped),
            suspect: check.is_some_and(|check| check.judgement.suspect),
            breaker: check
                .filter(|_| service.health.breaker.failures > 0)
                .map(|check| check.judgement.breaker.as_str().to_owned()),
            since: check.map(|check| rfc3339(check.since)),
            ..self.counted(&backend.name, &service.key, backend.address, stats)
        }
    }

    fn finishing(&self, lingering: &Lingering) -> types::Backend {
        let stats = self.seen.at(&lingering.key, lingering.address);
        types::Backend {
            admin: types::Admin::Draining,
            removed: true,
            ..self.counted(&lingering.name, &lingering.key, lingering.address, stats)
        }
    }

    /// A backend as the data plane has it, with neither health nor operator.
    fn counted(
        &self,
        name: &BackendName,
        key: &ServiceKey,
        address: std::net::SocketAddr,
        stats: BackendStats,
    ) -> types::Backend {
        let target = self.view.target_backend(key, address);
        let service = self.view.target_service(key);
        let mode = target
            .map(|target| target.mode)
            .or(service.map(|service| service.mode));
        types::Backend {
            name: name.to_string(),
            address,
            weight: 0,
            effective_weight: target.map_or(0, TargetBackend::weight_in_force),
            slow_start: None,
            health: types::Health::Unchecked,
            admin: types::Admin::Enabled,
            drain_deadline: None,
            removed: false,
            mode: mode.map(|mode| mode.word().to_owned()).unwrap_or_default(),
            server_ids: Vec::new(),
            next_hop: self.seen.next_hops.get(&address.ip()).map(next_hop),
            packets: stats.traffic.packets,
            bytes: stats.traffic.bytes,
            new_flows: stats.traffic.new_flows,
            active_flows: stats.active_flows,
            flows_counted_ms_ago: self.seen.flows_counted_at.map(|at| millis(at.elapsed())),
            reply_packets: stats.traffic.reply_packets,
            reply_bytes: stats.traffic.reply_bytes,
            signals: signals(stats.signals),
            last_check: None,
            damped: false,
            suspect: false,
            breaker: None,
            since: None,
        }
    }

    /// Everything that keeps traffic from going where it should, the worst first.
    fn problems(&self, services: &[types::Service]) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(failure) = &self.view.failure {
            problems.push(Problem {
                service: None,
                backend: None,
                message: format!("not programmed as desired: {failure}"),
                hint: Some("it is tried again by itself; the daemon's log says more".into()),
            });
        }
        for service in services {
            let about = |backend: Option<&types::Backend>, message: String, hint: Option<&str>| Problem {
                service: Some(service.name.clone()),
                backend: backend.map(|backend| backend.name.clone()),
                message,
                hint: hint.map(str::to_owned),
            };
            if service.backends.is_empty() {
                let hint = format!("lb backend add {} NAME --address IP:PORT", service.name);
                problems.push(about(
                    None,
                    "has no backends: its packets are dropped".into(),
                    Some(&hint),
                ));
            } else if service.healthy_backends == 0 {
                problems.push(about(None, "no backend takes new flows".into(), None));
            }
            let overruled = |backend: &&types::Backend| {
                backend.health == types::Health::Down && backend.effective_weight > 0
            };
            let overruled: Vec<&str> = service
                .backends
                .iter()
                .filter(overruled)
                .map(|backend| backend.name.as_str())
                .collect();
            if !overruled.is_empty() {
                let message = format!(
                    "too many backends are down: flows still go to {}",
                    overruled.join(", ")
                );
                let hint = "max_removed_percent and on_empty of the service decide that";
                problems.push(about(None, message, Some(hint)));
            }
            for backend in service.backends.iter().filter(|backend| !backend.removed) {
                if backend.health == types::Health::Down {
                    let why = backend
                        .last_check
                        .as_ref()
                        .map_or("", |check| check.detail.as_str());
                    let hint = backend.damped.then_some(
                        "it fell too often: it is up when its checks have succeeded for flap_hold",
                    );
                    let tripped = backend.breaker.as_deref() == Some(BreakerState::Open.as_str());
                    let (what, hint) = if tripped {
                        (
                            "down: circuit breaker open, its flows fail".to_owned(),
                            Some("it is closed when a check succeeds; lb events says what failed"),
                        )
                    } else {
                        (format!("down: {why}"), hint)
                    };
                    problems.push(about(Some(backend), what, hint));
                }
                if let Some(error) = backend.next_hop.as_ref().and_then(|hop| hop.error.clone()) {
                    let ip = backend.address.ip();
                    let hint = format!("see `ip route get {ip}` and `ip neigh`");
                    problems.push(about(Some(backend), error, Some(&hint)));
                }
            }
        }
        problems
    }
}

fn part(part: &PartResult) -> CheckPart {
    CheckPart {
        check: part.what.to_string(),
        ok: part.outcome.is_ok(),
        latency_us: u64::try_from(part.latency.as_micros()).unwrap_or(u64::MAX),
        detail: part.detail().into_owned(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signals(told: counters::Signals) -> types::Signals {
    let counters::Signals {
        unanswered,
        refused,
        unreachable,
    } = told;
    types::Signals {
        unanswered,
        refused,
        unreachable,
    }
}

fn next_hop(state: &NextHopState) -> types::NextHop {
    let (via, interface) = match state {
        NextHopState::Reached {
            via,
            interface,
            answering: _,
        }
        | NextHopState::Waiting { via, interface } => (Some(*via), Some(interface.clone())),
        NextHopState::NotEthernet { interface } | NextHopState::TooManyTags { interface } => {
            (None, Some(interface.clone()))
        }
        NextHopState::Local | NextHopState::Unreachable => (None, None),
    };
    types::NextHop {
        via,
        interface,
        error: state.error(),
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
