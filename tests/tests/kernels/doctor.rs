//! What `lb doctor` says about devices that not every kernel has.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::{
    config::{Service, file},
    lane::Lane,
    lb_cli::lb_binary,
    scratch::Scratch,
    topology::{Family, Shape, Topology},
};
use serde_json::Value;

use super::PORT;

/// Of a device on the balancer's link.
const VLAN: u16 = 10;

/// Devices that not every kernel has: VLANs, and bonds, which join received packets.
#[test]
fn what_drivers_do_to_frames_is_recognised_and_mended_by_the_remedies() -> Result<()> {
    let _lane = Lane::shared()?;
    let net = Topology::new(Shape::OneArmed, 1)?;
    let lb = &net.lb.ns;
    let dir = Scratch::new()?;
    let diagnose = |interface: &str, services: &[Service]| -> Result<Vec<Value>> {
        let config = format!("[lb]\ninterfaces = [\"{interface}\"]\n{}", file(services));
        let config = dir.write("lb.toml", config)?;
        let output = lb
            .command(lb_binary()?)
            .args(["-o", "json", "--socket", "/no.sock", "doctor", "--config"])
            .arg(config)
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        report["findings"].as_array().context("no findings").cloned()
    };
    let found = |findings: &[Value], check: &str, level: &str, words: &str| -> Result<String> {
        let mut all = findings.iter();
        let finding = all.find(|finding| finding["check"] == check && finding["level"] == level);
        let finding = finding.with_context(|| format!("no {level} of {check}: {findings:#?}"))?;
        ensure!(
            finding.to_string().contains(words),
            "{words:?} is not in {finding}"
        );
        Ok(finding["do"][0].as_str().context("no remedy")?.to_owned())
    };
    let is_gone = |findings: &[Value], check: &str| -> Result<()> {
        ensure!(
            findings.iter().all(|finding| finding["check"] != check),
            "mended: {findings:#?}"
        );
        Ok(())
    };

    // The shell there has an `ip` of its own.
    let carry_out = |command: &str| -> Result<()> {
        let words: Vec<&str> = command.split(' ').collect();
        lb.run(words[0], &words[1..]).map(drop)
    };
    lb.ip(&format!(
        "link add link eth0 name vlan type vlan id {VLAN}\nlink set vlan up"
    ))?;
    net.middle.run("ethtool", &["-K", "lb", "txvlan", "on"])?;
    let mends = found(&diagnose("eth0", &[])?, "rx_vlan", "warn", "those of vlan apart")?;
    carry_out(&mends)?;
    is_gone(&diagnose("eth0", &[])?, "rx_vlan")?;

    lb.ip("link add bond9 type bond\nlink set bond9 up")?;
    lb.run("ethtool", &["-K", "bond9", "lro", "on"])?;
    let mends = found(&diagnose("bond9", &[])?, "lro", "warn", "joins packets")?;
    carry_out(&mends)?;
    is_gone(&diagnose("bond9", &[])?, "lro")?;

    // The program puts on two tags at most.
    lb.ip(
        "link add link vlan name vlan2 type vlan id 2\nlink add link vlan2 name vlan3 type vlan id 3\n\
         link set vlan2 up\nlink set vlan3 up\naddr add 10.11.0.1/24 dev vlan3",
    )?;
    let web = Service::tcp("web", SocketAddr::new(net.vip(Family::V4, 1), PORT));
    let web = web.backend("b0", "10.11.0.10:8080".parse()?, 1);
    found(&diagnose("eth0", &[web])?, "path", "fail", "at most two VLANs").map(drop)
}
