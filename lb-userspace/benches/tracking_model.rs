//! The table of docs/flow-tracking.md: just-enough tracking beside Katran's scheme, in the same simulated world with
//! room for the same number of flows. Not a matter of speed, and the same on every machine.
//!
//!     cargo bench -p lb-userspace --bench tracking_model

#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../tests/model/simulation/mod.rs"]
mod simulation;

use std::time::Duration;

use lb_userspace::{ring, state::service::Protocol};

use simulation::{
    Balancer, Costs, Memory,
    just_enough::JustEnough,
    katran::Katran,
    random::Random,
    run::{Flood, Outcome, Scenario, run},
    world::{Change, World},
};

const MEMORY: Memory = Memory {
    tracked: 20 << 10,
    opening: 4 << 10,
    seen: 8 << 10,
};
const WINDOW: Duration = Duration::from_secs(60);

/// Seconds before the first change, in which the clients come.
const WARM_UP: u64 = 120;

/// A row of the table: runs that are added up.
struct Row {
    name: &'static str,
    servers: u32,
    runs: u64,
    protocol: Protocol,
    clients: u64,
    /// Seconds from one change to the next, on average.
    pause: u64,
    /// SYNs a second, ten million altogether.
    flood: Option<u64>,
    seconds: u64,
}

const FLOOD_SYNS: u64 = 10_000_000;

const USUAL: Row = Row {
    name: "5,000 clients, 20 backends, a change every 20 s",
    servers: 20,
    runs: 1,
    protocol: Protocol::Tcp,
    clients: 5_000,
    pause: 20,
    flood: None,
    seconds: 600,
};

const ROWS: [Row; 7] = [
    Row {
        name: "200 histories of 300 clients, 10 backends, a change every 10 s",
        servers: 10,
        runs: 200,
        clients: 300,
        pause: 10,
        ..USUAL
    },
    USUAL,
    Row {
        name: "the same over UDP",
        protocol: Protocol::Udp,
        ..USUAL
    },
    Row {
        name: "the same (TCP), 10 million SYNs at 100,000/s",
        flood: Some(100_000),
        ..USUAL
    },
    Row {
        name: "the same, 10 million SYNs at 1,000,000/s",
        flood: Some(1_000_000),
        ..USUAL
    },
    Row {
        name: "50,000 clients, a change every 60 s",
        clients: 50_000,
        pause: 60,
        ..USUAL
    },
    Row {
        name: "100,000 clients, a change every 60 s",
        clients: 100_000,
        pause: 60,
        ..USUAL
    },
];

impl Row {
    fn scenario(&self, seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let mut at = WARM_UP * 1_000;
        let mut changes = Vec::new();
        while at < self.seconds * 1_000 {
            changes.push((Duration::from_millis(at), Change::random(&mut random)));
            at += random.below(2_000 * self.pause);
        }
        let from = WARM_UP + 30;
        Scenario {
            protocol: self.protocol,
            window: WINDOW,
            clients: self.clients,
            changes,
            flood: self.flood.map(|per_second| Flood {
                from,
                until: from + FLOOD_SYNS / per_second,
                per_second,
            }),
            seconds: self.seconds,
            seed,
        }
    }

    /// Runs it with the balancer that `balancer` makes for a world and a ring size, and prints the result.
    fn print<B: Balancer>(&self, scheme: &str, balancer: impl Fn(&World, u32) -> B) {
        let (mut sum, mut costs) = (Outcome::default(), Costs::default());
        for seed in 0..self.runs {
            let mut world = World::new(self.servers);
            let size = ring::auto_size(self.servers as usize, None);
            let mut balancer = balancer(&world, size);
            let outcome = run(&self.scenario(seed), &mut world, &mut balancer);
            sum.packets += outcome.packets;
            sum.flood_packets += outcome.flood_packets;
            sum.broken += outcome.broken;
            sum.broken_opening += outcome.broken_opening;
            sum.moved_idle += outcome.moved_idle;
            costs.look_ups += balancer.costs().look_ups;
            costs.records = costs.records.max(balancer.costs().records);
        }
        let packets = sum.packets + sum.flood_packets;
        println!(
            "| {} | {scheme} | {} | {} | {} | {} | {:.1} | {} |",
            self.name,
            sum.packets,
            sum.broken,
            sum.broken_opening,
            sum.moved_idle,
            100.0 * costs.look_ups as f64 / packets as f64,
            costs.records,
        );
    }
}

fn main() {
    println!("| world | scheme | packets | broken | opening | silent | look-ups | records |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in ROWS {
        row.print("just enough", |world, size| {
            JustEnough::new(world, size, WINDOW, MEMORY)
        });
        let udp = row.protocol == Protocol::Udp;
        row.print("Katran", |world, size| {
            Katran::new(world, size, MEMORY.total(), udp)
        });
    }
}
