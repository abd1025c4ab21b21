//! A key of the configuration file, and the tables of keys.

use super::{
    access::{Access, Keys, Subject},
    codec::Input,
};
use crate::{
    config::{error::Reporter, table::Table},
    state::desired::Desired,
    value_error::ValueError,
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
    /// The option of the command line that sets it; `None`: no option does.
    pub option: Option<CliOption>,
    /// The key that may stand in its place.
    pub instead: Option<&'static str>,
    /// Whether the file alone sets it, and no request.
    pub is_of_file: bool,
    /// Whether an empty text in a request removes it.
    pub is_removed_by_empty: bool,
    /// Whether its value may be a credential: events, logs and support bundles do not have it.
    pub is_secret: bool,
    /// Whether only a start of the daemon reads it, so that another value in the file needs a restart.
    pub needs_restart: bool,
}

/// The option of the command line that sets a key.
#[derive(Clone, Copy, Debug)]
pub struct CliOption {
    /// Its whole name; empty: the prefix of the table and the name of the key.
    pub name: &'static str,
    /// What its help calls the value; empty: as the value's type says.
    pub value_name: &'static str,
    /// What its help adds to the help of the key; may be empty.
    pub remark: &'static str,
    /// Refuses a value that makes no sense before the daemon does.
    pub check: fn(&str) -> Result<(), ValueError>,
}

/// Values that a key takes.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Their type in a file, in a request and on the command line.
    pub shape: Shape,
    /// The values in words; empty: as the type says.
    pub(super) about: &'static str,
    /// What the help of an option calls them; empty: the key's name.
    pub(super) name: &'static str,
}

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A text.
    Text,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    Bool,
    /// A whole number: the least and the most.
    Number(u32, u32),
    /// A number from 0 to 1.
    Share,
    /// A number, or this word.
    NumberOr(&'static str),
    /// A list of texts.
    Texts(Separated),
    /// A list of numbers and texts.
    Numbers,
    /// A number or a text, or a list of these.
    OneOrMore,
    /// A table of texts.
    Map,
    /// A table, or a list of tables where [`KeyTable::is_list`] says so.
    Table(&'static KeyTable),
}

/// How an option takes the items of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Separated {
    /// With commas between them.
    ByCommas,
    /// As one option each.
    ByOptions,
    /// As one option each, for words of a command, which may begin with a hyphen.
    AsWords,
}

impl Value {
    /// The values in words.
    pub fn about(&self) -> String {
        match self.shape {
            _ if !self.about.is_empty() => self.about.to_owned(),
            Shape::Word(words) => {
                let words: Vec<String> = words().iter().map(|word| format!("`{word}`")).collect();
                words.join(", ")
            }
            Shape::Number(least @ 1.., u32::MAX) => format!("from {least}"),
            Shape::Number(least, most) => format!("{least} to {most}"),
            Shape::Table(table) => format!("`{}`", table.header),
            Shape::Text
            | Shape::Bool
            | Shape::Share
            | Shape::NumberOr(_)
            | Shape::Texts(_)
            | Shape::Numbers
            | Shape::OneOrMore
            | Shape::Map => String::new(),
        }
    }
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

    /// Whether a file may have several of it.
    pub fn is_list(&self) -> bool {
        self.header.starts_with("[[")
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
    /// The name of the option that sets it, where the options of its table begin with `prefix`; `None`: no option does, or the
    /// keys of its table have options.
    pub fn option_name(&self, prefix: &str) -> Option<String> {
        if matches!(self.value.shape, Shape::Table(table) if !table.is_list()) {
            return None;
        }
        let name = match self.option?.name {
            "" => format!("{prefix}{}", self.name),
            name => name.to_owned(),
        };
        Some(name.replace('_', "-"))
    }

    /// How the help of its option calls the value.
    pub fn value_name(&self) -> String {
        let own = self.option.map_or("", |option| option.value_name);
        match (own, self.value.name) {
            ("", "") => self.name.to_uppercase(),
            ("", name) | (name, _) => name.to_owned(),
        }
    }

    /// Whether a service or a backend cannot do without it.
    pub fn is_required(&self) -> bool {
        matches!(self.absent, Absent::Required(_)) && self.kinds.is_empty() && self.instead.is_none()
    }

    /// Whether the value, in TOML, is the default, so that the key can be left out.
    pub(in crate::config) fn is_default(&self, value: &str) -> bool {
        matches!(self.absent, Absent::Default(default) if default == value)
    }
}
