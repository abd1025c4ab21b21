//! `lb decap`

use std::{path::PathBuf, time::Duration};

use clap::Args;
use ipnet::IpNet;
use lb_common::tunnel::GUE_PORT;
use serde::Serialize;

use super::{
    error::{CliError, Exit},
    output::{Context, remark},
    whole_number::whole_number,
};
use crate::{
    app,
    chain::chain,
    config::{daemon::OnExit, values},
    datapath::{DEFAULT_PIN_DIR, DatapathError, Decap as Running, DecapOptions},
    state::xdp_mode::XdpModeChoice,
};

/// Time between two looks at the program.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(super) struct Decap {
    /// Interface that tunnels arrive on
    #[arg(long = "iface", value_name = "IFACE", value_parser = values::interface)]
    interface: String,
    /// Addresses or prefixes of the balancers, or their tunnel_sources; may be given several times
    #[arg(long = "from", value_name = "PREFIX", required = true, value_parser = prefix)]
    sources: Vec<IpNet>,
    /// UDP port of GUE packets: the balancers' gue_port
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT, value_parser = whole_number::<u16>(1..=65_535))]
    gue_port: u16,
    /// auto, native or generic
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = values::word::<XdpModeChoice>)]
    xdp_mode: XdpModeChoice,
    /// Directory in which the program is pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
    /// What happens to the program at the end: detach, keep
    #[arg(long, value_name = "WHAT", default_value = "detach", value_parser = values::word::<OnExit>)]
    on_exit: OnExit,
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
            pin_dir: self.pin_dir,
        };
        let mut running = Some(Running::open(&options).map_err(|error| failed(&error))?);
        if let Some(running) = &running {
            greet(running, &options, self.on_exit);
        }
        let mut missing = false;
        app::work_until_end(LOOK_EVERY, || keep(&mut running, &options, &mut missing))
            .map_err(|e| CliError::new(Exit::Failed, format!("cannot wait for signals: {e}")))?;
        let Some(running) = running else {
            return Ok(());
        };
        let outcomes = running.outcomes().map_err(|error| failed(&error))?;
        let packets = outcomes
            .into_iter()
            .map(|(outcome, count)| (outcome.name(), count));
        match self.on_exit {
            OnExit::Detach => running.detach().map_err(|error| failed(&error))?,
            OnExit::Keep => drop(running),
        }
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

fn greet(running: &Running, options: &DecapOptions, on_exit: OnExit) {
    let list = |addresses: &[String]| addresses.join(", ");
    let at: Vec<String> = running.addresses().iter().map(ToString::to_string).collect();
    let from: Vec<String> = options.sources.iter().map(ToString::to_string).collect();
    let took_over = if running.took_over() {
        ", taken over from the last command"
    } else {
        ""
    };
    let end = match on_exit {
        OnExit::Detach => "Ctrl-C ends it.",
        OnExit::Keep => "Ctrl-C ends the command; the program goes on until `lb detach`.",
    };
    remark(&format!(
        "lb decap on {}, XDP {}{took_over}: IPIP and GUE (port {}) from {} to {}\n{end}",
        options.interface,
        running.mode().name(),
        options.gue_port,
        list(&from),
        list(&at)
    ));
}

/// Attaches the program again where its interface was recreated or the program was removed.
fn keep(running: &mut Option<Running>, options: &DecapOptions, missing: &mut bool) {
    if let Some(there) = running {
        match there.look() {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                remark(&format!("lb decap: {}", chain(&error)));
                return;
            }
        }
    }
    // The next attempt needs the lock; the pin of a program that was replaced is taken over.
    drop(running.take());
    match Running::open(options) {
        Ok(back) => {
            remark(&format!(
                "lb decap: attached to {} again, XDP {}",
                options.interface,
                back.mode().name()
            ));
            *running = Some(back);
            *missing = false;
        }
        Err(error) if !std::mem::replace(missing, true) => {
            remark(&format!(
                "lb decap: {} has no program: {}; retrying",
                options.interface,
                chain(&error)
            ));
        }
        Err(_) => {}
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
