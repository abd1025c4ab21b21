//! `lb top` and `--watch` on a real terminal, with a real daemon.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::KeepAlive,
    config::Service,
    lane::Lane,
    lb_cli::lb_binary,
    site::Site,
    terminal::Terminal,
    topology::{Family, Shape},
    wait,
};

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// `lb` with these arguments on a terminal.
fn start(site: &Site, line: &str, rows: u16, columns: u16) -> Result<Terminal> {
    let mut command = site.net.lb.ns.command(lb_binary()?);
    command
        .env("LB_SOCKET", site.daemon.socket())
        .env("TERM", "xterm-256color")
        .args(line.split(' '));
    Terminal::start(&mut command, rows, columns)
}

fn site() -> Result<Site> {
    let site = Site::new(Shape::TwoArmed, 2)?;
    let services = [site.web(Family::V4, &[1, 1]), site.echo_service(Family::V4, &[1])];
    site.start(&services)
}

#[test]
fn one_sample_has_the_rates_of_the_counters() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    let load = KeepAlive::start(&site.net.client.ns, site.service_address(Family::V4), 4)?;
    load.wait_rounds(2)?;
    let counted = || -> Result<f64> {
        let metrics = site.daemon.metrics()?;
        Ok(metrics.sum("lb_service_packets_total", &[("service", "web4")]))
    };
    let before = counted()?;
    let sample = site.daemon.cli().json("top --once --interval 2s")?;
    let after = counted()?;
    load.stop()?.ensure_flawless()?;

    let services = sample["services"].as_array().context("services")?;
    let web = services
        .iter()
        .find(|service| service["name"] == "web4")
        .context("web4")?;
    let rate = |of: &serde_json::Value, name: &str| of["rates"][name].as_f64().context("no rate");
    let seconds = sample["seconds"].as_f64().context("seconds")?;
    let packets = rate(web, "packets_per_second")? * seconds;
    // Both looks lie between both readings of the metrics.
    ensure!(
        packets > 0.0 && packets <= after - before + 0.5,
        "{packets} of {before} to {after}"
    );
    ensure!(rate(web, "reply_bits_per_second")? > 0.0, "{web}");
    let backends = web["backends"].as_array().context("backends")?;
    let mut of_backends = 0.0;
    for backend in backends {
        of_backends += rate(backend, "packets_per_second")? * seconds;
    }
    // Counters are read one after the other while packets come.
    ensure!(
        of_backends > 0.0 && of_backends <= after - before + 0.5,
        "{of_backends}"
    );
    let totals = &sample["totals"];
    ensure!(
        rate(totals, "packets_per_second")? >= rate(web, "packets_per_second")?,
        "{totals}"
    );
    ensure!(!sample["maps"].as_array().context("maps")?.is_empty());
    let table = site.daemon.cli().ok("top --once --interval 100ms")?;
    ensure!(
        table.lines().count() == 3 && table.starts_with("SERVICE"),
        "{table}"
    );
    Ok(())
}

#[test]
fn keys_drain_and_enable_a_backend_and_a_restart_of_the_daemon_is_waited_for() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = site()?;
    let cli = site.daemon.cli();
    let is = |word: &str| wait::until_true(word, LIMIT, || Ok(cli.backend("web4", "b1")?["admin"] == word));
    let mut top = start(&site, "top --interval 200ms", 24, 80)?;
    top.wait_for("2 services, by packets/s")?;
    top.send("/web")?;
    top.wait_for("1 of 2 services with \"web\"")?;
    top.send("\r\r")?;
    top.wait_for("2 backends, by name")?;
    // Down, as terminals send it.
    top.send("\x1b[Bd")?;
    top.wait_for("drain web4/b1: no new flows")?;
    top.send("n")?;
    top.wait_for("web4/b1 is unchanged")?;
    ensure!(cli.backend("web4", "b1")?["admin"] == "enabled");
    top.send("dy")?;
    top.wait_until("the row is drained", |text| {
        let mut lines = text.lines().filter(|line| line.starts_with("b1 "));
        lines.any(|line| line.contains("draining"))
    })?;
    is("draining")?;
    top.send("ey")?;
    top.wait_for("web4/b1: enabled")?;
    is("enabled")?;

    site.daemon.stop()?;
    top.wait_for("the daemon is away since")?;
    top.send("d")?;
    top.wait_for("nothing can be changed")?;
    site.daemon.start()?;
    let shown = top.wait_for("ready  revision")?;
    ensure!(!shown.contains("away since"), "{shown}");
    top.resize(50, 200)?;
    top.wait_for("FAILURE")?;
    top.send("\x1b")?;
    top.wait_for("MOST DROPS")?;
    top.send("q")?;
    let left = top.end()?;
    ensure!(left.code == Some(0) && left.is_restored, "{left:?}");
    Ok(())
}

#[test]
fn every_end_restores_the_terminal() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = site()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let top = start(&site, "top", 24, 80)?;
        top.wait_for("2 services")?;
        top.signal(signal)?;
        let left = top.end()?;
        ensure!(
            left.code == Some(0) && left.is_restored,
            "signal {signal}: {left:?}"
        );
    }
    let mut top = start(&site, "top", 24, 80)?;
    top.wait_for("2 services")?;
    top.send("\x03")?;
    let left = top.end()?;
    ensure!(left.code == Some(0) && left.is_restored, "{left:?}");
    let refused = site.daemon.cli().fails(2, "top")?;
    ensure!(
        refused.contains("no terminal") && refused.contains("--once"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn repeated_output_fits_the_window() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::TwoArmed, 1)?;
    let backend = site.net.backends[0].socket(Family::V4, 8080);
    let services: Vec<Service> = (10..40)
        .map(|number| {
            let address = (site.net.vip(Family::V4, number), 80).into();
            Service::tcp(&format!("s{number}"), address).backend("b0", backend, 1)
        })
        .collect();
    let site = site.start(&services)?;
    let watch = start(&site, "service list --watch=200ms", 12, 150)?;
    let shown = watch.wait_for("… 21 more")?;
    ensure!(shown.starts_with("SERVICE"), "{shown}");
    watch.resize(40, 150)?;
    let shown = watch.wait_for("s39")?;
    ensure!(!shown.contains("more"), "{shown}");
    watch.signal(libc::SIGTERM)?;
    ensure!(watch.end()?.code.is_none());
    Ok(())
}
