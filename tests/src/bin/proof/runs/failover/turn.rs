//! One failure of all backends that fail, from the death to the return.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lb_tests::wait;

use super::{
    flows::{Flow, Flows, LIMIT},
    rig::{Fault, Rig},
};

/// Longest wait until a backend serves, at first or again.
const PATIENCE: Duration = Duration::from_secs(120);
/// For which a flapping server is down, and up.
pub(super) const FLAP: Duration = Duration::from_secs(1);

/// What became of a service in a turn.
pub(super) struct Outcome {
    /// Seconds from the death to the last new flow that had no answer.
    pub(super) detection: f64,
    /// Seconds from the return to the first new flow that the backend answered.
    pub(super) recovery: f64,
    /// New flows without an answer from death to return, and all new flows of that time.
    pub(super) lost: usize,
    pub(super) flows: usize,
}

/// Has backends fail for this time, and return. Gives the outcomes by target.
pub(super) fn fail_and_return(rig: &mut Rig, period: Duration, down_for: Duration) -> Result<Vec<Outcome>> {
    let addresses: Vec<_> = rig.targets.iter().map(|target| target.address).collect();
    let flows = Flows::start(&rig.net.client.ns, &addresses, period)?;
    let is_answered = |by: &str, since: Instant| {
        let of = |flow: &Flow| flow.begun >= since && flow.answered_by.as_deref() == Some(by);
        (0..addresses.len())
            .all(|target| flows.seen(target, |flows| flows.iter().rev().any(of)) == Some(true))
    };
    let begun = Instant::now();
    wait::until_true("every backend answers", PATIENCE, || {
        Ok(is_answered("b0", begun) && is_answered("b1", begun))
    })?;
    let death = Instant::now();
    rig.fail()?;
    let mut is_up = false;
    while rig.has(Fault::Flapping) && death.elapsed() + FLAP < down_for {
        wait::pace(FLAP);
        is_up = !is_up;
        rig.flap(is_up)?;
    }
    wait::pace(down_for.saturating_sub(death.elapsed()));
    if is_up {
        rig.flap(false)?;
    }
    let back = Instant::now();
    rig.heal()?;
    wait::until_true("backends answer again", PATIENCE, || Ok(is_answered("b0", back)))?;
    // Flows that began before the return have their ends.
    wait::pace(LIMIT.saturating_sub(back.elapsed()));
    let all = flows.stop()?;
    all.iter().map(|flows| Outcome::of(flows, death, back)).collect()
}

impl Outcome {
    fn of(flows: &[Flow], death: Instant, back: Instant) -> Result<Self> {
        let meanwhile = flows.iter().filter(|flow| (death..back).contains(&flow.begun));
        let lost = meanwhile.clone().filter(|flow| flow.answered_by.is_none());
        let detection = lost.clone().map(|flow| flow.begun - death).max();
        let returned = flows
            .iter()
            .filter(|flow| flow.begun >= back && flow.answered_by.as_deref() == Some("b0"));
        let recovery = returned.map(|flow| flow.begun - back).min();
        Ok(Self {
            detection: detection.unwrap_or_default().as_secs_f64(),
            recovery: recovery
                .context("a backend that returned answered no flow")?
                .as_secs_f64(),
            lost: lost.count(),
            flows: meanwhile.count(),
        })
    }
}
