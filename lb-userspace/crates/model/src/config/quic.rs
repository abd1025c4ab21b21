//! `[[service.quic]]` tables.

use super::{
    error::Reporter,
    keys,
    table::{Spans, Table},
    values,
};
use crate::state::{desired::Desired, quic::QuicSettings};

/// Default bytes of a nonce: together with a server id of 8 bytes, one block of AES.
pub const DEFAULT_NONCE_LENGTH: u8 = 8;

/// Reads the tables with their positions, in the order of their ids. Leaves out tables without a required key.
pub(super) fn read(
    reporter: &mut Reporter<'_>,
    service: &mut Table<'_>,
    known: &Desired,
) -> (Vec<QuicSettings>, Vec<Spans>) {
    let mut tables: Vec<(QuicSettings, Spans)> = Vec::new();
    for (table, span) in service.tables(reporter, "quic", keys::QUIC.header) {
        let table = Table::new(table, span, keys::QUIC.header);
        let spans = table.spans();
        tables.extend(one(reporter, table, known).map(|settings| (settings, spans)));
    }
    tables.sort_by_key(|(settings, _)| settings.config_id);
    tables.into_iter().unzip()
}

fn one(reporter: &mut Reporter<'_>, mut table: Table<'_>, known: &Desired) -> Option<QuicSettings> {
    table.require(reporter, "config_id", "0");
    table.require(reporter, "server_id_length", "8");
    let config_id = table.number(reporter, "config_id", values::count);
    let server_id_length = table.number(reporter, "server_id_length", values::count);
    let mut settings = QuicSettings {
        config_id: config_id.unwrap_or_default(),
        server_id_length: server_id_length.unwrap_or_default(),
        nonce_length: DEFAULT_NONCE_LENGTH,
        key: None,
    };
    keys::QUIC.read(&mut settings, &mut table, reporter, known);
    table.finish(reporter);
    (config_id.is_some() && server_id_length.is_some()).then_some(settings)
}
