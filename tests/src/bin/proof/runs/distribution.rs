//! How exactly new flows spread by weight, and how many flows a change of backends moves.
//!
//! Packets of flows go through the program of a running daemon, in mode `ipip`, whose outer header names the backend. The ring is read
//! from the kernel's map.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, MapData, of_maps::ArrayOfMaps};
use lb_common::{
    addr::NetPort,
    backend::Backend,
    map_names,
    ring_page::{self, RingPage},
    service::{Service, ServiceKeyV4, TCP},
};
use lb_tests::{
    report::{
        document::{Figure, Report},
        plot::Plot,
        samples::{Samples, Unit},
        table::Table,
    },
    test_run::Runner,
    topology::Family,
};

use crate::{
    context::Context,
    crafted::{self, ACK, Balancer, SYN},
};

/// New flows of a turn. A part of as many are established before a change.
const FLOWS: u32 = 20_000;
const QUICK_FLOWS: u32 = 1_000;
const BACKENDS: [u32; 4] = [3, 10, 100, 1_000];
const QUICK_BACKENDS: [u32; 2] = [3, 10];
const ESTABLISHED_PART: u32 = 5;
/// Backends after which an automatic ring becomes larger, and that size.
const FULL: u32 = 10;
const LARGER: u32 = 4_093;
/// Port of the services of the first case.
const FIRST_PORT: u16 = 1_000;
/// Weights of backends, in turn.
const WEIGHTS: [(&str, &[u32]); 2] = [("equal weights", &[1]), ("weights 1, 2, 3", &[1, 2, 3])];

/// What is measured of a case: name and unit of the column, and the value of a turn.
type Column = (&'static str, Unit, fn(&Turn) -> f64);
const COLUMNS: [Column; 11] = [
    ("slots", Unit::Count, |turn| f64::from(turn.slots)),
    ("ring, largest deviation", Unit::Percent, |turn| 100.0 * turn.ring),
    ("new flows, largest deviation", Unit::Percent, |turn| {
        100.0 * turn.flows
    }),
    ("new flows misplaced", Unit::Percent, |turn| {
        100.0 * turn.misplaced
    }),
    ("by chance", Unit::Percent, |turn| 100.0 * turn.by_chance),
    ("one goes: new flows that move", Unit::Percent, |turn| {
        100.0 * turn.goes.new
    }),
    ("of the least possible", Unit::Ratio, |turn| {
        turn.goes.new / turn.goes.least
    }),
    ("one comes: slots", Unit::Count, |turn| {
        f64::from(turn.comes.slots)
    }),
    ("new flows that move", Unit::Percent, |turn| {
        100.0 * turn.comes.new
    }),
    ("of the least possible ", Unit::Ratio, |turn| {
        turn.comes.new / turn.comes.least
    }),
    ("established flows that move", Unit::Count, |turn| {
        (turn.goes.established + turn.comes.established) as f64
    }),
];
/// Columns that only hashing has: in turn, a client's next flow goes elsewhere anyhow.
const OF_HASHING: Range<usize> = 5..10;

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let flows = context.pick(QUICK_FLOWS, FLOWS);
    let mut report = Report::new(format!(
        "{flows} crafted flows in each turn, through the program of a running daemon (BPF_PROG_TEST_RUN) in mode `ipip`, whose outer header \
         names the backend; the ring is read from the kernel. Deviation: of a backend's share from its share of the weights, as part \
         of that, the largest of all backends. Misplaced: flows that would have to be at another backend. By chance: the same of \
         flows that choose at random by weight, as a hash of random clients does. Then a backend in the middle goes, and one of \
         weight 1 comes; {} other flows are established before that.",
        flows / ESTABLISHED_PART
    ));
    let cases = Case::all(context);
    let balancer = Balancer::start()?;
    let columns: Vec<_> = COLUMNS.iter().map(|(name, unit, _)| (*name, *unit)).collect();
    let mut table = Table::new("Distribution and disruption", "service", &columns);
    let (mut rings, mut of_flows, mut moved) = (Vec::new(), Vec::new(), 0);
    for case in &cases {
        context.progress(&case.name);
        let turns = case.measure(&balancer, u8::try_from(context.turns())?, flows)?;
        let samples = |value: fn(&Turn) -> f64| Samples::new(turns.iter().map(value).collect());
        let cells = (0..).zip(COLUMNS).map(|(place, (_, _, value))| {
            let has = case.is_hashed() || !OF_HASHING.contains(&place);
            has.then(|| samples(value))
        });
        table.row(&case.name, cells);
        moved += turns.iter().map(Turn::moved_without_growth).sum::<usize>();
        rings.push((case.name.clone(), samples(|turn| 100.0 * turn.ring)));
        of_flows.push((case.name.clone(), samples(|turn| 100.0 * turn.flows)));
    }
    report.table(table);
    report.check_equal(
        "no established flow moved where the ring kept its size",
        moved as u64,
        0,
    );
    report.note(
        "An eleventh backend is one too many for an automatic ring of 1,021 slots: another size moves most new flows and some established \
         ones, as docs/flow-tracking.md says. `ring_size` with a number keeps the size.",
    );
    let worst = rings
        .iter()
        .map(|(_, samples)| samples.most())
        .fold(0.0, f64::max);
    report.figure(Figure {
        target: "distribution-ring",
        ours: format!("at most {}", Unit::Percent.show(worst)),
        peers: String::new(),
        is_met: Some(worst < 1.0),
        note: "of the ring that the kernel has".to_owned(),
    });
    if let Some((name, samples)) = of_flows.first() {
        report.figure(Figure {
            target: "distribution-flows",
            ours: format!("{}: {}", name, samples.show(Unit::Percent)),
            peers: String::new(),
            is_met: Some(samples.median() <= 2.0),
            note:
                "more backends have fewer flows each, whose number chance decides: see the column *by chance*"
                    .to_owned(),
        });
    }
    report.plot(Plot::bars(
        "",
        "Largest deviation of a backend's share of the ring, percent",
        Unit::Percent,
        rings,
    ));
    Ok(report)
}

/// Backends by number, with their weights.
type Weights = BTreeMap<u32, u32>;

/// What a turn found. Shares are of 1.
struct Turn {
    /// Size of the ring.
    slots: u32,
    /// Largest deviation of a backend's share of the ring from its share of the weights, as part of the latter.
    ring: f64,
    /// The same of new flows.
    flows: f64,
    /// New flows that are not where the weights want them.
    misplaced: f64,
    /// The same, as far as it was to be expected of flows that choose at random by weight.
    by_chance: f64,
    /// After a backend went.
    goes: Moved,
    /// After one came.
    comes: Moved,
}

/// Flows at another backend than before.
#[derive(Default)]
struct Moved {
    /// Share of new flows that go elsewhere.
    new: f64,
    /// The least possible: of a backend that went all, else those that go to the new one.
    least: f64,
    /// Number of established flows that go elsewhere.
    established: usize,
    /// Size of the ring after the change.
    slots: u32,
}

impl Turn {
    /// Established flows that moved although the ring kept its size.
    fn moved_without_growth(&self) -> usize {
        let moved = [&self.goes, &self.comes]
            .into_iter()
            .filter(|moved| moved.slots == self.slots);
        moved.map(|moved| moved.established).sum()
    }
}

#[derive(Clone, Copy)]
enum Change {
    /// This backend goes.
    Goes(u32),
    /// This one comes, with its weight.
    Comes(u32, u32),
}

/// Services of one kind.
struct Case {
    name: String,
    algorithm: &'static str,
    weights: Weights,
    /// `ring_size`, if it is no automatic one.
    ring_size: Option<u32>,
    /// Of its services, which share addresses with those of other cases.
    port: u16,
}

impl Case {
    /// All of them.
    fn all(context: &Context) -> Vec<Self> {
        let mut cases = Vec::new();
        for algorithm in ["maglev", "round-robin"]
            .into_iter()
            .filter(|algorithm| context.wants(algorithm))
        {
            for count in context.pick(&QUICK_BACKENDS[..], &BACKENDS[..]) {
                for (words, weights) in WEIGHTS {
                    cases.push(Self {
                        name: format!("{algorithm}, {count} backends, {words}"),
                        algorithm,
                        weights: (1..=*count).zip(weights.iter().copied().cycle()).collect(),
                        ring_size: None,
                        port: FIRST_PORT + u16::try_from(cases.len()).unwrap_or(u16::MAX),
                    });
                }
                if *count == FULL && algorithm == "maglev" {
                    cases.push(Self {
                        name: format!("{algorithm}, {count} backends, `ring_size = {LARGER}`"),
                        algorithm,
                        weights: (1..=*count).map(|number| (number, 1)).collect(),
                        ring_size: Some(LARGER),
                        port: FIRST_PORT + u16::try_from(cases.len()).unwrap_or(u16::MAX),
                    });
                }
            }
        }
        cases
    }

    fn is_hashed(&self) -> bool {
        self.algorithm == "maglev"
    }

    fn address(&self, service: u8) -> SocketAddr {
        crafted::address(Family::V4, 10 + service, self.port)
    }

    /// Each turn changes two services of its own: flows that a change moved are recorded.
    fn measure(&self, balancer: &Balancer, turns: u8, flows: u32) -> Result<Vec<Turn>> {
        let mut mode = format!("mode = \"ipip\"\nalgorithm = \"{}\"", self.algorithm);
        if !self.is_hashed() {
            mode.push_str("\ntracking = \"full\"");
        }
        if let Some(size) = self.ring_size {
            write!(mode, "\nring_size = {size}")?;
        }
        let services = (0..2 * turns).map(|number| {
            let weights = self.weights.iter().map(|(number, weight)| (*number, *weight));
            crafted::service(&name(number), self.address(number), &mode, Family::V4, weights)
        });
        balancer.apply(&services.collect::<Result<Vec<_>>>()?)?;
        let middle = self.weights.keys().nth(self.weights.len() / 2);
        let goes = Change::Goes(*middle.context("no backend")?);
        let next = self.weights.keys().last().map_or(1, |last| last + 1);
        let comes = Change::Comes(next, 1);
        (0..turns)
            .map(|turn| self.turn(balancer, [2 * turn, 2 * turn + 1], [goes, comes], flows))
            .collect()
    }

    fn turn(&self, balancer: &Balancer, services: [u8; 2], changes: [Change; 2], flows: u32) -> Result<Turn> {
        let ring = ring(balancer, self.address(services[0]))?;
        let mut moved = [Moved::default(), Moved::default()];
        let mut placed = Vec::new();
        for ((moved, service), change) in moved.iter_mut().zip(services).zip(changes) {
            // Of flows that are spread in turn, one service tells enough.
            if placed.is_empty() || self.is_hashed() {
                placed = balancer.packets(|runner| packets(runner, self.address(service), 0..flows, SYN))?;
            }
            *moved = self.change(balancer, service, change, &placed)?;
        }
        let [goes, comes] = moved;
        let count = counts(placed.iter().copied());
        Ok(Turn {
            slots: u32::try_from(ring.len())?,
            ring: self.largest_deviation(&counts(ring)),
            flows: self.largest_deviation(&count),
            misplaced: self.misplaced(&count),
            by_chance: self.by_chance(flows),
            goes,
            comes,
        })
    }

    /// Changes a service. `new` are backends of new flows before.
    fn change(&self, balancer: &Balancer, service: u8, change: Change, new: &[u32]) -> Result<Moved> {
        let (flows, address) = (u32::try_from(new.len())?, self.address(service));
        // Others than those: a packet of an established flow may be recorded.
        let established = flows..flows + flows / ESTABLISHED_PART;
        let before = balancer.packets(|runner| establish(runner, address, established.clone()))?;
        let name = name(service);
        match change {
            Change::Goes(backend) => balancer.change(&format!("backend remove {name} b{backend}"))?,
            Change::Comes(backend, weight) => {
                let address = crafted::backend(Family::V4, backend);
                balancer.change(&format!(
                    "backend add {name} b{backend} --address {address}:80 --weight {weight}"
                ))?;
            }
        }
        let after = balancer.packets(|runner| packets(runner, address, established.clone(), ACK))?;
        let elsewhere =
            |before: &[u32], after: &[u32]| before.iter().zip(after).filter(|(a, b)| a != b).count();
        let mut moved = Moved {
            established: elsewhere(&before, &after),
            slots: service_of(balancer, address)?.ring_size,
            ..Moved::default()
        };
        if self.is_hashed() {
            let after = balancer.packets(|runner| packets(runner, self.address(service), 0..flows, SYN))?;
            let (at, backend) = match change {
                Change::Goes(backend) => (new, backend),
                Change::Comes(backend, _) => (&after[..], backend),
            };
            let least = at.iter().filter(|at| **at == backend).count();
            moved.new = elsewhere(new, &after) as f64 / f64::from(flows);
            moved.least = least as f64 / f64::from(flows);
        }
        Ok(moved)
    }

    /// Backends with the share of all that each should have.
    fn shares(&self) -> impl Iterator<Item = (u32, f64)> {
        let sum = f64::from(self.weights.values().sum::<u32>());
        self.weights
            .iter()
            .map(move |(number, weight)| (*number, f64::from(*weight) / sum))
    }

    /// Backends with the share of all that each has, and the one that it should have.
    fn shares_beside<'a>(&'a self, counts: &'a BTreeMap<u32, u32>) -> impl Iterator<Item = (f64, f64)> + 'a {
        let sum = f64::from(counts.values().sum::<u32>());
        let has = move |number| f64::from(counts.get(&number).copied().unwrap_or(0)) / sum;
        self.shares().map(move |(number, share)| (has(number), share))
    }

    fn largest_deviation(&self, counts: &BTreeMap<u32, u32>) -> f64 {
        let deviations = self
            .shares_beside(counts)
            .map(|(has, share)| (has / share - 1.0).abs());
        deviations.fold(0.0, f64::max)
    }

    fn misplaced(&self, counts: &BTreeMap<u32, u32>) -> f64 {
        let deviations = self.shares_beside(counts).map(|(has, share)| (has - share).abs());
        deviations.sum::<f64>() / 2.0
    }

    /// Half the sum of the mean deviations of binomial distributions, by the normal one.
    fn by_chance(&self, flows: u32) -> f64 {
        let deviation = |(_, share): (u32, f64)| {
            (2.0 * share * (1.0 - share) / std::f64::consts::PI / f64::from(flows)).sqrt()
        };
        self.shares().map(deviation).sum::<f64>() / 2.0
    }
}

fn name(service: u8) -> String {
    format!("s{service}")
}

fn counts(of: impl IntoIterator<Item = u32>) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for number in of {
        *counts.entry(number).or_default() += 1;
    }
    counts
}

/// Sends a packet of each of these flows. Returns the backends that they go to.
fn packets(runner: &mut Runner<'_>, to: SocketAddr, flows: Range<u32>, flags: u8) -> Result<Vec<u32>> {
    flows
        .map(|flow| crafted::tunnelled(runner, &crafted::tcp(crafted::client(flow, to.ip()), to, flags)?))
        .collect()
}

/// Opens flows, one after the other: few that are only opened are remembered. Returns the backends that they are at.
fn establish(runner: &mut Runner<'_>, to: SocketAddr, flows: Range<u32>) -> Result<Vec<u32>> {
    flows
        .map(|flow| {
            let client = crafted::client(flow, to.ip());
            crafted::tunnelled(runner, &crafted::tcp(client, to, SYN)?)?;
            crafted::tunnelled(runner, &crafted::tcp(client, to, ACK)?)
        })
        .collect()
}

/// The numbers of the backends of a service's slots, as packets find them.
fn ring(balancer: &Balancer, address: SocketAddr) -> Result<Vec<u32>> {
    let service = service_of(balancer, address)?;
    let rings: ArrayOfMaps<MapData, Array<MapData, RingPage>> = balancer.map(map_names::RINGS)?.try_into()?;
    let records: Array<MapData, Backend> = balancer.map(map_names::BACKENDS)?.try_into()?;
    let first = ring_page::first_entry(service.ring);
    let pages: Vec<RingPage> = (first..first + ring_page::pages(service.ring_size))
        .map(|entry| Ok(rings.get(&entry, 0)?.get(&0, 0)?))
        .collect::<Result<_>>()?;
    let slots = RingPage::ring(&pages).context("no whole ring")?;
    let mut numbers = BTreeMap::new();
    slots
        .map(|slot| {
            if let Some(number) = numbers.get(&slot.current.0) {
                return Ok(*number);
            }
            let record = records.get(&u32::from(slot.current.0), 0)?;
            let number = crafted::number_of(record.address.to_ip())?;
            numbers.insert(slot.current.0, number);
            Ok(number)
        })
        .collect()
}

/// The record of a service.
fn service_of(balancer: &Balancer, address: SocketAddr) -> Result<Service> {
    let IpAddr::V4(ip) = address.ip() else {
        bail!("an IPv6 service");
    };
    let services: HashMap<MapData, ServiceKeyV4, Service> =
        balancer.map(map_names::SERVICES_V4)?.try_into()?;
    let key = ServiceKeyV4 {
        address: ip.into(),
        port: NetPort::new(address.port()),
        protocol: TCP,
        pad: 0,
    };
    Ok(services.get(&key, 0)?)
}
