use serde_json::{Value, json};

use super::*;
use crate::cli::output::{Colour, Output};

/// A service of the API with some values of its own.
fn service(own: &Value) -> Service {
    let mut all = json!({
        "name": "web", "address": "192.0.2.1", "port": 80, "protocol": "tcp", "mode": "nat",
        "algorithm": "maglev", "affinity": "none", "tracking": "just-enough", "ring_size": "auto",
        "on_empty": "drop", "on_down": "move", "on_down_after": "3s", "max_removed_percent": 100,
        "backup_below": 1, "slow_start": "0s", "idle_timeout": "2h4m", "half_open_timeout": "1m",
        "closed_timeout": "10s", "check": "none", "packets": 10, "bytes": 2048, "new_flows": 3,
        "active_flows": 2, "reply_packets": 4, "reply_bytes": 512, "drops": [], "healthy_backends": 1,
        "backends": [], "programmed": true, "error": null,
    });
    let (all_keys, own) = (all.as_object_mut().unwrap(), own.as_object().unwrap());
    all_keys.extend(own.clone());
    serde_json::from_value(all).unwrap()
}

fn shown(own: &Value) -> String {
    show(
        &service(own),
        &Context::new(None, None, Output::Table, Colour::Never, true),
    )
}

/// Scripts and people look for these lines.
#[test]
fn a_service_is_shown_with_every_setting() {
    let text = shown(&json!({}));
    let (settings, backends) = text.split_once("\n\n").unwrap();
    assert_eq!(
        settings,
        "\
web  192.0.2.1:80/tcp  mode nat
  algorithm       maglev
  affinity        none
  tracking        just-enough
  ring size       auto
  on empty        drop
  on down         move
  on down after   3s
  max removed     100 percent of the weight, by checks alone
  slow start      0s
  idle            2h4m
  half open       1m
  backup          below 1 other backends that can take flows
  check           none
  closed          10s
  traffic         2 active flows, 3 new, 10 packets (2048 B), 4 replies (512 B)"
    );
    assert!(backends.starts_with("BACKEND  ADDRESS"), "{backends}");
}

#[test]
fn what_only_some_services_have_is_shown_where_they_have_it() {
    let some = json!({
        "closed_timeout": null,
        "agent": "port 9707, every 2s",
        "guard": {
            "allow": ["10.0.0.0/8", "192.0.2.7/32"], "new_flows": 100, "source_new_flows": 5, "source_new_flows_burst": 9,
        },
        "clients": [{ "group": "near", "from": ["10.0.0.0/8"], "taken_by": "general" }],
        "quic": [{ "config_id": 1, "server_id_length": 8, "nonce_length": 8, "key": null }],
        "hosts": [
            { "name": "app", "address": "app.example.org:80", "backends": 2, "resolved": true, "unused": [] },
            { "name": "old", "address": "old.example.org:80", "backends": 0, "resolved": false, "error": "no such name", "unused": [] },
        ],
        "drops": [{ "reason": "no_backend", "packets": 7 }],
        "replies": [{ "reason": "no_flow_reset", "packets": 8 }],
        "error": "the map is full",
    });
    let text = shown(&some);
    for line in [
        "  agent           port 9707, every 2s",
        "  allow           10.0.0.0/8, 192.0.2.7/32",
        "  new flows       at most 100 a second, 100 at once",
        "  by source       at most 5 a second, 9 at once",
        "  clients         10.0.0.0/8 go to group near, but backends of no such group take their new flows",
        "  quic            config 1, server id of 8 bytes, nonce of 8, not encrypted",
        "  dropped         7 (no_backend)",
        "  answered        8 (no_flow_reset)",
        "  error           the map is full",
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line} is missing in\n{text}"
        );
    }
    assert!(
        text.contains("app: app.example.org:80, 2 addresses, resolved"),
        "{text}"
    );
    assert!(text.contains("cannot be looked up: no such name"), "{text}");
    for absent in ["closed", "deny"] {
        assert!(!text.contains(&format!("  {absent:<15}")), "{text}");
    }
}

#[test]
fn the_effect_on_flows_is_a_sentence() {
    let moved = |removed, share, flows, uncounted| Moved {
        service: "web".to_owned(),
        removed,
        share,
        flows,
        uncounted,
    };
    for (moved, text) in [
        (
            moved(false, 0.25, 0, false),
            "25.0 % of new flows go elsewhere, no established flow moves",
        ),
        (
            moved(false, 1.0, 1, false),
            "100.0 % of new flows go elsewhere, 1 established flow moves",
        ),
        (moved(true, 1.0, 0, false), "removed, no established flow ends"),
        (moved(true, 1.0, 12, false), "removed, 12 established flows end"),
        (
            moved(true, 1.0, 0, true),
            "removed, established flows end, which are not counted in its mode",
        ),
    ] {
        assert_eq!(moved_text(&moved), format!("web: {text}\n"));
    }
}
