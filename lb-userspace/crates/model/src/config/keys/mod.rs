//! The keys of the configuration file: name, value, default, meaning and example of each, declared once.
//!
//! The parser reads exactly these keys, an export and a difference write them, and all take from here where the value of each lives
//! ([`Access`]) and which kinds of check have it. `docs/configuration.md` and `docs/example.toml` are generated from here.

mod access;
mod codec;
mod health;
mod lb;
mod service;

pub(super) use self::{
    access::Subject,
    codec::quoted,
    health::{MAY_HAVE_TLS, TLS},
};
pub use self::{
    access::{Access, Keys, Lens},
    health::{ALSO, CHECK, HEALTH, KINDS, STEP},
    lb::LB,
    service::{AGENT, BACKEND, CLIENTS, GUARD, QUIC, SERVICE},
};
use crate::state::words::Word;

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Where its value lives.
    pub access: Access,
    /// The values that it takes.
    pub value: Value,
    /// The meaning of an absent key.
    pub absent: Absent,
    /// Its meaning in one line: lower case words follow an initial capital, no full stop.
    pub help: &'static str,
    /// Further sentences for the reference; may be empty.
    pub more: &'static str,
    /// Kinds of check that have the key; empty: all of them, and every other table.
    pub kinds: &'static [&'static str],
}

/// Values that a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// As described.
    Is(&'static str),
    /// One of these words.
    OneOf(fn() -> Vec<&'static str>),
    /// A table or tables of this header.
    Tables(&'static str),
}

/// The meaning of an absent key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// It may not be absent; an example value in TOML.
    Required(&'static str),
    /// The default, in TOML.
    Default(&'static str),
    /// The default in words, and an example value in TOML.
    Otherwise(&'static str, &'static str),
}

/// The keys of one table.
#[derive(Clone, Copy, Debug)]
pub struct KeyTable {
    /// How the table is named in messages: its header, where it has one.
    pub header: &'static str,
    /// Stands before the keys in a difference; the tables of a service that have no name of their own have one.
    pub prefix: &'static str,
    /// The purpose of the table.
    pub about: &'static str,
    /// Its keys, in the order of the documents.
    pub keys: &'static [Key],
}

impl KeyTable {
    /// The key of a name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The file itself.
pub const FILE: KeyTable = KeyTable {
    header: "the file",
    prefix: "",
    about: "",
    keys: &[
        table(
            "lb",
            Access::Table,
            LB.header,
            "Settings of the balancer as a whole",
        ),
        table(
            "service",
            Access::Table,
            SERVICE.header,
            "Services; one table for each",
        ),
    ],
};

/// Every table with a header of its own, in the order of the documents.
pub const TABLES: [&KeyTable; 9] = [
    &LB, &SERVICE, &GUARD, &HEALTH, &ALSO, &AGENT, &CLIENTS, &QUIC, &BACKEND,
];

/// A required key.
const fn required(
    name: &'static str,
    access: Access,
    value: Value,
    example: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Required(example), help)
}

/// A key with a default value.
const fn default(
    name: &'static str,
    access: Access,
    value: Value,
    default: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Default(default), help)
}

/// An optional key whose absence means none of its values.
const fn optional(
    name: &'static str,
    access: Access,
    value: Value,
    (otherwise, example): (&'static str, &'static str),
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Otherwise(otherwise, example), help)
}

/// A key that holds tables.
const fn table(name: &'static str, access: Access, header: &'static str, help: &'static str) -> Key {
    new(
        name,
        access,
        Value::Tables(header),
        Absent::Otherwise("none", ""),
        help,
    )
}

const fn new(name: &'static str, access: Access, value: Value, absent: Absent, help: &'static str) -> Key {
    Key {
        name,
        access,
        value,
        absent,
        help,
        more: "",
        kinds: &[],
    }
}

impl Key {
    const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    const fn of(mut self, kinds: &'static [&'static str]) -> Self {
        self.kinds = kinds;
        self
    }
}

/// One of the words of a type.
const fn one_of<W: Word>() -> Value {
    Value::OneOf(|| W::WORDS.iter().map(|(_, word)| *word).collect())
}

const BOOLEAN: Value = Value::Is("`true` or `false`");
const DURATION: Value = Value::Is("duration, up to `1d`");
const TEXT: Value = Value::Is("text");
const PORT: Value = Value::Is("0 to 65535");
const ADDRESS: Value = Value::Is("IP address");
const PREFIXES: Value = Value::Is("list of prefixes");
const NUMBER: Value = Value::Is("0 to 4294967295");
const REGEX: Value = Value::Is("regular expression");
const FILE_PATH: Value = Value::Is("path of a file");
const ABSOLUTE: Value = Value::Is("absolute path");
