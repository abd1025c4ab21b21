//! What takes minutes in an emulated machine: in the lane alone, not in a run of all.

use std::{io::Read as _, net::SocketAddr, process::Stdio};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::http_requests,
    daemon::Daemon,
    lane::Lane,
    lb_cli::lb_binary,
    topology::{Family, Topology},
    wait,
};
use serde_json::Value;

use super::{
    MODES, PLENTY, PORT,
    vlan::{World, world},
};

#[test]
fn a_monitor_shows_what_each_mode_does() -> Result<()> {
    let _lane = Lane::shared()?;
    let World { net, daemon, .. } = &mut world()?;
    monitored(net, daemon)?;
    daemon.stop()
}

/// The program that records packets loads, takes the place of the usual one, and shows what each mode does.
fn monitored(net: &Topology, daemon: &Daemon) -> Result<()> {
    let mut first_port = 30_000;
    for (mode, n) in MODES {
        for family in Family::BOTH {
            let vip = SocketAddr::new(net.vip(family, n), PORT);
            let service = format!("{mode}-{family:?}");
            let mut command = net.lb.ns.command(lb_binary()?);
            let command = command
                .env("LB_SOCKET", daemon.socket())
                .args(["-o", "json", "monitor", "--count", "6", "--service", &service])
                .stdout(Stdio::piped());
            let mut monitor = command.spawn().context("start lb monitor")?;
            let status = wait::until("packets are shown", PLENTY, || {
                http_requests(&net.client.ns, vip, first_port, 1, 1)?.ensure_complete(1)?;
                first_port += 1;
                Ok(monitor.try_wait()?)
            })?;
            let mut shown = String::new();
            let output = monitor.stdout.as_mut().context("no output")?;
            output.read_to_string(&mut shown)?;
            ensure!(
                status.success() && shown.lines().count() == 6,
                "{service}: {status}: {shown}"
            );
            for line in shown.lines() {
                let packet: Value = serde_json::from_str(line)?;
                ensure!(
                    packet["backend"] == "b0" && packet["verdict"] == "tx",
                    "{service}: {packet}"
                );
            }
        }
    }
    Ok(())
}
