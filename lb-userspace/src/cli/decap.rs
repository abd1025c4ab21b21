//! `lb decap`

use clap::Args;
use ipnet::IpNet;
use lb_common::tunnel::GUE_PORT;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::{Context, remark},
};
use crate::{
    app,
    config::{daemon, values},
    control::chain,
    datapath::{DatapathError, Decap as Running, DecapOptions, XdpModeChoice},
};

#[derive(Args, Debug)]
pub(super) struct Decap {
    /// Interface that tunnels arrive on
    #[arg(long = "iface", value_name = "IFACE", value_parser = daemon::interface)]
    interface: String,
    /// Where balancers send from: their addresses, or their tunnel_sources; may be given several times
    #[arg(long = "from", value_name = "PREFIX", required = true, value_parser = prefix)]
    sources: Vec<IpNet>,
    /// UDP port of GUE packets: the balancers' gue_port
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// auto, native or generic
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = values::word::<XdpModeChoice>)]
    xdp_mode: XdpModeChoice,
}

/// With `-o json`, at the end.
#[derive(Serialize)]
struct Packets {
    packets: std::collections::BTreeMap<&'static str, u64>,
}

impl Decap {
    pub(super) fn execute(self, context: &Context) -> Result<(), CliError> {
        let options = DecapOptions {
            interface: self.interface,
            xdp_mode: self.xdp_mode,
            sources: self.sources,
            gue_port: self.gue_port,
        };
        let running = Running::open(&options).map_err(|error| failed(&error))?;
        let list = |addresses: &[String]| addresses.join(", ");
        let at: Vec<String> = running.addresses().iter().map(ToString::to_string).collect();
        let from: Vec<String> = options.sources.iter().map(ToString::to_string).collect();
        remark(&format!(
            "lb decap on {}, XDP {}: IPIP and GUE (port {}) from {} to {}\nCtrl-C ends it.",
            options.interface,
            running.mode().name(),
            options.gue_port,
            list(&from),
            list(&at)
        ));
        app::wait_for_end()
            .map_err(|e| CliError::new(Exit::Failed, format!("cannot wait for signals: {e}")))?;
        let outcomes = running.outcomes().map_err(|error| failed(&error))?;
        let packets = outcomes
            .into_iter()
            .map(|(outcome, count)| (outcome.name(), count));
        context.show(
            &Packets {
                packets: packets.collect(),
            },
            |Packets { packets }| {
                packets
                    .iter()
                    .map(|(name, count)| format!("{name} {count}\n"))
                    .collect()
            },
        )
    }
}

fn failed(error: &DatapathError) -> CliError {
    let failed = CliError::new(Exit::Failed, format!("cannot decapsulate: {}", chain(error))).by_daemon();
    match error.hint() {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// A prefix, or an address that stands for itself.
fn prefix(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)))
        .map_err(|_| "write an address or a prefix, for example 10.0.0.0/24".to_owned())
}
