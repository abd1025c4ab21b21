//! Stages of the program that are loaded later than others: no packet meets one that is missing, and none is lost meanwhile.

use std::{fs, os::fd::AsFd as _, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, ProgramArray};
use lb_common::{limits::LAYOUT_VERSION, stage::Stage};
use lb_tests::{
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    site::{NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    udp::udp_flows,
    wait,
};

/// Answers that each connection must have got before the next step.
const ROUNDS: u64 = 3;
const REQUESTS: u16 = 100;
/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// The map of the stages of the program that runs.
fn stages(daemon: &Daemon) -> Result<MapData> {
    let programs = daemon
        .pin_dir()
        .join(format!("v{LAYOUT_VERSION}"))
        .join("programs");
    let mut pins = fs::read_dir(programs)?.flatten().map(|entry| entry.path());
    let is_of_stages = |path: &PathBuf| path.to_string_lossy().contains("lb_stages-");
    let pin = pins.find(is_of_stages).context("no map of stages is pinned")?;
    Ok(MapData::from_pin(pin)?)
}

fn is_there(daemon: &Daemon, stage: Stage) -> Result<bool> {
    lb_tests::stages::is_there(stages(daemon)?.fd().as_fd(), stage.slot(false))
}

fn ensure_none_missed(daemon: &Daemon) -> Result<()> {
    let missed = daemon
        .metrics()?
        .count("lb_drops_total", &[("reason", "stage_missing")]);
    ensure!(missed == 0, "{missed} packets met a stage that is missing");
    Ok(())
}

/// A daemon that has just started serves one service of mode `nat`. Services of other modes and families come while clients of
/// that one go on.
#[test]
fn services_of_other_modes_come_right_after_a_start_and_no_packet_is_lost() -> Result<()> {
    let _lane = Lane::alone()?;
    let site = Site::new(Shape::TwoArmed, 2)?;
    site.net.forward_in_kernel()?;
    let _servers = [site.nginx(Family::V4)?, site.nginx(Family::V6)?];
    let of = |family: Family, host: u8, mode: &str| {
        let name = format!("{mode}{}", if family == Family::V4 { 4 } else { 6 });
        let service = Service::tcp(&name, (site.net.vip(family, host), SERVICE_PORT).into());
        let service = service.keys(&format!("mode = \"{mode}\""));
        site.with_backends(service, family, NGINX_PORT, &[1, 1])
    };
    let mut services = vec![of(Family::V4, 10, "nat")];
    let later = [
        of(Family::V6, 10, "nat"),
        of(Family::V4, 11, "dnat"),
        of(Family::V6, 11, "dnat"),
    ];
    let rest = [
        site.echo_service(Family::V4, &[1, 1]),
        site.echo_service(Family::V6, &[1, 1]),
    ];
    let ns = site.net.client.ns.clone();
    let mut site = site;
    site.daemon = site.daemon.config(&file(&services))?;
    site.daemon.start()?;
    let load = KeepAlive::start(&ns, site.service_address(Family::V4), 20)?;
    for service in later.into_iter().chain(rest) {
        services.push(service);
        let path = site.daemon.write_config(&file(&services))?;
        site.daemon
            .cli()
            .ok(&format!("apply {} --wait", path.display()))?;
        ensure_none_missed(&site.daemon)?;
    }
    for family in Family::BOTH {
        for host in [10, 11] {
            let target = (site.net.vip(family, host), SERVICE_PORT).into();
            http_requests(&ns, target, 20_000 + u16::from(host) * 200, REQUESTS, 8)?
                .ensure_complete(REQUESTS.into())?;
        }
        udp_flows(&ns, site.service_address(family), 20_000, REQUESTS, 8)?
            .ensure_complete(REQUESTS.into())?;
    }
    load.wait_rounds(ROUNDS)?;
    load.stop()?.ensure_flawless()?;
    ensure_none_missed(&site.daemon)
}

/// A program that lacks stages, as one of another version may, is replaced by one that has them, under clients' packets.
#[test]
fn a_program_with_other_stages_is_taken_over_and_no_packet_is_lost() -> Result<()> {
    let _lane = Lane::alone()?;
    let family = Family::V4;
    let site = Site::new(Shape::TwoArmed, 2)?;
    let _servers = site.nginx(family)?;
    let target = site.service_address(family);
    let web = site.with_backends(Service::tcp("web", target), family, NGINX_PORT, &[1, 1]);
    let mut site = site.start(&[web])?;
    wait::until_true("all stages are there", LIMIT, || {
        is_there(&site.daemon, Stage::HostSocket)
    })?;
    let ns = site.net.client.ns.clone();
    let load = KeepAlive::start(&ns, target, 40)?;
    load.wait_rounds(ROUNDS)?;
    for stage in [Stage::Dnat, Stage::Quic] {
        let mut stages = ProgramArray::try_from(Map::from_map_data(stages(&site.daemon)?)?)?;
        stages.clear_index(&stage.slot(false))?;
    }
    ensure!(!is_there(&site.daemon, Stage::Quic)?, "the stage is still there");
    let program = |site: &Site| -> Result<String> {
        let status = site.daemon.cli().json("status")?;
        Ok(status["interfaces"][0]["program_id"].to_string())
    };
    let old = program(&site)?;
    site.daemon.kill()?;
    site.daemon.start()?;
    ensure!(program(&site)? != old, "the incomplete program runs on");
    load.wait_rounds(ROUNDS)?;
    http_requests(&ns, target, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
    load.stop()?.ensure_flawless()?;
    ensure!(is_there(&site.daemon, Stage::Quic)?, "a stage is missing");
    ensure_none_missed(&site.daemon)
}
