//! Throughput: small requests, new connections and large transfers, as many as the machine takes; and whether the balancer's metrics
//! have every byte.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use lb_tests::{
    netns::Netns,
    report::{
        document::Report,
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    wait,
};

use super::latency::in_turn;
use crate::{
    context::Context,
    load::Load,
    targets::{self, Bound},
    ways::Way,
    world::{LARGE_PATH, World},
};

/// Connections with small requests.
const CONNECTIONS: usize = 64;
/// Connections with large transfers: of four, chance often sends three or all to one server, while the other one idles.
const TRANSFERS: usize = 16;
/// Longest wait for the last frames of a load.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ways of a quick run.
const QUICK: [Way; 2] = [Way::Nat, Way::NginxStream];
const NFTABLES: [Way; 2] = [Way::Numgen, Way::Jhash];
const PROXIES: [Way; 2] = [Way::Haproxy, Way::NginxStream];

/// What was measured of a way.
#[derive(Default)]
struct Measured {
    requests: Samples,
    p50: Samples,
    p99: Samples,
    connections: Samples,
    bulk: Samples,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(format!(
        "Small requests over {CONNECTIONS} kept connections, as many with a connection for each, and files of 4 MiB over {TRANSFERS} kept \
         connections. The client, the balancer and two nginx are namespaces of one machine, whose processors they share. A ratio is that \
         to plain forwarding over the same machines in the same turn. No sender has segmentation offload, which would need finished \
         checksums from a device."
    ));
    let ways = Way::wanted(context, &QUICK)?;
    let worlds = World::start_all(&ways, context)?;
    let small = Load::new(CONNECTIONS, Duration::from_millis(context.pick(100, 1_000)));
    let new = Load {
        is_kept: false,
        ..small.clone()
    };
    let large = Load {
        path: LARGE_PATH,
        connections: TRANSFERS,
        ..small.clone()
    };
    let counters: Vec<Counted> = worlds.iter().map(Counted::settled).collect::<Result<_>>()?;
    let mut all: BTreeMap<Way, Measured> = BTreeMap::new();
    for turn in 0..context.turns() {
        for (what, load) in [("requests", &small), ("connections", &new), ("transfers", &large)] {
            context.progress(&format!("turn {} of {}, {what}", turn + 1, context.turns()));
            for world in in_turn(&worlds, turn) {
                let loaded = world.load(load, &mut report);
                let measured = all.entry(world.way).or_default();
                match what {
                    "requests" => {
                        measured.requests.push(loaded.per_second());
                        measured.p50.push(loaded.latency("p50"));
                        measured.p99.push(loaded.latency("p99"));
                    }
                    "connections" => measured.connections.push(loaded.per_second()),
                    _ => measured.bulk.push(loaded.bits_per_second()),
                }
            }
        }
    }
    report.check("all other requests were answered", None);
    for (world, before) in worlds.iter().zip(&counters) {
        before.compare(world, &mut report)?;
    }
    add_tables(&mut report, &ways, &all);
    add_figures(&mut report, &ways, &all);
    Ok(report)
}

fn add_tables(report: &mut Report, ways: &[Way], all: &BTreeMap<Way, Measured>) {
    let of = |way: &Way| Some((all.get(way)?, all.get(&way.reference())?));
    let mut small = Table::new(
        "Small requests",
        "way",
        &[
            ("requests/s", Unit::Count),
            ("of direct", Unit::Ratio),
            ("p50", Unit::Seconds),
            ("p99", Unit::Seconds),
            ("p99 of direct", Unit::Ratio),
        ],
    );
    let mut rest = Table::new(
        "New connections and large transfers",
        "way",
        &[
            ("connections/s", Unit::Count),
            ("of direct", Unit::Ratio),
            ("bits/s", Unit::BitsPerSecond),
            ("of direct (bits/s)", Unit::Ratio),
        ],
    );
    for (way, (ours, direct)) in ways.iter().filter_map(|way| Some((way, of(way)?))) {
        let cells = [
            ours.requests.clone(),
            ours.requests.per(&direct.requests),
            ours.p50.clone(),
            ours.p99.clone(),
            ours.p99.per(&direct.p99),
        ];
        small.row(way.name(), cells.map(Some));
        let cells = [
            ours.connections.clone(),
            ours.connections.per(&direct.connections),
            ours.bulk.clone(),
            ours.bulk.per(&direct.bulk),
        ];
        rest.row(way.name(), cells.map(Some));
    }
    report.table(small);
    report.table(rest);
    type Figure = fn(&Measured) -> &Samples;
    let plots: [(&str, &str, Unit, Figure); 3] = [
        ("", "Small requests a second", Unit::Count, |of| &of.requests),
        ("-connections", "New connections a second", Unit::Count, |of| {
            &of.connections
        }),
        ("-transfers", "Large transfers", Unit::BitsPerSecond, |of| {
            &of.bulk
        }),
    ];
    for (suffix, title, unit, samples) in plots {
        let bar = |way: &Way| Some((way.short().to_owned(), samples(all.get(way)?).clone()));
        report.plot(Plot::bars(
            suffix,
            title,
            unit,
            ways.iter().filter_map(bar).collect(),
        ));
    }
}

fn add_figures(report: &mut Report, ways: &[Way], all: &BTreeMap<Way, Measured>) {
    let requests = (|way| Some(&all.get(&way)?.requests), Unit::Count);
    let connections = (|way| Some(&all.get(&way)?.connections), Unit::Count);
    let bulk = (|way| Some(&all.get(&way)?.bulk), Unit::BitsPerSecond);
    let p99 = (|way| Some(&all.get(&way)?.p99), Unit::Seconds);
    let (same, ahead) = (Bound::AtLeast(0.95), Bound::AtLeast(1.0));
    targets::against_direct(report, "requests-direct", ways, requests, same);
    targets::against_direct(report, "connections-direct", ways, connections, same);
    targets::against_direct(report, "bulk-direct", ways, bulk, same);
    targets::against_direct(report, "throughput", ways, bulk, same);
    targets::against_direct(report, "p99-direct", ways, p99, Bound::AtMost(1.05));
    targets::against_peers(report, "requests-nftables", ways, &NFTABLES, requests, ahead);
    targets::against_peers(
        report,
        "connections-nftables",
        ways,
        &NFTABLES,
        connections,
        ahead,
    );
    targets::against_peers(report, "p99-nftables", ways, &NFTABLES, p99, Bound::AtMost(1.0));
    targets::against_peers(
        report,
        "requests-proxies",
        ways,
        &PROXIES,
        requests,
        Bound::AtLeast(1.6),
    );
    targets::against_peers(
        report,
        "connections-proxies",
        ways,
        &PROXIES,
        connections,
        Bound::AtLeast(1.3),
    );
    targets::against_peers(report, "p99-proxies", ways, &PROXIES, p99, Bound::AtMost(1.0));
}

/// Bytes that the client sent, and those that the balancer counted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted {
    sent: u64,
    /// Of the service, and of frames that it passed to the kernel, such as ARP.
    forwarded: u64,
    passed: u64,
}

impl Counted {
    fn read(world: &World) -> Result<Self> {
        let Some(metrics) = world.metrics()? else {
            return Ok(Self {
                sent: 0,
                forwarded: 0,
                passed: 0,
            });
        };
        let interface = world.net.lb_interfaces()[0];
        Ok(Self {
            sent: sent_bytes(&world.net.client.ns)?,
            forwarded: metrics.count("lb_service_bytes_total", &[("service", "web")]),
            passed: metrics.count(
                "lb_xdp_bytes_total",
                &[("interface", interface), ("action", "pass")],
            ),
        })
    }

    /// Reads when all that was sent has been counted: connections still end when the tool has, and frames wait in queues.
    fn settled(world: &World) -> Result<Self> {
        let mut last = Self::read(world)?;
        wait::until("traffic pauses", PATIENCE, || {
            let now = Self::read(world)?;
            let is_same = now == last;
            last = now;
            Ok(is_same.then_some(last))
        })
    }

    /// Holds what was counted since against what was sent. Only where all that the balancer passes on this interface is the
    /// client's: servers on the same segment are heard, too.
    fn compare(&self, world: &World, report: &mut Report) -> Result<()> {
        if world.way.mode().is_none() || world.way.reference() != Way::Direct {
            return Ok(());
        }
        let now = Self::settled(world)?;
        report.check_equal(
            format!(
                "bytes in the metrics of {} are those that the client sent",
                world.way.name()
            ),
            now.forwarded - self.forwarded,
            now.sent - self.sent - (now.passed - self.passed),
        );
        Ok(())
    }
}

/// Bytes of frames that a client has sent, by its queueing discipline: the counters of a virtual Ethernet device may leave headers out.
fn sent_bytes(client: &Netns) -> Result<u64> {
    let queues: serde_json::Value =
        serde_json::from_str(&client.run("tc", &["-s", "-j", "qdisc", "show", "dev", "eth0"])?)?;
    queues[0]["bytes"].as_u64().context("no counter of eth0")
}
