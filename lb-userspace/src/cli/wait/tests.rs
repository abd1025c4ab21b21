//! When waiting ends.

use serde_json::{Value, json};

use super::*;

/// Service `web` with backend `a`.
fn service(check: &str, health: &str, admin: &str, last_check: Value) -> Service {
    let backend = json!({
        "name": "a", "address": "10.0.0.1:80", "weight": 1, "effective_weight": 1, "health": health,
        "admin": admin, "removed": false, "mode": "nat", "next_hop": null, "packets": 0, "bytes": 0,
        "new_flows": 0, "active_flows": 0, "flows_counted_ms_ago": null, "reply_packets": 0,
        "reply_bytes": 0, "last_check": last_check, "since": null,
    });
    let service = json!({
        "name": "web", "address": "192.0.2.1", "port": 80, "protocol": "tcp", "mode": "nat",
        "algorithm": "maglev", "affinity": "none", "tracking": "just-enough", "ring_size": "auto",
        "on_empty": "drop", "on_down": "move", "on_down_after": "3s", "max_removed_percent": 100,
        "check": check, "packets": 0, "bytes": 0, "new_flows": 0, "active_flows": 0, "reply_packets": 0,
        "reply_bytes": 0, "drops": [], "healthy_backends": 1, "backends": [backend], "programmed": true,
        "error": null,
    });
    serde_json::from_value(service).unwrap()
}

fn failed() -> Value {
    json!({"ok": false, "latency_us": 1, "detail": "refused", "at": "now"})
}

#[test]
fn waiting_ends_when_every_backend_that_is_checked_was_checked() {
    for (check, last_check, admin, missing) in [
        ("none", Value::Null, "enabled", 0),
        ("tcp", Value::Null, "enabled", 1),
        ("tcp", Value::Null, "disabled", 0),
        ("tcp", failed(), "enabled", 0),
    ] {
        let services = [service(check, "unchecked", admin, last_check)];
        assert_eq!(unchecked(&services).len(), missing, "{check} {admin}");
    }
}

/// A deployment goes on only when its backends serve.
#[test]
fn waiting_for_healthy_names_each_enabled_backend_that_is_not_up() {
    let web = ["web".to_owned()];
    let (of_web, of_other) = (Changed::Services(&web), Changed::Services(&[]));
    for (check, health, admin, changed, missing) in [
        ("tcp", "up", "enabled", of_web, ""),
        ("tcp", "unchecked", "enabled", of_web, "web/a (no verdict yet)"),
        ("none", "unchecked", "enabled", of_web, ""),
        ("tcp", "down", "enabled", of_web, "web/a (down: refused)"),
        ("tcp", "down", "enabled", of_other, ""),
        ("tcp", "down", "draining", of_web, ""),
        ("tcp", "down", "disabled", of_web, ""),
        (
            "tcp",
            "down",
            "enabled",
            Changed::Backend("web", "a"),
            "web/a (down: refused)",
        ),
        ("tcp", "down", "enabled", Changed::Backend("web", "b"), ""),
    ] {
        let last = if health == "down" { failed() } else { Value::Null };
        let found = unhealthy(&[service(check, health, admin, last)], changed);
        assert_eq!(found.join(" "), missing, "{check} {health} {admin} {changed:?}");
    }
    let mut late = service("none", "unchecked", "enabled", Value::Null);
    late.programmed = false;
    late.error = Some("no room".into());
    assert_eq!(unhealthy(&[late], of_web), ["web (no room)"]);
}
