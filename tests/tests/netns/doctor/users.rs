//! How `lb doctor` ends and what it says where it cannot see all: exit codes, JSON, ordinary users, other versions, wrong names.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::file,
    lane::Lane,
    lb_cli::{LbCli, lb_binary},
    site::Site,
    topology::{Family, Shape},
};
use serde_json::Value;

use super::{Patient, config};

#[test]
fn exit_codes_and_the_shape_of_json_stay() -> Result<()> {
    let _lane = Lane::shared()?;
    let patient = Patient::new()?;
    let service = |address: &str| -> Result<String> { Ok(config(&[patient.service(address)?])) };
    let nope = "[lb]\ninterfaces = [\"nope\"]\n".to_owned();
    for (name, config, code, level) in [
        ("well", service("192.0.2.1")?, 0, "ok"),
        ("a warning", service("10.1.0.100")?, 10, "warn"),
        ("a failure", nope, 1, "fail"),
    ] {
        let path = patient.dir.write("lb.toml", &config)?;
        let output = patient
            .lb()
            .command(lb_binary()?)
            .args(["-o", "json", "--socket"])
            .arg(patient.dir.join("no.sock"))
            .args(["doctor", "--config"])
            .arg(path)
            .output()?;
        ensure!(output.status.code() == Some(code), "{name}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let keys = |value: &Value| -> Result<Vec<String>> {
            let mut keys: Vec<String> = value.as_object().context("no object")?.keys().cloned().collect();
            keys.sort();
            Ok(keys)
        };
        ensure!(keys(&report)? == ["findings", "level"], "{name}: {report}");
        ensure!(report["level"] == level, "{name}: {report}");
        for finding in report["findings"].as_array().context("no findings")? {
            ensure!(
                keys(finding)? == ["check", "do", "level", "message", "subject"],
                "{name}: {finding}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_ordinary_user_and_a_wrong_name_are_told_what_to_do() -> Result<()> {
    let _lane = Lane::shared()?;
    let mut site = Site::new(Shape::TwoArmed, 1)?;
    let web = site.web(Family::V4, &[1]);
    let vip: SocketAddr = site.service_address(Family::V4);
    site.daemon = site.daemon.config(&file(&[web]))?;
    site.daemon.start()?;
    let lb = site.net.lb.ns.clone();

    // The socket is not for everybody.
    let user = LbCli::new(&lb, &site.daemon.socket()).run_by(65_534, &[65_534]);
    let outcome = user.run(&["doctor"])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(outcome.stdout.contains("ermission denied"), "{outcome:?}");
    ensure!(outcome.stdout.contains("sudo"), "{outcome:?}");

    let cli = site.daemon.cli();
    let outcome = cli.run(&["doctor", "--iface", "nope"])?;
    ensure!(outcome.code == Some(1), "{outcome:?}");
    ensure!(
        outcome.stdout.contains("nope: no such interface; there are"),
        "{outcome:?}"
    );
    let outcome = cli.run(&["doctor", "--vip", "10.1.0.200"])?;
    ensure!(outcome.code == Some(10), "{outcome:?}");
    ensure!(
        outcome.stdout.contains("no service has 10.1.0.200"),
        "{outcome:?}"
    );
    let outcome = cli.run(&["doctor", "--vip", &vip.ip().to_string()])?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    Ok(())
}
