//! From `lb run` to READY and to the first packet forwarded, of a fresh start and of a take-over, which may lose no packet.
//!
//! With `LB_OTHER`, the path of another `lb`, both are measured in turn.

mod probe;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lb_tests::{
    config::{Service, file},
    daemon::Daemon,
    lb_cli::lb_binary,
    report::{
        document::{Figure, Report},
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    site::{ECHO_PORT, NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    wait,
};

use self::probe::Probe;
use crate::{context::Context, process};

/// Time that a daemon runs before it is taken over: by then it has loaded all of its program.
const RUNS_FOR: Duration = Duration::from_secs(2);
/// Time before a fresh start. The kernel frees the tables of the daemon before after its end, on the CPUs that the start needs.
const RESTS_FOR: Duration = Duration::from_secs(1);

/// Two starts of a daemon; times are in seconds.
struct Starts {
    cold: Start,
    /// From the start to the first datagram that was forwarded.
    first_packet: f64,
    taken_over: Start,
    /// Datagrams during the take-over, and those that were not answered.
    sent: usize,
    lost: usize,
}

struct Start {
    ready: f64,
    /// CPU time until READY.
    cpu: f64,
}

/// What is measured: name and unit of the column, and the value.
type Column = (&'static str, Unit, fn(&Starts) -> f64);
const COLUMNS: [Column; 6] = [
    ("start to READY", Unit::Seconds, |starts| starts.cold.ready),
    ("start to first packet", Unit::Seconds, |starts| {
        starts.first_packet
    }),
    ("CPU", Unit::Seconds, |starts| starts.cold.cpu),
    ("take-over to READY", Unit::Seconds, |starts| {
        starts.taken_over.ready
    }),
    ("CPU ", Unit::Seconds, |starts| starts.taken_over.cpu),
    ("packets lost in it", Unit::Count, |starts| starts.lost as f64),
];
/// The column of starts to READY.
const READY: usize = 0;

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(
        "A daemon with services of modes `nat` and `ipip` in both families, whose backends answer: a fresh start, and then a second \
         daemon after a kill of the first one (*take-over*), while one datagram each millisecond goes to a backend and back. \
         *First packet*: the first datagram that is answered. `LB_OTHER=/path/to/lb` measures a second binary in turn.",
    );
    let site = Site::new(Shape::TwoArmed, 1)?;
    let echo = SocketAddr::new(site.net.vip(Family::V4, 12), SERVICE_PORT);
    let services = services(&site, echo);
    let _servers = [site.nginx(Family::V4)?, site.nginx(Family::V6)?];
    let mut binaries = vec![("lb".to_owned(), lb_binary()?)];
    if let Some(other) = env::var_os("LB_OTHER").map(PathBuf::from) {
        binaries.push((format!("`{}`", other.display()), other));
    }
    let mut all: Vec<Vec<Starts>> = binaries.iter().map(|_| Vec::new()).collect();
    for turn in 0..context.turns() {
        context.progress(&format!("turn {} of {}", turn + 1, context.turns()));
        for ((_, binary), starts) in binaries.iter().zip(&mut all) {
            starts.push(start_twice(&site, &services, echo, binary)?);
        }
    }
    let columns: Vec<_> = COLUMNS.iter().map(|(name, unit, _)| (*name, *unit)).collect();
    let mut table = Table::new("Starts", "binary", &columns);
    let samples =
        |starts: &[Starts], (_, _, value): &Column| Samples::new(starts.iter().map(value).collect());
    let mut bars = Vec::new();
    for ((name, _), starts) in binaries.iter().zip(&all) {
        table.row(name, COLUMNS.iter().map(|column| Some(samples(starts, column))));
        bars.extend([0, 1, 3].map(|place| {
            (
                format!("{name}, {}", COLUMNS[place].0),
                samples(starts, &COLUMNS[place]),
            )
        }));
    }
    report.table(table);
    report.plot(Plot::bars("", "Starts", Unit::Seconds, bars));
    if let [ours, other] = &all[..] {
        let ratio = samples(ours, &COLUMNS[READY]).per(&samples(other, &COLUMNS[READY]));
        report.note(format!(
            "start to READY, lb to the other: {}",
            ratio.show(Unit::Ratio)
        ));
    }
    add_figures(&mut report, all.first().map(Vec::as_slice).unwrap_or_default());
    Ok(report)
}

fn add_figures(report: &mut Report, starts: &[Starts]) {
    let ready = Samples::new(starts.iter().map(|starts| starts.cold.ready).collect());
    report.figure(Figure {
        target: "cold-start",
        ours: format!("{} to READY", ready.show(Unit::Seconds)),
        peers: String::new(),
        is_met: Some(ready.median() < 0.1),
        note: String::new(),
    });
    let lost: usize = starts.iter().map(|starts| starts.lost).sum();
    let sent: usize = starts.iter().map(|starts| starts.sent).sum();
    let taken_over = Samples::new(starts.iter().map(|starts| starts.taken_over.ready).collect());
    report.figure(Figure {
        target: "warm-start",
        ours: format!(
            "{} to READY; {lost} of {sent} packets lost",
            taken_over.show(Unit::Seconds)
        ),
        peers: String::new(),
        is_met: Some(lost == 0),
        note: "packets are forwarded all the time".to_owned(),
    });
    report.check_equal("no packet was lost in a take-over", lost as u64, 0);
}

fn services(site: &Site, echo: SocketAddr) -> Vec<Service> {
    let mut services = vec![site.with_backends(Service::udp("echo", echo), Family::V4, ECHO_PORT, &[1])];
    for (family, word) in [(Family::V4, "4"), (Family::V6, "6")] {
        for (host, mode) in [(10, "nat"), (11, "ipip")] {
            let address = (site.net.vip(family, host), SERVICE_PORT).into();
            let service = Service::tcp(&format!("{mode}{word}"), address).keys(&format!("mode = \"{mode}\""));
            services.push(site.with_backends(service, family, NGINX_PORT, &[1]));
        }
    }
    services
}

fn start_twice(site: &Site, services: &[Service], echo: SocketAddr, binary: &Path) -> Result<Starts> {
    let daemon = Daemon::new(&site.net.lb.ns, site.net.lb_interfaces())?;
    let mut daemon = daemon.binary(binary.to_owned()).config(&file(services))?;
    wait::pace(RESTS_FOR);
    let probe = Probe::start(&site.net.client.ns, echo)?;
    let begun = Instant::now();
    let cold = Start::of(&mut daemon)?;
    wait::pace(RUNS_FOR);
    let probed = probe.stop()?;
    let first = probed.first_answered().context("no packet was forwarded")?;

    let probe = Probe::start(&site.net.client.ns, echo)?;
    probe.wait_answered()?;
    daemon.kill()?;
    let taken_over = Start::of(&mut daemon)?;
    wait::pace(RUNS_FOR / 4);
    let probed = probe.stop()?;
    daemon.stop()?;
    Ok(Starts {
        cold,
        first_packet: first.saturating_duration_since(begun).as_secs_f64(),
        taken_over,
        sent: probed.sent(),
        lost: probed.lost(),
    })
}

impl Start {
    fn of(daemon: &mut Daemon) -> Result<Self> {
        let ready = daemon.start()?.as_secs_f64();
        let cpu = process::cpu_seconds(daemon.pid()?)?;
        Ok(Self { ready, cpu })
    }
}
