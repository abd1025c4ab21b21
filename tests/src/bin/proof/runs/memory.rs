//! Resident memory of the daemon and of its maps, over a run up to the limits of services and backends: changes, flows, churn, and all
//! of it taken away again. Packets reach backends of every service.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::limits::{MAX_BACKENDS, MAX_SERVICES};
use lb_tests::{
    lb_cli::lb_binary,
    report::{
        document::{Figure, Report},
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    test_run::Runner,
    topology::Family,
    wait,
};

use crate::{
    context::Context,
    crafted::{self, Balancer, SYN},
    process,
};

/// Backends of each service; the last service has one less, for that is as many as there can be.
const EACH: u32 = MAX_BACKENDS / MAX_SERVICES;
/// Services that are applied, one number after the other.
const SERVICES: [u32; 2] = [MAX_SERVICES / 16, MAX_SERVICES];
const QUICK_SERVICES: [u32; 1] = [8];
/// New flows to each service.
const FLOWS: u32 = 8;
/// Changes of weights, one after the other.
const CHANGES: u32 = 20;
/// After which the daemon has given back the memory of a change.
const SETTLED: Duration = Duration::from_secs(3);

/// What is in memory after a stage of the run.
struct Stage {
    name: String,
    seconds: f64,
    /// Bytes of the daemon, and of its maps with all rings.
    daemon: f64,
    maps: f64,
}

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(format!(
        "A daemon with services of mode `ipip`, half of each family, with {EACH} backends each behind one router: up to {MAX_SERVICES} \
         services and {} backends, which are as many as there can be. After each stage: memory of the daemon that is resident, and of its \
         maps as the kernel states it. {FLOWS} new flows to each service must all go to backends of that service. Run once.",
        MAX_BACKENDS - 1
    ));
    let balancer = Balancer::start()?;
    let counts = context.pick(&QUICK_SERVICES[..], &SERVICES[..]);
    let stages = stages(context, &balancer, counts)?;
    let columns = [
        ("time", Unit::Seconds),
        ("daemon", Unit::Bytes),
        ("maps", Unit::Bytes),
    ];
    let mut table = Table::new("Stages", "after", &columns);
    for stage in &stages {
        let cells = [stage.seconds, stage.daemon, stage.maps];
        table.row(&stage.name, cells.map(|value| Some(Samples::one(value))));
    }
    report.table(table);
    report.check("all flows went to backends of their services", None);
    let bars = stages
        .iter()
        .map(|stage| (stage.name.clone(), Samples::one(stage.daemon)));
    report.plot(Plot::bars(
        "",
        "Resident memory of the daemon",
        Unit::Bytes,
        bars.collect(),
    ));
    if let (Some(first), Some(full), Some(last)) = (stages.first(), stages.get(counts.len()), stages.last()) {
        let most = counts.last().copied().unwrap_or_default();
        let backends = f64::from(most * EACH);
        let mut table = Table::new(
            "With all of them",
            "memory",
            &[("a backend", Unit::Bytes), ("a service", Unit::Bytes)],
        );
        for (name, grown) in [
            ("daemon", full.daemon - first.daemon),
            ("maps", full.maps - first.maps),
        ] {
            let cells = [grown / backends, grown / f64::from(most)];
            table.row(name, cells.map(|value| Some(Samples::one(value))));
        }
        report.table(table);
        report.figure(Figure {
            target: "memory-daemon",
            ours: format!(
                "{} without services, {} with {most}, {} after all but one were taken away",
                Unit::Bytes.show(first.daemon),
                Unit::Bytes.show(full.daemon),
                Unit::Bytes.show(last.daemon)
            ),
            peers: String::new(),
            is_met: Some(first.daemon < 30e6),
            note: format!(
                "{} backends are more than others configure; what a flow takes: connections",
                most * EACH
            ),
        });
    }
    let size = fs::metadata(lb_binary()?)?.len() as f64;
    report.figure(Figure {
        target: "memory-binary",
        ours: Unit::Bytes.show(size),
        peers: String::new(),
        is_met: Some(size < 15e6),
        note: "as shipped, with the XDP program and the web page".to_owned(),
    });
    Ok(report)
}

fn stages(context: &Context, balancer: &Balancer, counts: &[u32]) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    let mut stage = |name: String, work: &dyn Fn() -> Result<()>| -> Result<()> {
        context.progress(&name);
        let begun = Instant::now();
        work()?;
        stages.push(Stage {
            seconds: begun.elapsed().as_secs_f64(),
            daemon: process::resident(balancer.daemon.pid()?)?,
            maps: process::all_map_bytes(&balancer.daemon)?,
            name,
        });
        Ok(())
    };
    let most = counts.last().copied().unwrap_or_default();
    let cli = balancer.daemon.cli();
    stage("start, no service".to_owned(), &|| Ok(()))?;
    for count in counts {
        stage(format!("{count} services applied"), &|| {
            balancer.apply(&services(*count)?)
        })?;
    }
    stage(format!("{} new flows", most * FLOWS), &|| {
        reach_all(balancer, most)
    })?;
    // A command that succeeds has taken effect, so the time is its own.
    stage("one weight changed".to_owned(), &|| {
        cli.ok("backend set s7 b113 --weight 3").map(drop)
    })?;
    stage(format!("{CHANGES} more weights changed"), &|| {
        let change = |number: u32| {
            let service = number % most;
            let backend = 1 + service * EACH;
            let weight = 4 + number;
            cli.ok(&format!("backend set s{service} b{backend} --weight {weight}"))
                .map(drop)
        };
        (0..CHANGES).try_for_each(change)
    })?;
    stage("`lb status`".to_owned(), &|| cli.ok("status").map(drop))?;
    stage("`/metrics`".to_owned(), &|| balancer.daemon.metrics().map(drop))?;
    stage("all but one service removed".to_owned(), &|| {
        balancer.apply(&services(1)?)
    })?;
    stage("three seconds later".to_owned(), &|| {
        wait::pace(SETTLED);
        Ok(())
    })?;
    Ok(stages)
}

fn address(service: u32) -> SocketAddr {
    let [.., high, low] = service.to_be_bytes();
    let ip: IpAddr = if service.is_multiple_of(2) {
        Ipv4Addr::new(10, 100, high, low).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into()
    };
    SocketAddr::new(ip, 80)
}

/// The numbers of a service's backends.
fn backends(service: u32) -> RangeInclusive<u32> {
    1 + service * EACH..=((service + 1) * EACH).min(MAX_BACKENDS - 1)
}

fn services(count: u32) -> Result<Vec<String>> {
    let service = |number: u32| {
        let backends = backends(number).map(|backend| (backend, 100));
        crafted::service(
            &format!("s{number}"),
            address(number),
            "mode = \"ipip\"",
            Family::V4,
            backends,
        )
    };
    (0..count).map(service).collect()
}

/// Sends packets of new flows to every service.
fn reach_all(balancer: &Balancer, services: u32) -> Result<()> {
    let seen = balancer.packets(|runner| {
        (0..services)
            .map(|service| reach(runner, service))
            .collect::<Result<Vec<_>>>()
    })?;
    let distinct: usize = seen.iter().map(BTreeSet::len).sum();
    let flows = services * FLOWS;
    ensure!(
        distinct > flows as usize / 2,
        "{flows} flows reached {distinct} backends alone"
    );
    Ok(())
}

/// Gives the backends that were reached, which must be the service's.
fn reach(runner: &mut Runner<'_>, service: u32) -> Result<BTreeSet<u32>> {
    let to = address(service);
    let reached = (0..FLOWS).map(|flow| {
        let frame = crafted::tcp(crafted::client(service * FLOWS + flow, to.ip()), to, SYN)?;
        let backend = crafted::tunnelled(runner, &frame)?;
        ensure!(
            backends(service).contains(&backend),
            "a flow of service {service} went to backend {backend}"
        );
        Ok(backend)
    });
    reached.collect()
}
