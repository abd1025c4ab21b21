//! Backends, as the API shows them.

use std::time::{Duration, SystemTime};

use lb_common::{backend::TENTHS, counters};

use crate::{
    api::{
        agent::shown,
        snapshot::{check_remedy, moment::StatusSnapshot},
        types::{self, CheckPart, LastCheck},
    },
    control::removed::RemovedBackend,
    datapath::{BackendStats, NextHopState},
    events::rfc3339,
    health::{Certificate, CheckError, CheckId, CheckStatus, Health, PartResult, settings::Through},
    plan::TargetBackend,
    state::{
        backend::{Admin, Backend},
        names::{BackendName, ServiceName},
        service::{Service, ServiceKey},
        words::Word,
    },
};

impl StatusSnapshot {
    pub(super) fn present(&self, service: &Service, backend: &Backend) -> types::Backend {
        let id = CheckId(service.name.clone(), backend.name.clone());
        let check = self.checks.get(&id);
        let agent = self.agents.get(&id);
        let place = (id.0, id.1);
        let named = self.seen.backends.get(&place).copied().unwrap_or_default();
        let stats = BackendStats {
            active_flows: self.seen.at(&service.key, backend.address).active_flows,
            ..named
        };
        let works = agent.is_none_or(|agent| agent.report.word.state.is_up());
        let way = self.seen.next_hops.get(&backend.address.ip());
        let blocked = way.is_some_and(NextHopState::is_blocked);
        let health = match check.map(|check| check.health).unwrap_or_default() {
            _ if !works || blocked => types::Health::Down,
            Health::Up => types::Health::Up,
            Health::Down => types::Health::Down,
            Health::Unchecked => types::Health::Unchecked,
        };
        let admin = match backend.admin {
            Admin::Enabled => types::Admin::Enabled,
            Admin::Draining => types::Admin::Draining,
            Admin::Disabled => types::Admin::Disabled,
        };
        let drain_until = self.view.drain_deadlines.get(&place).map(|at| rfc3339(*at));
        types::Backend {
            weight: backend.weight,
            backup: backend.backup,
            group: backend.group.as_ref().map(ToString::to_string),
            health,
            admin,
            server_ids: backend.server_ids.iter().map(ToString::to_string).collect(),
            discovered_by: backend.discovered_by.as_ref().map(ToString::to_string),
            drain_deadline: drain_until.clone(),
            drain_until,
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
                    remedy: last
                        .outcome
                        .as_ref()
                        .err()
                        .and_then(|error| check_remedy::of(service, error)),
                    local: last.outcome.as_ref().is_err_and(CheckError::is_local),
                    at: rfc3339(last.at),
                    through: (service.health.through == Through::Vip)
                        .then(|| backend.mode.unwrap_or(service.mode).word().to_owned()),
                    parts: last.parts.iter().map(part).collect(),
                }),
            check_shared_with: check.map(|check| shared_with(check, &place)).unwrap_or_default(),
            damped: check.is_some_and(|check| check.judgement.damped),
            suspect: check.is_some_and(|check| check.judgement.suspect),
            breaker: check
                .filter(|_| service.health.breaker.failures > 0)
                .map(|check| check.judgement.breaker.as_str().to_owned()),
            certificate: check
                .and_then(|check| check.last_check.as_ref()?.certificate)
                .map(|seen| certificate(&seen, SystemTime::now())),
            agent: agent.map(shown),
            since: check.map(|check| rfc3339(check.since)),
            ..self.counted(&backend.name, &service.key, backend.address, stats)
        }
    }

    pub(super) fn finishing(&self, lingering: &RemovedBackend) -> types::Backend {
        let stats = self.seen.at(&lingering.key, lingering.address);
        let check = lingering.check_id().and_then(|id| self.checks.get(&id));
        types::Backend {
            health: match check.map(|check| check.health).unwrap_or_default() {
                Health::Up => types::Health::Up,
                Health::Down => types::Health::Down,
                Health::Unchecked => types::Health::Unchecked,
            },
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
            backup: false,
            group: None,
            slow_start: None,
            health: types::Health::Unchecked,
            admin: types::Admin::Enabled,
            drain_until: None,
            drain_deadline: None,
            removed: false,
            mode: mode.map(|mode| mode.word().to_owned()).unwrap_or_default(),
            server_ids: Vec::new(),
            discovered_by: None,
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
            check_shared_with: Vec::new(),
            certificate: None,
            agent: None,
            damped: false,
            suspect: false,
            breaker: None,
            since: None,
        }
    }
}

/// The other backends whose health state a check decides.
fn shared_with(check: &CheckStatus, own: &(ServiceName, BackendName)) -> Vec<String> {
    let others = check.shared.iter().flat_map(|all| all.iter());
    let others = others.filter(|CheckId(service, backend)| (service, backend) != (&own.0, &own.1));
    others
        .map(|CheckId(service, backend)| format!("{service}/{backend}"))
        .collect()
}

fn certificate(seen: &Certificate, now: SystemTime) -> types::Certificate {
    let days = |time: Duration| i64::try_from(time.as_secs() / 86_400).unwrap_or(i64::MAX);
    types::Certificate {
        expires: rfc3339(seen.expires),
        days_left: match seen.expires.duration_since(now) {
            Ok(left) => days(left),
            Err(past) => -1 - days(past.duration()),
        },
        expires_soon: now >= seen.warn_from,
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

fn signals(signals: counters::Signals) -> types::Signals {
    let counters::Signals {
        unanswered,
        refused,
        unreachable,
    } = signals;
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
            source: _,
        }
        | NextHopState::Waiting {
            via,
            interface,
            source: _,
        } => (Some(*via), Some(interface.clone())),
        NextHopState::NotEthernet { interface } | NextHopState::TooManyTags { interface } => {
            (None, Some(interface.clone()))
        }
        NextHopState::Local | NextHopState::Unreachable => (None, None),
    };
    types::NextHop {
        via,
        interface,
        error: state.error(),
        blocked: state.is_blocked(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_go_below_zero() {
        let hour = Duration::from_secs(3_600);
        let end = SystemTime::UNIX_EPOCH + 100_000 * hour;
        let seen = Certificate {
            warn_from: end - 48 * hour,
            expires: end,
        };
        for (now, days_left, expires_soon) in [
            (end - 73 * hour, 3, false),
            (end - 48 * hour, 2, true),
            (end - 23 * hour, 0, true),
            (end + hour, -1, true),
            (end + 25 * hour, -2, true),
        ] {
            let shown = certificate(&seen, now);
            assert_eq!((shown.days_left, shown.expires_soon), (days_left, expires_soon));
        }
    }
}
