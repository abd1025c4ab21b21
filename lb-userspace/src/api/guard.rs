//! Guards of services in the API's words.

use super::types;
use crate::state::guard::{Guard, Prefix};

/// A guard as it is shown.
pub(super) fn shown(guard: &Guard) -> types::Guard {
    let Guard {
        allow,
        deny,
        new_flows,
        source_new_flows,
        source_bits,
    } = guard;
    let texts = |prefixes: &[Prefix]| prefixes.iter().map(ToString::to_string).collect();
    types::Guard {
        allow: texts(allow),
        deny: texts(deny),
        new_flows: new_flows.per_second,
        new_flows_burst: new_flows.burst,
        source_new_flows: source_new_flows.per_second,
        source_new_flows_burst: source_new_flows.burst,
        source_bits: *source_bits,
    }
}
