use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use lb_common::{
    counters::{PacketCount, Signals, Traffic},
    map_names,
    reason::Reason,
};
use prometheus::Registry;

use super::{Scrape, render};
use crate::{
    config::change::Request,
    control::{ApplyMetrics, Change, Inherited, ReloadMetrics, testing::Rig},
    datapath::{BackendStats, InterfaceStats, LinkLosses, MapUse, RedirectErrors},
    discovery::{HostStatus, HostStatuses},
    health::{
        Certificate, CheckId, CheckStatus, CheckStatuses, Health, HealthMetrics, Judgement, LastCheck,
        agent::AgentStatus, settings::CheckKind,
    },
    parts::PartBoard,
    serve::ServerMetrics,
    state::testing::{self, id},
};

const A: &str = "10.0.1.1:8080";

async fn rig() -> Rig {
    let desired = testing::desired([testing::service("web", 1, &[("a", 10), ("b", 20)])]);
    Rig::start(desired, Inherited::default()).await
}

fn traffic(packets: u64) -> Traffic {
    Traffic {
        packets,
        bytes: 100 * packets,
        new_flows: packets / 2,
        reply_packets: packets,
        reply_bytes: 1_000 * packets,
    }
}

/// Lets the kernel count for the backend at `address` and for its service.
fn count(rig: &Rig, address: &str, packets: u64) {
    let key = rig.control.view().desired.services[&"web".parse().unwrap()].key;
    let address: SocketAddr = address.parse().unwrap();
    let mut world = rig.world.lock();
    let stats = BackendStats {
        signals: Signals::default(),
        traffic: traffic(packets),
        active_flows: 3,
    };
    world.snapshot.backends.insert((key, address), stats);
    world.snapshot.services.insert(key, traffic(packets));
    world.snapshot.service_drops.insert((key, Reason::NoBackend), 4);
    world
        .snapshot
        .service_drops
        .insert((key, Reason::RejectedReset), 5);
    world.snapshot.flows_counted_at = Some(Instant::now());
    world.snapshot.flows_counted_in = Duration::from_millis(1_500);
    world.snapshot.maps = vec![MapUse {
        name: map_names::FLOWS_V4,
        entries: 6,
        capacity: 100,
        update_errors: 2,
    }];
    let by_reason = |reason: &Reason| {
        let count = PacketCount {
            packets: *reason as u64 + 1,
            bytes: 60,
        };
        (*reason, count)
    };
    world.snapshot.redirect_errors = Some(vec![RedirectErrors {
        interface: "eth1".into(),
        error: libc::ENETDOWN,
        frames: 7,
        lately: false,
    }]);
    world.snapshot.interfaces = vec![InterfaceStats {
        name: "eth0".into(),
        attached: true,
        native: true,
        up: true,
        repairs: 0,
        by_reason: Reason::ALL.iter().map(by_reason).collect(),
        tunnels_ended: PacketCount {
            packets: 70,
            bytes: 7_000,
        },
        by_cpu: vec![30, 12],
        losses: Some(LinkLosses {
            rx_missed: 9,
            ..LinkLosses::default()
        }),
    }];
}

fn text(rig: &Rig) -> String {
    let registry = Registry::new();
    ApplyMetrics::register(&registry).unwrap();
    let down = CheckStatus {
        health: Health::Down,
        since: UNIX_EPOCH,
        last_check: None,
        judgement: Judgement::default(),
        shared: None,
    };
    let checks = CheckStatuses::from(BTreeMap::from([(id("web", "b"), down)]));
    scrape(
        rig,
        &registry,
        &checks,
        &BTreeMap::new(),
        &HostStatuses::default(),
    )
}

fn scrape(
    rig: &Rig,
    registry: &Registry,
    checks: &CheckStatuses,
    agents: &BTreeMap<CheckId, AgentStatus>,
    hosts: &HostStatuses,
) -> String {
    let view = rig.control.view();
    let scrape = Scrape {
        registry,
        ready: view.is_programmed(),
        view: &view,
        seen: &rig.observer.observe(&view).unwrap(),
        checks,
        agents,
        hosts,
        parts: &PartBoard::new(Arc::default()),
        events: &rig.events,
        program: "0123456789abcdef",
        differs_from_file: Some(true),
        now: UNIX_EPOCH + Duration::from_secs(7),
        instant: Instant::now(),
    };
    render(&scrape).unwrap()
}

/// A scrape that shows every family with its labels.
pub(crate) async fn every_family() -> String {
    let mut desired = testing::desired([testing::service("web", 1, &[("a", 10), ("b", 20)])]);
    let service = desired.services.get_mut(&"web".parse().unwrap()).unwrap();
    service.health.kind = CheckKind::Tcp;
    service.health.interval = Duration::from_secs(2);
    service.health.down_interval_max = Duration::from_secs(30);
    let rig = Rig::start(desired, Inherited::default()).await;
    count(&rig, A, 40);
    let registry = Registry::new();
    ApplyMetrics::register(&registry).unwrap();
    ReloadMetrics::register(&registry).unwrap();
    let checks = HealthMetrics::register(&registry).unwrap();
    checks.show("web");
    ServerMetrics::register(&registry).unwrap().listener("api");
    let backend = id("web", "b");
    let status = CheckStatus {
        health: Health::Down,
        since: UNIX_EPOCH,
        last_check: Some(LastCheck {
            outcome: Ok(()),
            latency: Duration::ZERO,
            at: UNIX_EPOCH,
            parts: Arc::default(),
            certificate: Some(Certificate {
                warn_from: UNIX_EPOCH,
                expires: UNIX_EPOCH,
            }),
            serves_one: false,
        }),
        judgement: Judgement::default(),
        shared: None,
    };
    let host = ("web".parse().unwrap(), "app".parse().unwrap());
    scrape(
        &rig,
        &registry,
        &CheckStatuses::from(BTreeMap::from([(backend.clone(), status)])),
        &BTreeMap::from([(backend, AgentStatus::default())]),
        &BTreeMap::from([(host, HostStatus::default())]),
    )
}

/// Series and values, with every rule of the format that Prometheus insists on checked.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut families = BTreeSet::new();
    let (mut helped, mut typed) = (String::new(), String::new());
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                !help.is_empty() && families.insert(name.to_owned()),
                "{name} twice"
            );
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP and TYPE belong together");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            typed = name.to_owned();
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            let name = id.split('{').next().unwrap();
            assert!(name.starts_with(&typed), "{name} stands among {typed}");
            assert!(
                series.insert(id.to_owned(), value.parse().unwrap()).is_none(),
                "{id} twice"
            );
        }
    }
    series
}

#[tokio::test]
async fn metrics_text_is_well_formed_and_matches_the_maps() {
    let rig = rig().await;
    count(&rig, A, 40);
    let series = parse(&text(&rig));
    let web_a = "{service=\"web\",backend=\"a\"}";
    for (id, value) in [
        ("lb_ready", 1.0),
        ("lb_config_last_apply_success", 1.0),
        (
            "lb_build_info{version=\"0.1.0\",commit=\"unknown\",program=\"0123456789abcdef\"}",
            1.0,
        ),
        ("lb_config_differs_from_file", 1.0),
        ("lb_sweep_duration_seconds", 1.5),
        ("lb_interface_native{interface=\"eth0\"}", 1.0),
        (
            "lb_interface_losses_total{interface=\"eth0\",counter=\"rx_missed\"}",
            9.0,
        ),
        (
            "lb_xdp_redirect_errors_total{interface=\"eth0\",error=\"EOPNOTSUPP\"}",
            0.0,
        ),
        (
            "lb_xdp_redirect_errors_total{interface=\"eth1\",error=\"ENETDOWN\"}",
            7.0,
        ),
        ("lb_cpu_packets_total{cpu=\"0\"}", 30.0),
        ("lb_cpu_packets_total{cpu=\"1\"}", 12.0),
        ("lb_service_backends{service=\"web\"}", 2.0),
        (
            "lb_backend_configured_weight{service=\"web\",backend=\"b\"}",
            20.0,
        ),
        ("lb_backend_admin{service=\"web\",backend=\"b\"}", 0.0),
        ("lb_events_total{kind=\"fault\"}", 0.0),
        ("lb_service_packets_total{service=\"web\"}", 40.0),
        ("lb_service_bytes_total{service=\"web\"}", 4_000.0),
        ("lb_service_new_flows_total{service=\"web\"}", 20.0),
        ("lb_service_healthy_backends{service=\"web\"}", 2.0),
        ("lb_service_overruled_backends{service=\"web\"}", 1.0),
        (
            "lb_service_drops_total{service=\"web\",reason=\"no_backend\"}",
            4.0,
        ),
        (
            "lb_service_replies_total{service=\"web\",reason=\"rejected_reset\"}",
            5.0,
        ),
        (
            "lb_replies_total{reason=\"rejected_reset\"}",
            f64::from(Reason::RejectedReset as u32 + 1),
        ),
        (&format!("lb_backend_packets_total{web_a}"), 40.0),
        (&format!("lb_active_connections{web_a}"), 3.0),
        (&format!("lb_backend_weight{web_a}"), 10.0),
        (&format!("lb_backend_health{web_a}"), 1.0),
        ("lb_backend_health{service=\"web\",backend=\"b\"}", 0.0),
        ("lb_backend_packets_total{service=\"web\",backend=\"b\"}", 0.0),
        ("lb_flows{map=\"FLOWS_V4\"}", 6.0),
        ("lb_map_update_errors_total{map=\"FLOWS_V4\"}", 2.0),
        ("lb_map_capacity{map=\"FLOWS_V4\"}", 100.0),
        (
            "lb_xdp_packets_total{interface=\"eth0\",action=\"redirect\"}",
            2.0,
        ),
        (
            "lb_drops_total{reason=\"no_backend\"}",
            f64::from(Reason::NoBackend as u32 + 1),
        ),
        (
            "lb_passes_total{reason=\"not_ours\"}",
            f64::from(Reason::NotOurs as u32 + 1),
        ),
    ] {
        assert_eq!(series.get(id), Some(&value), "{id}");
    }
    assert!(series.contains_key("process_resident_memory_bytes"));
    let sum = |prefix: &str| -> f64 {
        series
            .iter()
            .filter(|(id, _)| id.starts_with(prefix))
            .map(|(_, value)| value)
            .sum()
    };
    let received: u64 = Reason::ALL.iter().map(|reason| *reason as u64 + 1).sum();
    assert_eq!(
        sum("lb_xdp_packets_total"),
        received as f64,
        "every verdict is in some action"
    );
    let forwarded = sum("lb_xdp_packets_total{interface=\"eth0\",action=\"tx\"")
        + sum("lb_xdp_packets_total{interface=\"eth0\",action=\"redirect\"");
    assert_eq!(
        sum("lb_drops_total") + sum("lb_passes_total") + forwarded,
        received as f64
    );
}

#[tokio::test]
async fn backend_total_survives_a_move_and_ends_with_removal() {
    let rig = rig().await;
    count(&rig, A, 40);
    let total = |rig: &Rig| {
        parse(&text(rig))
            .get("lb_backend_packets_total{service=\"web\",backend=\"a\"}")
            .copied()
    };
    let web = || "web".parse().unwrap();
    let a = || "a".parse().unwrap();
    assert_eq!(total(&rig), Some(40.0));
    count(&rig, A, 45);
    let changes = [
        // Its flows move at once, so its old address has no flows after the move.
        Request::one("admin", "disabled"),
        Request::one("address", "10.0.1.9:8080"),
    ];
    for change in changes {
        // Packets between the last scrape and the change count, too.
        let change = Change::SetBackend(web(), a(), change);
        rig.control.change(change, None, false).await.unwrap();
    }
    rig.world.lock().snapshot.backends.clear();
    count(&rig, "10.0.1.9:8080", 50);
    assert_eq!(total(&rig), Some(95.0));
    let remove = Change::RemoveBackend {
        service: web(),
        backend: a(),
        now: true,
    };
    rig.control.change(remove, None, false).await.unwrap();
    assert_eq!(total(&rig), None);
}

/// The alert about checks that stopped compares their age with it.
#[tokio::test]
async fn the_longest_time_between_checks_is_shown() {
    let text = every_family().await;
    let line = "\nlb_service_check_interval_seconds{service=\"web\"} 30\n";
    assert!(text.contains(line), "{text}");
}
