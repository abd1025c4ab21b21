//! Metric families of inputs to health states other than check results.

use std::time::{SystemTime, UNIX_EPOCH};

use super::text::{Kind, Text};
use crate::{
    control::Observation,
    health::{BreakerState, CheckId, CheckStatuses},
};

/// The families of all checks, and passive signals.
pub(super) fn render(text: &mut Text, checks: &CheckStatuses, seen: &Observation, now: SystemTime) {
    let mut family = text.family(
        "lb_backend_signals_total",
        Kind::Counter,
        "Failed flows of a backend in mode nat, by signal: SYNs that clients repeat, resets in answer, ICMP unreachable",
    );
    for ((service, backend), stats) in &seen.backends {
        let signals = stats.signals;
        for (signal, count) in [
            ("unanswered", signals.unanswered),
            ("refused", signals.refused),
            ("unreachable", signals.unreachable),
        ] {
            let labels = [
                ("service", service.as_str()),
                ("backend", backend.as_str()),
                ("signal", signal),
            ];
            family.sample(&labels, count);
        }
    }
    let mut family = text.family(
        "lb_backend_damped",
        Kind::Gauge,
        "1: held down because it went down too often (flap_limit)",
    );
    for (id, status) in checks.iter() {
        family.sample(&labels(id), u8::from(status.judgement.damped));
    }
    let mut family = text.family(
        "lb_backend_suspect",
        Kind::Gauge,
        "1: flows have failed since the last check that succeeded",
    );
    for (id, status) in checks.iter() {
        family.sample(&labels(id), u8::from(status.judgement.suspect));
    }
    let mut family = text.family(
        "lb_backend_last_check_age_seconds",
        Kind::Gauge,
        "Time since the last result of a backend's check",
    );
    for (id, status) in checks.iter() {
        if let Some(last) = &status.last_check {
            // A clock that was set back makes it 0.
            let age = now.duration_since(last.at).unwrap_or_default();
            family.sample(&labels(id), age.as_secs_f64());
        }
    }
    let mut family = text.family(
        "lb_backend_certificate_expiry_seconds",
        Kind::Gauge,
        "Expiry of the certificate that checks saw last, in seconds since 1970",
    );
    for (id, status) in checks.iter() {
        let certificate = status.last_check.as_ref().and_then(|last| last.certificate);
        let end = certificate.and_then(|seen| seen.expires.duration_since(UNIX_EPOCH).ok());
        if let Some(end) = end {
            family.sample(&labels(id), end.as_secs());
        }
    }
    let mut family = text.family(
        "lb_backend_breaker",
        Kind::Gauge,
        "Circuit breaker; 0: closed, 1: half-open (flows on trial), 2: open (no flows)",
    );
    for (id, status) in checks.iter() {
        let state = match status.judgement.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        family.sample(&labels(id), state);
    }
}

pub(super) fn labels(CheckId(service, backend): &CheckId) -> [(&str, &str); 2] {
    [("service", service.as_str()), ("backend", backend.as_str())]
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use lb_common::counters::Signals;

    use super::*;
    use crate::{
        datapath::BackendStats,
        health::{Certificate, CheckStatus, Health, Judgement, LastCheck},
        state::testing,
    };

    #[test]
    fn inputs_to_health_states_are_exported() {
        let status = |damped: bool| CheckStatus {
            health: Health::Down,
            since: SystemTime::UNIX_EPOCH,
            last_check: damped.then(|| LastCheck {
                outcome: Ok(()),
                latency: Duration::ZERO,
                at: SystemTime::UNIX_EPOCH,
                parts: Arc::default(),
                certificate: Some(Certificate {
                    warn_from: SystemTime::UNIX_EPOCH,
                    expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000),
                }),
                serves_one: false,
            }),
            judgement: Judgement {
                damped,
                suspect: damped,
                breaker: if damped {
                    BreakerState::Open
                } else {
                    BreakerState::Closed
                },
            },
            shared: None,
        };
        let checks = CheckStatuses::from(BTreeMap::from([
            (testing::id("web", "a"), status(true)),
            (testing::id("web", "b"), status(false)),
        ]));
        let mut text = Text::default();
        let stats = BackendStats {
            signals: Signals {
                refused: 3,
                ..Signals::default()
            },
            ..BackendStats::default()
        };
        let CheckId(service, backend) = testing::id("web", "a");
        let mut seen = Observation::default();
        seen.backends.insert((service, backend), stats);
        render(&mut text, &checks, &seen, UNIX_EPOCH + Duration::from_secs(3));
        let text = text.into_string();
        for line in [
            "lb_backend_damped{service=\"web\",backend=\"a\"} 1",
            "lb_backend_damped{service=\"web\",backend=\"b\"} 0",
            "lb_backend_last_check_age_seconds{service=\"web\",backend=\"a\"} 3",
            "lb_backend_suspect{service=\"web\",backend=\"a\"} 1",
            "lb_backend_certificate_expiry_seconds{service=\"web\",backend=\"a\"} 1900000000",
            "lb_backend_breaker{service=\"web\",backend=\"a\"} 2",
            "lb_backend_breaker{service=\"web\",backend=\"b\"} 0",
            "lb_backend_signals_total{service=\"web\",backend=\"a\",signal=\"refused\"} 3",
            "lb_backend_signals_total{service=\"web\",backend=\"a\",signal=\"unanswered\"} 0",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{text}");
        }
    }
}
