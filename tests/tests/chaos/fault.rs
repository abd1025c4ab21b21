//! Faults as entries of a table, and what must hold after each: every client gets its answers, the state converges, and nothing that the
//! documentation does not name was lost.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use fastrand::Rng;

use crate::{
    traffic::May,
    world::{World, print_convergence},
};

/// Sets the seed, which each failure names.
const SEED: &str = "LB_CHAOS_SEED";

/// Something that goes wrong, and is put right again.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What may happen to flows until the state has converged.
    pub(crate) may: May,
    /// Makes it, sees that status and events say so, and puts it right.
    pub(crate) act: fn(&mut World) -> Result<()>,
}

/// The seed of this run.
pub(crate) fn seed() -> u64 {
    let given = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| Rng::new().u64(..1_000_000));
    println!("{SEED}={seed}");
    seed
}

/// Makes these faults in a random order, in one world.
pub(crate) fn run(faults: &[&Fault], pace: Duration) -> Result<()> {
    let seed = seed();
    let mut world = World::start(seed, pace, |_| None)?;
    let mut order: Vec<&Fault> = faults.to_vec();
    world.rng.shuffle(&mut order);
    let names: Vec<&str> = order.iter().map(|fault| fault.name).collect();
    println!("{}", names.join(", "));
    for fault in order {
        one(&mut world, fault)
            .with_context(|| format!("{}, seed {seed}, log:\n{}", fault.name, world.log()))?;
    }
    world.end().with_context(|| format!("seed {seed}"))
}

fn one(world: &mut World, fault: &Fault) -> Result<()> {
    world.note_objects()?;
    world.mark_events()?;
    let lost = world.traffic.lost();
    world.traffic.allow(fault.may);
    (fault.act)(world)?;
    let took = world.wait_converged()?;
    world.traffic.wait_rounds(2)?;
    world.traffic.allow(May::LoseNothing);
    world.traffic.wait_rounds(2)?;
    world.traffic.verdict()?;
    world.note_objects()?;
    print_convergence(fault.name, took, world.traffic.lost() - lost);
    Ok(())
}
