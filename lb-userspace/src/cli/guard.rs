//! Flags about the guard of a service.

use clap::Args;

use super::help::{help, remark};
use crate::{api::types::Guard, config::keys, spec::GuardSpec};

/// Stands for an empty list.
const NONE: &str = "none";

/// Options of `lb service add` and `lb service set` for ACLs and rate limits.
#[derive(Args, Debug)]
pub(super) struct GuardOptions {
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', help = remark(help(&keys::GUARD, "allow"), "none: no list"))]
    allow: Option<Vec<String>>,
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', help = remark(help(&keys::GUARD, "deny"), "none: no list"))]
    deny: Option<Vec<String>>,
    #[arg(long, value_name = "N", help = help(&keys::GUARD, "new_flows"))]
    new_flows: Option<u32>,
    #[arg(long, value_name = "N", help = help(&keys::GUARD, "new_flows_burst"))]
    new_flows_burst: Option<u32>,
    #[arg(long, value_name = "N", help = help(&keys::GUARD, "source_new_flows"))]
    source_new_flows: Option<u32>,
    #[arg(long, value_name = "N", help = help(&keys::GUARD, "source_new_flows_burst"))]
    source_new_flows_burst: Option<u32>,
    #[arg(long, value_name = "BITS", help = help(&keys::GUARD, "source_bits"))]
    source_bits: Option<u8>,
}

impl GuardOptions {
    /// The given settings, if any.
    pub(super) fn spec(self) -> Option<GuardSpec> {
        let Self {
            allow,
            deny,
            new_flows,
            new_flows_burst,
            source_new_flows,
            source_new_flows_burst,
            source_bits,
        } = self;
        let spec = GuardSpec {
            allow: allow.map(list),
            deny: deny.map(list),
            new_flows,
            new_flows_burst,
            source_new_flows,
            source_new_flows_burst,
            source_bits,
        };
        (spec != GuardSpec::default()).then_some(spec)
    }
}

fn list(prefixes: Vec<String>) -> Vec<String> {
    if prefixes == [NONE] { Vec::new() } else { prefixes }
}

/// ACLs and rate limits of a service, a line for each setting, as `lb service show` prints them.
pub(super) fn lines(guard: &Guard) -> Vec<(&'static str, String)> {
    let Guard {
        allow,
        deny,
        new_flows,
        new_flows_burst,
        source_new_flows,
        source_new_flows_burst,
        source_bits: _,
    } = guard;
    let mut lines = Vec::new();
    for (name, prefixes) in [("allow", allow), ("deny", deny)] {
        if !prefixes.is_empty() {
            lines.push((name, prefixes.join(", ")));
        }
    }
    for (name, rate, burst) in [
        ("new flows", new_flows, new_flows_burst),
        ("by source", source_new_flows, source_new_flows_burst),
    ] {
        if *rate != 0 {
            let burst = if *burst == 0 { rate } else { burst };
            lines.push((name, format!("at most {rate} a second, {burst} at once")));
        }
    }
    lines
}
