//! Problems, as `lb status` lists them.

use std::collections::BTreeMap;

use super::host;
use crate::{
    api::{
        snapshot::moment::StatusSnapshot,
        types::{self, Problem},
    },
    control::own_traffic,
    datapath::Interface,
    health::BreakerState,
    parts::{MissingPart, NAME_AN_INTERFACE, Part},
};

/// Backends that a message names; more are counted.
const NAMED: usize = 5;

/// Problems of interfaces.
pub(super) fn of_interfaces(interfaces: &[Interface]) -> impl Iterator<Item = Problem> {
    let none = interfaces.is_empty().then(|| Problem {
        service: None,
        backend: None,
        message: "no interface is configured: nothing is forwarded".to_owned(),
        hint: Some(NAME_AN_INTERFACE.to_owned()),
    });
    let missing = interfaces.iter().filter_map(|interface| {
        let problem = interface.problem()?;
        Some(Problem {
            service: None,
            backend: None,
            message: format!("interface {} {}", interface.name, problem.message),
            hint: problem.hint,
        })
    });
    none.into_iter().chain(missing)
}

/// Problems of missing parts.
pub(super) fn of_parts(missing: BTreeMap<Part, MissingPart>) -> impl Iterator<Item = Problem> {
    missing
        .into_values()
        .map(|MissingPart { message, hint }| Problem {
            service: None,
            backend: None,
            message,
            hint: Some(hint),
        })
}

impl StatusSnapshot {
    /// Why the desired state is not programmed.
    pub(super) fn failure(&self) -> Option<Problem> {
        self.view.failure.as_ref().map(|failure| Problem {
            service: None,
            backend: None,
            message: format!("not programmed as desired: {failure}"),
            hint: Some("retried automatically; see the daemon's log".into()),
        })
    }

    /// Conflicts that misdirect answers to this machine's own connections.
    pub(super) fn own_traffic(&self) -> Option<Problem> {
        own_traffic::conflict(&self.view.desired).map(|conflict| Problem {
            service: None,
            backend: None,
            message: conflict.message,
            hint: Some(conflict.hint.to_owned()),
        })
    }

    /// Interfaces to which frames are not redirected.
    pub(super) fn redirects(&self) -> impl Iterator<Item = Problem> {
        let lately = self.seen.redirect_errors.iter().flatten();
        lately.filter(|errors| errors.lately).map(|errors| {
            let interface = &errors.interface;
            let hint = match errors.name() {
                "EOPNOTSUPP" => format!(
                    "lb doctor --iface {interface}: its driver, or the other end of a veth, must run an XDP program; or \
                     --xdp-mode generic"
                ),
                "ENETDOWN" => format!("ip link set {interface} up"),
                "EMSGSIZE" => format!("ip link set {interface} mtu 1500, or more: frames are longer than its MTU"),
                _ => format!("ip -s -s link show {interface}; ethtool -S {interface}"),
            };
            Problem {
                service: None,
                backend: None,
                message: format!(
                    "frames that leave by {interface} are lost: {} failed redirects, the last within a minute ({})",
                    errors.frames,
                    errors.name()
                ),
                hint: Some(hint),
            }
        })
    }

    /// Problems of a service and its backends.
    pub(crate) fn problems_of(service: &types::Service) -> Vec<Problem> {
        let mut problems = Vec::new();
        let about = |backend: Option<&types::Backend>, message: String, hint: Option<&str>| Problem {
            service: Some(service.name.clone()),
            backend: backend.map(|backend| backend.name.clone()),
            message,
            hint: hint.map(str::to_owned),
        };
        problems.extend(host::problems(service));
        if service.backends.is_empty() {
            let hint = if service.hosts.is_empty() {
                format!("lb backend add {} NAME --address IP:PORT", service.name)
            } else {
                "no address of its host names is known".to_owned()
            };
            problems.push(about(
                None,
                "has no backends: its packets are dropped".into(),
                Some(&hint),
            ));
        } else if let Some(why) = &service.broken {
            problems.push(about(
                None,
                format!("broken: no flow of it can work: {why}"),
                remedies(&service.remedies).as_deref(),
            ));
        } else if service.healthy_backends == 0 {
            problems.push(about(None, "no backend takes new flows".into(), None));
        }
        problems.extend(service.faults.iter().map(|fault| Problem {
            service: Some(service.name.clone()),
            backend: Some(fault.backend.clone()),
            message: format!("its flows fail: {}", fault.message),
            hint: remedies(&fault.remedies),
        }));
        let serving: Vec<&str> = service
            .backends
            .iter()
            .filter(|backend| backend.is_serving_backup())
            .map(|backend| backend.name.as_str())
            .collect();
        if !serving.is_empty() {
            let message = format!(
                "too few other backends can take new flows: {} of its backups, {}, takes them",
                serving.len(),
                named(&serving)
            );
            let hint = format!(
                "backup_below of the service, {}, decides that",
                service.backup_below
            );
            problems.push(about(None, message, Some(&hint)));
        }
        for clients in &service.clients {
            if clients.taken_by == "general" || clients.taken_by == "all" {
                let group = clients.group.as_str();
                let is_of = |backend: &types::Backend| backend.group.as_deref() == Some(group);
                let message = if service.backends.iter().any(is_of) {
                    format!("no backend of group {group} takes new flows: its clients go to others")
                } else {
                    format!("no backend is of group {group}: its clients go to others")
                };
                problems.push(about(
                    None,
                    message,
                    Some("`lb backend list` shows the group's backends"),
                ));
            }
        }
        if service.flows_give_way {
            let message = "half-open flows give way to new ones: source ports or the flow table run out";
            let hint = "look for a SYN flood, or add snat_addresses or backends; established flows are safe";
            problems.push(about(None, message.into(), Some(hint)));
        }
        let is_blocked = |backend: &types::Backend| backend.next_hop.as_ref().is_some_and(|hop| hop.blocked);
        // A backend that cannot be reached is about to lose its weight, and is listed below.
        let overruled = |backend: &&types::Backend| {
            let takes_flows = backend.health == types::Health::Down && backend.effective_weight > 0;
            takes_flows && !is_blocked(backend)
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
                named(&overruled)
            );
            let hint = "max_removed_percent and on_empty of the service decide that";
            problems.push(about(None, message, Some(hint)));
        }
        for backend in service.backends.iter().filter(|backend| !backend.removed) {
            let blocked = is_blocked(backend);
            if let Some((message, hint)) = withheld(service, backend) {
                problems.push(about(Some(backend), message.to_owned(), Some(&hint)));
            }
            if backend.health == types::Health::Down && !blocked {
                let why = backend
                    .last_check
                    .as_ref()
                    .map_or("", |check| check.detail.as_str());
                let remedy = backend
                    .last_check
                    .as_ref()
                    .and_then(|check| check.remedy.as_deref());
                let hint = backend
                    .damped
                    .then_some(
                        "it went down too often: it is up after its checks have succeeded for flap_hold",
                    )
                    .or(remedy);
                let agent = backend.agent.as_ref().filter(|agent| agent.state != "up");
                let tripped = backend.breaker.as_deref() == Some(BreakerState::Open.as_str());
                let (what, hint) = if let Some(agent) = agent {
                    let reason = agent.reason.as_deref().unwrap_or("no reason given");
                    (
                        format!("its agent says {}: {reason}", agent.state),
                        Some("only its agent can revoke that, by reporting \"up\""),
                    )
                } else if tripped {
                    (
                        "down: circuit breaker open, its flows fail".to_owned(),
                        Some("it closes when a check succeeds; `lb events` shows what failed"),
                    )
                } else {
                    (format!("down: {why}"), hint)
                };
                problems.push(about(Some(backend), what, hint));
            }
            let not_made = backend.last_check.as_ref().filter(|check| check.local);
            if let Some((check, remedy)) = not_made.and_then(|check| Some((check, check.remedy.as_deref()?)))
            {
                let message = format!("is not checked: {}", check.detail);
                problems.push(about(Some(backend), message, Some(remedy)));
            }
            if backend.lacks_replies(&service.protocol) && backend.health != types::Health::Down {
                let message = format!(
                    "none of its {} flows had a reply: its replies do not come through this machine",
                    backend.new_flows
                );
                let hint = match backend.mode.as_str() {
                    "dnat" => {
                        "ip route replace default via ADDRESS # on the backend; the address is that of this machine there"
                    }
                    _ => "lb doctor --probe # asks the backend, and looks for the answer",
                };
                problems.push(about(Some(backend), message, Some(hint)));
            }
            let certificate = backend.certificate.as_ref();
            if let Some(certificate) = certificate.filter(|certificate| certificate.expires_soon) {
                let what = match certificate.days_left {
                    0.. => format!("its certificate expires in {} days", certificate.days_left),
                    _ => "its certificate has expired".to_owned(),
                };
                let message = format!("{what}, at {}", certificate.expires);
                problems.push(about(Some(backend), message, Some("renew it on the server")));
            }
            if let Some(agent) = backend.agent.as_ref().filter(|agent| agent.lost) {
                let error = agent.last_poll.as_ref().and_then(|poll| poll.error.as_deref());
                let message = format!("its agent does not answer: {}", error.unwrap_or_default());
                let hint = "its last report stays in force: see `lb backend list -o wide`";
                problems.push(about(Some(backend), message, Some(hint)));
            }
            if let Some(error) = backend.next_hop.as_ref().and_then(|hop| hop.error.clone()) {
                let ip = backend.address.ip();
                let error = if blocked {
                    format!("cannot be reached, so it takes no new flows: {error}")
                } else {
                    error
                };
                let hint = format!("see `ip route get {ip}` and `ip neigh`");
                problems.push(about(Some(backend), error, Some(&hint)));
            }
        }
        problems
    }
}

/// The first names of a list, and how many more there are.
fn named(names: &[&str]) -> String {
    let (first, more) = names.split_at(names.len().min(NAMED));
    match more.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Remedies in one line, if there are any.
fn remedies(remedies: &[String]) -> Option<String> {
    (!remedies.is_empty()).then(|| remedies.join(", or "))
}

/// The problem of a backend that takes no new flows by the operator's choice, with the remedy.
fn withheld(service: &types::Service, backend: &types::Backend) -> Option<(&'static str, String)> {
    let (service, name) = (&service.name, &backend.name);
    let enable = || format!("lb backend enable {service} {name}");
    match backend.admin {
        types::Admin::Draining => Some(("takes no new flows: it is drained", enable())),
        types::Admin::Disabled => Some(("takes no flows: it is disabled", enable())),
        types::Admin::Enabled if backend.weight == 0 => Some((
            "takes no new flows: its weight is 0",
            format!("lb backend set {service} {name} --weight N"),
        )),
        types::Admin::Enabled => None,
    }
}
