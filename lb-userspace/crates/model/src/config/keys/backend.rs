//! Keys of `[[service.backend]]`.

use lb_common::service::Mode;

use super::{
    access::{Access, Lens, field, option, written},
    codec::{BACKEND_NAME, BOOL, GROUP, MOMENT, PORT_NUMBER, SERVER_IDS, WEIGHT, quoted, word},
    key::{KeyTable, Separated},
    row::{BOOLEAN, PORT, TEXT, default, described, number, one_of, optional, required, texts},
};
use crate::{
    config::values,
    state::backend::{Admin, Backend},
};

/// `[[service.backend]]`.
pub const BACKEND: KeyTable = KeyTable {
    header: "[[service.backend]]",
    prefix: "",
    about: "A backend: a server that takes flows of the service.",
    keys: &[
        required("name", written!(Backend: |backend: &Backend| Some(quoted(&backend.name))), TEXT, "\"web-1\"", "Name of the backend, unique within the service").without_option(),
        required(
            "address", written!(Backend: |backend: &Backend| Some(quoted(backend.address))),
            described("IP address, with or without a port, or host name with a port", "IP[:PORT]"),
            "\"10.0.0.11:8080\"",
            "Where packets go",
        )
        .checked(|text| values::backend_ip(text).map(drop))
        .more(
            "Without a port, or with port 0, packets keep theirs: for services on port 0, or with several ports. A host name \
             (`\"app.example.org:8080\"`) is looked up for as long as the daemon runs, and each of its addresses is a backend with \
             the values of this table: [operations.md](operations.md#backends-by-host-name).",
        ),
        default(
            "weight", field!(Backend.weight = WEIGHT),
            number(0, 65_535),
            "100",
            "Share of new flows, relative to the other backends; 0 takes none",
        ),
        optional("mode", option!(Backend.mode = word()), one_of::<Mode>(), ("the service's mode", "\"nat\""), "Mode of this backend"),
        default(
            "backup", field!(Backend.backup = BOOL),
            BOOLEAN,
            "false",
            "Take new flows only while fewer other backends can than backup_below",
        ),
        optional(
            "group", option!(Backend.group = GROUP),
            TEXT,
            ("no group", "\"near\""),
            "Group that the backend is of",
        )
        .takes("GROUP")
        .removed_by_empty()
        .more("A `[[service.clients]]` table leads clients to it. Other clients go to the backends of groups that no such table names."),
        optional(
            "agent_port", option!(Backend.agent_port = PORT_NUMBER),
            PORT,
            ("`port` of `[service.agent]`", "9708"),
            "Port of its agent; 0: it has none",
        ),
        default(
            "server_ids", field!(Backend.server_ids = SERVER_IDS),
            texts("list of hexadecimal texts", "HEX", Separated::ByOptions),
            "[]",
            "Server ids by which QUIC connection ids name it",
        )
        .option("server_id"),
        default("admin", field!(Backend.admin = word()), one_of::<Admin>(), "\"enabled\"", "State that the operator wants").without_option().more(
            "`draining`: no new flows. `disabled`: no flows at all.",
        ),
        optional(
            "drain_until", option!(Backend.drain_until = MOMENT),
            described("time (RFC 3339, UTC)", "TIME"),
            ("never", "\"2030-01-31T12:00:00Z\""),
            "When a drain ends and the backend is disabled",
        )
        .without_option()
        .more("Needs `admin = \"draining\"`."),
        optional(
            "discovered_by", option!(Backend.discovered_by = BACKEND_NAME),
            TEXT,
            ("the backend is written by hand", "\"app\""),
            "The backend with a host name that this one is an address of",
        )
        .of_file()
        .more("Written by `lb export`: a daemon that starts with it has backends before the name is looked up."),
    ],
};
