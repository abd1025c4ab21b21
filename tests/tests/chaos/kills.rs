//! The daemon is killed: at random times, between map writes and between writes of its store, while it changes something or starts.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lb_tests::{
    lb_cli::{LbCli, Outcome},
    trap::{Calls, Trap},
    wait,
};
use serde_json::Value;

use crate::{fault, world::World};

/// Where a kill hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Point {
    /// At any time after a change began.
    AnyTime,
    MapWrite,
    StoreWrite,
}

/// Times after the begin of a change at which the daemon is killed.
const WITHIN: Duration = Duration::from_millis(400);
/// Every n-th start is killed, too.
const STARTS: u32 = 4;
/// Longest wait for the end of a command.
const LIMIT: Duration = Duration::from_secs(60);
/// The backend that changes are about.
const CHANGED: &str = "b2";

/// A change of one backend, and how its record shows it.
struct Change {
    service: String,
    line: String,
    field: &'static str,
    value: Value,
}

/// Kills the daemon `count` times at such a point.
pub(crate) fn kill(point: Point, count: u32, pace: Duration) -> Result<()> {
    let seed = fault::seed();
    let mut world = World::start(seed, pace, |daemon| match point {
        Point::AnyTime => None,
        Point::MapWrite => Some(Calls::MapWrites),
        Point::StoreWrite => Some(Calls::WritesIn(daemon.state_dir())),
    })?;
    let mut kills = Kills::default();
    for number in 1..=count {
        let change = Change::random(&mut world)?;
        kills.one(&mut world, &change).with_context(|| {
            format!(
                "seed {seed}, kill {number}, lb {}, log:\n{}",
                change.line,
                world.log()
            )
        })?;
    }
    println!(
        "{count} kills, {point:?}; {} more in starts; {} changes were acknowledged before; slowest start to convergence {:.2} s",
        kills.in_starts,
        kills.acknowledged,
        kills.slowest.as_secs_f64()
    );
    world.end().with_context(|| format!("seed {seed}"))
}

/// What kills have shown.
#[derive(Default)]
struct Kills {
    in_starts: u32,
    slowest: Duration,
    acknowledged: u32,
}

impl Kills {
    /// One kill during a change, and the next start.
    fn one(&mut self, world: &mut World, change: &Change) -> Result<()> {
        let before = change.shown(world)?;
        world.traffic.bar(&change.service, CHANGED, false);
        world.note_objects()?;
        let outcome = match world.trap.clone() {
            Some(trap) => at_a_call(world, change, &trap)?,
            None => at_any_time(world, change)?,
        };
        // The kernel forwards alone.
        world.traffic.wait_rounds(1)?;
        if world.rng.u32(..STARTS) == 0 {
            self.in_a_start(world)?;
        }
        let took = world.start_again()?;
        self.slowest = self.slowest.max(took);
        let is_acknowledged = outcome.code == Some(0);
        self.acknowledged += u32::from(is_acknowledged);
        let after = change.shown(world)?;
        ensure!(
            after == change.value || (after == before && !is_acknowledged),
            "{} was {before}, is {after}; the command ended with {:?}",
            change.field,
            outcome.code
        );
        let takes_none = change.field == "admin" && after == "draining";
        // Where flows are not recorded, new UDP flows look like old ones, which stay.
        let is_known = change.service.ends_with("tcp") || change.service.starts_with("nat");
        world
            .traffic
            .bar(&change.service, CHANGED, takes_none && is_known);
        world.traffic.wait_rounds(1)
    }

    /// Kills a daemon that starts.
    fn in_a_start(&mut self, world: &mut World) -> Result<()> {
        if let Some(trap) = &world.trap {
            trap.arm(world.rng.u32(1..=CALLS));
        }
        world.daemon.begin()?;
        wait::pace(WITHIN.mul_f64(world.rng.f64()));
        world.daemon.kill()?;
        if let Some(trap) = &world.trap {
            trap.disarm();
        }
        self.in_starts += 1;
        world.traffic.wait_rounds(1)
    }
}

/// Kills at a random time after the change began.
fn at_any_time(world: &mut World, change: &Change) -> Result<Outcome> {
    let delay = WITHIN.mul_f64(world.rng.f64());
    let command = start(world.cli(), &change.line);
    wait::pace(delay);
    world.daemon.kill()?;
    join(command)
}

/// Kills at one of the calls that the change makes, or at one of the next changes'.
fn at_a_call(world: &mut World, change: &Change, trap: &Trap) -> Result<Outcome> {
    let killed = trap.killed();
    trap.arm(world.rng.u32(1..=CALLS));
    let outcome = join(start(world.cli(), &change.line))?;
    let began = Instant::now();
    while trap.killed() == killed {
        ensure!(began.elapsed() < LIMIT, "no call is made");
        let weight = world.rng.u32(1..100);
        let line = format!("backend set {} b1 --weight {weight}", change.service);
        join(start(world.cli(), &line))?;
    }
    world.daemon.kill()?;
    Ok(outcome)
}

/// The calls among which one is picked.
const CALLS: u32 = 24;

impl Change {
    fn random(world: &mut World) -> Result<Self> {
        let service = world.services[world.rng.usize(..world.services.len())].clone();
        let shown = world.cli().backend(&service, CHANGED)?;
        let (word, field, value) = if world.rng.bool() {
            let is_drained = shown["admin"] == "draining";
            let word = if is_drained { "enable" } else { "drain" };
            let value = if is_drained { "enabled" } else { "draining" };
            (format!("{word} {service} {CHANGED}"), "admin", value.into())
        } else {
            let weight = world.rng.u16(1..=20);
            (
                format!("set {service} {CHANGED} --weight {weight}"),
                "weight",
                weight.into(),
            )
        };
        Ok(Self {
            line: format!("backend {word}"),
            service,
            field,
            value,
        })
    }

    fn shown(&self, world: &World) -> Result<Value> {
        Ok(world.cli().backend(&self.service, CHANGED)?[self.field].clone())
    }
}

/// Runs a command beside, with any result.
fn start(cli: LbCli, line: &str) -> thread::JoinHandle<Result<Outcome>> {
    let line = line.to_owned();
    thread::spawn(move || cli.run(&line.split(' ').collect::<Vec<_>>()))
}

fn join(command: thread::JoinHandle<Result<Outcome>>) -> Result<Outcome> {
    command.join().map_err(|_| anyhow!("a command panicked"))?
}
