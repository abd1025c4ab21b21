//! Families of the maps.

use std::time::Instant;

use lb_common::map_names;

use super::text::{Kind, Text};
use crate::control::Observation;

pub(super) fn render(text: &mut Text, seen: &Observation, now: Instant) {
    let is_flows = |name: &str| map_names::OF_FLOWS.contains(&name);
    let mut family = text.family(
        "lb_flows",
        Kind::Gauge,
        "Entries of a flow table, two for each NAT flow",
    );
    for map in seen.maps.iter().filter(|map| is_flows(map.name)) {
        family.sample(&[("map", map.name)], map.entries);
    }
    // Before the first sweep there is neither.
    if let Some(at) = seen.flows_counted_at {
        text.family(
            "lb_sweep_age_seconds",
            Kind::Gauge,
            "Time since the last finished sweep of the flow tables began",
        )
        .sample(&[], now.saturating_duration_since(at).as_secs_f64());
        text.family(
            "lb_sweep_duration_seconds",
            Kind::Gauge,
            "Time that this sweep took",
        )
        .sample(&[], seen.flows_counted_in.as_secs_f64());
    }
    let mut family = text.family("lb_map_entries", Kind::Gauge, "Entries of a map in use");
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.entries);
    }
    let mut family = text.family(
        "lb_map_capacity",
        Kind::Gauge,
        "Largest number of entries of a map",
    );
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.capacity);
    }
    let mut family = text.family(
        "lb_map_update_errors_total",
        Kind::Counter,
        "Writes to a map that failed",
    );
    for map in &seen.maps {
        family.sample(&[("map", map.name)], map.update_errors);
    }
}
