//! Health tables.

use lb_common::service::Mode;

use super::findings::{Findings, Place, Problem};
use crate::{
    duration::text,
    health::{
        MAX_BREAKER_FAILURES, MAX_FLAP_LIMIT, MAX_INTERVAL, MIN_INTERVAL, problems,
        settings::{
            BreakerSettings, CheckKind, CheckSettings, Damping, FurtherCheck, ProxyVersion, Require,
            Transport,
        },
    },
    state::{backend::Backend, service::Service, words},
};

/// Number of checks beside the main one: all run at the same time.
const MAX_FURTHER: usize = 7;

/// All problems of settings that belong to no service. Positions have service 0.
pub fn health_problems(settings: &CheckSettings) -> Vec<Problem> {
    let mut found = Findings::default();
    found.health(0, settings);
    found.problems
}

impl Findings {
    pub(super) fn health(&mut self, index: usize, health: &CheckSettings) {
        let at = |key| Place::Health(index, key);
        let CheckSettings {
            kind,
            also,
            require,
            interval,
            fast_interval,
            down_interval_max,
            timeout,
            rise,
            fall,
            jitter,
            damping,
            passive: _,
            breaker: _,
            through: _,
            port,
            send_proxy,
            source: _,
            mark: _,
        } = health;
        let sensible = MIN_INTERVAL..=MAX_INTERVAL;
        self.duration(at("interval"), "interval", *interval, sensible.clone());
        self.duration(
            at("fast_interval"),
            "fast_interval",
            *fast_interval,
            sensible.clone(),
        );
        self.duration(
            at("down_interval_max"),
            "down_interval_max",
            *down_interval_max,
            sensible.clone(),
        );
        self.duration(at("timeout"), "timeout", *timeout, sensible);
        if fast_interval > interval {
            let what = format!(
                "fast_interval {} is longer than interval {}",
                text(*fast_interval),
                text(*interval)
            );
            self.invalid(
                at("fast_interval"),
                what,
                "checks are faster while the health state changes: make it the shorter one",
            );
        }
        if down_interval_max < interval {
            let what = format!(
                "down_interval_max {} is shorter than interval {}",
                text(*down_interval_max),
                text(*interval)
            );
            self.invalid(
                at("down_interval_max"),
                what,
                "checks are slower while a backend is down: make it the longer one",
            );
        }
        for (key, value) in [("rise", *rise), ("fall", *fall)] {
            if value == 0 {
                self.invalid(
                    at(key),
                    format!("{key} 0 would give a verdict without a check"),
                    "use 1 or more",
                );
            }
        }
        if !(0.0..=1.0).contains(jitter) {
            self.invalid(
                at("jitter"),
                format!("jitter {jitter} is not between 0 and 1"),
                "0.1 moves each check by up to 10 %",
            );
        }
        let Damping { limit, window, hold } = *damping;
        if limit > MAX_FLAP_LIMIT {
            self.invalid(
                at("flap_limit"),
                format!("flap_limit {limit} is more than {MAX_FLAP_LIMIT}"),
                "a backend that falls a few times within flap_window is flapping",
            );
        }
        self.duration(
            at("flap_window"),
            "flap_window",
            window,
            MIN_INTERVAL..=MAX_INTERVAL,
        );
        self.duration(at("flap_hold"), "flap_hold", hold, MIN_INTERVAL..=MAX_INTERVAL);
        if *port == Some(0) {
            self.invalid(
                at("port"),
                "port 0 cannot be checked",
                "leave it out for the backend's own",
            );
        }
        for problem in problems(kind) {
            self.invalid(at(problem.key()), problem.to_string(), "");
        }
        self.proxy(at("send_proxy"), kind, *send_proxy);
        if also.is_empty() && *require == Require::Any {
            self.invalid(
                at("require"),
                "require means nothing to a single check",
                "remove it, or add [[service.health.also]]",
            );
        }
        self.further(index, health);
    }

    /// The PROXY header, which only connections have.
    fn proxy(&mut self, place: Place, kind: &CheckKind, version: Option<ProxyVersion>) {
        let by_datagram = matches!(kind, CheckKind::Dns(check) if check.transport == Transport::Udp);
        if version.is_some() && by_datagram {
            self.invalid(
                place,
                "send_proxy means nothing to a DNS check over UDP",
                "set transport = \"tcp\", or remove it",
            );
        }
    }

    /// The checks beside the main one.
    fn further(&mut self, index: usize, health: &CheckSettings) {
        let at = Place::Health(index, "also");
        if health.also.len() > MAX_FURTHER {
            self.invalid(
                at,
                format!("a backend has {MAX_FURTHER} further checks at most"),
                "each is made every time",
            );
        }
        let alone = |kind: &CheckKind| matches!(kind, CheckKind::None | CheckKind::Push(_));
        if !health.also.is_empty() && alone(&health.kind) {
            let word = words::kind(&health.kind);
            self.invalid(
                at,
                format!("a check of kind {word} cannot be combined with others"),
                "remove also",
            );
        }
        for FurtherCheck {
            kind,
            port,
            send_proxy,
        } in &health.also
        {
            self.proxy(at, kind, *send_proxy);
            if alone(kind) {
                let word = words::kind(kind);
                self.invalid(at, format!("kind {word} cannot be a further check"), "remove it");
            }
            if *port == Some(0) {
                self.invalid(
                    at,
                    "port 0 cannot be checked",
                    "leave it out for that of the main check",
                );
            }
            for problem in problems(kind) {
                self.invalid(at, problem.to_string(), "");
            }
        }
    }

    /// The circuit breaker, which needs flows whose failures show, and a check that closes it.
    pub(super) fn breaker(&mut self, index: usize, service: &Service) {
        let at = |key| Place::Health(index, key);
        let health = &service.health;
        let BreakerSettings {
            failures,
            window,
            open,
        } = health.breaker;
        let sensible = MIN_INTERVAL..=MAX_INTERVAL;
        self.duration(at("breaker_window"), "breaker_window", window, sensible.clone());
        self.duration(at("breaker_open"), "breaker_open", open, sensible);
        if failures == 0 {
            return;
        }
        let place = at("breaker_failures");
        if failures > MAX_BREAKER_FAILURES {
            self.invalid(
                place,
                format!("breaker_failures {failures} is more than {MAX_BREAKER_FAILURES}"),
                "a backend whose flows fail a few times within breaker_window has failed",
            );
        }
        let translates = |backend: &Backend| backend.mode.unwrap_or(service.mode) == Mode::Nat;
        if service.mode != Mode::Nat && !service.backends.iter().any(translates) {
            self.invalid(
                place,
                "breaker_failures means nothing without mode nat: answers do not pass the balancer",
                "remove it",
            );
        }
        if !health.passive {
            self.invalid(
                place,
                "breaker_failures has no effect with passive = false: failures of flows are not counted",
                "remove one of them",
            );
        }
        if !health.kind.is_check() {
            self.invalid(
                place,
                "breaker_failures means nothing to kind none: only a check closes the breaker for good",
                "set another kind, or remove it",
            );
        }
    }
}
