//! `[service.guard]` tables.

use toml::Value;

use super::{
    error::Reporter,
    fields::{self, Fields},
    table::Table,
    values,
};
use crate::state::guard::{Guard, Prefix, Rate};

/// Prefix of the keys of a guard table among the keys of a service.
pub const GUARD: &str = "guard.";

/// Reads the table; a wrong key keeps its default.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> Guard {
    let default = Guard::default();
    let allow = table.list(reporter, "allow", values::prefix, false);
    let deny = table.list(reporter, "deny", values::prefix, false);
    let mut rate = |per_second, burst| Rate {
        per_second: table
            .number(reporter, per_second, values::count)
            .unwrap_or_default(),
        burst: table.number(reporter, burst, values::count).unwrap_or_default(),
    };
    let new_flows = rate("new_flows", "new_flows_burst");
    let source_new_flows = rate("source_new_flows", "source_new_flows_burst");
    let source_bits = table.number(reporter, "source_bits", values::count);
    table.finish(reporter);
    Guard {
        allow: allow.unwrap_or(default.allow),
        deny: deny.unwrap_or(default.deny),
        new_flows,
        source_new_flows,
        source_bits: source_bits.unwrap_or(default.source_bits),
    }
}

/// A guard table's keys. All are at their default if the table can be left out.
pub fn fields(guard: &Guard) -> Fields {
    let default = Guard::default();
    let Guard {
        allow,
        deny,
        new_flows,
        source_new_flows,
        source_bits,
    } = guard;
    let none = Rate::default();
    let list = |prefixes: &Vec<Prefix>| -> Value { fields::texts(prefixes) };
    vec![
        fields::field("guard.allow", allow, &default.allow, list),
        fields::field("guard.deny", deny, &default.deny, list),
        fields::number("guard.new_flows", new_flows.per_second, none.per_second),
        fields::number("guard.new_flows_burst", new_flows.burst, none.burst),
        fields::number(
            "guard.source_new_flows",
            source_new_flows.per_second,
            none.per_second,
        ),
        fields::number("guard.source_new_flows_burst", source_new_flows.burst, none.burst),
        fields::number("guard.source_bits", *source_bits, default.source_bits),
    ]
}
