//! The keys of the configuration file: name, value, default, meaning and example of each, declared once.
//!
//! The parser reads exactly these keys, an export and a difference write them, and all take from here where the value of each lives
//! ([`Access`]) and which kinds of check have it. `docs/configuration.md` and `docs/example.toml` are generated from here.

mod access;
mod backend;
mod codec;
mod health;
mod key;
mod lb;
mod row;
mod service;

use self::row::{default, number, table};
pub(super) use self::{
    access::Subject,
    codec::quoted,
    health::{MAY_HAVE_TLS, TLS},
};
pub use self::{
    access::{Access, Keys, Lens},
    backend::BACKEND,
    health::{ALSO, CHECK, HEALTH, KINDS, STEP},
    key::{Absent, CliOption, Key, KeyTable, Separated, Shape, Value},
    lb::LB,
    service::{AGENT, CLIENTS, GUARD, QUIC, SERVICE},
};

/// The file itself.
pub const FILE: KeyTable = KeyTable {
    header: "the file",
    prefix: "",
    about: "",
    keys: &[
        default("version", Access::Table, number(1, 1), "1", "Form of the file"),
        table("lb", Access::Table, &LB, "Settings of the balancer as a whole"),
        table("service", Access::Table, &SERVICE, "Services; one table for each"),
    ],
};

/// Every table with a header of its own, in the order of the documents.
pub const TABLES: [&KeyTable; 9] = [
    &LB, &SERVICE, &GUARD, &HEALTH, &ALSO, &AGENT, &CLIENTS, &QUIC, &BACKEND,
];
