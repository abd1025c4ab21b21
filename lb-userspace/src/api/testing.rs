//! States of a daemon for the tests of all parts.

use serde_json::json;

use super::types::{Admin, Backend, Drops, Health, Interface, LastCheck, MapUse, Service, Status, XdpMode};

/// A backend without traffic, which is up.
pub(crate) fn backend(name: &str) -> Backend {
    let backend = json!({
        "name": name, "address": "10.0.0.11:8080", "weight": 1, "effective_weight": 1, "group": null,
        "health": "up", "admin": "enabled", "removed": false, "mode": "nat", "next_hop": null,
        "packets": 0, "bytes": 0, "new_flows": 0, "active_flows": 0, "flows_counted_ms_ago": null,
        "reply_packets": 0, "reply_bytes": 0,
        "last_check": { "ok": true, "latency_us": 1200, "detail": "", "at": "2026-01-01T00:00:00Z" },
        "since": null,
    });
    serde_json::from_value(backend).unwrap()
}

/// A service without traffic.
pub(crate) fn service(name: &str, backends: Vec<Backend>) -> Service {
    let able = backends.iter().filter(|backend| backend.effective_weight > 0);
    let service = json!({
        "name": name, "address": "192.0.2.10", "port": 80, "protocol": "tcp", "mode": "nat",
        "algorithm": "maglev", "affinity": "connection", "tracking": "full", "ring_size": "auto",
        "on_empty": "drop", "on_down": "move", "on_down_after": "0s", "max_removed_percent": 100,
        "check": "tcp", "packets": 0, "bytes": 0, "new_flows": 0, "active_flows": 0,
        "reply_packets": 0, "reply_bytes": 0, "drops": [], "healthy_backends": able.count(),
        "backends": backends, "programmed": true, "error": null,
    });
    serde_json::from_value(service).unwrap()
}

/// Drops by reason.
pub(crate) fn drops(reasons: &[(&str, u64)]) -> Vec<Drops> {
    let drops = reasons.iter().map(|(reason, packets)| Drops {
        reason: (*reason).to_owned(),
        packets: *packets,
    });
    drops.collect()
}

/// A daemon with one interface.
pub(crate) fn status(services: Vec<Service>) -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        started: "2026-01-01T00:00:00Z".into(),
        revision: 7,
        ready: true,
        interfaces: vec![Interface {
            name: "eth0".into(),
            configured: "eth0".into(),
            altnames: Vec::new(),
            link: "up".into(),
            ifindex: 2,
            xdp_mode: XdpMode::Native,
            program_id: 9,
            reattachments: 0,
            took_over: false,
            note: None,
            packets: 0,
            dropped: 0,
            drops: Vec::new(),
            tunnels_ended: 0,
        }],
        services,
        metrics: None,
        maps: vec![
            MapUse {
                name: "FLOWS_V4".into(),
                entries: 250,
                capacity: 1_000,
            },
            MapUse {
                name: "SERVICES".into(),
                entries: 3,
                capacity: 4_096,
            },
        ],
        config: Default::default(),
        problems: Vec::new(),
    }
}

/// The same a second later: each service and backend has more packets than the one before.
pub(crate) fn later(before: &Status) -> Status {
    let mut now = before.clone();
    for (number, service) in (1..).zip(&mut now.services) {
        service.packets += 1_000 * number;
        service.bytes += 100_000 * number;
        service.new_flows += 10 * number;
        for (number, backend) in (1..).zip(&mut service.backends) {
            backend.packets += 10 * number;
            backend.bytes += 1_000 * number;
            backend.new_flows += number;
            backend.reply_packets += number;
        }
    }
    now
}

/// A backend that failed its last check.
pub(crate) fn down(name: &str) -> Backend {
    Backend {
        health: Health::Down,
        admin: Admin::Enabled,
        effective_weight: 0,
        last_check: Some(LastCheck {
            remedy: None,
            local: false,
            ok: false,
            latency_us: 90,
            detail: "connection refused by 10.0.0.11:8080".into(),
            at: "2026-01-01T00:00:00Z".into(),
            through: None,
            parts: Vec::new(),
        }),
        ..backend(name)
    }
}
