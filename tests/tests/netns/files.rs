//! A configuration of several files and directories, and waiting until it works.

use std::fs;

use anyhow::{Result, ensure};
use lb_tests::{
    client::http_requests,
    config::file,
    lane::Lane,
    site::{HTTP_PORT, Site},
    topology::{Family, Shape},
};

/// Owners of services keep files of their own; a mistake in one names it, and changes nothing of the others.
#[test]
fn a_directory_of_files_is_one_configuration() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::OneArmed, 2)?;
    let target = site.service_address(Family::V4);
    let web = file(&[site.web(Family::V4, &[1, 1])]);
    let other = "[[service]]\nname = \"other\"\naddress = \"192.0.2.99\"\nport = 1\n";
    let directory = site.daemon.dir().join("conf.d");
    fs::create_dir(&directory)?;
    let write = |name: &str, text: &str| fs::write(directory.join(name), text);
    write("20-web.toml", &web)?;
    write("30-other.toml.disabled", "no toml")?;
    write(".30-other.toml", "no toml either")?;
    let main = site
        .daemon
        .dir()
        .write("main.toml", "version = 1\n[lb]\ntransition = \"7s\"\n")?;
    let both = format!("{} {}", main.display(), directory.display());
    site.daemon = site.daemon.args(&format!(
        "--config {} --config {}",
        main.display(),
        directory.display()
    ));
    site.daemon.start()?;
    let cli = site.daemon.cli();
    let run = |line: &str| cli.run(&line.split(' ').collect::<Vec<_>>());
    http_requests(&site.net.client.ns, target, 20_000, 20, 4)?.ensure_complete(20)?;
    ensure!(cli.ok("export")?.contains("transition = \"7s\""));
    let status = cli.ok("status")?;
    ensure!(
        status.contains("main.toml") && status.contains("conf.d, in force"),
        "{status}"
    );
    ensure!(
        cli.ok(&format!("check-config {both}"))?
            .contains("1 services, 2 backends")
    );

    // One more file is seen before it is loaded, and loaded by name or by reload.
    write("30-other.toml", other)?;
    ensure!(cli.ok("status")?.contains("+ service other"));
    let diff = run(&format!("diff {both} --exit-code"))?;
    ensure!(
        diff.code == Some(10) && diff.stdout.contains("+ service other"),
        "{diff:?}"
    );
    ensure!(cli.ok("reload")?.contains("+ service other"));
    ensure!(cli.ok(&format!("apply {both}"))?.contains("no change"));

    write("40-again.toml", other)?;
    for command in [
        "reload".to_owned(),
        format!("apply {both}"),
        format!("check-config {both}"),
    ] {
        let stderr = cli.fails(1, &command)?;
        ensure!(
            stderr.contains("40-again.toml:2:")
                && stderr.contains("line 2 of")
                && stderr.contains("30-other.toml"),
            "{stderr}"
        );
    }
    fs::remove_file(directory.join("40-again.toml"))?;
    let empty = site.daemon.dir().join("empty");
    fs::create_dir(&empty)?;
    let stderr = cli.fails(1, &format!("apply {}", empty.display()))?;
    ensure!(stderr.contains("no file *.toml"), "{stderr}");

    let migrated = cli.ok(&format!("migrate {both}"))?;
    ensure!(
        migrated.contains("main.toml: nothing to do") && migrated.contains("30-other.toml: rewritten"),
        "{migrated}"
    );
    ensure!(fs::read_to_string(directory.join("30-other.toml"))?.starts_with("version = 1\n"));
    ensure!(cli.ok("reload")?.contains("no change"));
    Ok(())
}

/// A deployment must stop at a backend that does not serve.
#[test]
fn waiting_for_healthy_ends_with_the_verdict_or_in_time() -> Result<()> {
    let _lane = Lane::shared()?;
    let site = Site::new(Shape::OneArmed, 2)?;
    let good = site.net.backends[1].socket(Family::V4, HTTP_PORT);
    let site = site.start(&[])?;
    let cli = site.daemon.cli();
    let run = |line: &str| cli.run(&line.split(' ').collect::<Vec<_>>());
    let bad = std::net::SocketAddr::new(good.ip(), 9);
    let checks = "--check tcp --check-interval 200ms --check-fast-interval 100ms --check-timeout 200ms";
    cli.ok(&format!(
        "service add web --address 192.0.2.77 --port 80 {checks} --wait=healthy"
    ))?;
    let up = run(&format!(
        "backend add web good --address {good} --wait=healthy --timeout 60s"
    ))?;
    ensure!(
        up.code == Some(0) && up.stdout.contains("+ backend web/good"),
        "{up:?}"
    );
    ensure!(cli.backend("web", "good")?["health"] == "up");
    let down = run(&format!(
        "backend add web bad --address {bad} --wait=healthy --timeout 1s"
    ))?;
    ensure!(
        down.code == Some(6)
            && down
                .stderr
                .contains("gave up waiting: web/bad (down: connection refused")
            && down.stderr.contains("lb rollback"),
        "{down:?}"
    );
    // The change is in force, and others do not wait for it.
    cli.ok("backend set web good --weight 7 --wait=healthy --timeout 60s")?;
    let text = cli.ok("export")?.replace("port = 80", "port = 81");
    let file = site.daemon.dir().write("moved.toml", &text)?;
    let stuck = run(&format!("apply {} --wait=healthy --timeout 1s", file.display()))?;
    ensure!(
        stuck.code == Some(6) && stuck.stderr.contains("web/bad"),
        "{stuck:?}"
    );
    cli.ok("backend disable web bad")?;
    cli.ok(&format!("apply {} --wait", file.display()))?;
    Ok(())
}
