//! Nothing that serves clients is removed by accident: not by a file for another machine, nor by one that was cut short.

use anyhow::{Result, ensure};
use lb_tests::{
    client::http_requests,
    config::file,
    lane::Lane,
    site::Site,
    topology::{Family, Shape},
    wait,
};
use std::time::Duration;

/// For what takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn removals_of_much_are_refused_asked_about_or_confirmed() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 3)?;
    let web = site.web(Family::V4, &[1, 1, 1]);
    let one_left = file(&[site.web(Family::V4, &[1])]);
    let other = "[[service]]\nname = \"other\"\naddress = \"192.0.2.99\"\nport = 1\n";
    let site = site.start(&[web])?;
    let (cli, target) = (site.daemon.cli(), site.service_address(Family::V4));
    let good = cli.json("status")?["revision"].clone();
    let small = site.daemon.dir().write("small.toml", &one_left)?;
    let foreign = site.daemon.dir().write("foreign.toml", other)?;
    let lost = |cli: &str, what: &str| {
        let stderr = site.daemon.cli().fails(1, cli)?;
        ensure!(stderr.contains(what) && stderr.contains("--yes"), "{stderr}");
        anyhow::Ok(())
    };
    lost(
        &format!("apply {}", small.display()),
        "2 of 3 backends of service web4",
    )?;
    lost(
        &format!("apply {}", foreign.display()),
        "the only service, with 3 backends",
    )?;
    lost(
        &format!("apply {} --allow-empty", foreign.display()),
        "the only service",
    )?;
    for dry in ["diff", "apply --dry-run"] {
        let output = cli.ok(&format!("{dry} {}", small.display()))?;
        ensure!(
            output.contains("- backend web4/b2") && output.contains("2 of 3 backends"),
            "{output}"
        );
    }
    http_requests(&site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;
    ensure!(cli.json("status")?["revision"] == good, "nothing has changed");

    let no = site.on_terminal(&format!("apply {}", small.display()), "n\r")?;
    ensure!(
        no.code == Some(1) && no.text.contains("nothing was changed"),
        "{no:?}"
    );
    ensure!(cli.json("status")?["revision"] == good);
    let yes = site.on_terminal(&format!("apply {}", small.display()), "y\r")?;
    ensure!(
        yes.code == Some(0) && yes.text.contains("- backend web4/b2"),
        "{yes:?}"
    );

    // Back to three, and forward to one: a way back asks, too.
    let one = cli.json("status")?["revision"].clone();
    cli.ok("rollback")?;
    lost(&format!("rollback {one}"), "2 of 3 backends of service web4")?;
    cli.ok(&format!("rollback {one} --yes"))?;
    cli.ok("rollback")?;

    // The service manager's reload fails; SIGHUP, which cannot ask, takes any file that has a service.
    // Another file than the one that was applied above.
    site.daemon
        .write_config(&one_left.replacen("weight = 1", "weight = 2", 1))?;
    lost("reload", "2 of 3 backends of service web4")?;
    ensure!(cli.ok("status")?.contains("2 of 3 backends"));
    site.daemon.signal(libc::SIGHUP)?;
    wait::until_true("SIGHUP takes the file", LIMIT, || {
        Ok(cli.json("backend list web4")?.as_array().map(Vec::len) == Some(1))
    })?;
    ensure!(!cli.ok("status")?.contains("2 of 3 backends"));
    site.daemon.write_config("")?;
    let stderr = cli.fails(1, "reload")?;
    ensure!(
        stderr.contains("no services") && stderr.contains("--allow-empty"),
        "{stderr}"
    );
    cli.ok("reload --allow-empty")?;
    ensure!(cli.json("service list")?.as_array().map(Vec::len) == Some(0));
    Ok(())
}

/// An operator who would rather have no balancer than an old state can say so.
#[test]
fn a_strict_start_refuses_a_file_that_cannot_be_used() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let good = file(std::slice::from_ref(&web));
    let mut site = site.start(&[web])?;
    site.daemon.stop()?;
    site.daemon = site.daemon.args("--strict");
    for (bad, word) in [
        (good.clone() + "rubbish\n", "1 error"),
        (String::new(), "no services"),
    ] {
        site.daemon.write_config(&bad)?;
        let outcome = site.daemon.run_to_end()?;
        ensure!(
            outcome.code == Some(1) && outcome.stderr.contains(word),
            "{outcome:?}"
        );
    }
    site.daemon.write_config(&good)?;
    site.daemon.start()?;
    Ok(())
}
