//! Parts of the program that are loaded later than others: no packet meets one that is missing, and none is lost meanwhile.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, ProgramArray};
use lb_common::{limits::LAYOUT_VERSION, map_names, stage::Stage};
use lb_tests::{
    capture::Capture,
    client::{KeepAlive, http_requests},
    config::{Service, file},
    daemon::Daemon,
    lane::Lane,
    netns::checked,
    site::{ECHO_PORT, HTTP_PORT, NGINX_PORT, SERVICE_PORT, Site},
    topology::{Family, Shape},
    udp::udp_flows,
    wait,
};

/// The default of `snat_ports`.
const FIRST_PORT: u16 = 1024;
const LAST_PORT: u16 = 32_767;
/// Answers that each connection must have got before the next step.
const ROUNDS: u64 = 3;
const REQUESTS: u16 = 100;
/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// The pinned programs and their maps.
fn programs(daemon: &Daemon) -> Result<Vec<PathBuf>> {
    let programs = daemon
        .pin_dir()
        .join(format!("v{LAYOUT_VERSION}"))
        .join("programs");
    let entries = fs::read_dir(programs)?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// The map of the stages of the whole program.
fn stages(daemon: &Daemon) -> Result<MapData> {
    let is_of_stages = |path: &PathBuf| path.to_string_lossy().contains("lb_stages-") && !is_of_first(path);
    let pin = programs(daemon)?.into_iter().find(is_of_stages);
    Ok(MapData::from_pin(pin.context("no map of stages is pinned")?)?)
}

/// Whether a pin is of the first program, which a cold start loads.
fn is_of_first(pin: &Path) -> bool {
    pin.to_string_lossy().contains("-first")
}

/// The program that runs on the first interface.
fn program(site: &Site) -> Result<String> {
    let status = site.daemon.cli().json("status")?;
    Ok(status["interfaces"][0]["program_id"].to_string())
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

/// A program that began its search for source ports elsewhere would meet flows that have just begun, and have them give way.
#[test]
fn source_ports_go_on_where_the_program_before_has_ended() -> Result<()> {
    const FIRST_CLIENT_PORT: u16 = 20_000;
    let _lane = Lane::shared()?;
    let family = Family::V4;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let backend = &site.net.backends[0].ns;
    let capture = Capture::start(backend, "eth0", |frame| {
        i32::from(frame.protocol) == libc::IPPROTO_UDP && frame.destination.port() == ECHO_PORT
    })?;
    let ns = site.net.client.ns.clone();
    let target = site.service_address(family);
    let echo = site.echo_service(family, &[1]);
    let mut site = site.start(&[echo])?;
    let open = |number: u16| udp_flows(&ns, target, FIRST_CLIENT_PORT + number, 1, 1)?.ensure_complete(1);
    open(0)?;
    site.daemon.wait_for_whole_program()?;
    open(1)?;
    site.daemon.kill()?;
    site.daemon.start()?;
    open(2)?;
    let ports: Vec<u16> = capture
        .stop()?
        .iter()
        .map(|seen| seen.frame.source.port())
        .collect();
    let next = |port: u16| if port == LAST_PORT { FIRST_PORT } else { port + 1 };
    ensure!(
        ports.len() == 3 && ports.windows(2).all(|two| two[1] == next(two[0])),
        "the source ports are {ports:?}"
    );
    Ok(())
}

/// Clients send as fast as they can while the program changes.
mod alone {
    use super::*;

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

    /// The whole program takes the place of the first one under clients' packets.
    #[test]
    fn the_first_program_gives_way_to_the_whole_and_no_packet_is_lost() -> Result<()> {
        let _lane = Lane::alone()?;
        let family = Family::V4;
        let site = Site::new(Shape::TwoArmed, 2)?;
        let _servers = site.nginx(family)?;
        let target = site.service_address(family);
        let web = site.with_backends(Service::tcp("web", target), family, NGINX_PORT, &[1, 1]);
        let site = site.start(&[web])?;
        let load = KeepAlive::start(&site.net.client.ns, target, 40)?;
        site.daemon.wait_for_whole_program()?;
        load.wait_rounds(ROUNDS)?;
        load.stop()?.ensure_flawless()?;
        let log = site.daemon.log();
        ensure!(
            log.contains("in the place of the first one"),
            "no first program ran: {log}"
        );
        for map in map_names::LATE {
            let pin = site.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}")).join(map);
            let entries = MapData::from_pin(pin)?.info()?.max_entries();
            ensure!(entries > 1, "{map} is a placeholder");
        }
        ensure_none_missed(&site.daemon)
    }

    /// The whole program, which is loaded a moment after READY, cannot be pinned: that is a problem in the status until it can.
    #[test]
    fn a_whole_program_that_cannot_be_loaded_is_reported_and_tried_again() -> Result<()> {
        /// Cold starts until one of them is caught before its whole program runs.
        const STARTS: u32 = 10;
        let _lane = Lane::alone()?;
        let family = Family::V4;
        let mut site = Site::new(Shape::TwoArmed, 2)?;
        let target = site.service_address(family);
        let web = site.with_backends(Service::tcp("web", target), family, HTTP_PORT, &[1, 1]);
        site.daemon = site.daemon.config(&file(&[web]))?;
        let ns = site.net.client.ns.clone();
        let remount = |site: &Site, how: &str| {
            let pins = site.daemon.pin_dir().display().to_string();
            checked(Command::new("mount").args(["-o", &format!("remount,{how}"), &pins]))
        };
        let is_reported = |site: &Site| -> Result<bool> {
            let missing = site
                .daemon
                .metrics()?
                .sum("lb_part_missing", &[("part", "program")]);
            Ok(missing == 1.0)
        };
        for start in 1.. {
            site.daemon.start()?;
            remount(&site, "ro")?;
            wait::until_true("the whole program runs, or cannot", LIMIT, || {
                Ok(site.daemon.runs_whole_program()? || is_reported(&site)?)
            })?;
            if is_reported(&site)? {
                break;
            }
            ensure!(start < STARTS, "the whole program always came first");
            remount(&site, "rw")?;
            site.daemon.stop()?;
        }
        let status = site.daemon.cli().ok("status")?;
        ensure!(status.contains("the whole program cannot be loaded"), "{status}");
        http_requests(&ns, target, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
        remount(&site, "rw")?;
        wait::until_true("the whole program runs", LIMIT, || {
            Ok(site.daemon.runs_whole_program()? && !is_reported(&site)?)
        })?;
        http_requests(&ns, target, 30_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
        ensure_none_missed(&site.daemon)
    }

    /// A daemon that is killed as soon as it is ready leaves its first program, which forwards alone. The next daemon takes it up, and
    /// has the whole one take its place: another program, with other stages and other maps.
    #[test]
    fn a_daemon_that_is_killed_at_once_leaves_a_program_that_is_taken_over() -> Result<()> {
        let _lane = Lane::alone()?;
        let family = Family::V4;
        let site = Site::new(Shape::TwoArmed, 2)?;
        let _servers = site.nginx(family)?;
        let target = site.service_address(family);
        let web = site.with_backends(Service::tcp("web", target), family, NGINX_PORT, &[1, 1]);
        let ns = site.net.client.ns.clone();
        let mut site = site;
        site.daemon = site.daemon.config(&file(&[web]))?;
        site.daemon.start()?;
        site.daemon.kill()?;
        let load = KeepAlive::start(&ns, target, 40)?;
        load.wait_rounds(ROUNDS)?;
        http_requests(&ns, target, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
        site.daemon.start()?;
        load.wait_rounds(ROUNDS)?;
        site.daemon.wait_for_whole_program()?;
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
        site.daemon.wait_for_whole_program()?;
        ensure!(is_there(&site.daemon, Stage::HostSocket)?, "a stage is missing");
        let ns = site.net.client.ns.clone();
        let load = KeepAlive::start(&ns, target, 40)?;
        load.wait_rounds(ROUNDS)?;
        for stage in [Stage::Dnat, Stage::Quic] {
            let mut stages = ProgramArray::try_from(Map::from_map_data(stages(&site.daemon)?)?)?;
            stages.clear_index(&stage.slot(false))?;
        }
        ensure!(!is_there(&site.daemon, Stage::Quic)?, "the stage is still there");
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
}

/// A start that is refused leaves the pins that it found: those of programs that it loaded in vain would stay in the kernel's memory.
#[test]
fn a_take_over_that_is_refused_leaves_no_program_behind() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let services = [site.web(Family::V4, &[1])];
    let mut site = site.start(&services)?;
    site.daemon.wait_for_whole_program()?;
    let (ns, target) = (site.net.client.ns.clone(), site.service_address(Family::V4));
    site.net
        .lb
        .ns
        .ip("link add plain type bridge\nlink set plain up")?;
    site.daemon.kill()?;
    let pinned = |daemon: &Daemon| -> Result<Vec<PathBuf>> {
        let mut all = programs(daemon)?;
        all.sort();
        Ok(all)
    };
    let before = pinned(&site.daemon)?;
    ensure!(before.len() == 2, "entry and stages: {before:?}");
    // The interface that refuses comes before the links that are taken over, or after them. A bridge has no native mode.
    for interfaces in [["plain", "front", "back"], ["front", "back", "plain"]] {
        let mut other = Daemon::new(&site.net.lb.ns, &interfaces)?
            .args("--xdp-mode native")
            .pins_in(site.daemon.pin_dir());
        let outcome = other.run_to_end()?;
        ensure!(
            outcome.code == Some(1) && outcome.stderr.contains("plain"),
            "{outcome:?}"
        );
        let after = pinned(&site.daemon)?;
        if interfaces[0] == "plain" {
            ensure!(after == before, "{before:?} became {after:?}");
        } else {
            // The links run the new program, which goes on.
            ensure!(after.len() == 2, "{before:?} became {after:?}");
        }
        http_requests(&ns, target, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())?;
    }
    let links = fs::read_dir(
        site.daemon
            .pin_dir()
            .join(format!("v{LAYOUT_VERSION}"))
            .join("links"),
    )?;
    ensure!(links.count() == 2, "a link of the refused interface stays");
    site.daemon.start()?;
    http_requests(&ns, target, 20_000, REQUESTS, 8)?.ensure_complete(REQUESTS.into())
}
