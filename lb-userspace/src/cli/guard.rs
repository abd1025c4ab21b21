//! Guards of services in text.

use crate::api::types::Guard;

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
