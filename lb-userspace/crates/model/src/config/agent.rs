//! `[service.agent]` tables.

use super::{
    error::Reporter,
    fields::{self, Fields},
    table::Table,
    values,
};
use crate::health::agent::AgentSettings;

/// Prefix of the keys of an agent table among the keys of a service.
pub const AGENT: &str = "agent.";

/// Reads the table; a wrong key keeps its default.
pub(super) fn read(reporter: &mut Reporter<'_>, mut table: Table<'_>) -> AgentSettings {
    let default = AgentSettings::default();
    let settings = AgentSettings {
        enabled: table.boolean(reporter, "enabled").unwrap_or(default.enabled),
        port: table.number(reporter, "port", values::port),
        send: table
            .text(reporter, "send", |text| Ok(text.to_owned()))
            .unwrap_or(default.send),
        interval: table.duration(reporter, "interval").unwrap_or(default.interval),
        timeout: table.duration(reporter, "timeout").unwrap_or(default.timeout),
    };
    table.finish(reporter);
    settings
}

/// An agent table's keys; none where there is no table.
pub fn fields(settings: Option<&AgentSettings>) -> Fields {
    let Some(AgentSettings {
        enabled,
        port,
        send,
        interval,
        timeout,
    }) = settings
    else {
        return Fields::new();
    };
    let default = AgentSettings::default();
    // Written also at its default: the table may have no other key.
    let mut fields = vec![fields::always("agent.enabled", *enabled)];
    fields.extend(fields::optional("agent.port", port.as_ref(), |port| {
        i64::from(*port).into()
    }));
    fields.push(fields::field("agent.send", send, &default.send, |send| {
        send.as_str().into()
    }));
    fields.push(fields::time("agent.interval", *interval, default.interval));
    fields.push(fields::time("agent.timeout", *timeout, default.timeout));
    fields
}
