//! A key of the configuration file, and the tables of keys.

use super::{
    access::{Access, Keys, Subject},
    codec::Input,
};
use crate::{
    config::{error::Reporter, table::Table},
    state::{desired::Desired, words::Word},
};

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

    /// Reads the values of `subject`; a wrong one stays as it is.
    pub(in crate::config) fn read(
        &self,
        subject: &mut impl Subject,
        table: &mut Table<'_>,
        reporter: &mut Reporter<'_>,
        known: &Desired,
    ) {
        for key in self.keys {
            let mut input = Input {
                table: &mut *table,
                reporter: &mut *reporter,
                key: key.name,
                known,
            };
            subject.read(&key.access, &mut input);
        }
    }

    /// The keys of `subject` with their values in TOML, in the order of the table.
    pub(in crate::config) fn written(
        &self,
        subject: &impl Subject,
        keys: Keys,
    ) -> impl Iterator<Item = (&'static Key, String)> {
        let value = move |key: &'static Key| Some((key, subject.write(&key.access, keys)?));
        self.keys.iter().filter_map(value)
    }
}

impl Key {
    /// Whether the value, in TOML, is the default, so that the key can be left out.
    pub(in crate::config) fn is_default(&self, value: &str) -> bool {
        matches!(self.absent, Absent::Default(default) if default == value)
    }
}

/// A required key.
pub(super) const fn required(
    name: &'static str,
    access: Access,
    value: Value,
    example: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Required(example), help)
}

/// A key with a default value.
pub(super) const fn default(
    name: &'static str,
    access: Access,
    value: Value,
    default: &'static str,
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Default(default), help)
}

/// An optional key whose absence means none of its values.
pub(super) const fn optional(
    name: &'static str,
    access: Access,
    value: Value,
    (otherwise, example): (&'static str, &'static str),
    help: &'static str,
) -> Key {
    new(name, access, value, Absent::Otherwise(otherwise, example), help)
}

/// A key that holds tables.
pub(super) const fn table(
    name: &'static str,
    access: Access,
    header: &'static str,
    help: &'static str,
) -> Key {
    new(
        name,
        access,
        Value::Tables(header),
        Absent::Otherwise("none", ""),
        help,
    )
}

pub(super) const fn new(
    name: &'static str,
    access: Access,
    value: Value,
    absent: Absent,
    help: &'static str,
) -> Key {
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
    pub(super) const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    pub(super) const fn of(mut self, kinds: &'static [&'static str]) -> Self {
        self.kinds = kinds;
        self
    }
}

/// One of the words of a type.
pub(super) const fn one_of<W: Word>() -> Value {
    Value::OneOf(|| W::WORDS.iter().map(|(_, word)| *word).collect())
}

pub(super) const BOOLEAN: Value = Value::Is("`true` or `false`");
pub(super) const DURATION: Value = Value::Is("duration, up to `1d`");
pub(super) const TEXT: Value = Value::Is("text");
pub(super) const PORT: Value = Value::Is("0 to 65535");
pub(super) const ADDRESS: Value = Value::Is("IP address");
pub(super) const PREFIXES: Value = Value::Is("list of prefixes");
pub(super) const NUMBER: Value = Value::Is("0 to 4294967295");
pub(super) const REGEX: Value = Value::Is("regular expression");
pub(super) const FILE_PATH: Value = Value::Is("path of a file");
pub(super) const ABSOLUTE: Value = Value::Is("absolute path");
