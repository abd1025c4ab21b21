//! 30 s of forged SYNs at one service, as many as one core makes, beside clients of that service and of another one
//! ([`lb_tests::flooded`]). Prints their fate.

use std::time::Duration;

use anyhow::Result;
use lb_tests::{
    flooded::{self, Plan},
    lane::Lane,
};

const PLAN: Plan = Plan {
    time: Duration::from_secs(30),
    connections: 1_000,
};

fn main() -> Result<()> {
    let _lane = Lane::alone()?;
    print!("{}", flooded::run(PLAN)?);
    Ok(())
}
