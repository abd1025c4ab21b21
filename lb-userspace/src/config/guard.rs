//! `[service.guard]` tables.

use toml::Value;

use super::{
    error::Reporter,
    fields::{self, Fields},
    table::Table,
    values::ValueError,
};
use crate::state::guard::{Guard, Prefix, PrefixError};

/// What keys of a guard table begin with, among those of a service.
pub const GUARD: &str = "guard.";

/// Reads the table; what is wrong keeps its default.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> Guard {
    let default = Guard::default();
    let allow = table.list(reporter, "allow", prefix, false);
    let deny = table.list(reporter, "deny", prefix, false);
    table.finish(reporter);
    Guard {
        allow: allow.unwrap_or(default.allow),
        deny: deny.unwrap_or(default.deny),
    }
}

/// A guard table's keys. All are at their default if the table can be left out.
pub fn fields(guard: &Guard) -> Fields {
    let default = Guard::default();
    let Guard { allow, deny } = guard;
    let list = |prefixes: &Vec<Prefix>| -> Value { fields::texts(prefixes) };
    vec![
        fields::field("guard.allow", allow, &default.allow, list),
        fields::field("guard.deny", deny, &default.deny, list),
    ]
}

/// A prefix of clients' addresses.
fn prefix(text: &str) -> Result<Prefix, ValueError> {
    text.parse().map_err(|error: PrefixError| {
        let hint = match &error {
            PrefixError::Malformed(_) => {
                "for example \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned()
            }
            PrefixError::TooLong { most, .. } => format!("from 0 to {most}"),
            PrefixError::Mapped(_) => "write the IPv4 address itself".to_owned(),
            PrefixError::HostBits { meant, .. } => format!("write \"{meant}\""),
        };
        ValueError::new(error.to_string(), hint)
    })
}
