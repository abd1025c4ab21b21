//! Changes of all ways that show where time goes: `LB_TRY=pass,frames cargo xtask bench throughput`.

use std::env;

use anyhow::{Result, bail};
use lb_tests::{netns::Netns, topology::Topology, xdp_pass::PassProgram};
use serde_json::Value;

use crate::ways::Way;

/// Names what is tried.
pub(crate) const TRY: &str = "LB_TRY";
/// What there is to try.
const ALL: [&str; 4] = [PASS, GENERIC_DECAP, GRO, FRAMES];
/// Plain forwarding and nftables, too, get XDP programs where the balancer has its own, which pass everything.
const PASS: &str = "pass";
/// Tunnels end in generic mode.
const GENERIC_DECAP: &str = "generic-decap";
/// Servers and the client join what they receive.
const GRO: &str = "gro";
/// Frames of [`MTU`] bytes.
const FRAMES: &str = "frames";
const MTU: u32 = 9_000;

/// What is tried in this run.
#[derive(Clone, Copy)]
pub(crate) struct Tries {
    passes: bool,
    pub(crate) has_generic_decap: bool,
    has_gro: bool,
    has_large_frames: bool,
}

impl Tries {
    /// By the environment.
    ///
    /// # Errors
    /// With a word that is none of them.
    pub(crate) fn read() -> Result<Self> {
        let text = env::var(TRY).unwrap_or_default();
        let words: Vec<&str> = text.split(',').filter(|word| !word.is_empty()).collect();
        if let Some(word) = words.iter().find(|word| !ALL.contains(word)) {
            bail!("{TRY}: no {word:?}; there are: {}", ALL.join(", "));
        }
        Ok(Self {
            passes: words.contains(&PASS),
            has_generic_decap: words.contains(&GENERIC_DECAP),
            has_gro: words.contains(&GRO),
            has_large_frames: words.contains(&FRAMES),
        })
    }

    /// Changes the machines of a way, before anything runs on them. The programs go with what is given.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn change(self, way: Way, net: &Topology) -> Result<Vec<PassProgram>> {
        if self.has_large_frames {
            let servers = net.backends.iter().map(|host| &host.ns);
            for ns in servers.chain([&net.client.ns, &net.lb.ns, &net.middle]) {
                set_mtu(ns)?;
            }
        }
        let ends = net.backends.iter().chain([&net.client]);
        for host in ends.filter(|_| self.has_gro) {
            host.ns.run("ethtool", &["-K", "eth0", "gro", "on"])?;
        }
        let is_kernel = matches!(way, Way::Direct | Way::DirectReturn | Way::Numgen | Way::Jhash);
        if !self.passes || !is_kernel {
            return Ok(Vec::new());
        }
        let balancer = net.lb_interfaces().iter().map(|device| (&net.lb.ns, *device));
        let servers = net.backends.iter().map(|host| (&host.ns, "eth0"));
        balancer
            .chain(servers.filter(|_| way == Way::DirectReturn))
            .map(|(ns, device)| PassProgram::attach(ns, device))
            .collect()
    }
}

/// Lets all devices of a machine take large frames.
fn set_mtu(ns: &Netns) -> Result<()> {
    let links: Vec<Value> = serde_json::from_str(&ns.run("ip", &["-j", "link"])?)?;
    let names = links.iter().filter_map(|link| link["ifname"].as_str());
    // A bridge after its ports, which bound it.
    let (bridges, others): (Vec<&str>, Vec<&str>) = names
        .filter(|name| *name != "lo")
        .partition(|name| *name == "br0");
    for name in others.into_iter().chain(bridges) {
        ns.ip(&format!("link set {name} mtu {MTU}"))?;
    }
    Ok(())
}
