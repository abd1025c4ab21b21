//! An operator looks back, and goes back, under traffic and over restarts.

use anyhow::{Context, Result, ensure};
use lb_tests::{
    client::KeepAlive,
    lane::Lane,
    lb_cli::lb_binary,
    site::{NGINX_PORT, Site},
    topology::{Family, Shape},
};

#[test]
fn a_rollback_brings_back_an_earlier_state_without_moving_other_flows() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let _servers = site.nginx(Family::V4)?;
    let target = site.service_address(Family::V4);
    let service = lb_tests::config::Service::tcp("web", target);
    let web = site.with_backends(service, Family::V4, NGINX_PORT, &[100, 100]);
    let mut site = site.start(&[web])?;
    let cli = site.daemon.cli();
    let good = cli.json("status")?["revision"].as_u64().context("revision")?;
    let load = KeepAlive::start(&site.net.client.ns, target, 50)?;
    load.wait_rounds(3)?;

    // Two mistakes.
    cli.ok("backend set web b0 --weight 7")?;
    cli.ok("service add other --address 192.0.2.99 --port 1")?;
    let listed = cli.ok("history")?;
    ensure!(
        listed.contains("weight 100 -> 7") && listed.contains("+ service other"),
        "{listed}"
    );
    let of_one = cli.ok(&format!("history {}", good + 1))?;
    ensure!(
        of_one.contains("weight 100 -> 7") && !of_one.contains("other"),
        "{of_one}"
    );

    let dry = cli.ok(&format!("rollback {good} --dry-run"))?;
    ensure!(
        dry.contains("- service other") && dry.contains("dry run"),
        "{dry}"
    );
    ensure!(cli.json("service show other")?["name"] == "other");
    // The daemon's death does not take the way back.
    site.daemon.kill()?;
    site.daemon.start()?;
    let done = cli.ok(&format!("rollback {good}"))?;
    ensure!(
        done.contains("weight 7 -> 100") && done.contains(&format!("done, revision {}", good + 3)),
        "{done}"
    );
    ensure!(cli.backend("web", "b0")?["weight"] == 100);
    let gone = cli.fails(3, "service show other")?;
    ensure!(gone.contains("other"), "{gone}");
    load.wait_rounds(3)?;

    // The one before is the mistake again, and so a way back from a rollback.
    cli.ok("rollback")?;
    ensure!(cli.backend("web", "b0")?["weight"] == 7);
    let unknown = cli.fails(3, "rollback 77")?;
    ensure!(
        unknown.contains("revision 77 is not kept") && unknown.contains("lb history"),
        "{unknown}"
    );
    let stale = cli.fails(4, &format!("rollback {good} --revision 1"))?;
    ensure!(stale.contains("revision"), "{stale}");
    load.stop()?.ensure_flawless()
}

#[test]
fn a_difference_from_a_file_is_an_exit_code_and_a_pipe_is_a_file() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let service = lb_tests::config::Service::tcp("web", site.service_address(Family::V4));
    let web = site.with_backends(service, Family::V4, NGINX_PORT, &[1]);
    let site = site.start(&[web])?;
    let cli = site.daemon.cli();
    let same = site.daemon.write_config(&cli.ok("export")?)?;
    let none = cli.ok(&format!("diff --exit-code {}", same.display()))?;
    ensure!(none.contains("no change"), "{none}");
    cli.ok("backend set web b0 --weight 3")?;
    let revision = cli.json("status")?["revision"].clone();
    cli.fails(10, &format!("diff --exit-code {}", same.display()))?;
    let shown = cli.ok(&format!("diff {}", same.display()))?;
    ensure!(shown.contains("weight 3 -> 1"), "{shown}");
    ensure!(
        cli.json("status")?["revision"] == revision,
        "a comparison changed something"
    );

    let socket = site.daemon.socket().display().to_string();
    let lb = lb_binary()?.display().to_string();
    let applied = site.net.lb.ns.run_with_input(
        &lb,
        &["--socket", &socket, "apply", "-"],
        &std::fs::read_to_string(&same)?,
    )?;
    ensure!(
        applied.contains("weight 3 -> 1") && applied.contains("done"),
        "{applied}"
    );
    let bad =
        site.net
            .lb
            .ns
            .run_with_input(&lb, &["--socket", &socket, "apply", "-"], "[[service]]\nx = 1\n");
    let bad = format!("{:?}", bad.err().context("a bad file was accepted")?);
    ensure!(bad.contains("standard input"), "{bad}");
    Ok(())
}
