//! On kernels that `lb` promises to run on, in a virtual machine: the program loads, every mode forwards, backends behind the kernel's own
//! VLAN devices are reached, also by health checks through the path, a driver with several queues runs the program, and `lb doctor` sees what drivers do to
//! frames.

#[path = "kernels/cards.rs"]
mod cards;
#[path = "kernels/doctor.rs"]
mod doctor;
#[path = "kernels/vlan.rs"]
mod vlan;
#[path = "kernels/whole.rs"]
mod whole;

use std::{
    io::{Write as _, stdout},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use lb_tests::{
    client::http_requests,
    daemon::Daemon,
    topology::{Family, Topology},
    wait,
};
use serde_json::Value;

const PORT: u16 = 8080;
const REQUESTS: u16 = 20;
/// Long enough for a processor in software.
const PLENTY: Duration = Duration::from_secs(60);
/// Most instructions that the verifier walks in one program: a few of its limit of a million, with room for kernels that prune less than
/// the newest ones.
const MOST_VERIFIED: u32 = 60_000;

/// A mode, and the last part of its services' addresses.
const MODES: [(&str, u8); 5] = [
    ("nat", 10),
    ("l2dsr", 11),
    ("ipip", 12),
    ("gue", 13),
    ("dnat", 14),
];

/// Whether backends of a mode see packets to the address of the service.
fn keeps_address(mode: &str) -> bool {
    !["nat", "dnat"].contains(&mode)
}

/// Waits until the checks of every backend succeed.
fn wait_for_backends(daemon: &Daemon) -> Result<()> {
    wait::until_true("checks of all backends succeed", PLENTY, || {
        let status = daemon.cli().json("status")?;
        let services = status["services"].as_array().context("no services")?;
        let up = |service: &Value| service["backends"][0]["health"] == "up";
        Ok(services.iter().all(up))
    })
}

/// Has the client send requests to the services of each mode in each family, and counts the answers.
fn request_all(net: &Topology, modes: &[(&str, u8)]) -> Result<u64> {
    let mut first_port = 20_000;
    for (mode, n) in modes {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, *n), PORT);
            let report = http_requests(&net.client.ns, vip, first_port, REQUESTS, 4)?;
            report
                .ensure_complete(REQUESTS.into())
                .with_context(|| format!("{mode} for {vip}"))?;
            ensure!(
                report.answers_of("b0") == u64::from(REQUESTS),
                "{:?}",
                report.answers
            );
            first_port += REQUESTS;
        }
    }
    Ok(u64::from(REQUESTS) * (modes.len() * Family::BOTH.len()) as u64)
}

/// Prints how many instructions this kernel's verifier walked in the programs that are loaded.
fn print_verified() -> Result<()> {
    let (mut programs, mut sum, mut most) = (0, 0, (0, String::new()));
    for program in loaded_programs() {
        let program = program?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        // Others count too, such as the harness's, of two instructions.
        let count = program.verified_instruction_count().unwrap_or_default();
        (programs, sum) = (programs + 1, sum + count);
        most = most.max((count, name));
    }
    let (count, name) = most;
    // Past the harness, which shows nothing of tests that pass.
    writeln!(
        stdout(),
        "\nverified instructions: {sum} in {programs} programs, {count} in {name}"
    )?;
    ensure!(count > 1000, "the programs are not there");
    ensure!(count <= MOST_VERIFIED, "{count} verified instructions in {name}");
    Ok(())
}
