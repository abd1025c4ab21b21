//! Faults under traffic: clients of every mode and family check each answer while the daemon is killed, interfaces go, programs are
//! replaced. No answer comes from a wrong backend, no established flow is lost, the state converges, and nothing is left at the end.
//!
//! `short` runs in every test run, `whole` as the lane `chaos`. `LB_CHAOS_SEED` repeats a run.

mod exchange;
mod fault;
mod floods;
mod forged;
mod interfaces;
mod kills;
mod left;
mod network;
mod process;
mod servers;
mod tables;
mod traffic;
mod world;

use std::time::Duration;

/// Pause of each client after an answer.
const PACE: Duration = Duration::from_millis(40);
/// The same beside other tests.
const SLOW_PACE: Duration = Duration::from_millis(150);

/// Some of each kind, beside other tests.
mod short {
    use anyhow::Result;
    use lb_tests::lane::Lane;

    use super::{
        SLOW_PACE, fault, interfaces,
        kills::{Point, kill},
        process, tables,
    };

    #[test]
    fn some_kills_in_map_writes_lose_nothing() -> Result<()> {
        let _lane = Lane::shared()?;
        kill(Point::MapWrite, 3, SLOW_PACE)
    }

    #[test]
    fn some_kills_in_store_writes_lose_nothing() -> Result<()> {
        let _lane = Lane::shared()?;
        kill(Point::StoreWrite, 3, SLOW_PACE)
    }

    #[test]
    fn some_faults_lose_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(
            &[
                &interfaces::DETACHED,
                &interfaces::DOWN,
                &process::UPGRADED,
                &tables::FORGETTING,
            ],
            SLOW_PACE,
        )
    }
}

/// The whole list.
mod whole {
    use anyhow::Result;
    use lb_tests::lane::Lane;

    use super::{
        PACE, fault, floods, interfaces,
        kills::{Point, kill},
        network, process, tables,
    };

    #[test]
    fn kills_at_any_time_lose_nothing() -> Result<()> {
        let _lane = Lane::shared()?;
        kill(Point::AnyTime, 100, PACE)
    }

    #[test]
    fn kills_in_map_writes_lose_nothing() -> Result<()> {
        let _lane = Lane::shared()?;
        kill(Point::MapWrite, 50, PACE)
    }

    #[test]
    fn kills_in_store_writes_lose_nothing() -> Result<()> {
        let _lane = Lane::shared()?;
        kill(Point::StoreWrite, 50, PACE)
    }

    #[test]
    fn interfaces_and_programs_that_change_lose_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(&interfaces::ALL, PACE)
    }

    #[test]
    fn a_daemon_in_trouble_loses_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(&process::ALL, PACE)
    }

    #[test]
    fn a_network_that_changes_loses_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(&network::ALL, PACE)
    }

    #[test]
    fn full_tables_lose_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(&tables::ALL, PACE)
    }

    #[test]
    fn floods_and_hostile_backends_lose_no_established_flow() -> Result<()> {
        let _lane = Lane::shared()?;
        fault::run(&floods::ALL, PACE)
    }
}
